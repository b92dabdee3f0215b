"""Responses that take long to make, for clients that may disconnect before."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from faststream.asgi.types import Receive, Scope, Send

from .responses import AsgiResponse

_DISCONNECTED = AsgiResponse(b"", 499)
"""The response when the client has disconnected, which hosts and their logs see; nginx has the same code."""


async def send_when_made(
    response: Coroutine[Any, Any, AsgiResponse], scope: Scope, receive: Receive, send: Send
) -> None:
    """Send a response when it has been made; cancel its making if the client disconnects before.

    Args:
        response: Makes the response.
        scope: The HTTP scope.
        receive: The ASGI receive callable.
        send: The ASGI send callable.

    Raises:
        Exception: The error of the making.
    """
    making = asyncio.create_task(response)
    listening = asyncio.create_task(_disconnects(receive))
    try:
        await asyncio.wait((making, listening), return_when=asyncio.FIRST_COMPLETED)
        if not making.done() and not listening.result():
            await asyncio.wait((making,))
        made = making.result() if making.done() else _DISCONNECTED
    finally:
        listening.cancel()
        making.cancel()
        await asyncio.wait((making,))
    await made(scope, receive, send)


async def _disconnects(receive: Receive) -> bool:
    """Wait until the client disconnects; return False if the host does not tell."""
    more = True
    try:
        while (message := await receive())["type"] == "http.request" and more:
            more = message.get("more_body", False)
    except Exception:  # noqa: BLE001 (a host may refuse to call this after the whole body was read)
        return False
    return bool(message["type"] == "http.disconnect")
