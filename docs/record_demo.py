"""Record the pictures of the demo for the README: docs/demo.webp, animated, and docs/webcam.png.

    python docs/record_demo.py

Chromium opens the page of a running demo. Its camera shows three drawn people whose expressions change.
"""

import base64
import io
import math
import subprocess
import sys
import tempfile
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from emotion_detection.arrays import Frame
from emotion_detection.command_line import run_command
from emotion_detection.inference import pretrained
from emotion_detection.synthetic.render import composite, draw_portrait, expose, noise, random_shape

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.support import chromium  # noqa: E402

PORT = 7871
CAMERA_SIZE_PX = (480, 640)  # height, width
CAMERA_FPS = 30  # with which Chromium plays the film
REPEATS = 2  # of each frame, because drawing takes long
# Left, top and size of a portrait in px, the seed of the person, and the emotions in the order shown. The shipped model
# reads most of these expressions as they are drawn.
PEOPLE = (
    (215, 40, 215, 7, ("neutral", "happy", "surprise")),
    (-5, 220, 220, 2, ("happy", "surprise", "sad")),
    (425, 230, 220, 11, ("surprise", "sad", "happy")),
)
EMOTION_S = 2.0  # per emotion
CHANGE_S = 0.5  # of them until the expression is reached
WARM_UP_S = 20  # fills the timeline below the video
SECONDS, FPS = 6, 10  # of the animation
STILL = "sad surprise happy"  # the readings of webcam.png, in the order of the unmirrored frame
SETTLE_MS = 400  # readings are smoothed
WIDTH_PX = 760
WEBP_QUALITY = 60


def record() -> None:
    """Write docs/demo.webp and docs/webcam.png."""
    with tempfile.TemporaryDirectory() as folder, running_demo(Path(folder)) as address, sync_playwright() as driver:
        film = Path(folder) / "people.mjpeg"
        film.write_bytes(b"".join(jpegs()))
        browser = chromium.launch(driver, film)
        page = browser.new_page(viewport={"width": 1180, "height": 720})
        page.goto(address)
        page.click("#webcam [data-part=start]")
        page.locator("#webcam[data-faces='3']").wait_for(timeout=60_000)
        page.wait_for_timeout(1000 * WARM_UP_S)
        save_animation(screencast(page), ROOT / "docs" / "demo.webp")
        page.locator(f"#webcam[data-emotions='{STILL}']").wait_for(timeout=60_000)
        page.wait_for_timeout(SETTLE_MS)
        page.screenshot(path=ROOT / "docs" / "webcam.png")
        browser.close()


@contextmanager
def running_demo(folder: Path) -> Iterator[str]:
    """The address of a demo that serves the shipped model."""
    command = [sys.executable, str(ROOT / "demo" / "app.py"), "--port", str(PORT), "--model", str(pretrained.MODEL)]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield f"http://127.0.0.1:{PORT}"
    finally:
        process.terminate()
        process.wait()


def jpegs() -> Iterator[bytes]:
    """The frames of the camera; the last frame continues with the first."""
    room = draw_room()
    period_s = EMOTION_S * len(PEOPLE[0][-1])
    for number in range(0, round(CAMERA_FPS * period_s), REPEATS):
        frame = cv2.cvtColor(draw_frame(room, number / CAMERA_FPS), cv2.COLOR_RGB2BGR)
        yield REPEATS * cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


def draw_room() -> NDArray[np.float64]:
    """A plain wall, gray 0..1, of the camera's size."""
    height, width = CAMERA_SIZE_PX
    return (0.42 + 0.05 * noise(np.random.default_rng(3), 4, width))[:height]


def draw_frame(room: NDArray[np.float64], time_s: float) -> Frame:
    """A frame of the camera; time_s is its time in the film."""
    gray = room.copy()
    for number, (left, top, size, seed, emotions) in enumerate(PEOPLE):
        shape = blend(seed, emotions, time_s)
        period_s = EMOTION_S * len(emotions)
        angle = 2 * math.pi * time_s / period_s + number
        shape.roll, shape.shift_x = 0.05 * math.sin(angle), 0.04 * math.cos(angle)
        picture, cover = draw_portrait(shape, np.random.default_rng(seed), size)
        visible = slice(max(-left, 0), min(size, CAMERA_SIZE_PX[1] - left))
        place = gray[top:, left + visible.start : left + visible.stop]
        below = ((0, len(place) - size), (0, 0))
        layers = (np.pad(layer[:, visible], below, mode="edge") for layer in (cover, picture))
        place[:] = composite(place, *layers)
    tint = np.array([1.0, 0.9, 0.82])
    return (expose(gray, np.random.default_rng(1))[..., np.newaxis] * tint).astype(np.uint8)


def blend(seed: int, emotions: tuple[str, ...], time_s: float) -> SimpleNamespace:
    """A person whose expression changes smoothly from one emotion to the next."""
    step, within_s = divmod(time_s, EMOTION_S)
    weight = min(within_s / CHANGE_S, 1.0)
    weight = weight * weight * (3 - 2 * weight)
    current, previous = (emotions[(int(step) - back) % len(emotions)] for back in (0, 1))
    fixed = {"zoom": 1.55, "shift_y": 0.1, "yaw": 0.0, "pitch": 0.0, "beard": -1.0, "glasses": -1.0, "bald": -1.0}
    after, before = (
        vars(random_shape(emotion, np.random.default_rng(seed), **fixed)) for emotion in (current, previous)
    )
    return SimpleNamespace(**{name: before[name] + weight * (after[name] - before[name]) for name in after})


def screencast(page: Page) -> list[Image.Image]:
    """Pictures of the webcam tab, FPS per second."""
    area = page.locator("#webcam").bounding_box()
    assert area is not None
    corners = (area["x"], area["y"], area["x"] + area["width"], area["y"] + area["height"])
    events: list[dict[str, Any]] = []
    client = page.context.new_cdp_session(page)

    def keep(event: dict[str, Any]) -> None:
        events.append(event)
        client.send("Page.screencastFrameAck", {"sessionId": event["sessionId"]})

    client.on("Page.screencastFrame", keep)
    client.send("Page.startScreencast", {"format": "jpeg", "quality": 95, "everyNthFrame": 3})
    page.wait_for_timeout(1000 * (SECONDS + 1))
    client.send("Page.stopScreencast")
    times_s = [event["metadata"]["timestamp"] - events[0]["metadata"]["timestamp"] for event in events]
    shown = (bisect_right(times_s, number / FPS) - 1 for number in range(SECONDS * FPS))
    return [Image.open(io.BytesIO(base64.b64decode(events[index]["data"]))).crop(corners) for index in shown]


def save_animation(images: list[Image.Image], path: Path) -> None:
    """Write an animated WebP that repeats forever, WIDTH_PX wide."""
    size = (WIDTH_PX, round(images[0].height * WIDTH_PX / images[0].width))
    first, *others = (image.resize(size) for image in images)
    first.save(path, save_all=True, append_images=others, duration=1000 // FPS, loop=0, quality=WEBP_QUALITY, method=6)


if __name__ == "__main__":
    run_command(record)
