"""docs/kubernetes.md and its manifest: the schema, the numbers, the command and the code."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import kubernetes_validate  # type: ignore[import-untyped]  # it ships no types
import nats as nats_py
import pytest
import uvicorn
import yaml
from jsonschema import (  # type: ignore[import-untyped]  # it ships no types
    Draft202012Validator,
    ValidationError,
)

from faststream_adapters import BrokerLifespan, make_ping_asgi, make_readiness_asgi
from faststream_adapters._brokers.codes import CODES
from faststream_adapters._endpoints.options import PROBE_TIMEOUT
from faststream_adapters._lifecycle.supervisor import SUBSCRIBERS_INTERVAL
from tests.docs.blocks import ROOT, at_nats, code_blocks, load, python_blocks, served, wait_until
from tests.harness.clients import client as client_of
from tests.harness.clients import status
from tests.harness.management import answer
from tests.harness.scrapes import Scrape
from tests.harness.servers import HOST, hold_port, poll
from tests.harness.servers.asgi import AppServer

if TYPE_CHECKING:
    from types import ModuleType

    from faststream.asgi.types import ASGIApp

    from tests.harness.servers.nats import NatsServer

PAGE = "docs/kubernetes.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
BLOCKS = python_blocks(PAGE)
FIRST = "Probes on Kubernetes 1"
OPTIONAL = "Readiness and a broker that all pods share 1"
BACKGROUND = "Start 1"
DRAIN = "Stop 1"
HANGING = "Handlers that hang 1"
ACCESS_LOG = "The access log 1"
WORKER = "Processes without HTTP 1"

EXAMPLE = ROOT / "examples" / "kubernetes"
MAIN = EXAMPLE / "main.py"
MANIFEST = (EXAMPLE / "deployment.yaml").read_text(encoding="utf-8")
RESOURCES: dict[str, Any] = {each["kind"]: each for each in yaml.safe_load_all(MANIFEST)}
POD = RESOURCES["Deployment"]["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
PROBES = {kind: CONTAINER[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
PATHS = {kind: probe["httpGet"]["path"] for kind, probe in PROBES.items()}
POD_MONITOR = yaml.safe_load((EXAMPLE / "podmonitor.yaml").read_text(encoding="utf-8"))
(METRICS,) = (endpoint["path"] for endpoint in POD_MONITOR["spec"]["podMetricsEndpoints"])
WORKERS = yaml.safe_load((EXAMPLE / "worker.yaml").read_text(encoding="utf-8"))
WORKER_POD = WORKERS["spec"]["template"]
(WORKER_CONTAINER,) = WORKER_POD["spec"]["containers"]
PORTS = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
MANAGEMENT = f"0.0.0.0:{PORTS['management']}"
IN_HOST = {f'    management_bind="{MANAGEMENT}",\n': ""}
"""What to change in an application so that its probes are in the host."""


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {FIRST, OPTIONAL, BACKGROUND, DRAIN, HANGING, ACCESS_LOG, WORKER}


# The manifest


def minor_versions() -> list[str]:
    """Return the newest minor version of Kubernetes with a schema, and the one three before it."""
    major, minor = kubernetes_validate.latest_version().split(".")[:2]
    return [f"{major}.{minor}", f"{major}.{int(minor) - 3}"]


@pytest.mark.parametrize("version", minor_versions())
@pytest.mark.parametrize("resource", [*RESOURCES.values(), WORKERS], ids=[*RESOURCES, "workers"])
def test_the_manifest_matches_the_schema(resource: dict[str, Any], version: str) -> None:
    assert kubernetes_validate.validate(resource, version, strict=True) == version


@pytest.mark.parametrize("version", minor_versions())
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("failureThreshold: 15", "failureTreshold: 15"),
        ("timeoutSeconds: 1", 'timeoutSeconds: "1"'),
        ("terminationGracePeriodSeconds", "terminationGraceSeconds"),
        ("readOnlyRootFilesystem", "readOnlyRootFileSystem"),
        ("sleep:", "wait:"),
        ("secretKeyRef", "secretRef"),
        ("targetPort", "target"),
    ],
)
def test_the_schema_detects_a_mistake_in_the_manifest(old: str, new: str, version: str) -> None:
    # Only the resources that contain the text.
    broken = [each.replace(old, new) for each in MANIFEST.split("\n---\n") if old in each]
    assert broken
    for resource in broken:
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(yaml.safe_load(resource), version, strict=True)


# kubernetes-validate has no schemas of custom resources.
CUSTOM = {"podmonitor": "podmonitor", "keda": "scaledobject"}


def custom_resource(name: str) -> tuple[str, Draft202012Validator]:
    """Return the text of the manifest of a custom resource, and its schema."""
    schema = json.loads((ROOT / "tests" / "docs" / "schemas" / f"{CUSTOM[name]}.json").read_text("utf-8"))
    return (EXAMPLE / f"{name}.yaml").read_text("utf-8"), Draft202012Validator(schema)


@pytest.mark.parametrize("name", CUSTOM)
def test_the_manifest_of_a_custom_resource_matches_its_schema(name: str) -> None:
    text, schema = custom_resource(name)
    schema.validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("podmonitor", "podMetricsEndpoints", "endpoints"),
        ("podmonitor", "- port: management", "- port: 8081"),
        ("podmonitor", "interval: 15s", "interval: 15 s"),
        ("podmonitor", "matchLabels", "labels"),
        ("podmonitor", "coreos.com/v1", "coreos.com/v2"),
        ("keda", "maxReplicaCount", "maxReplicas"),
        ("keda", 'threshold: "100"', "threshold: 100"),
        ("keda", "behavior: currentReplicasIfHigher", "behavior: currentIfHigher"),
        ("keda", "scaleTargetRef", "target"),
    ],
)
def test_the_schema_detects_a_mistake_in_a_custom_resource(name: str, old: str, new: str) -> None:
    text, schema = custom_resource(name)
    assert text.count(old) == 1
    with pytest.raises(ValidationError):
        schema.validate(yaml.safe_load(text.replace(old, new)))


def test_labels_and_ports_of_the_manifest_match() -> None:
    deployment, service = RESOURCES["Deployment"], RESOURCES["Service"]
    labels = POD["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    assert {port["targetPort"] for port in service["spec"]["ports"]} == {"http"}
    assert {probe["httpGet"]["port"] for probe in PROBES.values()} == {"management"}
    assert set(PORTS) == {"http", "management"}
    for code in (MAIN.read_text(encoding="utf-8"), BLOCKS[FIRST].code):
        assert code.count(f'management_bind="{MANAGEMENT}"') == 1


def test_the_pod_is_restricted() -> None:
    # The "restricted" Pod Security Standard, and a read-only root file system.
    pod = POD["spec"]["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["spec"]["automountServiceAccountToken"] is False


def budget(probe: dict[str, Any]) -> int:
    """Return the seconds of failures after which the kubelet acts."""
    seconds: int = probe.get("initialDelaySeconds", 0) + probe["periodSeconds"] * probe["failureThreshold"]
    return seconds


def option(name: str) -> int:
    """Return the number that the container's command passes for an option."""
    return int(CONTAINER["args"][CONTAINER["args"].index(name) + 1])


@pytest.fixture
def lifespan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BrokerLifespan:
    """Return the lifespan of the application that the manifest runs."""
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    lifespan = load(MAIN.read_text(encoding="utf-8"), tmp_path).app.broker_lifespan
    assert isinstance(lifespan, BrokerLifespan)
    return lifespan


def test_the_time_limits_of_the_manifest_fit_together(lifespan: BrokerLifespan) -> None:
    for probe in PROBES.values():
        assert PROBE_TIMEOUT < probe["timeoutSeconds"] <= probe["periodSeconds"]
    assert lifespan.startup == "strict"
    assert budget(PROBES["startup"]) > lifespan.startup_timeout

    # uvicorn has no limit by default.
    assert uvicorn.Config("main:app").timeout_graceful_shutdown is None
    parts = {
        "preStop": CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"],
        "drain_delay": lifespan.drain_delay,
        "uvicorn": option("--timeout-graceful-shutdown"),
        "shutdown_timeout": lifespan.shutdown_timeout,
    }
    grace = POD["spec"]["terminationGracePeriodSeconds"]
    assert grace > sum(parts.values())
    sums = (
        "preStop {preStop} + drain_delay {drain_delay:g} + {uvicorn} + shutdown_timeout {shutdown_timeout:g}"
    )
    page = " ".join(TEXT.replace("`", "").split())
    documented = sums.replace("{uvicorn}", "uvicorn {uvicorn}").format(**parts)
    assert f"{documented} = {sum(parts.values()):g} s, and {grace} s of terminationGracePeriodSeconds" in page
    commented = sums.replace("{uvicorn}", "uvicorn's --timeout-graceful-shutdown {uvicorn}").format(**parts)
    assert f"# More than {commented}." in MANIFEST
    startup = PROBES["startup"]
    tries = f"{startup['failureThreshold']} tries, {startup['periodSeconds']} s apart"
    assert f"# {tries}: more than startup_timeout, {lifespan.startup_timeout:g} s," in MANIFEST
    assert f"within probe_timeout, {PROBE_TIMEOUT:g} s." in MANIFEST


def test_the_application_of_the_manifest_uses_the_default_time_limits(lifespan: BrokerLifespan) -> None:
    default = BrokerLifespan(*lifespan.brokers)
    for name in ("startup", "startup_timeout", "drain_delay", "shutdown_timeout"):
        assert getattr(lifespan, name) == getattr(default, name)


def test_the_numbers_of_the_page_match_the_code(lifespan: BrokerLifespan) -> None:
    rows = [line.split(" | ") for line in TEXT.splitlines() if line.startswith("| `")]
    documented = {cells[0].strip("| "): cells[1] for cells in rows}
    assert documented["`probe_timeout`"] == f"{PROBE_TIMEOUT:g} s"
    assert documented["`startup_timeout`"].startswith(f"{lifespan.startup_timeout:g} s ")
    total = f"{lifespan.drain_delay:g} s + {lifespan.shutdown_timeout:g} s"
    assert documented["`drain_delay` + `shutdown_timeout`"] == total
    assert f"asked about its consumers every {SUBSCRIBERS_INTERVAL:g} s" in " ".join(TEXT.split())
    delays = {kind: budget(probe) + probe["timeoutSeconds"] for kind, probe in PROBES.items()}
    assert f"{delays['readiness']} s for readiness and {delays['liveness']} s for liveness" in TEXT


def test_the_probes_of_the_page_match_the_manifest() -> None:
    probes = yaml.safe_load(code_blocks(PAGE, "yaml")["A manifest to start from 1"].code)
    assert probes == {f"{kind}Probe": probe for kind, probe in PROBES.items()}


def test_the_commands_of_the_page_match_the_manifest() -> None:
    build, secret, apply = code_blocks(PAGE, "sh")["A manifest to start from 1"].code.splitlines()
    assert f"-t {CONTAINER['image']} " in build
    (variable,) = CONTAINER["env"]
    reference = variable["valueFrom"]["secretKeyRef"]
    assert f"secret generic {reference['name']} --from-literal={reference['key']}=nats://" in secret
    files = [word for word in (*build.split(), *apply.split()) if word.startswith("examples/")]
    assert len(files) == 2
    (monitoring,) = code_blocks(PAGE, "sh")["Metrics, alerts and scaling 1"].code.splitlines()
    files += [word for word in monitoring.split() if word.startswith("examples/")]
    assert len(files) == 4
    assert all((ROOT / file).is_file() for file in files)


def test_the_dockerfile_copies_what_the_build_needs() -> None:
    lines = (EXAMPLE / "Dockerfile").read_text(encoding="utf-8").splitlines()
    steps = [line.split() for line in lines if line and not line.startswith("#")]
    copied = {source for instruction, *words in steps if instruction == "COPY" for source in words[:-1]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    hatch = project["tool"]["hatch"]
    needed = {"pyproject.toml", "README.md", *project["project"]["license-files"]}
    needed |= {hatch["metadata"]["hooks"]["custom"]["path"], *hatch["build"]["targets"]["wheel"]["packages"]}
    assert copied == needed | {MAIN.relative_to(ROOT).as_posix()}
    (extras,) = (words[-1] for instruction, *words in steps if instruction == "RUN")
    assert set(re.findall(r"\w+", extras)) <= set(project["project"]["optional-dependencies"])
    (user,) = (words[0] for instruction, *words in steps if instruction == "USER")
    context = POD["spec"]["securityContext"]
    assert user == f"{context['runAsUser']}:{context['runAsGroup']}"


def test_the_pods_are_scraped_where_their_metrics_are() -> None:
    spec = POD_MONITOR["spec"]
    (endpoint,) = spec["podMetricsEndpoints"]
    labels = POD["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels
    assert endpoint["port"] in PORTS
    assert f'metrics_path="{METRICS}"' in MAIN.read_text(encoding="utf-8")
    # The job that the autoscalers select.
    job = labels[spec["jobLabel"]]
    keda, hpa = (
        yaml.safe_load((EXAMPLE / f"{name}.yaml").read_text(encoding="utf-8"))["spec"]
        for name in ("keda", "hpa")
    )
    assert f'job="{job}"' in keda["triggers"][0]["metadata"]["query"]
    assert hpa["metrics"][0]["external"]["metric"]["selector"]["matchLabels"]["job"] == job


@pytest.mark.full
def test_a_probe_through_a_unix_socket_runs_as_documented(nats: NatsServer, tmp_path: Path) -> None:
    probe = yaml.safe_load(code_blocks(PAGE, "yaml")["Without a port 1"].code)["readinessProbe"]
    bind = "unix:/run/probes/app.sock"
    assert f'management_bind="{bind}"' in TEXT
    own = f"unix:{tmp_path}/app.sock"
    pod = copy.deepcopy(RESOURCES["Deployment"])
    pod["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = probe
    for version in minor_versions():
        kubernetes_validate.validate(pod, version, strict=True)
    command = [word.replace(bind, own) for word in probe["exec"]["command"]]
    assert command[0] == "python"
    code = changed(at_nats(BLOCKS[FIRST].code, nats.url), {MANAGEMENT: own})
    with AppServer.uvicorn(code):
        # 1 s is what the kubelet waits unless the manifest says more.
        assert 1 < probe["timeoutSeconds"] <= probe["periodSeconds"]
        done = subprocess.run([sys.executable, *command[1:]], capture_output=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr


# The application that the manifest runs


def manifest_server(nats: NatsServer, management: str) -> AppServer:
    """Return a server with the container's command, at addresses of this test."""
    command = [*CONTAINER["command"], *CONTAINER["args"]]
    replacements = {"0.0.0.0": HOST, str(PORTS["http"]): "{port}"}
    assert all(command.count(word) == 1 for word in replacements)
    names = [variable["name"] for variable in CONTAINER["env"]]
    return AppServer(
        [replacements.get(word, word) for word in command],
        app=changed(MAIN.read_text(encoding="utf-8"), {MANAGEMENT: management}),
        env={"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        | dict.fromkeys(names, nats.url),
    )


def statuses(http: httpx.Client) -> dict[str, int]:
    return {kind: http.get(path).status_code for kind, path in PATHS.items()}


def test_each_probe_of_the_manifest_calls_the_endpoint_of_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    app = load(changed(MAIN.read_text(encoding="utf-8"), IN_HOST), tmp_path).app
    kinds = {path: endpoint.name for path, endpoint in app.routes if path in PATHS.values()}
    assert kinds == {path: kind for kind, path in PATHS.items()}


@pytest.mark.full
def test_the_command_of_the_manifest_serves_logs_and_stops(nats_js: NatsServer, free_address: str) -> None:
    healthy = dict.fromkeys(PATHS, 200)
    with (
        manifest_server(nats_js, free_address) as server,
        httpx.Client(base_url=server.url, timeout=30) as http,
        httpx.Client(base_url=f"http://{free_address}", timeout=30) as management,
    ):
        assert statuses(management) == healthy
        assert statuses(http) == dict.fromkeys(PATHS, 404)
        assert http.post("/orders", json={"item": "tea", "quantity": 0}).status_code == 422
        assert http.post("/orders", json={"item": "tea", "quantity": 2}).status_code == 202
        server.wait_output("2 of tea")

        def metric(name: str, **labels: str) -> float | None:
            return Scrape(management.get(METRICS).text)(f"faststream_adapters_{name}", **labels)

        subscriber = {"broker": "NatsBroker 1", "subscriber": "process"}
        assert (metric("ready"), metric("subscriber_up", **subscriber)) == (1.0, 1.0)
        # The server is asked some seconds after the start.
        assert poll(lambda: metric("subscriber_backlog", **subscriber, shared="true") == 0.0, 30)

        nats_js.freeze()
        assert statuses(management) == {**healthy, "readiness": 503}
        assert management.get(PATHS["readiness"]).json()["code"] == "timeout"
        nats_js.thaw()
        assert poll(lambda: statuses(management) == healthy, 30)

        server.terminate()
        assert server.wait(30) == -signal.SIGTERM
        output = server.output()
    assert "draining -> stopped" in output
    assert "Traceback" not in output
    # Neither the probes that succeeded nor the one that failed.
    logged = set(re.findall(r'"(\w+ \S+) HTTP/1.1" (?:2|422|503)', output))
    assert logged == {"POST /orders"}


# The code of the page


def application(name: str, url: str, directory: Path, **changes: str) -> ModuleType:
    return load(changed(at_nats(BLOCKS[name].code, url), changes), directory)


def changed(code: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert code.count(old) == 1
        code = code.replace(old, new)
    return code


async def statuses_of(client: httpx.AsyncClient, *paths: str) -> list[int]:
    return [(await client.get(path)).status_code for path in paths]


async def eventually_statuses(client: httpx.AsyncClient, expected: dict[str, int]) -> None:
    """Wait until the paths answer with these statuses."""
    async with asyncio.timeout(30):
        while await statuses_of(client, *expected) != [*expected.values()]:  # noqa: ASYNC110 (the change happens in a server)
            await asyncio.sleep(0.02)


async def test_the_first_block_has_the_documented_probes(nats: NatsServer, tmp_path: Path) -> None:
    fast_reconnect = {f"({nats.url!r})": f"({nats.url!r}, reconnect_time_wait=0)"}
    module = application(FIRST, nats.url, tmp_path, **fast_reconnect, **IN_HOST)
    assert {path for path, _ in module.app.routes} == set(PATHS.values())
    async with served(module.app) as client:
        assert await statuses_of(client, *PATHS.values()) == [200, 200, 200]
        nats.kill()
        await eventually_statuses(client, {"/readyz": 503, "/livez": 200, "/startupz": 200})
        nats.restart()
        await eventually_statuses(client, {"/readyz": 200, "/livez": 200, "/startupz": 200})


async def details(app: ASGIApp) -> Any:
    async with client_of(app) as http:
        return (await http.get("/")).json()


async def test_an_optional_broker_does_not_fail_readiness(shared_nats: NatsServer, tmp_path: Path) -> None:
    port, held = hold_port()
    with held or nullcontext():
        changes = {"nats://audit:4222": f"nats://{HOST}:{port}"}
        app = application(OPTIONAL, shared_nats.url, tmp_path, **changes).app
        async with served(app) as client:
            assert await statuses_of(client, *PATHS.values()) == [200, 200, 200]
            assert (await details(make_readiness_asgi(app, details=True)))["status"] == "warn"
            assert await status(make_ping_asgi(app)) == 500


@pytest.mark.full
def test_http_is_not_served_during_a_strict_start() -> None:
    port, held = hold_port()
    code = changed(at_nats(BLOCKS[FIRST].code, f"nats://{HOST}:{port}"), IN_HOST)
    with held or nullcontext(), AppServer.uvicorn(code, ready_path=None) as server:
        server.wait_output("is not up yet; waiting for it, for at most 20 s.", 30)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}{PATHS['startup']}")


async def test_readiness_and_startup_fail_until_a_start_in_the_background_succeeds(
    nats: NatsServer, tmp_path: Path
) -> None:
    nats.stop()
    module = application(BACKGROUND, nats.url, tmp_path)
    async with served(module.app) as client:
        assert await statuses_of(client, "/livez", "/readyz", "/startupz") == [200, 503, 503]
        nats.start()
        await eventually_statuses(client, {"/livez": 200, "/readyz": 200, "/startupz": 200})


async def test_liveness_fails_after_the_startup_timeout_in_the_background(tmp_path: Path) -> None:
    port, held = hold_port()
    with held or nullcontext():
        changes = {"startup_timeout=300.0": "startup_timeout=0.1"}
        module = application(BACKGROUND, f"nats://{HOST}:{port}", tmp_path, **changes)
        async with served(module.app) as client:
            await eventually_statuses(client, {"/livez": 503, "/readyz": 503, "/startupz": 503})


async def send(nats: NatsServer, subject: str, message: bytes) -> None:
    client = await nats_py.connect(nats.url)
    await client.publish(subject, message)
    await client.drain()


@pytest.mark.full
def test_requests_and_messages_are_handled_during_the_drain_delay(shared_nats: NatsServer) -> None:
    code = at_nats(BLOCKS[DRAIN].code, shared_nats.url)
    code = changed(code, {'"orders", queue': '"drained", queue', "drain_delay=5.0": "drain_delay=2.0"})
    with AppServer.uvicorn(code, ready_path="/livez") as server:
        server.terminate()
        server.wait_output("running -> draining")
        # New connections and new messages are still accepted.
        assert [httpx.get(server.url + path).status_code for path in ("/readyz", "/livez")] == [503, 200]
        asyncio.run(send(shared_nats, "drained", b"coffee"))
        server.wait_output("coffee")
        assert server.wait(30) == -signal.SIGTERM
        output = server.output()
    positions = [output.index(text) for text in ("-> draining", "coffee\n", "draining -> stopped")]
    assert positions == sorted(positions)


async def test_a_hanging_handler_fails_liveness(shared_nats: NatsServer, tmp_path: Path) -> None:
    code = changed(
        at_nats(BLOCKS[HANGING].code, shared_nats.url),
        {
            '"orders", queue': '"hanging", queue',
            "    print(item)": "    await proceed.wait()",
            "max_handler_age=600.0": "max_handler_age=0.2, probe_details=True",
        },
    )
    module = load(f"import asyncio\nproceed = asyncio.Event()\n{code}", tmp_path)
    async with served(module.app) as client:
        assert await statuses_of(client, "/livez", "/readyz") == [200, 200]
        await module.broker.publish("tea", "hanging")
        await eventually_statuses(client, {"/livez": 503, "/readyz": 200})
        assert (await client.get("/livez")).json()["code"] == "handler_stuck"
        module.proceed.set()
        await eventually_statuses(client, {"/livez": 200})


async def test_the_details_of_the_page_match_the_response(shared_nats: NatsServer, tmp_path: Path) -> None:
    changes = {'readiness_path="/readyz",': 'readiness_path="/readyz", probe_details=True,'}
    module = application(FIRST, shared_nats.url, tmp_path, **changes, **IN_HOST)
    (block,) = code_blocks(PAGE, "json").values()
    async with served(module.app) as client:
        response = await client.get("/readyz")
    assert response.status_code == 200
    assert without_times(response.json()) == without_times(json.loads(block.code))


def without_times(body: Any) -> Any:
    body = copy.deepcopy(body)
    entry = body["checks"]["NatsBroker"][0]
    assert isinstance(entry.pop("observedValue"), float)
    assert isinstance(entry.pop("age"), float)
    return body


def test_the_page_lists_every_code() -> None:
    section = TEXT.split("\n## Details\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \| ", section, re.MULTILINE)) - {"code"} == CODES
    consumers = TEXT.split("\n## What readiness can see of consumers\n")[1].split("\n## ")[0]
    named = {name for cell in re.findall(r"\| yes \| ([^|]+) \|", consumers) for name in cell.split(", ")}
    assert {name.strip("`") for name in named} < CODES


def test_the_linked_section_of_the_examples_exists() -> None:
    page = (ROOT / "docs" / "getting-started.md").read_text(encoding="utf-8")
    assert "(getting-started.md#try-it-in-your-application)" in TEXT
    assert 'queue="order-service"' in page.split("\n## Try it in your application\n")[1].split("\n## ")[0]


# The access log

UVICORN = ("-m", "uvicorn", "main:app", "--host", HOST, "--port", "{port}")
SERVERS = {
    "uvicorn": UVICORN,
    "uvicorn --workers": (*UVICORN, "--workers", "2"),
    "faststream run": ("-m", "faststream", "run", "main:app", "--host", HOST, "--port", "{port}"),
}
SERVERS_WITHOUT_ACCESS_LOG = {
    "granian": ("-m", "granian", "--interface", "asgi", "--host", HOST, "--port", "{port}", "main:app"),
    "hypercorn": ("-m", "hypercorn", "--bind", f"{HOST}:{{port}}", "main:app"),
}


def logged(nats: NatsServer, arguments: tuple[str, ...], code: str = "") -> set[str]:
    """Request each probe and a missing path, and return the paths in the server's log."""
    app = f"{code}\n{changed(at_nats(BLOCKS[FIRST].code, nats.url), IN_HOST)}"
    with AppServer([sys.executable, *arguments], app=app, ready_path="/livez") as server:
        with httpx.Client(base_url=server.url, timeout=30) as http:
            responses = [http.get(path).status_code for path in (*PATHS.values(), "/missing")]
        assert responses == [200, 200, 200, 404]
        server.terminate()
        server.wait(30)
        return set(re.findall(r"GET (/\w+)", server.output()))


@pytest.mark.full
@pytest.mark.parametrize("arguments", SERVERS.values(), ids=SERVERS)
def test_probes_that_succeed_are_not_logged(shared_nats: NatsServer, arguments: tuple[str, ...]) -> None:
    assert logged(shared_nats, arguments, BLOCKS[ACCESS_LOG].code) == {"/missing"}


@pytest.mark.full
def test_probes_are_logged_without_the_filter(shared_nats: NatsServer) -> None:
    assert logged(shared_nats, UVICORN) == {*PATHS.values(), "/missing"}


@pytest.mark.full
@pytest.mark.parametrize("arguments", SERVERS_WITHOUT_ACCESS_LOG.values(), ids=SERVERS_WITHOUT_ACCESS_LOG)
def test_some_servers_log_no_requests_by_default(shared_nats: NatsServer, arguments: tuple[str, ...]) -> None:
    assert logged(shared_nats, arguments) == set()


# The management server


async def test_the_first_block_answers_during_a_strict_start_and_the_drain(
    nats: NatsServer, tmp_path: Path, free_address: str
) -> None:
    nats.stop()
    changes = {MANAGEMENT: free_address, f"({nats.url!r})": f"({nats.url!r}, reconnect_time_wait=0.1)"}
    module = application(FIRST, nats.url, tmp_path, **changes)
    drained: list[str | None] = []

    async def ask() -> None:
        drained.append(await answer(free_address, "/readyz"))

    module.app.after_shutdown(ask)

    async def serve() -> None:
        async with served(module.app):
            assert await answer(free_address, "/startupz") == "200 ok"

    async def starting() -> bool:
        return await answer(free_address, "/startupz") == "503 starting"

    serving = asyncio.create_task(serve())
    await wait_until(starting)
    assert await answer(free_address, "/livez") == "200 ok"
    nats.start()
    await serving
    assert drained == ["503 draining"]


# Workers


def test_the_workers_differ_from_the_web_pods_in_what_the_page_says(lifespan: BrokerLifespan) -> None:
    changes = yaml.safe_load(code_blocks(PAGE, "yaml")[WORKER].code)
    assert changes.items() <= WORKER_CONTAINER.items()
    own = {"name", "image", "command", "args", "ports"}
    same = {name: value for name, value in CONTAINER.items() if name not in {*own, "lifecycle"}}
    assert same == {name: value for name, value in WORKER_CONTAINER.items() if name not in own}
    assert {port["name"]: port["containerPort"] for port in WORKER_CONTAINER["ports"]} == {
        "management": PORTS["management"]
    }
    shared = {"automountServiceAccountToken", "securityContext"}
    assert {name: WORKER_POD["spec"][name] for name in shared} == {name: POD["spec"][name] for name in shared}
    assert WORKERS["spec"]["selector"]["matchLabels"] == WORKER_POD["metadata"]["labels"]
    assert WORKERS["spec"]["strategy"] == RESOURCES["Deployment"]["spec"]["strategy"]
    assert WORKER_POD["spec"]["terminationGracePeriodSeconds"] > lifespan.shutdown_timeout


@pytest.mark.full
def test_the_workers_consume_and_the_web_pods_publish(nats: NatsServer, free_address: str) -> None:
    code = at_free_port(BLOCKS[WORKER].code)
    command = [*WORKER_CONTAINER["command"], *WORKER_CONTAINER["args"]]
    replacements = {"python": sys.executable, "worker:app": "main:app", MANAGEMENT: free_address}
    assert all(command.count(word) == 1 for word in replacements)
    words = [replacements.get(word, word) for word in command]
    env = {"NATS_URL": nats.url}
    with (
        AppServer(words, app=code, env=env, ready_path=None) as worker,
        AppServer.uvicorn(code, env=env) as web,
        httpx.Client(base_url=f"http://{free_address}", timeout=30) as probes,
    ):
        worker.wait_output("starting -> running")
        assert statuses(probes) == dict.fromkeys(PATHS, 200)
        assert httpx.post(f"{web.url}/orders/tea").status_code == 202
        worker.wait_output("tea ordered")
        nats.freeze()
        assert statuses(probes) == {**dict.fromkeys(PATHS, 200), "readiness": 503}
        nats.thaw()
        worker.terminate()
        assert worker.wait(30) == 0
        assert "tea ordered" not in web.output()


def at_free_port(code: str) -> str:
    """Return the code of an application whose probes are at a free port of this host."""
    return changed(code, {MANAGEMENT: f"{HOST}:0"})
