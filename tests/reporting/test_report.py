"""The report as HTML, which needs no network, and as Markdown, which has no pictures."""

import json
import re
from dataclasses import replace

import pytest
from tests.support.results import results

from emotion_detection.data.dataset import Faces, digest
from emotion_detection.reporting.comparison import compare_results
from emotion_detection.reporting.curves import curves_svg
from emotion_detection.reporting.flips import MAX_FACES, flipped_faces
from emotion_detection.reporting.report import best_epoch, html_report, markdown_report
from emotion_detection.reporting.sources import LocalFaces

EVIL = '<script>alert(1)</script>"|`@team\n# x](http://a.example)'


@pytest.fixture(scope="module")
def comparison(drawn):
    base = results(drawn, "v1.0", right=0.2, settings={"train.epochs": 2})
    return compare_results(base, results(drawn, "models:/faces@champion", right=0.9, settings={"train.epochs": 9}))


@pytest.fixture(scope="module")
def local(drawn) -> LocalFaces:
    return LocalFaces(drawn, digest(drawn))


@pytest.fixture(scope="module")
def page(comparison, local) -> str:
    return html_report(comparison, *flipped_faces(comparison, local))


def test_page_has_all_parts(page):
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == [
        "What is compared",
        "Scores",
        "The same faces, read by both",
        "By emotion",
        "Confusion difference",
        "Settings",
        "Data",
        "Learning curves",
        "Faces whose answer flipped: val",
        "Faces whose answer flipped: test",
    ]
    assert "v1.0 → models:/faces@champion" in page
    assert page.count("<svg") == 1


def test_page_loads_nothing(page):
    """The policy of the page forbids it, too."""
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"' )>]*)""", page)
    assert addresses
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in addresses)
    assert "://" not in page
    assert "<script" not in page
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page


def test_page_shows_each_flipped_face_with_the_mistake(page, comparison):
    shown = sum(len(split.fixed) + len(split.broken) for split in comparison.splits)
    assert shown
    assert page.count("<figure>") == shown == page.count(", read as ")


def test_markdown_has_the_numbers_and_no_pictures(comparison):
    text = markdown_report(comparison)
    assert text.startswith("## `v1.0` → `models:/faces@champion`\n\n**")
    assert "| `train.epochs` | `2` | `9` |" in text
    assert "epoch 3 of 3" in text
    assert "![" not in text
    assert "<img" not in text
    assert "data:image" not in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table


def test_emotion_that_was_never_answered_has_no_precision(drawn):
    found = results(drawn, right=0.2)
    assert any(row["precision"] == "nan" for row in found.classes)
    text = markdown_report(compare_results(found, found))
    assert "precision –" in text
    assert "nan" not in text


def test_report_says_how_often_a_challenger_agreed(drawn):
    shadow = {"champion": "models:/faces/1", "faces": 9, "agreement": 2 / 3, "emotions": ["sad", "fear"]}
    shadow["counts"] = [[6, 1], [2, 0]]
    head = results(drawn, "models:/faces/2", right=0.9, tags={"shadow": json.dumps(shadow)})
    compared = compare_results(results(drawn, "models:/faces/1", right=0.2), head)
    sentence = "66.7 % of 9 faces as models:/faces/1 (fear → sad 2; sad → fear 1)"
    assert f"| as challenger | `not recorded` | `{sentence}` |" in markdown_report(compared)
    assert f'<td class="text">{sentence}</td>' in html_report(compared, {}, "")
    without = compare_results(compared.base, replace(head, tags={}))
    assert "as challenger" not in markdown_report(without)


def test_text_of_others_has_no_effect(drawn, local):
    base = results(drawn, EVIL, right=0.5, settings={"train.epochs": 2, EVIL: 1}, tags={"git_dirty": EVIL})
    head = results(drawn, "head", right=0.5, settings={"train.epochs": EVIL})
    head = replace(head, origin=replace(head.origin, name=EVIL, commit=EVIL, run_id=EVIL))
    comparison = compare_results(base, head)
    page = html_report(comparison, *flipped_faces(comparison, local))
    assert "<script" not in page
    for line in markdown_report(comparison).splitlines():
        outside = re.sub(r"`[^`]*`", "", line)
        assert not re.search(r"<script|@team|a\.example", outside), line


def test_faces_of_other_data_are_not_shown(comparison, drawn):
    other = Faces(255 - drawn.images, drawn.labels, drawn.splits, drawn.copied)
    for local in (None, LocalFaces(other, digest(other))):
        flips, why = flipped_faces(comparison, local)
        assert flips == {}
        assert "are not shown: the prepared faces of this data set are not here" in why
        assert why in html_report(comparison, flips, why)


def test_many_flipped_faces_are_sampled_and_counted(drawn):
    many = drawn[[*range(len(drawn))] * 40]
    comparison = compare_results(results(many, right=0.1), results(many, right=1))
    flips, _ = flipped_faces(comparison, LocalFaces(many, digest(many)))
    fixed, _ = flips["val"]
    assert len(fixed.flips) == MAX_FACES < fixed.total == len(comparison.splits[0].fixed)


def test_incomplete_results_give_a_report(drawn):
    empty = replace(results(drawn, right=0.5), metrics={}, classes=(), predictions={}, history=(), data={}, params={})
    comparison = compare_results(empty, empty)
    page = html_report(comparison, {}, "")
    assert "No side has scores." in page
    assert "Learning curves" not in page
    assert "Base has no metrics, predictions, learning curves, settings, data report." in markdown_report(comparison)


def test_curves_take_the_colors_of_the_page():
    svg = curves_svg([{"epoch": 1, "val_loss": 1.0}, {"epoch": 2, "val_loss": 0.5}], [{"epoch": 1, "val_loss": 0.7}])
    assert svg.startswith("<svg role=")
    assert "currentColor" in svg
    assert "<metadata>" not in svg
    assert curves_svg([], []) == ""
    assert curves_svg([{"epoch": 1, "val_loss": 1.0}], []) == curves_svg([{"epoch": 1, "val_loss": 1.0}], [])


def test_control_characters_do_not_reach_the_report(drawn):
    evil = "a\x1b[2J\u202e"
    base = results(drawn, "main", right=0.5, settings={f"train.{evil}": evil})
    data = {"dataset": evil, "digest": base.digest, evil: evil}
    base = replace(base, data=data, origin=replace(base.origin, name=evil, run_id=evil))
    comparison = compare_results(base, results(drawn, "head", right=0.5))
    for text in (html_report(comparison, {}, ""), markdown_report(comparison)):
        assert all(line.isprintable() for line in text.splitlines())
        assert "a [2J" in text


@pytest.mark.parametrize("value", [0.0, -1e308, 1e308, float("nan"), float("inf")])
def test_curves_of_any_numbers_are_drawn(value):
    assert curves_svg([{"epoch": 1, "loss": value}, {"epoch": 2, "loss": 1}], [{"epoch": 1, "loss": -value}])


def test_epoch_without_a_score_is_not_the_best_one(drawn):
    scores = (float("nan"), 0.2, 0.3, 0.1)
    history = tuple({"epoch": epoch, "val_macro_f1": score} for epoch, score in enumerate(scores, start=1))
    found = results(drawn, right=0.5)
    assert best_epoch(replace(found, history=history)) == "epoch 3 of 4"
    assert best_epoch(replace(found, history=history[:1])) == "not recorded"
    assert best_epoch(replace(found, history=({"epoch": 0, "val_macro_f1": 0.2},))) == "the initial weights"
    assert best_epoch(replace(found, history=history, params={"train.keep": "last"})) == "epoch 4 of 4"
