"""The evidence with which a version was registered or promoted, as text."""

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from emotion_detection.reporting.comparison import show_p
from emotion_detection.reporting.results import is_count
from emotion_detection.reporting.templating import one_line

MAX_MB = 1e6
SHOWN_DIFFERENCES = 3
MOST_OF_ALL = 99.9  # % of a share that is not all
POINTS = {"accuracy": "gain in accuracy", "macro_f1": "gain in macro-F1"}


def read_evidence(tags: Mapping[str, str]) -> dict[str, Any]:
    """The evidence of a version; empty if none was recorded or if it cannot be read."""
    if "evidence" not in tags:
        return {}
    from emotion_detection.experiments.promotion import parse_evidence  # imports MLflow, which takes seconds

    with suppress(RecursionError):  # it is nested too deeply
        evidence = parse_evidence(tags["evidence"])
        return evidence if isinstance(evidence.get("verdict"), str) else {}
    return {}


def megabytes(tags: Mapping[str, str]) -> float | None:
    """The size of the ONNX file when it was registered; None if it was not recorded."""
    size = _number(read_evidence(tags).get("mb"))
    return size if size is not None and 0 < size < MAX_MB else None


def evidence_rows(tags: Mapping[str, str]) -> list[tuple[str, str]]:
    """The evidence as names and values, as far as it was recorded."""
    evidence = read_evidence(tags)
    counts, gains = _section(evidence, "counts"), _section(evidence, "gains")
    rows = [
        ("verdict", evidence.get("verdict")),
        ("opponent", _version(evidence.get("opponent"))),
        ("against a promotion", "; ".join(_texts(evidence.get("objections")))),
        ("faces of val", _count(evidence.get("rows"))),
        ("only this version right", _count(counts.get("only_head"))),
        ("only the opponent right", _count(counts.get("only_base"))),
        ("McNemar's test, p", _p_value(evidence.get("mcnemar_p"))),
        *((name, _gain(gains.get(key))) for key, name in POINTS.items()),
        ("detectable gain in accuracy", _points(evidence.get("detectable_gain"))),
    ]
    return [(name, one_line(value)) for name, value in rows if value]


def shadow_rows(tags: Mapping[str, str]) -> list[tuple[str, str]]:
    """What a service has counted about a version as its challenger, as names and values; empty without a count."""
    shadow = _read_shadow(tags)
    faces, agreement = _count(shadow.get("faces")), _share(shadow.get("agreement"))
    if not shadow.get("faces") or faces is None or agreement is None:
        return []
    champion, difference = shadow.get("champion"), _fraction(shadow.get("mean_difference"))
    rows = [
        ("champion", champion.strip() if isinstance(champion, str) else None),
        ("faces read by both", faces),
        ("the same emotion", agreement),
        ("most frequent differences", "; ".join(_differences(shadow.get("emotions"), shadow.get("counts")))),
        ("mean difference of the probabilities", None if difference is None else f"{difference:.3f}"),
    ]
    return [(name, one_line(value)) for name, value in rows if value]


def describe_shadow(tags: Mapping[str, str]) -> str:
    """The same in one line; "" without a count."""
    known = dict(shadow_rows(tags))
    if not known:
        return ""
    champion = known.get("champion", "another version")
    agreement = f"{known['the same emotion']} of {known['faces read by both']} faces as {champion}"
    differences = known.get("most frequent differences")
    return f"{agreement} ({differences})" if differences else agreement


def _read_shadow(tags: Mapping[str, str]) -> dict[str, Any]:
    if "shadow" not in tags:
        return {}
    from emotion_detection.experiments.promotion import parse_evidence  # imports MLflow, which takes seconds

    with suppress(RecursionError):  # it is nested too deeply
        return parse_evidence(tags["shadow"])
    return {}


def _differences(emotions: object, counts: object) -> list[str]:
    """How often the champion (first) and the challenger have seen different emotions, the most frequent ones first.

    counts: faces by the champion's emotion (rows) and the challenger's. Empty if one of them is wrong, as names and
    numbers would not belong together.
    """
    names = _texts(emotions)
    if names != emotions or not isinstance(counts, list) or len(counts) != len(names):
        return []
    if not all(isinstance(row, list) and len(row) == len(names) and all(map(is_count, row)) for row in counts):
        return []
    found = [
        (count, first, second)
        for first, row in zip(names, counts, strict=True)
        for second, count in zip(names, row, strict=True)
        if first != second and count
    ]
    found.sort(key=lambda one: -one[0])
    return [f"{first} → {second} {count:,}" for count, first, second in found[:SHOWN_DIFFERENCES]]


def _section(evidence: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = evidence.get(key)
    return section if isinstance(section, Mapping) else {}


def _version(number: object) -> str | None:
    return f"version {number}" if is_count(number) else None


def _count(value: object) -> str | None:
    return f"{value:,}" if is_count(value) else None


def _number(value: object) -> float | None:
    """A finite number; None for anything else, such as NaN or an integer that is too large for a float."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    with suppress(OverflowError):
        return float(value) if math.isfinite(value) else None
    return None


def _texts(values: object) -> list[str]:
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


def _fraction(value: object) -> float | None:
    fraction = _number(value)
    return fraction if fraction is not None and 0 <= fraction <= 1 else None


def _share(value: object) -> str | None:
    """A share in percent; 100.0 % only if it is all."""
    share = _fraction(value)
    if share is None:
        return None
    return f"{100 * share if share == 1 else min(100 * share, MOST_OF_ALL):.1f} %"


def _p_value(value: object) -> str | None:
    p = _number(value)
    return None if p is None else show_p(p).removeprefix("= ")


def _points(value: object) -> str | None:
    points = _number(value)
    return None if points is None else f"{100 * points:.1f} points"


def _gain(gain: object) -> str | None:
    """A gain with its interval in percentage points."""
    section: Mapping[str, Any] = gain if isinstance(gain, Mapping) else {}
    value, low, high = (_number(section.get(key)) for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return None
    return f"{100 * value:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
