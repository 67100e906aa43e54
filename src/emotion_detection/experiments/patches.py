"""The code that a run really used: the last commit and, as a patch, all that differs from it."""

import codecs
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emotion_detection.decoding.images import HEAD_BYTES, is_picture
from emotion_detection.decoding.images import SUFFIXES as PICTURES
from emotion_detection.decoding.npz import NpzError, open_npz
from emotion_detection.experiments.repository import FORM, git, git_bytes
from emotion_detection.redaction import contains_secret, scrub

MAX_FILE = 5_000_000  # bytes
MAX_TOTAL = 20_000_000  # bytes of all changed files
MAX_PATCH = 50_000_000  # bytes; the patch also contains what was removed
LOCKS = ":(top,exclude,glob)**/dvc.lock"  # DVC rewrites them while a pipeline runs
NOTE = "# "  # starts the lines of a patch that say what is left out; git ignores them
START = b"diff --git "
TEXT_BYTES = 8_000  # git takes a file with a NUL byte among them for binary
ENCODINGS = {  # by the first bytes; that of UTF-32 starts with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Files that may contain pictures, by their names. TypeScript has .ts, too.
PERSONAL = (
    *PICTURES,
    *(".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".m2ts", ".wmv", ".3gp", ".ogv", ".flv"),
    *(".mjpeg", ".mjpg", ".h264", ".h265", ".psd", ".dng", ".pdf", ".parquet", ".npy"),
    *(".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"),
)
# The same by their first bytes: ISO media, Matroska, AVI, MPEG, FLV, ASF, Ogg, zip, gzip, bzip2, xz, zstd, 7z, RAR,
# tar and PDF.
PERSONAL_START = re.compile(
    rb".{4}ftyp|.{4}moov|\x1a\x45\xdf\xa3|RIFF.{4}AVI |\0\0\x01[\xb3\xba]|\x47.{187}\x47|FLV\x01|\x30\x26\xb2\x75|OggS"
    rb"|PK\x03\x04|PK\x05\x06|\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!|.{257}ustar|%PDF",
    re.DOTALL,
)
# A picture inside of a text: the address in a page, a style or Markdown, or the output in a notebook.
INLINE = re.compile(
    r"data:image\\?/[\w.+-]+(?:;[\w=.-]+)*,\s*[\w+/%]{4}|\"image/[\w.+-]+\"\s*:\s*\[?\s*\"[\w+/]{4}", re.IGNORECASE
)
PIXELS = re.compile(r"[^\n]*\bpixels\b[^\n]*\n[^\n]*\d \d")  # a table of faces in the form of FER-2013


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

    Files over 5 MB, files after the first 20 MB, files whose new lines may contain a secret, and files that the commit
    does not have and that may show people are left out.
    """
    commit = git("rev-parse", "HEAD", folder=project)
    root = git("rev-parse", "--show-toplevel", folder=project)
    if not commit or not root:
        return None
    paths = _changed(Path(root))
    kept, left_out = _select(paths, Path(root))
    tree, difference = _difference(kept, Path(root)) if kept else (git("rev-parse", "HEAD^{tree}", folder=project), b"")
    reason = f"{len(difference) / 1e6:.0f} MB" if len(difference) > MAX_PATCH else ""
    if contains_secret(difference):  # in a line that the commit has too
        reason = "they contain the value of a secret"
    if reason:
        tree, difference, left_out = "", b"", (*left_out, f"all changes ({reason})")
    notes = "".join(f"{NOTE}left out: {one}\n" for one in left_out).encode()
    return CodeState(commit, tree, notes + difference, left_out)


def _changed(root: Path) -> list[tuple[str, bool]]:
    """The paths in the repository of all files that differ from the commit, and whether the commit lacks them."""
    listed = git_bytes(
        "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules", "--", ":/",
        LOCKS, folder=root,
    )  # fmt: skip
    entries = [entry for entry in (listed or b"").split(b"\0") if entry]
    return [(os.fsdecode(entry[3:]), entry[:2] == b"??" or b"A" in entry[:2]) for entry in entries]


def _select(paths: Sequence[tuple[str, bool]], root: Path) -> tuple[list[str], tuple[str, ...]]:
    """The paths that a patch may contain, and what it leaves out."""
    kept, left_out, total = [], [], 0
    for path, is_new in paths:
        file = root / path
        size = file.stat().st_size if file.is_file() and not file.is_symlink() else 0
        reason = _reason(file, size, total + size) or (_fault(path, file, is_new=is_new) if size else "")
        if reason:
            left_out.append(scrub(f"{ascii(path)[1:-1]} ({reason})"))
        else:
            kept.append(path)
            total += size
    return kept, tuple(left_out)


def _reason(file: Path, size: int, total: int) -> str:
    """Why a patch cannot contain a file, whatever is in it; "" if it can."""
    if size > MAX_FILE or total > MAX_TOTAL:
        return f"{size / 1e6:.1f} MB"
    if file.is_dir() and not file.is_symlink():
        return "a repository of its own"
    return ""


def _fault(path: str, file: Path, *, is_new: bool) -> str:
    """Why a patch must not contain what is in a file; "" if it may."""
    try:
        content = file.read_bytes()
    except OSError:
        return "it cannot be read"
    if is_new and _may_show_people(file, content):
        return "may show people"
    return "its new lines may contain a secret" if _may_contain_secret(path, file, content) else ""


def _may_show_people(file: Path, content: bytes) -> bool:
    """Whether a file is a picture, a video or an archive, or contains pictures."""
    if file.suffix.lower() == ".npz":
        return _has_pictures(file)
    if file.name.lower().endswith(PERSONAL) or PERSONAL_START.match(content):
        return True
    text = _text(content)
    if text is None:
        return is_picture(content[:HEAD_BYTES])
    return is_picture(content[:HEAD_BYTES]) or bool(INLINE.search(text) or PIXELS.match(text[:TEXT_BYTES]))


def _has_pictures(file: Path) -> bool:
    """Whether an npz file has an array of pictures, or cannot be read. Weights and soft labels have none."""
    try:
        with open_npz(file) as arrays:
            return any(one.dtype == "uint8" and len(one.shape) > 2 for one in arrays.headers.values())
    except (OSError, NpzError, ValueError):
        return True


def _text(content: bytes) -> str | None:
    """The text of a file; None if git takes it for binary. PowerShell writes UTF-16."""
    encoding = next((name for mark, name in ENCODINGS.items() if content.startswith(mark)), "")
    if not encoding and b"\0" in content[:TEXT_BYTES]:
        return None
    return content.decode(encoding or "utf-8", errors="replace")


def _may_contain_secret(path: str, file: Path, content: bytes) -> bool:
    text = _text(content)
    if text is None:  # a pattern of a secret would be found in any large binary file
        return contains_secret(content)
    old = git_bytes("show", f"HEAD:{path}", folder=file.parent) or b""
    known = set((_text(old) or "").splitlines())
    new = "\n".join(line for line in text.splitlines() if line not in known)
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
