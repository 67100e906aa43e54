"""The model card of the shipped model, written from its metadata and scores."""

from collections.abc import Mapping, Sequence

from emotion_detection.emotions import EMOTIONS

Numbers = Mapping[str, float]
Rows = Sequence[Mapping[str, str]]

SPLIT_NAMES = {
    "val": "val (PublicTest, used to select the recipe, the epoch and the temperature)",
    "test": "test (PrivateTest, used for this report only)",
    "test_clean": "test_clean (test without the faces that are also in FER-2013's training split)",
}

USES = """\
Use the model for demonstrations, for teaching, for games and art where an error has no consequences, and as a starting
point for experiments. It classifies the facial expression in a single image. It does not recognize feelings,
intentions, honesty or character, which cannot be inferred from an image.

Do not use it for decisions about people. The European Union's AI Act (Regulation 2024/1689, article 5(1)(f)) prohibits
systems that infer emotions at the workplace and in schools, except for medical or safety reasons. Elsewhere you must
inform the people whose faces are analyzed (article 50(3)). Ask for their consent and do not store frames.
"""

DATA = """\
FER-2013 (Goodfellow et al. 2013, arXiv 1307.0414) has 35,887 gray 48x48 faces, which an image search returned for
emotion words and a few people labeled. The labels are ambiguous: when ten people labeled each face again (FER+, Barsoum
et al. 2016, arXiv 1608.01041), the most frequent label of a face got 74 % of the votes on average on the test split.
The images have no license, and this project does not contain any. The identity, age and origin of the people were not
recorded, so differences in performance between groups are unknown. Training faces that are copies of val or test faces
were removed.
"""


def model_card(run: Mapping[str, object], metrics: Numbers, classes: Rows, *, megabytes: float) -> str:
    """Markdown from run.json, metrics.json and the rows of classes.csv."""
    sections = [
        f"# Shipped model\n\n{_overview(run, megabytes)}",
        f"## Evaluation\n\n{_splits(metrics)}\n{_further_results(metrics)}",
        f"## Results by emotion (test)\n\n{_by_emotion(classes)}\n{_limitations(classes)}",
        f"## Intended uses\n\n{USES}",
        f"## Training data\n\n{DATA}",
    ]
    return "\n".join(sections)


def _overview(run: Mapping[str, object], megabytes: float) -> str:
    parameters = int(str(run["parameters"]))
    trained = f" on {run['date']}" if "date" in run else ""
    emotions = f"{', '.join(EMOTIONS[:-1])} and {EMOTIONS[-1]}"
    return (
        "`model.onnx` takes faces, `uint8 [n, 48, 48, 1]`, and returns the probabilities, `float32 [n, 7]`, of "
        f"{emotions}. It has {parameters:,} parameters and {megabytes:.1f} MB, and runs with onnxruntime.\n\n"
        f"Released{trained}, trained with `{run['recipe']}`: run `{run['run_id']}`, data "
        f"`{str(run['dataset_digest'])[:12]}`. To reproduce it: `make data SOURCE=...`, "
        f"`make adopt FROM={run['recipe']}`, `make repro`.\n"
    )


def _splits(metrics: Numbers) -> str:
    lines = ["| split | faces | accuracy [95 %] | macro-F1 [95 %] | log loss | ECE |", "|---|--:|--:|--:|--:|--:|"]
    for split, name in SPLIT_NAMES.items():
        if f"{split}_accuracy" in metrics:
            accuracy, f1 = _interval(metrics, f"{split}_accuracy", 100), _interval(metrics, f"{split}_macro_f1", 1)
            rows, loss, ece = (metrics[f"{split}_{key}"] for key in ("rows", "log_loss", "ece"))
            lines.append(f"| {name} | {rows:,.0f} | {accuracy} | {f1} | {loss:.3f} | {ece:.3f} |")
    return "\n".join(lines) + "\n"


def _further_results(metrics: Numbers) -> str:
    """A sentence for each optional measurement that was made."""
    sentences = []
    if "test_flip_accuracy" in metrics:
        accuracy = _interval(metrics, "test_flip_accuracy", 100)
        sentences.append(f"Test accuracy, averaged over the face and its mirror image: {accuracy}.")
    if "test_ece_uncalibrated" in metrics:
        val, test = (_calibration_error(metrics, split) for split in ("val", "test"))
        sentences.append(
            f"The logits are divided by a temperature of {metrics['temperature']:.3f}, which minimizes the log loss on "
            f"val. The expected calibration error is {val}, and {test}."
        )
    if "test_detected_accuracy" in metrics:
        share, detected, plain = (metrics[f"test_detected_{key}"] for key in ("share", "accuracy", "plain_accuracy"))
        sentences.append(
            f"The detector found {100 * share:.0f} % of the test faces when they were pasted into larger images. On "
            f"these, the accuracy is {100 * detected:.1f} % with the detector's crops and {100 * plain:.1f} % with "
            "FER-2013's own crops."
        )
    if "test_found_and_read_right" in metrics:
        right = metrics["test_found_and_read_right"]
        sentences.append(
            f"So {100 * right:.0f} % of all test faces are found and read right. `end_to_end.csv` in the report has "
            "these shares for faces of many sizes, turned heads, dim light and each emotion."
        )
    sentences.append("`reliability_test.png` shows the calibration, `learning_curves.png` the training.")
    return "\n".join(sentences) + "\n"


def _calibration_error(metrics: Numbers, split: str) -> str:
    calibrated, raw = metrics[f"{split}_ece"], metrics[f"{split}_ece_uncalibrated"]
    return f"{calibrated:.3f} with it and {raw:.3f} without it on {split}"


def _by_emotion(classes: Rows) -> str:
    lines = ["| emotion | faces | recall, % [95 %] | precision, % | F1 |", "|---|--:|--:|--:|--:|"]
    for row in _test(classes):
        recall, low, high = (100 * float(row[key]) for key in ("recall", "recall_low", "recall_high"))
        precision, f1 = 100 * float(row["precision"]), float(row["f1"])
        interval = f"{recall:.0f} [{low:.0f}, {high:.0f}]"
        lines.append(f"| {row['emotion']} | {row['support']} | {interval} | {precision:.0f} | {f1:.2f} |")
    return "\n".join(lines) + "\n"


def _limitations(classes: Rows) -> str:
    worst = sorted(_test(classes), key=lambda row: float(row["f1"]))[:3]
    weakest = ", ".join(f"{row['emotion']} (recall {100 * float(row['recall']):.0f} %)" for row in worst)
    rarest = min(_test(classes), key=lambda row: int(row["support"]))
    return (
        f"The weakest emotions are {weakest}. `confusion_test.png` shows what they are confused with. The scores of "
        f"{rarest['emotion']} are based on {rarest['support']} faces. The detector finds upright, frontal faces only. "
        "The influence of lighting, glasses, beards and age was not measured separately.\n"
    )


def _test(classes: Rows) -> Rows:
    return [row for row in classes if row["split"] == "test"]


def _interval(metrics: Numbers, key: str, scale: int) -> str:
    value, low, high = (scale * metrics[f"{key}{end}"] for end in ("", "_low", "_high"))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]" if scale == 100 else f"{value:.3f} [{low:.3f}, {high:.3f}]"
