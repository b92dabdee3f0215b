"""NATS: what `nats-py`'s client can be asked, and what must never be done to it."""

import asyncio
import logging
import time
from contextlib import suppress
from ssl import SSLError
from traceback import walk_tb
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from faststream.exceptions import IncorrectState
from faststream.nats import JStream, NatsBroker
from nats.aio.client import Client
from nats.errors import AuthorizationError, ConnectionClosedError, NoServersError
from nats.js.errors import BadRequestError, NotFoundError

from faststream_adapters._compat import (
    Broker,
    nats_forget_buckets,
    nats_forget_connection,
    nats_streams,
)
from faststream_adapters.tasks import end

from . import PING_TIMEOUT, Code, Driver
from .nats_subscriptions import NEVER, adopt, drain, jetstream_of, read_again, reads, subscription_of

logger = logging.getLogger("faststream.adapters")

_CLOSE_TIMEOUT = 2.0

# FastStream's own, or what it was replaced by before the first broker was looked at.
_PING = NatsBroker.ping
_PING_LINE = b"PING\r\n"

ORDERED_TIMEOUT = 30.0
"""Seconds for which an ordered consumer may be missing: nats-py makes a new one where the old stopped."""


class NatsDriver(Driver):
    """A NATS broker's client."""

    broker: NatsBroker
    sharing = "a queue group (queue=...) or a durable pull consumer"

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._streams: dict[str, tuple[JStream, list[str]]] = {}
        self._forbidden: WeakSet[object] = WeakSet()
        self._missing: WeakKeyDictionary[object, float] = WeakKeyDictionary()

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

    def send(self) -> asyncio.Future[Any] | None:
        client = self.client
        # Of a client, FastStream's own ping looks at its flag only; a ping of the user's own is to be asked.
        if client is None or not client.is_connected or not _is_own(self.broker.ping) or _lacks_tls(client):
            return None
        if _on_websocket(client):
            # What is written there waits for the flusher, whom only rtt() wakes.
            return None
        # As Client.rtt() does, without its timer. The write comes first: it may raise, and for each PONG the
        # client takes the first of those that wait.
        client._transport.write(_PING_LINE)  # type: ignore[union-attr]  # noqa: SLF001 (nats-py has no public way)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        client._pongs.append(answer)  # noqa: SLF001 (as above)
        return answer

    async def check(self) -> Code:
        if not await self.broker.ping(PING_TIMEOUT):
            return "error" if self.real else "not_started"
        if (client := self.client) is not None:
            await client.rtt(NEVER)
            if _lacks_tls(client):
                return "error"
        return "ok"

    def code(self, error: BaseException) -> Code:
        if isinstance(error, AuthorizationError) or "authorization" in str(error).lower():
            return "auth"
        if isinstance(error, ConnectionClosedError):
            return "closed"
        return "refused" if isinstance(error, NoServersError) else super().code(error)

    def adopt(self, subscriber: Any) -> None:
        adopt(subscriber)

    def alive(self, subscriber: Any) -> int:
        return super().alive(subscriber) + bool(reads(subscriber))

    def expected(self, subscriber: Any) -> int:
        return max(super().expected(subscriber), int(reads(subscriber) is not None))

    def idle(self, subscriber: Any) -> bool:
        waiting = subscription_of(subscriber).pending_msgs if reads(subscriber) else 0
        if (stream := getattr(subscriber, "receive_stream", None)) is not None:
            waiting += stream.statistics().current_buffer_used
        return not waiting and super().idle(subscriber)

    def shared(self, subscriber: Any) -> bool | None:
        if not hasattr(subscriber, "extra_options") or hasattr(subscriber, "kv_watch"):
            return None
        return bool(getattr(subscriber, "queue", "") or subscriber.extra_options.get("durable"))

    async def ask_consumer(self, subscriber: Any) -> Code:
        client, subscription = self.client, jetstream_of(subscriber)
        if client is None or subscription in self._forbidden:
            return "ok"
        if subscription is None:
            # Core NATS cannot be asked whether it delivers, but it says that it will not.
            subject = getattr(subscription_of(subscriber), "subject", "")
            return "auth" if _was_refused(client, f'subscription to "{subject}"') else "ok"
        try:
            info = await subscription.consumer_info()
        except NotFoundError:
            since = self._missing.setdefault(subscription, time.monotonic())
            missing = time.monotonic() - since
            return "ok" if _is_ordered(subscriber) and missing < ORDERED_TIMEOUT else "deleted"
        except Exception as error:  # noqa: BLE001 (whatever it is, the server did not tell)
            name = f"{subscription._stream}.{subscription._consumer}"  # noqa: SLF001 (nats-py has no public way)
            if _was_refused(client, f"consumer.info.{name}"):
                # Who may not ask is not told either: that says nothing.
                self._forbidden.add(subscription)
                return "ok"
            return self.code(error)
        self._missing.pop(subscription, None)
        return "paused" if info.paused else "ok"

    async def revive(self, subscriber: Any) -> None:
        if read_again(subscriber):
            return
        nats_forget_buckets(self.broker)
        # With a subscription, start() would do nothing, and one that cannot be ended would break off stop().
        subscription, subscriber.subscription = subscriber.subscription, None
        if subscription is not None:
            with suppress(Exception):
                await subscription.unsubscribe()
        await self.halt(subscriber)
        if (stream := getattr(subscriber, "stream", None)) is not None:
            await self._find_stream(stream.name)
        await subscriber.start()

    async def _find_stream(self, name: str) -> None:
        """Declare a stream again if that is this application's business; else it has to be there."""
        context = self.broker.connection.jetstream()
        stream, subjects = self._streams.get(name, (None, []))
        try:
            info = await context.stream_info(name)
        except NotFoundError:
            if stream is None:
                raise
            await context.add_stream(config=stream.config, subjects=subjects)
            return
        # Another application may have been the first to declare a stream that they share.
        there = info.config.subjects or []
        if missing := [subject for subject in subjects if subject not in there]:
            with suppress(BadRequestError):
                await context.update_stream(config=info.config, subjects=[*there, *missing])

    async def start(self, *, consume: bool, supervise: bool) -> None:
        self.last_error = None
        # A failed start leaves `declare` False, and every later one fails for want of the stream.
        self._streams |= {stream.name: (stream, subjects) for stream, subjects in nats_streams(self.broker)}
        for stream, _ in self._streams.values():
            stream.declare = True
        nats_forget_buckets(self.broker)
        try:
            await self.broker.connect()
        except BaseException as error:
            # The client that was connecting is known to nobody, and its socket would stay open.
            if (unknown := _client_in(error)) is not None:
                self.last_error = unknown.last_error
                await close(unknown)
            raise
        client = self.client
        if client is not None and _lacks_tls(client):
            msg = "TLS was asked for, and the server offers none"
            raise SSLError(1, msg)
        if supervise and client is not None:
            # After 60 failures nats-py closes the client, and its consumers are dead for good.
            client.options["max_reconnect_attempts"] = -1
        await self.start_endpoints(consume=consume)

    async def drain(self) -> None:
        # One that cannot be drained must not keep the others from it.
        found = await asyncio.gather(*map(drain, self.broker.subscribers), return_exceptions=True)
        for error in found:
            if isinstance(error, Exception):
                logger.warning("%s: %s while draining a subscriber.", self.name, type(error).__name__)

    async def abort(self, seconds: float = 0.0) -> None:
        client = self.client
        nats_forget_connection(self.broker)
        try:
            await super().abort(seconds)
        finally:
            if client is not None:
                await close(client)


def _is_ordered(subscriber: Any) -> bool:
    watches = hasattr(subscriber.subscription, "obj")
    return watches or bool(subscriber.extra_options.get("ordered_consumer"))


def _was_refused(client: Client, what: str) -> bool:
    """Return whether the server has refused this lately; it says so in a message of its own."""
    said = str(client.last_error).lower()
    return "permissions violation" in said and what.lower() in said


def _is_own(ping: Any) -> bool:
    return getattr(ping, "__func__", None) is _PING


def _on_websocket(client: Client) -> bool:
    url = client.connected_url
    return url is not None and url.scheme in {"ws", "wss"}


def _lacks_tls(client: Client) -> bool:
    """Return whether the connection is a plain one although TLS was asked for.

    nats-py leaves the choice to the server, and so to whoever answers in its name.
    """
    url = client.connected_url
    if url is None or _on_websocket(client) or client.options["tls_handshake_first"]:
        return False
    wanted = url.scheme == "tls" or "tls" in client.options
    return wanted and not client._server_info.get("tls_required")  # noqa: SLF001 (nats-py has no public way)


def _client_in(error: BaseException) -> Client | None:
    """Return the client whose method raised this."""
    for frame, _ in walk_tb(error.__traceback__):
        if isinstance(client := frame.f_locals.get("self"), Client):
            return client
    return None


async def close(client: Client) -> None:
    """End a client's connection, whatever state the client is in."""
    # What ends its connection from now on must not have it come back.
    client.options["allow_reconnect"] = False
    try:
        # Not left to close(), which cancels it once: wait_for() swallows that in the moment in which a try to
        # connect ends, and the client goes on to connect.
        if (task := client._reconnection_task) is not None and not task.done():  # noqa: SLF001 (nats-py has no public way)
            await end(task, timeout=0.05)
    finally:
        # Whoever is cancelled here was the last to know the client.
        try:
            with suppress(Exception):
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    await client.close()
        finally:
            # A close() that was interrupted counts as done, and leaves the socket open.
            if (transport := client._transport) is not None:  # noqa: SLF001 (nats-py has no public way)
                transport.close()  # type: ignore[no-untyped-call]  # nats-py left it untyped


driver = NatsDriver
