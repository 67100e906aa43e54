"""The demo from outside: start, round trips of a real browser, two browsers at once, memory after many frames.

    python benchmarks/demo_latency.py [--frames 10000] [--seconds 15]

Starts demo/app.py on a store of its own; Chromium plays a film of drawn faces as its camera, 640x480. The round trip is
the browser's own: from the picture taken out of the video to its boxes drawn.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from playwright.sync_api import Page, sync_playwright
from websockets.sync.client import connect

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.cameras import camera  # noqa: E402

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
PORT = 7870


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10_000, help="sent for the measurement of memory")
    parser.add_argument("--seconds", type=float, default=15, help="of streaming in each browser")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        process = started(Path(folder))
        try:
            for people in (1, 3):
                print(f"one browser, {people} faces: {told(stream(Path(folder), [people], arguments.seconds)[0])}")
            both = stream(Path(folder), [1, 3], arguments.seconds)
            print(f"two browsers at once: {told(both[0])}; {told(both[1])}")
            memory(process, Path(folder), arguments.frames)
        finally:
            process.terminate()
            process.wait()
    imports()


def started(folder: Path) -> subprocess.Popen[str]:
    """The running demo; prints how long it took from nothing to a served page."""
    variables = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "demo" / "app.py"), "--port", str(PORT)],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    print(f"cold start to a served page: {time.perf_counter() - start:.1f} s; it says: {line.strip()}")
    time.sleep(10)  # MLflow loads in the background and seeds the registry
    return process


def stream(folder: Path, people: list[int], seconds: float) -> list[dict[str, float]]:
    """Round trips and readings a second of browsers that run at the same time."""
    with sync_playwright() as driver:
        pages = []
        for count in people:
            film = camera(folder / f"{count}.mjpeg", count)
            flags = ["--no-sandbox", "--disable-gpu", "--use-fake-ui-for-media-stream"]
            flags += ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={film}"]
            page = driver.chromium.launch(executable_path=CHROMIUM, args=flags).new_page()
            page.goto(f"http://127.0.0.1:{PORT}")
            page.click("#live [data-part=start]", timeout=60_000)
            page.wait_for_function("Number(document.getElementById('live').dataset.answers) > 20", timeout=60_000)
            page.evaluate(
                "() => { const live = document.getElementById('live'); window.waits = []; new MutationObserver(() => "
                "window.waits.push(Number(live.dataset.wait))).observe(live, {attributeFilter: ['data-wait']}); }"
            )
            pages.append(page)
        time.sleep(seconds)
        results = [measured(page, seconds) for page in pages]
        for page in pages:
            page.context.browser.close()  # type: ignore[union-attr]
    return results


def measured(page: Page, seconds: float) -> dict[str, float]:
    waits = sorted(page.evaluate("window.waits"))
    return {
        "p50": statistics.median(waits),
        "p95": waits[int(0.95 * len(waits))],
        "rate": len(waits) / seconds,
        "faces": float(page.get_attribute("#live", "data-faces") or 0),
    }


def told(result: dict[str, float]) -> str:
    return "round trip p50 {p50:.0f} ms, p95 {p95:.0f} ms, {rate:.1f} readings/s, {faces:.0f} faces".format(**result)


def memory(process: subprocess.Popen[str], folder: Path, frames: int) -> None:
    """Resident memory after the first 500 frames and after all."""
    content = camera(folder / "memory.mjpeg", 3).read_bytes()
    jpegs = [b"\xff\xd8\xff" + part for part in content.split(b"\xff\xd8\xff")[1:]]
    resident = psutil.Process(process.pid).memory_info
    with connect(f"ws://127.0.0.1:{PORT}/live") as line:
        for number in range(frames):
            line.send(jpegs[number % len(jpegs)])
            line.recv()
            if number == 500:
                before = resident().rss
    after = resident().rss
    grown = f"{after / 1e6:.0f} MB ({after / before - 1:+.1%})"
    print(f"memory after 500 frames {before / 1e6:.0f} MB, after {frames:,} {grown}")


def imports() -> None:
    """What the start is made of, by the time its imports take."""
    for module in ("gradio", "cv2", "onnxruntime", "mlflow"):
        command = [
            sys.executable,
            "-c",
            f"import time; t=time.perf_counter(); import {module}; print(time.perf_counter()-t)",
        ]
        seconds = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
        print(f"import {module}: {seconds:.1f} s{' (in the background)' if module == 'mlflow' else ''}")


if __name__ == "__main__":
    main()
