"""A model is found by any of its names, and its lineage is complete, also for runs that recorded less."""

import hashlib
import json

import mlflow
import onnx
import pytest
from tests.support.onnx_files import write_linear
from tests.support.repositories import commit_all, git

from emotion_detection import cli
from emotion_detection.commands.lineage import format_record
from emotion_detection.errors import StoreError, UsageError
from emotion_detection.experiments import lineage as records
from emotion_detection.experiments import references, runs
from emotion_detection.experiments.provenance import origin
from emotion_detection.experiments.references import shipped_facts
from emotion_detection.inference import pretrained

COMMIT = "c0ffee" + "0" * 34
MD5 = "0123456789abcdef0123456789abcdef.dir"
NAME = "tried"


@pytest.fixture
def project(store, tmp_path, monkeypatch):  # noqa: ARG001
    """A project in a repository of its own, with an empty store."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".gitignore").write_text("mlflow.db*\nmlruns/\n*.onnx\n")
    commit_all(tmp_path)
    return tmp_path


def train(name="a training", params=None, files=None, **tags):
    """A finished run; returns its ID."""
    with runs.start_run(name=name, tags={"git_commit": COMMIT, "git_dirty": "false", "dvc_md5": MD5} | tags) as run:
        run.log_params({"train": {"epochs": 3, "widths": (4, 6)} | (params or {})})
        run.log_contents({path: json.dumps(content).encode() for path, content in (files or {}).items()})
    return run.id


def register(run_id, digest="d" * 64, name=NAME, alias=None):
    """A version of a model, without files."""
    client = mlflow.MlflowClient()
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    number = client.create_model_version(name, "somewhere", run_id=run_id, tags={"onnx_sha256": digest}).version
    if alias:
        client.set_registered_model_alias(name, alias, str(number))
    return int(number)


def look_up(reference, project):
    return records.lineage(str(reference), project)


def test_version_and_its_run_are_found_by_every_name(project):
    run_id = train(dvc_experiment="narrow", dataset="sample", onnx_sha256="d" * 64)
    number = register(run_id, alias="champion")
    train("another", git_commit="f" * 40, dvc_md5="f" * 32)
    for reference in (
        f"models:/{NAME}@champion", f"models:/{NAME}/{number}", "d" * 64, run_id, run_id[:8], "narrow", "a training",
        COMMIT, COMMIT[:7], MD5, MD5[:10],
    ):  # fmt: skip
        found = look_up(reference, project)
        assert found["run"]["id"] == run_id, reference
        assert [(one["name"], one["version"], one["aliases"]) for one in found["versions"]] == [(NAME, 1, ["champion"])]


def test_run_is_found_by_a_branch_and_by_the_commit_of_its_experiment(project):
    commit = git(project, "rev-parse", "HEAD")
    run_id = train(git_commit=commit, git_dirty="true", dvc_experiment="narrow")
    (project / "params.yaml").write_text("1\n")
    own = commit_all(project)
    git(project, "update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/narrow", own)
    git(project, "reset", "-q", "--hard", commit)
    git(project, "branch", "tried-here")
    for reference in ("tried-here", "HEAD", own, own[:8]):
        found = look_up(reference, project)
        assert found["run"]["id"] == run_id, reference
        assert found["dvc_experiment"] == {"name": "narrow", "commit": own}
        assert found["code"]["is_here"]


def test_removed_experiment_has_no_commit(project):
    found = look_up(train(dvc_experiment="gone"), project)
    assert found["dvc_experiment"] == {"name": "gone", "commit": None}
    assert not found["code"]["is_here"]


def test_unknown_reference_lists_what_was_searched(project):
    train()
    for reference in ("nonsense", "'\"`", "12ab", "--help", "f" * 64):
        with pytest.raises(UsageError, match=r"was not found in sqlite.* no run, no DVC experiment, no commit"):
            look_up(reference, project)
    with pytest.raises(StoreError):
        look_up("models:/nothing@champion", project)


def test_ambiguous_reference_names_the_runs(project):
    first, second = train(), train()
    with pytest.raises(UsageError, match="stands for 2 runs") as error:
        look_up(COMMIT, project)
    assert first in str(error.value)
    assert second in str(error.value)


def test_onnx_file_is_found_by_its_digest_or_by_the_run_that_it_names(project):
    path = write_linear(project / "model.onnx")
    with pytest.raises(UsageError, match=r"model\.onnx is unknown"):
        look_up(path, project)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    register(train(), digest)
    assert look_up(path, project)["versions"][0]["version"] == 1
    run_id, model = train("unregistered"), onnx.load(path)
    onnx.helper.set_model_props(model, {"run_id": run_id})
    onnx.save(model, path)
    assert look_up(path, project)["run"]["id"] == run_id


def test_shipped_model_is_known_without_a_registry(project, monkeypatch):
    monkeypatch.setattr(references, "commit_of_content", lambda _: "00473c5")
    found = look_up(pretrained.MODEL, project)
    assert found["versions"] == []
    assert found["params"]["train.epochs"] == shipped_facts()["train"]["epochs"]
    assert found["code"]["commit"] == shipped_facts()["git_commit"]
    assert {parent["kind"] for parent in found["parents"]} == {"initial_weights", "averaged_weights"}
    text = "\n".join(format_record(found))
    assert "shipped model, not registered" in text
    assert "added_in 00473c5" in " ".join(text.split())


def test_training_without_recorded_parents_has_those_of_its_settings(project):
    settings = {
        "initial_weights": "a.npz",
        "average": {"weights": ("b.npz", "c.npz"), "share": 0.5},
        "distillation": {"teachers": ("d.onnx",)},
    }
    found = look_up(train(params=settings), project)["parents"]
    assert [(parent["kind"], parent["path"]) for parent in found] == [
        ("initial_weights", "a.npz"),
        ("teacher", "d.onnx"),
        ("averaged_weights", "b.npz"),
        ("averaged_weights", "c.npz"),
    ]
    wrong = {"average": {"weights": 5}, "distillation": {"teachers": "d.onnx"}}
    assert look_up(train(params=wrong), project)["parents"] == []


def test_run_is_no_parent_of_itself(project):
    digest = "a" * 64
    weights = [{"kind": "initial_weights", "path": "a.npz", "sha256": digest, "made_by": [{"name": "unknown"}]}]
    first = train("first", weights_sha256=digest)
    run_id = train("same weights again", weights_sha256=digest, parents=digest, files={"parents.json": weights})
    found = look_up(run_id, project)
    (parent,) = found["parents"]
    assert [maker["run_id"] for maker in parent["made_by"]] == [first]
    assert found["children"] == []


def test_recorded_facts_are_shown(project):
    run_id = train(
        dataset="sample", command="dvc exp run", code_tree="9" * 40,
        files={
            "environment.json": {"python": "3.11.7", "packages": {"numpy": "2"}, "requirements_lock": "ab" * 32},
            "data/data_report.json": {"rows": {"train": 1200, "val": 7}},
            "code/changes.patch": "# left out: film.bin (6.0 MB)\n",
        },
    )  # fmt: skip
    with runs.start_run(run_id) as run:
        run.log_scores({"val_macro_f1": 0.5, "test_clean_accuracy": 0.25, "temperature": 1.5}, history=[{}])
    found = look_up(run_id, project)
    data = {"name": "sample", "digest": None, "dvc_md5": MD5, "label_source": None, "votes_digest": None}
    assert found["data"] == data | {"faces": {"train": 1200, "val": 7}}
    assert found["metrics"] == {"": {"temperature": 1.5}, "val": {"macro_f1": 0.5}, "test_clean": {"accuracy": 0.25}}
    assert found["params"] == {"train.epochs": 3, "train.widths": [4, 6]}
    assert found["code"]["patch"] == "code/changes.patch"
    text = "\n".join(format_record(found))
    for words in ("dvc exp run", "1,200 train", "Python 3.11.7, numpy 2", "macro_f1 0.5", "train.widths [4, 6]"):
        assert words in text


def test_changes_before_a_commit_are_gone_when_the_training_goes_on(project):
    (project / "new.py").write_text("1\n")
    (project / "film.bin").write_bytes(bytes(6_000_000))
    first = origin({}, project)
    run_id = train(**first.tags)
    with runs.start_run(run_id) as run:
        run.log_contents(first.files)
    assert look_up(run_id, project)["code"]["patch"]
    commit_all(project)
    second = origin({}, project)
    with runs.start_run(run_id, tags=second.tags) as run:
        run.log_contents(second.files)
    code = look_up(run_id, project)["code"]
    assert (code["dirty"], code["patch"], code["left_out"]) == (False, None, [])
    assert mlflow.MlflowClient().get_run(run_id).data.tags["code_left_out"] == ""


def test_json_of_values_that_json_does_not_have(project, capsys):
    params = {"a": "...", "b": "{1, 2}", "c": "b'x'", "d": "1e999", "e": "{1: 2}", "f": [(1, 2)], "g": {"h": None}}
    run_id = train(params=params)
    mlflow.MlflowClient().log_metric(run_id, "val_loss", float("nan"))
    cli.main(["lineage", run_id, "--json"])

    def refuse(name):
        raise ValueError(name)

    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found["metrics"]["val"]["loss"] is None
    stored = {"a": "...", "b": "{1, 2}", "c": "b'x'", "d": None, "e": "{1: 2}", "f": [[1, 2]]}
    assert stored.items() <= {key.removeprefix("train."): value for key, value in found["params"].items()}.items()
    assert project.is_dir()


def test_control_characters_are_not_printed(project):
    makers = [{"name": "\x1b[2Jteacher\nsecond", "note": "\x1b]0;title\x07"}]
    weights = [{"kind": "initial_weights", "path": "\x1bw.npz", "sha256": None, "made_by": makers}]
    run_id = train(
        "\x1b[31mred", params={"note": "\x1b[0m\u202e"}, files={"parents.json": weights}, command="dvc\x1b[H\x9b1m"
    )
    lines = list(format_record(look_up(run_id, project)))
    assert all(line.isprintable() for line in lines)
    assert any("[2Jteacher second" in line for line in lines)


def test_run_without_records_is_described(project):
    with runs.start_run() as run:
        pass
    found = look_up(run.id, project)
    text = "\n".join(format_record(found))
    for name in ("command", "code", "data", "environment", "params", "parents", "evidence"):
        assert f"  {name:<13} not recorded" in text, name
    assert found["parents"] == []


def test_former_challenger_is_described_with_what_a_service_has_counted(project):
    number = register(train())
    before = "\n".join(format_record(look_up(f"models:/{NAME}/{number}", project)))
    shadow = {"champion": "models:/tried/7", "faces": 9, "agreement": 0.5, "counts": [[1]]}
    mlflow.MlflowClient().set_model_version_tag(NAME, str(number), "shadow", json.dumps(shadow))
    found = look_up(f"models:/{NAME}/{number}", project)
    assert found["shadow"] == shadow
    line = "  as challenger champion models:/tried/7, faces 9, agreement 0.5"
    assert line in format_record(found)
    assert "as challenger" not in before
    for damaged in ("[" * 4000, "[1]", "3"):
        mlflow.MlflowClient().set_model_version_tag(NAME, str(number), "shadow", damaged)
        assert "as challenger" not in "\n".join(format_record(look_up(f"models:/{NAME}/{number}", project)))


def test_version_whose_run_is_gone_is_described(project):
    run_id = train()
    number = register(run_id)
    mlflow.MlflowClient().delete_run(run_id)
    found = look_up(f"models:/{NAME}/{number}", project)
    assert found["run"] == {"id": run_id, "name": None, "status": None, "started": None, "ended": None}
    assert "which this store does not have" in "\n".join(format_record(found))


def family():
    """A grandparent whose weights the parent started with, and a child that learned from the parent."""
    old = train("grandparent", weights_sha256="a" * 64)
    weights = [{"kind": "initial_weights", "path": "w.npz", "sha256": "a" * 64, "made_by": []}]
    middle = train("parent", files={"parents.json": weights}, parents="a" * 64, onnx_sha256="b" * 64)
    teachers = [{"kind": "soft_labels", "path": "s.npz", "sha256": "c" * 64, "made_by": [{"sha256": "b" * 64}]}]
    young = train("child", files={"parents.json": teachers}, parents=f"{'c' * 64} {'b' * 64}", onnx_sha256="d" * 64)
    return old, middle, young


def test_ancestry_reaches_the_first_generation(project):
    old, middle, young = family()
    register(middle, "b" * 64, name="teacher")
    (labels,) = look_up(young, project)["parents"]
    (teacher,) = labels["made_by"]
    (weights,) = teacher["parents"]
    assert (teacher["run_id"], teacher["versions"]) == (middle, ["models:/teacher/1"])
    assert [one["run_id"] for one in weights["made_by"]] == [old]


def test_children_of_a_model_are_found(project):
    old, middle, young = family()
    assert [one["run_id"] for one in look_up(old, project)["children"]] == [middle]
    assert [one["run_id"] for one in look_up(middle, project)["children"]] == [young]
    assert look_up(young, project)["children"] == []


def test_damaged_parents_are_ignored(project):
    damaged = [
        1,
        {},
        {"kind": "soft_labels", "path": "s.npz", "made_by": [1]},
        {"kind": "k", "path": "p", "made_by": 1},
    ]
    found = look_up(train(files={"parents.json": damaged, "environment.json": [1]}), project)
    assert [(one["path"], one["made_by"]) for one in found["parents"]] == [("s.npz", []), ("p", [])]
    assert "s.npz" in "\n".join(format_record(found))


def test_parents_with_values_of_another_type_are_described(project, capsys):
    damaged = [
        {"kind": ["k"], "path": "p"},
        {"kind": "k", "path": 5},
        {"kind": "k", "path": "p", "sha256": 5, "made_by": [{"run_id": 5, "name": ["n"], "sha256": {}, "parents": 5}]},
        {"kind": "k", "path": "q", "made_by": [{"name": "n", "parents": [{"kind": "k", "path": "r", "made_by": 7}]}]},
    ]
    run_id = train(files={"parents.json": damaged})
    assert [one["path"] for one in look_up(run_id, project)["parents"]] == ["p", "q"]
    cli.main(["lineage", run_id, "--figure", str(project / "family.png")])
    assert "k q" in capsys.readouterr().out


def test_digests_that_are_none_do_not_become_filters(project):
    other = train("other", onnx_sha256="e" * 64)
    for text in ("' OR '", "x' or tags.git_commit = 'y", "%", "\\'"):
        maker = {"run_id": text, "sha256": text}
        parent = {"kind": "initial_weights", "path": "w.npz", "sha256": text, "made_by": [maker]}
        found = look_up(train(files={"parents.json": [parent]}, onnx_sha256=text, parents=other), project)
        assert found["parents"][0]["made_by"] == [maker]
        assert found["children"] == []


def test_model_that_is_its_own_ancestor_ends(project):
    itself = [{"kind": "initial_weights", "path": "w.npz", "sha256": "a" * 64, "made_by": []}]
    assert look_up(train(weights_sha256="a" * 64, files={"parents.json": itself}), project)["parents"]


def test_command_prints_text_json_and_a_figure(project, capsys):
    _, _, young = family()
    cli.main(["lineage", young])
    text = capsys.readouterr().out
    assert "soft labels s.npz" in text
    assert "└─ parent" in text
    cli.main(["lineage", young, "--json", "--figure", str(project / "family.png")])
    assert json.loads(capsys.readouterr().out)["run"]["id"] == young
    assert (project / "family.png").read_bytes().startswith(b"\x89PNG")


def test_command_refuses_another_kind_of_figure(project, capsys):
    with pytest.raises(SystemExit):
        cli.main(["lineage", "HEAD", "--figure", str(project / "family.svg")])
    assert "use a name that ends with .png" in capsys.readouterr().err
