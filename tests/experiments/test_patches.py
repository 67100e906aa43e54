"""The patch of a run makes the tree that really ran, and contains neither large files nor secrets."""

import io
import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image
from tests.support.repositories import commit_all, git

from emotion_detection.experiments import patches
from emotion_detection.experiments.patches import MAX_FILE, CodeState, applies, apply, left_out

NOTHING = CodeState("", "", b"", ())  # stands for None
SECRET = "correct-horse-battery"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "project"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "code.py").write_text("first = 1\n\n\n\nlast = 2\n")
    (folder / "old.txt").write_text("old\n")
    (folder / "dvc.lock").write_text("schema: '2.0'\n")
    (folder / ".gitignore").write_text("/build/\n*.log\n")
    commit_all(folder)
    return folder


def code_state(folder) -> CodeState:
    return patches.code_state(folder) or NOTHING


def change(folder):
    """Changed, removed, staged, untracked, binary and renamed files, and names that need quotes."""
    (folder / "src" / "code.py").write_text("first = 1\n\n\n\nlast = 3\n")
    (folder / "old.txt").rename(folder / "rénamed file.txt")
    (folder / "new").mkdir()
    (folder / "new" / "weights.bin").write_bytes(bytes(range(256)) * 40)
    (folder / "new" / "latin.txt").write_bytes("gr\xfc\xdfe\n".encode("latin-1"))
    (folder / "staged.py").write_text("staged\n")
    git(folder, "add", "staged.py")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)


def tree_of(folder):
    return git(folder, "rev-parse", "HEAD^{tree}")


def test_clean_tree_has_no_patch(repository):
    state = code_state(repository)
    assert (state.patch, state.left_out, state.tree) == (b"", (), tree_of(repository))
    assert state.commit == git(repository, "rev-parse", "HEAD")
    assert applies(b"", state.commit, repository)


def test_patch_applied_to_its_commit_gives_the_recorded_tree(repository, tmp_path):
    change(repository)
    state = code_state(repository)
    assert state.left_out == ()
    assert applies(state.patch, state.commit, repository)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(repository), str(clone))
    assert apply(state.patch, clone)
    commit_all(clone)
    assert tree_of(clone) == state.tree != tree_of(repository)
    assert (clone / "new" / "weights.bin").read_bytes() == (repository / "new" / "weights.bin").read_bytes()
    assert not (clone / "old.txt").exists()


def test_recording_leaves_the_repository_as_it_is(repository):
    change(repository)
    objects = sorted(path.name for path in (repository / ".git" / "objects").rglob("*"))
    index, status = (repository / ".git" / "index").read_bytes(), git(repository, "status", "--porcelain")
    code_state(repository)
    assert sorted(path.name for path in (repository / ".git" / "objects").rglob("*")) == objects
    assert (repository / ".git" / "index").read_bytes() == index
    assert git(repository, "status", "--porcelain") == status


def test_ignored_files_and_dvc_lock_are_not_in_the_patch(repository):
    (repository / "build").mkdir()
    (repository / "build" / "faces.npz").write_bytes(b"1")
    (repository / "train.log").write_text("1")
    (repository / "dvc.lock").write_text("schema: '3.0'\n")
    (repository / "src" / "dvc.lock").write_text("schema: '3.0'\n")  # of another pipeline
    state = code_state(repository)
    assert (state.patch, state.tree) == (b"", tree_of(repository))


def test_large_file_is_left_out_and_named(repository):
    (repository / "film.bin").write_bytes(bytes(MAX_FILE + 1))
    (repository / "small.py").write_text("small\n")
    state = code_state(repository)
    assert state.left_out == ("film.bin (5.0 MB)",)
    assert left_out(state.patch) == ["film.bin (5.0 MB)"]
    assert b"small.py" in state.patch
    assert len(state.patch) < 10_000
    assert applies(state.patch, state.commit, repository)


def test_patch_with_only_left_out_files_applies(repository):
    (repository / "film.bin").write_bytes(bytes(MAX_FILE + 1))
    state = code_state(repository)
    assert applies(state.patch, state.commit, repository)
    assert apply(state.patch, repository)


@pytest.mark.parametrize(
    "content", [f"key = '{SECRET}'\n".encode(), b"\0" + SECRET.encode(), b"api_key: abcdef123456\n"], ids=repr
)
def test_file_with_a_secret_is_left_out_and_named(repository, monkeypatch, content):
    monkeypatch.setenv("SERVICE_TOKEN", SECRET)
    (repository / "settings.txt").write_bytes(content)
    (repository / "other.py").write_text("other\n")
    state = code_state(repository)
    assert state.left_out == ("settings.txt (its new lines may contain a secret)",)
    assert b"other.py" in state.patch
    assert SECRET.encode() not in state.patch
    assert b"abcdef123456" not in state.patch


@pytest.mark.parametrize(
    "content",
    [b"x" * 9000 + b"\n\0\npassword=hunter2secret\n", "password=hunter2secret\n".encode("utf-16")],
    ids=["late NUL", "UTF-16"],
)
def test_secret_is_found_in_what_only_looks_binary(repository, content):
    (repository / "settings.txt").write_bytes(content)
    state = code_state(repository)
    assert state.left_out == ("settings.txt (its new lines may contain a secret)",)
    assert b"hunter2secret" not in state.patch


def test_binary_file_is_not_searched_for_patterns_of_secrets(repository):
    (repository / "weights.bin").write_bytes(b"\0" * 9000 + b"\npassword=hunter2secret\n")
    assert code_state(repository).left_out == ()


def picture(format_="PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (9, 9)).save(stream, format_)
    return stream.getvalue()


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as writer:
        writer.writestr("face.png", picture())
    return stream.getvalue()


def faces(**arrays) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


PEOPLE = {
    "selfie.jpg": b"1",
    "selfie": picture("JPEG"),
    "clip.MP4": b"1",
    "clip": b"\0\0\0\x18ftypisom" + bytes(20),
    "photos.tar.gz": b"1",
    "photos": archive(),
    "faces.npz": faces(images=np.zeros((2, 48, 48), np.uint8)),
    "faces.csv": b"emotion,pixels,Usage\n0,12 34 56,Training\n",
    "report.html": b'<img src="data:image/png;base64,iVBORw0KGgo=">',
    "windows.html": '<img src="data:image/png;base64,iVBORw0KGgo=">'.encode("utf-16"),
    "page.json": b'{"src": "data:image\\/jpeg;base64,/9j/4AAQ"}',
    "look.ipynb": json.dumps({"outputs": [{"data": {"image/png": "iVBORw0KGgo="}}]}).encode(),
}


@pytest.mark.parametrize("name", PEOPLE)
@pytest.mark.parametrize("staged", [False, True])
def test_new_file_that_may_show_people_is_left_out_and_named(repository, name, staged):
    (repository / name).write_bytes(PEOPLE[name])
    (repository / "other.py").write_text("other\n")
    if staged:
        git(repository, "add", name)
    state = code_state(repository)
    assert state.left_out == (f"{name} (may show people)",)
    assert left_out(state.patch) == [f"{name} (may show people)"]
    assert b"other.py" in state.patch
    assert name.encode() not in state.patch.partition(b"diff --git")[2]
    assert applies(state.patch, state.commit, repository)


def test_code_about_pictures_and_weights_are_kept(repository):
    (repository / "page.py").write_text('f"data:image/png;base64,{text}"\nname = "data:image/png;base64," + text\n')
    (repository / "page.ts").write_text("const page = 1\n")
    (repository / "weights.npz").write_bytes(faces(kernel=np.zeros((3, 3, 1), np.float16)))
    state = code_state(repository)
    assert state.left_out == ()
    assert b"weights.npz" in state.patch


def test_changed_file_of_the_commit_is_kept_with_its_pictures(repository):
    (repository / "page.html").write_text('<img src="data:image/png;base64,iVBORw0KGgo=">\n')
    commit_all(repository)
    (repository / "page.html").write_text('<p>\n<img src="data:image/png;base64,iVBORw0KGgo=">\n')
    assert code_state(repository).left_out == ()


def test_file_that_cannot_be_read_is_named(repository, monkeypatch):
    def refuse(path):
        raise PermissionError(path)

    (repository / "locked.py").write_text("1\n")
    monkeypatch.setattr(type(repository), "read_bytes", refuse)
    assert code_state(repository).left_out == ("locked.py (it cannot be read)",)


@pytest.mark.parametrize(
    "setting",
    [
        "diff.noprefix=true", "diff.mnemonicPrefix=true", "diff.context=0", "diff.renames=copies", "color.ui=always",
        "diff.external=false", "diff.submodule=log", "diff.suppressBlankEmpty=true", "core.quotePath=false",
        "diff.interHunkContext=9", "diff.relative=true", "diff.srcPrefix=x/", "apply.whitespace=error",
    ],
)  # fmt: skip
def test_patch_applies_whatever_the_settings_of_the_user_are(repository, setting):
    change(repository)
    (repository / "src" / "code.py").write_text("first = 1 \n\n\n\nlast = 3\n")
    expected = code_state(repository)
    git(repository, "config", *setting.split("="))
    state = code_state(repository)
    assert state.tree == expected.tree
    assert applies(state.patch, state.commit, repository)


def test_context_of_the_environment_does_not_change_the_patch(repository, monkeypatch):
    change(repository)
    expected = code_state(repository).patch
    monkeypatch.setenv("GIT_DIFF_OPTS", "--unified=0")
    assert code_state(repository).patch == expected


def test_secret_in_an_unchanged_line_empties_the_patch(repository, monkeypatch):
    (repository / "src" / "code.py").write_text(f"first = '{SECRET}'\nlast = 2\n")
    commit_all(repository)
    monkeypatch.setenv("SERVICE_TOKEN", SECRET)
    (repository / "src" / "code.py").write_text(f"first = '{SECRET}'\nlast = 3\n")
    state = code_state(repository)
    assert state.tree == ""
    assert SECRET.encode() not in state.patch
    assert left_out(state.patch) == ["all changes (they contain the value of a secret)"]


def test_large_patch_is_left_out(repository, monkeypatch):
    change(repository)
    monkeypatch.setattr(patches, "MAX_PATCH", 1000)
    state = code_state(repository)
    assert (state.tree, state.left_out) == ("", ("all changes (0 MB)",))
    assert len(state.patch) < 100


def test_nested_repository_is_left_out(repository):
    (repository / "other").mkdir()
    (repository / "other" / "code.py").write_text("1\n")
    commit_all(repository / "other")
    assert code_state(repository).left_out == ("other/ (a repository of its own)",)


def test_project_in_a_folder_of_a_repository_is_recorded(repository):
    (repository / "src" / "dvc.lock").write_text("1\n")
    (repository / "src" / "new.py").write_text("1\n")
    state = code_state(repository / "src")
    assert b"src/new.py" in state.patch
    assert b"dvc.lock" not in state.patch
    assert applies(state.patch, state.commit, repository / "src")


def test_patch_of_another_commit_does_not_apply(repository):
    change(repository)
    state = code_state(repository)
    (repository / "src" / "code.py").write_text("rewritten\n")
    assert not applies(state.patch, commit_all(repository), repository)


def test_no_state_without_git_or_commit(repository, tmp_path, monkeypatch):
    shutil.rmtree(repository / ".git")
    assert code_state(repository) is NOTHING
    git(repository, "init", "-q")
    assert code_state(repository) is NOTHING
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_state(repository) is NOTHING
