"""Message statistics of subscribers, counted by a light middleware of the broker."""

import math
from collections.abc import Iterable
from enum import Flag, auto
from time import monotonic, time
from typing import Any, Self

from faststream import ContextRepo
from faststream.exceptions import IgnoredException

from faststream_adapters._compat.faststream import Subscriber

RATE_PERIOD = 30.0
"""Seconds between two marks: a rate is that of the last one to two periods."""

_MIN_RATE_PERIOD = 5.0
"""Seconds after the first mark before which there is no rate."""

_ATTRIBUTE = "_faststream_adapters_counts"


class Collected(Flag):
    """What is collected about brokers and checks, because an endpoint or a callback needs it."""

    NOTHING = 0
    MESSAGES = auto()
    """The counts of the middleware."""
    BACKLOGS = auto()
    """The numbers of messages that wait on the servers."""
    CHECKS = auto()
    """The results of the application's own checks, also without a probe."""
    HISTORY = auto()
    """The last changes of the health, and the rates of messages."""


class Counts:
    """The counts of a subscriber's messages since the process started; a batch is one message."""

    __slots__ = ("failed", "last_message_at", "marks", "received", "started")

    def __init__(self) -> None:
        self.received = 0
        """How many messages were received."""
        self.failed = 0
        """How many of them ended with an error that no middleware of the application handled."""
        self.last_message_at: float | None = None
        """The Unix time of the last one."""
        self.marks = (0, 0)
        """How many messages were received before the last two marks."""
        self.started: dict[object, float] = {}
        """When each message in flight was received, on the clock of `time.monotonic`, the oldest first."""

    @property
    def in_flight(self) -> int:
        """How many messages are being handled."""
        return len(self.started)

    @property
    def oldest(self) -> float:
        """Seconds since the oldest message in flight was received; 0 if there is none."""
        # A dict is ordered by insertion.
        return monotonic() - next(iter(self.started.values())) if self.started else 0.0


class Statistics:
    """A broker middleware that counts the messages of each subscriber.

    A message is in flight until its handler has finished and the results are published. Its acknowledgement
    does not count, because that may wait for the server.
    """

    def __init__(self) -> None:
        self._marked = (-math.inf, -math.inf)
        """When the last two marks were made, on the clock of `time.monotonic`."""

    def mark(self, subscribers: Iterable[Subscriber]) -> None:
        """Remember the counts of subscribers for their rates; called often, and does that once per period."""
        now = monotonic()
        elapsed = now - self._marked[1]
        if elapsed < RATE_PERIOD:
            return
        # After a pause, as when the application was stopped, older counts say nothing about the rate now.
        begins = elapsed >= 2 * RATE_PERIOD
        self._marked = (now if begins else self._marked[1], now)
        for subscriber in subscribers:
            counts = self[subscriber]
            counts.marks = (counts.received if begins else counts.marks[1], counts.received)

    def rate(self, subscriber: Subscriber) -> float | None:
        """Return the messages per second that a subscriber has received lately; None if that is unknown."""
        elapsed = monotonic() - self._marked[0]
        if not _MIN_RATE_PERIOD <= elapsed < math.inf:
            return None
        counts = self[subscriber]
        return (counts.received - counts.marks[0]) / elapsed

    def oldest_of(self, subscribers: Iterable[Subscriber]) -> float:
        """Return the seconds since the oldest message in flight was received; 0 if there is none."""
        return max((self[subscriber].oldest for subscriber in subscribers), default=0.0)

    def __getitem__(self, subscriber: Subscriber) -> Counts:
        """Return the counts of a subscriber; they are stored on it, where they are found fastest."""
        counts: Counts | None = getattr(subscriber, _ATTRIBUTE, None)
        if counts is None:
            counts = Counts()
            setattr(subscriber, _ATTRIBUTE, counts)
        return counts

    def __call__(self, msg: Any, /, *, context: ContextRepo) -> Any:
        """Return the middleware for one message."""
        # What is published passes through a middleware too, which gets no message.
        if msg is None or (subscriber := context.get_local("handler_")) is None:
            return _UNCOUNTED
        # Only the first time by `self[subscriber]`, which is one more call.
        counts = getattr(subscriber, _ATTRIBUTE, None) or self[subscriber]
        return _Counted(context, counts)


class _Uncounted:
    """The middleware for messages that are published, and for those that no handler gets.

    It has the methods that FastStream calls, but does not inherit them: an instance of `BaseMiddleware` for
    each message costs about as much as the counting. The scopes are plain functions for the same reason.
    """

    __slots__ = ()

    async def __aenter__(self) -> Self:
        return self

    def consume_scope(self, call_next: Any, msg: Any) -> Any:
        return call_next(msg)

    def publish_scope(self, call_next: Any, cmd: Any) -> Any:
        return call_next(cmd)

    async def __aexit__(self, exc_type: type[BaseException] | None = None, *_: object) -> bool:
        return False


_UNCOUNTED = _Uncounted()


class _Counted(_Uncounted):
    """The middleware for one message.

    Args:
        context: FastStream's context.
        counts: The counts of the subscriber whose handler runs.
    """

    __slots__ = ("_context", "_counts", "_reached_handler")

    def __init__(self, context: ContextRepo, counts: Counts) -> None:
        self._context = context
        self._counts = counts
        self._reached_handler = False

    async def __aenter__(self) -> Self:
        self._counts.started[self] = monotonic()
        return self

    def consume_scope(self, call_next: Any, msg: Any) -> Any:
        if self._context.get_local("message") is not msg:
            # It was requested by the handler, or by its `get_one()`.
            self._counts.started.pop(self, None)
        elif not self._reached_handler:
            # A middleware of the application may try the handler again.
            self._reached_handler = True
            self._counts.received += 1
            self._counts.last_message_at = time()
        return call_next(msg)

    async def __aexit__(self, exc_type: type[BaseException] | None = None, *_: object) -> bool:
        if self._counts.started.pop(self, None) is None or exc_type is None:
            return False
        # FastStream's own exceptions are instructions, such as to acknowledge the message.
        if not issubclass(exc_type, IgnoredException):
            if not self._reached_handler:
                # It could not be parsed, or matches no handler.
                self._counts.received += 1
                self._counts.last_message_at = time()
            self._counts.failed += 1
        return False
