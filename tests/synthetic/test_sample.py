"""Drawn faces are reproducible and balanced, and their emotions are neither trivial nor impossible to classify."""

import zipfile

import cv2
import numpy as np
import pytest
from cv2.data import haarcascades
from sklearn.svm import SVC
from tests.support.paths import ROOT

from emotion_detection.commands.draw_sample import draw_sample
from emotion_detection.emotions import EMOTIONS, SAMPLE_COMMENT
from emotion_detection.errors import UsageError
from emotion_detection.synthetic.action_units import MOVES, PEOPLE
from emotion_detection.synthetic.sample import COPIES, draw_face, draw_faces, draw_frame, write_sample

SAMPLE = ROOT / "sample" / "sample.zip"
SAMPLE_SEED = 2013  # draw_sample's default


@pytest.fixture(scope="module")
def committed():
    """The JPEG files of the committed sample by name."""
    return read_zip(SAMPLE)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A small sample."""
    path = tmp_path_factory.mktemp("sample") / "small.zip"
    write_sample(path, per_class=6, seed=3)
    return path


def hog_features(images):
    """Histograms of oriented gradients, (n,900)."""
    hog = cv2.HOGDescriptor((48, 48), (16, 16), (8, 8), (8, 8), 9)
    return np.stack([np.ravel(hog.compute(image)) for image in images])


def read_zip(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def decode(jpeg):
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_UNCHANGED)


def test_action_units_change_known_parameters():
    assert {name for moves in MOVES.values() for name in moves} <= PEOPLE.keys()


@pytest.mark.parametrize("emotion", EMOTIONS)
@pytest.mark.parametrize("size_px", [48, 100])
def test_face_is_gray_and_has_the_requested_size(emotion, size_px):
    face = draw_face(emotion, np.random.default_rng(0), size_px=size_px)
    assert (face.shape, face.dtype) == ((size_px, size_px), np.uint8)
    assert face.std() > 5


def test_faces_are_balanced_and_distinct_and_depend_only_on_the_seed():
    images, labels = draw_faces(4, seed=1)
    assert (images.shape, images.dtype, labels.dtype) == ((28, 48, 48), np.uint8, np.uint8)
    assert np.bincount(labels).tolist() == [4] * len(EMOTIONS)
    assert len({image.tobytes() for image in images}) == len(images)
    fewer, _ = draw_faces(2, seed=1)
    np.testing.assert_array_equal(fewer, images.reshape(7, 4, 48, 48)[:, :2].reshape(-1, 48, 48))
    assert not np.array_equal(fewer, draw_faces(2, seed=2)[0])


def test_emotions_can_be_classified_but_not_perfectly(committed):
    names = [f"train/{emotion}/Training_{number}.jpg" for emotion in EMOTIONS for number in range(60)]
    features = hog_features([decode(committed[name]) for name in names])
    labels = np.repeat(np.arange(len(EMOTIONS)), 60)
    held_out = np.arange(len(labels)) % 4 == 0
    accuracy = SVC(C=5).fit(features[~held_out], labels[~held_out]).score(features[held_out], labels[held_out])
    shuffled = np.random.default_rng(0).permutation(labels[~held_out])
    chance = SVC(C=5).fit(features[~held_out], shuffled).score(features[held_out], labels[held_out])
    assert 0.55 < accuracy < 0.97
    assert chance < 0.30


def mouth_curve(emotion):
    """The height of the average mouth's dark line in its middle above its sides, in pixels of a 96x96 face."""
    faces = [draw_face(emotion, np.random.default_rng(seed), size_px=96) for seed in range(12)]
    sharp = [(face - cv2.GaussianBlur(face.astype(float), (0, 0), 6)) / face.std() for face in faces]
    mouth = np.mean(sharp, 0)[66:86]  # between nose and chin
    sides, middle = mouth[:, np.r_[32:38, 58:64]], mouth[:, 44:52]
    return int(sides.mean(1).argmin()) - int(middle.mean(1).argmin())


def test_happy_mouths_curve_up_and_sad_mouths_curve_down():
    assert mouth_curve("happy") < 0 < mouth_curve("sad")


@pytest.mark.parametrize("count", [0, 1, 4])
def test_boxes_are_in_the_frame_and_do_not_overlap(count):
    frame, boxes = draw_frame(EMOTIONS[:count], np.random.default_rng(0), width_px=500, height_px=300)
    assert (frame.shape, frame.dtype, boxes.shape) == ((300, 500, 3), np.uint8, (count, 4))
    left, top, width, height = boxes.T
    assert min(left.min(initial=0), top.min(initial=0)) == 0
    assert (left + width).max(initial=0) <= 500
    assert (top + height).max(initial=0) <= 300
    assert (left[1:] >= (left + width)[:-1]).all()


def test_haar_cascade_detects_the_faces_of_a_frame():
    haar = cv2.CascadeClassifier(haarcascades + "haarcascade_frontalface_default.xml")
    rng, detected, drawn = np.random.default_rng(0), 0, 0
    for _ in range(4):
        frame, boxes = draw_frame(rng.choice(EMOTIONS, 2).tolist(), rng)
        detections = haar.detectMultiScale(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), 1.1, 4, minSize=(60, 60))
        centers = np.asarray(detections).reshape(-1, 4) @ np.array([[1, 0], [0, 1], [0.5, 0], [0, 0.5]])
        for left, top, width, height in boxes:
            offset = np.abs(centers - (left + width / 2, top + height / 2))
            detected += bool((offset < width / 4).all(1).any())
        drawn += len(boxes)
    assert detected >= 0.8 * drawn


def check_layout(path, per_class, counts):
    with zipfile.ZipFile(path) as sample:
        assert sample.comment == SAMPLE_COMMENT == b"emotion-detection sample"
        names = sample.namelist()
    assert len(set(names)) == len(names) == per_class * 7 + len(COPIES)
    for emotion in EMOTIONS:
        originals = [name for name in names if f"/{emotion}/" in name and int(name[:-4].split("_")[1]) < per_class]
        usages = [name.split("/")[2].split("_")[0] for name in originals]
        assert [usages.count(usage) for usage in ("Training", "PublicTest", "PrivateTest")] == counts
    assert all(name.startswith("train/") == ("/Training_" in name) for name in names)


def test_sample_has_the_layout_of_kaggles_archive(archive):
    check_layout(archive, 6, [4, 1, 1])
    check_layout(SAMPLE, 200, [140, 30, 30])


def test_sample_is_reproducible_and_leaves_no_other_file(archive, tmp_path):
    draw_sample(tmp_path / "new" / "sample.zip", per_class=6, seed=3)
    assert (tmp_path / "new" / "sample.zip").read_bytes() == archive.read_bytes()
    assert [path.name for path in archive.parent.iterdir()] == ["small.zip"]


def test_sample_too_small_to_split_is_rejected(tmp_path):
    with pytest.raises(ValueError, match="at least 6"):
        write_sample(tmp_path / "tiny.zip", per_class=5, seed=0)
    with pytest.raises(UsageError, match="--per-class is 5: use 6 or more"):
        draw_sample(tmp_path / "tiny.zip", per_class=5)
    assert not list(tmp_path.iterdir())


def test_sample_contains_only_the_intended_copies(archive):
    groups: dict[bytes, list[str]] = {}
    for name, jpeg in read_zip(archive).items():
        groups.setdefault(jpeg, []).append(name)
    copied = [{tuple(name.split("_")[0].split("/")[1:]) for name in group} for group in groups.values() if group[1:]]
    assert sorted(map(sorted, copied)) == sorted(map(sorted, COPIES))


def test_committed_sample_matches_the_code(committed):
    """Every 25th face is drawn again. The JPEG codec and the last bit of floating-point results may differ."""
    assert SAMPLE.stat().st_size < 2_500_000
    for label, emotion in enumerate(EMOTIONS):
        for number in range(0, 140, 25):
            drawn = draw_face(emotion, np.random.default_rng((SAMPLE_SEED, label, number)))
            stored = decode(committed[f"train/{emotion}/Training_{number}.jpg"])
            assert stored.shape == (48, 48)
            assert np.abs(drawn.astype(int) - stored).mean() < 5
