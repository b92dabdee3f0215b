"""The driver for NATS brokers: checks, restart and shutdown of nats-py's client."""

import asyncio
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ssl import SSLError
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from faststream.exceptions import IncorrectState, SetupError
from faststream.nats import JStream, NatsBroker
from nats.aio.client import Client
from nats.errors import AuthorizationError, ConnectionClosedError, NoServersError
from nats.js.api import ConsumerConfig
from nats.js.errors import BadRequestError, NotFoundError, ServiceUnavailableError
from nats.js.errors import Error as JetStreamError

from faststream_adapters._brokers.codes import BrokerCode, SubscriberCode
from faststream_adapters._brokers.draining import wait_handled
from faststream_adapters._brokers.driver import Driver, Mismatch
from faststream_adapters._brokers.patterns import nats_covers
from faststream_adapters._compat import nats as private
from faststream_adapters._compat.faststream import Broker
from faststream_adapters._utils.loggers import DEFAULT, Loggers
from faststream_adapters._utils.tasks import cancel_and_wait
from faststream_adapters._utils.tracebacks import find_in_traceback

from .cluster import ServerSelection, has_alternatives, share_url_credentials
from .consumers import durable_name, find_mismatch
from .slow_consumers import SlowConsumers
from .subscriptions import (
    core_subscription,
    drain,
    is_callback_alive,
    jetstream_subscription,
    restart_callback,
    wrap_pull,
)

_CLOSE_TIMEOUT = 2.0

_CLOSED_INTERVAL = 0.05
"""Seconds between two looks at whether the client was closed during a drain."""

# FastStream's method, or its replacement if it was replaced before this module was imported.
_DEFAULT_PING = NatsBroker.ping

_STORE_TIMEOUT = 5.0
"""Seconds that the server may take to store a message."""

ORDERED_TIMEOUT = 30.0
"""Seconds that an ordered consumer may be missing: nats-py creates a new one that continues the old one."""

STREAM_INTERVAL = 60.0
"""Seconds between two requests for the subjects of a stream."""


class NatsDriver(Driver):
    """The driver for a NATS broker."""

    broker: NatsBroker
    load_balancing_hint = "a queue group (queue=...) or a durable pull consumer"
    supports_publishing = True
    supports_patterns = True

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        # The streams that this application declares, with their subjects.
        self._streams: dict[str, tuple[JStream, list[str]]] = {}
        self._slow_consumers = SlowConsumers(self)
        # The subscriptions whose consumer this user has no permission to inspect.
        self._unpermitted: WeakSet[object] = WeakSet()
        # When the consumer of a subscription was first missing, on the clock of `time.monotonic`.
        self._missing_since: WeakKeyDictionary[object, float] = WeakKeyDictionary()
        # The last request for the subjects of each stream, on the clock of `time.monotonic`, and its result.
        self._subjects: dict[str, tuple[float, list[str] | None]] = {}
        # How many messages each consumer has to deliver, as the server last reported.
        self._pending: WeakKeyDictionary[object, int] = WeakKeyDictionary()

    @property
    def client(self) -> Client | None:
        """The client; None before the broker connects and for a TestBroker."""
        try:
            client = self.broker.connection
        except IncorrectState:
            return None
        return client if isinstance(client, Client) else None

    @property
    def is_reconnecting(self) -> bool:
        client = self.client
        return client is not None and client.is_reconnecting and not self.is_closed

    @property
    def is_closed(self) -> bool:
        client = self.client
        if client is None or client.is_connected:
            return False
        # An error that nats-py does not expect, or that FastStream raises because a login is rejected, ends
        # the reconnection task and leaves the client "reconnecting" or "connecting".
        task = private.reconnection_task(client)
        # Retrieving the exception also keeps the event loop from logging that it was never retrieved.
        ended = task is not None and task.done() and (task.cancelled() or task.exception() is not None)
        return ended or not (client.is_connecting or client.is_reconnecting)

    def connection_id(self) -> object:
        client = self.client
        return client and (client, client.stats["reconnects"], client.is_closed)

    def local_status(self) -> BrokerCode | None:
        client = self.client
        if client is None or client.is_connected:
            return None
        if client.last_error is not None and self.classify(client.last_error) == "auth_failed":
            return "auth_failed"
        return "closed" if client.is_closed else "unreachable"

    def start_check(self) -> asyncio.Future[Any] | None:
        client = self.client
        # FastStream's ping only reads a flag of the client, so it can be skipped; an overridden ping cannot.
        if (
            client is None
            or not client.is_connected
            or not _is_default_ping(self.broker.ping)
            or _lacks_tls(client)
        ):
            return None
        if _on_websocket(client):
            # A write to a WebSocket waits for the flusher, and only rtt() wakes it.
            return None
        return private.send_ping(client)

    async def check(self) -> BrokerCode:
        code = await self._ping()
        client = self.client
        if code != "ok" or client is None:
            return code
        await private.round_trip(client)
        return "error" if _lacks_tls(client) else "ok"

    def classify(self, error: BaseException) -> BrokerCode:
        # The server also says "authentication expired" and "authentication revoked".
        text = str(error).lower()
        if isinstance(error, AuthorizationError) or "authorization" in text or "authentication" in text:
            return "auth_failed"
        if isinstance(error, ConnectionClosedError):
            return "closed"
        if isinstance(error, OSError) and error.filename is not None:
            # A file with credentials cannot be read.
            return "error"
        return "unreachable" if isinstance(error, NoServersError) else super().classify(error)

    def on_started(self, subscriber: Any) -> None:
        wrap_pull(subscriber)

    def consuming_tasks(self, subscriber: Any) -> "Sequence[asyncio.Task[Any]]":
        tasks = super().consuming_tasks(subscriber)
        callback = private.callback_task(core_subscription(subscriber))
        return tasks if callback is None else [*tasks, callback]

    def is_idle(self, subscriber: Any) -> bool:
        waiting = core_subscription(subscriber).pending_msgs if is_callback_alive(subscriber) else 0
        if (stream := getattr(subscriber, "receive_stream", None)) is not None:
            waiting += stream.statistics().current_buffer_used
        return not waiting and super().is_idle(subscriber)

    def is_load_balanced(self, subscriber: Any) -> bool | None:
        if not hasattr(subscriber, "extra_options") or hasattr(subscriber, "kv_watch"):
            return None
        return bool(getattr(subscriber, "queue", "") or subscriber.extra_options.get("durable"))

    def destination(self, subscriber: Any) -> str:
        subject = subscriber.subject.template or ",".join(subscriber.filter_subjects)
        watch = getattr(subscriber, "kv_watch", None)
        # The subject of a watcher of an object store is its bucket.
        return subject if watch is None else f"{watch.name}/{subject}"

    def group(self, subscriber: Any) -> str | None:
        queue = getattr(subscriber, "queue", "")
        return queue or subscriber.extra_options.get("durable") or None

    def publish_arguments(
        self, subscriber: Any, address: str, destination: str = ""
    ) -> Mapping[str, Any] | None:
        subjects = [subscriber.subject.broker_address] if subscriber.subject else subscriber.filter_subjects
        subject = dict(zip(subscriber.specification.subjects, subjects, strict=True))[address]
        if {"*", ">"}.intersection(subject.split(".")):
            if not nats_covers(subject, destination):
                return None
            subject = destination
        if (stream := getattr(subscriber, "stream", None)) is None:
            return {"subject": subject}
        # The server confirms that it has stored the message in this stream, for which FastStream waits 0.5 s.
        return {"subject": subject, "stream": stream.name, "timeout": _STORE_TIMEOUT}

    def supports_request(self, subscriber: Any) -> bool:  # noqa: ARG002 (each of them)
        return True

    def is_confirmation(self, reply: Any) -> bool:
        # A stream that stores the subject replies before a subscriber. FastStream's replies have headers.
        return not reply.headers and reply.body.startswith((b'{"stream":', b'{"error":'))

    def is_reserved_header(self, name: str) -> bool:
        # With these the server deletes, delays or drops messages.
        return name.startswith("nats-") or super().is_reserved_header(name)

    def dropped(self, subscriber: Any) -> int:
        dropped = self._slow_consumers.dropped
        return dropped.get(subscriber, 0) if dropped else 0

    async def check_subscriber(self, subscriber: Any) -> SubscriberCode | Mismatch:
        client, subscription = self.client, jetstream_subscription(subscriber)
        if client is None or (subscription is not None and subscription in self._unpermitted):
            return "ok"
        if subscription is None:
            # Core NATS has no request for the state of a subscription, but it reports a missing permission.
            subject = getattr(core_subscription(subscriber), "subject", "")
            return "not_permitted" if _was_refused(client, f'subscription to "{subject}"') else "ok"
        self._pending.pop(subscriber, None)
        try:
            info = await subscription.consumer_info()
        except NotFoundError:
            since = self._missing_since.setdefault(subscription, time.monotonic())
            missing = time.monotonic() - since
            return "ok" if _is_ordered(subscriber) and missing < ORDERED_TIMEOUT else "consumer_missing"
        except Exception as error:  # noqa: BLE001 (any error means that the server did not report on it)
            if _was_refused(client, f"consumer.info.{private.consumer_name(subscription)}"):
                # A missing permission to inspect the consumer says nothing about its health.
                self._unpermitted.add(subscription)
                return "ok"
            return self.classify_subscriber(error)
        self._missing_since.pop(subscription, None)
        self._pending[subscriber] = info.num_pending or 0
        code: SubscriberCode = "consumer_paused" if info.paused else "ok"
        compared = None
        if not _is_ordered(subscriber):
            compared = await self._compare(subscriber, subscription, info.config)
        return compared or code

    async def backlogs(self, subscribers: Sequence[Any]) -> Mapping[Any, int]:
        # The checks of the consumers have just asked for them.
        asked = set(subscribers)
        return {each: pending for each, pending in self._pending.items() if each in asked}

    def is_backlog_shared(self, subscriber: Any) -> bool:
        # Otherwise each process has a consumer of its own, as for a key-value store.
        return bool(self.is_load_balanced(subscriber))

    async def _compare(
        self, subscriber: Any, subscription: Any, found: ConsumerConfig
    ) -> SubscriberCode | Mismatch | None:
        """Return the fault of a consumer that is not the one a subscriber declares or consumes from.

        Args:
            subscriber: The subscriber, which may have been stopped meanwhile.
            subscription: Its JetStream subscription.
            found: The configuration of the consumer on the server.
        """
        subjects = await self._stream_subjects(subscriber)
        if (mismatch := find_mismatch(subscriber, found, subjects)) is not None:
            return mismatch
        # It was deleted and created again, perhaps by another process, and delivers elsewhere.
        moved = found.deliver_subject not in {None, private.inner_subscription(subscription).subject}
        return "consumer_missing" if moved else None

    async def _stream_subjects(self, subscriber: Any) -> list[str] | None:
        """Return the subjects of a subscriber's stream, at most `STREAM_INTERVAL` seconds old.

        Returns:
            None if they are unknown, or do not show what the stream contains.
        """
        name = subscriber.stream.name
        asked_at, subjects = self._subjects.get(name, (-math.inf, None))
        if time.monotonic() - asked_at >= STREAM_INTERVAL:
            # Concurrent checks of other subscribers use the previous result.
            self._subjects[name] = time.monotonic(), subjects
            with suppress(Exception):
                config = (await subscriber.jetstream.stream_info(name)).config
                is_fed_otherwise = config.mirror or config.sources or config.subject_transform
                subjects = None if is_fed_otherwise else config.subjects
            self._subjects[name] = time.monotonic(), subjects
        return subjects

    async def restart(self, subscriber: Any) -> Mismatch | None:
        if restart_callback(subscriber):
            return None
        # A start would fail, or bind to a consumer that is not the declared one.
        if (mismatch := await _find_mismatch(subscriber)) is not None:
            return mismatch
        private.clear_bucket_cache(self.broker)
        # start() does nothing while there is a subscription, and stop() fails if it cannot unsubscribe.
        subscription, subscriber.subscription = subscriber.subscription, None
        if subscription is not None:
            with suppress(Exception):
                await subscription.unsubscribe()
        await self.stop_now(subscriber)
        if (stream := getattr(subscriber, "stream", None)) is not None:
            await self._ensure_stream(stream.name)
        await subscriber.start()
        return None

    async def _ensure_stream(self, name: str) -> None:
        """Declare a stream again if this application declares it; otherwise require that it exists.

        Raises:
            NotFoundError: The stream does not exist, and this application does not declare it.
        """
        context = private.jetstream(self.broker)
        stream, subjects = self._streams.get(name, (None, []))
        try:
            info = await context.stream_info(name)
        except NotFoundError:
            if stream is None:
                raise
            await context.add_stream(config=stream.config, subjects=subjects)
            return
        # Another application that shares the stream may have declared it first, with other subjects.
        existing = info.config.subjects or []
        if missing := [subject for subject in subjects if subject not in existing]:
            with suppress(BadRequestError):
                await context.update_stream(config=info.config, subjects=[*existing, *missing])

    async def connect(self, *, consume: bool, supervise: bool) -> None:  # noqa: ARG002 (for other clients)
        self.last_error = None
        self._subjects.clear()
        # A failed start leaves `declare` False, and later starts would fail because the stream is missing.
        self._streams |= {
            stream.name: (stream, subjects) for stream, subjects in private.streams(self.broker)
        }
        for stream, _ in self._streams.values():
            stream.declare = True
        private.clear_bucket_cache(self.broker)
        try:
            with private.observed_errors(self.broker, self._on_connect_error):
                await self.broker.connect()
        except BaseException as error:
            # Only the traceback refers to the client that was connecting, and its socket would stay open.
            if (unfinished := find_in_traceback(error, Client)) is not None:
                await close(unfinished)
            raise
        self.last_error = None
        client = self.broker.connection
        if _lacks_tls(client):
            msg = "the broker's options require TLS, and the server does not offer it"
            raise SSLError(1, msg)
        self._slow_consumers.watch(client)
        share_url_credentials(client)
        private.select_servers_by(client, ServerSelection(client))
        if supervise:
            # By default nats-py closes the client after 60 failed attempts, and never consumes again.
            client.options["max_reconnect_attempts"] = -1
        await self.start_publishers()

    def _on_connect_error(self, error: Exception) -> None:
        known = self.last_error
        # A server that rejects a login closes the connection, and its words may be lost with that.
        if known is None or not isinstance(error, ConnectionError) or self.classify(known) != "auth_failed":
            self.last_error = error
        if isinstance(error, SSLError) and (client := find_in_traceback(error, Client)) is not None:
            # nats-py 2.16 would wait for ever for the end of a connection whose TLS handshake has failed.
            private.drop_transport(client)

    async def declare(self) -> None:
        with _explained():
            for name in self._streams:
                await self._ensure_stream(name)

    async def start_subscribers(self) -> None:
        with _explained():
            try:
                await super().start_subscribers()
            except (JetStreamError, TypeError) as error:
                # nats-py raises a TypeError for a consumer that is pull instead of push.
                await self._raise_mismatch(error)
                raise

    async def _raise_mismatch(self, error: Exception) -> None:
        """Raise an error with both values if a start has failed because of a consumer that is another one."""
        for subscriber in self.broker.subscribers:
            if (mismatch := await _find_mismatch(subscriber)) is not None:
                msg = (
                    f"the subscriber {self.subscriber_name(subscriber)} does not match the server: "
                    f"declared {mismatch.declared}, found {mismatch.found}"
                )
                raise SetupError(msg) from error

    async def drain(self) -> None:
        draining = asyncio.create_task(self.drain_each(self._drain_subscriber))
        try:
            # nats-py waits on for the replies and the handlers of a client that is closed meanwhile.
            while not draining.done() and not self.is_closed:
                await asyncio.wait((draining,), timeout=_CLOSED_INTERVAL)
        finally:
            await cancel_and_wait(draining, loggers=self.loggers)

    async def _drain_subscriber(self, subscriber: Any) -> None:
        if not await drain(subscriber):
            await super()._drain_subscriber(subscriber)

    async def pause(self, subscriber: Any) -> None:
        await self._drain_subscriber(subscriber)
        await wait_handled(subscriber)
        await self.stop_now(subscriber)

    async def reconnect(self) -> bool:
        client = self.broker.connection
        if _on_websocket(client) or not has_alternatives(client):
            return False
        # Unlike a restart, this keeps the messages that were delivered to the subscriptions.
        private.abort_connection(client)
        await client.force_reconnect()
        return client.is_reconnecting

    async def abort(self, seconds: float = 0.0) -> None:
        client = self.client
        private.drop_connection(self.broker)
        try:
            await super().abort(seconds)
        finally:
            if client is not None:
                self._warn_of_unsent(client)
                await close(client, self.loggers)

    def _warn_of_unsent(self, client: Client) -> None:
        if unsent := private.unsent_publishes(client):
            self.loggers["brokers"].warning(
                "%s: %d published messages (%d bytes) are lost: the connection ended before they were sent.",
                self.name,
                len(unsent),
                sum(map(len, unsent)),
                extra={"broker": self.name},
            )


@contextmanager
def _explained() -> Iterator[None]:
    """Explain the error of nats-py for a server without JetStream, which has no text."""
    try:
        yield
    except ServiceUnavailableError as error:
        error.description = error.description or "JetStream is not enabled for this server or account"
        raise


async def _find_mismatch(subscriber: Any) -> Mismatch | None:
    """Compare a subscriber with the durable consumer of its name, if there is one."""
    if (stream := getattr(subscriber, "stream", None)) is None or not (name := durable_name(subscriber)):
        return None
    try:
        info = await subscriber.jetstream.consumer_info(stream.name, name)
    except NotFoundError:
        return None
    return find_mismatch(subscriber, info.config, None)


def _is_ordered(subscriber: Any) -> bool:
    is_watcher = hasattr(subscriber.subscription, "obj")
    return is_watcher or bool(subscriber.extra_options.get("ordered_consumer"))


def _was_refused(client: Client, action: str) -> bool:
    """Return whether the server's last error, which it sends asynchronously, refuses an action."""
    error = str(client.last_error).lower()
    return "permissions violation" in error and action.lower() in error


def _is_default_ping(ping: Any) -> bool:
    return getattr(ping, "__func__", None) is _DEFAULT_PING


def _on_websocket(client: Client) -> bool:
    url = client.connected_url
    return url is not None and url.scheme in {"ws", "wss"}


def _lacks_tls(client: Client) -> bool:
    """Return whether the connection is unencrypted although the options require TLS.

    nats-py leaves the choice to the server, and thus to an attacker that impersonates it.
    """
    url = client.connected_url
    if url is None or _on_websocket(client) or client.options["tls_handshake_first"]:
        return False
    required = url.scheme == "tls" or "tls" in client.options
    return required and not private.server_info(client).get("tls_required")


async def close(client: Client, loggers: Loggers = DEFAULT) -> None:
    """Close a client's connection in any state of the client."""
    # A connection that is lost from now on must not be restored.
    client.options["allow_reconnect"] = False
    try:
        # close() would cancel the task only once: wait_for() swallows a cancellation at the moment when an
        # attempt to connect ends, and the client would continue to connect.
        if (task := private.reconnection_task(client)) is not None and not task.done():
            await cancel_and_wait(task, timeout=0.05, loggers=loggers)
    finally:
        # Also after a cancellation: no other code refers to the client any more.
        try:
            with suppress(Exception):
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    await client.close()
        finally:
            for task in private.drain_tasks(client):
                task.cancel()
            # nats-py treats an interrupted close() as complete, and its socket stays open.
            if (transport := private.transport(client)) is not None:
                transport.close()  # type: ignore[no-untyped-call]  # nats-py left it untyped


driver_class = NatsDriver
