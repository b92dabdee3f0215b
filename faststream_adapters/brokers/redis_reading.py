"""The loops that FastStream reads Redis with: what keeps them from reading, and how they come to an end."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from redis import exceptions
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError, ResponseError

logger = logging.getLogger("faststream.adapters")

RETRY_INTERVAL = 5.0
"""Seconds after which a loop tries again although the server has not been heard of."""

LEAVE_INTERVAL = 0.5
"""Seconds after which the server is told once more that a subscriber leaves."""

PATIENCE = 10.0
"""Seconds after which a lost connection, while the server answers others, counts as lost for good."""

_PASSING = {exceptions.ConnectionError, exceptions.TimeoutError, exceptions.BusyLoadingError}


class RefusedError(RedisError):
    """Stands for a ResponseError, after which FastStream would read again at once, without a pause."""


class Reader:
    """One subscriber's reading of what comes next, in place of FastStream's own.

    Args:
        subscriber: The subscriber.
        read: FastStream's own.
        answered: Returns what is set when the server answers next.
        patience: Seconds after which the client ends a read that the server would let wait for longer.
    """

    def __init__(
        self,
        subscriber: Any,
        read: Callable[..., Any],
        answered: Callable[[], asyncio.Event],
        patience: float,
    ) -> None:
        self._subscriber = subscriber
        self._read = read
        self._answered = answered
        self._patience = patience
        # One that was started before us is in its first read, unless that has failed.
        self._task: asyncio.Task[Any] | None = next(iter(subscriber.tasks), None)
        self._reading = self._task is not None
        self._draining = False
        self._leaving = False
        self._error: Exception | None = None
        self._since = 0.0

    @property
    def error(self) -> Exception | None:
        """What keeps the subscriber from reading, unless it has to do with the connection and may pass."""
        passes = type(self._error) in _PASSING
        return None if passes and time.monotonic() - self._since < PATIENCE else self._error

    async def __call__(self, *args: Any) -> None:
        """Read and handle what comes next."""
        if self._drained():
            # FastStream starts no other task when one was cancelled.
            raise asyncio.CancelledError
        self._task = asyncio.current_task()
        self._reading = True
        began = time.monotonic()
        try:
            await self._read(*args)
        except Exception as error:  # noqa: BLE001 (whatever it is, nothing was read)
            self._reading = self._leaving = False
            if type(error) is exceptions.TimeoutError and time.monotonic() - began >= self._patience:
                # The server has had nothing to send for as long as the client waits.
                self._error = None
            elif not self._draining:
                await self._fails(error)
        else:
            self._error = None
        finally:
            self._reading = False

    def _drained(self) -> bool:
        return self._draining and not (self._leaving and self._subscribed())

    def _subscribed(self) -> bool:
        """Return whether more can come by a subscription; to one without a connection nothing was sent."""
        subscription = getattr(self._subscriber, "subscription", None)
        if subscription is None or subscription.connection is None:
            return False
        return bool(subscription.subscribed and subscription.connection.is_connected)

    async def _fails(self, error: Exception) -> None:
        """Wait until it makes sense to read again, or leave that to FastStream, which waits for 5 s."""
        if self._error is None:
            self._since = time.monotonic()
        self._error = error
        if isinstance(error, ResponseError):
            await self._subscribe_again()
            raise RefusedError(str(error)) from error
        if type(error) not in _PASSING:
            raise error
        name = self._subscriber.specification.call_name
        logger.info("The subscriber %s could not read: %s.", name, type(error).__name__)
        with suppress(TimeoutError):
            async with asyncio.timeout(RETRY_INTERVAL):
                await self._answered().wait()

    async def _subscribe_again(self) -> None:
        """Let the next read subscribe: redis-py takes a subscription that was refused for one that stands."""
        subscription = getattr(self._subscriber, "subscription", None)
        if subscription is not None and subscription.connection is not None:
            await subscription.connection.disconnect(nowait=True)

    async def _leave(self) -> None:
        subscription: PubSub = self._subscriber.subscription
        try:
            await (subscription.punsubscribe if subscription.patterns else subscription.unsubscribe)()
        except Exception:  # noqa: BLE001 (who cannot take leave goes without)
            self._leaving = False

    async def drain(self) -> None:
        """Read no more than what the server has sent already, and wait until all of that is handled."""
        self._draining = True
        if self._reading and self._task is not None:
            self._leaving = True
            while not self._task.done():
                # A connection that is lost is not made again to take leave.
                if self._leaving and self._subscribed():
                    await self._leave()
                # Once more, if the connection was just coming back: that subscribes again.
                await asyncio.wait((self._task,), timeout=LEAVE_INTERVAL)
        if (waiting := getattr(self._subscriber, "send_stream", None)) is not None:
            # The task that hands messages to the workers ends when it has handed over the last one, and that
            # one is handled.
            waiting.close()
            workers = [task for task in self._subscriber.tasks if task is not self._task]
            if workers:
                await asyncio.wait(workers)
