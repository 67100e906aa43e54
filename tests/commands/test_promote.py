"""emotion-detection promote, rollback and history: what they print, and which requests they refuse."""

import json
import re

import mlflow
import pytest

from emotion_detection.cli import main
from emotion_detection.experiments import runs

NAME = "faces"


@pytest.fixture
def client(store) -> mlflow.MlflowClient:  # noqa: ARG001
    runs.connect()
    client = mlflow.MlflowClient()
    client.create_registered_model(NAME)
    for _ in range(3):
        client.create_model_version(NAME, "file:///nowhere")
    return client


def run(capsys, *arguments: str) -> str:
    main([*arguments])
    return capsys.readouterr().out


def refusal(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit):
        main([*arguments])
    return capsys.readouterr().err


def test_promote_rollback_and_history(client, capsys):
    assert run(capsys, "promote", "models:/faces/1", "--reason", "first") == (
        "faces version 1: champion, instead of no version\n"
    )
    assert run(capsys, "promote", "models:/faces/2", "--reason", "it reads fear better") == (
        "faces version 2: champion, instead of version 1\n"
    )
    assert run(capsys, "promote", "models:/faces/2", "--reason", "again") == "faces version 2: champion already\n"
    assert run(capsys, "rollback", "faces", "--reason", "too slow") == (
        "faces version 1: champion, instead of version 2\n"
    )
    assert client.get_registered_model(NAME).aliases == {"champion": 1}
    heading, *lines = run(capsys, "history", "faces").splitlines()
    assert heading.split() == ["when", "who", "alias", "from", "to", "how", "why"]
    assert [re.sub(r"^(\d) .* champion", r"\1", line).split() for line in lines] == [
        ["1", "–", "1", "promote", "first"],
        ["2", "1", "2", "promote", "it", "reads", "fear", "better"],
        ["3", "2", "1", "rollback", "too", "slow"],
    ]
    entries = json.loads(run(capsys, "history", "faces", "--json"))
    assert [(entry["number"], entry["from"], entry["to"]) for entry in entries] == [(1, None, 1), (2, 1, 2), (3, 2, 1)]
    assert set(entries[0]) == {"number", "at", "by", "kind", "alias", "from", "to", "why", "evidence"}


def test_model_that_is_not_named_is_the_only_one_or_the_project_s(client, capsys):
    run(capsys, "promote", "models:/faces/1", "--reason", "first")
    assert "first" in run(capsys, "history")
    client.create_registered_model("emotion-detection")
    assert "first" not in run(capsys, "history")


def test_other_alias_is_moved_and_names_a_version(client, capsys):
    run(capsys, "promote", "models:/faces/3", "--reason", "try it", "--alias", "trial")
    run(capsys, "promote", "models:/faces@trial", "--reason", "it works")
    assert client.get_registered_model(NAME).aliases == {"champion": 3, "trial": 3}


def test_move_that_is_not_entered_yet_is_shown(client, capsys):
    client.set_registered_model_alias(NAME, "champion", "2")
    (line,) = run(capsys, "history", "faces").splitlines()[1:]
    assert line.split() == [
        "unknown",
        "champion",
        "–",
        "2",
        "outside",
        *["was", "the", "champion", "before", "this", "history", "began"],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("promote", "models:/faces/1"), "--reason"),
        (("promote", "models:/faces/1", "--reason", " "), "--reason is empty: write why the alias moves"),
        (("promote", "faces", "--reason", "r"), "faces does not name a registered model: use models:/NAME@ALIAS"),
        (("promote", "models:/faces/9", "--reason", "r"), "the registry does not contain models:/faces/9"),
        (("promote", "models:/faces/1", "--reason", "r", "--alias", "a b/c"), "cannot be an alias"),
        (("promote", "models:/faces/1", "--reason", "r", "--alias", "v1"), "cannot be an alias"),
        (("rollback", "faces"), "--reason"),
        (("rollback", "faces", "--reason", ""), "--reason is empty"),
        (("rollback", "faces", "--reason", "r"), "faces has no earlier champion: name a version with"),
        (("rollback", "--reason", "r"), "faces has no earlier champion"),  # the only model
        (("history", "typo"), "the registry does not contain typo: it contains faces"),
        (("history", "it's"), "the registry does not contain it's: it contains faces"),
    ],
)
@pytest.mark.usefixtures("client")
def test_wrong_requests_are_refused_in_one_line(capsys, arguments, message):
    (line,) = refusal(capsys, *arguments).splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.usefixtures("store")
def test_empty_registry_is_named(capsys):
    for arguments in (("history",), ("rollback", "--reason", "r")):
        (line,) = refusal(capsys, *arguments).splitlines()
        assert line == (
            "error: the registry does not contain emotion-detection: it contains no models, and `dvc repro` "
            "registers one"
        )
