"""What the model tab shows of the served version's origin, evidence and history."""

import copy
import itertools
import json
from dataclasses import replace
from typing import Any

import pytest

import facts
from champion import ServedModel
from emotion_detection.errors import StoreError
from emotion_detection.inference import pretrained
from facts import NO_CARD, NO_EVIDENCE, NO_HISTORY, ServedFacts, card_markdown, evidence_html, facts_html, history_html

EVIDENCE = {
    "verdict": "better",
    "opponent": 1,
    "rows": 3543,
    "counts": {"only_head": 300, "only_base": 200},
    "mcnemar_p": 0.00001,
    "gains": {"accuracy": {"value": 0.028, "low": 0.01, "high": 0.04}},
    "detectable_gain": 0.0175,
    "objections": ["<b>slow</b>"],
}


@pytest.fixture
def champion(store) -> ServedModel:  # noqa: ARG001
    """The shipped model as the champion of a registry."""
    pretrained.seed_registry()
    served = ServedModel(None)
    served.update()
    return served


def other(shipped: ServedModel, source: str) -> ServedModel:
    served = copy.copy(shipped)
    served.current = replace(shipped.current, source=source)
    return served


def test_facts_of_the_champion(champion):
    html = facts_html(champion)
    assert "Origin of the served model" in html
    assert "recipes/fer_resnet_graduate.yaml" in html
    assert NO_EVIDENCE in html
    assert "<td>seed</td><td>the shipped model</td>" in html


def test_card_of_the_champion_has_no_metadata(champion):
    card = card_markdown(champion)
    assert card.startswith("# `emotion-detection version 1`")
    assert "model-index" not in card


def test_shipped_file_has_its_origin_and_its_card(shipped):
    assert "recipes/fer_resnet_graduate.yaml" in facts_html(shipped)
    assert "History" not in facts_html(shipped)
    assert card_markdown(shipped).startswith("# Shipped model")


def test_other_file_has_neither(shipped):
    served = other(shipped, "elsewhere.onnx")
    assert facts_html(served) == ""
    assert card_markdown(served) == NO_CARD


def test_evidence_is_shown_with_its_gains_and_objections_escaped():
    html = evidence_html({"evidence": json.dumps(EVIDENCE)})
    for text in ("better", "version 1", "+2.8 points [+1.0, +4.0]", "1.8 points", "&lt;b&gt;slow&lt;/b&gt;"):
        assert f"<td>{text}</td>" in html


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"verdict": 1}', '{"verdict": "better", "counts": 3, "gains": {"accuracy": 2}}']
)
def test_damaged_evidence_is_shown_as_far_as_it_can_be_read(text):
    assert "gain" not in evidence_html({"evidence": text})


def test_history_is_shown_with_the_newest_move_first_and_escaped():
    moves: list[dict[str, Any]] = [
        {"at": "1", "by": "a", "alias": "champion", "from": None, "to": 1, "kind": "seed", "why": "first"},
        {"at": "2", "by": "<i>", "alias": "champion", "from": 1, "to": 2, "kind": "promote", "why": "<script>"},
    ]
    html = history_html(moves)
    assert html.index("promote") < html.index("seed")
    assert "<td>–</td><td>1</td>" in html
    assert "<script>" not in html
    assert history_html([]).endswith(f"{NO_HISTORY}</p>")


def test_registry_is_asked_again_only_after_a_change(shipped, monkeypatch):
    counter = itertools.count(1)
    monkeypatch.setattr(facts, "facts_html", lambda _: str(next(counter)))
    served = other(shipped, "models:/faces/1")
    known = ServedFacts(served)
    assert [known.html([]), known.html([]), known.html([{"version": "2"}])] == ["1", "1", "2"]
    served.current = replace(served.current, source="models:/faces/2")
    assert known.html([{"version": "2"}]) == "3"


def test_registry_that_failed_is_asked_again(shipped, monkeypatch):
    calls = itertools.count()

    def ask(_: ServedModel) -> str:
        if next(calls) == 0:
            raise StoreError("<refused>")
        return "facts"

    monkeypatch.setattr(facts, "facts_html", ask)
    known = ServedFacts(shipped)
    assert "cannot be read: &lt;refused&gt;" in known.html([])
    assert known.html([]) == "facts"
