"""What each module of the package imports, read from the source with ast."""

import ast
import sys
from functools import cache
from pathlib import Path

from tests.support.paths import PACKAGE


@cache
def modules() -> dict[str, Path]:
    """Dotted name inside the package -> file; packages themselves are left out."""
    files = (path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in files}


@cache
def imported(path: Path) -> frozenset[str]:
    """Full dotted names that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import in line {node.lineno}: write the full name"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def internal(path: Path) -> set[str]:
    """Modules of the package that a file imports."""
    prefix = "emotion_detection."
    found = {name.removeprefix(prefix) for name in imported(path) if name.startswith(prefix)}
    return {module for module in modules() if any(f"{name}.".startswith(f"{module}.") for name in found)}


def external(path: Path) -> set[str]:
    """Top-level names of the libraries that a file imports, the standard one apart."""
    return {name.split(".")[0] for name in imported(path)} - {"emotion_detection"} - sys.stdlib_module_names


def reached(module: str) -> set[str]:
    """A module and all that it imports, directly or not."""
    seen: set[str] = set()
    waiting = {module}
    while waiting:
        seen |= waiting
        waiting = {below for name in waiting for below in internal(modules()[name])} - seen
    return seen
