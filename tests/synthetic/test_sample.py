"""The drawn faces: reproducible, balanced, and neither trivial nor impossible to tell apart."""

import zipfile

import cv2
import numpy as np
import pytest
from cv2.data import haarcascades
from sklearn.svm import SVC
from tests.support.paths import ROOT

from emotion_detection.commands.draw_sample import draw_sample
from emotion_detection.emotions import EMOTIONS, SAMPLE_COMMENT
from emotion_detection.synthetic.action_units import MOVES, PEOPLE
from emotion_detection.synthetic.sample import COPIES, draw_face, draw_faces, draw_frame, write_sample

SAMPLE = ROOT / "sample" / "sample.zip"
SAMPLE_SEED = 2013  # draw_sample's default


@pytest.fixture(scope="module")
def faces():
    return draw_faces(60, seed=1)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("sample") / "small.zip"
    write_sample(path, per_class=20, seed=3)
    return path


def gradients(images):
    """HOG of each face, (n,900)."""
    hog = cv2.HOGDescriptor((48, 48), (16, 16), (8, 8), (8, 8), 9)
    return np.stack([np.ravel(hog.compute(image)) for image in images])


def read(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def decode(jpeg):
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_UNCHANGED)


def test_every_unit_moves_a_number_that_people_have():
    assert {name for moves in MOVES.values() for name in moves} <= PEOPLE.keys()


@pytest.mark.parametrize("emotion", EMOTIONS)
@pytest.mark.parametrize("size_px", [48, 100])
def test_a_face_is_gray_of_the_size_asked_for(emotion, size_px):
    face = draw_face(emotion, np.random.default_rng(0), size_px=size_px)
    assert (face.shape, face.dtype) == ((size_px, size_px), np.uint8)
    assert face.std() > 5


def test_faces_are_balanced_and_all_different(faces):
    images, labels = faces
    assert (images.shape, images.dtype, labels.dtype) == ((420, 48, 48), np.uint8, np.uint8)
    assert np.bincount(labels).tolist() == [60] * len(EMOTIONS)
    assert len({image.tobytes() for image in images}) == len(images)


def test_the_seed_alone_decides(faces):
    again, _ = draw_faces(2, seed=1)
    np.testing.assert_array_equal(again, faces[0].reshape(7, 60, 48, 48)[:, :2].reshape(-1, 48, 48))
    assert not np.array_equal(again, draw_faces(2, seed=2)[0])


def test_emotions_can_be_told_apart_but_not_perfectly(faces):
    images, labels = faces
    features, rng = gradients(images), np.random.default_rng(0)
    held_out = np.arange(len(labels)) % 4 == 0
    right = SVC(C=5).fit(features[~held_out], labels[~held_out]).score(features[held_out], labels[held_out])
    shuffled = rng.permutation(labels[~held_out])
    chance = SVC(C=5).fit(features[~held_out], shuffled).score(features[held_out], labels[held_out])
    assert 0.55 < right < 0.97
    assert chance < 0.30


def mouth_bend(emotion):
    """How many rows (96 a face) the average mouth's dark line lies lower beside its middle than in it."""
    faces = [draw_face(emotion, np.random.default_rng(seed), size_px=96) for seed in range(40)]
    sharp = [(face - cv2.GaussianBlur(face.astype(float), (0, 0), 6)) / face.std() for face in faces]
    mouth = np.mean(sharp, 0)[66:86]  # under the nose, over the chin
    beside, middle = mouth[:, np.r_[32:38, 58:64]], mouth[:, 44:52]
    return int(beside.mean(1).argmin()) - int(middle.mean(1).argmin())


def test_happy_mouths_turn_up_and_sad_mouths_down():
    assert mouth_bend("happy") < 0 < mouth_bend("sad")


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_frame_holds_its_boxes_side_by_side(count):
    frame, boxes = draw_frame(EMOTIONS[:count], np.random.default_rng(0), width_px=500, height_px=300)
    assert (frame.shape, frame.dtype, boxes.shape) == ((300, 500, 3), np.uint8, (count, 4))
    left, top, width, height = boxes.T
    assert min(left.min(initial=0), top.min(initial=0)) == 0
    assert (left + width).max(initial=0) <= 500
    assert (top + height).max(initial=0) <= 300
    assert (left[1:] >= (left + width)[:-1]).all()


def test_a_haar_cascade_finds_the_faces_of_a_frame():
    haar = cv2.CascadeClassifier(haarcascades + "haarcascade_frontalface_default.xml")
    rng, found, drawn = np.random.default_rng(0), 0, 0
    for _ in range(8):
        frame, boxes = draw_frame(rng.choice(EMOTIONS, 2).tolist(), rng)
        seen = haar.detectMultiScale(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), 1.1, 4, minSize=(60, 60))
        centres = np.asarray(seen).reshape(-1, 4) @ np.array([[1, 0], [0, 1], [0.5, 0], [0, 0.5]])
        for left, top, width, height in boxes:
            offset = np.abs(centres - (left + width / 2, top + height / 2))
            found += bool((offset < width / 4).all(1).any())
        drawn += len(boxes)
    assert found >= 0.8 * drawn


def test_the_archive_has_kaggles_layout(archive):
    with zipfile.ZipFile(archive) as opened:
        assert opened.comment == SAMPLE_COMMENT == b"emotion-detection sample"
        names = opened.namelist()
    assert len(set(names)) == len(names) == 20 * 7 + len(COPIES)
    for emotion in EMOTIONS:
        drawn = [name for name in names if f"/{emotion}/" in name and int(name[:-4].split("_")[1]) < 20]
        usages = [name.split("/")[2].split("_")[0] for name in drawn]
        assert [usages.count(usage) for usage in ("Training", "PublicTest", "PrivateTest")] == [14, 3, 3]
    assert all(name.startswith("train/") == ("/Training_" in name) for name in names)


def test_the_archive_is_reproducible_and_leaves_nothing_beside_it(archive, tmp_path):
    draw_sample(tmp_path / "new" / "again.zip", per_class=20, seed=3)
    assert (tmp_path / "new" / "again.zip").read_bytes() == archive.read_bytes()
    assert [path.name for path in archive.parent.iterdir()] == ["small.zip"]


def test_a_sample_too_small_to_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 6"):
        write_sample(tmp_path / "tiny.zip", per_class=5, seed=0)
    assert not list(tmp_path.iterdir())


def test_the_planted_copies_are_there_and_no_others(archive):
    pictures = read(archive)
    groups: dict[bytes, list[str]] = {}
    for name, jpeg in pictures.items():
        groups.setdefault(jpeg, []).append(name)
    copied = [{tuple(name.split("_")[0].split("/")[1:]) for name in group} for group in groups.values() if group[1:]]
    assert sorted(map(sorted, copied)) == sorted(map(sorted, COPIES))


def test_the_committed_sample_is_what_the_code_draws():
    """Every 25th face is drawn again: equal but for the JPEG codec and the last bit of the arithmetic."""
    pictures = read(SAMPLE)
    assert len(pictures) == 200 * 7 + len(COPIES)
    assert SAMPLE.stat().st_size < 2_500_000
    for label, emotion in enumerate(EMOTIONS):
        for number in range(0, 140, 25):
            drawn = draw_face(emotion, np.random.default_rng((SAMPLE_SEED, label, number)))
            kept = decode(pictures[f"train/{emotion}/Training_{number}.jpg"])
            assert kept.shape == (48, 48)
            assert np.abs(drawn.astype(int) - kept).mean() < 5
