"""The model card: what the shipped model is, how good it is and what it must not be used for, from its own numbers."""

from collections.abc import Mapping, Sequence

from emotion_detection.emotions import EMOTIONS

Numbers = Mapping[str, float]
Rows = Sequence[Mapping[str, str]]

NAMES = {
    "val": "val (PublicTest, chose the recipe, the epoch and the temperature)",
    "test": "test (PrivateTest, only reported)",
    "test_clean": "test_clean (test without the faces that FER-2013 trains on too)",
}

USE = """\
For showing people what such a model does, for teaching, for games and art where a wrong answer costs nothing, and as a
starting point for experiments. It reads what a face shows in one picture. It does not read feelings, intentions,
honesty or character; nobody can from a picture.

Not for decisions about people. The European Union's AI Act (Regulation 2024/1689, article 5(1)(f)) forbids systems that
infer emotions at work and in schools, but for medical or safety reasons; elsewhere it asks you to tell the people whose
faces are read (article 50(3)). Ask for consent, keep no frames.
"""

DATA = """\
FER-2013 (Goodfellow et al. 2013, arXiv 1307.0414): 35,887 gray 48x48 faces that a search engine returned for words of
emotion, labelled by few people. People disagree about them: when ten labelled each face anew (FER+, Barsoum et al.
2016, arXiv 1608.01041), the most chosen label of a face had 74 % of the votes on average on the test split. The
pictures carry no licence; none is in this project. Who is in them, how old they are and where they come from was never
recorded, so nobody can say for whom the model works worse. Training faces that are copies of val or test faces were
left out.
"""


def model_card(run: Mapping[str, object], metrics: Numbers, classes: Rows, *, megabytes: float) -> str:
    """Markdown from run.json, metrics.json and the rows of classes.csv of a shipped model."""
    parts = [
        f"# The model that ships\n\n{_what(run, megabytes)}",
        f"## How good it is\n\n{_splits(metrics)}\n{_beyond(metrics)}",
        f"## By emotion, on test\n\n{_by_emotion(classes)}\n{_failures(classes)}",
        f"## What for, and what not\n\n{USE}",
        f"## What it learnt from\n\n{DATA}",
    ]
    return "\n".join(parts)


def _what(run: Mapping[str, object], megabytes: float) -> str:
    parameters = int(str(run["parameters"]))
    made = f", on {run['date']}" if "date" in run else ""
    emotions = f"{', '.join(EMOTIONS[:-1])} and {EMOTIONS[-1]}"
    return (
        "`model.onnx` reads faces, `uint8 [n, 48, 48, 1]`, and gives probabilities, `float32 [n, 7]`, of "
        f"{emotions}. {parameters:,} parameters, {megabytes:.1f} MB, plain onnxruntime.\n\n"
        f"Made by `{run['recipe']}`{made}; run `{run['run_id']}`, data `{str(run['dataset_digest'])[:12]}`. To make it "
        f"again: `make data SOURCE=...`, `make adopt FROM={run['recipe']}`, `make repro`.\n"
    )


def _splits(metrics: Numbers) -> str:
    lines = ["| split | faces | accuracy [95 %] | macro-F1 [95 %] | log loss | ECE |", "|---|--:|--:|--:|--:|--:|"]
    for split, name in NAMES.items():
        if f"{split}_accuracy" in metrics:
            accuracy, f1 = _interval(metrics, f"{split}_accuracy", 100), _interval(metrics, f"{split}_macro_f1", 1)
            rows, loss, ece = (metrics[f"{split}_{key}"] for key in ("rows", "log_loss", "ece"))
            lines.append(f"| {name} | {rows:,.0f} | {accuracy} | {f1} | {loss:.3f} | {ece:.3f} |")
    return "\n".join(lines) + "\n"


def _beyond(metrics: Numbers) -> str:
    """What else was measured, as far as it was."""
    told = []
    if "test_flip_accuracy" in metrics:
        told.append(f"Averaged with the mirror image, test: {_interval(metrics, 'test_flip_accuracy', 100)}.")
    if "test_ece_uncalibrated" in metrics:
        val, test = (
            f"{metrics[f'{split}_ece']:.3f} with it and {metrics[f'{split}_ece_uncalibrated']:.3f} without on {split}"
            for split in ("val", "test")
        )
        told.append(
            f"The graph divides its logits by {metrics['temperature']:.3f}, fitted to the log loss on val: the "
            f"expected calibration error is {val}, {test}."
        )
    if "test_detected_accuracy" in metrics:
        share, found, plain = (metrics[f"test_detected_{key}"] for key in ("share", "accuracy", "plain_accuracy"))
        told.append(
            f"Pasted into larger pictures, {100 * share:.0f} % of the test faces were found by the detector; read from "
            f"its crops {100 * found:.1f} % of these are right, from FER-2013's own crops {100 * plain:.1f} %."
        )
    told.append("`reliability_test.png` shows the calibration, `learning_curves.png` the training.")
    return "\n".join(told) + "\n"


def _by_emotion(classes: Rows) -> str:
    lines = ["| emotion | faces | recall, % [95 %] | precision, % | F1 |", "|---|--:|--:|--:|--:|"]
    for row in _test(classes):
        recall, low, high = (100 * float(row[key]) for key in ("recall", "recall_low", "recall_high"))
        precision, f1 = 100 * float(row["precision"]), float(row["f1"])
        found = f"{recall:.0f} [{low:.0f}, {high:.0f}]"
        lines.append(f"| {row['emotion']} | {row['support']} | {found} | {precision:.0f} | {f1:.2f} |")
    return "\n".join(lines) + "\n"


def _failures(classes: Rows) -> str:
    worst = sorted(_test(classes), key=lambda row: float(row["f1"]))[:3]
    named = ", ".join(f"{row['emotion']} ({100 * float(row['recall']):.0f} % found)" for row in worst)
    rare = min(_test(classes), key=lambda row: int(row["support"]))
    return (
        f"Weakest: {named}; `confusion_test.png` shows what they are taken for. What is said of {rare['emotion']} "
        f"rests on {rare['support']} faces. The detector before it finds upright faces from the front only. Light, "
        "glasses, beards and age were not measured one by one.\n"
    )


def _test(classes: Rows) -> Rows:
    return [row for row in classes if row["split"] == "test"]


def _interval(metrics: Numbers, key: str, scale: int) -> str:
    value, low, high = (scale * metrics[f"{key}{end}"] for end in ("", "_low", "_high"))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]" if scale == 100 else f"{value:.3f} [{low:.3f}, {high:.3f}]"
