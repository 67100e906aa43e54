"""`make data` puts a data set into data/ and tracks it with DVC; a failure changes nothing."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from dvc.repo import Repo
from tests.support.fer_files import (
    class_members,
    csv_table,
    kaggle_members,
    random_faces,
    write_file,
    write_folder,
    write_zip,
)
from tests.support.vote_files import by_file, fer_plus, random_votes

from emotion_detection.cli import main
from emotion_detection.commands import data as command
from emotion_detection.commands.data import add_data
from emotion_detection.data.formats import OFFICIAL, read_raw, single_file
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


@pytest.fixture
def votes(tmp_path: Path) -> Path:
    """A table of votes for `source`."""
    return write_file(tmp_path / "votes of faces.csv", by_file(list(kaggle_members(FACES)), random_votes(FACES)))


def test_votes_are_tracked_beside_the_source(root, source, votes, capsys):
    add_data(str(source), votes=str(votes), data=Path("data"))
    stored = Path("data/votes/votes of faces.csv")
    assert stored.read_bytes() == votes.read_bytes()
    assert single_file(Path("data")) == Path("data/faces.zip")
    output = capsys.readouterr().out
    assert (
        "votes for 39 of 39 train faces and 12 of 12 val faces; the raters' most frequent choice is the label" in output
    )
    assert "12 rows belong to test faces or to none" in output
    assert "train.votes" in output
    # DVC restores them, and a call without votes removes them.
    shutil.rmtree("data")
    dvc(root, "checkout", "data.dvc")
    assert stored.read_bytes() == votes.read_bytes()
    add_data("data", data=Path("data"))
    assert [path.name for path in Path("data").iterdir()] == ["faces.zip"]
    assert "votes" not in capsys.readouterr().out


@pytest.mark.usefixtures("root")
def test_votes_of_rows_and_folders_of_votes_are_accepted(tmp_path):
    table = write_file(tmp_path / "fer2013.csv", csv_table(FACES))
    write_folder(tmp_path / "fer+", {"votes.csv": fer_plus(FACES, random_votes(FACES)).encode(), "notes": b"words"})
    add_data(str(table), votes=str(tmp_path / "fer+"), data=Path("data"))
    files = sorted(path.as_posix() for path in Path("data").rglob("*") if path.is_file())
    assert files == ["data/fer2013.csv", "data/votes/votes.csv"]
    np.testing.assert_array_equal(read_raw(Path("data")).faces.images, FACES.images)


@pytest.mark.usefixtures("root")
def test_votes_of_faces_without_a_split_are_counted(tmp_path, capsys):
    members = class_members(FACES)
    source = write_zip(tmp_path / "faces.zip", members)
    votes = write_file(tmp_path / "votes.csv", by_file(list(members), random_votes(FACES)))
    main(["data", str(source), "--votes", str(votes)])
    assert "votes for 63 of 63 faces without a split; " in capsys.readouterr().out


@pytest.mark.usefixtures("root")
def test_missing_file_of_votes_is_one_line(source, capsys):
    with pytest.raises(SystemExit) as end:
        main(["data", str(source), "--votes", "gone.csv"])
    assert end.value.code == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "gone.csv does not exist: pass FER+'s fer2013new.csv" in message


def test_source_named_like_the_folder_of_votes_gets_another_name(root, tmp_path, votes):
    source = write_zip(tmp_path / "votes", kaggle_members(FACES))
    add_data(str(source), votes=str(votes), data=Path("data"))
    assert read_raw(root / "data").faces.images.shape == FACES.images.shape


@pytest.mark.parametrize(
    ("rejected", "message"),
    [
        ("gone.csv", "does not exist"),
        ("words.csv", "is no table of votes"),
        ("rows.csv", "names the rows of fer2013.csv"),
        ("shuffled.csv", "% of the faces instead of about 63 %"),
    ],
)
def test_rejected_votes_change_nothing(root, source, rejected, message):
    votes = random_votes(FACES, agreement=1)
    Path("words.csv").write_text("words\n")
    Path("rows.csv").write_text(fer_plus(FACES, votes))
    Path("shuffled.csv").write_text(by_file(list(kaggle_members(FACES)), np.roll(votes, 1, axis=0)))
    before = state(root)
    with pytest.raises(DataError, match=message) as error:
        add_data(str(source), votes=rejected, data=Path("data"))
    assert state(root) == before
    assert rejected in str(error.value)
    assert not Path("data.incoming").exists()


def test_failed_dvc_add_keeps_the_previous_votes(root, source, votes, monkeypatch):
    add_data(str(source), votes=str(votes), data=Path("data"))
    before = state(root)
    run_dvc = command._run_dvc

    def fail(data: Path, *arguments: str) -> str:
        if arguments[0] == "add":
            raise KeyboardInterrupt
        return run_dvc(data, *arguments)

    monkeypatch.setattr(command, "_run_dvc", fail)
    with pytest.raises(KeyboardInterrupt):
        add_data(str(source), data=Path("data"))
    assert state(root) == before


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


# Odd places and interruptions


def test_hidden_file_gets_a_visible_name(root, tmp_path):
    path = write_zip(tmp_path / ".faces.zip", kaggle_members(FACES))
    add_data(str(path), data=Path("data"))
    assert [path.name for path in (root / "data").iterdir()] == ["faces.zip"]
    assert len(read_raw(Path("data")).faces) == len(FACES)


@pytest.mark.parametrize(
    "name", [".zip", "..csv", "desktop.ini", "faces.dvc", "dvc.yaml", "a\nb.zip", "10:30.zip", "ü.zip"]
)
def test_name_of_the_source_is_no_problem_for_dvc(dvc_root, tmp_path, name, monkeypatch):
    monkeypatch.setattr(command, "_run_dvc", lambda *_: "{}")
    add_data(str(write_zip(tmp_path / name, kaggle_members(FACES))), data=Path("data"))
    assert len(read_raw(dvc_root / "data").faces) == len(FACES)
    (path,) = (dvc_root / "data").iterdir()
    assert path.suffix != ".dvc"
    assert not path.name.startswith("dvc.")


def test_folder_whose_name_dvc_takes_for_an_address_is_rejected(root, source):
    before = state(root)
    for name in ("my:data", "s3:", "a@b"):
        with pytest.raises(UsageError, match=f"{name} is not a name for a folder that DVC tracks"):
            add_data(str(source), data=Path(name))
    assert state(root) == before


def test_symbolic_link_is_rejected_before_anything_changes(root, source, tmp_path):
    shutil.move("data", tmp_path / "elsewhere")
    Path("data").symlink_to(tmp_path / "elsewhere")
    before = state(root)
    with pytest.raises(DataError, match="data is a symbolic link, which DVC cannot track: remove the link"):
        add_data(str(source), data=Path("data"))
    assert state(root) == before
    assert Path("data").is_symlink()
    assert len(read_raw(Path("data")).faces) == len(FACES)


def test_mount_point_is_rejected_before_anything_changes(root, source, monkeypatch):
    before = state(root)
    monkeypatch.setattr("os.path.ismount", lambda path: path == Path("data"))
    with pytest.raises(DataError, match="data is a mount point"):
        add_data(str(source), data=Path("data"))
    assert state(root) == before


def test_project_without_git_works(dvc_root, source):
    """GitHub's "Download ZIP" contains no .git."""
    shutil.rmtree(dvc_root / ".git")
    add_data(str(source), data=Path("data"))
    assert [path.name for path in Path("data").iterdir()] == ["faces.zip"]
    assert dvc(dvc_root, "status").strip() == "Data and pipelines are up to date."


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("place", ["shutil.copyfile", "os.replace", "pathlib.Path.mkdir"])
def test_full_or_read_only_disk_changes_nothing(root, source, monkeypatch, number, place):
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "data.incoming/new/faces.zip")

    before = state(root)
    with monkeypatch.context() as patch:
        patch.setattr(place, fail)
        with pytest.raises(DataError, match="data/ remains unchanged, because") as error:
            add_data(str(source), data=Path("data"))
    assert os.strerror(number) in str(error.value)
    assert state(root) == before


def test_incomplete_cache_after_dvc_add_changes_nothing(root, source, monkeypatch):
    """On a full disk, `dvc add` succeeds, but its cache may lack files."""
    run_dvc = command._run_dvc

    def lose_cache(data: Path, *arguments: str) -> str:
        output = run_dvc(data, *arguments)
        if arguments[0] == "add":
            shutil.rmtree(".dvc/cache")
        return output

    before = state(root)
    monkeypatch.setattr(command, "_run_dvc", lose_cache)
    with pytest.raises(DataError, match="DVC could not store the data set: free some space"):
        add_data(str(source), data=Path("data"))
    assert state(root) == before


@pytest.mark.parametrize("present", [True, False])
@pytest.mark.parametrize("killed_at", ["add", "swap", "restore"])
def test_killed_run_is_undone_by_the_next_one(root, source, monkeypatch, present, killed_at):
    """The process ends while it replaces data/ or while it restores data/, without any clean-up."""
    if not present:
        shutil.rmtree("data")
        Path("data.dvc").unlink()
    before, replace_file, run_dvc = state(root), os.replace, command._run_dvc

    class Killed(BaseException):
        pass

    def fail_in_dvc(data: Path, *arguments: str) -> str:
        if arguments[0] != "add":
            return run_dvc(data, *arguments)
        raise KeyboardInterrupt if killed_at == "restore" else Killed

    def fail_in_replace(old: Path, new: Path) -> None:
        if (killed_at == "swap" and new == Path("data")) or (killed_at == "restore" and old.name == "old"):
            raise Killed
        replace_file(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(command, "_run_dvc", fail_in_dvc)
        patch.setattr(os, "replace", fail_in_replace)
        if killed_at != "restore":
            patch.setattr(command, "_restore", lambda *_: None)
        patch.setattr(command, "_remove_temporary", lambda _: None)
        with pytest.raises(Killed):
            add_data(str(source), data=Path("data"))
    assert Path("data.incoming/old").exists()

    with pytest.raises(DataError, match="gone does not exist"):
        add_data("gone", data=Path("data"))
    assert {name: content for name, content in state(root).items() if "incoming" not in name} == before
    assert Path("data").exists() == present
    add_data(str(source), data=Path("data"))
    assert [path.name for path in Path("data").iterdir()] == ["faces.zip"]
    assert not Path("data.incoming").exists()


def test_data_that_dvc_tracked_after_a_kill_are_kept(root, source, monkeypatch):
    """`dvc repro` after the kill uses the new data and tracks them."""

    class Killed(BaseException):
        pass

    def fail(data: Path, *arguments: str) -> str:
        run_dvc(data, *arguments)
        if arguments[0] == "add":
            raise Killed
        return "{}"

    run_dvc = command._run_dvc
    with monkeypatch.context() as patch:
        patch.setattr(command, "_run_dvc", fail)
        patch.setattr(command, "_restore", lambda *_: None)
        with pytest.raises(Killed):
            add_data(str(source), data=Path("data"))
    before = Path("data.dvc").read_bytes()
    with pytest.raises(DataError, match="gone does not exist"):
        add_data("gone", data=Path("data"))
    assert Path("data.dvc").read_bytes() == before
    assert [path.name for path in (root / "data").iterdir()] == ["faces.zip"]
    assert not (root / "data.incoming" / "old").exists()


def test_second_make_data_at_the_same_time_is_rejected(root, source, monkeypatch):
    before = state(root)

    def download(_: str, folder: Path) -> Path:
        with pytest.raises(DataError, match="another `make data` is running in this project"):
            add_data(str(source), data=Path("data"))
        assert state(root).keys() - before.keys() == {"data.incoming/lock"}
        return write_folder(folder, class_members(FACES))

    monkeypatch.setattr(command, "download", download)
    add_data("kaggle", data=Path("data"))
    assert [path.name for path in Path("data").iterdir()] == ["fer2013-kaggle.zip"]


@pytest.mark.parametrize(
    "rejected", ["x" * 5000, "~nobody-has-this-name/x.csv", "a\0b", "/dev/null", "data/sample.zip/x"]
)
def test_impossible_path_is_rejected_in_one_sentence(root, rejected):
    before = state(root)
    with pytest.raises((DataError, UsageError)):
        add_data(rejected, data=Path("data"))
    assert state(root) == before


@pytest.mark.usefixtures("root")
def test_source_in_the_data_folder_is_no_problem():
    before = Path("data/sample.zip").read_bytes()
    for source in ("data", "data/sample.zip"):
        add_data(source, data=Path("data"))
        assert {path.name: path.read_bytes() for path in Path("data").iterdir()} == {"sample.zip": before}


@pytest.mark.usefixtures("root")
def test_notes_are_shown(tmp_path, capsys):
    folder = write_folder(tmp_path / "d", class_members(FACES) | {"README.md": b"words"})
    add_data(str(folder), data=Path("data"))
    assert "1 other file was not read: README.md" in capsys.readouterr().out
