"""What the model tab shows of the served version's origin, evidence and history."""

import copy
import itertools
import json
import threading
from dataclasses import replace
from typing import Any

import pytest

import facts
from champion import LoadedModel, ServedModel
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


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """The tests do not depend on the speed of the machine."""
    monkeypatch.setattr(facts, "WAIT_S", 60)


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
    html = facts_html(champion.current)
    assert "Origin of the served model" in html
    assert "recipes/fer_resnet_average.yaml" in html
    assert NO_EVIDENCE in html
    assert "<td>seed</td><td>the shipped model</td>" in html


def test_card_of_the_champion_has_no_metadata(champion):
    card = card_markdown(champion.current)
    assert card.startswith("# `emotion-detection version 1`")
    assert "model-index" not in card


def test_shipped_file_has_its_origin_and_its_card(shipped):
    assert "recipes/fer_resnet_average.yaml" in facts_html(shipped.current)
    assert "History" not in facts_html(shipped.current)
    assert card_markdown(shipped.current).startswith("# Shipped model")


def test_other_file_has_neither(shipped):
    served = other(shipped, "elsewhere.onnx")
    assert facts_html(served.current) == ""
    assert card_markdown(served.current) == NO_CARD


def test_evidence_is_shown_with_its_gains_and_objections_escaped():
    html = evidence_html({"evidence": json.dumps(EVIDENCE)})
    for text in ("better", "version 1", "+2.8 points [+1.0, +4.0]", "1.8 points", "&lt;b&gt;slow&lt;/b&gt;"):
        assert f"<td>{text}</td>" in html


def test_answers_as_a_challenger_are_shown():
    shadow = {"champion": "models:/<b>/2", "faces": 1200, "agreement": 0.9}
    html = evidence_html({"shadow": json.dumps(shadow)})
    assert NO_EVIDENCE in html
    assert "90.0 %" in html
    assert "1,200" in html
    assert "models:/&lt;b&gt;/2" in html
    assert "challenger" not in evidence_html({"evidence": json.dumps(EVIDENCE)})


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


class Registry:
    """Counts how often it is asked. It fails as long as `error` is not empty."""

    def __init__(self) -> None:
        self.asked, self.error, self.now_s = 0, "", 0.0

    def __call__(self, model: LoadedModel) -> str:
        self.asked += 1
        self.now_s += 50  # a server that does not respond takes this long
        if self.error:
            raise StoreError(self.error)
        return f"facts about {model.source}"

    def clock(self) -> float:
        return self.now_s


@pytest.fixture
def registry(monkeypatch) -> Registry:
    found = Registry()
    monkeypatch.setattr(facts, "facts_html", found)
    return found


@pytest.fixture
def served(shipped) -> ServedModel:
    found = other(shipped, "models:/faces/1")
    found.message = ""
    return found


def test_registry_that_failed_is_asked_again_after_a_minute(served, registry):
    known = ServedFacts(served, registry.clock)
    registry.error = "<refused>\x1b[2J"
    assert "cannot be read: &lt;refused&gt; [2J</p>" in known.html([])
    registry.error = ""
    registry.now_s += 59
    assert "refused" in known.html([])
    assert registry.asked == 1
    registry.now_s += 1
    assert [known.html([]), known.html([])] == ["facts about models:/faces/1"] * 2
    assert registry.asked == 2


def test_registry_that_does_not_respond_holds_up_no_page(served, monkeypatch):
    monkeypatch.setattr(facts, "WAIT_S", 0)
    answer, asked = threading.Event(), []

    def wait(model: LoadedModel) -> str:
        asked.append(model)
        assert answer.wait(60)
        return "the facts"

    monkeypatch.setattr(facts, "facts_html", wait)
    known = ServedFacts(served)
    try:
        # The versions have changed meanwhile, and the first question has no answer yet: no second one is asked.
        assert [known.html([]), known.html([{"version": "2"}])] == ["", ""]
    finally:
        answer.set()
        known._background.finish(60)
    assert len(asked) == 1
    assert known._html == "the facts"


def test_unexpected_error_is_not_repeated_at_once_either(served, monkeypatch):
    calls = []

    def fail(model: LoadedModel) -> str:
        calls.append(model)
        raise ValueError("a bug")

    monkeypatch.setattr(facts, "facts_html", fail)
    known = ServedFacts(served, lambda: 0)
    assert "cannot be read: a bug" in known.html([])
    assert "a bug" in known.html([])
    assert len(calls) == 1


def test_registry_that_is_known_to_be_away_is_not_asked(served, registry):
    known = ServedFacts(served, registry.clock)
    served.message = "The registry refused."
    assert known.html([]) == ""
    served.message = ""
    assert known.html([]) == "facts about models:/faces/1"
    served.message = "The registry refused."
    assert known.html([{"version": "2"}]) == "facts about models:/faces/1"
    assert registry.asked == 1


def test_facts_of_a_file_need_no_registry(shipped, registry):
    served = other(shipped, shipped.current.source)
    served.message = "The registry has not responded yet."
    assert ServedFacts(served, registry.clock).html([]).startswith("facts about")


def test_facts_of_another_model_are_not_shown(served, registry):
    known = ServedFacts(served, registry.clock)
    assert known.html([])
    served.current = replace(served.current, source="models:/faces/2")
    served.message = "The registry refused."
    assert known.html([]) == ""


def test_control_characters_of_a_move_are_removed():
    assert "<td>a [2J</td>" in history_html([{"at": "1", "why": "a\x1b[2J\u202e"}])
