"""The `batch` command: read any number of pictures into parquet files, and continue after an interruption."""

import hashlib
import os
import sys
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from emotion_detection.errors import EmotionDetectionError, MissingPackageError, ModelError, StoreError, UsageError
from emotion_detection.experiments.store_location import store_exists
from emotion_detection.inference.pretrained import CHAMPION, MODEL, MODEL_NAME
from emotion_detection.redaction import scrub

if TYPE_CHECKING:
    from emotion_detection.batch.run import Totals
    from emotion_detection.batch.scoring import Job
    from emotion_detection.batch.storage import Storage

REGISTERED = "models:/"
MAX_PART_SIZE = 1_000_000


@Parameter(name="*")
@dataclass(frozen=True)
class BatchOptions:
    """The source, the output and the engine."""

    source: str
    """A folder of pictures (with all its subfolders), a picture, a zip or tar archive such as a WebDataset shard, a
    parquet file with a column of pictures, or a pattern: 'shards/faces-{000..099}.tar', 'photos/*.zip'. On this machine
    or at any address that fsspec knows, such as s3://bucket/photos."""
    _: KW_ONLY
    out: str
    """Folder to write, on this machine or at an address: part-*.parquet with a row per face, and _bad/ with the
    pictures that cannot be read. The same command continues a folder that is not finished."""
    engine: Literal["local", "ray", "spark"] = "local"
    """local: processes of this machine. ray, spark: the configured cluster, or else this machine."""
    workers: int | None = None
    """Processes; by default one for each core. With spark, a number means processes of this machine."""
    model: str | None = None
    """An .onnx file or models:/NAME@ALIAS; by default the champion of the project's model registry, or the shipped
    model if there is no registry."""
    detector: str = "haar"
    """haar, yunet, or the path of YuNet's .onnx file."""
    faces: Literal["all", "largest"] = "all"
    """Which faces of a picture to read."""
    crops: Annotated[bool, Parameter(negative=())] = False
    """The pictures are faces already, of any size: read each one as it is, and detect nothing."""
    part_size: int = 1000
    """Pictures per part. A part that was interrupted is read again from its start."""


def batch(options: BatchOptions) -> None:
    """Read all faces of a source into parquet files. Repeat the command to continue after an interruption.

    A picture that cannot be read is a row of a side table, and the exit status stays 0.
    """
    _check(options)
    try:
        from emotion_detection.batch.engines import ENGINES, check_engine
        from emotion_detection.batch.run import begin, exclusive, run
        from emotion_detection.batch.scoring import load_recognizer
        from emotion_detection.batch.storage import Storage
    except ModuleNotFoundError as error:
        raise MissingPackageError(error.name or "pyarrow", "batch") from error
    check_engine(options.engine)
    source, out = Storage(options.source), Storage(options.out)
    job = _job(options, source, out)
    load_recognizer(job)  # a wrong file is noticed before the pictures are listed
    settings = {
        "source": str(source),
        "detector": _detector_text(job),
        "faces": options.faces,
        "part_size": options.part_size,
    }
    with exclusive(out):
        manifest = begin(out, source, settings, job.label)
        totals = run(job, manifest, ENGINES[options.engine], options.workers)
    _report(totals, options.out)


def _check(options: BatchOptions) -> None:
    """Raise UsageError for options that contradict each other or are out of range."""
    if options.crops and options.detector != "haar":
        raise UsageError("--crops detects no faces, so it takes no --detector: omit one of the two")
    if not 1 <= options.part_size <= MAX_PART_SIZE:
        raise UsageError(f"--part-size {options.part_size} is not between 1 and {MAX_PART_SIZE:,}: change it")
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers {options.workers} is less than 1: use a number of processes")


def _job(options: BatchOptions, source: "Storage", out: "Storage") -> "Job":
    from emotion_detection.batch.plan import source_folder
    from emotion_detection.batch.scoring import Job
    from emotion_detection.batch.tables import ModelLabel
    from emotion_detection.inference.yunet import yunet_file

    name, version, path = _find_model(options.model)
    content = _read_model(path)
    label = ModelLabel(name, version, hashlib.sha256(content).hexdigest())
    print(f"model: {name}{f' version {version}' if version else ''}, SHA-256 {label.sha256[:12]}", file=sys.stderr)
    detector: Literal["haar", "yunet", "crops"] = "crops" if options.crops else "haar"
    yunet = b""
    if options.detector != "haar":
        detector, yunet = "yunet", _read_model(yunet_file() if options.detector == "yunet" else Path(options.detector))
    # An address may contain a password, so only the workers get it, in memory.
    return Job(
        source=options.source if not source.is_local else source.path,
        folder=source_folder(source).path,
        out=options.out if not out.is_local else out.path,
        label=label,
        model=content,
        detector=detector,
        yunet=yunet,
        faces=options.faces,
    )


def _detector_text(job: "Job") -> str:
    """The detector as the manifest names it: two YuNet files may find different faces."""
    return f"yunet {hashlib.sha256(job.yunet).hexdigest()[:12]}" if job.yunet else job.detector


def _find_model(uri: str | None) -> tuple[str, int | None, Path]:
    """Name, version and file of the model; by default the champion, or the shipped model without a registry."""
    if uri is not None:
        return _registered(uri) if uri.startswith(REGISTERED) else (Path(uri).name, None, Path(uri))
    if store_exists():
        try:
            return _registered(CHAMPION)
        except EmotionDetectionError as error:
            print(f"the shipped model is used, because {' '.join(str(error).split())}", file=sys.stderr)
    return f"{MODEL_NAME} (shipped)", None, MODEL


def _registered(uri: str) -> tuple[str, int, Path]:
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    try:
        from emotion_detection.experiments import registry  # MLflow takes seconds to import
    except ModuleNotFoundError as error:
        raise StoreError(f"the model registry needs the package {error.name}: pip install {error.name}") from error
    version = registry.resolve(uri)
    return version.name, version.number, registry.fetch(f"{REGISTERED}{version.name}/{version.number}")


def _read_model(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): use the path of an .onnx file") from error


def _report(totals: "Totals", out: str) -> None:
    if totals.earlier_parts:
        print(f"{totals.earlier_parts:,} parts were finished before")
    print(
        f"{totals.pictures:,} pictures, {totals.faces:,} faces, {totals.without_face:,} pictures without a face, "
        f"{totals.bad:,} that cannot be read"
    )
    print(f"{scrub(out)} is complete" + ("; its folder _bad says why pictures cannot be read" if totals.bad else ""))
