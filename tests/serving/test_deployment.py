"""The files of deploy/service: safe, consistent, and with commands that run here, without a container runtime."""

import fnmatch
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.serving.conftest import connected
from tests.support.namespaces import UNSHARE, has_namespaces
from tests.support.paths import ROOT
from tests.support.reverse_proxy import free_port

from emotion_detection.cli import app
from emotion_detection.inference.pretrained import MODEL

FOLDER = ROOT / "deploy" / "service"
BOARD = FOLDER / "grafana" / "dashboards" / "service.json"
LOOPBACK = re.compile(r"127\.0\.0\.1:[0-9]+:[0-9]+")
PINNED = re.compile(r"[a-z0-9/-]+:v?[0-9]+\.[0-9]+\.[0-9]+(-[a-z0-9-]+)?")
# /tmp keeps its files, because the project itself may be there.
READ_ONLY = "mount --bind /tmp /tmp && mount -o remount,bind,ro / && cd /tmp && exec "


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, without comments and with joined lines."""
    text = re.sub(r"^#.*\n", "", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line)]


def final_stage() -> dict[str, str]:
    """The last instruction of each kind in the image that is deployed."""
    found = instructions()
    start = max(place for place, (name, _) in enumerate(found) if name == "FROM")
    return dict(found[start:])


def documents() -> dict[str, Any]:
    """The objects of the Kubernetes manifest by their kind."""
    return {one["kind"]: one for one in yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())}


def pod() -> Any:
    return documents()["Deployment"]["spec"]["template"]["spec"]


def here(command: list[str], port: int) -> list[str]:
    """A command of the image, for this environment and another port."""
    names = {"python": [sys.executable], "emotion-detection": [sys.executable, "-m", "emotion_detection"]}
    return [word.replace("8000", str(port)) for part in command for word in names.get(part, [part])]


def test_image_starts_answers_its_health_check_and_ends():
    """As in a container with a read-only root file system, where only /tmp can be written."""
    stage, port = final_stage(), free_port()
    command = here(json.loads(stage["ENTRYPOINT"]) + json.loads(stage["CMD"]), port)
    check = here(json.loads(stage["HEALTHCHECK"].partition("CMD ")[2]), port)
    if has_namespaces():
        command = [*UNSHARE, READ_ONLY + shlex.join(command)]
    assert subprocess.run(check, stderr=subprocess.DEVNULL).returncode == 1
    environment = os.environ | {"HOME": "/tmp", "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["MLFLOW_TRACKING_URI"] = "sqlite:////tmp/none.db"  # else that of the project
    with subprocess.Popen(command, env=environment, cwd="/tmp", stdout=subprocess.DEVNULL) as server:
        try:
            while subprocess.run(check, stderr=subprocess.DEVNULL).returncode:
                assert server.poll() is None
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0


def test_image_is_pinned_and_does_not_run_as_root():
    bases = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    assert len(set(bases)) == 1
    assert PINNED.fullmatch(bases[0])
    assert final_stage()["USER"] == "10001:10001"


def test_image_is_built_from_files_that_its_context_contains():
    patterns = (FOLDER / "Dockerfile.dockerignore").read_text().split()
    assert patterns[0] == "*"
    sources = next(rest.split()[:-1] for name, rest in instructions() if name == "COPY" and "pyproject.toml" in rest)
    for source in [*sources, "src"]:
        assert (ROOT / source).exists()
        assert any(fnmatch.fnmatch(f"!{source}", pattern) for pattern in patterns)
    readme = re.search(r'^readme = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert readme is not None
    assert readme[1] in sources


def test_versions_in_the_image_are_those_of_the_lock_file():
    lock = (ROOT / "requirements.lock").read_text()
    text = (FOLDER / "Dockerfile").read_text()
    headless = re.search(r"opencv-python-headless==([0-9.]+)", text)
    assert headless is not None
    assert f"opencv-python=={headless[1]}\n" in lock
    server = re.search(r"mlflow\[auth\]==([0-9.]+)", (ROOT / "deploy" / "team" / "Dockerfile").read_text())
    assert server is not None
    assert load("compose.yaml")["services"]["mlflow"]["image"].endswith(f":{server[1]}")
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    for image in (load("compose.yaml")["services"]["serve"]["image"], pod()["containers"][0]["image"]):
        assert image == f"emotion-detection-serve:{version[1]}"


@pytest.mark.parametrize("place", ["compose", "kubernetes"])
def test_options_of_the_service_exist(place):
    options = (
        load("compose.yaml")["services"]["serve"]["command"] if place == "compose" else pod()["containers"][0]["args"]
    )
    app.parse_args(["serve", *options], exit_on_error=False, print_error=False)


def test_options_of_mlflow_exist():
    from mlflow.cli import cli

    words = load("compose.yaml")["services"]["mlflow"]["command"]
    assert words[:2] == ["mlflow", "server"]
    cli.commands["server"].make_context("server", words[2:])


def test_containers_have_no_rights_that_they_do_not_need():
    services = load("compose.yaml")["services"]
    for name, service in services.items():
        assert all(LOOPBACK.fullmatch(port) for port in service["ports"]), name
        assert PINNED.fullmatch(service["image"]), name
    serve = services["serve"]
    assert serve["read_only"] is True
    assert serve["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in serve["security_opt"]
    assert serve["mem_limit"]
    container = pod()["containers"][0]
    assert pod()["automountServiceAccountToken"] is False
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert f"{pod()['securityContext']['runAsUser']}:10001" == final_stage()["USER"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert set(container["resources"]["limits"]) >= {"cpu", "memory", "ephemeral-storage"}


def test_files_of_the_compose_files_exist():
    compose, team = load("compose.yaml"), load("compose.team.yaml")
    named = [one for service in compose["services"].values() for one in service.get("volumes", ())]
    for source in (one.partition(":")[0] for one in named):
        assert (FOLDER / source).exists() if source.startswith(".") else source in compose["volumes"]
    for service in compose["services"].values():
        build = service.get("build")
        dockerfile = f"{build}/Dockerfile" if isinstance(build, str) else build and f"../../{build['dockerfile']}"
        assert dockerfile is None or (FOLDER / dockerfile).exists()
    assert set(team["services"]) <= set(compose["services"])
    server = yaml.safe_load((ROOT / "deploy" / "team" / "compose.yaml").read_text())
    assert team["networks"]["team"]["name"] == server["networks"]["team"]["name"]
    assert "team" in server["services"]["mlflow"]["networks"]


def test_probes_and_metrics_have_addresses():
    container = pod()["containers"][0]
    paths = {container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    paths.add(load("prometheus.yml")["scrape_configs"][0]["metrics_path"])
    with connected() as client:
        for path in paths:
            assert client.get(path).status_code == 200, path
    assert container["ports"][0]["name"] == documents()["Service"]["spec"]["ports"][0]["targetPort"]
    target = load("prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"][0]
    assert target == f"{load('compose.yaml')['services']['serve']['hostname']}:8000"


@pytest.fixture(scope="module")
def samples(photo) -> dict[str, list[dict[str, str]]]:
    """The labels of all samples by their name, as a service with a challenger prints them after some requests."""
    with connected(shadow=str(MODEL), shadow_share=1) as client:
        for path in ("/", "/metrics", "/v2/health/live", "/v2/health/ready"):
            client.get(path)
        client.post("/v1/recognize", content=photo)
        text = ""
        while 'shadow_requests_total{result="compared"} 1.0' not in text:
            threading.Event().wait(0.05)  # the challenger has the lowest priority
            text = client.get("/metrics").text
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {name: [one.labels for one in found if one.name == name] for name in {one.name for one in found}}


def board_panels() -> list[Any]:
    return list(json.loads(BOARD.read_text())["panels"])


def shown() -> list[tuple[str, str]]:
    """The expressions of the board and the legends that name their labels."""
    return [(one["expr"], one["legendFormat"]) for panel in board_panels() for one in panel["targets"]]


def alerts() -> dict[str, str]:
    return {rule["alert"]: rule["expr"] for group in load("alerts.yml")["groups"] for rule in group["rules"]}


def test_board_and_alerts_use_metrics_and_labels_that_exist(samples):
    expressions = [(expression, "") for expression in alerts().values()] + shown()
    for expression, legend in expressions:
        selectors = re.findall(r"\b(emotion_detection_\w+)(?:{(.*?)})?", expression)
        assert len(selectors) == expression.count("emotion_detection_")
        grouped = {label for labels in re.findall(r"by \((.*?)\)", expression) for label in labels.split(", ")}
        for name, matchers in selectors:
            assert name in samples, expression
            wanted = grouped | set(re.findall(r'(\w+)(?:=~|!~|!=|=)"', matchers))
            assert all(wanted <= labels.keys() for labels in samples[name]), expression
        assert set(re.findall(r"{{(\w+)}}", legend)) <= grouped, expression
        assert expression.count("(") == expression.count(")")
    jobs = set(re.findall(r'job="(.*?)"', str(expressions)))
    assert jobs == {load("prometheus.yml")["scrape_configs"][0]["job_name"]}


def test_table_of_emotions_has_the_labels_of_its_query(samples):
    (panel,) = [panel for panel in board_panels() if panel["type"] == "table"]
    (matrix,) = panel["transformations"]
    labels = {matrix["options"]["rowField"], matrix["options"]["columnField"]}
    assert all(one.keys() == labels for one in samples["emotion_detection_shadow_faces_total"])


def test_rates_and_latencies_leave_probes_out(samples):
    """Probes are many and fast: they would hide requests that fail or are slow."""
    probes, others = {"/metrics", "/v2/health/live", "/v2/health/ready"}, {"/", "/v1/recognize"}
    assert {labels["route"] for labels in samples["emotion_detection_requests_total"]} == probes | others
    text = str([*alerts().values(), *shown()])
    selectors = re.findall(r"emotion_detection_request(?:s_total|_seconds_bucket)(?:{(.*?)})?", text)
    assert len(selectors) == 7
    for selector in selectors:
        pattern = re.search(r'route!~"(.*?)"', selector)
        assert pattern, selectors
        assert all(re.fullmatch(pattern[1], route) for route in probes)
        assert not any(re.fullmatch(pattern[1], route) for route in others)


def test_image_keeps_what_a_registry_in_a_file_needs():
    removed = re.findall(r"pip uninstall --yes (.*?) &&", " ".join(rest for _, rest in instructions()))
    assert removed
    assert "cryptography" not in " ".join(removed).split()


def test_board_is_found_and_finds_its_data():
    (source,) = load("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    board = json.loads(BOARD.read_text())
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {source["uid"]}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    grafana = load("compose.yaml")["services"]["grafana"]
    (provider,) = load("grafana/provisioning/dashboards/service.yaml")["providers"]
    folder = Path(provider["options"]["path"])
    assert any(f":{folder}:" in volume for volume in grafana["volumes"])
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == str(folder / BOARD.name)
