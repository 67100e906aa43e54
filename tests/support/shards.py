"""Write pictures into archives and parquet files, and read the tables of the batch command."""

import io
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_parquet(path: Path, files: dict[str, bytes], *, nested: bool = False, rows: int = 4) -> Path:
    """A column `image` of bytes, or as Hugging Face writes it, in groups of some rows."""
    cells = [{"bytes": one, "path": name} for name, one in files.items()] if nested else list(files.values())
    table = pa.table({"label": list(range(len(files))), "image": cells})
    pq.write_table(table, path, row_group_size=rows)
    return path


def read(out) -> tuple[list[dict], list[dict]]:
    return pq.read_table(out).to_pylist(), pq.read_table(f"{out}/_bad").to_pylist()
