"""FER-2013 from the two hosts that give it without an account; both libraries check what they fetched."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from emotion_detection.errors import InputError

KAGGLE = "msambare/fer2013"
HUGGINGFACE = "AutumnQiu/fer2013"


def download(source: str, folder: Path) -> Path:
    """Fetch the data set of one of SOURCES below `folder` and return the folder that holds its files.

    Called again after a break, it fetches only what is missing. InputError if the host does not deliver.
    """
    fetch, page = SOURCES[source]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return fetch(folder.resolve())
    # The libraries raise their own, requests' and httpx' errors: whatever it is, no data came.
    except Exception as error:
        raise InputError(
            f"{source} did not deliver {page} ({_reason(error)}): check the network and run the same command "
            "again, or download the files with a browser and give their path"
        ) from error


def _kaggle(folder: Path) -> Path:
    with _environment(KAGGLEHUB_CACHE=str(folder)):
        import kagglehub

        return Path(kagglehub.dataset_download(KAGGLE))


def _huggingface(folder: Path) -> Path:
    # Read when the library is imported. Without Xet there is one host and one protocol, as on a mirror.
    with _environment(HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_XET="1"):
        import huggingface_hub

        found = huggingface_hub.snapshot_download(
            HUGGINGFACE,
            repo_type="dataset",
            allow_patterns="*.parquet",
            cache_dir=folder,
            endpoint=os.environ.get("HF_ENDPOINT"),
            token=False,  # the data set is public: no reason to show who asks
        )
    if not any(Path(found).rglob("*.parquet")):
        raise FileNotFoundError("the data set holds no parquet file")
    return Path(found)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set variables for a while: the libraries take these settings in no other way."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _reason(error: BaseException) -> str:
    """What the host answered, if it did, else the first line of the innermost error."""
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
