"""The code that a run really used: the last commit and, as a patch, all that differs from it."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emotion_detection.experiments.repository import FORM, git, git_bytes
from emotion_detection.redaction import contains_secret, scrub

MAX_FILE = 5_000_000  # bytes
MAX_TOTAL = 20_000_000  # bytes of all changed files
MAX_PATCH = 50_000_000  # bytes; the patch also contains what was removed
REWRITTEN = "dvc.lock"  # by DVC, while the pipeline runs
NOTE = "# "  # starts the lines of a patch that say what is left out; git ignores them
START = b"diff --git "


@dataclass(frozen=True)
class CodeState:
    """The state of the working tree, without the files that git ignores."""

    commit: str
    tree: str
    """The git tree that the patch makes of the commit. It is not stored in the repository."""
    patch: bytes
    """Lines that name what is left out, and the binary difference; empty for an unchanged tree."""
    left_out: tuple[str, ...]
    """Changed files that the patch does not contain, each with the reason."""


def code_state(project: Path) -> CodeState | None:
    """The code in the folder `project` of a repository, untracked files included; None without a commit.

    Files over 5 MB, files after the first 20 MB, and files whose new lines may contain a secret are left out.
    """
    commit = git("rev-parse", "HEAD", folder=project)
    root = git("rev-parse", "--show-toplevel", folder=project)
    if not commit or not root:
        return None
    paths = _changed(project, Path(root))
    kept, left_out = _select(paths, Path(root))
    tree, difference = _difference(kept, Path(root)) if kept else (git("rev-parse", "HEAD^{tree}", folder=project), b"")
    reason = f"{len(difference) / 1e6:.0f} MB" if len(difference) > MAX_PATCH else ""
    if contains_secret(difference):  # in a line that the commit has too
        reason = "they contain the value of a secret"
    if reason:
        tree, difference, left_out = "", b"", (*left_out, f"all changes ({reason})")
    notes = "".join(f"{NOTE}left out: {one}\n" for one in left_out).encode()
    return CodeState(commit, tree, notes + difference, left_out)


def _changed(project: Path, root: Path) -> list[str]:
    """The paths in the repository of all files that differ from the commit."""
    prefix = git("rev-parse", "--show-prefix", folder=project)
    listed = git_bytes(
        "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules", "--", ":/",
        f":(top,exclude,literal){prefix}{REWRITTEN}", folder=root,
    )  # fmt: skip
    return [os.fsdecode(entry[3:]) for entry in (listed or b"").split(b"\0") if entry]


def _select(paths: Sequence[str], root: Path) -> tuple[list[str], tuple[str, ...]]:
    """The paths that a patch may contain, and what it leaves out."""
    kept, left_out, total = [], [], 0
    for path in paths:
        file = root / path
        size = file.stat().st_size if file.is_file() and not file.is_symlink() else 0
        reason = _reason(path, file, size, total + size)
        if reason:
            left_out.append(scrub(f"{ascii(path)[1:-1]} ({reason})"))
        else:
            kept.append(path)
            total += size
    return kept, tuple(left_out)


def _reason(path: str, file: Path, size: int, total: int) -> str:
    """Why a patch must not contain a file; "" if it may."""
    if size > MAX_FILE or total > MAX_TOTAL:
        return f"{size / 1e6:.1f} MB"
    if file.is_dir() and not file.is_symlink():
        return "a repository of its own"
    if size and _may_contain_secret(path, file):
        return "its new lines may contain a secret"
    return ""


def _may_contain_secret(path: str, file: Path) -> bool:
    try:
        content = file.read_bytes()
    except OSError:  # git cannot read it either
        return False
    if b"\0" in content:  # a pattern of a secret would be found in any large binary file
        return contains_secret(content)
    known = set((git_bytes("show", f"HEAD:{path}", folder=file.parent) or b"").splitlines())
    new = b"\n".join(line for line in content.splitlines() if line not in known).decode(errors="replace")
    return scrub(new) != new


def _difference(paths: Sequence[str], root: Path) -> tuple[str, bytes]:
    """The tree with these changes and its difference from the commit.

    The index and the objects are temporary, so that the repository stays as it is.
    """
    objects = root / git("rev-parse", "--git-path", "objects", folder=root)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "objects").mkdir()
        env = {
            "GIT_INDEX_FILE": str(folder / "index"),
            "GIT_OBJECT_DIRECTORY": str(folder / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(objects),
            "GIT_LITERAL_PATHSPECS": "1",
        }
        git_bytes("read-tree", "HEAD", folder=root, env=env)
        names = b"\0".join(os.fsencode(path) for path in paths)
        options = ("--all", "--ignore-errors", "--pathspec-from-file=-", "--pathspec-file-nul")
        git_bytes("add", *options, folder=root, stdin=names, env=env)
        tree = (git_bytes("write-tree", folder=root, env=env) or b"").decode().strip()
        return tree, git_bytes("diff", *FORM, "HEAD", tree, folder=root, env=env) or b""


def applies(patch: bytes, commit: str, folder: Path) -> bool:
    """Whether the patch of a run can be applied to its commit."""
    if START not in patch:
        return True
    with tempfile.TemporaryDirectory() as name:
        env = {"GIT_INDEX_FILE": str(Path(name) / "index")}
        git_bytes("read-tree", commit, folder=folder, env=env)
        check = ("apply", "--cached", "--check", "--whitespace=nowarn", "-")
        return git_bytes(*check, folder=_root(folder), stdin=patch, env=env) is not None


def apply(patch: bytes, folder: Path) -> bool:
    """Apply the patch of a run to a checkout of its commit; whether it worked."""
    if START not in patch:
        return True
    return git_bytes("apply", "--whitespace=nowarn", "-", folder=_root(folder), stdin=patch) is not None


def _root(folder: Path) -> Path:
    return Path(git("rev-parse", "--show-toplevel", folder=folder) or folder)


def left_out(patch: bytes) -> list[str]:
    """The files that the patch of a run does not contain, each with the reason."""
    start = f"{NOTE}left out: ".encode()
    head = patch.partition(START)[0]
    return [line.removeprefix(start).decode(errors="replace") for line in head.splitlines() if line.startswith(start)]
