"""A batch that is killed in the middle and started again has each row once."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from tests.support.shards import read

from emotion_detection.batch import engines


@pytest.mark.slow
def test_killed_batch_continues_without_a_lost_or_doubled_row(run_batch, folder, tmp_path, model, pngs, monkeypatch):
    expected = run_batch(folder, tmp_path / "expected", "--part-size", "2")
    out = tmp_path / "out"
    with monkeypatch.context() as patch:  # plan the parts, and read none
        patch.setitem(engines.ENGINES, "local", lambda *_: iter(()))
        with pytest.raises(SystemExit):  # the parts are missing
            run_batch(folder, out, "--part-size", "2")
    blocked = sorted(folder.rglob("*.png"))[4:]
    for path in blocked:  # a worker that opens a pipe waits until somebody writes
        path.unlink()
        os.mkfifo(path)
    command = [sys.executable, "-m", "emotion_detection", "batch", str(folder), "--out", str(out), "--crops"]
    options = ["--workers", "2", "--part-size", "2", "--model", str(model)]
    with subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: len(list(out.glob("part-*"))) == 2)
            workers = psutil.Process(process.pid).children(recursive=True)
            assert len(workers) >= 2
        finally:
            process.send_signal(signal.SIGKILL)
    assert psutil.wait_procs(workers, timeout=60)[1] == []  # workers end with their command
    assert not (out / "_SUCCESS").exists()

    for path in blocked:
        path.unlink()
        path.write_bytes(pngs[path.relative_to(folder).as_posix()])
    rows, bad = run_batch(folder, out, "--part-size", "2")
    assert (rows, bad) == expected == read(tmp_path / "expected")
    assert len(rows) == len(pngs)
    assert not (out / "_unfinished").exists()


def wait_until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "the state was never reached"
        time.sleep(0.02)
