"""The registry: an empty one is seeded once, an alias resolves to a version, a version to its file."""

import json
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import mlflow
import pytest

from emotion_detection.errors import InputError
from emotion_detection.experiments import registry, runs
from emotion_detection.inference import pretrained
from emotion_detection.inference.classifier import EmotionClassifier

# TensorFlow must not even be tried: it costs seconds, and a demo's machine may not have it.
SEED = """
import sys
sys.modules["tensorflow"] = sys.modules["keras"] = None
from emotion_detection.cli import main
main(["seed-registry"])
"""


@pytest.fixture
def seeded(store):  # noqa: ARG001
    return pretrained.seed()


def test_an_empty_registry_gets_the_shipped_model_as_champion(seeded):
    assert (seeded.name, seeded.number, seeded.aliases) == ("emotion-detection", 1, ("champion",))
    assert seeded.tags["dataset"] == "fer2013"
    assert float(seeded.tags["val_macro_f1"]) > 0.5
    assert registry.resolve(pretrained.CHAMPION) == seeded
    told = EmotionClassifier(registry.fetch(pretrained.CHAMPION))
    assert told.about == EmotionClassifier(pretrained.MODEL).about


def test_the_run_of_the_shipped_model_holds_its_scores_and_papers(seeded):
    client = mlflow.MlflowClient()
    run = client.get_run(seeded.run_id)
    assert run.info.run_name == "pretrained"
    assert run.data.metrics == pytest.approx(json.loads((pretrained.FOLDER / "metrics.json").read_text()))
    logged = {Path(one.path).name for one in client.list_artifacts(seeded.run_id, "pretrained")}
    assert logged == {path.name for path in pretrained.FOLDER.iterdir()}


def test_the_shipped_model_can_be_challenged(seeded):
    """Its tags are those that a trained version has, and its age is known."""
    verdict = registry.challenge(seeded.name, seeded.number, alias="champion", min_gain=0.1)
    assert verdict == (
        False,
        f"val_macro_f1 {float(seeded.tags['val_macro_f1']):.4f} does not beat "
        f"{float(seeded.tags['val_macro_f1']):.4f} by 0.1",
    )
    assert timedelta() <= datetime.now(timezone.utc) - seeded.created < timedelta(minutes=5)


def test_challenges_take_turns(seeded):
    """Else two that compare themselves with the same champion could both win, and the worse one last."""
    challenge = partial(registry.challenge, seeded.name, seeded.number, alias="champion", min_gain=0.1)
    with ThreadPoolExecutor(1) as other:
        with runs.exclusive_store():
            verdict = other.submit(challenge)
            assert wait([verdict], timeout=1).not_done
        assert verdict.result(timeout=60)[0] is False


def test_a_second_time_nothing_happens(seeded):
    assert pretrained.seed() == seeded
    assert len(registry.versions("emotion-detection")) == 1


def test_a_local_file_is_used_where_it_lies(seeded, tmp_path):
    assert tmp_path in registry.fetch(f"models:/{seeded.name}/{seeded.number}").parents


def test_a_champion_that_is_there_stays(seeded):
    registry.set_alias(seeded.name, "other", seeded.number)
    assert pretrained.seed().aliases == ("champion", "other")


def test_an_alias_moves(seeded):
    registry.set_alias(seeded.name, "spare", 1)
    assert registry.resolve("models:/emotion-detection@spare").number == 1


@pytest.mark.parametrize(
    "uri", ["models:/nobody@champion", "models:/emotion-detection@gone", "models:/emotion-detection/9"]
)
def test_what_is_not_registered_is_named_with_the_remedy(seeded, uri):  # noqa: ARG001
    with pytest.raises(InputError, match=rf"the registry has no {uri}: .*seed-registry"):
        registry.fetch(uri)


@pytest.mark.parametrize("uri", ["models:/", "models:/only-a-name", "file.onnx", "models:/a@b/3"])
def test_what_names_no_version_is_refused(uri):
    with pytest.raises(InputError, match="write models:/name@alias or models:/name/number"):
        registry.resolve(uri)


@pytest.mark.parametrize("kind", ["no database", "a folder"])
def test_a_store_that_is_none_is_named_with_the_remedy(store, tmp_path, kind):  # noqa: ARG001
    path = tmp_path / "mlflow.db"
    path.unlink()
    path.mkdir() if kind == "a folder" else path.write_text("nothing that SQLite would know")
    with pytest.raises(InputError, match=r"mlflow\.db cannot be used as an MLflow store .*: move it away"):
        registry.versions("emotion-detection")
    with pytest.raises(InputError, match="cannot be used"):
        pretrained.seed()


def test_a_server_that_is_away_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(InputError, match=f"the MLflow store {uri} refused .*: mend or start it"):
            registry.fetch(pretrained.CHAMPION)


def test_an_unknown_name_has_no_versions(store):  # noqa: ARG001
    assert registry.versions("nobody") == []


def test_two_who_seed_at_once_make_one_version_without_tensorflow(store, tmp_path):  # noqa: ARG001
    def seed(_):
        return subprocess.run([sys.executable, "-c", SEED], cwd=tmp_path, capture_output=True, text=True)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(seed, range(2)))
    assert [result.returncode for result in results] == [0, 0], results[0].stderr + results[1].stderr
    assert {result.stdout.strip().splitlines()[-1] for result in results} == {"emotion-detection version 1: champion"}
    assert len(registry.versions("emotion-detection")) == 1
