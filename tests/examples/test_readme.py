"""Every Python block of the README runs, against a real NATS server, and does what the text says."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from faststream_adapters import BrokerLifespan
from faststream_adapters.endpoints import ProbeKeywords
from faststream_adapters.hosting import EndpointKeywords
from tests.examples.blocks import ROOT, at_nats, connected, eventually, load, python_blocks, served

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.nats import NatsServer

BLOCKS = python_blocks("README.md")

FASTAPI = "Inside FastAPI 1"
FASTAPI_LIFESPAN = "Inside FastAPI 2"
STANDALONE = "Without a web framework 1"
BEFORE = "Coming from `faststream.asgi` 1"
AFTER = "Coming from `faststream.asgi` 2"
STARLETTE = "In any other ASGI framework 1"
LITESTAR = "In any other ASGI framework 2"
TESTING = "Testing 1"

# What each block that is an application answers to GET.
ANSWERS = {
    FASTAPI: {"/livez/": 204, "/readyz/": 204, "/startupz/": 204, "/readyz": 307, "/asyncapi/": 200},
    FASTAPI_LIFESPAN: {"/readyz/": 204},
    STANDALONE: {
        **dict.fromkeys(("/health", "/livez", "/readyz", "/startupz", "/readyz/"), 204),
        **dict.fromkeys(("/docs", "/docs.json", "/docs.yaml", "/docs/asyncapi.json"), 200),
        "/count": 422,
        "/elsewhere": 404,
    },
    BEFORE: {"/health": 204, "/docs": 200},
    AFTER: {"/health": 204, "/docs": 200},
    STARLETTE: {"/livez": 204, "/readyz": 204, "/asyncapi/": 200, "/asyncapi/asyncapi.json": 200},
    LITESTAR: {"/readyz": 204, "/asyncapi": 200, "/asyncapi/asyncapi.json": 200},
}


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {*ANSWERS, TESTING}


@pytest.mark.parametrize("name", ANSWERS)
async def test_application(name: str, shared_nats: NatsServer, tmp_path: Path) -> None:
    module = load(at_nats(BLOCKS[name].code, shared_nats.url), tmp_path)
    async with served(module.app) as client:
        if name == BEFORE:
            await connected(module.broker)
        answers = {path: (await client.get(path)).status_code for path in ANSWERS[name]}
    assert answers == ANSWERS[name]


async def test_fastapi_message(shared_nats: NatsServer, tmp_path: Path) -> None:
    module = load(at_nats(BLOCKS[FASTAPI].code, shared_nats.url), tmp_path)
    async with served(module.app) as client:
        assert (await client.post("/orders/tea")).status_code == 202
        await eventually(client, "/orders", ["tea"])


async def test_fastapi_route_without_redirect(shared_nats: NatsServer, tmp_path: Path) -> None:
    line = 'app.add_route("/readyz", make_readiness_asgi(lifespan))'
    assert f"`{line}`" in (ROOT / "README.md").read_text(encoding="utf-8")
    code = BLOCKS[FASTAPI].code.replace('app.mount("/readyz", make_readiness_asgi(lifespan))', line)
    module = load(at_nats(code, shared_nats.url), tmp_path)
    async with served(module.app) as client:
        assert (await client.get("/readyz")).status_code == 204


async def test_fastapi_own_lifespan_is_around_the_brokers(
    shared_nats: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load(at_nats(BLOCKS[FASTAPI_LIFESPAN].code, shared_nats.url), tmp_path)
    async with served(module.app):
        assert capsys.readouterr().out == "open the database\n"
        assert module.brokers.state == "running"
    assert capsys.readouterr().out == "close the database\n"
    assert module.brokers.state == "stopped"


async def test_standalone_message(shared_nats: NatsServer, tmp_path: Path) -> None:
    module = load(at_nats(BLOCKS[STANDALONE].code, shared_nats.url), tmp_path)
    async with served(module.app) as client:
        await module.broker.publish("tea", "orders")
        await eventually(client, "/count?item=tea&item=coffee", {"tea": 1, "coffee": 0})


async def test_starlette_message(
    shared_nats: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load(at_nats(BLOCKS[STARLETTE].code, shared_nats.url), tmp_path)
    async with served(module.app):
        await module.broker.publish("tea", "orders")
    # What was delivered before the end is handled before the end.
    assert "tea" in capsys.readouterr().out.splitlines()


def test_after_is_before_with_another_import() -> None:
    before = BLOCKS[BEFORE].code.replace("faststream.asgi", "faststream_adapters")
    assert sorted(before.splitlines()) == sorted(BLOCKS[AFTER].code.splitlines())


def test_testing(tmp_path: Path) -> None:
    # Nobody listens there: the test needs no NATS server.
    application = at_nats(BLOCKS[FASTAPI].code, "nats://127.0.0.1:1")
    (tmp_path / "main.py").write_text(application, encoding="utf-8")
    (tmp_path / "test_main.py").write_text(BLOCKS[TESTING].code, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 passed" in result.stdout


def _table(heading: str) -> dict[str, list[str]]:
    """Return the other cells of the tables' rows under a heading, by each of the names in the first cell."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows: dict[str, list[str]] = {}
    for line in section.splitlines():
        if line.startswith("| `"):
            first, *others = (cell.strip() for cell in line.strip("|").split(" | "))
            rows |= dict.fromkeys(re.findall(r"`(\w+)`", first), others)
    return rows


def test_lifespan_keywords() -> None:
    rows = _table("The lifespan")
    parameters = inspect.signature(BrokerLifespan).parameters
    keywords = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert list(rows) == list(keywords)
    for name, default in keywords.items():
        if name != "startup_timeout":
            assert rows[name][0].strip("`") == str(default).replace("strict", '"strict"')


def test_probe_keywords() -> None:
    rows = _table("Endpoints")
    schema = {"include_in_schema", "description", "tags", "unique_id"}
    assert {name for name in rows if not name.startswith("make_")} == set(
        ProbeKeywords.__annotations__
    ) - schema


def test_endpoint_keywords() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {name for name in EndpointKeywords.__annotations__ if f"`{name}" not in text} == set()
