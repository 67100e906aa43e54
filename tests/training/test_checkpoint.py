"""A damaged checkpoint never stops a training: the state before it is used, or the training starts again."""

import errno
import hashlib
import json
import os
import shutil

import numpy as np
import pytest

from emotion_detection.training.checkpoint import State, load_state, save_state

SHAPES: list[tuple[int, ...]] = [(2, 3), (), (4,)]
WEIGHTS: list[tuple[int, ...]] = [(2, 3)]
FILES = ("state.npz", "best.npz", "history.json", "sha256.json")


def state(epoch):
    rng = np.random.default_rng(epoch)
    rows = [{"epoch": number, "val_macro_f1": number / 10, "loss": 1.5} for number in range(1, epoch + 1)]
    weights = [rng.normal(size=shape).astype(np.float32) for shape in WEIGHTS]
    return State([rng.normal(size=shape) for shape in SHAPES], weights, rows)


@pytest.fixture
def checkpoint(tmp_path):
    """The checkpoint of a training of three epochs."""
    for epoch in (1, 2, 3):
        save_state(state(epoch), tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def load(checkpoint, epochs=9):
    return load_state(checkpoint, variables=SHAPES, weights=WEIGHTS, epochs=epochs)


def loaded_epoch(checkpoint):
    """The epoch of the loaded state, whose arrays are those that were saved; 0 without a state."""
    loaded = load(checkpoint)
    if loaded is None:
        return 0
    expected = state(len(loaded.history))
    assert loaded.history == expected.history
    for part in ("variables", "best_weights"):
        for array, saved in zip(getattr(loaded, part), getattr(expected, part), strict=True):
            np.testing.assert_array_equal(array, saved)
    return len(loaded.history)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def rewrite(path, content):
    """Change a file of a state and its digest, as a defect of the program would."""
    path.write_text(content)
    digests = json.loads((path.parent / "sha256.json").read_text())
    save = hashlib.sha256(path.read_bytes()).hexdigest()
    (path.parent / "sha256.json").write_text(json.dumps(digests | {path.name: save}))


def test_newest_state_is_loaded_and_the_one_before_it_is_kept(checkpoint):
    assert names(checkpoint) == ["epoch-0002", "epoch-0003"]
    assert loaded_epoch(checkpoint) == 3


def test_empty_and_missing_checkpoints_have_no_state(tmp_path):
    assert load(tmp_path) is None
    assert load(tmp_path / "absent") is None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "flipped", "folder"])
def test_state_before_a_damaged_one_is_used(checkpoint, caplog, name, damage):
    path = checkpoint / "epoch-0003" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "flipped": content}[damage])
    assert loaded_epoch(checkpoint) == 2
    assert names(checkpoint) == ["damaged-epoch-0003", "epoch-0002"]
    (record,) = caplog.records
    assert str(checkpoint / "epoch-0003") in record.getMessage()
    assert record.getMessage().endswith("It was renamed to damaged-epoch-0003, and epoch-0002 is tried instead")


def test_training_starts_again_without_a_complete_state(checkpoint, caplog):
    for folder in checkpoint.iterdir():
        (folder / "best.npz").unlink()
    assert loaded_epoch(checkpoint) == 0
    assert caplog.records[-1].getMessage().endswith("and the training starts again")
    save_state(state(1), checkpoint)
    assert loaded_epoch(checkpoint) == 1


@pytest.mark.parametrize("name", ["epoch-9999", "epoch-0004", "epoch-x"])
@pytest.mark.parametrize("kind", ["empty folder", "file", "copy"])
def test_stray_entry_is_set_aside(checkpoint, name, kind):
    if kind == "copy":
        shutil.copytree(checkpoint / "epoch-0003", checkpoint / name)
    elif kind == "file":
        (checkpoint / name).write_text("stray")
    else:
        (checkpoint / name).mkdir()
    assert loaded_epoch(checkpoint) == 3
    assert f"damaged-{name}" in names(checkpoint)


@pytest.mark.parametrize(
    "history",
    [
        json.dumps(state(6).history),
        json.dumps(state(2).history),
        json.dumps(state(3).history[::-1]),
        json.dumps([{**row, "loss": float("nan")} for row in state(3).history]),
        json.dumps([{**row, "val_macro_f1": "0.5"} for row in state(3).history]),
        json.dumps([{"epoch": number} for number in (1, 2, 3)]),
        "[1, 2, 3]",
        "{}",
        "null",
        "[" * 100_000,
    ],
)
def test_state_with_another_history_is_not_used(checkpoint, history):
    rewrite(checkpoint / "epoch-0003" / "history.json", history)
    assert loaded_epoch(checkpoint) == 2


def test_state_of_another_network_is_not_used(checkpoint):
    other = [*SHAPES, (1,)]
    assert load_state(checkpoint, variables=other, weights=WEIGHTS, epochs=9) is None
    assert names(checkpoint) == ["damaged-epoch-0002", "damaged-epoch-0003"]


def test_state_of_a_longer_training_is_not_used(checkpoint):
    loaded = load(checkpoint, epochs=2)
    assert loaded
    assert len(loaded.history) == 2


def test_second_damaged_state_replaces_the_first(checkpoint):
    for _ in range(2):
        (checkpoint / "epoch-0003" / "best.npz").unlink()
        assert loaded_epoch(checkpoint) == 2
        save_state(state(3), checkpoint)
    assert names(checkpoint) == ["damaged-epoch-0003", "epoch-0002", "epoch-0003"]


def test_full_disk_keeps_the_states_and_is_named(checkpoint, monkeypatch):
    def fill(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill)
        with pytest.raises(OSError, match="No space left") as error:
            save_state(state(4), checkpoint)
    assert error.value.filename == str(checkpoint / "epoch-0004")
    assert names(checkpoint) == ["epoch-0002", "epoch-0003"]
    assert loaded_epoch(checkpoint) == 3
