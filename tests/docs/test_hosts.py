"""docs/hosts.md: its code runs and behaves as the page describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from faststream import Context
from faststream.nats import NatsBroker
from litestar import Litestar
from starlette.applications import Starlette

from faststream_adapters import BrokerLifespan, BrokerNotUpError, make_liveness_asgi
from faststream_adapters.fastapi import FastStreamRouter
from faststream_adapters.testing import app_client
from tests.docs.blocks import at_nats, eventually, load, python_blocks, served

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from tests.harness.servers.nats import NatsServer

BLOCKS = python_blocks("docs/hosts.md")
HOST = "The host app inside subscribers 1"
GUARDS = [f"Open probes, guarded docs {number}" for number in (1, 2, 3)]
START = [f"Publishing at the start {number}" for number in range(1, 6)]
WITHOUT_ADAPTER = "Without an adapter 1"
HANDLERS = "Handlers without a web framework 1"
CREATED = "Applications that a function creates 1"


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {HOST, *START, *GUARDS, WITHOUT_ADAPTER, HANDLERS, CREATED}


def application(name: str, nats: NatsServer, directory: Path) -> ModuleType:
    return load(at_nats(BLOCKS[name].code, nats.url), directory)


async def test_a_subscriber_accesses_the_host_application(shared_nats: NatsServer, tmp_path: Path) -> None:
    module = application(HOST, shared_nats, tmp_path)
    async with served(module.app) as client:
        await module.broker.publish("tea", "orders")
        await eventually(client, "/total", 3)


async def test_a_subscriber_does_not_see_the_state_that_a_lifespan_yields(
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


@pytest.mark.parametrize("name", START)
async def test_the_application_publishes_when_it_starts_and_stops(
    name: str, shared_nats: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = application(name, shared_nats, tmp_path)
    with pytest.raises(BrokerNotUpError):
        await module.broker.publish("too early", "events")
    async with served(module.app) as client:
        assert (await client.get("/readyz")).status_code == 200
    with pytest.raises(BrokerNotUpError):
        await module.broker.publish("too late", "events")
    printed = [line for line in capsys.readouterr().out.splitlines() if " - " not in line]
    assert printed == ["started", "stopping"]


@pytest.mark.parametrize("name", GUARDS)
async def test_the_probes_are_open_and_the_docs_are_guarded(
    name: str, shared_nats: NatsServer, tmp_path: Path
) -> None:
    module = application(name, shared_nats, tmp_path)
    async with served(module.app) as client:
        for path in ("/livez", "/readyz"):
            assert (await client.get(path)).status_code == 200
        for path in ("/asyncapi", "/asyncapi.json", "/asyncapi.yaml", "/asyncapi/asyncapi.json"):
            assert (await client.get(path)).status_code == 401
            assert (await client.get(path, headers={"x-token": "secret"})).status_code == 200


async def test_endpoints_and_lifespan_work_without_an_adapter(
    shared_nats: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = application(WITHOUT_ADAPTER, shared_nats, tmp_path)
    async with served(module.app) as client:
        statuses = {
            path: (await client.get(path)).status_code for path in ("/livez", "/readyz", "/asyncapi/")
        }
        assert statuses == {"/livez": 200, "/readyz": 200, "/asyncapi/": 200}
        assert (await client.get("/asyncapi")).status_code == 307
        await module.broker.publish("tea", "orders")
    printed = [line for line in capsys.readouterr().out.splitlines() if " - " not in line]
    assert printed == ["open the database", "tea", "close the database"]


async def test_a_handler_takes_a_header(tmp_path: Path) -> None:
    module: Any = load(BLOCKS[HANDLERS].code, tmp_path)
    orders: list[tuple[str, str]] = []

    async def collect(item: str, request_id: str = Context("message.correlation_id")) -> None:
        orders.append((item, request_id))

    module.broker.subscriber("orders")(collect)

    async with app_client(module.app) as client:
        url = "/orders?item=tea&item=coffee"
        assert (await client.put(url, headers={"X-Request-ID": "7"})).status_code == 202
        assert (await client.put(url)).status_code == 422
        assert (await client.post(url)).status_code == 405
    assert orders == [("tea", "7"), ("coffee", "7")]


async def test_the_first_of_two_created_applications_has_lost_its_subscribers(
    shared_nats: NatsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = BLOCKS[CREATED].code.replace("NatsBroker()", f"NatsBroker({shared_nats.url!r})")
    module = load(code, tmp_path)
    first, second = module.create_app(), module.create_app()
    async with served(second):
        assert "without the subscribers" not in caplog.text
    async with served(first):
        assert "starts without the subscribers process" in caplog.text


@pytest.mark.parametrize(
    "host", [lambda each: Starlette(lifespan=each), lambda each: Litestar(lifespan=[each])]
)
async def test_a_host_accepts_the_lifespan_unchanged(
    host: Callable[[BrokerLifespan], Any], shared_nats: NatsServer
) -> None:
    brokers = BrokerLifespan(NatsBroker(shared_nats.url))
    async with served(host(brokers)):
        assert brokers.state == "running"


async def test_only_the_router_applies_the_dependencies_of_the_app(shared_nats: NatsServer) -> None:
    def guard() -> None:
        raise HTTPException(401)

    app = FastAPI(dependencies=[Depends(guard)])
    probe: Any = make_liveness_asgi(NatsBroker(shared_nats.url))
    app.mount("/mounted", probe)
    app.add_route("/added", probe)
    app.include_router(FastStreamRouter(NatsBroker(shared_nats.url), liveness_path="/included"))
    async with served(app) as client:
        statuses = [(await client.get(path)).status_code for path in ("/mounted/", "/added", "/included")]
    assert statuses == [200, 200, 401]
