"""NATS: what `nats-py`'s client can be asked, and what must never be done to it."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from traceback import walk_tb
from typing import Any

from faststream.exceptions import IncorrectState
from faststream.nats import JStream, NatsBroker
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import AuthorizationError, ConnectionClosedError, NoServersError

from faststream_adapters._compat import Broker, nats_forget_connection, nats_streams

from . import PING_TIMEOUT, Code, Driver

# nats-py cancels the future of a round trip that timed out, and when the late PONG arrives its read loop dies
# on it: the flag `is_connected` stays true, and no message comes in ever again. So it must never time out.
_NEVER = 365 * 24 * 60 * 60

_CLOSE_TIMEOUT = 2.0


class NatsDriver(Driver):
    """A NATS broker's client."""

    broker: NatsBroker

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._streams: dict[str, JStream] = {}

    @property
    def client(self) -> Client | None:
        """The client, if it is a real one."""
        try:
            client = self.broker.connection
        except IncorrectState:
            return None
        return client if isinstance(client, Client) else None

    @property
    def real(self) -> bool:
        return self.client is not None

    @property
    def reconnecting(self) -> bool:
        client = self.client
        return client is not None and client.is_reconnecting

    @property
    def gave_up(self) -> bool:
        client = self.client
        if client is None or client.is_connected or client.is_reconnecting:
            return False
        # A login rejected on reconnect ends the task that reconnects, and leaves the client "connecting".
        task = client._reconnection_task  # noqa: SLF001 (nats-py has no public way)
        # Asking for the exception also keeps the event loop from reporting it as never retrieved.
        ended = task is not None and task.done() and (task.cancelled() or task.exception() is not None)
        return not client.is_connecting or ended

    def epoch(self) -> object:
        client = self.client
        return client and (client, client.stats["reconnects"], client.is_closed)

    def down(self) -> Code | None:
        client = self.client
        if client is None or client.is_connected:
            return None
        if client.last_error is not None and self.code(client.last_error) == "auth":
            return "auth"
        return "closed" if client.is_closed else "refused"

    async def check(self) -> Code:
        if not await self.broker.ping(PING_TIMEOUT):
            return "error" if self.real else "not_started"
        if (client := self.client) is not None:
            await client.rtt(_NEVER)
        return "ok"

    def code(self, error: BaseException) -> Code:
        if isinstance(error, AuthorizationError) or "authorization" in str(error).lower():
            return "auth"
        if isinstance(error, ConnectionClosedError):
            return "closed"
        return "refused" if isinstance(error, NoServersError) else super().code(error)

    def consumers(self) -> Iterator[tuple[str, Code]]:
        client = self.client
        for name, code in super().consumers():
            yield name, "closed" if client is not None and client.is_closed else code

    async def start(self, *, consume: bool, supervise: bool) -> None:
        self.last_error = None
        # A failed start leaves `declare` False, and every later one fails for want of the stream.
        self._streams |= {stream.name: stream for stream in nats_streams(self.broker)}
        for stream in self._streams.values():
            stream.declare = True
        try:
            await self.broker.connect()
        except BaseException as error:
            # The client that was connecting is known to nobody, and its socket would stay open.
            if (unknown := _client_in(error)) is not None:
                self.last_error = unknown.last_error
                await close(unknown)
            raise
        if supervise and (client := self.client) is not None:
            # After 60 failures nats-py closes the client, and its consumers are dead for good.
            client.options["max_reconnect_attempts"] = -1
        await self.start_endpoints(consume=consume)

    async def drain(self) -> None:
        await asyncio.gather(*map(drain, self.broker.subscribers))

    async def abort(self, seconds: float = 0.0) -> None:
        client = self.client
        nats_forget_connection(self.broker)
        try:
            await super().abort(seconds)
        finally:
            if client is not None:
                await close(client)


async def drain(subscriber: Any) -> None:
    """Unsubscribe, and wait until what was delivered is handled."""
    subscription = subscriber.subscription
    if not isinstance(subscription, Subscription):
        # The broker's own stop() knows what to do with the other kinds: pull, key-value, object store.
        return
    # A drained subscription cannot be unsubscribed again: stop() must not find it.
    subscriber.subscription = None
    await subscription.drain()  # type: ignore[no-untyped-call]  # nats-py left it untyped
    if (limiter := getattr(subscriber, "limiter", None)) is None:
        return
    # With max_workers > 1 the messages wait in a stream, then for the limiter, which is first come, first
    # served: who holds all of its places knows that nobody is left before him.
    while subscriber.receive_stream.statistics().current_buffer_used:  # noqa: ASYNC110 (it tells nobody)
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    for _ in range(subscriber.max_workers):
        await limiter.acquire()
    for _ in range(subscriber.max_workers):
        limiter.release()


def _client_in(error: BaseException) -> Client | None:
    """Return the client whose method raised this."""
    for frame, _ in walk_tb(error.__traceback__):
        if isinstance(client := frame.f_locals.get("self"), Client):
            return client
    return None


async def close(client: Client) -> None:
    """End a client's connection, whatever state the client is in."""
    with suppress(Exception):
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await client.close()
    # A close() that was interrupted counts as done, and leaves the socket open.
    if (transport := client._transport) is not None:  # noqa: SLF001 (nats-py has no public way)
        transport.close()  # type: ignore[no-untyped-call]  # nats-py left it untyped


driver = NatsDriver
