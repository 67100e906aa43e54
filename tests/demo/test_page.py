"""What Gradio's tabs show, without a browser."""

import copy
from dataclasses import replace

import cv2
import pytest
from tests.support.cameras import draw_people
from tests.support.videos import write_video

from champion import ServedModel
from emotion_detection.inference.media import open_video
from emotion_detection.inference.recognizer import Recognizer
from page import SHOWN_ROWS, VideoOutputs, describe, model_choices, read_video

VERSIONS = [{"version": "3", "aliases": ""}, {"version": "2", "aliases": "champion, tested"}]


@pytest.fixture
def registered(shipped) -> ServedModel:
    """The shipped model as if it came from a registry that does not respond any more."""
    tags = {"dataset": "fer2013", "run_id": "5f2b", "val_accuracy": "0.70336", "unused": "tag"}
    served = copy.copy(shipped)
    served.uri, served.message = "models:/faces@champion", "The registry refused."
    served.current = replace(shipped.current, source="models:/faces/2", tags=tags)
    return served


@pytest.mark.parametrize("annotated", [True, False])
def test_video_becomes_a_table_a_timeline_and_a_copy(shipped, detector, tmp_path, annotated):
    frames = [cv2.cvtColor(draw_people(2, number / 12), cv2.COLOR_GRAY2RGB) for number in range(12)]
    video = write_video(tmp_path / "film.avi", frames, fps=10)
    outputs = VideoOutputs.in_folder(tmp_path, annotated=annotated)
    progress = []
    first_rows = read_video(
        video, Recognizer(shipped.current.classifier, detector), outputs, lambda step, **_: progress.append(step)
    )
    assert len(first_rows) == 24 <= SHOWN_ROWS
    assert len(outputs.table.read_text().splitlines()) == 1 + 24
    assert outputs.timeline.stat().st_size > 1000
    assert progress == [(number, 12) for number in range(12)]
    assert (tmp_path / "annotated.webm").exists() == annotated
    if outputs.annotated:
        with open_video(outputs.annotated) as copy:
            assert len(list(copy)) == 12


def test_choices_are_aliases_then_versions(registered):
    assert model_choices(registered, VERSIONS) == [
        "models:/faces@champion",
        "models:/faces@tested",
        "models:/faces/3",
        "models:/faces/2",
    ]


def test_model_is_described_with_its_scores_and_error(registered):
    lines = describe(registered).split("\n\n")
    assert lines[:2] == ["**Serving** `models:/faces/2` as `models:/faces@champion`", "The registry refused."]
    assert "dataset `fer2013`" in lines[2]
    assert lines[3] == "val accuracy **0.703**"


def test_file_is_described_without_a_registry(shipped):
    assert describe(shipped).startswith(f"**Serving** `{shipped.current.source}`")
    assert "None" not in describe(shipped)
