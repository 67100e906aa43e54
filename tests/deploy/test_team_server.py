"""The team's MLflow server: what its files declare is safe, complete and known to the installed MLflow."""

import json
import re
import runpy
import subprocess
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import yaml
from mlflow import cli, environment_variables
from mlflow.exceptions import RestException
from tests.support.paths import ROOT

TEAM = ROOT / "deploy" / "team"
COMPOSE = (TEAM / "compose.yaml").read_text()
SERVICES = yaml.safe_load(COMPOSE)["services"]
VARIABLE = re.compile(r"\$\{(\w+)(?::[-?]([^}]*))?\}")
SECRET = re.compile("PASSWORD|SECRET|ACCESS_KEY")
PASSWORD = "alice-has-one-1"


def test_nothing_is_published_beyond_this_machine_by_default():
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(published) == 2
    assert all(port.startswith("${TEAM_ADDRESS:-127.0.0.1}:") for port in published)


def test_the_database_and_the_store_are_out_of_reach_of_other_services():
    assert [name for name, service in SERVICES.items() if "team" in service["networks"]] == ["mlflow"]


def test_images_have_a_version():
    named = [service["image"] for service in SERVICES.values()]
    named += re.findall(r"^FROM (\S+)", (TEAM / "Dockerfile").read_text(), re.MULTILINE)
    assert len(named) == 4
    assert [image for image in named if not re.search(r":\d+\.\d+", image)] == []


def test_every_service_has_a_health_check():
    assert [name for name, service in SERVICES.items() if not service.get("healthcheck")] == []
    assert set(SERVICES["mlflow"]["depends_on"]) == {"postgres", "store"}


def test_no_secret_is_in_a_file():
    values = [(key, value) for service in SERVICES.values() for key, value in service.get("environment", {}).items()]
    secrets = [(key, value) for key, value in values if SECRET.search(key)]
    assert len(secrets) == 6
    assert [key for key, value in secrets if not VARIABLE.fullmatch(value)] == []
    accounts = yaml.safe_load(COMPOSE)["configs"]["store_accounts"]["content"]
    keys = [key for one in json.loads(accounts)["identities"] for key in one["credentials"][0].values()]
    assert len(keys) == 4
    assert [key for key in keys if not VARIABLE.fullmatch(key)] == []
    uris = [word for service in SERVICES.values() for word in service.get("command", ()) if "://" in word]
    uris += re.findall(r"\S+://\S+", (TEAM / "basic_auth.ini").read_text())
    assert uris
    assert [uri for uri in uris if re.search("//[^/]*:[^/]*@", uri)] == []


def test_the_key_of_the_data_opens_no_other_bucket():
    accounts = json.loads(yaml.safe_load(COMPOSE)["configs"]["store_accounts"]["content"])["identities"]
    opened = {one["name"]: {action.partition(":")[2] for action in one["actions"]} for one in accounts}
    assert opened == {"mlflow": {"mlflow"}, "dvc": {"dvc"}}
    (store,) = SERVICES["store"]["configs"]
    assert f"-s3.config={store['target']}" in SERVICES["store"]["command"]
    (buckets,) = (word.partition("=")[2] for word in SERVICES["store"]["command"] if word.startswith("-bucket="))
    assert set(buckets.split(",")) == {"mlflow", "dvc"}
    (files,) = (word.partition("=")[2] for word in SERVICES["mlflow"]["command"] if "--artifacts-destination" in word)
    assert files == "s3://mlflow"


def test_the_example_names_all_secrets_and_has_none():
    needed = {name for name, default in VARIABLE.findall(COMPOSE) if SECRET.search(name)}
    example = dict(line.split("=") for line in (TEAM / ".env.example").read_text().splitlines() if "=" in line)
    assert {name for name, value in example.items() if not name.startswith("#")} == needed
    assert not any(example[name] for name in needed)


def test_git_ignores_the_secrets():
    command = ["git", "check-ignore", "--quiet", "--no-index", "deploy/team/.env"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def test_a_start_without_secrets_is_refused():
    """A variable with :? stops docker compose; each secret has one where it is used first."""
    first_uses: dict[str, str] = {}
    for name, default in re.findall(r"\$\{(\w+)(:\?)?", COMPOSE):
        first_uses.setdefault(name, default)
    assert {default for name, default in first_uses.items() if SECRET.search(name)} == {":?"}


def test_mlflow_knows_the_options_and_the_variables():
    known = {name for option in cli.server.params for name in option.opts}
    used = [word.partition("=")[0] for word in SERVICES["mlflow"]["command"] if word.startswith("--")]
    assert len(used) == 7
    assert set(used) <= known
    # The cookie's key is read by the extra auth, which is not installed here.
    variables = {name for name in SERVICES["mlflow"]["environment"] if name.startswith("MLFLOW_")}
    assert {name for name in variables if not hasattr(environment_variables, name)} == set()


def test_the_server_has_the_versions_of_the_lock():
    lock = (ROOT / "requirements.lock").read_text()
    image = (TEAM / "Dockerfile").read_text()
    for package in ("mlflow", "psycopg"):
        version = re.search(rf"^{package}==(\S+)", lock, re.MULTILINE)
        assert version
        assert re.search(rf'"{package}\[\w+\]=={re.escape(version[1])}"', image)
        if package == "mlflow":
            assert SERVICES["mlflow"]["image"].endswith(f":{version[1]}")


def test_accounts_are_stored_in_a_database_that_is_created():
    created = re.findall(r"CREATE DATABASE (\w+);", (TEAM / "accounts.sql").read_text())
    assert created == re.findall(r"database_uri = \S+/(\w+)", (TEAM / "basic_auth.ini").read_text())


@dataclass
class FakeServer:
    """MLflow's client of accounts."""

    users: list[str] = field(default_factory=list)
    roles: list[SimpleNamespace] = field(default_factory=list)
    granted: list[tuple[int, str, str, str]] = field(default_factory=list)
    assigned: set[tuple[str, int]] = field(default_factory=set)

    def get_user(self, name):
        if name not in self.users:
            raise RestException({"error_code": "RESOURCE_DOES_NOT_EXIST"})

    def create_user(self, name, password):
        assert password == PASSWORD
        self.users.append(name)

    def list_roles(self, workspace):
        assert workspace == "default"
        return self.roles

    def create_role(self, workspace, name, description):
        assert workspace
        assert description
        self.roles.append(SimpleNamespace(id=len(self.roles) + 7, name=name))
        return self.roles[-1]

    def list_role_permissions(self, role):
        return [SimpleNamespace(resource_type=kind) for number, kind, *_ in self.granted if number == role]

    def add_role_permission(self, *grant):
        self.granted.append(grant)

    def list_user_roles(self, name):
        return [SimpleNamespace(id=role) for user, role in self.assigned if user == name]

    def assign_role(self, name, role):
        self.assigned.add((name, role))

    def unassign_role(self, name, role):
        self.assigned.remove((name, role))


@pytest.fixture
def set_account(monkeypatch):
    monkeypatch.setenv("ACCOUNT_PASSWORD", PASSWORD)
    return runpy.run_path(str(TEAM / "accounts.py"))["set_account"]


def test_a_trainer_may_edit_and_a_reader_may_not(set_account):
    server = FakeServer()
    assert set_account(server, "alice", "trainer") == "alice is a new trainer"
    assert set_account(server, "demo", "reader") == "demo is a new reader"
    assert set_account(server, "bob", "trainer") == "bob is a new trainer"
    assert sorted(server.assigned) == [("alice", 7), ("bob", 7)]
    assert server.granted == [(7, "experiment", "*", "EDIT"), (7, "registered_model", "*", "EDIT")]


def test_an_account_can_change_its_role(set_account):
    server = FakeServer()
    set_account(server, "alice", "trainer")
    assert set_account(server, "alice", "reader") == "alice is a reader now"
    assert not server.assigned
    set_account(server, "alice", "trainer")
    set_account(server, "alice", "trainer")
    assert server.users == ["alice"]
    assert server.assigned == {("alice", 7)}
