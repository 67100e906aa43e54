"""Ray and Spark give the same rows as the local engine. Both are optional packages."""

import sys

import pytest

import emotion_detection
from emotion_detection import batch

PACKAGES = {"ray": "ray.data", "spark": "pyspark"}


@pytest.mark.slow
@pytest.mark.parametrize("engine", PACKAGES)
def test_engine_gives_the_rows_of_the_local_one(run_batch, folder, tmp_path, engine):
    pytest.importorskip(PACKAGES[engine])
    (folder / "bad.png").write_bytes(b"this is no picture")
    expected = run_batch(folder, tmp_path / "local", "--part-size", "3")
    tables = run_batch(folder, tmp_path / engine, "--part-size", "3", "--engine", engine, workers=2)
    assert tables == expected


@pytest.mark.parametrize("engine", PACKAGES)
def test_missing_engine_is_named(run_batch, folder, tmp_path, monkeypatch, capsys, engine):
    monkeypatch.setitem(sys.modules, PACKAGES[engine], None)
    with pytest.raises(SystemExit) as ended:
        run_batch(folder, tmp_path / "out", "--engine", engine)
    assert ended.value.code == 1
    assert f"--engine {engine} needs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_killed_worker_is_reported(run_batch, folder, tmp_path, monkeypatch, capsys):
    from concurrent.futures.process import BrokenProcessPool

    from emotion_detection.batch import engines

    def broken(*_):
        raise BrokenProcessPool("a child process terminated abruptly")
        yield

    monkeypatch.setattr(engines, "_in_pool", broken)
    with pytest.raises(SystemExit) as ended:
        run_batch(folder, tmp_path / "out", "--part-size", "5", workers=2)
    assert ended.value.code == 1
    assert "a worker ended unexpectedly" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["fsspec", "pyarrow"])
def test_missing_extra_is_named(run_batch, folder, tmp_path, monkeypatch, capsys, package):
    monkeypatch.setattr(emotion_detection, "batch", batch)  # the command imports it again
    for name in [name for name in sys.modules if name.startswith("emotion_detection.batch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as ended:
        run_batch(folder, tmp_path / "out")
    assert ended.value.code == 1
    assert "install the extra batch" in capsys.readouterr().err
