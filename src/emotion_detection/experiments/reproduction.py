"""Train a registered version again from what its run has recorded, and compare the two models."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from filelock import FileLock, Timeout
from packaging.requirements import InvalidRequirement, Requirement

from emotion_detection.config import flatten, same_setting
from emotion_detection.decoding.yaml_text import read_yaml
from emotion_detection.errors import DataError, EmotionDetectionError, StoreError, shorten
from emotion_detection.experiments import dvc_data
from emotion_detection.experiments.environment import LOCK, environment, environment_differences
from emotion_detection.experiments.lineage import read_bytes
from emotion_detection.experiments.patches import applies, apply, code_state
from emotion_detection.experiments.provenance import PATCH
from emotion_detection.experiments.references import read_runs
from emotion_detection.experiments.repository import git, git_bytes
from emotion_detection.experiments.store_location import sqlite_uri

STAGES = ("prepare", "train")
SECTIONS = ("prepare.", "train.")  # of params.yaml, which determine the model
LAYOUT_OPERATIONS = {"Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
MOST_NAMED = 4
SEED, SCORE = "train.seed", "val_macro_f1"
REMOTE_URL = re.compile(
    r"""^(?P<key>\s*url\s*=\s*)(?P<quote>["']?)(?P<url>[^"'#\n]+?)(?P=quote)[ \t]*(#.*)?$""", re.MULTILINE
)
PREFIX, WORKTREE, LOCK_FILE = "reproduce-", "project", "reproduce.lock"  # of a temporary checkout
Describe = Callable[[Path, Path], str]
NO_HOOKS = ("-c", f"core.hooksPath={os.devnull}")


@dataclass(frozen=True)
class Finding:
    """Something that stands between a version and its reproduction."""

    subject: str  # code, data, params, parents, libraries or machine
    text: str
    blocks: bool = False
    """Whether the training cannot start. Otherwise its result may differ."""


def check_record(record: Mapping[str, Any], project: Path) -> list[Finding]:
    """What the record of a version lacks: its commit or its changes."""
    code = record["code"]
    if code is None:
        return [Finding("code", "the version has no recorded commit", blocks=True)]
    if not code["is_here"]:
        return [Finding("code", f"this repository does not have the commit {code['commit']}: fetch it", blocks=True)]
    release, run = record["release"], record["run"]
    if release and (run is None or run["id"] != release.get("run_id")):  # the store does not have its training
        recipe = f"train with its recipe, {release.get('recipe')}: `make adopt` and `make repro`"
        return [Finding("code", f"the shipped model was made before its commit: {recipe}", blocks=True)]
    if run is None:
        return [Finding("code", "the version has no run, which would have the changes and the settings", blocks=True)]
    patch = read_bytes(run["id"], PATCH)
    if code["dirty"] and not patch:
        text = f"files differed from the commit {code['commit']}, and the run does not have the changes"
        return [Finding("code", text, blocks=True)]
    if not applies(patch or b"", code["commit"], project):
        return [Finding("code", f"the recorded changes do not fit the commit {code['commit']}", blocks=True)]
    return [Finding("code", f"the recorded changes lack {'; '.join(code['left_out'])}")] if code["left_out"] else []


@contextmanager
def checkout(record: Mapping[str, Any], project: Path) -> Iterator[Path]:
    """A temporary worktree with the code of a version: its commit and its changes. It shares DVC's cache.

    First it removes those of processes that were killed. Raises StoreError if git cannot make it.
    """
    _remove_abandoned(project)
    commit, patch = record["code"]["commit"], read_bytes(record["run"]["id"], PATCH) or b""
    with (
        tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name,
        FileLock(Path(name).resolve() / LOCK_FILE),
    ):
        folder = Path(name).resolve() / WORKTREE
        try:
            added = git_bytes(*NO_HOOKS, "worktree", "add", "--detach", "--force", str(folder), commit, folder=project)
            if added is None or not apply(patch, folder):
                raise StoreError(
                    f"git cannot check out {commit} with the changes of its run: check `git worktree list`"
                )
            yield folder / git("rev-parse", "--show-prefix", folder=project)
        finally:
            _remove_worktree(folder, project)


def _remove_worktree(folder: Path, project: Path) -> None:
    """Remove a worktree with its entry in the repository, also one that git has not completed and so has locked."""
    git_bytes("worktree", "remove", "--force", "--force", str(folder), folder=project)


def _remove_abandoned(project: Path) -> None:
    """Remove the checkouts of this repository whose process was killed. One that runs holds its lock."""
    for line in git("worktree", "list", "--porcelain", folder=project).splitlines():
        folder = Path(line.removeprefix("worktree "))
        is_own = folder.name == WORKTREE and folder.parent.name.startswith(PREFIX)
        if is_own and (folder.parent / LOCK_FILE).is_file():
            with suppress(OSError, Timeout), FileLock(folder.parent / LOCK_FILE, timeout=0):
                _remove_worktree(folder, project)
                shutil.rmtree(folder.parent, ignore_errors=True)


def preflight(
    record: Mapping[str, Any], folder: Path, project: Path, *, describe: Describe = lambda *_: ""
) -> list[Finding]:
    """What can be known before the training: code, data, params, parents, libraries and machine, in this order.

    folder: the checkout of the version. project: the project with the data and DVC's cache. describe: says how the
    faces of two sources, the recorded data and that of the project, differ.
    """
    return [
        *_check_code(record["code"], folder),
        *_check_data(record["data"] or {}, folder, project, describe),
        *_check_params(record["params"] or {}, folder, project),
        *_check_parents(record["parents"], folder, project),
        *_check_libraries(folder),
        *_check_machine(record["environment"], folder),
    ]


def _check_code(code: Mapping[str, Any], folder: Path) -> list[Finding]:
    """Compare the tree of the checkout with the recorded one, where the patch is complete."""
    state = code_state(folder)
    if not code.get("tree") or code["left_out"] or state is None or state.tree == code["tree"]:
        return []
    return [Finding("code", f"the checkout has the tree {state.tree} instead of {code['tree']}")]


def _check_data(data: Mapping[str, Any], folder: Path, project: Path, describe: Describe) -> list[Finding]:
    md5, cache = data.get("dvc_md5"), dvc_data.cache_folder(project)
    if not md5:
        return [Finding("data", "the MD5 of the data is not recorded", blocks=True)]
    findings = []
    changes = dvc_data.find_changes(md5, cache, project / "data")
    damage = dvc_data.find_damage(md5, cache)
    if changes:
        faces = "" if damage else _changed_faces(md5, cache, project / "data", describe)
        text = f"data/ has changed since the training ({changes}{faces}); the recorded data is used"
        findings.append(Finding("data", text))
    if not damage:
        return findings
    sources = [source for source in (folder / "sample", project / "data") if source.is_dir()]
    found = next((source for source in sources if dvc_data.folder_md5(source) == md5), None)
    text = f"DVC's cache has no complete data {md5} ({damage})"
    if found is None and not dvc_data.has_remote(project):
        return [*findings, Finding("data", f"{text}: restore it, or add a DVC remote that has it", blocks=True)]
    return [*findings, Finding("data", f"{text}; {found.name if found else 'a DVC remote'} is used instead")]


def _changed_faces(md5: str, cache: Path, data: Path, describe: Describe) -> str:
    with tempfile.TemporaryDirectory() as name:
        dvc_data.link_recorded(md5, cache, Path(name))
        described = describe(Path(name), data)
    return f": {described}" if described else ""


def _check_params(params: Mapping[str, Any], folder: Path, project: Path) -> list[Finding]:
    """Compare the settings of the run with those of the checkout, which count, and with those of the project."""
    then = {key: value for key, value in params.items() if key.startswith(SECTIONS)}
    if not then:
        return [Finding("params", "the settings of the run are not recorded")]
    try:
        in_commit, now = (_different_settings(then, place / "params.yaml") for place in (folder, project))
    except EmotionDetectionError as error:
        return [Finding("params", f"the settings cannot be compared ({shorten(error)})")]
    if in_commit:
        return [Finding("params", f"params.yaml of the commit differs from the run: {in_commit}", blocks=True)]
    used = "the recorded settings are used"
    return [Finding("params", f"params.yaml has changed since the training ({now}); {used}")] if now else []


def _different_settings(then: Mapping[str, Any], path: Path) -> str:
    """The settings of a run that differ in a params.yaml, also in one of an earlier version of the project."""
    tree = read_yaml(path)
    sections = {name: tree.get(name) for name in STAGES} if isinstance(tree, dict) else {}
    here = flatten({name: section for name, section in sections.items() if isinstance(section, dict)})
    different = [
        f"{key} was {value} and is {here.get(key, 'missing')}"
        for key, value in sorted(then.items())
        if key not in here or not same_setting(key.removeprefix("train."), here[key], value)
    ]
    rest = f" and {len(different) - MOST_NAMED} more" if len(different) > MOST_NAMED else ""
    return f"{', '.join(different[:MOST_NAMED])}{rest}"


def _as_stored(value: Any) -> Any:
    """A setting as MLflow stores it: a list is a tuple in the models of config.py."""
    return tuple(_as_stored(one) for one in value) if isinstance(value, list) else value


def _check_parents(parents: list[dict[str, Any]], folder: Path, project: Path) -> list[Finding]:
    """Check the files that the training uses, and copy those that git does not track."""
    from emotion_detection.experiments.parents import describe_parent

    findings = []
    for parent in parents:
        if not _is_inside(parent.get("path"), folder):
            findings.append(Finding("parents", f"{shorten(ascii(parent.get('path')))} is no file of the project", True))
            continue
        expected = parent.get("sha256")
        here = describe_parent(parent["kind"], parent["path"], folder)["sha256"]
        original = project / parent["path"]
        if here is None and describe_parent(parent["kind"], parent["path"], project)["sha256"] == expected and expected:
            (folder / parent["path"]).parent.mkdir(parents=True, exist_ok=True)
            (folder / parent["path"]).write_bytes(original.read_bytes())
        elif here is None:
            findings.append(Finding("parents", f"{parent['path']} is missing (SHA-256 {expected}): restore it", True))
        elif expected and here != expected:
            findings.append(Finding("parents", f"{parent['path']} has another content (SHA-256 {here})", True))
    return findings


def _is_inside(path: object, folder: Path) -> bool:
    """Whether a recorded path, which anyone who writes to the store can choose, is below a folder."""
    if not isinstance(path, str):
        return False
    try:
        return (folder / path).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # RuntimeError: links in a circle
        return False


def _check_libraries(folder: Path) -> list[Finding]:
    """Compare the installed packages with the requirements.lock of the checkout."""
    path = folder / LOCK
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    different = [difference for line in lines if (difference := _difference(line))]
    rest = f" and {len(different) - MOST_NAMED} more" if len(different) > MOST_NAMED else ""
    text = f"other versions are installed than in the run's {LOCK}: {', '.join(different[:MOST_NAMED])}{rest}"
    return [Finding("libraries", text)] if different else []


def _difference(line: str) -> str:
    """How the installed version of a locked package differs; "" for a package that is not installed here."""
    try:
        wanted = Requirement(line)
        installed = version(wanted.name)
    except (InvalidRequirement, PackageNotFoundError):
        return ""
    applies_here = wanted.marker is None or wanted.marker.evaluate()
    fits = wanted.specifier.contains(installed, prereleases=True)
    return f"{wanted.name} {installed} (not {wanted.specifier})" if applies_here and not fits else ""


def _check_machine(then: Any, folder: Path) -> list[Finding]:
    if not isinstance(then, Mapping):
        return [Finding("machine", "the environment of the run is not recorded, so another CPU is not noticed")]
    return [Finding("machine", text) for text in environment_differences(dict(then), environment(folder))]


def train_again(folder: Path, project: Path, md5: str) -> None:
    """Run the stages prepare and train in a checkout, with an MLflow store of its own and without DVC's results.

    Raises DataError if the data cannot be restored, or if a stage fails.
    """
    # The remotes of today: the commit may be older than they are, and DVC refuses the secrets of a remote without one.
    for settings in (project / ".dvc" / "config", project / ".dvc" / "config.local"):
        if settings.is_file():
            (folder / ".dvc").mkdir(exist_ok=True)
            copy = Path(shutil.copy(settings, folder / ".dvc"))
            copy.write_text(_with_absolute_urls(settings), encoding="utf-8")
    _dvc(folder, "config", "--local", "cache.dir", str(dvc_data.cache_folder(project).resolve()))
    _restore_data(folder, project, md5)
    for stage in STAGES:
        # Without --single-item, --force would also repeat the import of the data.
        _dvc(folder, "repro", "--force", "--single-item", "--no-run-cache", "--no-commit", stage)


def _with_absolute_urls(settings: Path) -> str:
    """The text of a configuration of DVC. The paths of its remotes are relative to its folder."""

    def resolve(found: re.Match[str]) -> str:
        url = found["url"]
        is_relative = "://" not in url and not Path(url).expanduser().is_absolute()
        return f'{found["key"]}"{(settings.parent / url).resolve()}"' if is_relative else found[0]

    return REMOTE_URL.sub(resolve, settings.read_text(encoding="utf-8"))


def _restore_data(folder: Path, project: Path, md5: str) -> None:
    """Bring the raw data into a checkout: from DVC's cache, a remote, their source, or the project's data/."""
    data = folder / "data"
    for command in ("checkout", "pull", "repro"):
        _dvc(folder, command, "data.dvc", required=False)
        if data.is_dir() and dvc_data.folder_md5(data) == md5:
            return
    original = project / "data"
    if not original.is_dir() or dvc_data.folder_md5(original) != md5:
        raise DataError(f"DVC cannot restore the data {md5}: add a DVC remote that has it, or restore DVC's cache")
    shutil.rmtree(data, ignore_errors=True)
    shutil.copytree(original, data)


def outputs(folder: Path) -> dict[str, Path]:
    """The model, the prepared faces and their report in a checkout after the training, by the flags of the stages."""
    commands = (str(read_yaml(folder / "dvc.yaml")["stages"][stage]["cmd"]) for stage in STAGES)
    words = " ".join(commands).split()
    flags = {flag: folder / value for flag, value in itertools.pairwise(words) if flag.startswith("--")}
    return {"model": flags["--model"] / "model.onnx", "faces": flags["--faces"], "report": flags["--report"]}


def _dvc(folder: Path, *arguments: str, required: bool = True) -> int:
    """Run DVC in a checkout. What it prints goes to stderr."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_", "GIT_"))}
    env = inherited | {
        "MLFLOW_TRACKING_URI": sqlite_uri(folder / "mlflow.db"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    command = [sys.executable, "-m", "dvc", *arguments]
    status = subprocess.run(command, cwd=folder, env=env, stdout=2, check=False).returncode
    if status and required:
        raise DataError(f"`dvc {' '.join(arguments)}` failed in the checkout of the version: the lines above say why")
    return status


def seed_scores(record: Mapping[str, Any]) -> list[float]:
    """val_macro_f1 of all finished runs in the store with the data and the settings of a version, and any seed."""
    settings = {key: str(_as_stored(value)) for key, value in (record["params"] or {}).items()}
    wanted = {key: value for key, value in settings.items() if key.startswith("train.") and key != SEED}
    digest = (record["data"] or {}).get("digest")
    if not wanted or not digest:
        return []
    found = read_runs(f"tags.dataset_digest = '{digest}' and attributes.status = 'FINISHED'")
    alike = [run.data for run in found if wanted.items() <= run.data.params.items()]
    by_seed = {run.params.get(SEED): run.metrics[SCORE] for run in alike if SCORE in run.metrics}
    return sorted(by_seed.values())


def weight_difference(first: Path, second: Path) -> str:
    """How the weights of two ONNX files differ; "" if they are exactly the same.

    The names of helper arrays contain numbers that differ between two exports of one network, as does their order. So
    the contents are compared without names, and then by the names of the layers to say what differs. Two exports can
    also differ in LAYOUT_OPERATIONS and in the shapes that these have as integer arrays: about one export in 60 by
    tf2onnx 1.17 keeps a transposition of a single pixel. So these operations and all integer arrays are left out.
    """
    models = [onnx.load(path, load_external_data=False) for path in (first, second)]
    operations = [Counter(node.op_type for node in model.graph.node) for model in models]
    if any(operations[0][name] != operations[1][name] for name in set().union(*operations) - LAYOUT_OPERATIONS):
        return "the networks have other operations"
    arrays = [_float_arrays(model.graph) for model in models]
    contents = [Counter((array.shape, array.dtype.str, array.tobytes()) for _, array in found) for found in arrays]
    if contents[0] == contents[1]:
        return ""
    layers = [{name: array.astype(np.float64) for name, array in found if "__" not in name} for found in arrays]
    shapes = [{name: array.shape for name, array in found.items()} for found in layers]
    if shapes[0] != shapes[1]:
        return "the networks have other layers"
    changes = [np.abs(layers[0][name] - layers[1][name]).max(initial=0) for name in layers[0]]
    different = sum(change != 0 for change in changes)
    return f"{different} of {len(changes)} arrays of weights differ, by up to {max(changes, default=0):.3g}"


def _float_arrays(graph: onnx.GraphProto) -> list[tuple[str, np.ndarray]]:
    arrays = [(one.name, onnx.numpy_helper.to_array(one)) for one in graph.initializer]
    return [(name, array) for name, array in arrays if np.issubdtype(array.dtype, np.floating)]
