"""The imports of each module of the package, read from the source with ast."""

import ast
from functools import cache
from pathlib import Path

from tests.support.paths import PACKAGE


@cache
def modules() -> dict[str, Path]:
    """The file of each module, by its dotted name inside the package. Packages are left out."""
    files = (path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in files}


@cache
def imported(path: Path) -> frozenset[str]:
    """Full dotted names that a file imports, also inside functions."""
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
    names = {name.removeprefix(prefix) for name in imported(path) if name.startswith(prefix)}
    return {module for module in modules() if any(f"{name}.".startswith(f"{module}.") for name in names)}


def reached(module: str, *, not_through: str = "") -> set[str]:
    """A module and all modules that it imports, directly or indirectly; not what only this package imports."""
    seen: set[str] = set()
    waiting = {module}
    while waiting:
        seen |= waiting
        followed = {name for name in waiting if not (not_through and name.startswith(f"{not_through}."))}
        waiting = {below for name in followed for below in internal(modules()[name])} - seen
    return seen
