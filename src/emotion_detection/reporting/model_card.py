"""The model card of any result in Hugging Face's form: metadata with a model-index, then Markdown."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from emotion_detection.emotions import EMOTIONS
from emotion_detection.reporting.comparison import class_scores
from emotion_detection.reporting.evidence import evidence_rows, megabytes, shadow_rows
from emotion_detection.reporting.results import Results
from emotion_detection.reporting.sources import REGISTERED, SHIPPED, find_results
from emotion_detection.reporting.templating import one_line, render

FER2013, SAMPLE = "fer2013", "sample"
SPLITS = {
    "val": "used to select the recipe, the epoch and the temperature",
    "test": "used for this report only",
    "test_clean": "test without the faces that are also in the training split",
}
# The official names of FER-2013's splits.
OFFICIAL = {"val": "PublicTest", "test": "PrivateTest"}
CARD_METRICS = {
    "accuracy": ("accuracy", "Accuracy"),
    "macro_f1": ("f1", "Macro F1"),
    "ece": ("ece", "Calibration error"),
}
# Facts about the training that were recorded as tags, by what the card calls them.
ORIGIN_TAGS = {
    "recipe": "recipe", "dataset": "data set", "dataset_digest": "digest of the prepared faces",
    "dvc_md5": "MD5 of the raw data", "code_tree": "git tree of the code", "environment": "environment",
    "dvc_experiment": "DVC experiment", "command": "command",
}  # fmt: skip


@dataclass(frozen=True)
class CardSubject:
    """What a card is about: the results, and what the ONNX file and its registry say. Unknown values are None or ""."""

    results: Results
    title: str
    uri: str = ""  # models:/NAME/NUMBER
    megabytes: float | None = None
    is_shipped: bool = False


def find_subject(reference: str, project: Path) -> CardSubject:
    """What a reference names, for its card. Raises an EmotionDetectionError as `find_results` does."""
    results = find_results(reference, project)
    if reference == SHIPPED:
        return CardSubject(results, "Shipped model", megabytes=_megabytes(results.model), is_shipped=True)
    if reference.startswith(REGISTERED):
        name, _, number = results.origin.name.rpartition(" version ")
        size = _megabytes(results.model) or megabytes(results.tags)  # its file is not fetched for that
        return CardSubject(results, results.origin.name, f"{REGISTERED}{name}/{number}", size)
    return CardSubject(results, results.origin.name or results.origin.reference)


def _megabytes(model: Path | None) -> float | None:
    return None if model is None else model.stat().st_size / 1e6


def model_card(subject: CardSubject) -> str:
    """The card as the text of a README.md, which `huggingface_hub.ModelCard.load` reads."""
    results = subject.results
    body = render(
        "model_card.md",
        interval=interval,
        weakest=weakest,
        subject=subject,
        results=results,
        emotions=EMOTIONS,
        is_fer2013=results.dataset == FER2013,
        is_sample=results.dataset == SAMPLE,
        is_averaged=bool(results.params.get("train.average.weights")),
        splits=[split_row(results, split) for split in SPLITS if f"{split}_accuracy" in results.metrics],
        metrics=results.metrics,
        classes=test_classes(results),
        origin=origin_facts(results),
        parameters=parameters(results),
        evidence=evidence_rows(results.tags),
        shadow=shadow_rows(results.tags),
    )
    return f"---\n{card_data(subject).to_yaml()}\n---\n\n{tidy(body)}"


def card_text(card: str) -> str:
    """A card without its metadata, for a page that shows Markdown."""
    return str(ModelCard(card, ignore_metadata_errors=True).text).strip() + "\n"


def card_data(subject: CardSubject) -> ModelCardData:
    """The metadata of the card, with the scores as a model-index."""
    results = subject.results
    found = [
        _eval_result(results, split, name)
        for split in SPLITS
        for name in CARD_METRICS
        if f"{split}_{name}" in results.metrics
    ]
    return ModelCardData(
        license="mit" if subject.is_shipped else None,
        library_name="onnx",
        pipeline_tag="image-classification",
        tags=["facial-expression-recognition", "emotion-recognition"],
        metrics=["accuracy", "f1"],
        model_name=one_line(subject.title),
        eval_results=found or None,
    )


def _eval_result(results: Results, split: str, name: str) -> EvalResult:
    metric, title = CARD_METRICS[name]
    bounds = {end: results.metrics.get(f"{split}_{name}_{end}") for end in ("low", "high")}
    dataset = one_line(results.dataset) or "unknown"
    return EvalResult(
        task_type="image-classification",
        task_name="Facial expression recognition",
        dataset_type=dataset,
        dataset_name="FER-2013" if dataset == FER2013 else dataset,
        dataset_split=split,
        dataset_revision=one_line(results.digest) or None,
        metric_type=metric,
        metric_name=title,
        metric_value=round(results.metrics[f"{split}_{name}"], 6),
        metric_args={end: round(bound, 6) for end, bound in bounds.items() if bound is not None} or None,
    )


def split_row(results: Results, split: str) -> dict[str, str]:
    """The scores of a split as text; a score that was not recorded is "–"."""
    metrics = results.metrics
    official = f"{OFFICIAL[split]}, " if results.dataset == FER2013 and split in OFFICIAL else ""
    return {
        "name": f"{split} ({official}{SPLITS[split]})",
        "faces": _number(metrics, f"{split}_rows", "{:,.0f}"),
        "accuracy": interval(metrics, f"{split}_accuracy", percent=True),
        "macro_f1": interval(metrics, f"{split}_macro_f1"),
        "log_loss": _number(metrics, f"{split}_log_loss", "{:.3f}"),
        "ece": _number(metrics, f"{split}_ece", "{:.3f}"),
    }


def _number(metrics: Mapping[str, float], key: str, form: str) -> str:
    return form.format(metrics[key]) if key in metrics else "–"


def interval(metrics: Mapping[str, float], key: str, *, percent: bool = False) -> str:
    """A score with its interval, such as "70.1 % [68.6, 71.6]"; "–" if it was not recorded."""
    if key not in metrics:
        return "–"
    scale, form, unit = (100, "{:.1f}", " %") if percent else (1, "{:.3f}", "")
    value, *bounds = (
        form.format(scale * metrics[name]) for name in (key, f"{key}_low", f"{key}_high") if name in metrics
    )
    return f"{value}{unit}" + (f" [{', '.join(bounds)}]" if len(bounds) == 2 else "")


def test_classes(results: Results) -> list[dict[str, Any]]:
    """The scores of each emotion on test as numbers, rates in percent; empty if they were not recorded."""
    scores = class_scores(results)
    rows = [scores["test", emotion] for emotion in EMOTIONS if ("test", emotion) in scores]
    rates = ("recall", "recall_low", "recall_high", "precision")
    return [
        {rate: 100 * float(row[rate]) for rate in rates}
        | {"emotion": row["emotion"], "f1": float(row["f1"]), "support": int(row["support"])}
        for row in rows
    ]


def origin_facts(results: Results) -> list[tuple[str, str]]:
    """How the model was made, as far as it was recorded: names and values."""
    origin, tags = results.origin, results.tags
    dirty = ", with uncommitted changes" if tags.get("git_dirty") == "true" else ""
    note = f" ({tags['git_note']})" if tags.get("git_note") else ""
    named = {
        "run": origin.run_id,
        "commit": f"{origin.commit}{dirty}{note}" if origin.commit else "",
        "date": origin.date,
    }
    known = named | {name: tags.get(key, "") for key, name in ORIGIN_TAGS.items()}
    known["digest of the prepared faces"] = results.digest
    return [(name, one_line(value)) for name, value in known.items() if one_line(value)]


def parameters(results: Results) -> str:
    """The number of parameters; "" if it was not recorded."""
    recorded = results.tags.get("parameters", "")
    return f"{int(recorded):,}" if re.fullmatch("[0-9]{1,15}", recorded) else ""


def weakest(classes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The three emotions with the lowest F1."""
    scored = [row for row in classes if not math.isnan(row["f1"])]
    return sorted(scored, key=lambda row: float(row["f1"]))[:3]


def tidy(text: str) -> str:
    """Markdown with at most one empty line in a row."""
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
