"""An uploaded video becomes a table, a timeline and an annotated copy, step by step."""

import cv2
import pytest
from tests.support.cameras import draw_people
from tests.support.videos import write_video

from emotion_detection.errors import MediaError
from emotion_detection.inference.media import open_video
from emotion_detection.inference.recognizer import Recognizer
from videos import SHOWN_ROWS, VideoOutputs, read_video


@pytest.fixture
def recognizer(shipped, detector):
    return Recognizer(shipped.current.classifier, detector)


@pytest.fixture
def film(tmp_path):
    frames = [cv2.cvtColor(draw_people(2, number / 12), cv2.COLOR_GRAY2RGB) for number in range(12)]
    return write_video(tmp_path / "film.avi", frames, fps=10)


@pytest.mark.parametrize("annotated", [True, False])
def test_video_becomes_a_table_a_timeline_and_a_copy(recognizer, film, tmp_path, annotated):
    outputs = VideoOutputs.in_folder(tmp_path, annotated=annotated)
    steps = [(report.frames, report.total, report.finished) for report in read_video(film, recognizer, outputs)]
    assert steps == [(number, 12, False) for number in range(1, 13)] + [(12, 12, True)]
    assert len(outputs.table.read_text().splitlines()) > 12
    assert outputs.timeline.stat().st_size > 1000
    assert (tmp_path / "annotated.webm").exists() == annotated
    if outputs.annotated:
        with open_video(outputs.annotated) as copy:
            assert len(list(copy)) == 12


def test_report_has_the_first_rows_and_the_counts(recognizer, film, tmp_path):
    *_, report = read_video(film, recognizer, VideoOutputs.in_folder(tmp_path, annotated=False))
    assert 12 < len(report.first_rows) <= SHOWN_ROWS
    assert next(report.tally.summary(report.frames, "frame")).startswith("12 frames, ")
    assert report.warning == ""


def test_damaged_video_keeps_its_results_and_has_a_warning(recognizer, film, tmp_path):
    content = film.read_bytes()
    film.write_bytes(content[: len(content) * 6 // 10])
    outputs = VideoOutputs.in_folder(tmp_path, annotated=True)
    *_, report = read_video(film, recognizer, outputs)
    assert 0 < report.frames < 12
    assert "film.avi" in report.warning
    assert str(tmp_path) not in report.warning  # the person has uploaded it: the path means nothing to them
    assert report.finished
    assert all(path and path.exists() for path in (outputs.table, outputs.timeline, outputs.annotated))


def test_canceled_video_leaves_nothing(recognizer, film, tmp_path):
    steps = read_video(film, recognizer, VideoOutputs.in_folder(tmp_path, annotated=True))
    next(steps)
    steps.close()
    assert list(tmp_path.iterdir()) == [film]


def test_file_without_frames_is_an_error(recognizer, tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"no film")
    with pytest.raises(MediaError):
        next(read_video(tmp_path / "film.mp4", recognizer, VideoOutputs.in_folder(tmp_path, annotated=False)))
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]
