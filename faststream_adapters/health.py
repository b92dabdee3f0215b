"""Is the broker there? One question to the server at a time, a deadline of its own for each who asks."""

import asyncio
import logging
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, Protocol
from weakref import WeakSet

from .brokers import Code, Driver

logger = logging.getLogger("faststream.adapters")

SLOW = 0.9
"""Seconds without an answer after which a broker counts as not there, for those too who do not ask anew."""

_LATE = 0.05
"""Seconds by which a timer that is late tells of an event loop that was blocked."""

_END_TIMEOUT = 0.5
"""Seconds that a round trip gets to end when it is given up."""

_AT_ONCE = 50
"""So many of those who wait are told in one go, before other requests have their turn."""

_MOMENT = 0.01
"""Seconds between two looks, while an answer is awaited, at the client and at whose time is up."""


class _Changes:
    """Marks the changes of what is known of brokers: what was made of that since the last one still holds.

    Every probe asks, and there is next to no change, so that one mark for all brokers will do.
    """

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = object()

    def mark(self) -> None:
        """Mark a change that has just been made."""
        self.last = object()


changes = _Changes()


class Result(NamedTuple):
    """What a check found.

    Args:
        code: What was found.
        at: When, on the clock of `time.monotonic`.
        seconds: How long it took.
    """

    code: Code
    at: float
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the broker is healthy."""
        return self.code == "ok"


class Observer(Protocol):
    """Who is told at once what others have to ask for; it must not raise."""

    def found(self, driver: Driver, result: Result) -> None:
        """A round trip has this result."""

    def changed(self) -> None:
        """A lifespan has another state."""


class _Callers(NamedTuple):
    """Those who have begun to wait in one moment, and wait equally long."""

    until: float
    """When the time of the last of them is up."""
    closed: float
    """When the moment is over."""
    seconds: float
    futures: list[asyncio.Future[Result]]


class _Waiting:
    """Those who wait for an answer in one event loop, each for so many seconds."""

    __slots__ = ("_all", "_open")

    def __init__(self) -> None:
        self._all: list[_Callers] = []
        # Where the next one joins, by the seconds.
        self._open: dict[float, _Callers] = {}

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, caller: asyncio.Future[Result], seconds: float) -> None:
        """Let one more wait for so many seconds."""
        now = monotonic()
        callers = self._open.get(seconds)
        if callers is None or now > callers.closed:
            closed = now + _MOMENT
            callers = self._open[seconds] = _Callers(closed + seconds, closed, seconds, [])
            self._all.append(callers)
        callers.futures.append(caller)

    def over(self, now: float) -> list[_Callers]:
        """Return those whose time is up, and forget them."""
        over = [callers for callers in self._all if callers.until <= now]
        if over:
            self._all = [callers for callers in self._all if callers.until > now]
            self._open = {callers.seconds: callers for callers in self._all}
        return over

    def all(self) -> list[asyncio.Future[Result]]:
        """Return them all, and forget them."""
        groups, self._all, self._open = self._all, [], {}
        return [caller for callers in groups for caller in callers.futures]


class RoundTrips:
    """Round trips to one broker: however many ask, one is in flight.

    A round trip is never cancelled because somebody stopped waiting for it: with some clients that would
    break the connection. It is given up only when its answer cannot come any more.

    All of them are made in the event loop that the client belongs to; whoever asks from another one, in
    another thread, waits for what is found there.

    Args:
        driver: The broker's driver.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.last: Result | None = None
        self.last_ok = 0.0
        self.observers: WeakSet[Observer] = WeakSet()
        self._home: asyncio.AbstractEventLoop | None = None
        self._asking: asyncio.Future[Any] | None = None
        self._flight: object = None
        self._began = 0.0
        self._epoch: object = None
        self._watched = False
        self._ticking = False
        self._waiting = _Waiting()

    def live_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make round trips in this event loop from now on.

        Args:
            loop: The loop that the client belongs to.
        """
        if self._home is loop:
            return
        self._home, self._asking, self._flight, self._watched = loop, None, None, False
        # Those who wait elsewhere are gone with their loop, or are told by its timer.
        self._ticking, self._waiting = False, _Waiting()

    def ask(self, seconds: float) -> asyncio.Future[Result]:
        """Ask whether the broker is there; the answer is to be awaited.

        Args:
            seconds: How long this caller waits: then it gets the code `timeout`, whatever happens.
        """
        loop = asyncio.get_running_loop()
        if (home := self._home) is not loop:
            if home is not None and home.is_running():
                return loop.create_task(self._ask_in(home, seconds))
            self.live_in(loop)
        caller: asyncio.Future[Result] = asyncio.Future(loop=loop)
        if not self._watched and (code := self.driver.down()) is not None:
            # Not at once: who asks again and again must not keep the client from coming back.
            loop.call_soon(_tell, [caller], self._found(Result(code, monotonic())))
            return caller
        self._waiting.add(caller, seconds)
        if not self._watched:
            self._fly(loop)
        return caller

    async def _ask_in(self, home: asyncio.AbstractEventLoop, seconds: float) -> Result:
        """Ask in the client's event loop, from another one."""

        async def asking() -> Result:
            return await self.ask(seconds)

        coroutine = asking()
        try:
            answer = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, home))
        except RuntimeError:
            # It was closed just now.
            coroutine.close()
            return await self.ask(seconds)
        done, _ = await asyncio.wait((answer,), timeout=seconds)
        if done and not answer.cancelled():
            return answer.result()
        answer.cancel()
        return Result("timeout", monotonic(), seconds)

    def _found(self, result: Result) -> Result:
        last, self.last = self.last, result
        if last is None or last.code != result.code:
            changes.mark()
        for observer in self.observers:
            observer.found(self.driver, result)
        return result

    def _tell(self, result: Result) -> None:
        self._watched = False
        _tell(self._waiting.all(), result)

    def _tick_after(
        self,
        pause: float,
        loop: asyncio.AbstractEventLoop,
        waiting: _Waiting,
        *,
        late: bool = False,
    ) -> None:
        loop.call_later(pause, self._tick, loop, waiting, monotonic() + pause, late)

    def _tick(self, loop: asyncio.AbstractEventLoop, waiting: _Waiting, due: float, late: bool) -> None:  # noqa: FBT001 (a timer passes no keywords)
        """Tell those whose time is up, look at the client, and do so again at the next moment."""
        now, here = monotonic(), waiting is self._waiting
        if now - due > _LATE and not late:
            # The event loop was blocked: the answer may be here, and nobody has read it yet.
            self._tick_after(_LATE, loop, waiting, late=True)
            return
        try:
            for callers in waiting.over(now):
                result = Result("timeout", now, callers.seconds)
                _tell(callers.futures, result)
                if here and now - self._began >= SLOW:
                    # That somebody has less patience says nothing about the broker.
                    self._found(result)
            if here and waiting:
                self._look(loop)
        finally:
            # Whatever a client raises that is looked at: nobody else keeps the deadlines.
            if waiting:
                self._tick_after(_MOMENT, loop, waiting)
            elif here:
                self._ticking = self._watched = False

    def _fly(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch the round trip in flight, and begin one if there is none whose answer can come."""
        epoch, asking = self.driver.epoch(), self._asking
        # Before the task: some event loops run it at once, as far as it goes.
        self._watched = True
        if not self._ticking:
            # One timer for all: it goes on while anybody waits.
            self._ticking = True
            self._tick_after(_MOMENT, loop, self._waiting)
        # One whose answer has just been read is in flight until that is told.
        if asking is None or self._flight is None or asking.cancelled() or self._epoch != epoch:
            if asking is not None:
                asking.cancel()
            self._epoch = epoch
            self._flight = flight = object()
            self._began = monotonic()
            answer = None
            # Whatever it raises, check() meets it again, and finds out what it means.
            with suppress(Exception):
                answer = self.driver.send()
            if answer is None:
                self._asking = loop.create_task(self._check(flight))
            else:
                self._asking = answer
                answer.add_done_callback(partial(self._answered, flight))

    async def _check(self, flight: object) -> None:
        try:
            code = await self.driver.check()
        except Exception as error:  # noqa: BLE001 (whatever it is, the broker is not healthy)
            code = self.driver.code(error)
            if code == "error" and (self.last is None or self.last.code != code):
                logger.warning("%s: the check raised %s.", self.driver.name, type(error).__name__)
        self._landed(flight, code)

    def _answered(self, flight: object, answer: asyncio.Future[Any]) -> None:
        if answer.cancelled():
            # Not an answer: whoever still waits has the question asked once more.
            return
        error = answer.exception()
        self._landed(flight, "ok" if error is None else self.driver.code(error))

    def _landed(self, flight: object, code: Code) -> None:
        if self._flight is not flight:
            # It was given up, and has not noticed.
            return
        self._flight = None
        now = monotonic()
        if code == "ok":
            self.last_ok = now
        self._tell(self._found(Result(code, now, now - self._began)))

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer those who wait, or ask once more for them, when the client has come to know better."""
        if (code := self.driver.down()) is None:
            self._fly(loop)
        else:
            self._tell(self._found(Result(code, monotonic())))

    async def give_up(self) -> None:
        """Forget the round trip in flight: the connection it was made on is gone."""
        asking, flight = self._asking, self._flight
        self._asking = self._flight = None
        if asking is None or flight is None or self._home is not asyncio.get_running_loop():
            return
        self._tell(Result("timeout", monotonic()))
        asking.cancel()
        await asyncio.wait((asking,), timeout=_END_TIMEOUT)


def _tell(callers: list[asyncio.Future[Result]], result: Result) -> None:
    for caller in callers[:_AT_ONCE]:
        # One that has gone away was cancelled.
        if not caller.done():
            caller.set_result(result)
    if rest := callers[_AT_ONCE:]:
        rest[0].get_loop().call_soon(_tell, rest, result)
