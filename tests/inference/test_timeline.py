"""Figures of readings: one lane per person, one color per emotion, gaps only without a face, bounded memory."""

import cv2
import numpy as np
import pytest

from emotion_detection.emotions import EMOTIONS
from emotion_detection.inference.timeline import MAX_BINS, MAX_LANES, Timeline, draw_emotion_counts
from emotion_detection.plotting.colors import COLORS, rgb


def row(time_s, emotion="happy", *, track=1, confidence=1.0):
    return {"time_s": time_s, "track": track, "emotion": emotion, "confidence": confidence}


def people(count, length_s, fps=10):
    """Rows of people whose emotions change in turn."""
    return [
        row(number / fps, EMOTIONS[(track + 5 * number // int(length_s * fps)) % 7], track=track, confidence=0.7)
        for number in range(int(length_s * fps))
        for track in range(1, count + 1)
    ]


def read(path):
    picture = cv2.imread(str(path))
    assert picture is not None, f"{path} was not written"
    return picture[..., ::-1]


def draw_timeline(rows, path):
    timeline = Timeline()
    timeline.add(rows)
    timeline.draw(path)


def drawn(rows, tmp_path):
    draw_timeline(rows, tmp_path / "figure.png")
    return read(tmp_path / "figure.png")


def inked(picture, emotion):
    """Where the picture has the color of the emotion."""
    return (picture == rgb(COLORS[emotion])).all(axis=2)


def lane_of(picture):
    """The emotions along the middle of the only lane, without repetitions."""
    height = inked(picture, "happy")[:-80].any(axis=1).nonzero()[0]
    line = picture[(height.min() + height.max()) // 2]
    known = {rgb(color): emotion for emotion, color in COLORS.items()}
    emotions = [known.get(tuple(pixel)) for pixel in line.tolist()]
    pairs = zip(emotions, [None, *emotions], strict=False)
    return [emotion for emotion, previous in pairs if emotion and emotion != previous]


DRAWINGS = {
    "no people": lambda path: draw_timeline([], path),
    "one person for two seconds": lambda path: draw_timeline(people(1, 2), path),
    "one reading": lambda path: draw_timeline([row(0.0)], path),
    "two people for a minute": lambda path: draw_timeline(people(2, 60, fps=5), path),
    "eight people for ten minutes": lambda path: draw_timeline(people(8, 600, fps=2), path),
    "twelve people": lambda path: draw_timeline(people(12, 30, fps=2), path),
    "eight hours": lambda path: draw_timeline(people(1, 30_000, fps=0.2), path),
    "faces": lambda path: draw_emotion_counts({"happy": 12, "sad": 3}, {"happy": 2, "sad": 0}, path=path),
    "no faces": lambda path: draw_emotion_counts({}, {}, path=path),
    "many faces": lambda path: draw_emotion_counts(dict.fromkeys(EMOTIONS, 12_345), {}, path=path),
}


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.filterwarnings("error::UserWarning")
def test_figure_has_a_reasonable_size(name, tmp_path):
    DRAWINGS[name](tmp_path / "figure.png")
    picture = read(tmp_path / "figure.png")
    height_px, width_px, _ = picture.shape
    assert 800 <= width_px <= 1600
    assert 250 <= height_px <= 1200
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert edge.min() > 200  # a clipped letter would be dark
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]


def test_same_rows_give_the_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        draw_timeline(people(2, 5), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_emotions_are_in_the_order_of_the_video(tmp_path):
    rows = [row(n / 25, ("happy", "sad", "happy", "fear")[n // 25]) for n in range(100)]
    assert lane_of(drawn(rows, tmp_path)) == ["happy", "sad", "happy", "fear"]


def test_gap_is_time_without_a_face_but_not_a_low_rate(tmp_path):
    away = [row(n / 10) for n in range(100) if not 30 <= n < 70]
    slow = [row(n * 2.0) for n in range(10)]
    for rows, filled in ((away, 0.6), (slow, 0.95)):
        columns = inked(drawn(rows, tmp_path), "happy")[:-80].any(axis=0)
        assert columns.sum() / len(columns) == pytest.approx(filled, abs=0.06)


def test_height_is_the_confidence(tmp_path):
    def height(confidence):
        return inked(drawn([row(n / 10, confidence=confidence) for n in range(20)], tmp_path), "happy")[:-80].sum()

    assert height(0.4) / height(0.8) == pytest.approx(0.5, abs=0.05)


def test_time_axis_ends_with_the_video(tmp_path):
    lanes = Timeline()
    lanes.add([row(0.0), row(0.1)])
    lanes.add([], until_s=10.0)
    lanes.draw(tmp_path / "figure.png")
    columns = inked(read(tmp_path / "figure.png"), "happy")[:-80].any(axis=0)
    assert 0 < columns.sum() < 0.05 * len(columns)


def test_people_in_view_longest_are_drawn(tmp_path):
    passing = [row(track / 10, "fear", track=track) for track in range(2, 40)]
    stay = [row(n / 10, "happy", track=99) for n in range(60)]
    picture = drawn(sorted(passing + stay, key=lambda row: row["time_s"]), tmp_path)
    assert inked(picture, "happy")[:-80].any()
    assert picture.shape[0] <= 150 * (1.3 + 0.75 * MAX_LANES) + 1


def test_memory_does_not_grow_with_the_video():
    lanes = Timeline()
    sizes = []
    for start in (0, 5_000, 50_000):
        lanes.add(row(float(at_s), EMOTIONS[at_s % 7]) for at_s in range(start, start + 4 * MAX_BINS))
        sizes.append(sum(len(lane) for lane in lanes._lanes.values()))
    assert max(sizes) <= MAX_BINS
    assert np.sum([sums[1] for sums in lanes._lanes[1].values()]) == 12 * MAX_BINS  # no reading is lost


def test_failure_leaves_no_file(tmp_path):
    with pytest.raises(KeyError):
        draw_timeline([{"time_s": 0.0}], tmp_path / "figure.png")
    assert not list(tmp_path.iterdir())
