"""Names and descriptions of runs say what a training changes."""

import subprocess
from datetime import datetime

import pytest
import yaml

from emotion_detection.experiments import runs
from emotion_detection.experiments.description import bases, closest, describe, note, run_name

NOW = datetime(2026, 11, 29, 14, 5)
TRAIN = {"architecture": "fer_resnet", "epochs": 30, "seed": 1, "learning_rate": 0.1, "augment": {"flip": True}}
KNOWN = {"params.yaml": TRAIN, "fer_resnet_fast": TRAIN | {"epochs": 10, "learning_rate": 0.2}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "fer_resnet on sample (29 Nov 14:05)"),
        ({"epochs": 2}, "fer_resnet, epochs 2 on sample (29 Nov 14:05)"),
        ({"epochs": 10, "learning_rate": 0.2}, "fer_resnet_fast on sample (29 Nov 14:05)"),
        ({"epochs": 10, "learning_rate": 0.2, "seed": 3}, "fer_resnet_fast, seed 3 on sample (29 Nov 14:05)"),
        ({"architecture": "mini_xception"}, "mini_xception on sample (29 Nov 14:05)"),
        (
            {"epochs": 1, "seed": 2, "learning_rate": 3, "augment": {"flip": False}},
            "fer_resnet, epochs 1, seed 2, learning_rate 3, 1 more on sample (29 Nov 14:05)",
        ),
    ],
)
def test_name_contains_the_changes_against_the_closest_settings(changes, expected):
    train = TRAIN | changes
    assert run_name(train, "sample", *closest(train, KNOWN), NOW) == expected


def test_name_without_known_settings_is_the_architecture():
    assert closest(TRAIN, {}) == ("", [])
    assert run_name(TRAIN, "sample", "", [], NOW) == "fer_resnet on sample (29 Nov 14:05)"


def test_note_has_data_settings_and_changes():
    train = TRAIN | {"epochs": 2}
    text = note(train, "sample", {"train": 1000, "val": 50}, *closest(train, KNOWN))
    assert "- Data: sample, 1,000 train, 50 val faces" in text
    assert "epochs 2" in text
    assert "- Changed against params.yaml: epochs 30 → 2" in text


def test_known_settings_are_the_committed_ones_and_the_recipes(tmp_path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"train": TRAIN}))
    (tmp_path / "recipes" / "quick.yaml").write_text(yaml.safe_dump({"train": {"epochs": 2}}))
    (tmp_path / "recipes" / "broken.yaml").write_text("train: [")
    assert bases(tmp_path) == {"quick": {"epochs": 2}}  # no git
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"train": TRAIN | {"epochs": 7}}))
    assert bases(tmp_path) == {"params.yaml": TRAIN, "quick": {"epochs": 2}}
    described = describe(TRAIN | {"epochs": 7}, "sample", {"train": 3}, tmp_path)
    assert described.name.startswith("fer_resnet, epochs 7 on sample (")


@pytest.mark.usefixtures("store")
def test_sections_of_a_note_are_replaced_one_by_one():
    with runs.start_run() as run:
        run.note("Training", "- Data: sample\n- with https://ann:pw-word@host")
        run.note("Scores", "- old")
        run.note("Scores", "- new")
        assert run.tags[runs.NOTE] == (
            "### Training\n\n- Data: sample\n- with https://ann:***@host\n\n### Scores\n\n- new\n\n"
        )
