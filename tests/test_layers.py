"""The shape of the house: a module imports from strictly lower layers only, and heavy libraries stay behind walls."""

import ast
from pathlib import Path

import pytest
from tests.imports import PACKAGE, external, internal, modules

STAGES = "adopt data draw_sample prepare train tune teach evaluate register ship"
LAYERS = [
    set(names.split())
    for names in (
        "labels errors replacing anatomy palette trees workers addresses",
        "config dataset members metrics calibration portrait provenance tracking inference faces sources sheets "
        "storages normalization symmetry named",
        "batches architectures devices optimization figures timelines fer_csv pictures synthetic export distillation "
        "canvases registry heatmap card space studies study_figures starts",
        "formats downloads training pretrained guidance search",
        "recognition trials",
        "following drawing readings",
        " ".join(["predict", *(f"stages.{name}" for name in STAGES.split())]),
    )
]

# A library that is slow to load, or that we may want to change for another -> the modules that know it.
WALLS = {
    "filelock": {"tracking"},
    "requests": {"tracking"},
    "cv2": {
        "batches",
        "canvases",
        "drawing",
        "faces",
        "following",
        "pictures",
        "portrait",
        "sources",
        "synthetic",
    },
    "grpc": {"storages"},
    "huggingface_hub": {"downloads"},
    "kagglehub": {"downloads"},
    "keras": {"architectures", "devices", "export", "normalization", "optimization", "symmetry", "training"},
    "matplotlib": {"figures", "sheets", "study_figures", "timelines"},
    "mlflow": {"registry", "tracking"},
    "onnx": {"export", "heatmap", "registry"},
    "onnxruntime": {"heatmap", "inference"},
    "optuna": {"guidance", "search", "storages", "studies", "study_figures", "trials"},
    "psutil": {"studies"},
    "pyarrow": {"pictures", "readings"},
    "pydantic": {"config", "space"},
    "ruamel": {"stages.adopt"},
    "scipy": {"calibration", "metrics"},
    "sklearn": {"metrics"},
    "sqlalchemy": {"addresses", "storages"},
    "tensorflow": {"devices", "normalization"},  # else Keras alone, so that another backend trains with the same code
    "tf2onnx": set(),  # Keras calls it
}
LIGHT = {"numpy", "tqdm", "yaml"}

LINES_PER_FILE = 250
LONGER = {"portrait": 280}  # one drawing, from the relief of a head to the grain of the photograph
# The longest, metrics.evaluate, is one call with thirteen named values.
LINES_PER_FUNCTION = 31

Function = ast.FunctionDef | ast.AsyncFunctionDef


def layer(module: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if module in names)


def function_lines(path: Path) -> dict[str, int]:
    functions = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, Function))
    return {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}


def test_every_module_has_one_layer():
    assert sorted(name for names in LAYERS for name in names) == sorted(modules())


@pytest.mark.parametrize("module", sorted(modules()))
def test_a_module_imports_from_lower_layers_only(module: str):
    wrong = {name for name in internal(modules()[module]) if layer(name) >= layer(module)}
    assert not wrong, f"{module} is in layer {layer(module)} and may not import {sorted(wrong)}"


@pytest.mark.parametrize("library", sorted(WALLS))
def test_a_heavy_library_stays_behind_its_wall(library: str):
    assert {module for module, path in modules().items() if library in external(path)} == WALLS[library]


def test_every_library_is_behind_a_wall_or_light():
    assert set().union(*(external(path) for path in modules().values())) - set(WALLS) == LIGHT


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_importing_a_package_does_nothing(path: Path):
    # dvc.yaml names modules only, so a line of code here would be a dependency that nobody sees.
    (docstring,) = ast.parse(path.read_text()).body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(docstring.value, ast.Constant)


@pytest.mark.parametrize("module", sorted(modules()))
def test_files_and_functions_are_small(module: str):
    path = modules()[module]
    lines = len(path.read_text().splitlines())
    assert lines <= LONGER.get(module, LINES_PER_FILE)
    assert {name: lines for name, lines in function_lines(path).items() if lines > LINES_PER_FUNCTION} == {}


def test_no_allowance_outlives_its_need():
    assert {name for name in LONGER if len(modules()[name].read_text().splitlines()) > LINES_PER_FILE} == set(LONGER)
    assert max(max(function_lines(path).values(), default=0) for path in modules().values()) == LINES_PER_FUNCTION
