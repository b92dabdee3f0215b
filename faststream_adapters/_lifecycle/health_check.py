"""Health checks of the application: what it depends on besides brokers, such as its database."""

import asyncio
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from contextvars import Context
from time import monotonic
from typing import Any, NamedTuple

from faststream.exceptions import SetupError

from faststream_adapters._brokers.codes import Code
from faststream_adapters._utils.calls import Call, call_problem, is_async
from faststream_adapters._utils.loggers import Loggers
from faststream_adapters._utils.options import seconds
from faststream_adapters._utils.threads import SingleFlight

from .broker_check import LATE, SLOW, Result, check_in
from .reasons import class_and_text

_MAX_SECONDS = 24 * 60 * 60
"""The longest duration accepted. Timers cannot be set for arbitrarily large numbers."""

_MIN_POLL_INTERVAL = 1.0
"""Seconds between two regular calls, unless `ttl` is longer."""

_END_TIMEOUT = 0.5
"""Seconds that calls that were cancelled get to end when the lifespan ends."""

_checked_timeout = seconds(above=0, maximum=_MAX_SECONDS)
_checked_ttl = seconds(maximum=_MAX_SECONDS)


class HealthCheck:
    """A check of something that the application depends on, for `checks=` of a lifespan.

    It fails if the call raises, returns False, or takes too long. An asynchronous function is called in the
    event loop of the lifespan, and cancelled if it takes too long. Any other function is called in a thread.
    If that returns an awaitable, it is awaited in the event loop.

    Args:
        name: The name, for logs and the details of probes.
        call: A function without arguments. At most one call is running at a time.
        timeout: Seconds that a call may take.
        ttl: Seconds for which a result is reused.

    Raises:
        SetupError: An argument cannot be used.
    """

    def __init__(
        self, name: str, call: Callable[[], object], *, timeout: float = 0.5, ttl: float = 0.0
    ) -> None:
        if not isinstance(name, str) or not name.strip():
            msg = f"The name of a HealthCheck must be a text that is not empty, not {name!r}."
            raise SetupError(msg)
        problem = (
            call_problem("call", call, how="without arguments")
            or _checked_timeout("timeout", timeout)
            or _checked_ttl("ttl", ttl)
        )
        if problem:
            msg = f"HealthCheck {name!r}: {problem}"
            raise SetupError(msg)
        self.name = name
        self.call = call
        self.timeout = timeout
        self.ttl = ttl

    def __repr__(self) -> str:
        return f"HealthCheck({self.name!r})"


class _Flight:
    """A call, and what its callers wait for.

    Args:
        loop: The event loop.
        call: The call.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Call) -> None:
        self.call = call
        self.started = monotonic()
        self.result: asyncio.Future[Result] = loop.create_future()
        """Done when the call has ended or has taken too long."""
        self.task: asyncio.Task[None]

    def give_up(self) -> None:
        """Ignore the result of the call, and fail the callers that still wait for it."""
        self.call.given_up = True
        if not self.result.done():
            self.result.set_result(Result("check_failed", monotonic()))


class ManagedCheck:
    """The calls of one health check in one lifespan, and their last result.

        idle ── check ──▶ running ── the call ends ──▶ idle
        running ── timeout ──▶ overdue ── the call ends ──▶ idle
        running, overdue ── detach ──▶ idle             the call is cancelled, and its result ignored

    Invariant: there is at most one call. While it is overdue, the check has failed for every caller at once.
    A caller never waits longer than it wants, whatever the call does, unless that blocks the event loop.

    Args:
        health_check: The check.
        loggers: Where failures are logged.
        optional: Whether the service works without what is checked.
    """

    def __init__(self, health_check: HealthCheck, loggers: Loggers, *, optional: bool) -> None:
        self.name = health_check.name
        self.optional = optional
        self._health_check = health_check
        self._is_async = is_async(health_check.call)
        self._loggers = loggers
        self._threads = SingleFlight()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flight: _Flight | None = None
        self._polling: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        """What `detach` has cancelled."""
        self._last: Result | None = None
        self._failure = ""
        """The kind of the failure that was logged last; empty after a success."""

    def attach(self) -> None:
        """Call the function in the current event loop from now on."""
        self._loop = asyncio.get_running_loop()
        self._flight = self._last = None
        self._failure = ""

    def start_polling(self) -> None:
        """Call the function regularly, until `detach`, so that `code` is up to date without a probe."""
        self._polling = asyncio.create_task(self._poll(), context=Context())

    def detach(self) -> None:
        """Cancel the call and ignore its result: what it checks may be closed from now on."""
        if self._polling is not None:
            self._polling.cancel()
            self._polling = None
        flight, self._flight, self._loop = self._flight, None, None
        if flight is not None:
            flight.give_up()
            self._leaving = flight.task
            if not flight.call.in_thread:
                flight.task.cancel()

    async def wait_ended(self) -> None:
        """Make no more calls, and wait a moment until the one that was cancelled has ended."""
        self.detach()
        if self._leaving is not None:
            await asyncio.wait((self._leaving,), timeout=_END_TIMEOUT)
            self._leaving.cancel()
            self._leaving = None

    @property
    def code(self) -> Code:
        """The code without a new call; "not_started" before the first one has ended."""
        if self._flight is not None and monotonic() - self._flight.started >= SLOW:
            # Callers do not wait longer, whatever the timeout of the check is.
            return "check_failed"
        return "not_started" if self._last is None else self._last.code

    @property
    def last(self) -> Result | None:
        """The result of the last call that has ended or taken too long."""
        return self._last

    def cached_result(self, ttl: float) -> Result | None:
        """Return a result that is at most as old as its own `ttl` or this one allows, or None."""
        allowed, last = max(ttl, self._health_check.ttl), self._last
        return last if allowed and last is not None and monotonic() - last.at <= allowed else None

    def check(self, seconds: float, ttl: float = 0.0) -> asyncio.Future[Result]:
        """Check, unless there is a cached result; await the result.

        Args:
            seconds: The caller's timeout: then the check has failed for this caller.
            ttl: How old a result may be, in seconds.
        """
        current = asyncio.get_running_loop()
        if (result := self.cached_result(ttl)) is not None:
            known: asyncio.Future[Result] = current.create_future()
            known.set_result(result)
            return known
        if self._loop is None or self._loop is current:
            return current.create_task(self._check(seconds))
        return current.create_task(self._check_in(self._loop, seconds))

    async def _check_in(self, loop: asyncio.AbstractEventLoop, seconds: float) -> Result:
        result = None
        # Unless the event loop is closed.
        with suppress(RuntimeError):
            result = await check_in(loop, self._check, seconds)
        return result or Result("check_failed", monotonic(), seconds)

    async def _check(self, seconds: float) -> Result:
        asked = monotonic()
        if self._loop is None:
            # The lifespan has begun to drain, or has not started.
            return Result("check_failed", asked)
        flight = self._flight or self._start(self._loop)
        await _wait(flight.result, seconds)
        if flight.result.done():
            return flight.result.result()
        now = monotonic()
        return Result("check_failed", now, now - asked)

    async def _poll(self) -> None:
        interval = max(_MIN_POLL_INTERVAL, self._health_check.ttl)
        while True:
            await self._check(self._health_check.timeout)
            await asyncio.sleep(interval)

    def _start(self, loop: asyncio.AbstractEventLoop) -> _Flight:
        call = Call(self._health_check.call, self._threads, is_async=self._is_async)
        self._flight = flight = _Flight(loop, call)
        # Not in the context of the request that happens to ask first.
        flight.task = loop.create_task(self._run(flight), context=Context())
        return flight

    async def _run(self, flight: _Flight) -> None:
        call = asyncio.create_task(_failure_of(flight.call))
        try:
            await _wait(call, self._health_check.timeout)
            if call.done():
                failure = call.result()
            else:
                flight.call.given_up = True
                failure = _Failure("timeout", f"it took longer than {self._health_check.timeout:g} s")
            if self._flight is flight:
                self._report(flight, failure)
            if not call.done():
                if not flight.call.in_thread:
                    call.cancel()
                await asyncio.wait((call,))
        finally:
            # Nothing of this has an effect after a regular end.
            call.cancel()
            flight.give_up()
            if self._flight is flight:
                self._flight = None

    def _report(self, flight: _Flight, failure: "_Failure | None") -> None:
        now = monotonic()
        old: Code = "not_started" if self._last is None else self._last.code
        code: Code = "ok" if failure is None else "check_failed"
        self._last = result = Result(code, now, now - flight.started)
        flight.result.set_result(result)
        before, self._failure = self._failure, "" if failure is None else failure.kind
        if before == self._failure:
            return
        logger = self._loggers["health"]
        fields = {"check": self.name, "old": old, "new": code}
        if failure is None:
            logger.info("The health check %r passes again.", self.name, extra=fields)
        else:
            logger.warning("The health check %r fails: %s.", self.name, failure.text, extra=fields)


class _Failure(NamedTuple):
    """Why a check has failed.

    Args:
        kind: What makes two failures the same, so that the second one is not logged.
        text: The reason in words, redacted.
    """

    kind: str
    text: str

    @classmethod
    def of(cls, error: BaseException) -> "_Failure":
        name = type(error).__name__
        try:
            return cls(name, class_and_text(error))
        except BaseException:  # noqa: BLE001 (its text may come from anywhere)
            return cls(name, name)


async def _failure_of(call: Call) -> _Failure | None:
    """Run a call, and return why the check has failed, or None."""
    try:
        result = await call.run()
    except BaseException as error:  # noqa: BLE001 (a SystemExit, for example, would end the event loop)
        return _Failure.of(error)
    return _Failure("False", "it returned False") if result is False else None


async def _wait(future: asyncio.Future[Any], seconds: float) -> None:
    """Wait until a future is done or the time has passed.

    If the event loop was blocked meanwhile, wait a moment longer: a reply may have arrived that was not read.
    """
    due = monotonic() + seconds
    await asyncio.wait((future,), timeout=seconds)
    if monotonic() - due > LATE:
        await asyncio.wait((future,), timeout=LATE)


def manage(
    checks: Iterable[object], optional: Collection[object], loggers: Loggers
) -> tuple[ManagedCheck, ...]:
    """Return the managed checks of a lifespan.

    Args:
        checks: The checks.
        optional: Contains those that the service works without.
        loggers: Where failures are logged.

    Raises:
        SetupError: One is no check, two have the same name, or an optional one is not among them.
    """
    managed: dict[str, ManagedCheck] = {}
    missing = [each for each in optional if isinstance(each, HealthCheck)]
    for check in checks:
        if not isinstance(check, HealthCheck):
            msg = f"checks contains {type(check).__name__}: write checks=[HealthCheck('database', ping)]."
            raise SetupError(msg)
        if check.name in managed:
            msg = f"Two of the checks are named {check.name!r}: give each a name of its own."
            raise SetupError(msg)
        managed[check.name] = ManagedCheck(check, loggers, optional=check in optional)
        missing = [each for each in missing if each is not check]
    if missing:
        msg = f"optional names the check {missing[0].name!r}, which is not in checks: name it there too."
        raise SetupError(msg)
    return tuple(managed.values())
