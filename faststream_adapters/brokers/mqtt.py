"""MQTT: what `zmqtt`'s client can be asked, and how a subscription is ended without losing a message.

zmqtt has no public way for some of this: the private attributes that are used are its own.
"""
# ruff: noqa: SLF001

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from typing import Any

from faststream.mqtt import MQTTBroker
from zmqtt import MQTTConnectError, MQTTDisconnectedError, MQTTTimeoutError
from zmqtt.client import MQTTClient

from faststream_adapters._compat import (
    Broker,
    mqtt_client,
    mqtt_consume_again,
    mqtt_forget_connection,
    mqtt_settings,
    mqtt_subscription,
)

from . import PING_TIMEOUT, Code, Driver
from .handlers import finished

logger = logging.getLogger("faststream.adapters")

START_TIMEOUT = 30.0
"""Seconds that a start may take: zmqtt waits for ever for a server that connects and then falls silent."""

_CLOSE_TIMEOUT = 2.0

_LOOK_EVERY = 0.02
"""Seconds between two looks at a queue, which tells nobody that it is full or empty."""

_NEVER = 24 * 60 * 60
"""Seconds after which an answer is not awaited any more, where somebody else has a deadline."""

_REJECTED = {4, 5, 0x86, 0x87, 0x8A, 0x8C}
"""The codes of CONNACK that speak of who connects, those of MQTT 3.1.1 first."""


class MqttDriver(Driver):
    """An MQTT broker's client."""

    broker: MQTTBroker
    sharing = "a shared subscription (shared=...)"

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._came: list[int] = []
        self._moved = 0.0

    @property
    def client(self) -> MQTTClient | None:
        """The client, if it is a real one."""
        client = mqtt_client(self.broker)
        return client if isinstance(client, MQTTClient) else None

    @property
    def real(self) -> bool:
        return self.client is not None

    @property
    def exclusive_id(self) -> str:
        name: str = mqtt_settings(self.broker)["client_id"]
        return name

    @property
    def reconnecting(self) -> bool:
        client = self.client
        return client is not None and not (_connection(client) or self.gave_up)

    @property
    def gave_up(self) -> bool:
        client = self.client
        return client is not None and (client._run_task is None or client._run_task.done())

    def epoch(self) -> object:
        client = self.client
        return client and (client, _connection(client))

    def down(self) -> Code | None:
        client = self.client
        if client is None or _connection(client):
            return None
        if not self.gave_up:
            return "refused"
        task = client._run_task
        error = None if task is None or task.cancelled() else task.exception()
        return "auth" if error is not None and self.code(error) == "auth" else "closed"

    async def check(self) -> Code:
        if self._behind():
            # zmqtt reads nothing while a queue is full: the server's answer would wait behind messages.
            return "ok" if self._moving() else "timeout"
        ping = asyncio.create_task(self.broker.ping(PING_TIMEOUT))
        try:
            while not ping.done():
                if self._behind():
                    # By what the server has sent meanwhile.
                    return "ok"
                await asyncio.wait((ping,), timeout=_LOOK_EVERY)
            if ping.result():
                return "ok"
            return self.down() or ("timeout" if self.real else "not_started")
        finally:
            if not ping.done() and (client := self.client) is not None:
                _forget_pings(client)
            # Harmless: zmqtt still takes the answer.
            ping.cancel()

    def _full(self) -> list[Any]:
        """Return the queues of the subscribers that have as many messages to handle as theirs holds."""
        client = self.client
        return [each._queue for each in client._subscriptions if each._queue.full()] if client else []

    def _behind(self) -> bool:
        return bool(self._full())

    def _moving(self) -> bool:
        """Return whether more messages have come of late to those that are behind."""
        came = [queue._unfinished_tasks for queue in self._full()]
        now = asyncio.get_running_loop().time()
        if came != self._came:
            self._came, self._moved = came, now
        return now - self._moved < PING_TIMEOUT

    def code(self, error: BaseException) -> Code:
        if isinstance(error, MQTTConnectError):
            return "auth" if error.return_code in _REJECTED else "refused"
        if isinstance(error, MQTTDisconnectedError):
            return "closed"
        return "timeout" if isinstance(error, MQTTTimeoutError) else super().code(error)

    def shared(self, subscriber: Any) -> bool | None:
        topic: str = subscriber.topic
        return topic.startswith(("$share/", "$queue/"))

    def idle(self, subscriber: Any) -> bool:
        if not super().idle(subscriber):
            return False
        subscription = mqtt_subscription(subscriber)
        tasks = subscriber.tasks
        if subscription is None or not tasks or any(task.done() for task in tasks):
            # What waits is for the tasks that replace these.
            return True
        limiter = getattr(subscriber, "limiter", None)
        # Somebody waits for the next message: none is in nobody's hand.
        no_worker_busy = limiter is None or (
            limiter.value == subscriber.max_workers
            and subscriber.receive_stream.statistics().tasks_waiting_receive > 0
        )
        queue = subscription._queue
        return no_worker_busy and queue.empty() and bool(queue._getters)

    async def revive(self, subscriber: Any) -> None:
        # The subscription stays: what waits in its queue would be lost with it.
        mqtt_consume_again(subscriber)

    async def start(self, *, consume: bool, supervise: bool) -> None:
        self.last_error = None
        self._came = []
        if not self.exclusive_id and self._asks_to_be_kept():
            logger.warning("%s: a session that outlives its connection needs a client_id.", self.name)
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self.broker.connect()
                client = self.client
                if supervise and client is not None:
                    # After 5 failures, half a minute, zmqtt gives up, and the consumers end.
                    client._reconnect = replace(client._reconnect, max_attempts=None)
                await self.start_endpoints(consume=consume)
        except BaseException as error:
            self.last_error = _met(error)
            raise

    def _asks_to_be_kept(self) -> bool:
        settings = mqtt_settings(self.broker)
        lasts = settings["version"] == "3.1.1" or settings["session_expiry_interval"]
        return not settings["clean_session"] and bool(lasts)

    async def drain(self) -> None:
        if (client := self.client) is None:
            return
        drains = (_drain(client, subscriber) for subscriber in self.broker.subscribers)
        # One that cannot be drained must not keep the others from it.
        for error in await asyncio.gather(*drains, return_exceptions=True):
            if isinstance(error, Exception):
                logger.warning("%s: %s while draining a subscriber.", self.name, type(error).__name__)
        # The connection may be lost meanwhile: what has come by it is here.
        while not all(map(self.idle, self.broker.subscribers)):  # noqa: ASYNC110 (see _LOOK_EVERY)
            await asyncio.sleep(_LOOK_EVERY)

    async def reconnect(self) -> bool:
        client = self.client
        if client is None or (protocol := client._protocol) is None or not client._reconnect.enabled:
            return False
        if not self._behind():
            # zmqtt makes another connection, and its queues and the handlers stay.
            _forget_pings(client)
            await protocol._transport.close()
        # Else its own keep-alive decides: a server that is there would forget a session with messages in it.
        return True

    async def abort(self, seconds: float = 0.0) -> None:
        client = self.client
        # With a subscription, stop() would wait for the server to confirm its end, for ever if need be.
        mqtt_forget_connection(self.broker)
        try:
            await super().abort(seconds)
        finally:
            if client is not None:
                await _close(client)


def _connection(client: MQTTClient) -> int | None:
    """Return the number of the connection, if there is one now."""
    # A connection that was lost is known to be dead a moment before it is forgotten.
    if client._protocol is not None and not client._protocol._dead:
        with suppress(MQTTDisconnectedError):
            return client.connection_info.connection_id
    return None


def _met(error: BaseException | None) -> BaseException | None:
    """Return what a client that tried again had met when it was cut off."""
    while isinstance(error, asyncio.CancelledError | TimeoutError):
        error = error.__context__
    return error


def _keeps(client: MQTTClient) -> bool:
    """Return whether the server keeps messages for this client while it is away."""
    info = client.connection_info
    # Without a name of its own, the next start would get another one, and with it another session.
    named = bool(client._client_id)
    return named and not client._clean_session and info.effective_session_expiry_interval != 0


async def _drain(client: MQTTClient, subscriber: Any) -> None:
    """Take nothing more from the server, and wait until what it has sent is handled."""
    subscription = mqtt_subscription(subscriber)
    protocol = client._protocol
    if protocol is None or subscription not in client._subscriptions:
        return
    filters = subscription._registered_filters
    try:
        if _keeps(client):
            # Unsubscribed, the server would keep nothing for the next start. What comes is not acknowledged.
            client._detached_filters |= protocol.detach(filters)
        elif filters:
            # Not stop(): that acknowledges and drops what is on its way.
            await protocol._send_unsubscribe(filters)
    finally:
        # Or stop() would unsubscribe all the same, and a client that reconnects would subscribe.
        client._subscriptions.remove(subscription)
    if not subscriber.calls:
        return
    mqtt_consume_again(subscriber)
    # Private, because asyncio tells neither how many have come nor whether somebody waits for the next: an
    # empty queue leaves open whether a message is in nobody's hand.
    queue: Any = subscription._queue
    came = -1
    while subscriber.running and came != queue._unfinished_tasks:
        came = queue._unfinished_tasks
        while subscriber.running and not (queue.empty() and queue._getters):  # noqa: ASYNC110 (see above)
            await asyncio.sleep(_LOOK_EVERY)
        await finished(subscriber)
        # Some servers send the next messages when the last are acknowledged: before they answer this.
        await client.ping(_NEVER)


def _forget_pings(client: MQTTClient) -> None:
    """Let answers fail that nobody waits for: zmqtt never looks at them, and asyncio would log an error."""
    if client._protocol is not None:
        for answer in client._protocol._ping_waiters:
            answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())


async def _close(client: MQTTClient) -> None:
    """End a client's connection, whatever state the client is in."""
    _forget_pings(client)
    with suppress(Exception):
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await client.disconnect()
    # Cut off while it said goodbye, it leaves the socket open.
    if (protocol := client._protocol) is not None:
        await protocol._transport.close()


driver = MqttDriver
