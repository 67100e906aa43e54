"""Measure the demo: its start, round trips in one and two browsers, and its memory after many frames.

    python benchmarks/demo_latency.py [--frames 10000] [--seconds 15]

Starts demo/app.py with its own store. Chromium repeats a film of drawn faces, 640x480, as its camera. The page itself
measures the round trip: from taking a frame out of the video to drawing its boxes.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from playwright.sync_api import Page, sync_playwright
from websockets.sync.client import connect

from emotion_detection.command_line import run_command

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.support import chromium  # noqa: E402
from tests.support.cameras import jpeg_frames, write_camera  # noqa: E402

PORT = 7870
REGISTRY_S = 10  # MLflow is imported and the registry is filled in the background
WARM_UP_FRAMES = 500
RECORD_ROUND_TRIPS = """() => {
  const webcam = document.getElementById("webcam");
  window.roundTrips = [];
  const record = () => window.roundTrips.push(Number(webcam.dataset.roundTrip));
  new MutationObserver(record).observe(webcam, {attributeFilter: ["data-round-trip"]});
}"""


def measure(*, frames: int = 10_000, seconds: float = 15) -> None:
    """Measure the demo's start, round trips and memory.

    Parameters
    ----------
    frames
        Frames to send for the measurement of memory.
    seconds
        Seconds of streaming in each browser.
    """
    with tempfile.TemporaryDirectory() as folder, running_demo(Path(folder)) as process:
        for people in (1, 3):
            (result,) = stream(Path(folder), [people], seconds)
            print(f"one browser, {people} faces: {summary(result)}")
        results = stream(Path(folder), [1, 3], seconds)
        print(f"two browsers: {'; '.join(map(summary, results))}")
        measure_memory(process, frames)
    measure_imports()


@contextmanager
def running_demo(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The running demo; prints the seconds from the start of the process to the served page."""
    start_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "demo" / "app.py"), "--port", str(PORT)],
        cwd=folder,
        env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        print(f"cold start to a served page: {time.perf_counter() - start_s:.1f} s; the demo prints: {line}")
        time.sleep(REGISTRY_S)
        yield process
    finally:
        process.terminate()
        process.wait()


def stream(folder: Path, people: list[int], seconds: float) -> list[dict[str, float]]:
    """Round trips and readings per second of browsers that run at the same time, one for each number of people."""
    with sync_playwright() as driver:
        browsers = [chromium.launch(driver, write_camera(folder / f"{count}.mjpeg", count)) for count in people]
        pages = [browser.new_page() for browser in browsers]
        for page in pages:
            page.goto(f"http://127.0.0.1:{PORT}")
            page.click("#webcam [data-part=start]", timeout=60_000)
            page.wait_for_function("Number(document.getElementById('webcam').dataset.answers) > 20", timeout=60_000)
            page.evaluate(RECORD_ROUND_TRIPS)
        time.sleep(seconds)
        results = [round_trips(page, seconds) for page in pages]
        for browser in browsers:
            browser.close()
    return results


def round_trips(page: Page, seconds: float) -> dict[str, float]:
    milliseconds = sorted(page.evaluate("window.roundTrips"))
    return {
        "p50": statistics.median(milliseconds),
        "p95": milliseconds[int(0.95 * len(milliseconds))],
        "rate": len(milliseconds) / seconds,
        "faces": float(page.get_attribute("#webcam", "data-faces") or 0),
    }


def summary(result: dict[str, float]) -> str:
    return "round trip p50 {p50:.0f} ms, p95 {p95:.0f} ms, {rate:.1f} readings/s, {faces:.0f} faces".format(**result)


def measure_memory(process: subprocess.Popen[str], frames: int) -> None:
    """Print the resident memory after a warm-up and after all frames."""
    jpegs = jpeg_frames(3)
    memory_info = psutil.Process(process.pid).memory_info
    before = memory_info().rss
    with connect(f"ws://127.0.0.1:{PORT}/webcam") as socket:
        for number in range(frames):
            socket.send(jpegs[number % len(jpegs)])
            socket.recv()
            if number == WARM_UP_FRAMES:
                before = memory_info().rss
    after = memory_info().rss
    growth = f"{after / 1e6:.0f} MB ({after / before - 1:+.1%})"
    print(f"memory after {WARM_UP_FRAMES} frames {before / 1e6:.0f} MB, after {frames:,} {growth}")


def measure_imports() -> None:
    """Print how long the demo's largest imports take."""
    for module in ("gradio", "cv2", "onnxruntime", "mlflow"):
        code = f"import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds = float(result.stdout.split()[-1])
        print(f"import {module}: {seconds:.1f} s{' (in the background)' if module == 'mlflow' else ''}")


if __name__ == "__main__":
    run_command(measure)
