"""Which calls this version can send: a call of a newer version or a damaged one must not reach the store."""

import pytest

from emotion_detection.experiments.calls import is_known

DATASET = {"name": "a", "digest": "b", "source_type": "local", "source": "{}", "schema": None, "profile": "{}"}


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("params", {"params": {"a": "1"}}),
        ("metrics", {"values": {"a": 1.5, "b": float("nan"), "c": 1}, "step": 1}),
        ("metrics", {"values": {}, "step": 0}),
        ("missing epochs", {"rows": [{"epoch": 1.0, "loss": 0.5}, {"epoch": 2, "loss": float("nan")}]}),
        ("missing epochs", {"rows": []}),
        ("dataset", {"dataset": DATASET, "split": "train", "tags": {"dvc_md5": "1"}}),
        ("artifacts", {}),
        ("start", {"tags": {}}),
        ("start", {"tags": {}, "name": None, "create": True}),
        ("end", {"status": "KILLED", "reason": ""}),
    ],
)
def test_calls_of_this_version_are_known(kind, content):
    assert is_known(kind, 1, content)


@pytest.mark.parametrize(
    ("kind", "at", "content"),
    [
        ("heartbeat", 1, {}),
        ("tags", 1, None),
        ("tags", 10**30, {"tags": {}}),
        ("tags", -1, {"tags": {}}),
        ("tags", 1, {"tags": {"a": None}}),
        ("tags", 1, {"tags": {"a": {"b": 1}}}),
        ("tags", 1, {"tags": {}, "new": 1}),
        ("params", 1, {"params": {"a": 1}}),
        ("metrics", 1, {"step": 5}),
        ("metrics", 1, {"step": 10**30, "values": {}}),
        *(("metrics", 1, {"step": 1, "values": {"a": value}}) for value in ("text", [1], None, 10**400)),
        ("missing epochs", 1, {"rows": None}),
        *(
            ("missing epochs", 1, {"rows": [row]})
            for row in ({}, "a", {"epoch": 1.5}, {"epoch": float("nan")}, {"epoch": 1, "loss": None})
        ),
        ("dataset", 1, {"dataset": DATASET | {"new": 1}, "split": "a", "tags": {}}),
        ("dataset", 1, {"dataset": {"name": "a"}, "split": "a", "tags": {}}),
        ("note", 1, {"title": "a", "text": "b", "level": 3}),
        ("note", 1, {"title": "a", "text": None}),
        ("artifacts", 1, {"path": "a"}),
        ("start", 1, {"tags": {}, "create": "yes"}),
        ("end", 1, {"status": "PAUSED", "reason": ""}),
        ("end", 1, {"status": [], "reason": ""}),
    ],
)
def test_other_calls_are_not_known(kind, at, content):
    assert not is_known(kind, at, content)
