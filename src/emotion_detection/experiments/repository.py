"""Git commands that never fail: a run is recorded also without git, outside of a repository and without a commit."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

# Another git may run at the same time. The user's options of a patch could make one that does not apply.
QUIET = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_DIFF_OPTS": ""}
FORM = (  # of a patch, whatever the settings of the user are
    *("--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames"),
    *("--src-prefix=a/", "--dst-prefix=b/", "-U3", "--submodule=short"),
)


def git_bytes(
    *arguments: str, folder: Path | None = None, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> bytes | None:
    """The output of a git command in `folder`; None if it failed."""
    everything = {**os.environ, **QUIET, **(env or {})}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, input=stdin, env=everything, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def git(*arguments: str, folder: Path | None = None) -> str:
    """The output of a git command as text; "" if it failed."""
    return (git_bytes(*arguments, folder=folder) or b"").decode(errors="replace").strip()


def has_commit(commit: str, folder: Path | None = None) -> bool:
    """Whether the repository has this commit."""
    return bool(commit) and git_bytes("cat-file", "-e", f"{commit}^{{commit}}", folder=folder) is not None


def resolve_commit(name: str, folder: Path | None = None) -> str:
    """The commit that a name, such as a branch or the start of a hash, stands for; "" if there is none."""
    return "" if name.startswith("-") else git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", folder=folder)


def commit_of_content(path: Path) -> str:
    """The commit that gave a file its present content, whatever its name was then; "" if it has none.

    A file with changes that are not committed has none.
    """
    folder, name = path.parent, f"./{path.name}"
    if git_bytes("diff", "--quiet", "HEAD", "--", name, folder=folder) is None:
        return ""
    return git(
        "log", "--follow", "--find-renames=100%", "--diff-filter=AM", "-1", "--format=%H", "--", name, folder=folder
    )


def experiment_commit(name: str, baseline: str, folder: Path | None = None) -> str:
    """The commit of a DVC experiment, which DVC creates after the run; "" if it was removed."""
    exact = f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}"
    listed = [line.split(" ", 1) for line in git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps/",
              folder=folder).splitlines()]  # fmt: skip
    commits = {ref: commit for commit, ref in listed}
    others = [commit for ref, commit in commits.items() if ref.rpartition("/")[2] == name]
    return commits.get(exact) or (others[0] if len(others) == 1 and not baseline else "")


def experiment_names(commit: str, folder: Path | None = None) -> list[str]:
    """The names of the DVC experiments whose own commit this is."""
    refs = git("for-each-ref", f"--points-at={commit}", "--format=%(refname)", "refs/exps/", folder=folder)
    return [ref.rpartition("/")[2] for ref in refs.splitlines() if ref.count("/") == 4]
