"""YuNet is downloaded once and verified, and wrong files are refused."""

import hashlib
import io
import os
import subprocess
import sys
import urllib.error
import urllib.request

import cv2
import numpy as np
import platformdirs
import pytest
from tests.support.paths import PRETRAINED, ROOT

from emotion_detection.errors import ModelError
from emotion_detection.evaluation.detector_crops import draw_background, paste_face
from emotion_detection.inference import yunet
from emotion_detection.inference.detector import YunetDetector, load_detector
from emotion_detection.inference.reading import Box

SHARED = ROOT.parent / "shared/yunet" / yunet.FILE
CONTENT = b"a network"


@pytest.fixture
def host(monkeypatch, tmp_path):
    """A host that serves CONTENT as YuNet's file, and the addresses that were asked for."""
    asked = []

    def urlopen(url, timeout):  # noqa: ARG001
        asked.append(url)
        return io.BytesIO(CONTENT)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(yunet, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / name)
    return asked


def test_file_is_downloaded_once(host):
    path = yunet.yunet_file()
    assert path.read_bytes() == CONTENT
    assert yunet.yunet_file() == path
    assert len(host) == 1
    assert host[0].startswith("https://")


def test_damaged_cached_file_is_downloaded_again(host):
    yunet.yunet_file().write_bytes(CONTENT[:3])
    assert yunet.yunet_file().read_bytes() == CONTENT
    assert len(host) == 2


def test_file_with_another_digest_is_refused(host, monkeypatch, tmp_path):
    monkeypatch.setattr(yunet, "SHA256", "0" * 64)
    with pytest.raises(ModelError, match="is not the published YuNet model"):
        load_detector("yunet")
    assert len(host) == 1
    assert not any(tmp_path.rglob("*.onnx"))


@pytest.mark.parametrize("error", [urllib.error.URLError("no route to host"), TimeoutError("timed out")])
def test_offline_computer_is_reported(host, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    with pytest.raises(
        ModelError, match=r"cannot be downloaded from https.* \((no route to host|timed out)\): connect"
    ):
        load_detector("yunet")
    assert host == []


def test_unwritable_cache_is_reported(host, tmp_path):
    (tmp_path / "emotion-detection").write_text("a file")
    with pytest.raises(ModelError, match="YuNet cannot be downloaded"):
        yunet.yunet_file()
    assert len(host) <= 1


@pytest.mark.parametrize("content", [b"", b"no model", (PRETRAINED / "model.onnx").read_bytes()])
def test_other_file_is_refused(tmp_path, content):
    (tmp_path / "wrong.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"wrong\.onnx cannot be loaded as a YuNet model"):
        YunetDetector(tmp_path / "wrong.onnx")


def test_large_file_is_refused_unread(tmp_path):
    with (tmp_path / "large.onnx").open("wb") as stream:
        stream.truncate(yunet.LARGEST_FILE + 1)
    with pytest.raises(ModelError, match=r"large\.onnx is larger than 10 MB"):
        YunetDetector(tmp_path / "large.onnx")


@pytest.fixture(scope="module")
def yunet_path():
    if not SHARED.is_file():
        pytest.skip("YuNet's file is not here")
    return SHARED


@pytest.fixture(scope="module")
def detector(yunet_path):
    return load_detector(yunet_path)


@pytest.mark.parametrize(("height", "side"), [(120, 60), (480, 200), (1200, 120), (1200, 800)])
def test_small_and_large_faces_are_found_in_pictures_of_any_size(detector, drawn_faces, height, side):
    canvas, scale = draw_background(240, 320, np.random.default_rng(0)), height / 240
    place = Box(60, 40, round(side / scale), round(side / scale))
    paste_face(canvas, drawn_faces[4], place)
    (box,) = detector.detect(cv2.resize(canvas, (height * 4 // 3, height)))
    sides = (round(value / scale) for value in (box.left, box.top, box.width, box.height))
    assert Box(*sides).overlap(place) > 0.3


def test_frames_of_a_video_are_scanned_once(detector, monkeypatch):
    sizes = []

    def scan(gray, size):  # noqa: ARG001
        sizes.append(size)
        return []

    monkeypatch.setattr(detector, "_scan", scan)
    frame = np.zeros((1200, 1600), np.uint8)
    detector.detect(frame, smallest_px=100)
    detector.detect(frame)
    assert sizes == [yunet.VIDEO_PX, yunet.COARSE_PX, 720]


UNINITIALIZED_MEMORY = """
import sys
import numpy as np
from pathlib import Path
from emotion_detection.inference.yunet import YunetDetector

detector = YunetDetector(Path(sys.argv[1]))
for shape in [(100, 6000), (6000, 100), (20, 300)]:
    print(detector.detect(np.full(shape, 99, np.uint8)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library fills the memory")
@pytest.mark.parametrize("fill", ["0", "127", "200"])
def test_narrow_pictures_do_not_depend_on_unwritten_memory(yunet_path, fill):
    found = subprocess.run(
        [sys.executable, "-c", UNINITIALIZED_MEMORY, yunet_path],
        env=os.environ | {"MALLOC_PERTURB_": fill},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == ["[]"] * 3


@pytest.mark.parametrize("shape", [(1, 1), (3, 1000), (1000, 2), (100, 6000), (20, 20), (2000, 2100)])
def test_uniform_pictures_of_any_shape_have_no_faces(detector, shape):
    assert detector.detect(np.full(shape, 99, np.uint8)) == []
