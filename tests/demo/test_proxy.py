"""The page in a browser behind a reverse proxy that serves it under a path, with https."""

import pytest
from tests.support import chromium
from tests.support.cameras import write_camera, write_film
from tests.support.certificates import write_certificate
from tests.support.reverse_proxy import ReverseProxy, free_port, serving

from emotion_detection.serving.listening import Listening
from server import build_app

PREFIX = "/demo/faces"
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    film = write_camera(tmp_path_factory.mktemp("film") / "people.mjpeg", 2)
    with chromium.browser_or_skip(film) as browser:
        yield browser


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return write_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def open_page(browser):
    """A function that opens a page in a context of its own; script errors fail the test."""
    contexts, problems = [], []

    def open_page(address: str):
        contexts.append(browser.new_context(ignore_https_errors=True))
        page = contexts[-1].new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


@pytest.mark.parametrize(("strip", "keep_host"), [(True, True), (False, False)], ids=["stripped path", "own host"])
def test_camera_photo_and_video_work_behind_a_proxy(
    shipped, detector, certificate, open_page, tmp_path, monkeypatch, strip, keep_host
):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    port, own_port = free_port(), free_port()
    listening = Listening(host="127.0.0.1", port=port, allowed_hosts=["localhost"], root_path=PREFIX)
    app = build_app(shipped, {"haar": detector}, faces="all", listening=listening)
    proxy = ReverseProxy(port, PREFIX, strip=strip, keep_host=keep_host).app
    with serving(app, port), serving(proxy, own_port, ssl_certfile=certificate[0], ssl_keyfile=certificate[1]):
        page = open_page(f"https://localhost:{own_port}{PREFIX}/")
        page.locator("#webcam[data-phase=idle]").wait_for()
        page.click("#webcam [data-part=start]")
        page.locator("#webcam[data-faces='2']").wait_for()
        page.click("#webcam [data-part=stop]")
        page.get_by_role("tab", name="Photo").click()
        page.click("[data-example=two]")
        page.locator("#photo[data-phase=done][data-faces='2']").wait_for()
        chromium.choose_video(page, write_film(tmp_path / "film.avi", count=5))
        page.get_by_role("button", name="Read the video").click()
        page.wait_for_function("document.querySelector('video[src*=annotated]')?.readyState > 0")  # it was fetched


def test_page_names_the_option_when_its_proxy_is_not_allowed(shipped, detector, certificate, open_page):
    """The proxy hides the name that the browser uses."""
    port, own_port = free_port(), free_port()
    app = build_app(shipped, {"haar": detector}, faces="all", listening=Listening(host="127.0.0.1", port=port))
    proxy = ReverseProxy(port, "", strip=True, keep_host=True).app

    async def hidden(scope, receive, send) -> None:
        hosts = [
            (name, b"127.0.0.1:%d" % port if name == b"host" else value) for name, value in scope.get("headers", ())
        ]
        await proxy({**scope, "headers": hosts}, receive, send)

    with serving(app, port), serving(hidden, own_port, ssl_certfile=certificate[0], ssl_keyfile=certificate[1]):
        page = open_page(f"https://localhost:{own_port}/")
        page.get_by_text("Start the server with --allowed-host").wait_for()


def test_foreign_name_gets_a_page_that_names_the_option(shipped, detector, open_page):
    port = free_port()
    app = build_app(shipped, {"haar": detector}, faces="all", listening=Listening(host="127.0.0.1", port=port))
    with serving(app, port):
        page = open_page(f"http://desk.localhost:{port}/")
        page.get_by_text("--allowed-host desk.localhost").wait_for()
