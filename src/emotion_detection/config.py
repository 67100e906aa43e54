"""params.yaml as typed, frozen models: every value that can change a result, validated before any work starts."""

import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from emotion_detection.decoding.yaml_text import read_yaml
from emotion_detection.emotions import IMAGE_SIZE
from emotion_detection.errors import ConfigError, shorten

# Every number has an upper bound, so that a mistyped one is refused at once instead of filling the memory or the disk.
Fraction = Annotated[float, Field(ge=0, lt=1)]
Factor = Annotated[float, Field(gt=0, le=10)]
Count = Annotated[int, Field(ge=1, le=9999)]  # checkpoints have four digits
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # the seeds that NumPy and Keras accept
Width = Annotated[int, Field(ge=1, le=4096)]
Depth = Annotated[int, Field(ge=1, le=64)]

ALIAS = re.compile(r"(?!latest$|v[0-9]+$)[a-z0-9_-]{1,100}", re.IGNORECASE)
LARGEST = 1e9  # number in a range of the search
SMALL_BATCH = 256  # faces
MAX_MEMORY = 64e9  # bytes that the estimate of `Train` allows


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"is a reversed range: write [{value[1]:g}, {value[0]:g}]")
    return value


def check_alias(value: str) -> str:
    """Return an alias of a model. Raises ValueError for one that MLflow refuses: latest, and v1 and the like."""
    if not ALIAS.fullmatch(value):
        raise ValueError("cannot be an alias: use letters, digits, _ and -, and not latest or v1")
    return value


def _finite(value: float) -> float:
    if not -LARGEST <= value <= LARGEST:
        raise ValueError(f"should be between {-LARGEST:g} and {LARGEST:g}")
    return value


Number = Annotated[int | float, AfterValidator(_finite)]
Range = Annotated[tuple[Factor, Factor], AfterValidator(_ordered)]


def _null_not_none(value: object) -> object:
    if value == "none":
        raise ValueError("no longer accepts none: write null")
    return value


def _halving_not_hyperband(value: object) -> object:
    if value == "hyperband":
        raise ValueError(
            "no longer accepts hyperband: use halving, which is the same, because the epochs after the first half "
            "leave room for only one bracket"
        )
    return value


Null = BeforeValidator(_null_not_none)
PathText = Annotated[str, Field(min_length=1, max_length=1000)]
OptionalPath = Annotated[PathText | None, Null]
Balanced = Annotated[Literal["balanced"] | None, Null]
Pruner = Annotated[Literal["median", "halving"] | None, Null, BeforeValidator(_halving_not_hyperband)]

# Keys of earlier versions and their current names.
RENAMED = {
    "train.start": "train.initial_weights",
    "train.distil": "train.distillation",
    "train.distillation.teacher": "train.distillation.soft_labels",
    "train.finish": "train.final_plain_fraction",
    "register.min_gain": "register.confidence, the level of a comparison on the same faces",
}


class Section(BaseModel):
    # No defaults: a value that is missing from params.yaml could change a result unnoticed.
    model_config = ConfigDict(frozen=True, extra="forbid")


class Prepare(Section):
    """Split fractions for a source without an official split. The official split of FER-2013 is always kept."""

    val_fraction: Fraction
    test_fraction: Fraction


class Augment(Section):
    """Random augmentation of the training faces, drawn anew for every face and epoch."""

    flip: bool
    shift: Fraction  # maximum, as a fraction of the face's width, in each direction
    rotate_deg: Annotated[float, Field(ge=0, le=45)]  # maximum, in each direction
    scale: Range  # factor
    brightness: Fraction  # maximum, as a fraction of full white, in each direction
    contrast: Range  # factor around mid-gray
    gamma: Range  # exponent of the gray levels, drawn in log space; above 1 darkens
    gradient: Fraction  # maximum change of light from one side of the face to the other, as a fraction of full white
    blur: Annotated[float, Field(ge=0, le=10)]  # maximum standard deviation of a Gaussian blur, in pixels
    noise: Annotated[float, Field(ge=0, le=64)]  # maximum standard deviation, in gray levels
    jpeg: Fraction  # probability of a JPEG compression of a random quality
    erase: Fraction  # probability of erasing one random rectangle, 2-20 % of the area
    erase_with: Literal["noise", "mean"]  # the mean of the face keeps the face's standardization
    mixup: Annotated[float, Field(ge=0, le=10)]  # alpha of the Beta distribution that weights two faces; 0: off


class Distillation(Section):
    """Training on the probabilities of teacher models in addition to the labels."""

    soft_labels: OptionalPath  # a file written by `emotion-detection soft-labels`
    teachers: Annotated[tuple[PathText, ...], Field(max_length=8)]  # model.onnx files that label every batch
    # The faces that these teachers see: as the student sees them; or "moved", that is flipped, shifted, rotated and
    # scaled, but not yet changed in any other way.
    teachers_see: Literal["augmented", "moved"]
    weight: Annotated[float, Field(ge=0, le=1)]  # of the soft labels; the labels have weight 1 - weight
    temperature: Annotated[float, Field(ge=0.1, le=100)]  # above 1 softens the soft labels

    @model_validator(mode="after")
    def _soft_labels_have_weight(self) -> "Distillation":
        if self.teachers and self.soft_labels:
            raise ValueError("has soft_labels and teachers: use one of them")
        if self.teachers and not self.weight:
            raise ValueError("has teachers, but their weight is 0: use a weight above 0, or write `teachers: []`")
        if self.teachers_see == "moved" and not self.teachers:
            raise ValueError("has teachers_see: moved, but no teachers: add some, or write `teachers_see: augmented`")
        if not self.teachers and (self.soft_labels is None) != (self.weight == 0):
            raise ValueError(
                "needs both soft_labels and a weight above 0, or neither "
                f"(soft_labels: {self.soft_labels}, weight: {self.weight:g})"
            )
        return self


class Average(Section):
    """The average of a training's kept weights with those of other trainings of the same network.

    The model has the average. The scores of the epochs are those before it.
    """

    weights: Annotated[tuple[PathText, ...], Field(max_length=8)]  # files such as that of initial_weights
    share: Fraction  # of their mean in the average; the kept weights have 1 - share

    @model_validator(mode="after")
    def _weights_have_a_share(self) -> "Average":
        if bool(self.weights) != bool(self.share):
            raise ValueError(
                "needs both weights and a share above 0, or neither "
                f"(weights: {list(self.weights)}, share: {self.share:g})"
            )
        return self


class Train(Section):
    seed: Seed
    initial_weights: OptionalPath  # the weights of an earlier training
    architecture: Literal["seed_cnn", "paper_cnn", "mini_xception", "fer_resnet", "fer_vgg"]
    widths: Annotated[tuple[Width, ...], Field(max_length=8)]  # of fer_resnet and fer_vgg: channels of each stage, even
    blocks: Annotated[tuple[Depth, ...], Field(max_length=8)]  # their residual blocks or convolutions in each stage
    stem_stride: Literal[1, 2]  # fer_resnet only: 2 halves the resolution in the stem and takes a third of the time
    standardize: bool  # fer_resnet and fer_vgg only: scale each face to mean 0 and standard deviation 1
    # fer_resnet and fer_vgg only: channels of a 1x1 convolution before the pooling; 0: off
    head: Annotated[int, Field(ge=0, le=4096, multiple_of=2)]
    dropout: Fraction  # before the last layer
    precision: Literal["auto", "float32", "mixed_bfloat16"]
    epochs: Annotated[int, Field(ge=0, le=9999)]  # 0: the model gets the initial weights as they are
    patience: Count  # epochs without a better one before training stops; without effect with keep: last
    keep: Literal[
        "val_macro_f1", "val_loss", "last"
    ]  # the epoch whose weights are kept: the best by a score, or the last
    batch_size: Annotated[int, Field(ge=2, le=8192, multiple_of=2)]  # even: see training.augmentation
    optimizer: Literal["sgd", "adam"]
    momentum: Fraction  # sgd only, Nesterov momentum
    learning_rate: Annotated[float, Field(gt=0), AfterValidator(_finite)]  # at its peak
    schedule: Literal["constant", "cosine", "one_cycle"]
    warmup: Fraction  # fraction of all steps during which the learning rate rises linearly to its peak
    # Decoupled, kernels only. Momentum does not amplify it: at momentum 0.9, PyTorch's 5e-4 equals 5e-3 here.
    weight_decay: Annotated[float, Field(ge=0, le=10)]
    label_smoothing: Fraction
    ema: Fraction  # per-step momentum of the weight average that is validated and saved; 0: off
    average: Average
    class_weight: Balanced
    votes: Annotated[float, Field(ge=0, le=1)]  # weight of FER+'s translated votes in the labels; 0: off
    distillation: Distillation
    final_plain_fraction: Fraction  # fraction of the epochs, at the end, with flips and small shifts only
    augment: Augment

    @model_validator(mode="after")
    def _weights_come_from_somewhere(self) -> "Train":
        if not self.epochs and not self.initial_weights:
            raise ValueError("has epochs: 0, but no initial_weights: train at least one epoch, or add a file")
        if not self.epochs and (self.votes or self.distillation.weight):
            raise ValueError(
                "has epochs: 0, but learns from votes or distillation: train at least one epoch, or write `votes: 0` "
                "and `weight: 0`, without soft labels and teachers"
            )
        return self

    @model_validator(mode="after")
    def _stages_agree(self) -> "Train":
        if not self.widths or len(self.widths) != len(self.blocks):
            raise ValueError(f"needs as many widths as blocks, not {list(self.widths)} and {list(self.blocks)}")
        if any(width % 2 for width in self.widths):
            raise ValueError(
                f"needs even widths, because half of the channels mirror the others, not {list(self.widths)}"
            )
        # fer_vgg also halves after its last stage. An odd side would make it no longer mirror-equivariant.
        halvings = len(self.widths) - (self.architecture != "fer_vgg")
        if IMAGE_SIZE % (self._stem_stride * 2**halvings):
            raise ValueError(f"halves {IMAGE_SIZE} pixels too often: use fewer widths and blocks, or stem_stride 1")
        if self.architecture in ("fer_resnet", "fer_vgg") and self._memory() > MAX_MEMORY:
            raise ValueError(
                f"needs about {self._memory() / 1e9:,.0f} GB of memory: use smaller widths, blocks, head or batch_size"
            )
        return self

    def check_batch_size(self, faces: int) -> None:
        """Raise ConfigError if a batch has more faces than the train split; 256 are always accepted."""
        if self.batch_size > max(faces + 1, SMALL_BATCH):
            raise ConfigError(
                f"train.batch_size is {self.batch_size}, but the train split has {faces} faces: use a smaller one"
            )

    @property
    def _stem_stride(self) -> int:
        return 1 if self.architecture == "fer_vgg" else self.stem_stride

    def _memory(self) -> float:
        """The bytes of a training, roughly: two 3x3 layers in a block of fer_resnet, kept for the gradients."""
        weights = maps = side = 0.0
        for stage, (width, count) in enumerate(zip(self.widths, self.blocks, strict=True)):
            side = IMAGE_SIZE / self._stem_stride / 2**stage
            weights += 9 * width**2 * count  # the mirrored half of a layer has no weights of its own
            maps += side**2 * width * 6 * max(count, 1)
        weights += self.widths[-1] * self.head
        maps += side**2 * self.head * 3
        return 4 * (4 * weights + self.batch_size * maps)  # float32; gradients, momentum and moving average


class Evaluate(Section):
    confidence: Annotated[float, Field(gt=0, lt=1)]  # level of every confidence interval
    ece_bins: Annotated[int, Field(ge=1, le=1000)]


class Register(Section):
    """When the alias moves to a new version: see docs/promotion.md."""

    alias: Annotated[str, AfterValidator(check_alias)]
    confidence: Annotated[float, Field(ge=0.5, lt=1)]  # of the comparison with the version that has the alias
    promote_on: tuple[Literal["better", "not comparable"], ...]  # worse or undecided versions are never promoted
    min_recall: Annotated[float, Field(ge=0, le=1)]  # of each emotion, on val
    max_ece: Annotated[float, Field(ge=0, le=1)]  # expected calibration error, on val
    max_ms: Annotated[float, Field(gt=0, le=1e6)]  # for one face
    max_mb: Annotated[float, Field(gt=0, le=1e6)]  # of the ONNX file


class NumberRange(Section):
    """A range of numbers; of integers if both ends are integers."""

    low: Number
    high: Number
    log: bool  # sample uniformly in log space, as for a learning rate

    @model_validator(mode="after")
    def _is_a_range(self) -> "NumberRange":
        if self.low >= self.high:
            raise ValueError(f"is an empty or reversed range: low {self.low:g} must be below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"starts at {self.low:g}: a range with log must be above 0")
        return self


class Categorical(Section):
    """A choice between values."""

    choices: Annotated[tuple[Any, ...], Field(min_length=1, max_length=32)]  # the search first checks all pairs

    @model_validator(mode="after")
    def _differ(self) -> "Categorical":
        if any(choice in self.choices[:at] for at, choice in enumerate(self.choices)):
            raise ValueError("contains a choice twice")
        return self


def _kind(dimension: object) -> str:
    given = dimension if isinstance(dimension, dict) else vars(dimension) if isinstance(dimension, Section) else {}
    return "categorical" if "choices" in given else "range"


DIMENSIONS: dict[str | int, type[Section]] = {"range": NumberRange, "categorical": Categorical}
Dimension = Annotated[
    Annotated[NumberRange, Tag("range")] | Annotated[Categorical, Tag("categorical")],
    Discriminator(_kind),  # so that an error refers to the kind that was meant
]


class Tune(Section):
    """The hyperparameter search for `train`."""

    trials: Annotated[int, Field(ge=1, le=1_000_000)]  # total of finished trials, complete or pruned
    # No new trial starts after this time, and the finalists follow; 0: no limit.
    minutes: Annotated[float, Field(ge=0, le=1e6)]
    epochs: Count  # of a trial, and of the training of a finalist
    seed: Seed
    sampler: Literal["tpe", "random"]
    pruner: Pruner
    finalists: Annotated[int, Field(ge=0, le=1000)]  # the best trials are retrained with other seeds; 0: off
    finalist_seeds: Count  # trainings of each finalist
    space: Annotated[dict[str, Dimension], Field(min_length=1)]  # by keys of train, such as augment.shift

    @field_validator("space")
    @classmethod
    def _coerce_choices(cls, space: dict[str, NumberRange | Categorical]) -> dict[str, NumberRange | Categorical]:
        """Choices with the types that `train` uses, so that 1e-3, a string in YAML, equals 0.001."""
        return {
            key: Categorical(choices=tuple(coerce_setting(key, choice) for choice in dimension.choices))
            if isinstance(dimension, Categorical)
            else dimension
            for key, dimension in space.items()
        }


class Params(Section):
    prepare: Prepare
    train: Train
    tune: Tune
    evaluate: Evaluate
    register_: Register = Field(alias="register")  # `register` is a method of BaseModel


def load_params(path: Path, recipes: Sequence[Path] = ()) -> Params:
    """Read and validate params.yaml; ConfigError names the first wrong key and the allowed values.

    recipes: files whose `train` sections replace settings, in this order.
    """
    tree = read_yaml(path)
    params = check_params(tree, str(path))
    for recipe in recipes:
        tree["train"] = unflatten(flatten(tree["train"]) | flatten(load_recipe(recipe).get("train", {})))
        params = check_params(tree, str(recipe))
    return params


def load_recipe(path: Path) -> dict[str, Any]:
    """Read a recipe, a fragment of params.yaml; only its structure is validated. ConfigError says what is wrong."""
    tree = read_yaml(path)
    if not isinstance(tree, dict) or not isinstance(tree.get("train", {}), dict):
        raise ConfigError(f"{path} has no sections: write the settings under `train:`, as in params.yaml")
    return tree


def check_params(tree: object, source: str) -> Params:
    """Validate a tree of plain values; `source` is the file that the ConfigError names."""
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    # A misspelled key also causes a missing key: report the misspelling.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    key = shorten(".".join(str(part) for part in first["loc"] if part not in DIMENSIONS), 100)
    if not key:
        return "the file has no sections: start from the params.yaml of the project"
    if first["type"] == "extra_forbidden":
        if key in RENAMED:
            return f"{key} is now {RENAMED[key]}"
        return f"{key} is not a parameter; allowed here: {', '.join(_fields(first['loc'][:-1]))}"
    if first["type"] == "missing":
        return f"{key} is missing"
    message = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if isinstance(first["input"], dict):
        return f"{key} {message}"
    return f"{key} {message} (got {_show(first['input'])})"


def _show(value: object) -> str:
    """A wrong value of any size in a few words."""
    return repr(shorten(value, 100)) if isinstance(value, str) else shorten(reprlib.repr(value))


def _fields(location: tuple[int | str, ...]) -> list[str]:
    model: Any = Params
    for part in location:
        if isinstance(model, type) and issubclass(model, BaseModel):
            model = _by_name(model)[str(part)]
        else:  # in tune.space, the name of a setting is followed by the kind of its dimension
            model = DIMENSIONS.get(part, model)
    return list(_by_name(model))


def _by_name(section: type[BaseModel]) -> dict[str, Any]:
    """The type of each key, by its name in params.yaml."""
    return {field.alias or name: field.annotation for name, field in section.model_fields.items()}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of a tree, by dotted key."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return leaves


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`. Raise ConfigError if a key is below a value, such as seed.x."""
    tree: dict[str, Any] = {}
    for key, value in leaves.items():
        *sections, name = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{shorten(key)} is not a parameter: {shorten(section)} is no section")
        node[name] = value
    return tree


def same_setting(key: str, left: Any, right: Any) -> bool:
    """Whether two values of a `train` setting, such as "augment.shift", train the same.

    1e-3, which PyYAML reads as a string, equals 0.001; 1 equals 1.0; a list equals a tuple.
    """
    return bool(coerce_setting(key, left) == coerce_setting(key, right))


def coerce_setting(key: str, value: Any) -> Any:
    """The value of a `train` setting with the type that training uses; unchanged if `train` does not accept it."""
    *sections, name = key.split(".")
    model: Any = Train
    for section in sections:
        model = model.model_fields[section].annotation if _has_field(model, section) else None
    if not _has_field(model, name):
        return value
    field = model.model_fields[name]
    constrained: Any = Annotated[field.annotation, field]
    try:
        return TypeAdapter(constrained).validate_python(value)
    except ValidationError:
        return value


def _has_field(model: Any, name: str) -> bool:
    return isinstance(model, type) and issubclass(model, BaseModel) and name in model.model_fields
