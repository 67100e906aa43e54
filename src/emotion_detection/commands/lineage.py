"""Print where a model comes from, and what was made from it."""

import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from emotion_detection.errors import UsageError

if TYPE_CHECKING:
    from emotion_detection.plotting.tree import Node

UNKNOWN = "not recorded"
WIDTH = 100
INDENT = 14
RELEASE = ("date", "run_id", "recipe", "parameters", "git_note", "added_in")  # other lines contain the rest
KINDS = {
    "initial_weights": "initial weights", "averaged_weights": "averaged weights",
    "soft_labels": "soft labels", "teacher": "teacher",
}  # fmt: skip
MOST_MOVES = 10


def lineage(
    reference: str,
    /,
    *,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    figure: Path | None = None,
) -> None:
    """Print what is recorded about a model or a run.

    Parameters
    ----------
    reference:
        models:/NAME@ALIAS, models:/NAME/NUMBER, an ONNX file or its SHA-256, a run, a DVC experiment, a commit, or the
        MD5 of the data.
    as_json:
        Print JSON.
    figure:
        A PNG file to write, with the ancestry as a graph.
    """
    if figure is not None and figure.suffix.lower() != ".png":
        raise UsageError(f"--figure is {figure}: use a name that ends with .png")
    from emotion_detection.experiments import lineage as records  # MLflow takes seconds to import
    from emotion_detection.experiments.store_location import project_folder

    record = records.lineage(reference, project_folder())
    if figure is not None:
        from emotion_detection.plotting.tree import draw_tree

        draw_tree(ancestry(record), figure, title=f"Ancestry of {reference}")
    lines = [json.dumps(_finite(record), indent=2, allow_nan=False)] if as_json else format_record(record)
    print("\n".join(lines))


def _finite(value: Any) -> Any:
    """A value with None in place of the numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def format_record(record: Mapping[str, Any]) -> Iterator[str]:
    """The lines for a terminal, without characters that control it."""
    for line in _lines(record):
        yield "".join(one if one.isprintable() else " " * one.isspace() for one in line)


def _lines(record: Mapping[str, Any]) -> Iterator[str]:
    yield _title(record)
    for name, text in (
        ("run", _run(record["run"])),
        ("released", _release(record["release"])),
        ("experiment", _experiment(record["dvc_experiment"])),
        ("command", record["command"]),
        ("code", _code(record["code"])),
        ("data", _data(record["data"])),
        ("environment", _environment(record["environment"])),
        ("params", ", ".join(f"{key} {value}" for key, value in (record["params"] or {}).items())),
    ):
        if text or name not in ("released", "experiment"):
            yield from _entry(name, text or UNKNOWN)
    for split, metrics in (record["metrics"] or {"": {}}).items():
        text = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items())
        yield from _entry(split or "metrics", text or UNKNOWN)
    yield from _entry("evidence", _evidence(record["evidence"]))
    if isinstance(record["shadow"], Mapping) and record["shadow"]:
        yield from _entry("as challenger", _evidence(record["shadow"]))
    yield from _entry("reproduced", _reproduction(record["reproduction"]))
    yield from _family(record)
    yield from _history(record["history"])


def _entry(name: str, text: str) -> list[str]:
    indent = " " * (INDENT + 2)
    return textwrap.wrap(text, WIDTH, initial_indent=f"  {name:<{INDENT}}", subsequent_indent=indent)


def _title(record: Mapping[str, Any]) -> str:
    versions = [f"{one['name']} version {one['version']}{_aliases(one)}" for one in record["versions"]]
    digest = record["onnx_sha256"]
    name = ", ".join(versions) or ("shipped model, not registered" if record["release"] else "not registered")
    return f"{name}, ONNX sha256 {digest}" if digest else name


def _aliases(version: Mapping[str, Any]) -> str:
    return f" ({', '.join(version['aliases'])})" if version["aliases"] else ""


def _run(run: Mapping[str, Any] | None) -> str:
    if run is None:
        return ""
    if run["status"] is None:
        return f"{run['id']}, which this store does not have"
    copied = f", a copy of the run {run['copy_of_run']} of another store" if run["copy_of_run"] else ""
    times = f"{_time(run['started'])} to {_time(run['ended']) if run['ended'] else 'now'}"
    return (
        f"{run['name']} ({run['id']}), {run['status'].lower()}, {times}, on {run['host'] or 'an unknown host'}{copied}"
    )


def _time(moment: str) -> str:
    return f"{moment[:16].replace('T', ' ')} UTC"


def _release(release: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{key} {value}" for key, value in (release or {}).items() if key in RELEASE)


def _experiment(experiment: Mapping[str, Any] | None) -> str:
    if experiment is None:
        return ""
    return f"{experiment['name']}, commit {experiment['commit'] or 'unknown: DVC no longer has the experiment'}"


def _code(code: Mapping[str, Any] | None) -> str:
    if code is None:
        return ""
    parts = [f"commit {code['commit']}"]
    if not code["is_here"]:
        parts.append("which this repository does not have")
    if code["dirty"] or code["patch"]:
        patch = f"in the run's artifact {code['patch']}" if code["patch"] else f"with changes that are {UNKNOWN}"
        parts.append(f"changes {patch}" if code["patch"] else patch)
    if code["left_out"]:
        parts.append(f"without {'; '.join(code['left_out'])}")
    if code["tree"]:
        parts.append(f"tree {code['tree']}")
    return ", ".join(parts)


def _data(data: Mapping[str, Any] | None) -> str:
    if data is None:
        return ""
    faces = ", ".join(f"{count:,} {split}" for split, count in (data["faces"] or {}).items())
    votes = f", labels {data['label_source']}" if data["label_source"] else ""
    digests = f"digest {data['digest'] or UNKNOWN}, DVC md5 {data['dvc_md5'] or UNKNOWN}"
    return f"{data['name'] or UNKNOWN}, {faces or f'number of faces {UNKNOWN}'}{votes}, {digests}"


def _environment(found: Mapping[str, Any] | None) -> str:
    if not isinstance(found, Mapping):
        return ""
    stored = found.get("packages")
    packages = ", ".join(f"{name} {version}" for name, version in (stored if isinstance(stored, dict) else {}).items())
    lock = str(found.get("requirements_lock") or UNKNOWN)[:12]
    machine = ", ".join(str(found.get(key)) for key in ("platform", "cpu"))
    return f"Python {found.get('python')}, {packages}, requirements.lock {lock}, {machine}, {found.get('cores')} cores"


def _evidence(evidence: Any) -> str:
    if not isinstance(evidence, Mapping):
        return UNKNOWN
    return ", ".join(f"{key} {value}" for key, value in evidence.items() if not isinstance(value, dict | list))


def _reproduction(found: Any) -> str:
    if not isinstance(found, Mapping):
        return UNKNOWN
    return ", ".join([str(found.get("verdict")), *map(str, found.get("reasons") or ()), _time(str(found.get("at")))])


def _family(record: Mapping[str, Any]) -> Iterator[str]:
    from emotion_detection.plotting.tree import tree_lines

    branches = ancestry(record).branches
    yield from _entry("parents", "none" if record["params"] else UNKNOWN) if not branches else ["  parents"]
    yield from tree_lines(*branches, indent="    ")
    for child in record["children"]:
        yield from _entry("used by", f"{child['name']} ({child['run_id']})")


def _history(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not entries:
        yield from _entry("aliases", f"history {UNKNOWN}")
    for entry in entries[-MOST_MOVES:]:
        where = f"{entry.get('from') or 'none'} → {entry.get('to') or 'none'}"
        yield from _entry(
            "aliases", f"{_time(entry['at'])} {entry.get('alias')}: {where}, {entry['by']}: {entry.get('why')}"
        )


def ancestry(record: Mapping[str, Any]) -> "Node":
    """The model with its parents, the models that made them, and so on, as a tree."""
    from emotion_detection.plotting.tree import Node

    versions = [f"{one['name']} version {one['version']}{_aliases(one)}" for one in record["versions"]]
    run, data, release = record["run"] or {}, record["data"] or {}, record["release"] or {}
    run_id = str(run.get("id") or release.get("run_id") or "")
    details = [run.get("name") or f"run {run_id[:12] or UNKNOWN}", *([f"data {data['name']}"] if data else [])]
    return Node(
        ", ".join(versions) or ("the shipped model" if release else "not registered"),
        tuple(details),
        _parents(record["parents"]),
    )


def _parents(parents: Sequence[Mapping[str, Any]]) -> "tuple[Node, ...]":
    from emotion_detection.plotting.tree import Node

    return tuple(
        Node(
            f"{KINDS.get(parent['kind'], parent['kind'])} {Path(parent['path']).name}",
            (f"sha256 {parent['sha256'][:12]}" if parent.get("sha256") else "the file is missing", *_notes(parent)),
            tuple(_model(model, has_note=not _notes(parent)) for model in parent["made_by"]),
        )
        for parent in parents
    )


def _notes(parent: Mapping[str, Any]) -> list[str]:
    """What is noted about the only maker of a file: how it made this file. The model can have made others too."""
    makers = parent["made_by"]
    return [str(makers[0]["note"])] if len(makers) == 1 and makers[0].get("note") else []


def _model(model: Mapping[str, Any], *, has_note: bool) -> "Node":
    from emotion_detection.plotting.tree import Node

    named = {"run": model.get("run_id"), "commit": model.get("git_commit"), "sha256": model.get("sha256")}
    details = [f"{key} {value[:12]}" for key, value in named.items() if value]
    details += [str(model[key]) for key in (("recipe", "note") if has_note else ("recipe",)) if model.get(key)]
    title = ", ".join(model.get("versions") or []) or str(model.get("name") or "model")
    return Node(title, tuple(details), _parents(model.get("parents") or []))
