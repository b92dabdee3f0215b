"""Messages that nats-py drops because too many wait for a subscriber's handler."""

import math
import time
from weakref import WeakKeyDictionary

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import SlowConsumerError

from faststream_adapters._brokers.driver import Driver
from faststream_adapters._compat import nats as private
from faststream_adapters._compat.faststream import Subscriber

from .subscriptions import core_subscription

WARNING_INTERVAL = 60.0
"""Seconds between two warnings about the same subscriber."""


class SlowConsumers:
    """Counts the dropped messages of each subscriber, and warns once per minute and subscriber.

    FastStream would log a traceback for each message.

    Args:
        driver: The broker's driver.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.dropped: WeakKeyDictionary[Subscriber, int] = WeakKeyDictionary()
        """How many messages of each subscriber were dropped since the process started."""
        # On the clock of `time.monotonic`.
        self._warned_at: WeakKeyDictionary[Subscriber, float] = WeakKeyDictionary()
        self._subscribers: WeakKeyDictionary[Subscription, Subscriber] = WeakKeyDictionary()

    def watch(self, client: Client) -> None:
        """Count the messages that a new client drops, instead of passing each one to FastStream."""
        log, application = private.error_callbacks(client)

        async def on_error(error: Exception) -> None:
            subscriber = self._subscriber(error.sub) if isinstance(error, SlowConsumerError) else None
            if subscriber is None:
                await log(error)
                return
            self._count(subscriber)
            if application is not None:
                await application(error)

        private.replace_error_callback(client, on_error)

    def _subscriber(self, subscription: Subscription) -> "Subscriber | None":
        """Return the subscriber of a subscription; None if the application itself has subscribed."""
        if subscription not in self._subscribers:
            for subscriber in self._driver.broker.subscribers:
                if core_subscription(subscriber) is subscription:
                    self._subscribers[subscription] = subscriber
        return self._subscribers.get(subscription)

    def _count(self, subscriber: Subscriber) -> None:
        self.dropped[subscriber] = dropped = self.dropped.get(subscriber, 0) + 1
        now = time.monotonic()
        if now - self._warned_at.get(subscriber, -math.inf) >= WARNING_INTERVAL:
            self._warned_at[subscriber] = now
            broker, name = self._driver.name, self._driver.subscriber_name(subscriber)
            self._driver.loggers["brokers"].warning(
                "%s: %s is too slow, and messages for it are dropped, %d so far: raise its max_workers or "
                "pending_msgs_limit, or start more processes with a queue group.",
                broker,
                name,
                dropped,
                extra={"broker": broker, "subscriber": name},
            )
