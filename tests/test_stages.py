"""The stages where the whole pipeline would be too slow a test: what they refuse, and what a checkpoint is named by."""

from argparse import Namespace
from pathlib import Path

import pytest
import yaml

from emotion_detection import training
from emotion_detection.errors import InputError
from emotion_detection.stages import prepare, train
from emotion_detection.synthetic import write_sample

ROOT = Path(__file__).parents[1]


def paths(folder: Path, **fractions: float) -> Namespace:
    """Arguments of prepare in a folder of its own, over committed params but for some fractions."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["prepare"] |= fractions
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))
    (folder / "data.dvc").write_text("outs:\n- md5: 0123.dir\n")
    names = {"params": "params.yaml", "data": "data", "pin": "data.dvc", "faces": "faces.npz", "report": "report.json"}
    return Namespace(**{key: folder / name for key, name in names.items()}, figures=folder / "figures")


def test_an_empty_split_is_refused_before_anything_is_written(tmp_path):
    arguments = paths(tmp_path, test_fraction=0.0)
    write_class_folders(arguments.data)
    with pytest.raises(InputError, match=r"leaves test no face: give more data, or change prepare\.\*_fraction"):
        prepare.prepare(arguments)
    assert {path.name for path in tmp_path.iterdir()} == {"params.yaml", "data.dvc", "data"}


def test_a_split_of_our_own_making_is_part_of_the_data_sets_name(tmp_path):
    names = []
    for fraction in (0.2, 0.3):
        folder = tmp_path / str(fraction)
        folder.mkdir()
        arguments = paths(folder, test_fraction=fraction)
        write_class_folders(arguments.data)
        prepare.prepare(arguments)
        names.append(yaml.safe_load(arguments.report.read_text())["dataset"])
    assert names[0] != names[1]
    assert names[0].split("-")[:2] == names[1].split("-")[:2] == ["custom", names[0].split("-")[1]]


def write_class_folders(data: Path) -> None:
    """The drawn sample's pictures in class folders, which tell no split."""
    import zipfile

    write_sample(data.with_suffix(".zip"), per_class=12, seed=1)
    with zipfile.ZipFile(data.with_suffix(".zip")) as archive:
        for name in archive.namelist():
            _, emotion, picture = name.split("/")
            (data / emotion).mkdir(parents=True, exist_ok=True)
            (data / emotion / f"{len(list((data / emotion).iterdir()))}{picture[-4:]}").write_bytes(archive.read(name))
    data.with_suffix(".zip").unlink()


def test_a_checkpoint_is_named_by_params_data_and_code(tmp_path, monkeypatch):
    key = train._key({"train": {"epochs": 1}}, "digest")
    assert key == train._key({"train": {"epochs": 1}}, "digest")
    assert (
        len({key, train._key({"train": {"epochs": 2}}, "digest"), train._key({"train": {"epochs": 1}}, "other")}) == 3
    )
    edited = tmp_path / "training.py"
    edited.write_text(Path(training.__file__).read_text() + "# edited\n")
    monkeypatch.setattr(training, "__file__", str(edited))
    assert train._key({"train": {"epochs": 1}}, "digest") != key
