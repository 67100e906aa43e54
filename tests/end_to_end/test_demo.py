"""The demo in its own process, and its page in a browser whose camera shows three drawn people."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support import chromium
from tests.support.cameras import jpeg_frames, picture_file, write_camera, write_film
from tests.support.paths import ROOT
from tests.support.versions import register_version
from websockets.sync.client import connect

from emotion_detection.decoding.images import read_image
from emotion_detection.inference import pretrained
from emotion_detection.inference.table import COLUMNS

START_S = 240
WAIT_MS = 60_000
# Loaded by each Python process of the demo: importing TensorFlow and connecting to another host are errors.
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
        raise OSError("no connection to other hosts")
    return connect(self, address)
socket.socket.connect = guarded
"""
# Makes a page wait for the camera until the test calls grant(), and records the calls and the streams.
SLOW_CAMERA = """
window.requests = 0;
window.streams = [];
const permission = new Promise(resolve => { window.grant = resolve; });
const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async constraints => {
  window.requests++;
  await permission;
  const stream = await open(constraints);
  window.streams.push(stream);
  return stream;
};
"""
TRACK_STATES = "window.streams.flatMap(stream => stream.getTracks().map(track => track.readyState))"
NO_CAMERA = "Object.defineProperty(navigator, 'mediaDevices', {value: undefined});"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
DRAWN = """canvas => {
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.filter(value => value).length;
}"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(home: Path) -> dict[str, str]:
    """Environment variables that give a process its own home, temporary folder and store."""
    for name in ("home", "temp", "guard"):
        (home / name).mkdir(exist_ok=True)
    (home / "guard" / "sitecustomize.py").write_text(GUARD)
    paths = os.pathsep.join(filter(None, (str(home / "guard"), os.environ.get("PYTHONPATH"))))
    folders = {"HOME": str(home / "home"), "TMPDIR": str(home / "temp"), "PYTHONPATH": paths}
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}", "PYTHONDONTWRITEBYTECODE": "1"}
    return os.environ | folders | store


@contextmanager
def running_demo(home: Path, *options: str):
    """A demo that is ready: its process, its address and its log."""
    port, log = free_port(), home / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "demo" / "app.py"), "--port", str(port), *options],
            cwd=home,
            env=environment(home),
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(lambda: process.poll() is not None or "open http" in log.read_text(), "the demo to start", START_S)
        assert process.poll() is None, log.read_text()
        yield process, f"http://127.0.0.1:{port}", log
    finally:
        process.kill()
        process.wait()


def wait_for(condition, what: str, seconds: float = 30):
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.1)
    return result


def get(url: str):
    with urllib.request.urlopen(url, timeout=30) as reply:
        return json.load(reply)


@pytest.fixture(scope="module")
def home(tmp_path_factory, migrated_store):
    folder = tmp_path_factory.mktemp("demo")
    (folder / "mlflow.db").write_bytes(migrated_store.read_bytes())
    (folder / "dvc.yaml").touch()  # a project, whose own store gets the shipped model
    return folder


@pytest.fixture(scope="module")
def address(home):
    with running_demo(home) as (_, url, log):
        messages: list[str] = []

        def is_served() -> bool:
            messages.append(get(f"{url}/serving")["message"])
            return messages[-1] == ""

        try:
            wait_for(is_served, "the registry's champion", START_S)
        except AssertionError as error:
            raise AssertionError(f"{error}; the demo says {messages[-1]!r}: {log.read_text()}") from None
        yield url
        assert "FOREIGN" not in log.read_text()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    film = write_camera(tmp_path_factory.mktemp("film") / "people.mjpeg", 3)
    with chromium.browser_or_skip(film) as browser:
        yield browser


@pytest.fixture
def open_page(browser, address):
    """A function that opens the page in its own context. Requests to other hosts and script errors fail the test."""
    contexts, problems = [], []

    def open_page(script: str = "", **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("request", lambda request: problems.append(request.url) if is_foreign(request.url, address) else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.add_init_script(script)
        page.goto(address)
        page.locator("#webcam[data-phase=idle]").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def is_foreign(url: str, own: str) -> bool:
    return not url.startswith((own, own.replace("http", "ws"), "data:", "blob:", "about:"))


def start_camera(page) -> None:
    page.click("#webcam [data-part=start]")
    page.wait_for_function("Number(document.getElementById('webcam').dataset.answers) > 5")


def open_tab(page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def bottom(page, selector: str) -> float:
    """Where an element ends, in CSS pixels from the top of the window."""
    box = page.locator(selector).last.bounding_box()
    return box["y"] + box["height"]


def serious_violations(page) -> list[str]:
    """What axe-core finds."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    violations = axe.run(page).response["violations"]
    return [
        f"{found['id']}: {node['html'][:200]}"
        for found in violations
        for node in found["nodes"]
        if found["impact"] in ("serious", "critical")
    ]


# Webcam


def test_every_face_is_drawn_over_the_video(open_page):
    page = open_page()
    start_camera(page)
    page.locator("#webcam[data-faces='3']").wait_for()
    spoken = re.compile(r"^3 faces: \d+ \w+")  # for screen readers, every few seconds
    page.locator("#webcam [data-part=spoken]", has_text=spoken).wait_for(state="attached")
    assert page.eval_on_selector("#webcam [data-part=overlay]", DRAWN) > 5000
    assert page.eval_on_selector("#webcam [data-part=timeline]", DRAWN) > 1000
    assert page.get_attribute("#webcam [data-part=overlay]", "aria-label").startswith("3 faces: ")
    assert re.match(r"3 faces · \d+ ms round trip · \d+ ms on the", page.inner_text("#webcam [data-part=numbers]"))


def test_two_pages_are_independent(open_page, address):
    first, second = open_page(), open_page()
    second.check("#webcam [value=largest]")
    for page, faces in ((first, "3"), (second, "1")):
        start_camera(page)
        page.locator(f"#webcam[data-faces='{faces}']").wait_for()
    assert get(f"{address}/serving")["open"] == 2
    first.click("#webcam [data-part=stop]")
    second.close()
    wait_for(lambda: get(f"{address}/serving")["open"] == 0, "both cameras to be closed")


def test_second_start_opens_no_second_camera(open_page):
    page = open_page(SLOW_CAMERA)
    page.click("#webcam [data-part=start]")
    assert page.is_disabled("#webcam [data-part=start]")
    page.dispatch_event("#webcam [data-part=start]", "click")
    page.evaluate("window.grant()")
    page.locator("#webcam[data-phase=running]").wait_for()
    page.dispatch_event("#webcam [data-part=start]", "click")
    page.wait_for_function("Number(document.getElementById('webcam').dataset.answers) > 0")
    assert page.evaluate(TRACK_STATES) == ["live"]
    page.click("#webcam [data-part=stop]")
    assert page.evaluate(TRACK_STATES) == ["ended"]
    assert page.evaluate("window.requests") == 1


def test_stop_while_starting_ends_the_camera(open_page, address):
    page = open_page(SLOW_CAMERA)
    page.click("#webcam [data-part=start]")
    page.click("#webcam [data-part=stop]")
    page.evaluate("window.grant()")
    page.wait_for_function("window.streams.length === 1")
    page.wait_for_function(f"{TRACK_STATES}.every(state => state === 'ended')")
    assert page.evaluate("window.requests") == 1
    assert page.get_attribute("#webcam", "data-phase") == "idle"
    assert get(f"{address}/serving")["open"] == 0
    start_camera(page)
    assert page.evaluate(TRACK_STATES) == ["ended", "live"]


def test_blocked_camera_is_explained(open_page):
    error = "new DOMException('blocked', 'NotAllowedError')"
    page = open_page(f"navigator.mediaDevices.getUserMedia = () => Promise.reject({error});")
    page.click("#webcam [data-part=start]")
    page.get_by_text("The camera is blocked.").wait_for()
    assert page.is_enabled("#webcam [data-part=start]")


def test_page_without_a_camera_says_what_to_do(open_page):
    page = open_page(NO_CAMERA)
    message = page.locator("#webcam [data-part=message]")
    assert "--ssl-certfile" in message.inner_text()
    page.click("#webcam [data-part=start]")
    assert message.is_visible()


def test_snapshot_and_readings_are_made_in_the_browser(open_page):
    page = open_page()
    assert page.is_disabled("#webcam [data-part=snapshot]")
    start_camera(page)
    page.locator("#webcam[data-faces='3']").wait_for()
    with page.expect_download() as picture:
        page.click("#webcam [data-part=snapshot]")
    snapshot = read_image(picture.value.path())
    assert picture.value.suggested_filename.endswith(".png")
    assert snapshot.shape == (480, 640, 3)
    assert (snapshot.max(axis=2) - snapshot.min(axis=2) > 60).sum() > 1000  # the camera is gray, the boxes are not
    page.click("#webcam [data-part=stop]")
    with page.expect_download() as table:
        page.click("#webcam [data-part=download]")
    lines = Path(table.value.path()).read_text().splitlines()
    assert lines[0].split(",") == list(COLUMNS)
    assert len(lines) > 6
    assert {line.split(",")[0] for line in lines[1:]} == {"webcam"}


def test_detector_is_switched_while_the_camera_runs(open_page):
    sent = []

    def serve(socket):
        def answer(message):
            if isinstance(message, str):
                sent.append(json.loads(message))
                if sent[-1]["detector"] == "yunet":
                    socket.send(json.dumps({"notice": "YuNet cannot be downloaded.", "detector": "haar"}))

        socket.on_message(answer)

    page = open_page()
    page.route_web_socket("**/webcam", serve)
    page.click("#webcam [data-part=start]")
    page.locator("#webcam[data-phase=running]").wait_for()
    page.click("#webcam [value=yunet]")
    page.get_by_text("YuNet cannot be downloaded.").wait_for()
    assert page.is_checked("#webcam [value=haar]")
    assert sent == [{"faces": "all", "detector": "haar"}, {"faces": "all", "detector": "yunet"}]


@pytest.mark.parametrize("window", [DESKTOP, PHONE])
def test_results_are_visible_without_scrolling(open_page, window):
    page = open_page(viewport=window)
    start_camera(page)
    page.locator("#webcam[data-faces='3']").wait_for()
    assert bottom(page, "#webcam [data-part=timeline]") <= window["height"]
    open_tab(page, "Photo")
    page.click("[data-example=four]")
    page.locator("#photo[data-phase=done]").wait_for()
    assert bottom(page, "#photo .face" if window == DESKTOP else "#photo .face >> nth=0") <= window["height"]
    assert page.evaluate("document.documentElement.scrollWidth") <= window["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_tab_is_inaccessible(open_page, scheme):
    page = open_page(viewport=DESKTOP, color_scheme=scheme)
    if scheme == "dark":
        page.evaluate("document.body.classList.add('dark')")
    start_camera(page)
    assert serious_violations(page) == []
    open_tab(page, "Photo")
    page.click("[data-example=one]")
    page.locator("#photo[data-phase=done]").wait_for()
    assert serious_violations(page) == []
    for tab, text in (("Video", "Read the video"), ("Model", "2024/1689")):
        open_tab(page, tab)
        page.get_by_text(text).first.wait_for()
        assert serious_violations(page) == []


# Photo and video


def test_picture_is_chosen_with_the_keyboard(open_page):
    page, picture = open_page(), {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": picture_file("color", people=2)}
    page.on("filechooser", lambda chooser: chooser.set_files(picture))
    page.get_by_role("tab", name="Webcam").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#photo[data-mounted] [data-part=choose]").wait_for()
    for _ in range(4):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.part") == "choose":
            break
    assert page.evaluate("document.activeElement.dataset.part") == "choose"
    assert page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2
    page.keyboard.press("Enter")
    page.locator("#photo[data-phase=done][data-faces='2']").wait_for()
    with page.expect_download() as table:
        page.click("#photo [data-part=download]")
    assert [line.split(",")[0] for line in Path(table.value.path()).read_text().splitlines()[1:]] == ["a.jpg", "a.jpg"]


def test_example_photo_shows_a_card_per_face(open_page):
    page = open_page()
    page.get_by_role("tab", name="Photo").click()
    page.click("[data-example=two]")
    page.locator("#photo[data-phase=done]").wait_for()
    assert page.locator("#photo .face").count() == 2
    assert page.locator("#photo .face figure img").count() == 4
    assert page.eval_on_selector("#photo [data-part=picture]", DRAWN) > 5000
    page.set_input_files("#photo input", {"name": "a.png", "mimeType": "image/png", "buffer": b"no image"})
    page.locator("#photo[data-phase=error]").wait_for()
    assert page.is_hidden("#photo [data-part=result]")


def test_video_becomes_a_timeline_a_copy_and_a_table(open_page, tmp_path):
    film = write_film(tmp_path / "film.avi", count=10)
    page = open_page()
    chromium.choose_video(page, film)
    page.get_by_role("button", name="Read the video").click()
    page.get_by_text(re.compile(r"\d+ of 10 frames · \d+ frames/s")).wait_for()
    page.get_by_text("Finished.").wait_for()
    assert page.locator("video[src*='annotated.webm']").count() == 1
    assert page.locator("img[alt='The emotion of each person over time']").count() == 1
    assert page.get_by_text(re.compile("^10 frames, ")).count() == 1
    assert serious_violations(page) == []
    with page.expect_download() as table:
        page.get_by_text("Save all readings (CSV)").click()
    assert Path(table.value.path()).read_text().startswith(",".join(COLUMNS))


def test_video_is_canceled(open_page, tmp_path, home):
    def folders():
        return list((home / "temp").rglob("readings-*"))

    film, before = write_film(tmp_path / "film.avi", count=200), folders()
    page = open_page()
    chromium.choose_video(page, film)
    page.get_by_role("button", name="Read the video").click()
    page.get_by_text(re.compile("of 200 frames")).wait_for()
    assert len(folders()) == len(before) + 1
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Canceled. Nothing was kept.").wait_for()
    assert page.is_enabled("button:has-text('Read the video')")
    wait_for(lambda: folders() == before, "the unfinished results to be deleted")
    page.wait_for_timeout(1000)
    assert page.get_by_text("Canceled. Nothing was kept.").is_visible()


def test_damaged_video_shows_its_results_and_a_warning(open_page, tmp_path):
    film = write_film(tmp_path / "film.avi", count=20)
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    page = open_page()
    chromium.choose_video(page, film)
    page.get_by_role("button", name="Read the video").click()
    page.get_by_role("alert").get_by_text("film.avi").wait_for()
    assert page.get_by_text("Save all readings (CSV)").is_visible()
    assert page.locator("video[src*='annotated.webm']").count() == 1


# Model


@pytest.fixture
def registry_of_the_demo(home, monkeypatch):
    """Points MLflow in this process to the demo's store."""
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
    monkeypatch.chdir(home)
    yield
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


@pytest.mark.usefixtures("registry_of_the_demo")
def test_choice_of_a_model_survives_the_refresh(open_page, address):
    from emotion_detection.experiments import registry

    page = open_page()
    page.get_by_role("tab", name="Model").click()
    page.get_by_text("models:/emotion-detection/1").first.wait_for()
    assert page.get_by_text("2024/1689").first.is_visible()
    choice = page.get_by_label("Model to serve")
    assert choice.input_value() == pretrained.CHAMPION
    choice.click()
    page.get_by_role("option", name="models:/emotion-detection/1").click()
    register_version()
    page.get_by_role("cell", name="2", exact=True).first.wait_for()  # the table was refreshed
    assert choice.input_value() == "models:/emotion-detection/1"
    choice.click()
    page.get_by_role("option", name="models:/emotion-detection/2").click()
    page.get_by_role("button", name="Switch").click()
    wait_for(lambda: get(f"{address}/serving")["source"] == "models:/emotion-detection/2", "the chosen version")
    assert get(f"{address}/serving")["uri"] == "models:/emotion-detection/2"
    register_version("emotion-detection-sample")  # as a training on the sample does
    page.get_by_role("cell", name="emotion-detection-sample").wait_for()
    choice.click()
    assert page.get_by_role("option", name="models:/emotion-detection-sample/1").is_visible()
    page.get_by_role("option", name=pretrained.CHAMPION).click()
    page.get_by_role("button", name="Switch").click()
    wait_for(lambda: get(f"{address}/serving")["source"] == "models:/emotion-detection/1", "the champion")
    registry.set_alias(pretrained.MODEL_NAME, pretrained.ALIAS, 2)
    wait_for(lambda: get(f"{address}/serving")["source"] == "models:/emotion-detection/2", "the moved alias")


# The process


def test_frames_and_photos_leave_no_file(address, home):
    def files():
        return {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}

    before = files()
    with connect(f"{address.replace('http', 'ws')}/webcam") as socket:
        for frame in jpeg_frames(2, count=40):
            socket.send(frame)
            assert len(json.loads(socket.recv(30))["readings"]) == 2
    request = urllib.request.Request(f"{address}/photo", picture_file("color", people=2))
    with urllib.request.urlopen(request, timeout=60) as reply:
        assert len(json.load(reply)["readings"]) == 2
    assert files().items() <= before.items()  # others may be swept


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_demo_quietly_and_deletes_its_uploads(tmp_path, number):
    with running_demo(tmp_path, "--model", str(pretrained.MODEL)) as (process, url, log):
        assert get(f"{url}/serving")["source"] == str(pretrained.MODEL)
        with connect(f"{url.replace('http', 'ws')}/webcam"), urllib.request.urlopen(f"{url}/gradio_api/heartbeat/page"):
            assert list((tmp_path / "temp").glob("emotion-detection-demo-*"))
            process.send_signal(number)
            assert process.wait(20) == 0
        announced, *rest = log.read_text().splitlines()
        assert announced.startswith(f"open {url} (ready after ")
        assert rest == ["", "The demo has stopped."]
        assert list((tmp_path / "temp").glob("emotion-detection-demo-*")) == []
