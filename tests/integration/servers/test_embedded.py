"""uvicorn beside another server: which connections last, and for how long."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest
from faststream.exceptions import SetupError

from faststream_adapters import AsgiResponse
from faststream_adapters._server import embedded
from faststream_adapters._server.embedded import serving
from tests.harness.servers import HOST

if TYPE_CHECKING:
    from faststream.asgi.types import ASGIApp, Receive, Scope, Send

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LIMIT = 4.0
"""Seconds within which the server ends, whatever its clients do."""


def bound() -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, 0))
    return listener


async def connect(listener: socket.socket, sent: bytes) -> asyncio.StreamReader:
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(sent)
    await writer.drain()
    # It is closed with the transport, when the server has closed its side.
    vars(reader)["writer"] = writer
    return reader


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """Return what the server has sent until it has closed the connection."""
    writer: asyncio.StreamWriter = vars(reader)["writer"]
    with closing(writer):
        return await reader.read()


async def test_the_signals_belong_to_the_other_server() -> None:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    with closing(bound()) as listener:
        async with serving(never_responds, [listener]):
            assert [signal.getsignal(number) for number in numbers] == before


async def test_connections_without_a_request_are_closed_at_once() -> None:
    answered = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await AsgiResponse(b"ok")(scope, receive, send)
        answered.set()

    with closing(bound()) as listener:
        async with asyncio.timeout(LIMIT), serving(app, [listener]):
            silent = await connect(listener, b"")
            unfinished = await connect(listener, REQUEST[:-10])
            kept = await connect(listener, REQUEST)
            await answered.wait()
        assert await rest_of(silent) == await rest_of(unfinished) == b""
        assert (await rest_of(kept)).endswith(b"\r\n\r\nok")


# After one turn, asyncio forgets the connection: its server has been closed before it gets a transport.
@pytest.mark.parametrize("turns", [0, 2, 3, 4])
async def test_a_connection_that_is_just_being_accepted_is_closed_at_once(turns: int) -> None:
    with closing(bound()) as listener, closing(socket.socket()) as client:
        async with serving(never_responds, [listener]):
            client.connect(listener.getsockname())
            for _ in range(turns):
                await asyncio.sleep(0)
        client.settimeout(LIMIT / 2)
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""


async def test_a_request_in_flight_is_answered() -> None:
    arrived, may_end = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        arrived.set()
        await may_end.wait()
        await AsgiResponse(b"late")(scope, receive, send)

    with closing(bound()) as listener:
        async with serving(app, [listener]):
            client = await connect(listener, REQUEST)
            await arrived.wait()
            asyncio.get_running_loop().call_later(0.05, may_end.set)
        response = await rest_of(client)
    assert response.endswith(b"late")


async def never_reads_enough(scope: Scope, receive: Receive, send: Send) -> None:
    await AsgiResponse(b"x" * 2**24)(scope, receive, send)


async def never_responds(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@pytest.mark.parametrize("app", [never_reads_enough, never_responds])
async def test_a_response_that_does_not_end_is_cut_off(app: ASGIApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_LAST_RESPONSES", 0.05)
    begun = asyncio.Event()

    async def observed(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await app(scope, receive, send)

    with closing(bound()) as listener:
        async with asyncio.timeout(LIMIT):
            async with serving(observed, [listener]):
                client = await connect(listener, REQUEST)
                await begun.wait()
            await rest_of(client)


async def test_a_websocket_is_not_opened() -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await AsgiResponse(b"no", 404)(scope, receive, send)

    upgrade = (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with closing(bound()) as listener:
        async with serving(app, [listener]):
            client = await connect(listener, upgrade)
            assert await client.readline() == b"HTTP/1.1 404 Not Found\r\n"
        await rest_of(client)
    assert [scope["type"] for scope in scopes] == ["http"]


async def test_an_address_that_another_one_has_begun_to_listen_on_is_a_setup_error() -> None:
    with closing(bound()) as first, closing(socket.socket()) as second:
        second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Both can be bound, as long as none listens.
        second.bind(first.getsockname())
        second.listen()
        port = first.getsockname()[1]
        with pytest.raises(
            SetupError, match=f"^Cannot listen on http://{HOST}:{port}: Address already in use"
        ):
            async with serving(never_responds, [first]):
                pytest.fail("Both listen.")
