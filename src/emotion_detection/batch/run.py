"""A batch: its folder with a manifest, a plan and the tables of the parts, and how it is continued."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from emotion_detection.batch.engines import Engine, Task
from emotion_detection.batch.plan import divide, offsets, source_files, source_folder, write_plan
from emotion_detection.batch.scoring import PLAN, Counts, Job
from emotion_detection.batch.storage import UNFINISHED, Storage
from emotion_detection.batch.tables import ModelLabel, finished_parts, part_name
from emotion_detection.errors import DataError, UsageError

MANIFEST, SUCCESS, LOCK = "_manifest.json", "_SUCCESS", "_lock"
FORMAT = 1
# The settings that can change a row. All parts of a folder have the same ones.
SETTINGS = ("source", "detector", "faces", "part_size")


@dataclass(frozen=True)
class Totals:
    """What this run has read, and how many parts were finished before it."""

    pictures: int = 0
    faces: int = 0
    without_face: int = 0
    bad: int = 0
    parts: int = 0
    earlier_parts: int = 0


def begin(out: Storage, source: Storage, settings: dict[str, Any], label: ModelLabel) -> dict[str, Any]:
    """Return the manifest of the folder; write it with the plan if the folder is new.

    Raises UsageError if the folder contains other files or was begun with other settings or another model, and
    DataError if there are no pictures.
    """
    names = set(out.names()) - {LOCK, UNFINISHED, PLAN}
    if MANIFEST in names:
        manifest = _read_manifest(out)
        _check(out, manifest, settings, label)
        return manifest
    if names:
        raise UsageError(f"{out} contains other files, such as {min(names)}: use a new folder for --out")
    folder = source_folder(source)
    files = source_files(source, folder)
    with out.writing(PLAN) as path:
        parts, pictures = write_plan(divide(folder, files, settings["part_size"]), path)
        if not parts:
            raise DataError(f"{source} contains no pictures, archives or parquet files: use another source")
    manifest = {"format": FORMAT, **settings, "model": asdict(label), "parts": parts, "pictures": pictures}
    with out.writing(MANIFEST) as path:
        path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def _read_manifest(out: Storage) -> dict[str, Any]:
    try:
        with out.open(MANIFEST) as stream:
            manifest: dict[str, Any] = json.load(stream)
        ModelLabel(**manifest["model"])
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{out}/{MANIFEST} is damaged: use a new folder for --out") from error
    if not {"format", *SETTINGS, "parts", "pictures"} <= manifest.keys():
        raise DataError(f"{out}/{MANIFEST} is damaged: use a new folder for --out")
    return manifest


def _check(out: Storage, manifest: dict[str, Any], settings: dict[str, Any], label: ModelLabel) -> None:
    known = manifest["model"]
    if known["sha256"] != label.sha256:
        raise UsageError(
            f"{out} was begun with {_model_text(known)} and cannot be continued with "
            f"{_model_text(asdict(label))}: "
            "pass the first model with --model, or use another folder"
        )
    for key in ("format", *SETTINGS):
        wanted = settings.get(key, FORMAT)
        if manifest[key] != wanted:
            name = key.replace("_", " ")
            raise UsageError(
                f"{out} was begun with the {name} {manifest[key]} and cannot be continued with {wanted}: "
                "repeat the first command, or use another folder"
            )


def _model_text(model: dict[str, Any]) -> str:
    version = f" version {model['version']}" if model["version"] is not None else ""
    return f"{model['name']}{version} (SHA-256 {model['sha256'][:12]})"


def run(job: Job, manifest: dict[str, Any], engine: Engine, workers: int | None) -> Totals:
    """Score the parts that are not finished yet. Each part is written once, in one piece.

    All rows name the model as the first command did, also if the same file has another name or version by now.
    Raises DataError if the engine left a part out.
    """
    job = replace(job, label=ModelLabel(**manifest["model"]))
    out = Storage(job.out)
    finished = finished_parts(out)
    with out.open(PLAN) as stream:
        tasks = [(number, offset) for number, offset in enumerate(offsets(stream)) if number not in finished]
    if tasks:
        out.remove(SUCCESS)
    counts = list(_with_progress(engine(job, tasks, workers), manifest, tasks)) if tasks else []
    missing = set(range(manifest["parts"])) - finished_parts(out)
    if missing:
        raise DataError(f"{out} lacks {len(missing):,} parts, such as {part_name(min(missing))}: repeat the command")
    with out.writing(SUCCESS) as path:
        path.touch()
    sums = {key: sum(getattr(one, key) for one in counts) for key in ("pictures", "faces", "without_face", "bad")}
    return Totals(**sums, parts=len(counts), earlier_parts=manifest["parts"] - len(tasks))


def _with_progress(counts: Iterator[Counts], manifest: dict[str, Any], tasks: Sequence[Task]) -> Iterator[Counts]:
    """Show the pictures, or the parts if the number of pictures is unknown or some were read before."""
    in_pictures = manifest["pictures"] is not None and len(tasks) == manifest["parts"]
    total, unit = (manifest["pictures"], " pictures") if in_pictures else (len(tasks), " parts")
    with tqdm(total=total, unit=unit, disable=None) as bar:
        for one in counts:
            yield one
            bar.update(one.pictures if in_pictures else 1)
            bar.set_postfix_str(f"{one.faces:,} faces, {one.bad:,} bad in the last part", refresh=False)


@contextmanager
def exclusive(out: Storage) -> Iterator[None]:
    """Let one command write to a local folder at a time, and remove what a killed one has left unfinished.

    The lock ends with the process. Raises UsageError if another process has it.
    """
    if not out.is_local:
        yield
        return
    Path(out.path).mkdir(parents=True, exist_ok=True)
    with Path(out.path, LOCK).open("ab") as stream:
        with suppress(ModuleNotFoundError):  # on Windows
            import fcntl

            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    f"another command writes to {out}: wait until it has ended, or use another folder"
                ) from error
            except OSError:  # some network disks have no locks
                pass
        out.remove_unfinished()
        yield
        out.remove_unfinished()
