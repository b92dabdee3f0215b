"""Private names of FastStream's NATS broker and of nats-py.

nats-py has no public equivalents; the names are those of 2.16.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import getclosurevars
from typing import Any
from urllib.parse import ParseResult

from faststream.nats import JStream, NatsBroker
from nats.aio.client import Client, ErrorCallback, ReconnectToServerHandler
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport, Transport
from nats.errors import ConnectionClosedError
from nats.js import JetStreamContext

from .faststream import forget_connection
from .tasks import tasks_in


def jetstream(broker: NatsBroker) -> JetStreamContext:
    """Return the context of a connected broker, which has its `js_options`."""
    context: JetStreamContext = broker.config.connection_state.stream
    return context


def streams(broker: NatsBroker) -> list[tuple[JStream, list[str]]]:
    """Return the JetStream streams that `start()` declares, with their subjects."""
    streams = broker._stream_builder.objects.values()
    return [(stream, list(subjects)) for stream, subjects in streams if stream.declare]


@contextmanager
def observed_errors(broker: NatsBroker, observe: Callable[[Exception], object]) -> Iterator[None]:
    """Call a function with each error that a client meets while the broker connects.

    `Client.connect()` makes attempts without limit, and passes their errors only to the error callback.
    """
    options: dict[str, Any] = broker._connection_kwargs
    callback: ErrorCallback = options["error_cb"]

    async def observed(error: Exception) -> None:
        observe(error)
        await callback(error)

    options["error_cb"] = observed
    try:
        yield
    finally:
        options["error_cb"] = callback
        if broker._connection is not None and broker._connection._error_cb is observed:
            broker._connection._error_cb = callback


def clear_bucket_cache(broker: NatsBroker) -> None:
    """Drop the cached key-value and object stores of an earlier connection."""
    broker.config.kv_declarer.buckets.clear()
    broker.config.os_declarer.buckets.clear()


def drop_connection(broker: NatsBroker) -> None:
    """Remove a broker's references to its connection, so that `stop()` does not drain it."""
    subscriber: Any
    for subscriber in broker.subscribers:
        subscriber.subscription = subscriber._fetch_sub = None
    forget_connection(broker)
    broker.config.disconnect()


def send_ping(client: Client) -> asyncio.Future[Any]:
    """Write a PING and return the future that its PONG resolves.

    `Client.rtt()` does the same, but needs a task and a timer for each check: 154 instead of 98 µs of CPU for
    a lone check, and with 32 requests at a time the rest of the margin that `make bench` demands of a ping.
    """
    # The write comes first: the client resolves the oldest future at each PONG, so a write that raises must
    # leave none behind.
    client._transport.write(b"PING\r\n")  # type: ignore[union-attr]
    pong: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    client._pongs.append(pong)
    return pong


async def round_trip(client: Client) -> None:
    """Wait for a reply of the server, as `Client.rtt()` does, but without a timeout; may be cancelled.

    A call of `rtt()` that times out or is cancelled leaves a cancelled future in the client. When the late
    PONG arrives, the read loop fails on this future and ends: `is_connected` remains true, and no message is
    received any more (nats-py 2.16).

    Raises:
        ConnectionClosedError: The client is closed.
    """
    if client.is_closed:
        raise ConnectionClosedError
    pong: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    await client._send_ping(pong)
    await asyncio.shield(pong)


def server_info(client: Client) -> Mapping[str, Any]:
    """Return the INFO message that the server sent when the client last connected."""
    return client._server_info


def reconnection_task(client: Client) -> asyncio.Task[None] | None:
    """Return the task of the current or last reconnect, or None."""
    return client._reconnection_task


def current_url(client: Client) -> ParseResult:
    """Return the URL of the server that the client has dialled last."""
    return client._current_server.uri  # type: ignore[union-attr]  # set by the first attempt to connect


def select_servers_by(client: Client, select: ReconnectToServerHandler) -> None:
    """Let a function select the server for each attempt to reconnect, unless the application has one.

    FastStream takes such a function only when the broker is created. Not for WebSockets: with a function, an
    error of aiohttp ends the attempts.
    """
    if client._reconnect_to_server_handler is None and isinstance(client._transport, TcpTransport):
        client._reconnect_to_server_handler = select


def error_callbacks(client: Client) -> tuple[ErrorCallback, ErrorCallback | None]:
    """Return the client's error callback, which is FastStream's, and the application's, which that calls."""
    callback = client._error_cb
    return callback, getclosurevars(callback).nonlocals.get("error_cb")


def replace_error_callback(client: Client, callback: ErrorCallback) -> None:
    """Replace the error callback of a connected client, which FastStream has set."""
    client._error_cb = callback


def unsent_publishes(client: Client) -> list[bytes]:
    """Return the publish commands that a client buffers until it has reconnected.

    Those for JetStream itself are left out: the server repeats what they acknowledge or request.
    """
    return [
        command
        for command in client._pending
        if command.startswith((b"PUB ", b"HPUB ")) and not command.split(b" ", 2)[1].startswith(b"$JS.")
    ]


def drain_tasks(client: Client) -> Iterator[asyncio.Task[Any]]:
    """Yield the tasks that drain subscriptions.

    A cancelled `Client.drain()` may leave them: they wait 10 s for a PONG, although the client is closed.
    """
    for task, subscription in tasks_in("Subscription._drain"):
        if subscription._conn is client:
            yield task


def drop_transport(client: Client) -> None:
    """Close the transport of a connecting client, and let the client create another one."""
    transport: Any = client._transport
    client._transport = None
    transport.close()


def transport(client: Client) -> Transport | None:
    """Return the transport of the current or last connection, or None."""
    return client._transport


def abort_connection(client: Client) -> None:
    """Close the socket of a TCP connection at once.

    `Transport.close()` waits until the server has read what was written, and a frozen one never does.
    """
    client._transport._io_writer.transport.abort()  # type: ignore[union-attr]  # as `TcpTransport` has it


def consumer_name(subscription: Any) -> str:
    """Return `stream.consumer` of a JetStream subscription, as it occurs in the server's subjects."""
    return f"{subscription._stream}.{subscription._consumer}"


def watcher_subscription(watcher: Any) -> Any:
    """Return the JetStream subscription of a key-value or object store watcher."""
    return watcher._sub


def inner_subscription(subscription: Any) -> Any:
    """Return the core subscription inside a JetStream subscription, or the subscription itself."""
    return getattr(subscription, "_sub", subscription)


def subscription_client(subscription: Subscription) -> Client:
    """Return the client of a core subscription."""
    client: Client = subscription._conn
    return client


def pending_queue(subscription: Subscription) -> asyncio.Queue[Msg]:
    """Return the queue of messages that a core subscription has received and not delivered."""
    return subscription._pending_queue


def is_closed(subscription: Subscription) -> bool:
    """Return whether a core subscription has been unsubscribed or drained."""
    return subscription._closed


async def send_unsubscribe(subscription: Subscription) -> None:
    """Send only UNSUB: the public `unsubscribe()` also discards the messages that are in transit."""
    await subscription._conn._send_unsubscribe(subscription._id)


def callback_task(subscription: Any) -> asyncio.Task[None] | None:
    """Return the task that calls a core subscription's callback; None if it has no callback."""
    task: asyncio.Task[None] | None = getattr(subscription, "_wait_for_msgs_task", None)
    return task


def restart_callback_task(subscription: Subscription, wrapper: Any) -> None:
    """Start another task to call a core subscription's callback.

    Args:
        subscription: The core subscription.
        wrapper: The JetStream subscription around it, or None. Its `unsubscribe()` cancels the task through a
            reference of its own.
    """
    subscription._start(subscription._conn._error_cb)  # type: ignore[no-untyped-call]
    if wrapper is not None:
        wrapper._wait_for_msgs_task = subscription._wait_for_msgs_task
