"""Shared broker checks: at most one request in flight, with a separate timeout for each caller."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, Protocol
from weakref import WeakSet

from faststream_adapters._brokers.codes import Code
from faststream_adapters._brokers.driver import Driver

SLOW = 0.9
"""Seconds without a reply after which the broker counts as unhealthy, also for readers of the last result."""

_POLL_INTERVAL = 0.01
"""Seconds between two polls, while callers wait, of the client's state and of the callers' deadlines.

The clients have no event for a lost connection, so that a timer is needed anyway; deadlines share it.
"""

LATE = 0.05
"""Seconds of delay of that timer that show that the event loop was blocked."""

_CANCEL_TIMEOUT = 0.5
"""Seconds that an abandoned request gets to end."""

_BATCH = 50
"""How many waiters are resolved per event-loop iteration, so that other requests have their turn."""

Waiter = asyncio.Future["Result"]


class Result(NamedTuple):
    """The result of a check.

    Args:
        code: The code.
        at: When it was known, on the clock of `time.monotonic`.
        seconds: How long the check took.
    """

    code: Code
    at: float
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the broker is healthy."""
        return self.code == "ok"


class Observer(Protocol):
    """Follows checks and states as they happen; its methods must not raise."""

    def on_check(self, driver: Driver, result: Result) -> None:
        """Receive the result of a check."""

    def on_state_change(self) -> None:
        """Receive the notice that a lifespan has changed its state."""


class Waiters:
    """Futures that wait for one result, each with its own timeout.

    Invariant: a queue holds the waiters of one timeout, in the order of their deadlines; no queue is empty.
    """

    def __init__(self) -> None:
        self._queues: defaultdict[float, deque[tuple[float, Waiter]]] = defaultdict(deque)

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, waiter: Waiter, seconds: float) -> bool:
        """Add a waiter whose timeout begins now, and return whether it is the only one."""
        is_only_one = not self._queues
        self._queues[seconds].append((monotonic() + seconds, waiter))
        return is_only_one

    def expired(self, now: float) -> Iterator[tuple[float, list[Waiter]]]:
        """Remove the waiters whose deadline has passed, and yield them by their timeout."""
        for seconds, queue in list(self._queues.items()):
            expired: list[Waiter] = []
            while queue and queue[0][0] <= now:
                expired.append(queue.popleft()[1])
            if not queue:
                del self._queues[seconds]
            if expired:
                yield seconds, expired

    def remove_all(self) -> list[Waiter]:
        """Remove and return all waiters."""
        queues, self._queues = self._queues, defaultdict(deque)
        return [waiter for queue in queues.values() for _, waiter in queue]


def _resolve(waiters: list[Waiter], result: Result) -> None:
    for waiter in waiters[:_BATCH]:
        # The task that awaited it may have been cancelled.
        if not waiter.done():
            waiter.set_result(result)
    if rest := waiters[_BATCH:]:
        rest[0].get_loop().call_soon(_resolve, rest, result)


@dataclass(eq=False)
class _Request:
    """A request to the server.

    Args:
        connection: What identifies the connection that it was made on.
        started: When, on the clock of `time.monotonic`.
        reply: Done when the reply has arrived.
    """

    connection: object
    started: float
    reply: asyncio.Future[Any] | None = None


class SingleFlight:
    """The checks in one event loop: any number of callers share one request.

        idle ──── check ────▶ waiting ──── reply ────▶ idle
        waiting ── all callers time out ──▶ unattended ── reply ──▶ idle
        unattended ── check ──▶ waiting      with the same request, if its reply can still arrive

    Invariant: at most one request is in flight, and only its reply counts. It is never cancelled because a
    caller times out: with some clients a cancellation would break the connection. It is replaced when the
    connection is another one. While there are waiters the timer runs.

    Args:
        loop: The event loop.
        checks: The broker's checks, which keep the results.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, checks: "BrokerCheck") -> None:
        self.loop = loop
        self._checks = checks
        self._driver = checks.driver
        self._waiters = Waiters()
        self._request: _Request | None = None
        self._last_started = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._detached = False

    def check(self, seconds: float) -> Waiter:
        """Return a future for the next result, or for a timeout after this many seconds."""
        waiter: Waiter = self.loop.create_future()
        if self._waiters.add(waiter, seconds):
            if (code := self._driver.local_status()) is None:
                self._ensure_request()
            else:
                result = self._checks.report(Result(code, monotonic()))
                # Not at once: a caller that checks in a loop must leave the client time to reconnect.
                self.loop.call_soon(_resolve, self._waiters.remove_all(), result)
        return waiter

    def detach(self) -> None:
        """Make no more requests; the timer still ends the waiters."""
        self._detached = True
        self._request = None

    async def abandon(self) -> None:
        """Give up the request in flight, because its connection is gone."""
        request, self._request = self._request, None
        if request is None or request.reply is None or self.loop is not asyncio.get_running_loop():
            return
        _resolve(self._waiters.remove_all(), Result("timeout", monotonic()))
        request.reply.cancel()
        await asyncio.wait((request.reply,), timeout=_CANCEL_TIMEOUT)

    def _ensure_request(self) -> None:
        """Start a request, unless one is in flight whose reply can still arrive."""
        # Before the task below: an eager one runs at once.
        if self._timer is None:
            self._schedule_poll(_POLL_INTERVAL, late=False)
        connection, request = self._driver.connection_id(), self._request
        if request is not None and request.reply is not None:
            if request.connection == connection and not request.reply.cancelled():
                return
            request.reply.cancel()
        self._request = request = _Request(connection, monotonic())
        self._last_started = request.started
        reply = None
        # On an error check() is called; it raises the error again, and _check classifies it.
        with suppress(Exception):
            reply = self._driver.start_check()
        if reply is None:
            request.reply = self.loop.create_task(self._check(request))
        else:
            request.reply = reply
            reply.add_done_callback(partial(self._on_reply, request))

    async def _check(self, request: _Request) -> None:
        try:
            code = await self._driver.check()
        except Exception as error:  # noqa: BLE001 (any error means that the broker is unhealthy)
            code = self._driver.classify(error)
            last = self._checks.last
            if code == "error" and (last is None or last.code != code):
                logger = self._driver.loggers["health"]
                name = self._driver.name
                logger.warning(
                    "%s: the check raised %s.",
                    name,
                    type(error).__name__,
                    extra={"broker": name, "new": code},
                )
        self._completed(request, code)

    def _on_reply(self, request: _Request, reply: asyncio.Future[Any]) -> None:
        # A cancelled future is no reply: the next poll replaces the request.
        if not reply.cancelled():
            error = reply.exception()
            self._completed(request, "ok" if error is None else self._driver.classify(error))

    def _completed(self, request: _Request, code: Code) -> None:
        if self._request is not request:
            # It was replaced or abandoned.
            return
        self._request = None
        now = monotonic()
        result = self._checks.report(Result(code, now, now - request.started))
        _resolve(self._waiters.remove_all(), result)

    def _schedule_poll(self, seconds: float, *, late: bool) -> None:
        self._timer = self.loop.call_later(seconds, self._poll, monotonic() + seconds, late)

    def _poll(self, due: float, late: bool) -> None:  # noqa: FBT001 (a timer passes no keywords)
        """End waiters whose timeout has passed, and replace a request whose reply can no longer arrive."""
        now = monotonic()
        if now - due > LATE and not late:
            # The event loop was blocked: the reply may have arrived, and has not been read.
            self._schedule_poll(LATE, late=True)
            return
        self._timer = None
        try:
            for seconds, waiters in self._waiters.expired(now):
                result = Result("timeout", now, seconds)
                _resolve(waiters, result)
                # That a caller has a short timeout says nothing about the broker.
                if not self._detached and now - self._last_started >= SLOW:
                    self._checks.report(result)
            if self._waiters and not self._detached:
                self._poll_client()
        finally:
            # Whatever the client raises, the deadlines are kept.
            if self._waiters and self._timer is None:
                self._schedule_poll(_POLL_INTERVAL, late=False)

    def _poll_client(self) -> None:
        if (code := self._driver.local_status()) is None:
            self._ensure_request()
        else:
            _resolve(self._waiters.remove_all(), self._checks.report(Result(code, monotonic())))


async def check_in(
    loop: asyncio.AbstractEventLoop, check: Callable[[float], Awaitable[Result]], seconds: float
) -> Result | None:
    """Check in another event loop than the current one.

    Args:
        loop: The event loop, of another thread.
        check: Returns the result; called with the timeout.
        seconds: The timeout.

    Returns:
        The result; None if there is none in time, as when the event loop has stopped.

    Raises:
        RuntimeError: The event loop is closed.
    """

    async def call() -> Result:
        return await check(seconds)

    coroutine = call()
    try:
        reply = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))
    except RuntimeError:
        coroutine.close()
        raise
    done, _ = await asyncio.wait((reply,), timeout=seconds)
    if done and not reply.cancelled():
        return reply.result()
    reply.cancel()
    return None


class BrokerCheck:
    """The checks of one broker, and their last result.

    All requests are made in the event loop that the client belongs to; callers in other event loops, in other
    threads, wait for a result from there.

    Args:
        driver: The broker's driver.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.last: Result | None = None
        """The last result."""
        self.last_ok = 0.0
        """When the last check succeeded, on the clock of `time.monotonic`."""
        self.observers: WeakSet[Observer] = WeakSet()
        self._flight: SingleFlight | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> SingleFlight:
        """Make requests in this event loop from now on.

        Args:
            loop: The event loop that the client belongs to.
        """
        if self._flight is None or self._flight.loop is not loop:
            if self._flight is not None:
                self._flight.detach()
            self._flight = SingleFlight(loop, self)
        return self._flight

    def check(self, seconds: float) -> asyncio.Future[Result]:
        """Check whether the broker replies; await the result.

        Args:
            seconds: The caller's timeout: then the result has the code `timeout`.
        """
        loop, flight = asyncio.get_running_loop(), self._flight
        if flight is None or flight.loop is not loop:
            if flight is not None and flight.loop.is_running():
                return loop.create_task(self._check_in(flight, seconds))
            flight = self.attach(loop)
        return flight.check(seconds)

    def forget(self) -> None:
        """Forget the last result, because the broker has been started since, or is about to be."""
        self.last = None

    async def abandon(self) -> None:
        """Give up the request in flight, because its connection is gone."""
        if self._flight is not None:
            await self._flight.abandon()

    async def _check_in(self, flight: SingleFlight, seconds: float) -> Result:
        """Check in the event loop of the client, from another one."""
        try:
            result = await check_in(flight.loop, flight.check, seconds)
        except RuntimeError:
            # The event loop was closed a moment ago.
            return await self.check(seconds)
        return result or Result("timeout", monotonic(), seconds)

    def report(self, result: Result) -> Result:
        """Keep a result, notify the observers and return it."""
        self.last = result
        if result.ok:
            self.last_ok = result.at
        for observer in self.observers:
            observer.on_check(self.driver, result)
        return result
