"""docs/tutorial.md: each step works, in its order, with a real NATS server."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from contextlib import AsyncExitStack, nullcontext
from typing import TYPE_CHECKING, Any

import httpx
import kubernetes_validate  # type: ignore[import-untyped]  # it ships no types
import pytest
import yaml

from tests.docs.blocks import (
    ROOT,
    assert_promises,
    at_nats,
    code_blocks,
    curl,
    eventually,
    load,
    python_blocks,
    run_tests,
    served,
    wait_until,
)
from tests.harness.servers import HOST, hold_port
from tests.harness.servers.asgi import AppServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.servers.nats import NatsServer

PAGE = "docs/tutorial.md"
BLOCKS = python_blocks(PAGE)
FIRST, DURABLE, TEST = "1. Take an order 1", "3. Lose no order 1", "4. Test it 1"
PUBLISH = "5. Stop it 1"
COMMANDS = code_blocks(PAGE, "sh")
(MANIFEST,) = (yaml.safe_load(block.code) for block in code_blocks(PAGE, "yaml").values())
(CONTAINER,) = MANIFEST["spec"]["template"]["spec"]["containers"]
MANAGEMENT = "0.0.0.0:8081"


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {FIRST, DURABLE, TEST, PUBLISH}
    steps = ("1. Take an order", "2. See a fault", "3. Lose no order", "5. Stop it", "7. Deploy it")
    assert {name[:-2] for name in COMMANDS} == set(steps)


async def shows(client: httpx.AsyncClient, command: str, **addresses: str) -> None:
    """Wait until the response has the JSON that the comment behind the command promises."""

    async def matches() -> bool:
        response, promised = await curl(client, command, **addresses)
        return response.status_code == 200 and bool(response.json() == json.loads(promised))

    await wait_until(matches)


async def test_an_order_is_taken_and_a_fault_is_seen(nats: NatsServer, tmp_path: Path) -> None:
    module = load(at_nats(BLOCKS[FIRST].code, nats.url), tmp_path)
    place, show = COMMANDS["1. Take an order 4"].code.splitlines()
    commands = COMMANDS["2. See a fault 1"].code
    async with served(module.app) as client:
        response, promised = await curl(client, place)
        assert f"{response.text}, with status {response.status_code}" == promised
        await shows(client, show)
        await assert_promises(client, nats, commands)


@pytest.mark.full
async def test_an_order_that_is_placed_while_the_service_is_down_is_processed(
    nats_js: NatsServer, tmp_path: Path
) -> None:
    image = code_blocks(PAGE, "dockerfile")["6. Put it into an image 1"]
    [command] = re.findall(r"^CMD (.+)$", image.code, re.MULTILINE)
    place, show, ready, metrics = COMMANDS["3. Lose no order 1"].code.splitlines()
    [after] = COMMANDS["5. Stop it 1"].code.splitlines()
    port, held = hold_port()
    app = tmp_path / "main.py"
    app.write_text(BLOCKS[DURABLE].code.replace(MANAGEMENT, f"{HOST}:{port}"), encoding="utf-8")

    def service() -> AppServer:
        words = [word.replace("0.0.0.0", HOST).replace("8000", "{port}") for word in json.loads(command)]
        env = {"NATS_URL": nats_js.url, "DATABASE": str(tmp_path / "orders.db")}
        return AppServer([sys.executable, "-m", *words], app=app, env=env, ready_path="/asyncapi")

    async with AsyncExitStack() as stack:
        stack.enter_context(held or nullcontext())
        client = await stack.enter_async_context(httpx.AsyncClient())
        with service() as server:
            management = f"http://{HOST}:{port}"
            for path in (probe["httpGet"]["path"] for probe in probes().values()):
                assert (await client.get(management + path)).status_code == 200
            addresses = {"p8000": server.url, "p8081": management}
            checks = (await curl(client, ready, **addresses))[0].json()["checks"]
            assert "database" in json.dumps(checks)
            assert "faststream_adapters_ready 1.0" in (await curl(client, metrics, **addresses))[0].text
            assert (await curl(client, place, **addresses))[0].status_code == 202
            await shows(client, show, **addresses)
            server.terminate()
            server.wait()
        publish = tmp_path / "publish.py"
        publish.write_text(at_nats(BLOCKS[PUBLISH].code, nats_js.url), encoding="utf-8")
        publisher = await asyncio.create_subprocess_exec(sys.executable, publish)
        assert await publisher.wait() == 0
        with service() as server:
            await shows(client, after, p8000=server.url)


@pytest.mark.full
async def test_an_order_fails_while_nats_is_away_and_can_be_processed_later(
    nats_js: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, held = hold_port()
    monkeypatch.setenv("NATS_URL", nats_js.url)
    monkeypatch.setenv("DATABASE", str(tmp_path / "orders.db"))
    with held or nullcontext():
        module = load(BLOCKS[DURABLE].code.replace(MANAGEMENT, f"{HOST}:{port}"), tmp_path)
        async with served(module.app) as client:
            nats_js.freeze()
            with pytest.raises(TimeoutError):
                await client.post("/orders/late")
            nats_js.thaw()
            await eventually(client, "/orders", ["late"])


@pytest.mark.full
def test_the_test_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    monkeypatch.setenv("DATABASE", "test.db")
    (settings,) = code_blocks("docs/testing.md", "toml").values()
    files = {"main.py": BLOCKS[DURABLE], "test_main.py": BLOCKS[TEST], "pyproject.toml": settings}
    for file, block in files.items():
        (tmp_path / file).write_text(block.code, encoding="utf-8")
    assert "1 passed" in run_tests(tmp_path, pytestconfig)


def probes() -> dict[str, Any]:
    return {name: CONTAINER[name] for name in ("startupProbe", "livenessProbe", "readinessProbe")}


def test_the_manifest_matches_the_schema_and_the_service() -> None:
    version = ".".join(kubernetes_validate.latest_version().split(".")[:2])
    assert kubernetes_validate.validate(MANIFEST, version, strict=True) == version
    code = BLOCKS[DURABLE].code
    for probe in probes().values():
        assert f'"{probe["httpGet"]["path"]}"' in code
        assert probe["httpGet"]["port"] == "management"
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert ports == {"http": 8000, "management": int(MANAGEMENT.rpartition(":")[2])}
    for variable in CONTAINER["env"]:
        assert f'os.environ.get("{variable["name"]}"' in code


def test_the_extras_exist() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extras in re.findall(r"\.?\[([\w,]+)\]\"", (ROOT / PAGE).read_text(encoding="utf-8")):
        assert [name for name in extras.split(",") if f"\n{name} = [" not in text] == []
