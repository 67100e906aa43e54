"""The demo as people use it: its own process, a real browser with a film as its camera, and whatever they drop."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.support.cameras import camera, picture
from tests.support.paths import ROOT

from emotion_detection.inference import pretrained

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
STARTS_S = 90
# Loaded by every Python process of the demo: whoever imports TensorFlow or calls a host that is not this one fails.
GUARD = """
import socket, sys
class Wall:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("tensorflow", "keras"):
            raise RuntimeError(f"{name} was imported")
sys.meta_path.insert(0, Wall())
connect = socket.socket.connect
def guarded(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        print("FOREIGN", address, file=sys.stderr, flush=True)
        raise OSError("no way out")
    return connect(self, address)
socket.socket.connect = guarded
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(home: Path) -> dict[str, str]:
    """A home, a temporary folder and a store of its own, and no way out."""
    for name in ("home", "temp", "guard"):
        (home / name).mkdir(exist_ok=True)
    (home / "guard" / "sitecustomize.py").write_text(GUARD)
    folders = {"HOME": home / "home", "TMPDIR": home / "temp", "PYTHONPATH": home / "guard"}
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}", "PYTHONDONTWRITEBYTECODE": "1"}
    return os.environ | {name: str(path) for name, path in folders.items()} | store


@contextmanager
def demo(home: Path, *options: str, **variables: str):
    """The address of a running demo."""
    port = free_port()
    log = home / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "demo" / "app.py"), "--port", str(port), *options],
            cwd=home,
            env=environment(home) | variables,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        wait(lambda: process.poll() is not None or "open http" in log.read_text(), "the page to be served", STARTS_S)
        assert process.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}"
        assert "FOREIGN" not in log.read_text()
    finally:
        process.terminate()
        process.wait(20)


def wait(happened, what: str, seconds: float = 30):
    end = time.monotonic() + seconds
    while not (result := happened()):
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.1)
    return result


def get(url: str):
    with urllib.request.urlopen(url, timeout=30) as reply:
        return json.load(reply)


def post(url: str, content: bytes):
    request = urllib.request.Request(url, content, {"Content-Type": "application/octet-stream"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def address(home):
    with demo(home) as url:
        wait(lambda: get(f"{url}/serving")["message"] == "", "the registry's champion", STARTS_S)
        yield url


@pytest.fixture
def browser(tmp_path):
    """A function that opens the page in a Chromium whose camera shows so many drawn faces."""
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}: apt-get install chromium, or set CHROMIUM")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:

        def opened(url: str, people: int):
            film = camera(tmp_path / f"{people}.mjpeg", people)
            flags = ["--no-sandbox", "--disable-gpu", "--use-fake-ui-for-media-stream"]
            flags += ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={film}"]
            page = driver.chromium.launch(executable_path=CHROMIUM, args=flags).new_page()
            page.foreign = []
            page.on(
                "request", lambda request: page.foreign.append(request.url) if is_foreign(request.url, url) else None
            )
            page.goto(url)
            page.click("#live [data-part=start]", timeout=60_000)
            page.wait_for_function("Number(document.getElementById('live').dataset.answers) > 10", timeout=60_000)
            return page

        yield opened


def is_foreign(url: str, own: str) -> bool:
    return not url.startswith((own, own.replace("http", "ws"), "data:", "blob:", "about:"))


def faces_seen(page) -> str:
    return page.get_attribute("#live", "data-faces")


# The camera


def test_the_champion_of_the_registry_serves(address):
    assert get(f"{address}/serving") | {"open": 0} == {
        "source": "models:/emotion-detection/1",
        "uri": pretrained.CHAMPION,
        "message": "",
        "open": 0,
    }


def test_every_face_before_the_camera_is_drawn(address, browser):
    page = browser(address, 3)
    wait(lambda: faces_seen(page) == "3", "three faces")
    drawn = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter(v => v).length"
    assert page.eval_on_selector("#live [data-part=overlay]", drawn) > 5000
    assert re.match(r"3 faces · \d+ ms there and back", page.inner_text("#live [data-part=numbers]"))
    page.check("#live [value=largest]")
    wait(lambda: faces_seen(page) == "1", "the largest alone")
    assert page.foreign == []
    page.context.browser.close()


def test_two_browsers_have_each_their_own_people(address, browser):
    one, three = browser(address, 1), browser(address, 3)
    for page, people in ((one, "1"), (three, "3")):
        wait(lambda page=page, people=people: faces_seen(page) == people, f"{people} faces")
    assert get(f"{address}/serving")["open"] == 2
    before = [int(page.get_attribute("#live", "data-answers")) for page in (one, three)]
    time.sleep(1)
    assert all(
        int(page.get_attribute("#live", "data-answers")) > b for page, b in zip((one, three), before, strict=True)
    )
    for page in (one, three):
        page.context.browser.close()
    wait(lambda: get(f"{address}/serving")["open"] == 0, "closed tabs to be forgotten")


def test_nothing_is_written_while_frames_pass(address, home, tmp_path):
    def files():
        return {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}

    frames = [part for _, part in zip(range(40), camera_frames(tmp_path, 2), strict=False)]
    before = files()
    answers = talk(address, frames)
    assert [len(answer["readings"]) for answer in answers[-10:]] == [2] * 10
    assert files() == before


def camera_frames(folder: Path, people: int) -> list[bytes]:
    content = camera(folder / "frames.mjpeg", people).read_bytes()
    return [b"\xff\xd8\xff" + part for part in content.split(b"\xff\xd8\xff")[1:]]


def talk(address: str, messages, **options):
    from websockets.sync.client import connect

    with connect(address.replace("http", "ws") + "/live", **options) as line:
        answers = []
        for message in messages:
            line.send(message)
            answers += [json.loads(line.recv(30))] if isinstance(message, bytes) else []
        return answers


def test_a_bad_frame_gets_a_sentence_and_the_line_stays_open(address, tmp_path):
    good = camera_frames(tmp_path, 1)[0]
    bad, fine = talk(address, ["no json", '{"faces": 7}', good[:300], good])
    assert bad["error"].startswith("the camera's picture")
    assert len(fine["readings"]) == 1
    large = cv2.imencode(".jpg", np.zeros((1200, 2000), np.uint8))[1].tobytes()
    assert "too large" in talk(address, [large])[0]["error"]


def test_another_sites_page_cannot_watch(address):
    from websockets.exceptions import InvalidStatus

    with pytest.raises(InvalidStatus, match="403"):
        talk(address, [b""], origin="http://evil.example")


def test_a_foreign_name_for_this_computer_is_refused(address):
    request = urllib.request.Request(f"{address}/serving", headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request, timeout=30)


def test_a_flood_is_cut_off(address):
    from websockets.exceptions import ConnectionClosed

    with pytest.raises(ConnectionClosed):
        talk(address, [bytes(3_000_000)])


# Photos


@pytest.mark.parametrize("form", ["color", "gray", "rgba", "16-bit", "rotated"])
def test_pictures_of_all_kinds_are_read(address, form):
    told = post(f"{address}/photo", picture(form, people=2))
    assert len(told["readings"]) == 2, told.get("error")
    for reading in told["readings"]:
        assert sum(reading["probabilities"]) == pytest.approx(1, abs=1e-3)
        assert reading["heat"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the picture"),
        (b"just a text, whatever its name", "the picture"),
        (picture("color", people=1)[:2000], "the picture"),
    ],
    ids=["empty", "text", "cut short"],
)
def test_what_is_no_picture_gets_one_sentence(address, content, sentence):
    told = post(f"{address}/photo", content)
    assert sentence in told["error"]
    assert "\n" not in told["error"]


def test_a_picture_without_a_face_has_no_readings(address):
    for size in ((1, 1), (300, 400)):
        told = post(f"{address}/photo", cv2.imencode(".png", np.full(size, 90, np.uint8))[1].tobytes())
        assert told["readings"] == []


def test_the_examples_hold_the_faces_they_promise(address):
    for name, people in (("one", 1), ("two", 2), ("four", 4)):
        with urllib.request.urlopen(f"{address}/examples/{name}.jpg", timeout=30) as reply:
            assert len(post(f"{address}/photo", reply.read())["readings"]) == people


# Videos and models, in the browser


def test_a_video_becomes_a_timeline_a_film_and_a_table(address, browser, tmp_path):
    film = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 10, (640, 480))
    for frame in camera_frames(tmp_path, 2)[:20]:
        writer.write(cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR))
    writer.release()
    page = browser(address, 1)
    page.get_by_role("tab", name="Video").click()
    page.set_input_files("input[data-testid=file-upload]", film)
    page.get_by_text("film.avi").wait_for_attribute(timeout=60_000)
    page.get_by_role("button", name="Read the video").click()
    page.locator("a[href*='readings.csv']").first.wait_for_attribute(timeout=60_000)
    assert page.locator("video[src*='annotated.webm']").count() == 1
    assert page.locator("img[src*='timeline']").count() == 1
    assert page.foreign == []
    page.context.browser.close()


def test_the_model_tab_tells_what_serves(address, browser):
    page = browser(address, 1)
    page.get_by_role("tab", name="Model").click()
    page.get_by_text("models:/emotion-detection/1").first.wait_for_attribute(timeout=30_000)
    assert page.get_by_text("2024/1689").first.is_visible()
    page.context.browser.close()


MOVE = """
import numpy as np
from emotion_detection.experiments import registry, runs
from emotion_detection.inference import pretrained
from emotion_detection.inference.classifier import EmotionClassifier
face = np.zeros((1, 48, 48), np.uint8)
with tracking.run(name="another"):
    told = EmotionClassifier(pretrained.MODEL).probabilities(face)
    sample = {"example": face[..., None], "probabilities": told, "tags": {}}
    number = registry.register(pretrained.MODEL, pretrained.MODEL_NAME, **sample)
registry.set_alias(pretrained.MODEL_NAME, pretrained.ALIAS, number)
"""


def test_a_moved_alias_is_followed_without_a_restart(address, home):
    subprocess.run([sys.executable, "-c", MOVE], check=True, cwd=home, env=environment(home), capture_output=True)
    wait(lambda: get(f"{address}/serving")["source"] == "models:/emotion-detection/2", "the moved alias")


# Starting


def test_without_a_registry_the_shipped_model_serves(tmp_path):
    with demo(tmp_path, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}") as url:
        told = wait(lambda: "refused" in get(f"{url}/serving")["message"] and get(f"{url}/serving"), "a sentence", 60)
        assert told["source"] == str(pretrained.MODEL)
        assert len(post(f"{url}/photo", picture("color", people=1))["readings"]) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--model", "gone.onnx"], "gone.onnx"),
        (["--model", __file__], "cannot be loaded as an ONNX model"),
        (["--detector", "gone.onnx"], "gone.onnx is not there"),
        (["--share"], "--share is not offered"),
    ],
)
def test_what_cannot_start_says_why(tmp_path, options, sentence):
    command = [sys.executable, str(ROOT / "demo" / "app.py"), "--port", str(free_port()), *options]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=90
    )
    assert result.returncode != 0
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_a_port_that_is_taken_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, str(ROOT / "demo" / "app.py"), "--port", port]
        result = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
    assert result.returncode != 0
    assert f"127.0.0.1:{port} cannot be used" in result.stderr
