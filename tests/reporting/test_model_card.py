"""The model card contains the scores and the metadata, and Hugging Face's library reads it."""

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from tests.support.paths import PRETRAINED
from tests.support.results import results

from emotion_detection.emotions import EMOTIONS
from emotion_detection.reporting.evidence import describe_shadow, evidence_rows, megabytes, shadow_rows
from emotion_detection.reporting.model_card import CardSubject, card_text, find_subject, model_card
from emotion_detection.reporting.results import Origin, Results
from emotion_detection.serving.comparison import Comparison


@pytest.fixture(scope="module")
def shipped() -> CardSubject:
    return find_subject("shipped", PRETRAINED)


def changed(subject: CardSubject, **scores: float) -> CardSubject:
    """The subject with other scores."""
    return replace(subject, results=replace(subject.results, metrics={**subject.results.metrics, **scores}))


def test_shipped_card_is_generated_from_the_shipped_scores(shipped):
    assert (PRETRAINED / "README.md").read_text() == model_card(shipped)


def test_card_is_read_by_hugging_face(tmp_path, shipped):
    path = tmp_path / "README.md"
    path.write_text(model_card(shipped))
    card = ModelCard.load(path)
    assert card.data.model_name == "Shipped model"
    assert (card.data.license, card.data.pipeline_tag) == ("mit", "image-classification")
    scores = {(one.dataset_split, one.metric_type): one for one in card.data.eval_results}
    accuracy = scores["test", "accuracy"]
    assert accuracy.metric_value == pytest.approx(shipped.results.metrics["test_accuracy"], abs=1e-6)
    assert accuracy.metric_args["low"] < accuracy.metric_value < accuracy.metric_args["high"]
    assert accuracy.dataset_revision == shipped.results.digest
    assert card.text.lstrip().startswith("# Shipped model")


def test_card_contains_changed_scores(shipped):
    card = model_card(replace(changed(shipped, test_accuracy=0.1234), megabytes=6.2))
    assert "| 12.3 % [" in card
    assert "6.2 MB" in card


def test_card_has_all_sections(shipped):
    titles = [line for line in model_card(shipped).splitlines() if line.startswith("#")]
    assert titles == [
        "# Shipped model",
        "## How to use",
        "## Intended uses",
        "## Data",
        "## Evaluation",
        "### By emotion, on test",
        "### Calibration",
        "### Crops of a detector",
        "## Limits",
        "## How it was made",
    ]


def test_weakest_emotions_are_listed_with_their_recall(shipped):
    worse = {"f1": "0.01", "recall": "0.02"}
    rows = tuple({**row, **(worse if row["emotion"] == "happy" else {})} for row in shipped.results.classes)
    card = model_card(replace(shipped, results=replace(shipped.results, classes=rows)))
    assert "The weakest emotions are happy (recall 2 %), " in card


def test_measurements_of_the_detector_are_described(shipped):
    card = model_card(
        changed(
            shipped,
            test_found_and_read_right=0.46,
            test_detected_share=0.75,
            test_detected_accuracy=0.61,
            test_detected_plain_accuracy=0.63,
        )
    )
    assert "The detector found 75 % of the test faces" in card
    assert "46 % of all test faces are found and read right" in card
    assert "61.0 % with the detector's crops and 63.0 % with the data set's own crops" in card


def test_calibration_error_is_given_with_and_without_temperature(shipped):
    scores = {"test_ece": 0.05, "test_ece_uncalibrated": 0.04, "val_ece": 0.02, "val_ece_uncalibrated": 0.03}
    card = model_card(changed(shipped, **scores))
    assert "0.020 with it and 0.030 without it on val, and 0.050 with it and 0.040 without it on test." in card


def test_missing_measurements_are_named():
    """An older version may have nothing but a name."""
    card = model_card(CardSubject(Results(Origin("models:/faces/1", "version")), "faces version 1", "models:/faces/1"))
    for sentence in (
        "No scores were recorded.",
        "The scores of each emotion were not recorded.",
        "The effect of the temperature was not recorded.",
        "The accuracy on the crops of a detector was not recorded.",
        "the data set `not recorded`",
        "Not recorded.",
    ):
        assert sentence in card
    assert "mirror" not in card
    assert "eval_results" not in ModelCard(card).data.to_dict()
    assert "model-index" not in card


def test_card_of_another_version_has_its_own_facts(drawn):
    gains = {"macro_f1": {"value": 0.02, "low": 0.01, "high": 0.03}}
    evidence = json.dumps({"verdict": "better", "opponent": 2, "mcnemar_p": 0.01, "gains": gains})
    tags = {"git_commit": "c0ffee", "git_dirty": "true", "dvc_md5": "5d", "evidence": evidence}
    found = results(drawn, "models:/faces/3", right=0.9, tags=tags)
    found = replace(found, origin=replace(found.origin, commit="c0ffee"))
    card = model_card(CardSubject(found, "faces version 3", "models:/faces/3", 1.5))
    assert "license:" not in card
    assert "`emotion-detection predict photo.jpg --model models:/faces/3`" in card
    assert "| commit | `c0ffee, with uncommitted changes` |" in card
    assert "| opponent | `version 2` |" in card
    assert "| gain in macro-F1 | `+2.0 points [+1.0, +3.0]` |" in card
    assert "FER-2013" not in card


@pytest.mark.parametrize(
    "evidence",
    ["", "[]", "{", "null", '{"verdict": 3}', "[" * 5000, '{"verdict": "better", "gains": [1], "counts": 2}'],
)
def test_damaged_evidence_is_no_evidence(drawn, evidence):
    card = model_card(CardSubject(results(drawn, right=0.9, tags={"evidence": evidence}), "faces version 3"))
    assert "opponent" not in card


def test_emotion_that_was_never_answered_has_no_precision(drawn):
    card = model_card(CardSubject(results(drawn, right=0.2), "faces version 3"))
    assert re.search(r"^\| angry \| 1 \| 0 \[0, 79\] \| – \|", card, re.MULTILINE)
    assert "nan" not in card
    assert "are based on 1 face.\n" in card


def shadow_tags(*, faces: int = 40, **changes: object) -> dict[str, str]:
    """The tag that `promote --shadow` stores."""
    counts = np.zeros((7, 7), int)
    counts[0, 0], counts[2, 5], counts[5, 2], counts[1, 4], counts[4, 1] = faces - 10, 2, 5, 1, 2
    comparison = Comparison(
        champion="models:/faces/1",
        challenger="models:/faces/3",
        faces=faces,
        agreement=1 - 10 / faces,
        mean_difference=0.0314,
        emotions=list(EMOTIONS),
        counts=counts.tolist(),
    )
    return {"shadow": json.dumps(json.loads(comparison.model_dump_json()) | changes)}


def test_card_of_a_former_challenger_says_how_often_it_agreed(drawn):
    found = results(drawn, right=0.9, tags=shadow_tags(faces=4000))
    card = model_card(CardSubject(found, "faces version 3", "models:/faces/3"))
    section = card.partition("### As a challenger\n")[2]
    assert (
        "| champion | `models:/faces/1` |\n| faces read by both | `4,000` |\n| the same emotion | `99.8 %` |" in section
    )
    assert "| most frequent differences | `surprise → fear 5; fear → surprise 2; sad → disgust 2` |" in section
    assert "| mean difference of the probabilities | `0.031` |" in section
    assert "### As a challenger" not in model_card(CardSubject(results(drawn, right=0.9), "faces version 3"))


@pytest.mark.parametrize(
    "shadow",
    [
        "",
        "[]",
        "{",
        "null",
        "[" * 5000,
        '{"faces": 3}',
        '{"faces": 3, "agreement": "all"}',
        '{"faces": 0, "agreement": 1}',
    ],
)
def test_damaged_count_of_a_challenger_is_none(shadow):
    assert describe_shadow({"shadow": shadow}) == ""


@pytest.mark.parametrize("value", ["NaN", "9" * 400, "[1]", "[[[1]]]", "true", "null", '"x"', "{}", "-1"])
def test_wrong_figures_of_a_challenger_are_left_out(drawn, value):
    tags = {
        "shadow": f"""{{"faces": 9, "agreement": 1, "champion": "<img src=x>`", "mean_difference": {value},
            "emotions": ["sad", {value}], "counts": [[{value}, {value}], {value}]}}"""
    }
    rows = dict(shadow_rows(tags))
    assert rows["faces read by both"] == "9"
    assert "most frequent differences" not in rows
    card = model_card(CardSubject(results(drawn, right=0.9, tags=tags), "faces version 3"))
    assert not re.search(r"<img", re.sub(r"`[^`]*`", "", card_text(card)))


@pytest.mark.parametrize(
    "change",
    [
        {"emotions": ["angry", 5, *EMOTIONS[2:]]},
        {"emotions": ["angry", 5, *EMOTIONS[2:]], "counts": np.ones((6, 6), int).tolist()},
        {"emotions": list(EMOTIONS[:6])},
        {"emotions": None},
        {"counts": np.ones((7, 6), int).tolist()},
        {"counts": np.ones((6, 7), int).tolist()},
        {"counts": [["1"] * 7] * 7},
    ],
)
def test_differences_without_the_emotion_of_each_count_are_left_out(change):
    assert "most frequent differences" in dict(shadow_rows(shadow_tags()))
    assert "most frequent differences" not in dict(shadow_rows(shadow_tags(**change)))


@pytest.mark.parametrize("champion", ["", "  ", {"a": "b"}, ["z"], 3])
def test_champion_that_is_no_name_is_left_out(champion):
    assert "champion" not in dict(shadow_rows(shadow_tags(champion=champion)))
    assert "faces as another version" in describe_shadow(shadow_tags(champion=champion))


@pytest.mark.parametrize("value", [-5, 1.01, 1e300])
def test_difference_of_probabilities_beyond_their_range_is_left_out(value):
    assert "mean difference of the probabilities" not in dict(shadow_rows(shadow_tags(mean_difference=value)))


@pytest.mark.parametrize(("agreement", "shown"), [(1, "100.0 %"), (1 - 10 / 40_000, "99.9 %"), (0.9949, "99.5 %")])
def test_agreement_is_complete_only_if_it_is(agreement, shown):
    assert dict(shadow_rows(shadow_tags(agreement=agreement)))["the same emotion"] == shown


def test_tags_of_others_have_no_effect_in_the_card(drawn):
    evil = "a`|<img src=x>\n# title"
    found = results(drawn, right=0.9, tags={"dataset_digest": evil, "recipe": evil, "command": evil})
    card = model_card(CardSubject(found, evil))
    assert "\n# title" not in card
    assert "`a'\\|<img src=x> # title`" in card


def test_text_of_a_card_has_no_metadata(shipped):
    text = card_text(model_card(shipped))
    assert text.startswith("# Shipped model\n")
    assert "model-index" not in text


def test_card_refers_to_the_ai_act(shipped):
    assert "article 5(1)(f)" in model_card(shipped)


EVIL = "<img src=http://evil/x>[a](javascript:1)\x1b[2J\u202e"


def test_data_report_of_others_has_no_effect(drawn):
    """Any run can have such a file, and the demo's page shows the card."""
    found = results(drawn, right=0.9)
    data = {"rows": {"train": 28709, EVIL: 1, "val": EVIL, "test": [EVIL]}, "dataset": EVIL, "digest": EVIL}
    card = model_card(CardSubject(replace(found, data=data), "faces version 3"))
    assert "Faces: train 28709.\n" in card
    body = card_text(card)
    assert not re.search(r"<img|javascript", re.sub(r"`[^`]*`", "", body))


def test_control_characters_do_not_reach_the_card(drawn):
    evidence = json.dumps({"verdict": EVIL, "objections": [EVIL, {EVIL: EVIL}], "rows": EVIL})
    found = results(drawn, right=0.9, tags={"recipe": EVIL, "git_note": EVIL, "evidence": evidence})
    found = replace(found, data={"dataset": EVIL, "digest": EVIL}, origin=Origin(EVIL, EVIL, EVIL, EVIL, EVIL, EVIL))
    card = model_card(CardSubject(found, EVIL, f"models:/{EVIL}/1"))
    assert all(line.isprintable() for line in card.splitlines())
    parsed: Any = ModelCard(card)
    assert parsed.data.model_name == "<img src=http://evil/x>[a](javascript:1) [2J"


@pytest.mark.parametrize(
    "names",
    [
        ("test_detected_accuracy", "test_detected_plain_accuracy"),
        ("test_detected_share",),
        ("temperature", "test_ece_uncalibrated"),
        ("test_accuracy",),
        ("test_accuracy_low", "test_macro_f1_high"),
        ("test_found_and_read_right", "test_flip_accuracy"),
    ],
)
@pytest.mark.parametrize("value", [0.5, 1e308])
def test_any_part_of_the_scores_gives_a_card(names, value):
    found = Results(Origin("here", "run"), metrics=dict.fromkeys(names, value))
    assert "was not recorded." in model_card(CardSubject(found, "here"))


def test_shipped_model_without_a_recipe_gives_a_card(shipped):
    assert "To train it again" not in model_card(replace(shipped, results=replace(shipped.results, tags={})))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "9" * 400, "[1]", "true", "null", '"x"', "{}", "-1"])
def test_wrong_figures_of_the_evidence_are_left_out(drawn, value):
    evidence = f"""{{"verdict": "better", "opponent": {value}, "rows": {value}, "mb": {value}, "mcnemar_p": {value},
        "counts": {{"only_head": {value}}}, "gains": {{"accuracy": {{"value": {value}, "low": 0, "high": 0}}}},
        "detectable_gain": {value}, "objections": {value}}}"""
    tags = {"evidence": evidence}
    rows = dict(evidence_rows(tags))
    assert rows["verdict"] == "better"
    assert set(rows) <= {"verdict", "McNemar's test, p", "gain in accuracy", "detectable gain in accuracy"}
    assert value == "-1" or set(rows) == {"verdict"}
    assert megabytes(tags) is None
    assert model_card(CardSubject(results(drawn, right=0.9, tags=tags), "faces version 3"))


def test_emotions_are_in_the_same_order_in_each_card(drawn):
    found = results(drawn, right=0.9)
    turned = replace(found, classes=found.classes[::-1])
    assert model_card(CardSubject(found, "here")) == model_card(CardSubject(turned, "here"))


def test_size_of_a_version_is_that_of_its_evidence(drawn, monkeypatch, tmp_path):
    """The file may be in a remote store: a view of the card must not fetch it."""

    def fetch(uri: str) -> None:
        raise AssertionError(f"{uri} was fetched")

    monkeypatch.setattr("emotion_detection.experiments.registry.fetch", fetch)
    found = results(drawn, right=0.9, tags={"evidence": '{"verdict": "better", "mb": 1.25}'})
    found = replace(found, origin=Origin("models:/a version b/3", "version", "a version b version 3"))
    for known, size in ((found, 1.25), (replace(found, tags={}), None)):
        monkeypatch.setattr("emotion_detection.reporting.model_card.find_results", lambda *_, known=known: known)
        subject = find_subject("models:/a version b/3", tmp_path)
        assert (subject.uri, subject.megabytes) == ("models:/a version b/3", size)
