"""What the model tab shows, without a browser."""

import copy
import re
import threading
from dataclasses import replace

import gradio as gr
import pytest

import facts
import model_tab
from champion import LoadedModel, ServedModel
from emotion_detection.errors import StoreError
from model_tab import CHANGED, ModelTab, describe, model_choices, version_table

VERSIONS = [
    {"model": "faces", "version": "3", "aliases": ""},
    {"model": "faces", "version": "2", "aliases": "champion, tested"},
    {"model": "faces-sample", "version": "1", "aliases": "champion"},
]


@pytest.fixture
def registered(shipped) -> ServedModel:
    """The shipped model as if it came from a registry that does not respond any more."""
    tags = {"dataset": "fer2013", "run_id": "5f2b", "val_accuracy": "0.70336", "unused": "tag"}
    served = copy.copy(shipped)
    served.uri, served.message = "models:/faces@champion", "The registry refused."
    served.current = replace(shipped.current, source="models:/faces/2", tags=tags)
    served._versions = VERSIONS
    return served


@pytest.fixture
def tab(registered, monkeypatch) -> ModelTab:
    monkeypatch.setattr(facts, "facts_html", lambda _: "the facts")
    monkeypatch.setattr(facts, "WAIT_S", 60)
    with gr.Blocks() as page:
        return ModelTab(registered, page)


def test_choices_are_aliases_then_versions_of_each_model(registered):
    assert model_choices(registered, VERSIONS) == [
        "models:/faces@champion",
        "models:/faces@tested",
        "models:/faces/3",
        "models:/faces/2",
        "models:/faces-sample@champion",
        "models:/faces-sample/1",
    ]


def test_refresh_never_sets_the_choice(tab, registered):
    about, choice, table, _, _, _, shown = tab._refresh({})
    assert about.startswith("**Serving** `models:/faces/2`")
    assert choice["choices"][0] == "models:/faces@champion"
    assert "value" not in choice
    assert "faces-sample" in table
    registered.message = ""
    assert tab._refresh({})[3] == "the facts"
    registered.message = "The registry refused."
    shown = tab._refresh(shown)[-1]
    assert tab._refresh(shown)[:-1] == (gr.skip(),) * 6
    registered._versions = [{"model": "faces", "version": "4", "aliases": ""}, *VERSIONS]
    about, choice, *_ = tab._refresh(shown)
    assert about == gr.skip()
    assert "models:/faces/4" in choice["choices"]
    assert "value" not in choice


def test_list_of_versions_that_does_not_arrive_holds_up_no_page(tab, registered, monkeypatch):
    monkeypatch.setattr(facts, "WAIT_S", 0)
    answer = threading.Event()
    monkeypatch.setattr(registered, "versions", lambda: answer.wait(60))
    try:
        assert "faces-sample" in tab._refresh({})[2]  # the last list
    finally:
        answer.set()
        tab._listing.finish(60)


def test_wrong_choice_is_explained(tab):
    assert 'role="alert"' in tab._switch_model("<b>")
    assert "&lt;b&gt;" in tab._switch_model("<b>")
    assert "longer than 200 characters" in tab._switch_model("models:/" + "a" * 1_000_000)
    assert 'role="alert"' in tab._switch_model(None)


def test_card_that_cannot_be_read_is_explained(tab, monkeypatch):
    def refuse(_: LoadedModel) -> str:
        raise StoreError("the store `refused`")

    monkeypatch.setattr(model_tab, "card_markdown", refuse)
    assert tab._read_card() == "The model card cannot be read: `the store 'refused'`"


def test_versions_are_a_table_or_a_sentence():
    assert "<td>champion, tested</td>" in version_table(VERSIONS)
    assert "no versions yet" in version_table([])


def test_model_is_described_with_its_scores_and_error(registered):
    lines = describe(registered).split("\n\n")
    assert lines[:2] == ["**Serving** `models:/faces/2` as `models:/faces@champion`", "The registry refused."]
    assert "dataset `fer2013`" in lines[2]
    assert lines[3] == "val accuracy **0.703**"


def test_file_is_described_without_a_registry(shipped):
    assert describe(shipped).startswith(f"**Serving** `{shipped.current.source}`")
    assert "None" not in describe(shipped)


def test_card_is_closed_when_another_model_is_served(tab, registered):
    shown = tab._refresh({})[-1]
    assert tab._refresh(shown)[4:6] == (gr.skip(), gr.skip())
    registered.current = replace(registered.current, source="models:/faces/3")
    *_, holder, card, shown = tab._refresh(shown)
    assert (holder["open"], card) == (False, "")
    assert tab._refresh(shown)[4:6] == (gr.skip(), gr.skip())


def test_card_that_was_read_while_the_alias_moved_is_not_shown(tab, registered, monkeypatch):
    def read(model: LoadedModel) -> str:
        registered.current = replace(registered.current, source="models:/faces/3")
        return f"the card of {model.source}"

    monkeypatch.setattr(model_tab, "card_markdown", read)
    assert tab._read_card() == CHANGED
    assert tab._read_card() == "the card of models:/faces/3"


def test_text_of_others_has_no_effect(registered):
    evil = "`<img src=x>[a](javascript:1)\x1b[2J\u202e"
    registered.message = evil
    registered.current = replace(registered.current, tags={"dataset": evil, "run_id": evil, "val_accuracy": "nan"})
    text = describe(registered)
    outside = re.sub(r"`[^`]*`", "", text)
    assert not re.search(r"[<\[(]", outside)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "accuracy" not in text
    assert "\x1b" not in version_table([{"model": evil, "version": "1", "aliases": evil}])
