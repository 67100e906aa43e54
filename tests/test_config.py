"""params.yaml: the committed file is valid, and every mistake is refused in one line that names the key."""

import ast
import re
from functools import cache
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from tests.support.paths import ROOT

from emotion_detection.config import Params, Train, check_params, load_params
from emotion_detection.errors import ConfigError
from emotion_detection.tuning.finalists import finalist_seeds

COMMITTED = ROOT / "params.yaml"
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def tree():
    return yaml.safe_load(COMMITTED.read_text())


SOFT_LABELS = {"soft_labels": "b.npz", "weight": 0.5}


def changed(key, value):
    """The committed tree with the dotted key set."""
    root = tree()
    *sections, last = key.split(".")
    node = root
    for section in sections:
        node = node[section]
    node[last] = value
    return root


def without(key):
    root = changed(key, None)
    *sections, last = key.split(".")
    node = root
    for section in sections:
        node = node[section]
    del node[last]
    return root


def merged(base, patch):
    both = {key: merged(base[key], value) if isinstance(value, dict) else value for key, value in patch.items()}
    return {**base, **both}


def refusal(params) -> str:
    """The message of the error for a tree, without the file name."""
    with pytest.raises(ConfigError) as error:
        check_params(params, "params.yaml")
    message = str(error.value)
    assert message.startswith("params.yaml: ")
    assert "\n" not in message
    return message.removeprefix("params.yaml: ")


def test_committed_file_is_loaded_unchanged():
    params = load_params(COMMITTED)
    written = tree()
    assert params.train.architecture == written["train"]["architecture"]
    assert params.train.augment.scale == tuple(written["train"]["augment"]["scale"])
    assert params.register_.alias == written["register"]["alias"]
    assert params.model_dump(by_alias=True, mode="json") == check_params(written, "").model_dump(
        by_alias=True, mode="json"
    )


def test_params_are_frozen():
    params = load_params(COMMITTED)
    with pytest.raises(ValidationError, match="frozen"):
        params.train.epochs = 3
    with pytest.raises(ValidationError, match="frozen"):
        params.train.augment.flip = False


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid_with_the_committed_file(recipe):
    patch = yaml.safe_load(recipe.read_text())
    params = check_params(merged(tree(), patch), recipe.name)
    assert params.train.architecture == patch["train"]["architecture"]
    assert params.train.learning_rate == float(patch["train"]["learning_rate"])


def test_there_are_recipes():
    assert {"fer_resnet", "seed_cnn"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("trian", "train"),
        ("register_", "register"),
        ("train.learning_rat", "learning_rate"),
        ("train.augment.rotate", "rotate_deg"),
        ("prepare.val_share", "val_fraction"),
        ("evaluate.bins", "ece_bins"),
        ("register.max_size", "max_mb"),
    ],
)
def test_misspelled_key_is_refused_with_the_allowed_keys(key, allowed):
    message = refusal(changed(key, 1))
    assert message.startswith(f"{key} is not a parameter; allowed here: ")
    assert allowed in message.split(": ")[1].split(", ")


@pytest.mark.parametrize("key", ["train", "train.seed", "train.augment.erase", "register", "evaluate.confidence"])
def test_missing_key_is_named(key):
    assert refusal(without(key)) == f"{key} is missing"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train.architecture", "resnet50", ["seed_cnn", "mini_xception", "fer_resnet", "got 'resnet50'"]),
        ("train.optimizer", "adamw", ["'sgd' or 'adam'", "got 'adamw'"]),
        ("train.stem_stride", 3, ["1 or 2", "got 3"]),
        ("train.epochs", "twelve", ["integer", "got 'twelve'"]),
        ("train.epochs", -1, ["greater than or equal to 0", "got -1"]),
        ("train.epochs", 1.5, ["integer", "got 1.5"]),
        ("train.batch_size", None, ["integer", "got None"]),
        ("train.batch_size", 33, ["multiple of 2", "got 33"]),
        ("train.learning_rate", 0, ["greater than 0", "got 0"]),
        ("train.learning_rate", float("nan"), ["greater than 0", "got nan"]),
        ("train.dropout", 1.0, ["less than 1", "got 1.0"]),
        ("train.dropout", float("nan"), ["got nan"]),
        ("train.augment.shift", -0.1, ["greater than or equal to 0", "got -0.1"]),
        ("train.augment.flip", "maybe", ["boolean", "got 'maybe'"]),
        ("train.augment.scale", [1.1, 0.9], ["reversed range: write [0.9, 1.1]"]),
        ("train.augment.contrast", [1.0], ["is missing"]),
        ("train.augment.contrast", [0, 1], ["greater than 0"]),
        ("train.augment", 5, ["got 5"]),
        ("register.alias", "", ["cannot be an alias", "got ''"]),
        ("register.alias", "v1", ["cannot be an alias", "got 'v1'"]),
        ("evaluate.confidence", 95, ["less than 1", "got 95"]),
        ("tune.finalists", -1, ["greater than or equal to 0", "got -1"]),
        ("tune.pruner", "hyperband", ["no longer accepts hyperband", "use halving"]),
        ("tune.pruner", "none", ["no longer accepts none: write null"]),
    ],
)
def test_wrong_value_is_refused_with_the_allowed_values(key, value, words):
    message = refusal(changed(key, value))
    assert message.startswith(key)
    for word in words:
        assert word in message


def test_widths_and_blocks_have_the_same_length():
    def with_stages(widths, blocks):
        return merged(tree(), {"train": {"widths": widths, "blocks": blocks}})

    assert (
        refusal(with_stages([8, 16, 32], [1, 1])) == "train needs as many widths as blocks, not [8, 16, 32] and [1, 1]"
    )
    assert "needs as many widths as blocks" in refusal(with_stages([], []))
    assert "needs even widths, because half of the channels mirror the others, not [8, 15]" in refusal(
        with_stages([8, 15], [1, 1])
    )
    assert "halves 48 pixels too often" in refusal(with_stages(5 * [8], 5 * [1]))
    assert check_params(with_stages([8, 16], [1, 1]), "").train.widths == (8, 16)


def test_number_that_yaml_reads_as_text_is_accepted(tmp_path):
    text = re.sub(r"weight_decay: \S+", "weight_decay: 1e-3", COMMITTED.read_text(), count=1)
    assert yaml.safe_load(text)["train"]["weight_decay"] == "1e-3"  # YAML 1.1 needs a decimal point
    (tmp_path / "params.yaml").write_text(text)
    assert load_params(tmp_path / "params.yaml").train.weight_decay == 0.001


@pytest.mark.parametrize("text", ["", "- 1\n", "just words\n", "train: [\n", "a: b: c\n", "\t"])
def test_file_without_sections_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"params\.yaml") as error:
        load_params(tmp_path / "params.yaml")
    assert "\n" not in str(error.value)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml cannot be read"):
        load_params(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    "content",
    [
        b"train: \xff\n",
        b"train: \x00\n",
    ],
)
def test_binary_file_is_refused(tmp_path, content):
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_params(tmp_path / "params.yaml")


def sections(model: type[BaseModel]) -> set[type[BaseModel]]:
    below = {one for field in model.model_fields.values() for one in mentioned(field.annotation)}
    models = {one for one in below if isinstance(one, type) and issubclass(one, BaseModel)}
    return {model}.union(*(sections(one) for one in models))


def mentioned(annotation: object) -> set[object]:
    """A type and its type arguments."""
    return {annotation}.union(*(mentioned(inside) for inside in get_args(annotation) if not isinstance(inside, str)))


SECTIONS = sorted(sections(Params), key=str)


@cache
def names_read() -> set[str]:
    """Attributes that the package reads outside config, and keyword arguments that a section can be passed as."""
    names = set()
    for path in (ROOT / "src").rglob("*.py"):
        if path.name == "config.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                names.add(node.attr)
            elif isinstance(node, ast.FunctionDef):
                names |= {argument.arg for argument in node.args.kwonlyargs}
    return names


@pytest.mark.parametrize("section", SECTIONS, ids=lambda one: one.__name__)
def test_every_parameter_is_used(section):
    assert set(section.model_fields) <= names_read()


def test_all_sections_are_checked():
    assert {one.__name__ for one in SECTIONS} == {
        "Params",
        "Prepare",
        "Train",
        "Average",
        "Augment",
        "Distillation",
        "Tune",
        "NumberRange",
        "Categorical",
        "Evaluate",
        "Register",
    }


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train.seed", 2**32, "less than 4294967296"),
        ("train.seed", -1, "greater than or equal to 0"),
        ("tune.seed", 2**32, "less than 4294967296"),
        ("train.batch_size", 10**9, "less than or equal to 8192"),
        ("train.epochs", 10**9, "less than or equal to 9999"),
        ("train.epochs", 0, "has epochs: 0, but no initial_weights: train at least one epoch, or add a file"),
        ("train.average", {"weights": [], "share": 0.5}, "needs both weights and a share above 0, or neither"),
        ("train.average", {"weights": ["a.npz"], "share": 0}, "needs both weights and a share above 0, or neither"),
        ("train.average", {"weights": ["a.npz"], "share": 1}, "less than 1"),
        ("train.average", {"weights": 9 * ["a.npz"], "share": 0.5}, "at most 8 items"),
        ("train.patience", 10**9, "less than or equal to 9999"),
        ("train.widths", [10**6, 10**6, 10**6], "less than or equal to 4096"),
        ("train.widths", 100 * [2], "at most 8 items"),
        ("train.blocks", [10**6, 1, 1], "less than or equal to 64"),
        ("train.blocks", [], "as many widths as blocks"),
        ("train.batch_size", 8192, "GB of memory: use smaller widths, blocks, head or batch_size"),
        ("train.learning_rate", float("inf"), "between"),
        ("train.weight_decay", float("inf"), "less than or equal to 10"),
        ("train.augment.scale", [1, float("inf")], "less than or equal to 10"),
        ("train.augment.scale", [float("nan"), 1], "got nan"),
        ("train.augment.mixup", float("nan"), "got nan"),
        ("train.augment.mixup", 1e300, "less than or equal to 10"),
        ("train.initial_weights", 2000 * "x", "at most 1000 characters"),
        ("train.optimizer", "𝓼𝓰𝓭", "'sgd' or 'adam'"),
        ("evaluate.ece_bins", 10**9, "less than or equal to 1000"),
        ("register.alias", "größe 1", "cannot be an alias"),
        ("register.confidence", 1, "less than 1"),
        ("register.promote_on", ["undecided"], "'better' or 'not comparable'"),
        ("register.promote_on", "better", "valid tuple"),
        ("register.max_ms", float("inf"), "less than or equal to 1000000"),
        ("register.max_mb", 0, "greater than 0"),
        ("tune.trials", 10**9, "less than or equal to 1000000"),
        ("tune.minutes", float("inf"), "less than or equal to"),
        ("tune.minutes", float("nan"), "got nan"),
        ("tune.space", {}, "at least 1 item"),
        ("tune.space", {"dropout": {"choices": []}}, "at least 1 item"),
        ("tune.space", {"dropout": {"low": 0, "high": float("inf"), "log": False}}, "between -1e+09 and 1e+09"),
        ("tune.space", {"dropout": {"low": float("nan"), "high": 1, "log": False}}, "between -1e+09 and 1e+09"),
        ("tune.space", {"dropout": {"low": 0, "high": 10**30, "log": False}}, "between -1e+09 and 1e+09"),
    ],
)
def test_value_out_of_bounds_is_refused(key, value, words):
    tree_with_value = changed(key, value)
    if key == "train.batch_size" and value == 8192:
        tree_with_value["train"] |= {"widths": [512, 512, 512], "stem_stride": 1}
    message = refusal(tree_with_value)
    assert words in message
    assert len(message) < 300


def test_model_without_epochs_learns_from_nothing():
    tree = changed("train.epochs", 0)
    tree["train"]["initial_weights"] = "a.npz"
    check_params(tree, "")
    for learned in ({"votes": 0.5}, {"distillation": tree["train"]["distillation"] | SOFT_LABELS}):
        assert "has epochs: 0, but learns from votes or distillation" in refusal(
            tree | {"train": tree["train"] | learned}
        )


def test_message_does_not_repeat_a_long_value_or_key():
    for tree_with_value in (
        changed("train.optimizer", 10**6 * "x"),
        changed("train." + 10**5 * "k", 1),
        changed("train.epochs", list(range(10**5))),
    ):
        assert len(refusal(tree_with_value)) < 600


def test_batch_is_not_larger_than_the_train_split():
    train = check_params(changed("train.batch_size", 1024), "").train
    train.check_batch_size(1023)
    with pytest.raises(ConfigError, match=r"train\.batch_size is 1024, but the train split has 1022 faces"):
        train.check_batch_size(1022)
    check_params(changed("train.batch_size", 256), "").train.check_batch_size(14)


def test_finalists_of_the_largest_seed_have_valid_seeds():
    params = check_params(changed("train.seed", 2**32 - 1), "")
    assert all(0 <= seed < 2**32 for seed in finalist_seeds(params))


def test_recipes_replace_settings_of_train_in_their_order(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("train: {epochs: 7, widths: [8, 16, 24], augment: {noise: 3}}\n")
    second.write_text("train: {epochs: 9}\n")
    train = load_params(COMMITTED, [first, second]).train
    assert (train.epochs, train.widths, train.augment.noise) == (9, (8, 16, 24), 3)
    assert train.augment.shift == load_params(COMMITTED).train.augment.shift
    second.write_text("train: {epoch: 9}\n")
    with pytest.raises(ConfigError, match=r"second\.yaml: train\.epoch is not a parameter"):
        load_params(COMMITTED, [first, second])


def test_memory_includes_the_head(params):
    small = params.train.model_copy(update={"widths": (8,), "blocks": (1,), "batch_size": 8192, "stem_stride": 1})
    assert Train.model_validate(small.model_dump() | {"architecture": "seed_cnn", "head": 4096})  # has no head
    with pytest.raises(ValidationError, match=r"GB of memory: use smaller widths, blocks, head"):
        Train.model_validate(small.model_dump() | {"head": 4096})


def test_stages_of_fer_vgg_are_checked_at_its_own_resolution(params):
    """It ignores stem_stride, and its last stage halves the resolution too."""
    settings = params.train.model_dump() | {"architecture": "fer_vgg", "stem_stride": 2, "blocks": 4 * [1]}
    assert Train.model_validate(settings | {"widths": 4 * [8]})
    with pytest.raises(ValidationError, match="halves 48 pixels too often"):
        Train.model_validate(settings | {"widths": 5 * [8], "blocks": 5 * [1]})
    with pytest.raises(ValidationError, match="GB of memory"):
        Train.model_validate(settings | {"widths": [48, 96, 192, 288], "blocks": 4 * [2], "batch_size": 8192})
