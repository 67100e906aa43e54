"""What the video tab shows while a video is read."""

import time

from video_tab import calm, preview, progress_bar, summary, unfinished_folder
from videos import VideoReport

ROW = {"frame": 0, "time_s": 0.5, "track": 1, "emotion": "happy", "confidence": 0.8, "unsure": False}


def test_progress_has_the_count_the_rate_and_the_remaining_time():
    text = progress_bar(VideoReport(total=1200, frames=300, started_s=time.monotonic() - 10))
    assert 'value="300" max="1200"' in text
    assert "300 of 1,200 frames · 30 frames/s · 30 s left" in text


def test_progress_of_a_video_of_unknown_length_has_no_end():
    text = progress_bar(VideoReport(frames=300, started_s=time.monotonic() - 10))
    assert "300 frames · 30 frames/s" in text
    assert "left" not in text
    assert "max=" not in text


def test_progress_is_shown_at_a_calm_rate_and_the_end_always():
    reports = [VideoReport(frames=number) for number in range(100)] + [VideoReport(frames=100, finished=True)]
    shown = [report.frames for report in calm(reports)]
    assert shown[0] == 0
    assert shown[-1] == 100
    assert len(shown) < 10


def test_folder_is_deleted_unless_it_is_kept():
    with unfinished_folder() as (lost, _):
        assert lost.is_dir()
    with unfinished_folder() as (kept, keep):
        keep()
    assert not lost.exists()
    assert kept.is_dir()
    kept.rmdir()


def test_results_are_a_sentence_and_a_table():
    report = VideoReport(frames=1, first_rows=[ROW])
    report.tally.add([ROW])
    assert "1 frame, 1 face: happy 100%" in summary(report)
    assert "person 1: 1 frame, happy 100%" in summary(report)
    assert "<td>happy</td>" in preview(report)
    assert 'role="region" tabindex="0"' in preview(report)
