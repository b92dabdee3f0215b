"""Run uvicorn beside another server, in its process and its event loop."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from faststream.asgi.types import ASGIApp
from faststream.exceptions import SetupError

from faststream_adapters._utils.extras import require
from faststream_adapters._utils.tasks import uninterrupted

from .sockets import listener_url

if TYPE_CHECKING:
    from uvicorn import Server

_LAST_RESPONSES = 1.0
"""Seconds that requests in flight get at the end, before their connections are closed."""

_ACCEPT_TURNS = 3
"""Iterations of the event loop until a connection that has just been accepted is registered."""


@asynccontextmanager
async def serving(app: ASGIApp, sockets: Sequence[socket.socket]) -> AsyncIterator[None]:
    """Serve an app over HTTP; no connection outlives the block, however often its task is cancelled.

    There is no lifespan, no access log, no websocket and no TLS. The signals and the loggers of the process
    stay as they are. `Server.serve()` would replace the signal handlers, and so is not called.

    Args:
        app: The app.
        sockets: Bound sockets, which are closed at the end.

    Raises:
        ImportError: uvicorn is not installed.
        SetupError: Another process has begun to listen on an address since it was bound.
    """
    server = _make_server(app)
    # Keeps the Date header up to date.
    clock = asyncio.create_task(server.main_loop())
    try:
        try:
            for each in sockets:
                # uvloop would not report that it cannot listen.
                each.listen(server.config.backlog)
            await uninterrupted(server.startup(sockets=list(sockets)))
        except OSError as error:
            urls = " and ".join(listener_url(each, "http") for each in sockets)
            msg = f"Cannot listen on {urls}: {error.strerror}."
            raise SetupError(msg) from error
        yield
    finally:
        clock.cancel()
        await uninterrupted(_stop(server, sockets))


def _make_server(app: ASGIApp) -> "Server":
    uvicorn = require("uvicorn", "server")
    config = uvicorn.Config(
        app,
        interface="asgi3",
        lifespan="off",
        ws="none",
        # Otherwise uvicorn takes it from WEB_CONCURRENCY, which may be no number.
        workers=1,
        # Otherwise uvicorn configures the loggers of the process.
        log_config=None,
        proxy_headers=False,
        server_header=False,
    )
    config.load()
    protocol_class = config.http_protocol_class

    def make_protocol(**arguments: Any) -> Any:
        protocol = protocol_class(**arguments)
        # `Config(access_log=False)` would disable the access log of every server in the process.
        protocol.access_log = False
        return protocol

    config.http_protocol_class = make_protocol
    server: Server = uvicorn.Server(config)
    # What `serve()` and a failed `startup()` leave out.
    server.lifespan = config.lifespan_class(config)
    server.servers = []
    return server


async def _stop(server: "Server", sockets: Sequence[socket.socket]) -> None:
    """Close all connections; requests in flight get a moment to be answered."""
    state = server.server_state
    for listener in server.servers:
        listener.close()
    for each in sockets:
        # uvloop has closed the descriptor, but called nothing that would remove the file of a unix socket.
        each.close()
    for _ in range(_ACCEPT_TURNS):
        await asyncio.sleep(0)
    for connection in list(state.connections):
        # Closes an idle connection now, and another one after its response.
        connection.shutdown()
    await _wait(state.tasks)
    for connection in list(state.connections):
        connection.transport.abort()
    # The event loop closes the connections in its next iteration, and what responds on them ends after that.
    await asyncio.sleep(0)
    await _wait(state.tasks)


async def _wait(tasks: "set[asyncio.Task[None]]") -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=_LAST_RESPONSES)
