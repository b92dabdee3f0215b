"""The reads of FastStream's Redis subscribers: their errors, their retries and their drain."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from redis import exceptions
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError, ResponseError

from faststream_adapters._brokers.driver import Driver

RETRY_INTERVAL = 5.0
"""Seconds after which a failed read is retried although the server has not replied to a check."""

UNSUBSCRIBE_INTERVAL = 0.5
"""Seconds after which a drain unsubscribes again."""

PATIENCE = 10.0
"""Seconds of transient errors, while the server replies to checks, after which the subscriber has a fault."""

_TRANSIENT = {exceptions.ConnectionError, exceptions.TimeoutError, exceptions.BusyLoadingError}


class RefusedError(RedisError):
    """Replaces a ResponseError, after which FastStream would read again at once, without a pause."""


class Reader:
    """The reads of one subscriber; it replaces FastStream's method for them.

        reading ── messages handled, or nothing to read ──▶ reading
        reading ── transient error ──▶ waiting ── reply to a check, or RETRY_INTERVAL ──▶ reading
        reading ── other error ──▶ FastStream waits and reads again

    A drain lets the read in progress end, and ends the subscriber's task in place of the next read.

    Args:
        driver: The broker's driver.
        subscriber: The subscriber.
        read: FastStream's method.
        replied: Returns an event that is set at the server's next reply to a check.
        client_timeout: Seconds after which the client ends a read that the server would let wait longer.
    """

    def __init__(
        self,
        driver: Driver,
        subscriber: Any,
        read: Callable[..., Any],
        replied: Callable[[], asyncio.Event],
        client_timeout: float,
    ) -> None:
        self._driver = driver
        self._subscriber = subscriber
        self._read = read
        self._replied = replied
        self._client_timeout = client_timeout
        # A task that was started before this replacement is in its first read, unless that has failed.
        self._task: asyncio.Task[Any] | None = next(iter(subscriber.tasks), None)
        self._reading = self._task is not None
        self._draining = False
        self._unsubscribing = False
        self._error: Exception | None = None
        self._failing_since = 0.0

    @property
    def error(self) -> Exception | None:
        """The error that keeps the subscriber from reading; a transient one only after `PATIENCE` seconds."""
        transient = type(self._error) in _TRANSIENT
        return None if transient and time.monotonic() - self._failing_since < PATIENCE else self._error

    async def __call__(self, *args: Any) -> None:
        """Read and handle the next messages."""
        if self._is_drained():
            # FastStream does not replace a task that was cancelled.
            raise asyncio.CancelledError
        self._task = asyncio.current_task()
        self._reading = True
        started = time.monotonic()
        try:
            await self._read(*args)
        except Exception as error:  # noqa: BLE001 (any error means that nothing was read)
            self._reading = self._unsubscribing = False
            if type(error) is exceptions.TimeoutError and time.monotonic() - started >= self._client_timeout:
                # The server had nothing to send until the client's timeout.
                self._error = None
            elif not self._draining:
                await self._on_error(error)
        else:
            self._error = None
        finally:
            self._reading = False

    def _is_drained(self) -> bool:
        return self._draining and not (self._unsubscribing and self._is_subscribed())

    def _is_subscribed(self) -> bool:
        """Return whether a subscription may still deliver messages; it needs a connection for that."""
        subscription = getattr(self._subscriber, "subscription", None)
        if subscription is None or subscription.connection is None:
            return False
        return bool(subscription.subscribed and subscription.connection.is_connected)

    async def _on_error(self, error: Exception) -> None:
        """Wait until a read may succeed again, or raise an error, after which FastStream waits for 5 s."""
        if self._error is None:
            self._failing_since = time.monotonic()
        self._error = error
        if isinstance(error, ResponseError):
            await self._reset_subscription()
            raise RefusedError(str(error)) from error
        if type(error) not in _TRANSIENT:
            raise error
        broker, name = self._driver.name, self._driver.subscriber_name(self._subscriber)
        self._driver.loggers["brokers"].info(
            "%s: the subscriber %s could not read: %s.",
            broker,
            name,
            type(error).__name__,
            extra={"broker": broker, "subscriber": name},
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(RETRY_INTERVAL):
                await self._replied().wait()

    async def _reset_subscription(self) -> None:
        """Make the next read subscribe again: redis-py treats a rejected subscription as established."""
        subscription = getattr(self._subscriber, "subscription", None)
        if subscription is not None and subscription.connection is not None:
            await subscription.connection.disconnect(nowait=True)

    async def _unsubscribe(self) -> None:
        subscription: PubSub = self._subscriber.subscription
        try:
            await (subscription.punsubscribe if subscription.patterns else subscription.unsubscribe)()
        except Exception:  # noqa: BLE001 (the task is then ended without an UNSUBSCRIBE)
            self._unsubscribing = False

    async def drain(self) -> None:
        """Stop reading, and wait until all messages that the server has sent are handled."""
        self._draining = True
        if self._reading and self._task is not None:
            self._unsubscribing = True
            while not self._task.done():
                # A lost connection is not restored for an UNSUBSCRIBE.
                if self._unsubscribing and self._is_subscribed():
                    await self._unsubscribe()
                # Repeated, because redis-py subscribes again if it has just restored the connection.
                await asyncio.wait((self._task,), timeout=UNSUBSCRIBE_INTERVAL)
        if (send_stream := getattr(self._subscriber, "send_stream", None)) is not None:
            # The task that passes messages to the workers then ends after the last message is handled.
            send_stream.close()
            workers = [task for task in self._subscriber.tasks if task is not self._task]
            if workers:
                await asyncio.wait(workers)
