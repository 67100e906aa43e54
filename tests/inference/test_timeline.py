"""The figures of readings can be read: a lane a person, a colour an emotion, no gap that was none, bounded memory."""

import cv2
import numpy as np
import pytest

from emotion_detection.emotions import EMOTIONS
from emotion_detection.inference.timeline import BINS, LANES, Timeline, shares, timeline
from emotion_detection.plotting.colors import COLORS, rgb


def row(time_s, emotion="happy", *, track=1, confidence=1.0):
    return {"time_s": time_s, "track": track, "emotion": emotion, "confidence": confidence}


def people(count, length_s, fps=10):
    """Everybody changes in turn."""
    return [
        row(number / fps, EMOTIONS[(track + 5 * number // int(length_s * fps)) % 7], track=track, confidence=0.7)
        for number in range(int(length_s * fps))
        for track in range(1, count + 1)
    ]


def read(path):
    picture = cv2.imread(str(path))
    assert picture is not None, f"{path} is no picture"
    return picture[..., ::-1]


def drawn(rows, tmp_path):
    timeline(rows, tmp_path / "figure.png")
    return read(tmp_path / "figure.png")


def inked(picture, emotion):
    """Where the picture has exactly the emotion's colour."""
    return (picture == rgb(COLORS[emotion])).all(axis=2)


def lane_of(picture):
    """The colours along the middle of the only lane, without the legend: emotions and None, repeats left out."""
    height = inked(picture, "happy")[:-80].any(axis=1).nonzero()[0]
    line = picture[(height.min() + height.max()) // 2]
    known = {rgb(color): emotion for emotion, color in COLORS.items()}
    found = [known.get(tuple(pixel)) for pixel in line.tolist()]
    return [one for one, before in zip(found, [None, *found], strict=False) if one and one != before]


DRAWINGS = {
    "nobody": lambda path: timeline([], path),
    "one for two seconds": lambda path: timeline(people(1, 2), path),
    "one reading": lambda path: timeline([row(0.0)], path),
    "two for a minute": lambda path: timeline(people(2, 60), path),
    "eight for ten minutes": lambda path: timeline(people(8, 600), path),
    "twelve": lambda path: timeline(people(12, 30), path),
    "a working day": lambda path: timeline(people(1, 30_000, fps=0.2), path),
    "faces": lambda path: shares({"happy": 12, "sad": 3}, {"happy": 2, "sad": 0}, path=path),
    "no faces": lambda path: shares({}, {}, path=path),
    "many faces": lambda path: shares(dict.fromkeys(EMOTIONS, 12_345), {}, path=path),
}


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.filterwarnings("error")
def test_a_figure_is_a_picture_of_sane_size(name, tmp_path):
    DRAWINGS[name](tmp_path / "figure.png")
    picture = read(tmp_path / "figure.png")
    height_px, width_px, _ = picture.shape
    assert 800 <= width_px <= 1600
    assert 250 <= height_px <= 1200
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert edge.min() > 200  # a clipped letter would be dark here
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        timeline(people(2, 5), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_emotions_follow_each_other_as_in_the_video(tmp_path):
    rows = [row(n / 25, ("happy", "sad", "happy", "fear")[n // 25]) for n in range(100)]
    assert lane_of(drawn(rows, tmp_path)) == ["happy", "sad", "happy", "fear"]


def test_time_without_a_face_is_empty_and_a_slow_rate_is_not(tmp_path):
    away = [row(n / 10) for n in range(100) if not 30 <= n < 70]
    slow = [row(n * 2.0) for n in range(10)]
    for rows, filled in ((away, 0.6), (slow, 0.95)):
        columns = inked(drawn(rows, tmp_path), "happy")[:-80].any(axis=0)
        assert columns.sum() / len(columns) == pytest.approx(filled, abs=0.06)


def test_the_height_is_the_confidence(tmp_path):
    def height(confidence):
        return inked(drawn([row(n / 10, confidence=confidence) for n in range(20)], tmp_path), "happy")[:-80].sum()

    assert height(0.4) / height(0.8) == pytest.approx(0.5, abs=0.05)


def test_the_figure_reaches_to_the_end_of_the_video(tmp_path):
    lanes = Timeline()
    lanes.add([row(0.0), row(0.1)])
    lanes.add([], until_s=10.0)
    lanes.draw(tmp_path / "figure.png")
    columns = inked(read(tmp_path / "figure.png"), "happy")[:-80].any(axis=0)
    assert 0 < columns.sum() < 0.05 * len(columns)


def test_of_many_people_those_seen_longest_are_drawn(tmp_path):
    passing = [row(track / 10, "fear", track=track) for track in range(2, 40)]
    stay = [row(n / 10, "happy", track=99) for n in range(60)]
    picture = drawn(sorted(passing + stay, key=lambda one: one["time_s"]), tmp_path)
    assert inked(picture, "happy")[:-80].any()
    assert picture.shape[0] <= 150 * (1.3 + 0.75 * LANES) + 1


def test_memory_does_not_grow_with_the_video():
    lanes = Timeline()
    sizes = []
    for start in (0, 5_000, 50_000):
        lanes.add(row(float(at_s), EMOTIONS[at_s % 7]) for at_s in range(start, start + 4 * BINS))
        sizes.append(sum(len(lane) for lane in lanes._lanes.values()))
    assert max(sizes) <= BINS
    assert np.sum([sums[1] for sums in lanes._lanes[1].values()]) == 12 * BINS  # and no reading is lost


def test_a_failure_leaves_no_part_of_a_figure(tmp_path):
    with pytest.raises(KeyError):
        timeline([{"time_s": 0.0}], tmp_path / "figure.png")
    assert not list(tmp_path.iterdir())
