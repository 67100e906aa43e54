"""Download FER-2013 from two hosts that need no account. Their libraries verify the downloaded files."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from emotion_detection.errors import FORBIDDEN, FULL, DataError, describe_os_error

KAGGLE = "msambare/fer2013"
HUGGINGFACE = "AutumnQiu/fer2013"


def download(source: str, folder: Path) -> Path:
    """Download the data set from one of SOURCES into `folder`, and return the subfolder with its files.

    After an interruption, another call downloads only the missing part. Raises DataError if the download fails.
    """
    fetch, page = SOURCES[source]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return fetch(folder.resolve())
    # The libraries raise errors of their own, of requests and of httpx; each means that the download failed.
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (*FULL, *FORBIDDEN):
            raise DataError(f"cannot download {page}, because {describe_os_error(error)}") from error
        raise DataError(
            f"cannot download {page} from {source} ({_reason(error)}): check the network and repeat the command, "
            "or download the files with a browser and pass their path"
        ) from error


def _kaggle(folder: Path) -> Path:
    with _environment(KAGGLEHUB_CACHE=str(folder)):
        import kagglehub

        return Path(kagglehub.dataset_download(KAGGLE))


def _huggingface(folder: Path) -> Path:
    # The library reads these variables when it is imported. Without Xet, mirrors of the hub work too.
    with _environment(HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_XET="1"):
        import huggingface_hub

        snapshot = huggingface_hub.snapshot_download(
            HUGGINGFACE,
            repo_type="dataset",
            allow_patterns="*.parquet",
            cache_dir=folder,
            endpoint=os.environ.get("HF_ENDPOINT"),
            token=False,  # the data set is public, so the user's token need not be sent
        )
    if not any(Path(snapshot).rglob("*.parquet")):
        raise FileNotFoundError("the data set contains no parquet file")
    return Path(snapshot)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set environment variables temporarily, because the libraries accept these settings only as variables."""
    previous = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _reason(error: BaseException) -> str:
    """Return the HTTP status that the host answered with, or else the first line of the innermost error."""
    while True:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None:
            return f"the host answered {status}"
        cause = error.__cause__ or error.__context__
        if cause is None:
            lines = str(error).splitlines() or [type(error).__name__]
            return lines[0]
        error = cause


SOURCES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "kaggle": (_kaggle, f"https://www.kaggle.com/datasets/{KAGGLE}"),
    "huggingface": (_huggingface, f"https://huggingface.co/datasets/{HUGGINGFACE}"),
}
