"""The page about Kubernetes and its manifest: the schema, the numbers, the command and the code are right."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import re
import signal
import sys
import tomllib
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import httpx
import kubernetes_validate  # type: ignore[import-untyped]  # it ships no types
import nats as nats_py
import pytest
import uvicorn
import yaml

from faststream_adapters import BrokerLifespan, make_ping_asgi, make_readiness_asgi
from faststream_adapters.brokers import Code
from faststream_adapters.endpoints import PROBE_TIMEOUT
from faststream_adapters.supervision import CONSUMERS_INTERVAL
from tests.examples.blocks import ROOT, at_nats, code_blocks, load, python_blocks, served
from tests.servers import HOST, hold_port, poll
from tests.servers.asgi import AppServer
from tests.support import client as client_of
from tests.support import status

if TYPE_CHECKING:
    from types import ModuleType

    from faststream.asgi.types import ASGIApp

    from tests.servers.nats import NatsServer

PAGE = "docs/kubernetes.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
BLOCKS = python_blocks(PAGE)
FIRST = "Probes on Kubernetes 1"
OPTIONAL = "Readiness and a broker that all pods share 1"
BACKGROUND = "Start 1"
DRAIN = "Stop 1"
HANGING = "Handlers that hang 1"
ACCESS_LOG = "The access log 1"

EXAMPLE = ROOT / "examples" / "kubernetes"
MAIN = EXAMPLE / "main.py"
MANIFEST = (EXAMPLE / "deployment.yaml").read_text(encoding="utf-8")
RESOURCES: dict[str, Any] = {each["kind"]: each for each in yaml.safe_load_all(MANIFEST)}
POD = RESOURCES["Deployment"]["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
PROBES = {kind: CONTAINER[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
PATHS = {kind: probe["httpGet"]["path"] for kind, probe in PROBES.items()}
(PORT,) = (port["containerPort"] for port in CONTAINER["ports"])


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {FIRST, OPTIONAL, BACKGROUND, DRAIN, HANGING, ACCESS_LOG}


# The manifest


def minor_versions() -> list[str]:
    """Return the newest version of Kubernetes whose schema there is, and the one three minors before."""
    major, minor = kubernetes_validate.latest_version().split(".")[:2]
    return [f"{major}.{minor}", f"{major}.{int(minor) - 3}"]


@pytest.mark.parametrize("version", minor_versions())
@pytest.mark.parametrize("kind", RESOURCES)
def test_the_schema(kind: str, version: str) -> None:
    assert kubernetes_validate.validate(RESOURCES[kind], version, strict=True) == version


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
def test_the_schema_knows_a_mistake(old: str, new: str, version: str) -> None:
    # The resources in the file that have it, for this rule to be broken in.
    wrong = [each.replace(old, new) for each in MANIFEST.split("\n---\n") if old in each]
    assert wrong
    for resource in wrong:
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(yaml.safe_load(resource), version, strict=True)


def test_what_belongs_together() -> None:
    deployment, service = RESOURCES["Deployment"], RESOURCES["Service"]
    labels = POD["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    names = {port["name"] for port in CONTAINER["ports"]}
    asked = {probe["httpGet"]["port"] for probe in PROBES.values()}
    assert asked == {port["targetPort"] for port in service["spec"]["ports"]} == names


def test_the_pod_may_do_nothing_that_it_need_not() -> None:
    # What the "restricted" Pod Security Standard asks for, and a root file system that nobody writes to.
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
    """Return after how many seconds of failures the kubelet acts."""
    seconds: int = probe.get("initialDelaySeconds", 0) + probe["periodSeconds"] * probe["failureThreshold"]
    return seconds


def option(name: str) -> int:
    """Return the number that the container's command has for an option."""
    return int(CONTAINER["args"][CONTAINER["args"].index(name) + 1])


@pytest.fixture
def lifespan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BrokerLifespan:
    """Return the lifespan of the application that the manifest runs."""
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    found = load(MAIN.read_text(encoding="utf-8"), tmp_path).app.broker_lifespan
    assert isinstance(found, BrokerLifespan)
    return found


def test_the_numbers(lifespan: BrokerLifespan) -> None:
    for probe in PROBES.values():
        assert PROBE_TIMEOUT < probe["timeoutSeconds"] <= probe["periodSeconds"]
    assert lifespan.startup == "strict"
    assert budget(PROBES["startup"]) > lifespan.startup_timeout

    # uvicorn's own limit is none.
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
    said = sums.replace("{uvicorn}", "uvicorn {uvicorn}").format(**parts)
    assert f"{said} = {sum(parts.values()):g} s, and {grace} s of terminationGracePeriodSeconds" in page
    named = sums.replace("{uvicorn}", "uvicorn's --timeout-graceful-shutdown {uvicorn}").format(**parts)
    assert f"# More than {named}." in MANIFEST
    startup = PROBES["startup"]
    tries = f"{startup['failureThreshold']} tries, {startup['periodSeconds']} s apart"
    assert f"# {tries}: more than startup_timeout, {lifespan.startup_timeout:g} s," in MANIFEST
    assert f"within probe_timeout, {PROBE_TIMEOUT:g} s." in MANIFEST


def test_the_manifest_leaves_the_defaults_as_they_are(lifespan: BrokerLifespan) -> None:
    default = BrokerLifespan(*lifespan.brokers)
    for name in ("startup", "startup_timeout", "drain_delay", "shutdown_timeout"):
        assert getattr(lifespan, name) == getattr(default, name)


def test_numbers_of_the_page(lifespan: BrokerLifespan) -> None:
    rows = [line.split(" | ") for line in TEXT.splitlines() if line.startswith("| `")]
    said = {cells[0].strip("| "): cells[1] for cells in rows}
    assert said["`probe_timeout`"] == f"{PROBE_TIMEOUT:g} s"
    assert said["`startup_timeout`"].startswith(f"{lifespan.startup_timeout:g} s ")
    total = f"{lifespan.drain_delay:g} s + {lifespan.shutdown_timeout:g} s"
    assert said["`drain_delay` + `shutdown_timeout`"] == total
    assert f"asked about its consumers every {CONSUMERS_INTERVAL:g} s" in " ".join(TEXT.split())
    late = {kind: budget(probe) + probe["timeoutSeconds"] for kind, probe in PROBES.items()}
    assert f"{late['readiness']} s for readiness and {late['liveness']} s for liveness" in TEXT


def test_probes_of_the_page() -> None:
    (block,) = code_blocks(PAGE, "yaml").values()
    assert yaml.safe_load(block.code) == {f"{kind}Probe": probe for kind, probe in PROBES.items()}


def test_commands_of_the_page() -> None:
    (block,) = code_blocks(PAGE, "sh").values()
    build, secret, apply = block.code.splitlines()
    assert f"-t {CONTAINER['image']} " in build
    (variable,) = CONTAINER["env"]
    reference = variable["valueFrom"]["secretKeyRef"]
    assert f"secret generic {reference['name']} --from-literal={reference['key']}=nats://" in secret
    files = [word for word in (*build.split(), *apply.split()) if word.startswith("examples/")]
    assert len(files) == 2
    assert all((ROOT / file).is_file() for file in files)


def test_the_dockerfile() -> None:
    lines = (EXAMPLE / "Dockerfile").read_text(encoding="utf-8").splitlines()
    steps = [line.split() for line in lines if line and not line.startswith("#")]
    copied = {source for instruction, *words in steps if instruction == "COPY" for source in words[:-1]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert copied == needed | {MAIN.relative_to(ROOT).as_posix()}
    (extras,) = (words[-1] for instruction, *words in steps if instruction == "RUN")
    assert set(re.findall(r"\w+", extras)) <= set(project["project"]["optional-dependencies"])
    (user,) = (words[0] for instruction, *words in steps if instruction == "USER")
    context = POD["spec"]["securityContext"]
    assert user == f"{context['runAsUser']}:{context['runAsGroup']}"


# The application that the manifest runs


def manifest_server(nats: NatsServer) -> AppServer:
    """Return the server that the container's command starts, at an address of ours."""
    command = [*CONTAINER["command"], *CONTAINER["args"]]
    ours = {"0.0.0.0": HOST, str(PORT): "{port}"}
    assert all(command.count(word) == 1 for word in ours)
    names = [variable["name"] for variable in CONTAINER["env"]]
    return AppServer(
        [ours.get(word, word) for word in command],
        app=MAIN,
        env={"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        | dict.fromkeys(names, nats.url),
        ready_path=PATHS["startup"],
    )


def statuses(http: httpx.Client) -> dict[str, int]:
    return {kind: http.get(path).status_code for kind, path in PATHS.items()}


def test_the_probes_are_what_the_manifest_takes_them_for(lifespan: BrokerLifespan) -> None:
    assert lifespan.app is not None
    routes: list[tuple[str, Any]] = getattr(lifespan.app, "routes", [])
    served_as = {path: endpoint.name for path, endpoint in routes if path in PATHS.values()}
    assert served_as == {path: kind for kind, path in PATHS.items()}


def test_the_command(nats: NatsServer) -> None:
    well = dict.fromkeys(PATHS, 204)
    with manifest_server(nats) as server, httpx.Client(base_url=server.url, timeout=30) as http:
        assert statuses(http) == well
        assert http.post("/orders", json={"item": "tea", "quantity": 0}).status_code == 422
        assert http.post("/orders", json={"item": "tea", "quantity": 2}).status_code == 202
        server.wait_output("2 of tea")

        nats.freeze()
        assert statuses(http) == {**well, "readiness": 503}
        nats.thaw()
        assert poll(lambda: statuses(http) == well, 30)

        server.terminate()
        assert server.wait(30) == -signal.SIGTERM
        output = server.output()
    assert "draining -> stopped" in output
    assert "Traceback" not in output
    logged = set(re.findall(r'"(\w+ \S+) HTTP/1.1" (\d+)', output))
    # Once or more: readiness takes a moment to come back.
    assert logged == {("POST /orders", "422"), ("POST /orders", "202"), (f"GET {PATHS['readiness']}", "503")}


# The code of the page


def application(name: str, url: str, directory: Path, **changes: str) -> ModuleType:
    return load(changed(at_nats(BLOCKS[name].code, url), changes), directory)


def changed(code: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert code.count(old) == 1
        code = code.replace(old, new)
    return code


async def answers(client: httpx.AsyncClient, *paths: str) -> list[int]:
    return [(await client.get(path)).status_code for path in paths]


async def becomes(client: httpx.AsyncClient, expected: dict[str, int]) -> None:
    """Ask until the paths have these statuses."""
    async with asyncio.timeout(30):
        while await answers(client, *expected) != [*expected.values()]:  # noqa: ASYNC110 (it is a server's answer)
            await asyncio.sleep(0.02)


async def test_probes_of_a_consumer(nats: NatsServer, tmp_path: Path) -> None:
    module = application(FIRST, nats.url, tmp_path)
    assert {path for path, _ in module.app.routes} == set(PATHS.values())
    async with served(module.app) as client:
        assert await answers(client, *PATHS.values()) == [204, 204, 204]
        nats.kill()
        await becomes(client, {"/readyz": 503, "/livez": 204, "/startupz": 204})
        nats.restart()
        await becomes(client, {"/readyz": 204, "/livez": 204, "/startupz": 204})


async def details(app: ASGIApp) -> Any:
    async with client_of(app) as http:
        return (await http.get("/")).json()


async def test_an_optional_broker(shared_nats: NatsServer, tmp_path: Path) -> None:
    port, held = hold_port()
    with held or nullcontext():
        changes = {"nats://audit:4222": f"nats://{HOST}:{port}"}
        app = application(OPTIONAL, shared_nats.url, tmp_path, **changes).app
        async with served(app) as client:
            assert await answers(client, *PATHS.values()) == [204, 204, 204]
            assert (await details(make_readiness_asgi(app, details=True)))["status"] == "warn"
            assert await status(make_ping_asgi(app)) == 500


def test_a_strict_start_serves_no_http_yet() -> None:
    port, held = hold_port()
    code = at_nats(BLOCKS[FIRST].code, f"nats://{HOST}:{port}")
    with held or nullcontext(), AppServer.uvicorn(code, ready_path=None) as server:
        server.wait_output("is not up yet; waiting for it, for 20 s at most.", 30)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}{PATHS['startup']}")


async def test_a_start_in_the_background(nats: NatsServer, tmp_path: Path) -> None:
    nats.stop()
    module = application(BACKGROUND, nats.url, tmp_path)
    async with served(module.app) as client:
        assert await answers(client, "/livez", "/readyz", "/startupz") == [204, 503, 503]
        nats.start()
        await becomes(client, {"/livez": 204, "/readyz": 204, "/startupz": 204})


async def test_a_start_in_the_background_with_a_limit(tmp_path: Path) -> None:
    port, held = hold_port()
    with held or nullcontext():
        changes = {"startup_timeout=300.0": "startup_timeout=0.1"}
        module = application(BACKGROUND, f"nats://{HOST}:{port}", tmp_path, **changes)
        async with served(module.app) as client:
            await becomes(client, {"/livez": 503, "/readyz": 503, "/startupz": 503})


async def send(nats: NatsServer, subject: str, message: bytes) -> None:
    client = await nats_py.connect(nats.url)
    await client.publish(subject, message)
    await client.drain()


def test_drain_delay(shared_nats: NatsServer) -> None:
    code = at_nats(BLOCKS[DRAIN].code, shared_nats.url)
    code = changed(code, {'"orders", queue': '"drained", queue', "drain_delay=5.0": "drain_delay=3.0"})
    with AppServer.uvicorn(code, ready_path="/livez") as server:
        server.terminate()
        server.wait_output("running -> draining")
        # New connections, and a message that comes only now.
        assert [httpx.get(server.url + path).status_code for path in ("/readyz", "/livez")] == [503, 204]
        asyncio.run(send(shared_nats, "drained", b"coffee"))
        server.wait_output("coffee")
        assert server.wait(30) == -signal.SIGTERM
        output = server.output()
    positions = [output.index(text) for text in ("-> draining", "coffee\n", "draining -> stopped")]
    assert positions == sorted(positions)


async def test_a_handler_that_hangs(shared_nats: NatsServer, tmp_path: Path) -> None:
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
        assert await answers(client, "/livez", "/readyz") == [200, 200]
        await module.broker.publish("tea", "hanging")
        await becomes(client, {"/livez": 503, "/readyz": 200})
        assert (await client.get("/livez")).json()["code"] == "timeout"
        module.proceed.set()
        await becomes(client, {"/livez": 200})


async def test_details(shared_nats: NatsServer, tmp_path: Path) -> None:
    changes = {'readiness_path="/readyz",': 'readiness_path="/readyz", probe_details=True,'}
    module = application(FIRST, shared_nats.url, tmp_path, **changes)
    (block,) = code_blocks(PAGE, "json").values()
    async with served(module.app) as client:
        answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert without_times(answer.json()) == without_times(json.loads(block.code))


def without_times(body: Any) -> Any:
    body = copy.deepcopy(body)
    entry = body["checks"]["NatsBroker"][0]
    assert isinstance(entry.pop("observedValue"), float)
    assert isinstance(entry.pop("age"), float)
    return body


def test_codes() -> None:
    section = TEXT.split("\n## Details\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \| ", section, re.MULTILINE)) - {"code"} == set(get_args(Code))
    consumers = TEXT.split("\n## What readiness can see of consumers\n")[1].split("\n## ")[0]
    named = {name for cell in re.findall(r"\| yes \| ([^|]+) \|", consumers) for name in cell.split(", ")}
    assert {name.strip("`") for name in named} < set(get_args(Code))


def test_the_examples_that_the_page_points_to() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(../README.md#try-it-in-your-application)" in TEXT
    assert 'queue="order-service"' in readme.split("\n## Try it in your application\n")[1].split("\n## ")[0]


# The access log

UVICORN = ("-m", "uvicorn", "main:app", "--host", HOST, "--port", "{port}")
SERVERS = {
    "uvicorn": UVICORN,
    "uvicorn --workers": (*UVICORN, "--workers", "2"),
    "faststream run": ("-m", "faststream", "run", "main:app", "--host", HOST, "--port", "{port}"),
}
SILENT = {
    "granian": ("-m", "granian", "--interface", "asgi", "--host", HOST, "--port", "{port}", "main:app"),
    "hypercorn": ("-m", "hypercorn", "--bind", f"{HOST}:{{port}}", "main:app"),
}


def logged(nats: NatsServer, arguments: tuple[str, ...], code: str = "") -> set[str]:
    """Return the paths in a server's log, after each probe was asked and then a path that there is not."""
    app = f"{code}\n{at_nats(BLOCKS[FIRST].code, nats.url)}"
    with AppServer([sys.executable, *arguments], app=app, ready_path="/livez") as server:
        with httpx.Client(base_url=server.url, timeout=30) as http:
            found = [http.get(path).status_code for path in (*PATHS.values(), "/missing")]
        assert found == [204, 204, 204, 404]
        server.terminate()
        server.wait(30)
        return set(re.findall(r"GET (/\w+)", server.output()))


@pytest.mark.parametrize("arguments", SERVERS.values(), ids=SERVERS)
def test_probes_that_succeed_are_not_logged(shared_nats: NatsServer, arguments: tuple[str, ...]) -> None:
    assert logged(shared_nats, arguments, BLOCKS[ACCESS_LOG].code) == {"/missing"}


def test_probes_are_logged_otherwise(shared_nats: NatsServer) -> None:
    assert logged(shared_nats, UVICORN) == {*PATHS.values(), "/missing"}


@pytest.mark.parametrize("arguments", SILENT.values(), ids=SILENT)
def test_servers_that_log_no_requests(shared_nats: NatsServer, arguments: tuple[str, ...]) -> None:
    assert logged(shared_nats, arguments) == set()


def test_the_application_of_the_manifest_has_the_code_of_the_page() -> None:
    # That it lets failed probes through is seen in `test_the_command`.
    application = MAIN.read_text(encoding="utf-8")
    first, *rest = BLOCKS[ACCESS_LOG].code.split("\n\n", 1)
    assert first in application
    assert rest[0].strip() in application
