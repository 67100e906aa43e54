"""params.yaml as a typed, frozen tree: every number that can change a result, checked before any work."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from emotion_detection.emotions import IMAGE_SIZE
from emotion_detection.errors import InputError

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"is a reversed range: write [{value[1]:g}, {value[0]:g}]")
    return value


Range = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]


def _null_not_none(value: object) -> object:
    if value == "none":
        raise ValueError("is now null instead of none")
    return value


Null = BeforeValidator(_null_not_none)
OptionalPath = Annotated[Annotated[str, Field(min_length=1)] | None, Null]
Balanced = Annotated[Literal["balanced"] | None, Null]
Pruner = Annotated[Literal["median", "halving", "hyperband"] | None, Null]

# Keys of earlier versions and their names today.
RENAMED = {
    "train.start": "train.initial_weights",
    "train.distil": "train.distillation",
    "train.distillation.teacher": "train.distillation.soft_labels",
    "train.finish": "train.final_plain_fraction",
}


class Section(BaseModel):
    # No defaults anywhere: a value that is not in params.yaml could change a result unseen.
    model_config = ConfigDict(frozen=True, extra="forbid")


class Prepare(Section):
    """How a source without an official split is divided; FER-2013's own split is always kept."""

    val_fraction: Fraction
    test_fraction: Fraction


class Augment(Section):
    """Random changes to training faces, drawn afresh for every face and epoch."""

    flip: bool
    shift: Fraction  # of the face's width, each way
    rotate_deg: Annotated[float, Field(ge=0, le=45)]  # each way
    scale: Range  # factor
    brightness: Fraction  # of full white, each way
    contrast: Range  # factor about mid-gray
    erase: Fraction  # probability of one random rectangle, 2-20 % of the area
    mixup: Annotated[float, Field(ge=0)]  # alpha of the Beta distribution that weighs two faces; 0: none


class Distillation(Section):
    """Learning from teachers' probabilities in addition to the labels."""

    soft_labels: OptionalPath  # a file of `emotion-detection soft-labels`
    weight: Annotated[float, Field(ge=0, le=1)]  # of the soft labels; the labels get the rest
    temperature: Positive  # above 1 softens the soft labels

    @model_validator(mode="after")
    def _soft_labels_have_weight(self) -> "Distillation":
        if (self.soft_labels is None) != (self.weight == 0):
            raise ValueError(
                "needs both soft_labels and a weight above 0, or neither "
                f"(soft_labels: {self.soft_labels}, weight: {self.weight:g})"
            )
        return self


class Train(Section):
    seed: Annotated[int, Field(ge=0)]
    initial_weights: OptionalPath  # weights of an earlier training
    architecture: Literal["seed_cnn", "paper_cnn", "mini_xception", "fer_resnet"]
    widths: tuple[Count, ...]  # fer_resnet alone: channels of each stage, even
    blocks: tuple[Count, ...]  # fer_resnet alone: residual blocks of each stage
    stem_stride: Literal[1, 2]  # fer_resnet alone: 2 halves the resolution at once, for a third of the time
    standardize: bool  # fer_resnet alone: each face to mean 0, deviation 1, as light differs from face to face
    dropout: Fraction  # before the last layer
    precision: Literal["auto", "float32", "mixed_bfloat16"]
    epochs: Count
    patience: Count  # epochs without a better val_macro_f1 before training stops
    batch_size: Annotated[int, Field(ge=2, multiple_of=2)]  # even: see batches
    optimizer: Literal["sgd", "adam"]
    momentum: Fraction  # sgd alone, Nesterov's
    learning_rate: Positive  # the peak
    schedule: Literal["constant", "cosine", "one_cycle"]
    warmup: Fraction  # share of all steps that rise linearly to the peak
    # Decoupled; kernels only. Momentum does not amplify it: at 0.9, PyTorch's 5e-4 is 5e-3 here.
    weight_decay: Annotated[float, Field(ge=0)]
    label_smoothing: Fraction
    ema: Fraction  # per-step momentum of the weight average that is validated and kept; 0: none
    class_weight: Balanced
    distillation: Distillation
    final_plain_fraction: Fraction  # share of the epochs, the last ones, with flips and small shifts only
    augment: Augment

    @model_validator(mode="after")
    def _stages_agree(self) -> "Train":
        if not self.widths or len(self.widths) != len(self.blocks):
            raise ValueError(f"needs as many widths as blocks, not {list(self.widths)} and {list(self.blocks)}")
        if any(width % 2 for width in self.widths):
            raise ValueError(f"needs even widths, as half of the channels mirror the others, not {list(self.widths)}")
        if IMAGE_SIZE % (self.stem_stride * 2 ** (len(self.widths) - 1)):
            raise ValueError(f"halves {IMAGE_SIZE} pixels too often: fewer widths and blocks, or stem_stride 1")
        return self


class Evaluate(Section):
    confidence: Annotated[float, Field(gt=0, lt=1)]  # of every interval
    ece_bins: Count


class Register(Section):
    alias: Annotated[str, Field(min_length=1)]
    min_gain: Annotated[float, Field(ge=0)]  # val_macro_f1 over the present holder of the alias


class NumberRange(Section):
    """A range of numbers, whole ones if both ends are."""

    low: int | float
    high: int | float
    log: bool  # every factor is as likely as its equal, as suits a learning rate

    @model_validator(mode="after")
    def _is_a_range(self) -> "NumberRange":
        if self.low >= self.high:
            raise ValueError(f"is an empty or reversed range: low {self.low:g} must lie below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"begins at {self.low:g}: a range with log must lie above 0")
        return self


class Categorical(Section):
    """One of some values."""

    choices: Annotated[tuple[Any, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _differ(self) -> "Categorical":
        if any(choice in self.choices[:at] for at, choice in enumerate(self.choices)):
            raise ValueError("names a choice twice")
        return self


def _kind(dimension: object) -> str:
    given = dimension if isinstance(dimension, dict) else vars(dimension) if isinstance(dimension, Section) else {}
    return "categorical" if "choices" in given else "range"


DIMENSIONS: dict[str | int, type[Section]] = {"range": NumberRange, "categorical": Categorical}
Dimension = Annotated[
    Annotated[NumberRange, Tag("range")] | Annotated[Categorical, Tag("categorical")],
    Discriminator(_kind),  # so that an error speaks of the one that was meant
]


class Tune(Section):
    """The search for better settings of `train`."""

    trials: Count  # finished ones, complete or pruned, in all
    minutes: Annotated[float, Field(ge=0)]  # after these no trial begins; 0: no limit
    epochs: Count  # of a trial
    seed: Annotated[int, Field(ge=0)]
    sampler: Literal["tpe", "random"]
    pruner: Pruner
    space: Annotated[dict[str, Dimension], Field(min_length=1)]  # by keys of train, such as augment.shift


class Params(Section):
    prepare: Prepare
    train: Train
    tune: Tune
    evaluate: Evaluate
    register_: Register = Field(alias="register")  # the bare name is a method of every BaseModel


def load_params(path: Path) -> Params:
    """Read and check params.yaml; InputError names the first wrong key and what is allowed."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    return check_params(tree, str(path))


def load_recipe(path: Path) -> dict[str, Any]:
    """A fragment of params.yaml, of which only the form is checked; InputError names what is wrong with it."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("train", {}), dict):
        raise InputError(f"{path} holds no section: write the settings under `train:`, as params.yaml does")
    return tree


def check_params(tree: object, source: str) -> Params:
    """Check a tree of plain values; `source` is named in the InputError."""
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"{source}: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    # A misspelled key is also a missing one: the misspelling is the cause.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"] if part not in DIMENSIONS)
    if first["type"] == "extra_forbidden":
        if key in RENAMED:
            return f"{key} is now {RENAMED[key]}"
        return f"{key} is not a parameter; allowed here: {', '.join(_fields(first['loc'][:-1]))}"
    if first["type"] == "missing":
        return f"{key} is missing"
    message = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
    return f"{key} {message}" if isinstance(first["input"], dict) else f"{key} {message} (got {first['input']!r})"


def _fields(location: tuple[int | str, ...]) -> list[str]:
    model: Any = Params
    for part in location:
        if isinstance(model, type) and issubclass(model, BaseModel):
            model = _by_name(model)[str(part)]
        else:  # in a space, after the name of a setting comes the kind of its dimension
            model = DIMENSIONS.get(part, model)
    return list(_by_name(model))


def _by_name(section: type[BaseModel]) -> dict[str, Any]:
    """The type of each key as it is written in params.yaml."""
    return {field.alias or name: field.annotation for name, field in section.model_fields.items()}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of a tree by their dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return leaves


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of such leaves."""
    tree: dict[str, Any] = {}
    for key, value in leaves.items():
        *sections, name = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    return tree
