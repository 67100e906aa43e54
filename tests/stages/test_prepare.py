"""The prepare stage on a data set without an official split."""

import errno
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.support.fer_files import kaggle_members, random_faces, write_zip
from tests.support.paths import ROOT
from tests.support.vote_files import by_file, known_votes, random_votes

from emotion_detection.data import figures
from emotion_detection.data.dataset import digest, load, votes_digest
from emotion_detection.errors import DataError
from emotion_detection.stages.prepare import PreparePaths, prepare
from emotion_detection.synthetic.sample import write_sample


@pytest.fixture(scope="module")
def class_folders(tmp_path_factory) -> Path:
    """The drawn sample as <emotion>/<number>.jpg, without splits."""
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder / "sample.zip", per_class=12, seed=1)
    with zipfile.ZipFile(folder / "sample.zip") as archive:
        for number, name in enumerate(archive.namelist()):
            emotion = folder / "data" / Path(name).parent.name
            emotion.mkdir(parents=True, exist_ok=True)
            (emotion / f"{number}{Path(name).suffix}").write_bytes(archive.read(name))
    return folder / "data"


def make_paths(folder: Path, class_folders: Path, **fractions: float) -> PreparePaths:
    """The arguments of prepare, with the committed params except for some fractions."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["prepare"] |= fractions
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))
    (folder / "data.dvc").write_text("outs:\n- md5: 0123.dir\n")
    shutil.copytree(class_folders, folder / "data") if class_folders.exists() else (folder / "data").mkdir()
    names = {"params": "params.yaml", "data": "data", "pin": "data.dvc", "faces": "faces.npz", "report": "report.json"}
    return PreparePaths(**{key: folder / name for key, name in names.items()}, figures=folder / "figures")


def test_empty_split_raises_before_anything_is_written(class_folders, tmp_path):
    paths = make_paths(tmp_path, class_folders, test_fraction=0.0)
    with pytest.raises(DataError, match=r"the test split is empty: add data to .* or change prepare\.\*_fraction"):
        prepare(paths)
    assert {path.name for path in tmp_path.iterdir()} == {"params.yaml", "data.dvc", "data"}


def test_data_set_name_depends_on_the_fractions(class_folders, tmp_path, monkeypatch):
    for name in ("classes_per_split", "contact_sheet", "duplicates_sheet"):  # they take a second
        monkeypatch.setattr(figures, name, lambda *_, **__: None)
    names = []
    for fraction in (0.2, 0.3):
        paths = make_paths(tmp_path / str(fraction), class_folders, test_fraction=fraction)
        prepare(paths)
        names.append(yaml.safe_load(paths.report.read_text())["dataset"])
    assert names[0] != names[1]
    assert names[0].split("-")[:2] == names[1].split("-")[:2] == ["custom", names[0].split("-")[1]]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the figures, which take a second."""
    for name in ("classes_per_split", "contact_sheet", "duplicates_sheet"):
        monkeypatch.setattr(figures, name, lambda *_, **__: None)


@pytest.mark.usefixtures("quick")
def test_votes_of_train_and_val_are_carried_and_counted(tmp_path, capsys):
    faces = random_faces(210)
    votes = random_votes(faces)
    votes[3] = 0
    source = write_zip(tmp_path / "faces.zip", kaggle_members(faces))
    reports = []
    for with_votes in (False, True):
        paths = make_paths(tmp_path / str(with_votes), tmp_path / "no faces")
        shutil.copy(source, paths.data)
        if with_votes:
            (paths.data / "votes").mkdir()
            (paths.data / "votes" / "votes.csv").write_text(by_file(list(kaggle_members(faces)), votes))
        prepare(paths)
        reports.append(json.loads(paths.report.read_text()))
    prepared = load(paths.faces)
    assert prepared.votes is not None
    known = known_votes(faces, votes)
    for image, row in zip(prepared.images, prepared.votes, strict=True):
        (original,) = np.flatnonzero((faces.images == image).all(axis=(1, 2)))
        np.testing.assert_array_equal(row, known[original])
    plain, voted = reports
    counted = voted.pop("votes")
    assert voted == plain
    assert counted["faces"] == {"train": int((faces.splits == 0).sum()) - 1, "val": int((faces.splits == 1).sum())}
    assert counted["missing"] == {"train": 1, "val": 0}
    assert counted["files"] == ["votes.csv"]
    assert counted["agreement"].keys() == {"train", "val"}
    assert counted["digest"] == votes_digest(prepared)
    assert f"faces with votes: {counted['faces']}" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_damaged_votes_are_refused_before_anything_is_written(class_folders, tmp_path):
    paths = make_paths(tmp_path, class_folders)
    (paths.data / "votes").mkdir()
    (paths.data / "votes" / "votes.csv").write_text("words")
    with pytest.raises(DataError, match="is no table of votes"):
        prepare(paths)
    assert not paths.faces.exists()


@pytest.mark.usefixtures("quick")
def test_data_behind_a_symbolic_link_are_read(class_folders, tmp_path, capsys):
    paths = make_paths(tmp_path / "plain", class_folders)
    prepare(paths)
    linked = make_paths(tmp_path / "linked", class_folders)
    shutil.move(linked.data, tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "README").write_text("words")
    linked.data.symlink_to(tmp_path / "elsewhere")
    prepare(linked)
    assert digest(load(linked.faces)) == digest(load(paths.faces))
    note = "1 other file was not read: README"
    assert note in capsys.readouterr().out
    assert note in json.loads(linked.report.read_text())["notes"]


@pytest.mark.usefixtures("quick")
def test_full_disk_leaves_the_previous_outputs(class_folders, tmp_path, monkeypatch):
    paths = make_paths(tmp_path, class_folders)
    prepare(paths)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("emotion_detection.stages.prepare.save", fail)
    monkeypatch.setattr("emotion_detection.stages.prepare.describe", lambda *_: {"changed": True})
    with pytest.raises(OSError, match="No space left"):
        prepare(paths)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
