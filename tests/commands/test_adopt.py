"""`make adopt`: changes only the recipe's values, and only if the result is valid."""

import re
from pathlib import Path

import pytest
import yaml
from tests.support.paths import ROOT

from emotion_detection import cli
from emotion_detection.commands.adopt import adopt, merged
from emotion_detection.config import load_params
from emotion_detection.errors import ConfigError, EmotionDetectionError

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
COMMITTED = (ROOT / "params.yaml").read_text()
TRAIN = yaml.safe_load(COMMITTED)["train"]


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED)
    return path


def written(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return str(path)


def key(line: str) -> str:
    return line.split(":")[0].strip()


def comment(line: str) -> str:
    return line.partition("#")[2]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_changes_its_own_lines_only(recipe: Path, params: Path):
    adopt(str(recipe), params=params)
    train = yaml.safe_load(recipe.read_text())["train"]
    sections = {"augment", "average", "distillation"}
    named = {*train, *(key for name in sections for key in train[name])} - sections
    lines = list(zip(COMMITTED.splitlines(), params.read_text().splitlines(), strict=True))
    for before, after in lines:
        assert (key(before), comment(before)) == (key(after), comment(after))
        value = yaml.safe_load(before.strip())
        assert before == after or (key(before) in named and value != yaml.safe_load(after.strip()))
    assert any(before != after for before, after in lines)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_adopted_file_has_the_values_of_the_recipe(recipe: Path, params: Path):
    def overlaid(below: dict, above: dict) -> dict:
        deeper = {k: overlaid(below[k], v) for k, v in above.items() if isinstance(v, dict)}
        return below | above | deeper

    expected = overlaid(yaml.safe_load(COMMITTED), yaml.safe_load(recipe.read_text()))
    adopt(str(recipe), params=params)
    assert yaml.safe_load(params.read_text()) == expected
    load_params(params)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_second_adoption_changes_nothing(recipe: Path, params: Path, capsys: pytest.CaptureFixture[str]):
    adopt(str(recipe), params=params)
    once = params.read_text()
    capsys.readouterr()
    adopt(str(recipe), params=params)
    assert params.read_text() == once
    assert capsys.readouterr().out == f"{params} already has every setting of {recipe}\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("weight_decay: 1.0e-4", "  weight_decay: 1.0e-4\n"),
        ("learning_rate: 3e-3", "  learning_rate: 3e-3\n"),
        ("dropout: 0.30", "  dropout: 0.30 # before the last layer\n"),
        (
            f"dropout: {TRAIN['dropout']}0",
            f"  dropout: {TRAIN['dropout']} # before the last layer\n",
        ),  # an equal number
        ("augment: {scale: [0.8, 1.20]}", "    scale: [0.8, 1.20]\n"),
        ("augment:\n    scale:  # wide\n    - 0.5\n    - 2.0", "    scale: [0.5, 2.0]\n"),
        ("widths: [1000, 2000, 3000] # wide", "  widths: [1000, 2000, 3000] # fer_resnet and fer_vgg only\n"),
    ],
)
def test_values_keep_the_notation_of_the_recipe(line: str, expected: str):
    after = merged(COMMITTED, f"train:\n  {line}\n", source="recipe")
    assert expected in after
    changed = [pair for pair in zip(COMMITTED.splitlines(), after.splitlines(), strict=True) if pair[0] != pair[1]]
    assert len(changed) == int(expected not in COMMITTED)


def test_list_can_change_its_length():
    after = merged(COMMITTED, "train:\n  widths: [8, 16]\n  blocks: [1, 1]\n", source="recipe")
    assert yaml.safe_load(after)["train"]["widths"] == [8, 16]
    assert len(after.splitlines()) == len(COMMITTED.splitlines())
    again = merged(after, "train:\n  widths: [8, 16, 32, 64]\n  blocks: [1, 1, 1, 1]\n", source="recipe")
    assert "widths: [8, 16, 32, 64] # fer_resnet and fer_vgg only\n" in again


def test_list_at_the_end_of_a_section_keeps_the_blank_line():
    order = "prepare:\n  test_fraction: 0.1\n  val_fraction: 0.1\n\n"
    tail = COMMITTED[COMMITTED.index("train:") :].replace("    erase: 0.0 # probability\n", "")
    text = order + tail.replace("  augment:\n", "  augment:\n    erase: 0.0\n")
    after = merged(text, "train:\n  augment:\n    contrast: [0.5, 1.5]\n", source="recipe")
    assert after == text.replace("contrast: [0.8, 1.2]", "contrast: [0.5, 1.5]")


def test_adopting_the_original_settings_restores_the_file(params: Path, tmp_path: Path):
    for recipe in RECIPES:
        adopt(str(recipe), params=params)
    adopt(written(tmp_path, COMMITTED), params=params)
    assert params.read_text() == COMMITTED


def test_other_sections_are_adopted():
    after = merged(COMMITTED, "register:\n  max_ece: 0.05\n", source="recipe")
    assert after == COMMITTED.replace("max_ece: 0.1", "max_ece: 0.05")


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("train:\n  epoch: 3\n", "train.epoch is not a parameter; allowed here: seed"),
        ("trian:\n  epochs: 3\n", "trian is not a parameter; allowed here: prepare, train"),
        ("train:\n  augment:\n    flipp: true\n", "train.augment.flipp is not a parameter"),
        ("train:\n  epochs: -1\n", "train.epochs should be greater than or equal to 0"),
        ("train:\n  widths: [16]\n", "as many widths as blocks"),
        ("train:\n  augment: 3\n", "train.augment should be a valid"),
        ("train:\n", "train should be a valid"),
        ("- epochs\n", "has no sections"),
        ("epochs\n", "has no sections"),
        ("", "has no sections"),
        ("train: {epochs: 3\n", "is not valid YAML"),
        ("train:\n  epochs: 3\n  epochs: 4\n", "is not valid YAML"),
    ],
)
def test_invalid_recipe_changes_nothing(text: str, culprit: str, params: Path, tmp_path: Path):
    recipe = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        adopt(recipe, params=params)
    assert culprit in str(caught.value)
    assert str(caught.value).startswith(recipe)
    assert "\n" not in str(caught.value)
    assert params.read_text() == COMMITTED
    assert {path.name for path in tmp_path.iterdir()} == {"params.yaml", "recipe.yaml"}


@pytest.mark.parametrize(
    ("recipe", "message"),
    [("", "FROM is missing"), ("absent.yaml", "absent.yaml cannot be read"), (".", ". cannot be read")],
)
def test_missing_recipe_is_refused(recipe: str, message: str, params: Path):
    with pytest.raises(EmotionDetectionError, match=message):
        adopt(recipe, params=params)


def test_binary_recipe_is_refused(params: Path, tmp_path: Path):
    (tmp_path / "recipe.yaml").write_bytes(b"train: \xff\xfe\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        adopt(str(tmp_path / "recipe.yaml"), params=params)


def test_invalid_params_are_named(params: Path, tmp_path: Path):
    params.write_text(COMMITTED.replace(f"epochs: {TRAIN['epochs']}", "epochs: none"))
    with pytest.raises(ConfigError, match=r"params\.yaml: train\.epochs"):
        adopt(written(tmp_path, "train:\n  epochs: 3\n"), params=params)


def test_command_prints_the_change(params: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    recipe = written(tmp_path, "train:\n  epochs: 3\n")
    cli.main(["adopt", recipe, "--params", str(params)])
    shown = capsys.readouterr().out.splitlines()
    changed = [line.partition(" #")[0] for line in shown if line.startswith(("- ", "+ "))]
    assert changed == [f"-  epochs: {TRAIN['epochs']}", "+  epochs: 3"]
    assert not any("\033" in line for line in shown)


def test_change_is_colored_on_a_terminal(
    params: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    adopt(written(tmp_path, "train:\n  epochs: 3\n"), params=params)
    assert re.search(r"\033\[32m\+  epochs: 3 #[^\033]*\033\[0m", capsys.readouterr().out)


def test_command_prints_an_error_in_one_line(params: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        cli.main(["adopt", "--params", str(params)])
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith("error: FROM is missing")
