"""Where the MLflow store is. Imports no MLflow, so a command can ask in milliseconds."""

import os
from pathlib import Path
from urllib.parse import unquote

DEFAULT = "mlflow.db"  # the store, in the folder of the project


def store_uri() -> str:
    """MLFLOW_TRACKING_URI, or else the project's SQLite file, whatever the working directory is.

    The path of a SQLite file is absolute.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not uri:
        return sqlite_uri(project_folder() / DEFAULT)
    path = sqlite_path(uri)
    return sqlite_uri(path) if path else uri


def is_default_store() -> bool:
    """Whether the store is the project's own SQLite file."""
    path = sqlite_path(store_uri())
    return path is not None and path.resolve() == project_folder() / DEFAULT


def sqlite_uri(path: Path) -> str:
    """The address of a SQLite file. MLflow and Optuna decode it; other characters need no code."""
    return "sqlite:///" + str(path).replace("%", "%25").replace("?", "%3F")


def sqlite_path(uri: str) -> Path | None:
    """The absolute path of a SQLite file; None for another store.

    A queued DVC experiment runs in a temporary copy of the project: a relative path starts in the original, DVC_ROOT.
    """
    scheme, _, rest = uri.partition(":///")
    name = unquote(rest.partition("?")[0])
    if scheme.partition("+")[0] != "sqlite" or name in ("", ":memory:"):
        return None
    return Path(os.path.abspath(Path(os.environ.get("DVC_ROOT") or Path.cwd()) / name))


def store_exists() -> bool:
    """Whether there is a store to ask: a server is assumed to exist, an empty SQLite file is no store."""
    path = sqlite_path(store_uri())
    return path is None or (path.is_file() and path.stat().st_size > 0)


def project_folder() -> Path:
    """The folder with dvc.yaml. A queued DVC experiment runs in a temporary copy; DVC_ROOT names the original."""
    working_directory = Path.cwd()
    candidates = [working_directory, *working_directory.parents, *Path(__file__).resolve().parents]
    projects = (folder for folder in candidates if (folder / "dvc.yaml").exists())
    return Path(os.environ.get("DVC_ROOT") or next(projects, working_directory)).resolve()
