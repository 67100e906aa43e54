"""No command reaches another host or asks a resolver. The pipeline is watched in test_pipeline.py."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import cv2
import pytest
import yaml
from tests.support.cameras import draw_people, jpeg_frames, picture_file
from tests.support.network import foreign_addresses, needs_strace, traced, without_switches
from tests.support.paths import ROOT
from tests.support.reverse_proxy import free_port
from tests.support.videos import write_video
from websockets.sync.client import connect

from emotion_detection.data.dataset import digest, save

START_S = 120
CACHES = ((".cache", "fontconfig"), (".cache", "matplotlib"), (".config", "matplotlib"))
pytestmark = [needs_strace, pytest.mark.timeout(400)]


def check_silence(home: Path, log: Path) -> None:
    """Nothing was sent, and nothing is kept to be sent later.

    Telemetry waits some seconds before it connects. A short command would leave its events and the ID of the device.
    """
    assert foreign_addresses(log) == set()
    files = [path.relative_to(home) for path in home.rglob("*") if path.is_file()]
    assert [str(path) for path in files if path.parts[:2] not in CACHES] == []


def film(path: Path) -> Path:
    frames = [cv2.cvtColor(draw_people(1, number / 10), cv2.COLOR_GRAY2RGB) for number in range(10)]
    return write_video(path, frames)


def new_user(home: Path) -> dict[str, str]:
    """The environment of a person with an empty home folder."""
    temporary = home.with_name("temporary")
    temporary.mkdir(exist_ok=True)
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return without_switches() | {"PATH": paths, "HOME": str(home), "TMPDIR": str(temporary)}


def run(home: Path, *command: str, cwd: Path, **env: str) -> Path:
    """Run a command as a new user would; returns the list of its connections."""
    log = home.with_name("connections.txt")
    process = subprocess.run(
        traced(log, sys.executable, *command), cwd=cwd, env=new_user(home) | env, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    return log


@contextmanager
def server(home: Path, log: Path, command: list[str], url: str, cwd: Path, **env: str):
    """A traced server that answers at `url`; it ends as by Ctrl-C."""
    printed = home.with_name("printed.txt")
    with printed.open("w") as stream:
        process = subprocess.Popen(
            traced(log, *command), cwd=cwd, env=new_user(home) | env, stdout=stream, stderr=stream,
            start_new_session=True,
        )  # fmt: skip
    try:
        end = time.monotonic() + START_S
        while not answers(url):
            assert process.poll() is None, printed.read_text()
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.2)
        yield
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return reply.status == 200
    except OSError:
        return False


@pytest.fixture
def home(tmp_path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_watcher_sees_native_lookups(home):
    """The control: a lookup of a host, and a packet without a connection."""
    code = "import socket\ntry: socket.getaddrinfo('a.invalid', 443)\nexcept OSError: pass\n"
    code += "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 9))"
    seen = foreign_addresses(run(home, "-c", f"try:\n exec({code!r})\nexcept OSError: pass", cwd=home))
    assert "192.0.2.1 port 9" in seen
    assert len(seen) > 1, "the lookup of a host was not seen"


def test_predict_reaches_no_other_host(home, tmp_path, migrated_store):
    picture, video = tmp_path / "two.jpg", str(film(tmp_path / "film.mp4"))
    picture.write_bytes(picture_file("color", people=2))
    shutil.copy(migrated_store, tmp_path / "mlflow.db")  # a registry, which is asked for its champion
    (tmp_path / "dvc.yaml").touch()
    command = ("-m", "emotion_detection", "predict")
    check_silence(home, run(home, *command, str(picture), "--out", "a.csv", "--figure", "a.png", cwd=tmp_path))
    (tmp_path / "mlflow.db").unlink()
    check_silence(home, run(home, *command, video, "--annotate", "b.webm", "--out", "b.parquet", cwd=tmp_path))


def test_demo_reaches_no_other_host(home, tmp_path, migrated_store):
    (tmp_path / "dvc.yaml").touch()  # a project, whose own store gets the shipped model
    shutil.copy(migrated_store, tmp_path / "mlflow.db")
    port, log = free_port(), tmp_path / "demo.txt"
    url, store = f"http://127.0.0.1:{port}", f"sqlite:///{tmp_path / 'mlflow.db'}"
    command = [sys.executable, str(ROOT / "demo" / "app.py"), "--port", str(port)]
    with server(home, log, command, f"{url}/serving", tmp_path, MLFLOW_TRACKING_URI=store):
        with connect(f"{url.replace('http', 'ws')}/webcam") as camera:
            camera.send(jpeg_frames(1, count=1)[0])
            assert len(json.loads(camera.recv(60))["readings"]) == 1
        with urllib.request.urlopen(urllib.request.Request(f"{url}/photo", picture_file("color", people=1))) as reply:
            assert len(json.load(reply)["readings"]) == 1
        read_film(url, film(tmp_path / "film.mp4"))
        wait_for_champion(url)
    check_silence(home, log)


def test_service_reaches_no_other_host(home, tmp_path, migrated_store):
    shutil.copy(migrated_store, tmp_path / "mlflow.db")
    port, log = free_port(), tmp_path / "service.txt"
    url, store = f"http://127.0.0.1:{port}", f"sqlite:///{tmp_path / 'mlflow.db'}"
    program = [sys.executable, "-m", "emotion_detection"]
    environment = new_user(home) | {"MLFLOW_TRACKING_URI": store}
    subprocess.run([*program, "seed-registry"], cwd=tmp_path, env=environment, check=True)
    command = [*program, "serve", "--port", str(port), "--model", "models:/emotion-detection@champion"]
    with server(home, log, command, f"{url}/v2/health/ready", tmp_path, MLFLOW_TRACKING_URI=store):
        photo = urllib.request.Request(f"{url}/v1/recognize", picture_file("color", people=1))
        with urllib.request.urlopen(photo) as reply:
            answer = json.load(reply)
        assert len(answer["readings"]) == 1
        assert answer["version"] == "1"  # of the registry
        for page in ("docs", "metrics"):
            assert answers(f"{url}/{page}")
    check_silence(home, log)


def read_film(url: str, path: Path) -> None:
    """Read a video as the page's Video tab does: with its defaults, over the page's own interface."""
    from gradio_client import Client, handle_file

    client = Client(url, verbose=False, analytics_enabled=False)
    try:
        parts = {part["id"]: part for part in client.config["components"]}
        readers = [call for call in client.config["dependencies"] if any(is_file(parts[at]) for at in call["inputs"])]
        arguments = [
            handle_file(str(path)) if is_file(parts[at]) else parts[at]["props"]["value"] for at in readers[0]["inputs"]
        ]
        job = client.submit(*arguments, fn_index=readers[0]["id"])
        job.result(60)
        assert "readings" in str(job.outputs()[-1])
    finally:
        client.close()


def is_file(part: dict) -> bool:
    return part["type"] == "file"


def wait_for_champion(url: str) -> None:
    """The demo has asked the registry, which imports MLflow."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        with urllib.request.urlopen(f"{url}/serving") as reply:
            if json.load(reply)["source"].startswith("models:/"):
                return
        time.sleep(0.5)
    raise AssertionError("the registry has not answered")


def test_search_reaches_no_other_host(home, tmp_path, drawn, migrated_store):
    shutil.copy(migrated_store, tmp_path / "mlflow.db")
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "recipes").mkdir()
    save(drawn, tmp_path / "faces.npz")
    (tmp_path / "report.json").write_text(json.dumps({"dataset": "drawn", "digest": digest(drawn)}))
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["tune"] |= {"trials": 1, "epochs": 1, "finalists": 0, "space": {"dropout": {"choices": [0.1, 0.2]}}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    options = {"params": "params.yaml", "faces": "faces.npz", "data-report": "report.json", "recipes": "recipes"}
    flags = [text for name, value in (options | {"out": "out"}).items() for text in (f"--{name}", value)]
    command = ("-m", "tests.support.fake_tune", "tune", *flags)  # trains nothing: test_pipeline.py watches a training
    check_silence(home, run(home, *command, cwd=tmp_path, PYTHONPATH=str(ROOT)))


def test_mlflow_page_reaches_no_other_host(home, tmp_path, migrated_store):
    shutil.copy(migrated_store, tmp_path / "mlflow.db")
    shutil.copy(ROOT / "Makefile", tmp_path / "Makefile")
    port, log = free_port(), tmp_path / "ui.txt"
    # -o: nothing is installed
    command = ["make", "ui", "-o", ".venv/installed", f"PORT={port}"]
    with server(home, log, command, f"http://127.0.0.1:{port}/health", tmp_path, MLFLOW_WORKERS="1"):
        for path in ("", "ajax-api/2.0/mlflow/experiments/search?max_results=5"):
            assert answers(f"http://127.0.0.1:{port}/{path}")
        time.sleep(2)  # what threads send later
    check_silence(home, log)
