"""Measure `emotion-detection serve`: load beside MLflow's server, bad clients, the shadow, and a promotion.

    python benchmarks/service_load.py [--seconds 5] [--requests 1000] [--minutes 0]

Two versions of a model are registered in a store of its own. The servers run one at a time, and their turns alternate.
Clients are threads with one connection each, which send the next request when the answer has come. Everything runs on
one machine, so that clients take a part of its cores.
"""

import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from emotion_detection.command_line import run_command
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.inference.pretrained import MODEL, MODEL_NAME

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.cameras import picture_file  # noqa: E402
from tests.support.onnx_files import write_linear  # noqa: E402

CHAMPION, CHALLENGER = f"models:/{MODEL_NAME}@champion", f"models:/{MODEL_NAME}@challenger"
JSON, BINARY = "application/json", "application/octet-stream"
TIMEOUT_S = 60
START_S = 180
ROUNDS = 3  # turns of each server in a comparison of p95
BINARY_HEADER = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Request:
    """What clients send again and again."""

    path: str
    body: bytes
    headers: dict[str, str]


@dataclass
class Result:
    """What clients have measured: the seconds of all answers with status 200, and what else happened."""

    seconds: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    duration_s: float = 0.0

    def percentile(self, percent: float) -> float:
        """Milliseconds."""
        return float(np.percentile(self.seconds, percent)) * 1000 if self.seconds else float("nan")

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.seconds) / self.duration_s

    def __str__(self) -> str:
        times = "  ".join(f"p{percent} {self.percentile(percent):7.1f}" for percent in (50, 95, 99))
        failures = f"  FAILED {dict(self.failures)}" if self.failures else ""
        return f"{self.rate:7.1f}/s  {times} ms{failures}"


def measure(*, seconds: float = 5, requests: int = 1000, minutes: float = 0, mlflow: bool = True) -> None:
    """Measure the service.

    Parameters
    ----------
    seconds
        Duration of each measurement.
    requests
        Requests across the promotion and the rollback, at least.
    minutes
        Duration of a load of 80 % of the maximum, after which the memory is compared.
    mlflow
        Compare with `mlflow models serve`.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
        (folder / "dvc.yaml").touch()  # so that the store is beside it
        os.chdir(folder)
        register_versions(folder)
        with serving(folder) as service:
            measure_load(service, seconds, mlflow=mlflow, folder=folder)
            measure_bad_clients(service, seconds)
            if minutes:
                measure_memory(service, minutes)
            with serving(folder, "--shadow", CHALLENGER, "--shadow-share", "0.1") as shadowed:
                measure_shadow(service, shadowed, seconds)
        with serving(folder) as service:
            measure_promotion(service, requests, folder)


# Servers and versions


def register_versions(folder: Path) -> None:
    """Register the shipped model as champion, and another one as challenger."""
    from emotion_detection.experiments import registry, runs
    from emotion_detection.inference.pretrained import seed_registry

    seed_registry()
    with runs.start_run(name="challenger"):
        example = np.zeros((1, 48, 48, 1), np.uint8)
        number = registry.register(write_linear(folder / "other.onnx"), MODEL_NAME, example=example, tags={})
    registry.set_alias(MODEL_NAME, "challenger", number)


@dataclass(frozen=True)
class Server:
    """A running server."""

    name: str
    port: int
    process: psutil.Process

    def memory_mb(self) -> float:
        """Resident memory of all its processes."""
        return sum(process.memory_info().rss for process in self._processes()) / 1e6

    def cpu_ms(self) -> float:
        """Processor time of all its processes. Other programs on the machine change it little."""
        times = [process.cpu_times() for process in self._processes()]
        return sum(time.user + time.system for time in times) * 1000

    def _processes(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Server]:
    """The running service."""
    port = free_port()
    command = ["-m", "emotion_detection", "serve", "--model", CHAMPION, "--port", str(port), "--drain-s", "0", *options]
    with running("serve", folder, command, port, "/v2/health/ready") as server:
        yield server


@contextmanager
def mlflow_serving(folder: Path) -> Iterator[Server]:
    """The running server of MLflow, with the same model."""
    port = free_port()
    command = ["-m", "mlflow", "models", "serve", "-m", CHAMPION, "--port", str(port), "--env-manager", "local"]
    with running("mlflow", folder, command, port, "/health") as server:
        yield server


@contextmanager
def running(name: str, folder: Path, command: Sequence[str], port: int, path: str) -> Iterator[Server]:
    """A server that answers; prints the seconds from its start to its first good answer."""
    start_s = time.perf_counter()
    path_variable = (
        f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow starts uvicorn by its name
    )
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, stdout=log, stderr=log, env=os.environ | {"PATH": path_variable}
        )
    server = Server(name, port, psutil.Process(process.pid))
    try:
        while not is_ready(port, path):
            if process.poll() is not None or time.perf_counter() - start_s > START_S:
                raise RuntimeError((folder / f"{name}.log").read_text()[-2000:])
            time.sleep(0.1)
        print(f"{name}: ready after {time.perf_counter() - start_s:.1f} s, {server.memory_mb():.0f} MB")
        yield server
    finally:
        children = server.process.children(recursive=True) if server.process.is_running() else []
        process.terminate()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.terminate()
        process.wait()


def is_ready(port: int, path: str) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Requests


def crop() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (1, 48, 48, 1), np.uint8)


def infer_request(data: dict[str, Any], tail: bytes = b"") -> Request:
    """A face for the Open Inference Protocol."""
    tensor = {"name": "faces", "datatype": "UINT8", "shape": [1, 48, 48, 1]} | data
    head = json.dumps({"inputs": [tensor], "outputs": [{"name": "probabilities"}]}).encode()
    headers = {"Content-Type": BINARY, BINARY_HEADER: str(len(head))} if tail else {"Content-Type": JSON}
    return Request(f"/v2/models/{MODEL_NAME}/infer", head + tail, headers)


def json_crop() -> Request:
    return infer_request({"data": crop().ravel().tolist()})


def binary_crop() -> Request:
    tail = crop().tobytes()
    return infer_request({"parameters": {"binary_data_size": len(tail)}}, tail)


def mlflow_request(content: bytes) -> Request:
    """A picture, or the pixels of a face, in the form that is the fastest for MLflow's server."""
    body = {"dataframe_split": {"columns": ["image"], "data": [[base64.b64encode(content).decode()]]}}
    return Request("/invocations", json.dumps(body).encode(), {"Content-Type": JSON})


def photo_request() -> Request:
    return Request("/v1/recognize", picture_file("color", people=2), {"Content-Type": "image/jpeg"})


# Clients


def load(server: Server, request: Request, clients: int, seconds: float, *, rate: float = 0) -> Result:
    """Send requests for some seconds. rate: requests per second of all clients; 0 for as many as possible."""
    result, stop = Result(), threading.Event()
    waits_s = clients / rate if rate else 0.0
    threads = [
        threading.Thread(target=ask_until, args=(server, request, result, stop, waits_s)) for _ in range(clients)
    ]
    start_s = time.perf_counter()
    for thread in threads:
        thread.start()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    result.duration_s = time.perf_counter() - start_s
    return result


def ask_until(server: Server, request: Request, result: Result, stop: threading.Event, waits_s: float) -> None:
    """One client. waits_s: between the starts of two requests, at least."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
    next_s = time.perf_counter()
    while not stop.is_set():
        next_s = max(next_s + waits_s, time.perf_counter() - 1)
        ask(connection, request, result)
        if waits_s:
            stop.wait(next_s - time.perf_counter())
    connection.close()


def ask(connection: HTTPConnection, request: Request, result: Result) -> dict[str, Any] | None:
    """Send a request, note the time of its answer, and return the content if it is an object with status 200."""
    start_s = time.perf_counter()
    try:
        connection.request("POST", request.path, request.body, request.headers)
        response = connection.getresponse()
        content = response.read()
    except (OSError, HTTPException) as error:
        result.failures[type(error).__name__] += 1
        connection.close()
        return None
    if response.status != 200:
        result.failures[str(response.status)] += 1
        return None
    result.seconds.append(time.perf_counter() - start_s)
    answer = json.loads(content) if response.headers.get_content_type() == JSON else None
    return answer if isinstance(answer, dict) else None


# Measurements


def measure_load(service: Server, seconds: float, *, mlflow: bool, folder: Path) -> None:
    """Print throughput and latency for 1, 8 and 32 clients."""
    photo = picture_file("color", people=2)
    rows: list[tuple[str, Server, Request]] = [
        ("crop, JSON", service, json_crop()),
        ("crop, binary", service, binary_crop()),
        ("640x480 JPEG", service, photo_request()),
    ]
    if not mlflow:
        compare(rows, seconds)
        return
    with mlflow_serving(folder) as other:
        nested = Request("/invocations", json.dumps({"inputs": crop().tolist()}).encode(), {"Content-Type": JSON})
        rows[2:2] = [("crop, JSON", other, nested), ("crop, base64", other, mlflow_request(crop().tobytes()))]
        rows.append(("640x480 JPEG", other, mlflow_request(photo)))
        compare(rows, seconds)
        print(f"memory: serve {service.memory_mb():.0f} MB, mlflow {other.memory_mb():.0f} MB")


def compare(rows: Sequence[tuple[str, Server, Request]], seconds: float) -> None:
    for _, server, request in rows:  # not measured
        load(server, request, 2, min(seconds, 1))
    for clients in (1, 8, 32):
        for name, server, request in rows:
            before_ms = server.cpu_ms()
            result = load(server, request, clients, seconds)
            cpu_ms = (server.cpu_ms() - before_ms) / max(len(result.seconds), 1)
            print(f"{server.name:7} {name:13} {clients:2} clients  {result}  CPU {cpu_ms:.1f} ms", flush=True)


def measure_shadow(plain: Server, shadowed: Server, seconds: float) -> None:
    """Print p95 with and without a challenger, in turns, at a load that leaves the cores some time."""
    request = binary_crop()
    rate = 0.5 * load(plain, request, 4, seconds).rate
    p95: dict[str, list[float]] = {"off": [], "on": []}
    for _ in range(ROUNDS):
        for name, server in (("off", plain), ("on", shadowed)):
            p95[name].append(load(server, request, 4, seconds, rate=rate).percentile(95))
    off, on = (float(np.median(p95[name])) for name in ("off", "on"))
    print(f"shadow at {rate:.0f} requests/s: p95 off {off:.2f} ms, on {on:.2f} ms ({on / off - 1:+.0%})")


def measure_bad_clients(server: Server, seconds: float) -> None:
    """Print p95 of normal clients alone, and beside a slow, a huge and a broken client."""
    request = binary_crop()
    rate = 0.3 * load(server, request, 4, seconds).rate
    alone, beside = [], []
    for _ in range(ROUNDS):
        alone.append(load(server, request, 4, seconds, rate=rate).percentile(95))
        with bad_clients(server):
            result = load(server, request, 4, seconds, rate=rate)
        beside.append(result.percentile(95))
        if result.failures:
            print(f"FAILED beside bad clients: {dict(result.failures)}")
    before, after = float(np.median(alone)), float(np.median(beside))
    print(f"slow, huge and broken client beside: p95 {before:.2f} ms alone, {after:.2f} ms ({after / before - 1:+.0%})")


@contextmanager
def bad_clients(server: Server) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=one, args=(server, stop)) for one in (slow_client, huge_client, broken_client)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def slow_client(server: Server, stop: threading.Event) -> None:
    """Sends ten bytes a second."""
    while not stop.is_set():
        with suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=1) as connection:
            connection.sendall(b"POST /v1/recognize HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n")
            while not stop.wait(0.1):
                connection.sendall(b"x")


def huge_client(server: Server, stop: threading.Event) -> None:
    """Sends pictures of 20 megabytes."""
    request = Request("/v1/recognize", b"\xff\xd8\xff" + bytes(20_000_000), {"Content-Type": "image/jpeg"})
    while not stop.is_set():
        connection = HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
        ask(connection, request, Result())
        connection.close()
        stop.wait(0.1)


def broken_client(server: Server, stop: threading.Event) -> None:
    """Sends what is no HTTP, no JSON or no picture, and leaves in the middle."""
    bodies = (
        b"\x16\x03\x01" + os.urandom(200),
        b"POST /v2/models/faces/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n[[[[[[[[[",
        b"POST /v1/recognize HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nabc",
    )
    while not stop.is_set():
        for body in bodies:
            with suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=1) as connection:
                connection.sendall(body)
            stop.wait(0.05)


def measure_memory(server: Server, minutes: float) -> None:
    """Print the memory after the first and after the last tenth of a load of 80 % of the maximum."""
    request = binary_crop()
    rate = 0.8 * load(server, request, 8, 5).rate
    first = load(server, request, 8, 6 * minutes, rate=rate)
    before = server.memory_mb()
    rest = load(server, request, 8, 54 * minutes, rate=rate)
    after, failures = server.memory_mb(), first.failures + rest.failures
    count = len(first.seconds) + len(rest.seconds)
    change = after / before - 1
    print(
        f"{minutes:g} min at {rate:.0f}/s: {count} requests, {failures.total()} failed, {after:.0f} MB ({change:+.1%})"
    )


def measure_promotion(server: Server, requests: int, folder: Path) -> None:
    """Promote the challenger, roll back, and promote a changed file, all during requests. Print what clients see."""
    from emotion_detection.experiments import registry

    models = {"1": EmotionClassifier(MODEL), "2": EmotionClassifier(folder / "other.onnx")}
    own = {version: model.probabilities(crop()[..., 0]).ravel().tolist() for version, model in models.items()}
    result, stop, latest = Result(), threading.Event(), [""] * 8
    threads = [
        threading.Thread(target=check_until, args=(server, own, result, stop, latest, place)) for place in range(8)
    ]
    for thread in threads:
        thread.start()
    try:
        for version in ("1", "2", "1"):
            registry.set_alias(MODEL_NAME, "champion", int(version))
            wait_for(lambda version=version: set(latest) == {version})  # type: ignore[misc]
        change_file(2)
        registry.set_alias(MODEL_NAME, "champion", 2)
        wait_for(lambda: is_stale(server))
        asked = len(result.seconds)
        wait_for(lambda: len(result.seconds) >= max(requests, asked + requests // 3))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    versions = ", ".join(f"{count} by version {version}" for version, count in sorted(result.versions.items()))
    print(
        f"promotion, rollback and a changed file: {len(result.seconds)} answers ({versions}), "
        f"{result.failures.total()} failed or wrong; the last one by version {latest[0]}"
    )


def check_until(
    server: Server,
    own: dict[str, list[float]],
    result: Result,
    stop: threading.Event,
    latest: list[str],
    place: int,
) -> None:
    """One client that compares each answer with what the version that it names says."""
    connection, request = HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S), json_crop()
    while not stop.is_set():
        answer = ask(connection, request, result)
        if answer is None:
            continue
        version = answer["model_version"]
        if answer["outputs"][0]["data"] != own[version]:
            result.failures["another version's answer"] += 1
        result.versions[version] += 1
        latest[place] = version
    connection.close()


def change_file(number: int) -> None:
    """Change the file of a version in the store."""
    import mlflow

    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{MODEL_NAME}/{number}"))
    (path,) = folder.rglob("*.onnx")
    path.write_bytes(MODEL.read_bytes() + b"\0")


def is_stale(server: Server) -> bool:
    """Whether the service could not load the newest version."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        return b"\nemotion_detection_model_stale 1.0" in connection.getresponse().read()
    finally:
        connection.close()


def wait_for(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > end_s:
            raise TimeoutError("the service does not do what it should")
        time.sleep(0.05)


if __name__ == "__main__":
    run_command(measure)
