"""`make data`: what is found becomes data/ and its pin; whatever fails changes nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.support.fer_files import class_members, drawn_faces, kaggle_members, table, write_folder, write_zip

from emotion_detection.commands import data as command
from emotion_detection.commands.data import add_data
from emotion_detection.data.formats import OFFICIAL, read_raw
from emotion_detection.emotions import SPLITS
from emotion_detection.errors import InputError

FACES = drawn_faces()


def dvc(root: Path, *arguments: str) -> str:
    words = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(words, cwd=root, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose data/ is the import of its sample/, as in a fresh clone after the first run."""
    root = tmp_path_factory.mktemp("template")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    dvc(root, "init", "-q")
    dvc(root, "config", "core.analytics", "false")
    (root / "sample").mkdir()
    write_zip(root / "sample" / "sample.zip", kaggle_members(drawn_faces(seed=1)))
    dvc(root, "import-url", "sample", "data")
    dvc(root, "unfreeze", "data.dvc")
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(template, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "given").mkdir()
    return write_zip(tmp_path / "given" / "faces.zip", kaggle_members(FACES))


def state(root: Path) -> dict[str, bytes]:
    """Every file of the project that is not DVC's or git's own."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.relative_to(root).parts[0] not in (".dvc", ".git")
    }


def test_a_file_becomes_data_under_its_own_name(root, source, capsys):
    before = state(root)
    add_data(str(source), data=Path("data"))
    after = state(root)
    assert after.keys() - before.keys() == {"data/faces.zip"}
    assert before.keys() - after.keys() == {"data/sample.zip"}
    assert after["data/faces.zip"] == source.read_bytes()
    assert {name for name in after if before.get(name) != after[name]} == {"data/faces.zip", "data.dvc"}
    pin = yaml.safe_load((root / "data.dvc").read_text())
    assert "deps" not in pin
    assert "frozen" not in pin
    assert dvc(root, "status").strip() == "Data and pipelines are up to date."
    told = capsys.readouterr().out
    for words in ("train|test/<emotion>/<Usage>", "custom-", "39 train", "12 val", "12 test", "make repro"):
        assert words in told, told
    assert "make adopt" not in told
    # What was there before can be brought back, and then replaced again.
    (root / "data.dvc").write_bytes(before["data.dvc"])
    dvc(root, "checkout", "data.dvc")
    assert state(root) == before


@pytest.mark.usefixtures("root")
def test_a_folder_is_packed_into_one_file(tmp_path):
    folder = write_folder(tmp_path / "my faces", kaggle_members(FACES))
    add_data(str(folder), data=Path("data"))
    assert [path.name for path in Path("data").iterdir()] == ["my faces.zip"]
    np.testing.assert_array_equal(read_raw(Path("data")).faces.images, read_raw(folder).faces.images)


@pytest.mark.usefixtures("root")
def test_the_only_file_of_a_folder_is_taken_as_it_is(tmp_path):
    folder = write_folder(tmp_path / "d", {"fer2013.csv": table(FACES).encode()})
    add_data(str(folder), data=Path("data"))
    assert {path.name: path.read_bytes() for path in Path("data").iterdir()} == {"fer2013.csv": table(FACES).encode()}


@pytest.mark.usefixtures("root")
def test_fer2013_is_told_what_to_type_next(source, capsys, monkeypatch):
    counts = [np.bincount(FACES.of(split).labels, minlength=7) for split in SPLITS]
    monkeypatch.setattr("emotion_detection.data.formats.OFFICIAL", np.array(counts, OFFICIAL.dtype))
    add_data(str(source), data=Path("data"))
    assert "make adopt FROM=recipes/fer_resnet.yaml" in capsys.readouterr().out


@pytest.mark.usefixtures("root")
def test_a_project_without_data_gets_it(source):
    shutil.rmtree("data")
    Path("data.dvc").unlink()
    add_data(str(source), data=Path("data"))
    assert [path.name for path in Path("data").iterdir()] == ["faces.zip"]
    assert Path("data.dvc").exists()


@pytest.mark.parametrize("given", ["", " ", "gone.csv", "broken.csv", "empty", "sample/../broken.zip"])
def test_a_refused_source_changes_nothing(root, given):
    Path("broken.csv").write_text(table(FACES)[:-3000])
    Path("empty").mkdir()
    write_zip(Path("broken.zip"), {"../happy/1.png": b""})
    before = state(root)
    with pytest.raises(InputError) as caught:
        add_data(given, data=Path("data"))
    assert state(root) == before
    assert given.strip() in str(caught.value)
    assert not Path("data.incoming").exists()


def test_a_missing_source_lists_the_choices():
    words = [sys.executable, "-m", "emotion_detection", "data"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    for choice in ("kaggle", "huggingface", "fer2013.csv", "archive.zip"):
        assert choice in done.stderr


def test_data_that_dvc_does_not_know_is_not_replaced(root, source):
    Path("data/mine.txt").write_text("notes")
    before = state(root)
    with pytest.raises(InputError, match="move it away"):
        add_data(str(source), data=Path("data"))
    assert state(root) == before


@pytest.mark.usefixtures("root")
def test_data_without_a_pin_or_a_stored_copy_is_not_replaced(source):
    pin = Path("data.dvc").read_bytes()
    Path("data.dvc").unlink()
    with pytest.raises(InputError, match="move it away"):
        add_data(str(source), data=Path("data"))
    Path("data.dvc").write_bytes(pin)
    shutil.rmtree(".dvc/cache")
    with pytest.raises(InputError, match="move it away"):
        add_data(str(source), data=Path("data"))
    assert [path.name for path in Path("data").iterdir()] == ["sample.zip"]


@pytest.mark.parametrize("failure", [InputError("the lock is held"), KeyboardInterrupt()])
@pytest.mark.parametrize("present", [True, False])
def test_a_failed_pin_changes_nothing(root, source, monkeypatch, failure, present):
    real = command._dvc

    def failing(data: Path, *arguments: str) -> str:
        if arguments[0] != "add":
            return real(data, *arguments)
        assert [path.name for path in data.iterdir()] == ["faces.zip"]
        Path("data.dvc").write_text("half")
        Path(".gitignore").write_text("half")
        raise failure

    if not present:
        shutil.rmtree("data")
    before = state(root)
    monkeypatch.setattr(command, "_dvc", failing)
    with pytest.raises(type(failure)):
        add_data(str(source), data=Path("data"))
    assert state(root) == before
    assert Path("data").exists() == present
    assert not Path("data.incoming").exists()


def test_dvc_speaks_for_itself_when_it_fails(root, source):
    shutil.rmtree("data")
    Path("data.dvc").unlink()
    shutil.rmtree(".dvc")
    before = state(root)
    with pytest.raises(InputError, match=r"`dvc add .* not inside of a DVC repository"):
        add_data(str(source), data=Path("data"))
    assert state(root) == before


@pytest.mark.usefixtures("root")
def test_a_download_is_packed_and_tidied(monkeypatch):
    def fetched(_: str, folder: Path) -> Path:
        return write_folder(folder / "versions" / "1", class_members(FACES))

    monkeypatch.setattr(command, "download", fetched)
    add_data("kaggle", data=Path("data"))
    assert [path.name for path in Path("data").iterdir()] == ["fer2013-kaggle.zip"]
    assert len(read_raw(Path("data")).faces) == len(FACES)
    assert not Path("data.incoming").exists()


def test_a_broken_off_download_is_kept_for_the_next_attempt(root, monkeypatch):
    def broken_off(_: str, folder: Path) -> Path:
        write_folder(folder, {"1.archive": b"half"})
        raise InputError("the host went away")

    before = state(root)
    monkeypatch.setattr(command, "download", broken_off)
    with pytest.raises(InputError, match="went away"):
        add_data("kaggle", data=Path("data"))
    assert state(root) == before | {"data.incoming/download/1.archive": b"half"}
