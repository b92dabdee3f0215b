"""The page about the host application: its code runs, and does what the page says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from faststream.nats import NatsBroker
from litestar import Litestar
from starlette.applications import Starlette

from faststream_adapters import BrokerLifespan, make_liveness_asgi
from faststream_adapters.fastapi import FastStreamRouter
from tests.examples.blocks import at_nats, eventually, load, python_blocks, served

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from tests.servers.nats import NatsServer

BLOCKS = python_blocks("docs/hosts.md")
HOST = "The host app inside subscribers 1"
GUARDS = [f"Open probes, guarded docs {number}" for number in (1, 2, 3)]
WITHOUT = "Without an adapter 1"


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {HOST, *GUARDS, WITHOUT}


def application(name: str, nats: NatsServer, directory: Path) -> ModuleType:
    return load(at_nats(BLOCKS[name].code, nats.url), directory)


async def test_the_host_in_a_subscriber(shared_nats: NatsServer, tmp_path: Path) -> None:
    module = application(HOST, shared_nats, tmp_path)
    async with served(module.app) as client:
        await module.broker.publish("tea", "orders")
        await eventually(client, "/total", 3)


async def test_what_a_lifespan_yields_is_not_there(
    shared_nats: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = BLOCKS[HOST].code
    for old, new in {
        "    yield\n": '    yield {"yielded": 1}\n',
        "host.state.total += host.state.prices[item]": (
            'print(hasattr(host.state, "prices"), hasattr(host.state, "yielded"))'
        ),
    }.items():
        assert old in code
        code = code.replace(old, new)
    module = load(at_nats(code, shared_nats.url), tmp_path)
    async with served(module.app):
        await module.broker.publish("tea", "orders")
    assert "True False" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("name", GUARDS)
async def test_open_probes_guarded_docs(name: str, shared_nats: NatsServer, tmp_path: Path) -> None:
    module = application(name, shared_nats, tmp_path)
    async with served(module.app) as client:
        for path in ("/livez", "/readyz"):
            assert (await client.get(path)).status_code == 204
        for path in ("/asyncapi", "/asyncapi.json", "/asyncapi.yaml", "/asyncapi/asyncapi.json"):
            assert (await client.get(path)).status_code == 401
            assert (await client.get(path, headers={"x-token": "secret"})).status_code == 200


async def test_without_an_adapter(
    shared_nats: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = application(WITHOUT, shared_nats, tmp_path)
    async with served(module.app) as client:
        answers = {path: (await client.get(path)).status_code for path in ("/livez", "/readyz", "/asyncapi/")}
        assert answers == {"/livez": 204, "/readyz": 204, "/asyncapi/": 200}
        assert (await client.get("/asyncapi")).status_code == 307
        await module.broker.publish("tea", "orders")
    printed = [line for line in capsys.readouterr().out.splitlines() if " - " not in line]
    assert printed == ["open the database", "tea", "close the database"]


@pytest.mark.parametrize(
    "host", [lambda each: Starlette(lifespan=each), lambda each: Litestar(lifespan=[each])]
)
async def test_a_lifespan_as_it_is(host: Callable[[BrokerLifespan], Any], shared_nats: NatsServer) -> None:
    brokers = BrokerLifespan(NatsBroker(shared_nats.url))
    async with served(host(brokers)):
        assert brokers.state == "running"


async def test_a_route_without_dependencies(shared_nats: NatsServer) -> None:
    def guard() -> None:
        raise HTTPException(401)

    app = FastAPI(dependencies=[Depends(guard)])
    probe: Any = make_liveness_asgi(NatsBroker(shared_nats.url))
    app.mount("/mounted", probe)
    app.add_route("/added", probe)
    app.include_router(FastStreamRouter(NatsBroker(shared_nats.url), liveness_path="/included"))
    async with served(app) as client:
        statuses = [(await client.get(path)).status_code for path in ("/mounted/", "/added", "/included")]
    assert statuses == [204, 204, 401]
