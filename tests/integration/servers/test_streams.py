"""Signals while a response is open: consumers stop at once, and the response can end by itself."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import nats as nats_py
import pytest

from tests.harness.servers import poll
from tests.harness.waiting import eventually
from tests.integration.servers.apps import STREAMING
from tests.integration.servers.processes import (
    PATIENCE,
    MonitoredNats,
    assert_nothing_is_left,
    orders_done,
    server_of,
    told,
    wait_for_all_workers,
)
from tests.integration.servers.rows import ROWS, Row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.servers.asgi import AppServer

OPEN, END = "data: open\n\n", "data: end\n\n"

pytestmark = pytest.mark.timeout(240)


def rows(*fast: str) -> pytest.MarkDecorator:
    """Parametrize a test by the servers that observe signals; all but the named ones in the full run only."""
    [hypercorn] = [row for row in ROWS if row.server == "hypercorn" and row.workers == 1]
    alone = hypercorn._replace(server="hypercorn without workers", command=f"{hypercorn.command} --workers 0")
    # FastStream's supervisor sends the signal to a worker when the one before has ended.
    observing = [row for row in ROWS if row.observes and row.command != "faststream run main:app --workers 4"]
    return pytest.mark.parametrize(
        "row",
        [
            pytest.param(
                row,
                id=f"{row.server.strip('`')}-{row.workers}",
                marks=[] if row.workers == 1 and row.server in fast else pytest.mark.full,
            )
            for row in [*observing, alone]
        ],
    )


class Gate:
    """Lets the handler of an order go on when the test opens it."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.waiting: list[str] = []
        self.opened = asyncio.Event()

        self.responses: list[Any] = []

    async def on_request(self, message: Any) -> None:
        self.waiting.append(message.data.decode())
        await self.opened.wait()
        await message.respond(b"")

    async def on_response(self, message: Any) -> None:
        self.responses.append(message)

    async def order(self, *orders: str) -> None:
        for order in orders:
            await self.client.publish("orders.new", order.encode())
        await self.client.flush()


@asynccontextmanager
async def gate_of(url: str) -> AsyncIterator[Gate]:
    client = await nats_py.connect(url)
    gate = Gate(client)
    await client.subscribe("gate", cb=gate.on_request)
    await client.subscribe("response", cb=gate.on_response)
    await client.flush()
    try:
        yield gate
    finally:
        await client.drain()


@asynccontextmanager
async def open_stream(server: AppServer, path: str) -> AsyncIterator[AsyncIterator[str]]:
    """Open an event stream, and return its further events."""
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client,
        client.stream("GET", path) as response,
    ):
        events = response.aiter_text()
        assert await anext(events) == OPEN
        yield events


async def started(row: Row, nats: MonitoredNats, **environment: str) -> AppServer:
    server = await asyncio.to_thread(server_of(row, STREAMING, nats.url, **environment).__enter__)
    await wait_for_all_workers(row, server)
    return server


def is_subscribed(nats: MonitoredNats) -> bool:
    return nats.subscriptions("orders.new") > 0


@rows("uvicorn", "granian")
async def test_no_message_is_taken_after_the_signal_while_a_response_is_open(
    row: Row, monitored_nats: MonitoredNats
) -> None:
    with await started(row, monitored_nats) as server:
        async with gate_of(monitored_nats.url) as gate, orders_done(monitored_nats.url) as done:
            async with open_stream(server, "/events") as events:
                await gate.order("before")
                await eventually(lambda: bool(gate.waiting and gate.responses), PATIENCE)
                server.terminate()
                # The handler is in progress, and the response is open.
                assert await asyncio.to_thread(poll, lambda: not is_subscribed(monitored_nats), PATIENCE)
                await gate.order("after")
                gate.opened.set()
                await eventually(lambda: done == ["before"], PATIENCE)
                assert gate.waiting == ["before"]
                assert len(told(server, "draining")) == row.workers
                # Only workers without an open response have stopped.
                assert len(told(server, "stopped")) < row.workers
                # The request in flight can still publish after the drain.
                await gate.responses[0].respond(b"")
                assert [event async for event in events] == [END]
            await eventually(lambda: done == ["before", "the response"], PATIENCE)
            assert await asyncio.to_thread(server.wait, PATIENCE) == row.sigterm
            assert gate.waiting == ["before"]
        await assert_nothing_is_left(server, monitored_nats)


@rows("uvicorn", "gunicorn with its own worker")
async def test_a_response_that_waits_for_the_drain_ends_at_the_signal(
    row: Row, monitored_nats: MonitoredNats
) -> None:
    with await started(row, monitored_nats) as server:
        async with orders_done(monitored_nats.url) as done, open_stream(server, "/ending") as events:
            server.terminate()
            assert [event async for event in events] == [END]
            assert await asyncio.to_thread(server.wait, PATIENCE) == row.sigterm
        assert done == ["the response"]
        assert len(told(server, "stopped")) == row.workers
        await assert_nothing_is_left(server, monitored_nats)


@rows()
async def test_consumers_continue_during_the_drain_delay_and_stop_after_it(
    row: Row, monitored_nats: MonitoredNats
) -> None:
    with await started(row, monitored_nats, DRAIN_DELAY="3") as server:
        async with gate_of(monitored_nats.url) as gate, orders_done(monitored_nats.url) as done:
            gate.opened.set()
            async with open_stream(server, "/events"):
                server.terminate()
                await eventually(lambda: bool(told(server, "draining")), PATIENCE)
                await gate.order("during")
                await eventually(lambda: done == ["during"], PATIENCE)
                assert await asyncio.to_thread(poll, lambda: not is_subscribed(monitored_nats), PATIENCE)
                await gate.order("after")
                await eventually(lambda: bool(gate.responses), PATIENCE)
                await gate.responses[0].respond(b"")
            assert await asyncio.to_thread(server.wait, PATIENCE) == row.sigterm
            assert gate.waiting == ["during"]


@pytest.mark.full
@pytest.mark.parametrize("name", ["uvicorn", pytest.param("`faststream run`", marks=pytest.mark.full)])
async def test_a_second_interrupt_ends_the_server_although_a_response_is_open(
    name: str, monitored_nats: MonitoredNats
) -> None:
    [row] = [row for row in ROWS if row.server == name and row.workers == 1]
    with await started(row, monitored_nats) as server:
        async with gate_of(monitored_nats.url), open_stream(server, "/events"):
            server.interrupt()
            await eventually(lambda: bool(told(server, "draining")), PATIENCE)
            await asyncio.to_thread(server.wait_output, "CTRL+C to force quit", PATIENCE)
            server.interrupt()
            assert await asyncio.to_thread(server.wait, PATIENCE) == row.interrupted
