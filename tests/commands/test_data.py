"""`make data` puts a data set into data/ and tracks it with DVC; a failure changes nothing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from dvc.repo import Repo
from tests.support.fer_files import class_members, csv_table, kaggle_members, random_faces, write_folder, write_zip

from emotion_detection.cli import main
from emotion_detection.commands import data as command
from emotion_detection.commands.data import add_data
from emotion_detection.data.formats import OFFICIAL, read_raw
from emotion_detection.emotions import SPLITS
from emotion_detection.errors import DataError, UsageError

FACES = random_faces()

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # in DVC


def dvc(root: Path, *arguments: str) -> str:
    command_line = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command_line, cwd=root, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose data/ is an import of its sample/, as in a fresh clone after the first run."""
    root = tmp_path_factory.mktemp("template")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    (root / "sample").mkdir()
    write_zip(root / "sample" / "sample.zip", kaggle_members(random_faces(seed=1)))
    with pytest.MonkeyPatch.context() as patch, Repo.init(str(root)) as repo:
        (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
        patch.chdir(root)
        repo.imp_url("sample", "data", frozen=False)
    return root


@pytest.fixture
def dvc_root(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the template as the working directory."""
    shutil.copytree(template, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def root(dvc_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Like `dvc_root`, but the command runs DVC in this process, which saves a second per call."""

    def run_dvc(_: Path, action: str, *arguments: str) -> str:
        with Repo() as repo:
            if action == "status":
                return json.dumps(repo.status(targets=[arguments[-1]]))
            repo.add(arguments[-1])
        return ""

    monkeypatch.setattr(command, "_run_dvc", run_dvc)
    return dvc_root


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return write_zip(tmp_path / "source" / "faces.zip", kaggle_members(FACES))


def state(root: Path) -> dict[str, bytes]:
    """The contents of all files of the project except those in .dvc and .git."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.relative_to(root).parts[0] not in (".dvc", ".git")
    }


def test_file_replaces_the_sample(dvc_root, source, capsys):
    before = state(dvc_root)
    add_data(str(source), data=Path("data"))
    after = state(dvc_root)
    assert after.keys() - before.keys() == {"data/faces.zip"}
    assert before.keys() - after.keys() == {"data/sample.zip"}
    assert after["data/faces.zip"] == source.read_bytes()
    assert {name for name in after if before.get(name) != after[name]} == {"data/faces.zip", "data.dvc"}
    dvc_file = yaml.safe_load((dvc_root / "data.dvc").read_text())
    assert "deps" not in dvc_file
    assert "frozen" not in dvc_file
    assert dvc(dvc_root, "status").strip() == "Data and pipelines are up to date."
    output = capsys.readouterr().out
    for text in ("train|test/<emotion>/<Usage>", "custom-", "39 train", "12 val", "12 test", "make repro"):
        assert text in output, output
    assert "make adopt" not in output
    # DVC can restore the previous data.
    (dvc_root / "data.dvc").write_bytes(before["data.dvc"])
    dvc(dvc_root, "checkout", "data.dvc")
    assert state(dvc_root) == before


@pytest.mark.usefixtures("root")
def test_folder_is_packed_into_a_zip_file(tmp_path):
    folder = write_folder(tmp_path / "my faces", kaggle_members(FACES))
    add_data(str(folder), data=Path("data"))
    assert [path.name for path in Path("data").iterdir()] == ["my faces.zip"]
    np.testing.assert_array_equal(read_raw(Path("data")).faces.images, read_raw(folder).faces.images)


@pytest.mark.usefixtures("root")
def test_only_file_of_a_folder_is_copied(tmp_path):
    folder = write_folder(tmp_path / "d", {"fer2013.csv": csv_table(FACES).encode()})
    add_data(str(folder), data=Path("data"))
    assert {path.name: path.read_text() for path in Path("data").iterdir()} == {"fer2013.csv": csv_table(FACES)}


@pytest.mark.usefixtures("root")
def test_next_steps_for_fer2013_include_adopt(source, capsys, monkeypatch):
    counts = [np.bincount(FACES.of(split).labels, minlength=7) for split in SPLITS]
    monkeypatch.setattr("emotion_detection.data.formats.OFFICIAL", np.array(counts, OFFICIAL.dtype))
    add_data(str(source), data=Path("data"))
    assert "make adopt FROM=recipes/fer_resnet_fast.yaml" in capsys.readouterr().out


@pytest.mark.usefixtures("root")
def test_project_without_data_gets_data(source):
    shutil.rmtree("data")
    Path("data.dvc").unlink()
    add_data(str(source), data=Path("data"))
    assert [path.name for path in Path("data").iterdir()] == ["faces.zip"]
    assert Path("data.dvc").exists()


@pytest.mark.parametrize("rejected", ["", " ", "gone.csv", "broken.csv", "empty", "sample/../broken.zip"])
def test_rejected_source_changes_nothing(root, rejected):
    Path("broken.csv").write_text(csv_table(FACES)[:-3000])
    Path("empty").mkdir()
    write_zip(Path("broken.zip"), {"../happy/1.png": b""})
    before = state(root)
    with pytest.raises(DataError if rejected.strip() else UsageError) as error:
        add_data(rejected, data=Path("data"))
    assert state(root) == before
    assert rejected.strip() in str(error.value)
    assert not Path("data.incoming").exists()


def test_missing_source_lists_the_choices(capsys):
    with pytest.raises(SystemExit) as end:
        main(["data"])
    assert end.value.code == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    for choice in ("kaggle", "huggingface", "fer2013.csv", "archive.zip"):
        assert choice in message


def test_untracked_data_are_not_replaced(root, source):
    Path("data/mine.txt").write_text("notes")
    before = state(root)
    with pytest.raises(DataError, match="move them away"):
        add_data(str(source), data=Path("data"))
    assert state(root) == before


@pytest.mark.usefixtures("root")
def test_data_that_dvc_cannot_restore_are_not_replaced(source):
    dvc_file = Path("data.dvc").read_bytes()
    Path("data.dvc").unlink()
    with pytest.raises(DataError, match="move them away"):
        add_data(str(source), data=Path("data"))
    Path("data.dvc").write_bytes(dvc_file)
    shutil.rmtree(".dvc/cache")
    with pytest.raises(DataError, match="move them away"):
        add_data(str(source), data=Path("data"))
    assert [path.name for path in Path("data").iterdir()] == ["sample.zip"]


@pytest.mark.parametrize("failure", [DataError("the lock is held"), KeyboardInterrupt()])
@pytest.mark.parametrize("present", [True, False])
def test_failed_dvc_add_changes_nothing(root, source, monkeypatch, failure, present):
    run_dvc = command._run_dvc

    def fail(data: Path, *arguments: str) -> str:
        if arguments[0] != "add":
            return run_dvc(data, *arguments)
        assert [path.name for path in data.iterdir()] == ["faces.zip"]
        Path("data.dvc").write_text("half")
        Path(".gitignore").write_text("half")
        raise failure

    if not present:
        shutil.rmtree("data")
    before = state(root)
    monkeypatch.setattr(command, "_run_dvc", fail)
    with pytest.raises(type(failure)):
        add_data(str(source), data=Path("data"))
    assert state(root) == before
    assert Path("data").exists() == present
    assert not Path("data.incoming").exists()


def test_error_message_of_dvc_is_shown(dvc_root, source):
    shutil.rmtree("data")
    Path("data.dvc").unlink()
    shutil.rmtree(".dvc")
    before = state(dvc_root)
    with pytest.raises(DataError, match=r"`dvc add .* not inside of a DVC repository"):
        add_data(str(source), data=Path("data"))
    assert state(dvc_root) == before


@pytest.mark.usefixtures("root")
def test_download_is_packed_and_removed(monkeypatch):
    def download(_: str, folder: Path) -> Path:
        return write_folder(folder / "versions" / "1", class_members(FACES))

    monkeypatch.setattr(command, "download", download)
    add_data("kaggle", data=Path("data"))
    assert [path.name for path in Path("data").iterdir()] == ["fer2013-kaggle.zip"]
    assert len(read_raw(Path("data")).faces) == len(FACES)
    assert not Path("data.incoming").exists()


def test_interrupted_download_is_kept_for_the_next_attempt(root, monkeypatch):
    def fail(_: str, folder: Path) -> Path:
        write_folder(folder, {"1.archive": b"half"})
        raise DataError("connection lost")

    before = state(root)
    monkeypatch.setattr(command, "download", fail)
    with pytest.raises(DataError, match="connection lost"):
        add_data("kaggle", data=Path("data"))
    assert state(root) == before | {"data.incoming/download/1.archive": b"half"}
