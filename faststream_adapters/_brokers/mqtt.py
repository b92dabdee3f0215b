"""The driver for FastStream's MQTT brokers, which use zmqtt."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from faststream import AckPolicy
from faststream.mqtt import MQTTBroker
from zmqtt import ConnAckProperties, MQTTConnectError, MQTTDisconnectedError, MQTTTimeoutError, QoS
from zmqtt.client import MQTTClient, Subscription

from faststream_adapters._compat import mqtt as private
from faststream_adapters._compat.faststream import Broker

from .codes import BrokerCode, SubscriberCode
from .draining import wait_handled
from .driver import PING_TIMEOUT, Driver, Mismatch
from .patterns import mqtt_covers

START_TIMEOUT = 30.0
"""Seconds that a start may take: zmqtt has no timeout for a server that stops replying after it connected."""

_CLOSE_TIMEOUT = 2.0

_POLL_INTERVAL = 0.02
"""Seconds between two polls of a queue, which has no event for being full or empty."""

_NEVER = 24 * 60 * 60
"""The timeout in seconds of a ping whose caller has a deadline."""

_REJECTED = {4, 5, 0x86, 0x87, 0x8A, 0x8C}
"""The return codes of CONNACK for rejected credentials, first those of MQTT 3.1.1, then those of MQTT 5."""


class MqttDriver(Driver):
    """The driver for an MQTT broker."""

    broker: MQTTBroker
    load_balancing_hint = "a shared subscription (shared=...)"
    supports_publishing = True
    supports_patterns = True

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._received_counts: list[int] = []
        self._progress_at = 0.0
        self._is_session_kept = False
        """Whether the server keeps messages for this client while it is disconnected."""
        self._held: dict[Any, Subscription] = {}
        """The subscriptions of paused subscribers in a session that outlives its connection."""
        self._warned_of_held = False

    @property
    def client(self) -> MQTTClient | None:
        """The client; None before the broker connects and for a TestBroker."""
        client = private.client(self.broker)
        return client if isinstance(client, MQTTClient) else None

    @property
    def client_id(self) -> str:
        name: str = private.settings(self.broker)["client_id"]
        return name

    @property
    def is_reconnecting(self) -> bool:
        client = self.client
        return client is not None and not (_connection_number(client) or self.is_closed)

    @property
    def is_closed(self) -> bool:
        client = self.client
        return client is not None and ((task := private.run_task(client)) is None or task.done())

    def connection_id(self) -> object:
        client = self.client
        return client and (client, _connection_number(client))

    def local_status(self) -> BrokerCode | None:
        client = self.client
        if client is None or _connection_number(client):
            return None
        if not self.is_closed:
            return "unreachable"
        task = private.run_task(client)
        error = None if task is None or task.cancelled() else task.exception()
        return "auth_failed" if error is not None and self.classify(error) == "auth_failed" else "closed"

    async def check(self) -> BrokerCode:
        if self._has_full_queue():
            # zmqtt stops reading while a queue is full, so a reply would wait behind messages.
            return "ok" if self._is_progressing() else "timeout"
        ping = asyncio.create_task(self.broker.ping(PING_TIMEOUT))
        try:
            while not ping.done():
                if self._has_full_queue():
                    # The server has just sent the messages that filled the queue.
                    return "ok"
                await asyncio.wait((ping,), timeout=_POLL_INTERVAL)
            if ping.result():
                return "ok"
            return self.local_status() or ("timeout" if self.has_client else "not_started")
        finally:
            if not ping.done() and (client := self.client) is not None:
                _ignore_pending_pings(client)
            # zmqtt accepts a reply that arrives after the cancellation.
            ping.cancel()

    def _full_queues(self) -> "list[asyncio.Queue[Any]]":
        """Return the subscriptions' queues that are full."""
        client = self.client
        queues = map(private.queue, private.subscriptions(client)) if client else ()
        return [queue for queue in queues if queue.full()]

    def _has_full_queue(self) -> bool:
        return bool(self._full_queues())

    def _is_progressing(self) -> bool:
        """Return whether messages have been put into the full queues within the last `PING_TIMEOUT`."""
        counts = [private.received(queue) for queue in self._full_queues()]
        now = asyncio.get_running_loop().time()
        if counts != self._received_counts:
            self._received_counts, self._progress_at = counts, now
        return now - self._progress_at < PING_TIMEOUT

    def classify(self, error: BaseException) -> BrokerCode:
        if isinstance(error, MQTTConnectError):
            return "auth_failed" if error.return_code in _REJECTED else "unreachable"
        if isinstance(error, MQTTDisconnectedError):
            return "closed"
        return "timeout" if isinstance(error, MQTTTimeoutError) else super().classify(error)

    def is_load_balanced(self, subscriber: Any) -> bool | None:
        topic: str = subscriber.topic
        return topic.startswith(("$share/", "$queue/"))

    def destination(self, subscriber: Any) -> str:
        address: str = subscriber.specification.address
        return address

    def group(self, subscriber: Any) -> str | None:
        return subscriber.specification.config.shared or None

    def publish_arguments(
        self,
        subscriber: Any,
        address: str,  # noqa: ARG002 (the subscriber knows)
        destination: str = "",
    ) -> Mapping[str, Any] | None:
        topic: str = subscriber.topic
        if group := self.group(subscriber):
            topic = topic.removeprefix(f"$share/{group}/")
        if {"+", "#"}.intersection(topic.split("/")):
            if not mqtt_covers(topic, destination):
                return None
            topic = destination
        return {"topic": topic, "qos": subscriber.specification.config.qos}

    def supports_request(self, subscriber: Any) -> bool:  # noqa: ARG002 (each of them)
        # Older messages have no property for the topic of the reply.
        return self.broker.specification.protocol_version == "5.0"

    async def send_request(self, message: Any, **arguments: Any) -> Any:
        # Not by name, as `publish()` takes it.
        return await self.broker.request(message, arguments.pop("topic"), **arguments)

    def is_idle(self, subscriber: Any) -> bool:
        if not super().is_idle(subscriber):
            return False
        subscription = private.subscription(subscriber)
        tasks = subscriber.tasks
        if subscription is None or not tasks or any(task.done() for task in tasks):
            # Queued messages stay in the queue for the tasks that replace these.
            return True
        limiter = getattr(subscriber, "limiter", None)
        # A task that waits for the next message shows that no message is between the queue and a worker.
        no_worker_busy = limiter is None or (
            limiter.value == subscriber.max_workers
            and subscriber.receive_stream.statistics().tasks_waiting_receive > 0
        )
        queue = private.queue(subscription)
        return no_worker_busy and queue.empty() and private.is_awaited(queue)

    async def check_subscriber(self, subscriber: Any) -> SubscriberCode | Mismatch:
        client, declared = self.client, subscriber.specification.config
        connected = client is not None and _connection_number(client)
        offered = client.connection_info.properties if client is not None and connected else None
        return find_mismatch(declared.qos, declared.shared, offered) or "ok"

    async def restart(self, subscriber: Any) -> None:
        if private.subscription(subscriber) is None:
            # It could not be started.
            await self.resume(subscriber)
        else:
            # The subscription is kept, because its queued messages would be lost with it.
            private.restart_tasks(subscriber)

    async def connect(self, *, consume: bool, supervise: bool) -> None:  # noqa: ARG002 (for other clients)
        self.last_error = None
        self._received_counts = []
        self._held.clear()
        if not self.client_id and self._requests_persistent_session():
            self.loggers["brokers"].warning(
                "%s: a session that outlives its connection needs a client_id.",
                self.name,
                extra={"broker": self.name},
            )
        try:
            async with asyncio.timeout(START_TIMEOUT):
                with private.observed_errors(self.broker, self._on_connect_error):
                    await self.broker.connect()
                client = self.client
                self._is_session_kept = client is not None and _has_persistent_session(client)
                if supervise and client is not None:
                    # By default zmqtt gives up after 5 attempts, about 30 s, and the consumers end.
                    private.reconnect_forever(client)
                await self.start_publishers()
        except BaseException as error:
            self.last_error = _root_error(error) or self.last_error
            raise

    def _on_connect_error(self, error: OSError | None) -> None:
        self.last_error = error

    async def start_subscribers(self) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await super().start_subscribers()
                for subscriber in self.broker.subscribers:
                    if subscriber in self.paused and self._is_kept(subscriber):
                        await self._subscribe_held(subscriber)
        except BaseException as error:
            self.last_error = _root_error(error)
            raise

    def _requests_persistent_session(self) -> bool:
        settings = private.settings(self.broker)
        persists = settings["version"] == "3.1.1" or settings["session_expiry_interval"]
        return not settings["clean_session"] and bool(persists)

    async def drain(self) -> None:
        if (client := self.client) is None:
            return
        await self.drain_each(partial(_drain, client, unsubscribe=not self._is_session_kept))
        # Messages that have been received are handled even if the connection is lost meanwhile.
        while not all(map(self.is_idle, self.to_drain)):  # noqa: ASYNC110 (see _POLL_INTERVAL)
            await asyncio.sleep(_POLL_INTERVAL)

    async def pause(self, subscriber: Any) -> None:
        client: Any = self.client
        subscription = private.subscription(subscriber)
        if subscription in private.subscriptions(client) and self._is_kept(subscriber):
            await self._hold(client, subscriber, subscription)
        else:
            await _drain(client, subscriber, unsubscribe=True)
            await self.stop_now(subscriber)

    def _is_kept(self, subscriber: Any) -> bool:
        """Return whether the server keeps the messages of a subscriber while its client is disconnected."""
        return self._is_session_kept and bool(subscriber.calls) and _qos(subscriber) > 0

    async def _hold(self, client: MQTTClient, subscriber: Any, subscription: Subscription) -> None:
        """Stop a subscriber, and keep its subscription and what it receives, unacknowledged."""
        queue = private.queue(subscription)
        held = private.HeldMessages(client, queue.maxsize)
        private.redirect(client, subscription, held, auto_ack=False)
        self._warn_of_held(subscriber)
        await _handle_received(subscriber, queue)
        private.replace_queue(subscription, held, auto_ack=False)
        # It may have reconnected meanwhile.
        private.redirect(client, subscription, held, auto_ack=False)
        self._held[subscriber] = private.take_subscription(subscriber)
        await self.stop_now(subscriber)

    async def _subscribe_held(self, subscriber: Any) -> None:
        """Subscribe for a subscriber that is paused while its broker starts."""
        client: Any = self.client
        subscription = client.subscribe(subscriber.topic, qos=_qos(subscriber))
        held = private.HeldMessages(client, private.queue(subscription).maxsize)
        private.replace_queue(subscription, held, auto_ack=False)
        await subscription.start()
        self._held[subscriber] = subscription
        self._warn_of_held(subscriber)

    def _warn_of_held(self, subscriber: Any) -> None:
        others = any(
            each.running and _qos(each) for each in self.broker.subscribers if each is not subscriber
        )
        if others and not self._warned_of_held:
            self._warned_of_held = True
            self.loggers["brokers"].warning(
                "%s: messages for a paused subscriber wait without acknowledgement. When the server has sent "
                "as many as it allows in one session, the other subscribers get no messages of QoS 1 and 2 "
                "until it is resumed. Give a subscriber that is paused for long a broker with a client_id of "
                "its own.",
                self.name,
                extra={"broker": self.name},
            )

    async def resume(self, subscriber: Any) -> None:
        async with asyncio.timeout(START_TIMEOUT):
            if (subscription := self._held.pop(subscriber, None)) is None:
                await subscriber.start()
                return
            client: Any = self.client
            held: Any = private.queue(subscription)
            held.release()
            auto_ack = subscriber.ack_policy is AckPolicy.ACK_FIRST
            private.replace_queue(subscription, held, auto_ack=auto_ack)
            private.redirect(client, subscription, held, auto_ack=auto_ack)
            with private.given_subscription(subscriber, subscription):
                await subscriber.start()

    async def reconnect(self) -> bool:
        client = self.client
        if client is None or (protocol := private.protocol(client)) is None or not private.reconnects(client):
            return False
        if not self._has_full_queue():
            # zmqtt then connects again; its queues and the handlers are kept.
            _ignore_pending_pings(client)
            await private.transport(protocol).close()
        # With a full queue zmqtt's keep-alive decides: closing the connection to a live server would discard
        # a session with messages in it.
        return True

    async def abort(self, seconds: float = 0.0) -> None:
        client = self.client
        # Without this, stop() would wait without a timeout for the server to confirm each UNSUBSCRIBE.
        private.drop_connection(self.broker)
        try:
            await super().abort(seconds)
        finally:
            if client is not None:
                await _close(client)


def find_mismatch(qos: int, shared: str | None, server: ConnAckProperties | None) -> Mismatch | None:
    """Return what a subscriber declares and the server does not offer.

    Args:
        qos: The QoS of the subscription.
        shared: The name of the shared subscription.
        server: What the server has announced; None for MQTT 3.1.1, in which it announces nothing, and while
            there is no connection.
    """
    if server is None:
        return None
    if shared and server.shared_subscription_available is False:
        return Mismatch(f"the shared subscription {shared!r}", "a server without shared subscriptions")
    if server.maximum_qos is not None and qos > server.maximum_qos:
        return Mismatch(f"QoS {int(qos)}", f"a server with QoS {server.maximum_qos} at most")
    return None


def _qos(subscriber: Any) -> QoS:
    return QoS(subscriber.specification.config.qos)


def _connection_number(client: MQTTClient) -> int | None:
    """Return the number of the current connection, or None while there is no connection."""
    # A lost connection is marked as dead a moment before zmqtt drops it.
    if (protocol := private.protocol(client)) is not None and not private.is_dead(protocol):
        with suppress(MQTTDisconnectedError):
            return client.connection_info.connection_id
    return None


def _root_error(error: BaseException | None) -> BaseException | None:
    """Return the connection error behind a timeout or cancellation that ended the client's attempts."""
    while isinstance(error, asyncio.CancelledError | TimeoutError):
        error = error.__context__
    return error


def _has_persistent_session(client: MQTTClient) -> bool:
    """Return whether the server keeps messages for this client while it is disconnected."""
    info = client.connection_info
    # Without a client id the server assigns a new one at the next start, and with it a new session.
    named = bool(private.client_id(client))
    return named and not private.clean_session(client) and info.effective_session_expiry_interval != 0


async def _drain(client: MQTTClient, subscriber: Any, *, unsubscribe: bool) -> None:
    """Stop a subscriber from receiving messages, and wait until it has handled the received ones.

    Args:
        client: The client.
        subscriber: The subscriber.
        unsubscribe: Whether to end the subscription on the server.
    """
    subscription = private.subscription(subscriber)
    protocol = private.protocol(client)
    if protocol is None or subscription not in private.subscriptions(client):
        return
    filters = private.filters(subscription)
    try:
        if not unsubscribe:
            # After an UNSUBSCRIBE the server would keep no messages for the next start. Messages that still
            # arrive are not acknowledged.
            private.detach(client, protocol, filters)
        elif filters:
            await private.send_unsubscribe(protocol, filters)
    finally:
        # Otherwise stop() would unsubscribe anyway, and the client would subscribe again after a reconnect.
        private.subscriptions(client).remove(subscription)
    if not subscriber.calls:
        return
    await _handle_received(subscriber, private.queue(subscription), client)
    if unsubscribe:
        # Otherwise zmqtt ignores the next subscription to them.
        private.forget_filters(protocol, filters)


async def _handle_received(
    subscriber: Any, queue: "asyncio.Queue[Any]", client: MQTTClient | None = None
) -> None:
    """Wait until a subscriber has handled what is in its queue.

    Args:
        subscriber: The subscriber.
        queue: Its queue.
        client: The client, to wait also for what the server still sends.
    """
    private.restart_tasks(subscriber)
    count = -1
    while subscriber.running and count != private.received(queue):
        count = private.received(queue)
        while subscriber.running and not (queue.empty() and private.is_awaited(queue)):  # noqa: ASYNC110 (see _POLL_INTERVAL)
            await asyncio.sleep(_POLL_INTERVAL)
        await wait_handled(subscriber)
        if client is not None:
            # Some servers send the next messages after the last are acknowledged, but before this PINGRESP.
            await client.ping(_NEVER)


def _ignore_pending_pings(client: MQTTClient) -> None:
    """Retrieve the errors of pending pings: zmqtt does not, and asyncio would log them."""
    if (protocol := private.protocol(client)) is not None:
        for reply in private.pending_pings(protocol):
            reply.add_done_callback(lambda reply: reply.cancelled() or reply.exception())


async def _close(client: MQTTClient) -> None:
    """Close a client's connection in any state of the client."""
    _ignore_pending_pings(client)
    with suppress(Exception):
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await client.disconnect()
    # A disconnect() that is cancelled while it sends DISCONNECT leaves the socket open.
    if (protocol := private.protocol(client)) is not None:
        await private.transport(protocol).close()


driver_class = MqttDriver
