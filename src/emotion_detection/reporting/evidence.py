"""The evidence with which a version was registered, as text."""

from collections.abc import Mapping
from typing import Any

from emotion_detection.reporting.comparison import show_p

POINTS = {"accuracy": "gain in accuracy", "macro_f1": "gain in macro-F1"}


def read_evidence(tags: Mapping[str, str]) -> dict[str, Any]:
    """The evidence of a version; empty if none was recorded or if it cannot be read."""
    if "evidence" not in tags:
        return {}
    from emotion_detection.experiments.promotion import parse_evidence  # imports MLflow, which takes seconds

    evidence = parse_evidence(tags["evidence"])
    return evidence if isinstance(evidence.get("verdict"), str) else {}


def evidence_rows(tags: Mapping[str, str]) -> list[tuple[str, str]]:
    """The evidence as names and values, as far as it was recorded."""
    evidence = read_evidence(tags)
    counts, gains = _section(evidence, "counts"), _section(evidence, "gains")
    rows = [
        ("verdict", evidence.get("verdict")),
        ("opponent", _version(evidence.get("opponent"))),
        ("against a promotion", "; ".join(_texts(evidence.get("objections")))),
        ("faces of val", evidence.get("rows")),
        ("only this version right", counts.get("only_head")),
        ("only the opponent right", counts.get("only_base")),
        ("McNemar's test, p", _p_value(evidence.get("mcnemar_p"))),
        *((name, _gain(gains.get(key))) for key, name in POINTS.items()),
        ("detectable gain in accuracy", _points(evidence.get("detectable_gain"))),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


def _section(evidence: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = evidence.get(key)
    return section if isinstance(section, Mapping) else {}


def _version(number: object) -> str | None:
    return f"version {number}" if isinstance(number, int) else None


def _texts(values: object) -> list[str]:
    return [str(value) for value in values] if isinstance(values, list) else []


def _p_value(value: object) -> str | None:
    return show_p(value).removeprefix("= ") if isinstance(value, int | float) else None


def _points(value: object) -> str | None:
    return f"{100 * value:.1f} points" if isinstance(value, int | float) else None


def _gain(gain: object) -> str | None:
    """A gain with its interval in percentage points."""
    section: Mapping[str, Any] = gain if isinstance(gain, Mapping) else {}
    value, low, high = (section.get(key) for key in ("value", "low", "high"))
    if not (isinstance(value, int | float) and isinstance(low, int | float) and isinstance(high, int | float)):
        return None
    return f"{100 * value:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
