"""The batch command: the same rows from each kind of source, once each, whatever happens in between."""

import gzip
import io
import json
import os
import re
import shutil
import struct
import tarfile
import zipfile
from contextlib import contextmanager
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmarks.batch import measure
from tests.support.onnx_files import write_linear
from tests.support.paths import ROOT
from tests.support.shards import read, write_parquet, write_tar, write_zip

from emotion_detection import Recognizer
from emotion_detection.batch import engines, parquet_shards, pictures, plan, scoring
from emotion_detection.batch import run as batch_run
from emotion_detection.batch.pictures import read_pictures
from emotion_detection.batch.plan import divide
from emotion_detection.batch.storage import Storage
from emotion_detection.cli import main
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import UsageError
from emotion_detection.inference.recognizer import FaceCrops

JUNK = b"this is no picture"


def probabilities(rows) -> list[tuple[float, ...]]:
    """The probabilities of the rows, without the order of the rows."""
    return sorted(tuple(row[f"p_{emotion}"] for emotion in EMOTIONS) for row in rows)


def expected(model: Path, pngs: dict[str, bytes]) -> list[tuple[float, ...]]:
    recognizer = Recognizer.load(model, detector=FaceCrops())
    readings = [recognizer.recognize(png)[0].as_dict() for png in pngs.values()]
    return sorted(tuple(np.array(one["probabilities"], np.float32).tolist()) for one in readings)


def test_folder_gives_a_row_for_each_face(run_batch, folder, tmp_path, model, pngs):
    rows, bad = run_batch(folder, tmp_path / "out", "--part-size", "3")
    assert probabilities(rows) == expected(model, pngs)
    assert sorted(row["source"] for row in rows) == sorted(pngs)
    assert {row["model"] for row in rows} == {"model.onnx"}
    assert {row["sha256"] for row in rows} == {
        json.loads((tmp_path / "out" / "_manifest.json").read_text())["model"]["sha256"]
    }
    assert {(row["left"], row["top"], row["width"], row["height"]) for row in rows} == {(0, 0, 48, 48)}
    assert bad == []
    assert len(list((tmp_path / "out").glob("part-*.parquet"))) == 4
    assert (tmp_path / "out" / "_SUCCESS").exists()


@pytest.mark.parametrize("name", ["shard.tar", "shard.tar.gz", "shard.zip", "plain.parquet", "nested.parquet"])
@pytest.mark.parametrize("part_size", [3, 1000])
def test_shard_gives_the_same_rows_as_the_folder(run_batch, tmp_path, model, pngs, name, part_size):
    write = {"tar": write_tar, "gz": write_tar, "zip": write_zip, "parquet": write_parquet}[name.rpartition(".")[2]]
    options = {"nested": True} if name.startswith("nested") else {}
    files = pngs if name.endswith("parquet") else pngs | {"0/face-0.json": b"{}", "0/.hidden.png": JUNK}
    write(tmp_path / name, files, **options)
    rows, bad = run_batch(tmp_path / name, tmp_path / "out", "--part-size", str(part_size))
    assert probabilities(rows) == expected(model, pngs)
    assert bad == []
    assert {row["source"] for row in rows} == {name}
    assert len({row["index"] for row in rows}) == len(pngs)


def test_folder_of_shards_and_pictures_is_read_completely(run_batch, folder, tmp_path, model, pngs):
    write_tar(folder / "more.tar", pngs)
    write_parquet(folder / "again.parquet", pngs)
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(JUNK)
    rows, bad = run_batch(folder, tmp_path / "out")
    assert probabilities(rows) == sorted(3 * expected(model, pngs))
    assert bad == []


@pytest.mark.parametrize("pattern", ["shard-{08..10}.tar", "shard-*.tar", "shard-{08..09}.tar"])
def test_pattern_names_shards(run_batch, tmp_path, pngs, pattern):
    for number in range(7, 11):
        write_tar(tmp_path / f"shard-{number:02}.tar", {f"{number}.png": next(iter(pngs.values()))})
    rows, _ = run_batch(tmp_path / pattern, tmp_path / "out")
    names = {"shard-{08..10}.tar": range(8, 11), "shard-*.tar": range(7, 11), "shard-{08..09}.tar": range(8, 10)}[
        pattern
    ]
    assert sorted(row["source"] for row in rows) == [f"shard-{number:02}.tar" for number in names]


def test_faces_are_found_as_predict_finds_them(tmp_path, pngs):
    picture = ROOT / "docs" / "demo.webp"
    if not picture.exists():
        pytest.skip("this copy of the project has no documentation")
    (tmp_path / "photos").mkdir()
    shutil.copy(picture, tmp_path / "photos")
    (tmp_path / "photos" / "empty.png").write_bytes(next(iter(pngs.values())))
    shipped = Recognizer.load()
    main(
        [
            "batch",
            str(tmp_path / "photos"),
            "--out",
            str(tmp_path / "out"),
            "--workers",
            "1",
            "--model",
            str(shipped_file()),
        ]
    )
    rows, _ = read(tmp_path / "out")
    readings = shipped.recognize(picture)
    assert readings
    found = [row for row in rows if row["source"] == "demo.webp"]
    assert [row["face"] for row in found] == list(range(len(readings)))
    assert [[row[key] for key in ("left", "top", "width", "height")] for row in found] == [
        one.as_dict()["box"] for one in readings
    ]
    assert [row["emotion"] for row in found] == [one.emotion for one in readings]
    assert [row["unsure"] for row in found] == [one.unsure for one in readings]


def shipped_file() -> Path:
    from emotion_detection.inference.pretrained import MODEL

    return MODEL


def test_bad_pictures_are_in_the_side_table_and_stop_nothing(run_batch, folder, tmp_path, pngs):
    (folder / "bad.jpg").write_bytes(JUNK)
    (folder / "cut.png").write_bytes(next(iter(pngs.values()))[:500])
    (folder / "gone.png").symlink_to(tmp_path / "missing.png")
    os.mkfifo(folder / "pipe.png")
    rows, bad = run_batch(folder, tmp_path / "out", "--part-size", "4")
    assert len(rows) == len(pngs)
    assert sorted(row["source"] for row in bad) == ["bad.jpg", "cut.png"]
    assert all("picture" in row["reason"] for row in bad)


def test_picture_that_disappears_is_bad(run_batch, folder, tmp_path, monkeypatch, pngs):
    begin = batch_run.begin

    def begin_and_remove(*arguments):
        manifest = begin(*arguments)
        (folder / "0" / "face-0.png").unlink()
        return manifest

    monkeypatch.setattr(batch_run, "begin", begin_and_remove)
    rows, bad = run_batch(folder, tmp_path / "out")
    assert len(rows) == len(pngs) - 1
    assert [row["source"] for row in bad] == ["0/face-0.png"]
    assert "No such file" in bad[0]["reason"]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip", "a.parquet"])
def test_damaged_shard_is_bad_and_the_others_are_read(run_batch, folder, tmp_path, pngs, name):
    write = {"tar": write_tar, "gz": write_tar, "zip": write_zip, "parquet": write_parquet}[name.rpartition(".")[2]]
    whole = write(tmp_path / name, pngs).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    rows, bad = run_batch(folder, tmp_path / "out")
    damaged = [row for row in bad if row["source"] == name]
    assert len(damaged) == 1
    assert damaged[0]["reason"]
    assert sum(row["source"] != name for row in rows) == len(pngs)


@pytest.mark.parametrize(
    "content",
    [b"", JUNK, gzip.compress(JUNK, mtime=0), b"PK\x03\x04" + JUNK, b"PAR1" + JUNK],
    ids=["empty", "text", "gzip", "zip", "parquet"],
)
def test_shard_of_another_kind_is_bad(run_batch, folder, tmp_path, pngs, content):
    (folder / "a.tar").write_bytes(content)
    rows, bad = run_batch(folder, tmp_path / "out")
    assert len(rows) == len(pngs)
    assert [row["source"] for row in bad] == ["a.tar"]


def test_parquet_without_pictures_is_bad(run_batch, folder, tmp_path, pngs):
    pq.write_table(pa.table({"label": [1, 2]}), folder / "labels.parquet")
    pq.write_table(pa.table({"image": pa.array([None, JUNK], pa.binary())}), folder / "nulls.parquet")
    rows, bad = run_batch(folder, tmp_path / "out")
    assert len(rows) == len(pngs)
    assert sorted((row["source"], row["index"]) for row in bad if row["index"] is not None) == [
        ("nulls.parquet", 0),
        ("nulls.parquet", 1),
    ]
    assert [row["source"] for row in bad if row["index"] is None] == ["labels.parquet"]


def test_parquet_file_that_needs_more_memory_than_allowed_is_bad(run_batch, folder, tmp_path, pngs, monkeypatch):
    @contextmanager
    def ceiling(_):
        yield
        raise MemoryError

    write_parquet(folder / "bomb.parquet", pngs)
    monkeypatch.setattr(parquet_shards, "memory_ceiling", ceiling)
    rows, bad = run_batch(folder, tmp_path / "out")
    assert len(rows) == len(pngs)
    assert [row["source"] for row in bad] == ["bomb.parquet"]


def test_finished_parts_are_not_read_again(run_batch, folder, tmp_path, monkeypatch, capsys):
    rows, _ = run_batch(folder, tmp_path / "out", "--part-size", "3")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    (tmp_path / "out" / "part-0000002.parquet").unlink()
    scored = []
    score_part = scoring.score_part

    def score(job, number, offset):
        scored.append(number)
        return score_part(job, number, offset)

    monkeypatch.setattr("emotion_detection.batch.engines.score_part", score)
    again, _ = run_batch(folder, tmp_path / "out", "--part-size", "3")
    assert scored == [2]
    assert sorted(map(str, again)) == sorted(map(str, rows))
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    assert [path.name for path in before if before[path] != after[path]] == ["part-0000002.parquet"]
    assert "3 parts were finished before" in capsys.readouterr().out


def test_part_that_fails_leaves_no_file_and_is_read_by_the_next_command(run_batch, folder, tmp_path, monkeypatch, pngs):
    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "_classify", fail)
        with pytest.raises(SystemExit):
            run_batch(folder, tmp_path / "out")
    assert not list((tmp_path / "out").glob("part-*"))
    assert len(run_batch(folder, tmp_path / "out")[0]) == len(pngs)


def test_leftovers_of_a_killed_command_are_removed(run_batch, folder, tmp_path, pngs):
    (tmp_path / "out" / "_unfinished").mkdir(parents=True)
    (tmp_path / "out" / "_unfinished" / "0123").write_bytes(b"half a part")
    assert len(run_batch(folder, tmp_path / "out")[0]) == len(pngs)
    assert not (tmp_path / "out" / "_unfinished").exists()


def test_part_that_an_engine_leaves_out_is_an_error(run_batch, folder, tmp_path, monkeypatch, capsys):
    run_batch(folder, tmp_path / "out", "--part-size", "3")
    (tmp_path / "out" / "part-0000001.parquet").unlink()
    with monkeypatch.context() as patch:
        patch.setitem(engines.ENGINES, "local", lambda *_: iter(()))
        with pytest.raises(SystemExit) as ended:
            run_batch(folder, tmp_path / "out", "--part-size", "3")
    assert ended.value.code == 1
    assert "lacks 1 parts, such as part-0000001.parquet" in capsys.readouterr().err
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    run_batch(folder, tmp_path / "out", "--part-size", "3")
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_pipe_with_the_name_of_an_archive_is_left_out(run_batch, folder, tmp_path, pngs):
    os.mkfifo(folder / "x.tar")
    assert len(run_batch(folder, tmp_path / "out")[0]) == len(pngs)


def test_pattern_takes_pictures_and_folders_and_leaves_out_the_rest(run_batch, folder, tmp_path, pngs):
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(JUNK)
    (folder / "top.png").write_bytes(next(iter(pngs.values())))
    rows, bad = run_batch(folder / "*", tmp_path / "out")
    assert sorted(row["source"] for row in rows) == sorted([*pngs, "top.png"])
    assert bad == []


@pytest.mark.parametrize("pattern", ["**/*.png", "*/face-*.png", "[01]/*", "**", "**/face-?.png"])
def test_pattern_may_contain_folders(run_batch, folder, tmp_path, pngs, pattern):
    rows, _ = run_batch(folder / pattern, tmp_path / "out")
    assert sorted(row["source"] for row in rows) == sorted(pngs)


def test_missing_shard_of_a_range_is_named(run_batch, tmp_path, pngs, capsys):
    for number in (0, 2):
        write_tar(tmp_path / f"shard-{number}.tar", pngs)
    with pytest.raises(SystemExit) as ended:
        run_batch(tmp_path / "shard-{0..2}.tar", tmp_path / "out")
    assert ended.value.code == 1
    assert "shard-1.tar does not exist" in capsys.readouterr().err


def test_links_in_a_tar_file_are_bad_and_the_rest_is_read(run_batch, tmp_path, pngs):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number, (name, content) in enumerate(pngs.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
            for kind, link in ((tarfile.SYMTYPE, f"soft-{number}.png"), (tarfile.LNKTYPE, f"hard-{number}.png")):
                entry = tarfile.TarInfo(link)
                entry.type, entry.linkname = kind, name
                archive.addfile(entry)
    rows, bad = run_batch(tmp_path / "a.tar", tmp_path / "out", "--part-size", "4")
    assert [row["name"] for row in rows] == list(pngs)
    assert [row["index"] for row in rows] == list(range(0, 30, 3))
    assert len(bad) == 20
    assert all("link in the archive" in row["reason"] for row in bad)


def test_part_of_a_tar_file_does_not_read_the_headers_before_it(tmp_path, pngs):
    path = write_tar(tmp_path / "a.tar", pngs)
    source = Storage(str(tmp_path))
    parts = list(divide(source, ["a.tar"], 4))
    with path.open("r+b") as stream:
        stream.write(b"damaged")
    found = [picture for part in parts[1:] for picture in read_pictures(source, part)]
    assert [(one.index, one.name, one.content) for one in found] == [
        (index, name, content) for index, (name, content) in enumerate(pngs.items()) if index >= 4
    ]


def test_directory_of_a_zip_file_is_listed_once_for_all_parts(tmp_path, pngs, monkeypatch):
    names = [f"{number % 7}/{'é' * (number % 3)}{number}.png" for number in range(50)]
    png = next(iter(pngs.values()))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number, name in enumerate(names):
            entry = zipfile.ZipInfo(name)
            entry.extra, entry.comment = struct.pack("<HHB", 0xCAFE, 1, 7) * (number % 2), b"a" * (number % 5)
            archive.writestr(entry, png + name.encode())
        archive.comment = b"of the archive"
    source, listed, create = Storage(str(tmp_path)), [], zipfile.ZipInfo.__init__

    def count(entry, name="", *values):
        listed.append(name)
        create(entry, name, *values)

    monkeypatch.setattr(zipfile.ZipInfo, "__init__", count)
    parts = [plan.Part.parse(part.dump()) for part in divide(source, ["a.zip"], 8)]
    assert listed == names
    listed.clear()
    found = [picture for part in parts for picture in read_pictures(source, part)]
    assert [(one.index, one.name, one.content) for one in found] == [
        (index, name, png + name.encode()) for index, name in enumerate(names)
    ]
    assert listed == names
    assert len(parts) == 7


def test_part_of_a_zip_file_is_read_without_positions(tmp_path, pngs):
    """The offsets in this file count from before its start; a plan of an earlier version has no positions."""
    path, source = tmp_path / "a.zip", Storage(str(tmp_path))
    with path.open("wb") as stream:
        stream.write(bytes(1000))  # of a program that unpacked the archive
        with zipfile.ZipFile(stream, "w") as archive:
            for name, content in pngs.items():
                archive.writestr(name, content)
    path.write_bytes(path.read_bytes()[1000:])
    parts = list(divide(source, ["a.zip"], 4))
    assert [(part.offset, part.end) for part in parts] == 3 * [(0, 0)]
    found = [picture for part in parts for picture in read_pictures(source, part)]
    assert [(one.index, one.name, one.content) for one in found] == [
        (index, name, content) for index, (name, content) in enumerate(pngs.items())
    ]


def test_zip_file_that_changes_stops_the_command(tmp_path, pngs):
    """The positions of its parts do not fit any more; its pictures must not become rows with an error."""
    path, source = tmp_path / "a.zip", Storage(str(tmp_path))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in pngs.items():
            archive.writestr(name, content)
    parts = list(divide(source, ["a.zip"], 4))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("new.png", next(iter(pngs.values())))
    for part in parts:
        with pytest.raises(UsageError, match=r"a\.zip has changed since this batch began: use a new folder for --out"):
            list(read_pictures(source, part))


def test_benchmark_refuses_the_folder_of_an_earlier_run(folder, tmp_path):
    with pytest.raises(SystemExit, match="exists already"):
        measure(folder, tmp_path, workers=1, pictures=10)


def test_zip_file_with_too_many_files_is_bad(run_batch, folder, tmp_path, pngs, monkeypatch):
    write_zip(folder / "a.zip", pngs)
    monkeypatch.setattr(plan, "MAX_DIRECTORY_BYTES", 200)
    monkeypatch.setattr(pictures, "MAX_DIRECTORY_BYTES", 200)
    rows, bad = run_batch(folder, tmp_path / "out")
    assert len(rows) == len(pngs)
    assert [row["reason"] for row in bad] == [
        "a.zip lists more files than can be read: divide it into smaller archives"
    ]


def test_folder_of_another_model_is_refused(run_batch, folder, tmp_path, capsys):
    run_batch(folder, tmp_path / "out")
    other = write_linear(tmp_path / "other.onnx", seed=4)
    with pytest.raises(SystemExit) as ended:
        run_batch(folder, tmp_path / "out", model=other)
    assert ended.value.code == 1
    assert "was begun with model.onnx (SHA-256" in capsys.readouterr().err


def test_all_rows_name_the_model_as_the_first_command_did(run_batch, folder, tmp_path, model):
    run_batch(folder, tmp_path / "out", "--part-size", "3")
    (tmp_path / "out" / "part-0000001.parquet").unlink()
    renamed = shutil.copy(model, tmp_path / "renamed.onnx")
    rows, _ = run_batch(folder, tmp_path / "out", "--part-size", "3", model=renamed)
    assert {row["model"] for row in rows} == {"model.onnx"}


@pytest.mark.parametrize("content", ["", "{}", '{"model": {"name": "a", "version": 1, "sha256": "b"}}'])
def test_damaged_manifest_is_named(run_batch, folder, tmp_path, capsys, content):
    run_batch(folder, tmp_path / "out")
    (tmp_path / "out" / "_manifest.json").write_text(content)
    with pytest.raises(SystemExit) as ended:
        run_batch(folder, tmp_path / "out")
    assert ended.value.code == 1
    assert "_manifest.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--part-size", "5"], "was begun with the part size 1000 and cannot be continued with 5"),
        (["--faces", "largest"], "was begun with the faces all and cannot be continued with largest"),
    ],
)
def test_folder_of_other_settings_is_refused(run_batch, folder, tmp_path, capsys, flags, message):
    run_batch(folder, tmp_path / "out")
    with pytest.raises(SystemExit):
        run_batch(folder, tmp_path / "out", *flags)
    assert message in capsys.readouterr().err


def test_folder_with_other_files_is_refused(run_batch, folder, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(SystemExit):
        run_batch(folder, tmp_path / "out")
    assert "contains other files, such as thesis.txt" in capsys.readouterr().err


def test_second_command_on_a_folder_is_refused(run_batch, folder, tmp_path, capsys):
    with batch_run.exclusive(Storage(str(tmp_path / "out"))), pytest.raises(SystemExit):
        run_batch(folder, tmp_path / "out")
    assert "another command writes to" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nothing", "nothing-*.tar", "empty", "photos-{3..1}.tar"])
def test_source_without_pictures_is_refused(run_batch, tmp_path, capsys, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as ended:
        run_batch(tmp_path / name, tmp_path / "out")
    assert ended.value.code == 1
    assert capsys.readouterr().err.count("error: ") == 1
    (tmp_path / "empty" / "face.png").write_bytes(JUNK)
    run_batch(tmp_path / "empty", tmp_path / "out")  # the failure left nothing in the way


@pytest.mark.parametrize(
    ("flags", "workers"),
    [([], 0), (["--part-size", "0"], 1), (["--detector", "yunet"], 1), (["--engine", "slurm"], 1)],
)
def test_wrong_option_is_refused(run_batch, folder, tmp_path, flags, workers):
    with pytest.raises(SystemExit) as ended:
        run_batch(folder, tmp_path / "out", *flags, workers=workers)
    assert ended.value.code in (1, 2)
    assert not (tmp_path / "out").exists()


def test_source_and_output_at_an_address(pngs, model):
    memory = fsspec.filesystem("memory")
    for name, content in pngs.items():
        memory.pipe_file(f"/photos/{name}", content)
    try:
        main(
            ["batch", "memory://photos", "--out", "memory://out/1", "--crops", "--workers", "1", "--model", str(model)]
        )
        with memory.open("/out/1/part-0000000.parquet") as stream:
            rows = pq.read_table(stream).to_pylist()
        assert probabilities(rows) == expected(model, pngs)
        assert memory.exists("/out/1/_bad/part-0000000.parquet")
        assert memory.exists("/out/1/_SUCCESS")
    finally:
        memory.rm("/", recursive=True)


def test_file_that_is_no_model_is_refused_before_anything_is_written(run_batch, folder, tmp_path, capsys):
    (tmp_path / "model.onnx").write_bytes(JUNK)
    with pytest.raises(SystemExit) as ended:
        run_batch(folder, tmp_path / "out", model=tmp_path / "model.onnx")
    assert ended.value.code == 1
    assert "cannot be loaded as an ONNX model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unknown_address_is_refused(run_batch, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run_batch("nowhere://photos", tmp_path / "out")
    assert ended.value.code == 1
    assert "nowhere://photos cannot be opened" in capsys.readouterr().err


@pytest.mark.slow
def test_two_workers_give_the_same_rows(run_batch, folder, tmp_path):
    one = run_batch(folder, tmp_path / "one", "--part-size", "3")
    two = run_batch(folder, tmp_path / "two", "--part-size", "3", workers=2)
    assert one == two


def test_champion_of_the_registry_is_named_in_each_row(folder, tmp_path, store, pngs):  # noqa: ARG001
    from tests.support.versions import register_version

    from emotion_detection.experiments import promotion

    number = register_version()
    promotion.promote("emotion-detection", number, alias="champion", reason="the only one")
    main(["batch", str(folder), "--out", str(tmp_path / "out"), "--crops", "--workers", "1"])
    rows, _ = read(tmp_path / "out")
    assert {(row["model"], row["version"]) for row in rows} == {("emotion-detection", number)}
    assert len(rows) == len(pngs)


def test_example_of_the_readme_works(tmp_path, model, monkeypatch):
    (command,) = re.findall(r"^emotion-detection (batch .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    (tmp_path / "sample").symlink_to(ROOT / "sample")
    (tmp_path / "dvc.yaml").touch()  # a project without a registry
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("emotion_detection.commands.batch.MODEL", model)  # a fast one
    monkeypatch.setattr("emotion_detection.batch.engines._cores", lambda: 1)
    main(command.split())
    rows, bad = read("scores")
    assert len(rows) > 1000
    assert bad == []
    assert {row["model"] for row in rows} == {"emotion-detection (shipped)"}
