"""Private names of FastStream's MQTT broker, of zmqtt and of the asyncio queues in zmqtt's subscriptions.

zmqtt 0.2.5 has no public equivalents.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from faststream.mqtt import MQTTBroker
from zmqtt import Message, QoS
from zmqtt.client import MQTTClient, Subscription, _default_transport_factory

from .faststream import forget_connection

if TYPE_CHECKING:
    from zmqtt._internal.protocol import MQTTProtocol
    from zmqtt._internal.transport.base import Transport


def client(broker: MQTTBroker) -> object:
    """Return the client of a broker, also that of a TestBroker; None if it is not connected."""
    return broker._connection


def settings(broker: MQTTBroker) -> Mapping[str, Any]:
    """Return the arguments with which a broker creates its client."""
    return broker._connection_kwargs


def subscription(subscriber: Any) -> Any:
    """Return the zmqtt subscription of a subscriber, or None."""
    return subscriber._subscription


def restart_tasks(subscriber: Any) -> None:
    """Restart those of a subscriber's tasks that have ended; its subscription is kept."""
    subscriber.tasks[:] = [task for task in subscriber.tasks if not task.done()]
    alive = {task.get_coro().__name__ for task in subscriber.tasks}
    if "_consume_loop" not in alive:
        subscriber.add_task(subscriber._consume_loop, restart_on_failure=False)
    if "_serve_consume_queue" not in alive and hasattr(subscriber, "start_consume_task"):
        subscriber.start_consume_task()


def drop_connection(broker: MQTTBroker) -> None:
    """Remove a broker's references to its connection, so that `stop()` does not wait for the server."""
    subscriber: Any
    for subscriber in broker.subscribers:
        subscriber._subscription = None
    forget_connection(broker)
    broker.config.disconnect()


@contextmanager
def observed_errors(broker: MQTTBroker, observe: Callable[[OSError | None], object]) -> Iterator[None]:
    """Call a function with each error in opening a connection, and with None when one is open.

    It concerns a client that is created in this context, until the context ends: `MQTTClient.connect()` makes
    several attempts, and only logs their errors.
    """
    options: dict[str, Any] = broker._connection_kwargs
    original = options.get("transport_factory")
    factory, connecting = original or _default_transport_factory, True

    async def observed(*args: Any) -> "Transport":
        error: OSError | None = None
        try:
            transport: Transport = await factory(*args)
        except OSError as raised:
            error = raised
            raise
        finally:
            if connecting:
                observe(error)
        return transport

    options["transport_factory"] = observed
    try:
        yield
    finally:
        options["transport_factory"], connecting = original, False


def run_task(client: MQTTClient) -> asyncio.Task[None] | None:
    """Return the task that reads from the server and reconnects; None before the client has connected."""
    return client._run_task


def client_id(client: MQTTClient) -> str:
    """Return the configured client id; if it is empty, the server assigns one to each connection."""
    return client._client_id


def clean_session(client: MQTTClient) -> bool:
    """Return whether a client requests a new session."""
    return client._clean_session


def reconnects(client: MQTTClient) -> bool:
    """Return whether a client reconnects after it has lost its connection."""
    return client._reconnect.enabled


def reconnect_forever(client: MQTTClient) -> None:
    """Remove a client's limit of reconnection attempts."""
    client._reconnect = replace(client._reconnect, max_attempts=None)


def protocol(client: MQTTClient) -> "MQTTProtocol | None":
    """Return the client's current or last connection; None before the first and after `disconnect()`."""
    return client._protocol


def is_dead(protocol: "MQTTProtocol") -> bool:
    """Return whether the connection was lost; `client.connection_info` still describes it for a moment."""
    return protocol._dead


def transport(protocol: "MQTTProtocol") -> "Transport":
    """Return the transport of a connection; `disconnect()` leaves it open if it is cancelled."""
    return protocol._transport


def pending_pings(protocol: "MQTTProtocol") -> list[asyncio.Future[None]]:
    """Return the futures that wait for a PINGRESP."""
    return protocol._ping_waiters


async def send_unsubscribe(protocol: "MQTTProtocol", filters: list[str]) -> None:
    """Send only UNSUBSCRIBE: `Subscription.stop()` also acknowledges and drops messages in transit."""
    await protocol._send_unsubscribe(filters)


def detach(client: MQTTClient, protocol: "MQTTProtocol", filters: list[str]) -> None:
    """Ignore messages for these filters without acknowledging them, also after a reconnect.

    `Subscription.detach()` also discards the messages in the subscription's queue.
    """
    client._detached_filters |= protocol.detach(filters)


def forget_filters(protocol: "MQTTProtocol", filters: list[str]) -> None:
    """Forget the subscriptions to these filters, so that they can be subscribed to again."""
    for each in filters:
        protocol._state.subscriptions.remove(each)


def subscriptions(client: MQTTClient) -> list[Subscription]:
    """Return the list of subscriptions that the client restores after a reconnect."""
    return client._subscriptions


class HeldMessages(asyncio.Queue[Message]):
    """The queue of a paused subscription: it keeps messages without acknowledging them until `release`.

    Meanwhile it is never full, because zmqtt reads nothing from the server while a queue is full: the server
    limits how many messages it sends without acknowledgement. It does not limit those of QoS 0: they are
    dropped.

    Args:
        client: The client.
        maxsize: How many messages it takes after the release.
    """

    def __init__(self, client: MQTTClient, maxsize: int) -> None:
        super().__init__(maxsize)
        self._client = client
        self._protocol = client._protocol
        self._is_held = True

    def full(self) -> bool:
        return not self._is_held and super().full()

    async def put(self, item: Message) -> None:
        if self._is_held:
            self._drop_repeated()
            if item.qos is QoS.AT_MOST_ONCE:
                return
        await super().put(item)

    def release(self) -> None:
        """Become a queue like any other."""
        self._drop_repeated()
        self._is_held = False

    def _drop_repeated(self) -> None:
        """Drop the messages of an earlier connection, if the server sends them again in the current one."""
        if self._protocol is not self._client._protocol:
            self._protocol = self._client._protocol
            info = self._client._connection_info
            while info is not None and info.session_present and not self.empty():
                self.get_nowait()


def redirect(client: MQTTClient, subscription: Subscription, queue: HeldMessages, *, auto_ack: bool) -> None:
    """Put what a subscription receives from now on into another queue.

    Args:
        client: The client.
        subscription: The subscription. Its messages are still taken from its own queue.
        queue: The queue.
        auto_ack: Whether zmqtt acknowledges what it puts into the queue.
    """
    protocol: Any = client._protocol
    entries = map(protocol._state.subscriptions.get, subscription._registered_filters)
    for entry in filter(None, entries):
        entry.queue, entry.auto_ack = queue, auto_ack


def replace_queue(subscription: Subscription, queue: HeldMessages, *, auto_ack: bool) -> None:
    """Let a subscription use another queue, also after a reconnect."""
    subscription._queue, subscription._auto_ack = queue, auto_ack


def take_subscription(subscriber: Any) -> Subscription:
    """Remove a subscriber's reference to its subscription, so that its `stop()` does not unsubscribe."""
    taken: Subscription
    taken, subscriber._subscription = subscriber._subscription, None
    return taken


@contextmanager
def given_subscription(subscriber: Any, subscription: Subscription) -> Iterator[None]:
    """Let the `start()` of a subscriber use this subscription instead of a new one."""

    async def give() -> None:
        subscriber._subscription = subscription

    vars(subscriber)["_create_subscription"] = give
    try:
        yield
    finally:
        del vars(subscriber)["_create_subscription"]


def filters(subscription: Subscription) -> list[str]:
    """Return the topic filters of a subscription."""
    return subscription._registered_filters


def queue(subscription: Subscription) -> asyncio.Queue[Any]:
    """Return the queue of messages that were received and not taken by a handler."""
    return subscription._queue


def received(queue: asyncio.Queue[Any]) -> int:
    """Return how many messages were ever put into a queue; zmqtt never calls `task_done()`."""
    count: int = queue._unfinished_tasks  # type: ignore[attr-defined]
    return count


def is_awaited(queue: asyncio.Queue[Any]) -> bool:
    """Return whether a task waits in `get()`; if not, a task may hold a message that has left the queue."""
    return bool(queue._getters)  # type: ignore[attr-defined]
