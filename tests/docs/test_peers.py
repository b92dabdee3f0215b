"""docs/faststream-fastapi.md and docs/litestar-faststream.md: the services run before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import faststream
import pytest
from fastapi import Depends, FastAPI, Request
from faststream.nats import NatsBroker, TestNatsBroker

from faststream_adapters.fastapi import FastStreamRouter
from tests.docs.blocks import at_nats, eventually, load, needs_recent_litestar, python_blocks, served

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.harness.servers.nats import NatsServer

PEERS = ["faststream_fastapi", "litestar_faststream"]
BEFORE, AFTER = "Before and after 1", "Before and after 2"
BLOCKS = {peer: python_blocks(f"docs/{peer.replace('_', '-')}.md") for peer in PEERS}
UNUSED = "nats://127.0.0.1:1"


def load_block(peer: str, name: str, nats: NatsServer, directory: Path) -> Any:
    """Run a block as a module, or skip the test if the other package is not installed."""
    code = BLOCKS[peer][name].code
    if name == BEFORE:
        pytest.importorskip(peer)
    assert (peer in code) == (name == BEFORE)
    needs_recent_litestar(code)
    return load(at_nats(code, nats.url), directory)


@pytest.mark.parametrize("peer", PEERS)
def test_every_block_is_tested(peer: str) -> None:
    assert set(BLOCKS[peer]) == {BEFORE, AFTER}


@pytest.mark.parametrize("name", [BEFORE, AFTER])
async def test_a_service_in_fastapi(name: str, shared_nats: NatsServer, tmp_path: Path) -> None:
    module = load_block("faststream_fastapi", name, shared_nats, tmp_path)
    async with served(module.app) as client, NatsBroker(shared_nats.url) as broker:
        order: Any = {"item": "tea", "amount": 3}
        reply = await broker.request(order, "orders.ann", headers={"channel": "mail"}, timeout=5.0)
        assert await reply.decode() == 8
        await eventually(client, "/log", ["ann by mail: 8 EUR", "ann knows"])
        assert (await client.get("/asyncapi")).status_code == 200


@pytest.mark.parametrize("name", [BEFORE, AFTER])
async def test_a_service_in_litestar(name: str, shared_nats: NatsServer, tmp_path: Path) -> None:
    module = load_block("litestar_faststream", name, shared_nats, tmp_path)
    async with served(module.app) as client, NatsBroker(shared_nats.url) as broker:
        await eventually(client, "/orders", ["welcome"])
        assert module.app.state.open
        assert (await client.post("/orders", json={"item": "tea", "amount": 2})).status_code == 202
        await eventually(client, "/orders", ["welcome", "tea: 6"])
        await broker.publish({"item": "milk", "amount": 3}, "orders")
        await eventually(client, "/orders", ["welcome", "tea: 6", "milk: 9"])
        assert (await client.get("/asyncapi")).status_code == 200


# --- what differs in subscribers: faststream-fastapi, then this package ---


def in_peer(broker: NatsBroker, app: FastAPI) -> Any:
    return pytest.importorskip("faststream_fastapi").FastStreamAPI(broker, application=app)


def in_this_package(broker: NatsBroker, app: FastAPI) -> Any:
    app.include_router(FastStreamRouter(broker))
    return app


Host = Any


async def handle(host: Host, handler: Callable[..., Any], message: Any, *, late: bool = False) -> None:
    """Publish a message to a subscriber of a broker in memory."""
    broker, app = NatsBroker(UNUSED), FastAPI()
    if not late:
        broker.subscriber("orders")(handler)
    served_app = host(broker, app)
    if late:
        broker.subscriber("orders")(handler)
    async with TestNatsBroker(broker), served(served_app):
        await broker.publish(message, "orders")


def price() -> int:
    return 3


async def test_only_here_faststream_dependencies_and_late_subscribers_work() -> None:
    seen: list[Any] = []

    async def of_faststream(item: str, cost: Annotated[int, faststream.Depends(price)]) -> None:
        seen.append(cost)

    async def of_fastapi(item: str, cost: Annotated[int, Depends(price)]) -> None:
        seen.append(cost)

    with pytest.raises(Exception, match="Depends"):
        await handle(in_peer, of_faststream, "tea")
    with pytest.raises(Exception, match="cost"):
        await handle(in_peer, of_fastapi, "tea", late=True)
    await handle(in_this_package, of_faststream, "tea")
    await handle(in_this_package, of_fastapi, "tea", late=True)
    assert seen == [3, 3]


async def test_a_single_parameter_and_the_state_of_a_request() -> None:
    seen: list[Any] = []

    async def one(item: str) -> None:
        seen.append(item)

    async def with_request(item: str, request: Request) -> None:
        seen.append((hasattr(request.state, "name"), request.app.title))

    await handle(in_peer, one, {"item": "tea"})
    with pytest.raises(Exception, match="item"):
        await handle(in_this_package, one, {"item": "tea"})
    await handle(in_peer, with_request, "tea")
    await handle(in_this_package, with_request, "tea")
    assert seen == ["tea", (False, "FastAPI"), (False, "FastAPI")]
