"""Measure how many answers three cameras get, alone and beside a client that floods the demo.

    python benchmarks/demo_fairness.py [--seconds 6]

Starts demo/app.py with the shipped model. Each camera sends drawn faces, 640x480, and keeps two frames in flight, as
the page does. The flooder is a process of its own that sends without waiting for answers: noise, which the detector
searches for long, or tiny files that declare huge pictures, over the WebSocket or as photos.
"""

import multiprocessing
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from http.client import HTTPConnection
from pathlib import Path

import cv2
import numpy as np
import psutil
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from emotion_detection.command_line import run_command
from emotion_detection.inference.pretrained import MODEL

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.cameras import jpeg_frames  # noqa: E402

CAMERAS = 3
IN_FLIGHT = 2
START_S = 4
SETTLE_S = 0.5
TURNS = 3


def noise() -> bytes:
    """A JPEG of noise, 1280x720."""
    pixels = np.random.default_rng(1).integers(0, 256, (720, 1280, 3), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def bomb() -> bytes:
    """A BMP of one kilobyte that declares 30,000x30,000 pixels."""
    header = struct.pack("<2sIHHI IiiHHIIiiII", b"BM", 1024, 0, 0, 54, 40, 30_000, 30_000, 1, 24, 0, 0, 0, 0, 0, 0)
    return header.ljust(1024, b"\0")


def flood_socket(port: int, make: Callable[[], bytes]) -> None:
    """Send one frame over and over and read answers only to keep the connection open."""
    content = make()
    while True:
        with suppress(OSError, WebSocketException), connect(f"ws://127.0.0.1:{port}/webcam", max_queue=None) as webcam:
            while True:
                webcam.send(content)


def flood_photos(port: int, make: Callable[[], bytes]) -> None:
    """Send photos from eight threads."""
    content = make()

    def send() -> None:
        while True:
            with suppress(OSError):
                connection = HTTPConnection("127.0.0.1", port, timeout=20)
                connection.request("POST", "/photo", content)
                connection.getresponse().read()

    for _ in range(8):
        threading.Thread(target=send, daemon=True).start()
    threading.Event().wait()


@cache
def film() -> list[bytes]:
    return jpeg_frames(2, count=30)


def camera(port: int, stop: threading.Event, answered: list[float]) -> None:
    """Send frames as the page does, and note when each answer arrives."""
    frames = film()
    with connect(f"ws://127.0.0.1:{port}/webcam") as webcam:
        for number in range(IN_FLIGHT):
            webcam.send(frames[number])
        number = IN_FLIGHT
        while not stop.is_set():
            webcam.recv(60)
            answered.append(time.monotonic())
            webcam.send(frames[number % len(frames)])
            number += 1


@contextmanager
def cameras(port: int) -> Iterator[list[float]]:
    """Cameras that run during the block; yields the growing list of the times of their answers."""
    stop, answered = threading.Event(), list[float]()
    threads = [threading.Thread(target=camera, args=(port, stop, answered)) for _ in range(CAMERAS)]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextmanager
def flooder(port: int, flood: Callable[..., None], make: Callable[[], bytes]) -> Iterator[psutil.Process]:
    """A process that floods the demo during the block, as long as it is not suspended."""
    process = multiprocessing.get_context("spawn").Process(target=flood, args=(port, make), daemon=True)
    process.start()
    time.sleep(START_S)  # it imports OpenCV first
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.join()


def rates(port: int, flood: Callable[..., None], make: Callable[[], bytes], seconds: float) -> tuple[float, float]:
    """Answers per second without and with the flooder, in turns: so other programs disturb both alike."""
    counts = {False: 0, True: 0}
    with flooder(port, flood, make) as process, cameras(port) as answered:
        for turn in range(2 * TURNS):
            floods = turn % 2 == 1
            (process.resume if floods else process.suspend)()
            time.sleep(SETTLE_S)
            before = len(answered)
            time.sleep(seconds / TURNS)
            counts[floods] += len(answered) - before
    return counts[False] / seconds, counts[True] / seconds


@contextmanager
def running_demo(folder: Path) -> Iterator[int]:
    """The port of a demo that serves the shipped model."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "demo" / "app.py"), "--port", str(port), "--model", str(MODEL)],
        cwd=folder,
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield port
    finally:
        process.terminate()
        process.wait()


def measure(*, seconds: float = 6) -> None:
    """Print the answers per second of three cameras alone and beside each flooder.

    Parameters
    ----------
    seconds
        Seconds of each measurement.
    """
    floods = {
        "noise": (flood_socket, noise),
        "bombs": (flood_socket, bomb),
        "photos of noise": (flood_photos, noise),
        "photo bombs": (flood_photos, bomb),
    }
    film()
    with tempfile.TemporaryDirectory() as folder, running_demo(Path(folder)) as port:
        with cameras(port):
            time.sleep(START_S)  # warm-up
        for name, (flood, make) in floods.items():
            alone, beside = rates(port, flood, make, seconds)
            print(f"{name}: alone {alone:.1f}, beside the flooder {beside:.1f} ({beside / alone - 1:+.0%})", flush=True)


if __name__ == "__main__":
    run_command(measure)
