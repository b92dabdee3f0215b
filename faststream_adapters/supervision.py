"""One broker, kept up: started, retried, restarted with backoff, and stopped in good order."""

import asyncio
import logging
import math
import random
from collections.abc import Iterator
from socket import gaierror
from ssl import SSLError
from time import monotonic
from typing import Any, NamedTuple

from faststream.exceptions import SetupError

from ._compat import Broker
from .brokers import Code, driver_for
from .consumers import HANDLERS_TIMEOUT, Consumers
from .health import Result, RoundTrips, changes
from .progress import HandlerAges
from .redaction import redact
from .tasks import end

logger = logging.getLogger("faststream.adapters")

CHECK_INTERVAL = 1.0
"""Seconds between two looks at a running broker."""

CHECK_TIMEOUT = 1.0
"""Seconds that its answer may take."""

CONSUMERS_INTERVAL = 5.0
"""Seconds between two questions to the server about its consumers."""

PATIENCE = 30.0
"""Seconds without an answer after which a client that claims to be connected is not believed any more."""

LOOK_EVERY = 0.05
"""Seconds between two looks at handlers that finish while their server is away."""

_REASONS: dict[Code, str] = {
    "timeout": "it did not answer in time",
    "refused": "the connection was refused",
    "auth": "the credentials were rejected",
    "closed": "the connection is closed",
    "not_started": "it is not connected",
}


def backoff() -> Iterator[float]:
    """Yield delays in seconds: from 0.5 up to 30, doubling, each shortened at random by up to a half."""
    delay = 0.5
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311 (spreads load, guards nothing)
        delay = min(delay * 2, 30.0)


class Settings(NamedTuple):
    """What all lifespans on one broker have to agree about.

    Args:
        retry: Whether a start that fails is tried again.
        consume: Whether subscribers are started.
        supervise: Whether the broker is kept from giving up, and restarted when it is lost.
        optional: Whether the service can do without this broker.
    """

    retry: bool
    consume: bool
    supervise: bool
    optional: bool


class _Watch:
    """What is remembered from one look at a broker to the next; times are those of `time.monotonic`."""

    def __init__(self) -> None:
        self.healthy = monotonic()
        self.lost = False
        self.asked = -math.inf
        self.error = ""


class BrokerRun:
    """The life of one broker, shared by everybody who runs it or asks for its health.

    Args:
        broker: The broker.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.driver = driver_for(broker)
        self.round_trips = RoundTrips(self.driver)
        self.consumers = Consumers(self.driver)
        self.handler_ages: HandlerAges | None = None
        self.holders: list[Any] = []
        self.settings: Settings | None = None
        self.host: object = None
        self.error: Exception | None = None
        self.up = False
        """Whether the broker was started and not stopped since; what its server does is another question."""
        self.optional = False
        """Whether the service can do without this broker."""
        self._start_is_over = asyncio.Event()
        self._task: asyncio.Task[None]
        self._ended: asyncio.Event | None = None

    @property
    def why(self) -> str:
        """Why the last start failed, in words."""
        # What the client met on its way says more than that it gave up.
        error = self.driver.last_error or self.error
        if error is None:
            return _REASONS["timeout"]
        if isinstance(error, SetupError):
            # Its text says what to do.
            return redact(str(error)).rstrip(".")
        if isinstance(error, gaierror):
            return "its host name could not be resolved"
        if isinstance(error, SSLError):
            return f"TLS failed ({getattr(error, 'reason', None) or error.strerror})"
        return _REASONS.get(self.driver.code(error), type(error).__name__)

    def beyond_help(self) -> bool:
        """Return whether the broker or a subscriber is dead, and nobody will bring it back."""
        if self.settings is None or self.settings.supervise or self.optional:
            return False
        return self.driver.gave_up or "closed" in self.consumers.faults.values()

    def not_consuming(self) -> Code | None:
        """Return why messages that the broker delivers are not handled here; None if they are."""
        if not self.up and self.holders:
            return "not_started"
        return self.consumers.fault

    def subscribers(self) -> Iterator[tuple[str, Code]]:
        """Yield each subscriber's name and whether it consumes; none where none is meant to."""
        if self.settings is not None and self.holders and not self.settings.consume:
            return
        for name, code in self.consumers:
            yield name, "not_started" if self.holders and not self.up else code

    def watch_handlers(self) -> HandlerAges:
        """Remember from now on since when each message is being handled; return that memory."""
        if self.handler_ages is None:
            self.handler_ages = HandlerAges()
            self.broker.insert_middleware(self.handler_ages)
        return self.handler_ages

    def acquire(self, holder: object, settings: Settings, host: object = None) -> None:
        """Start the broker, unless another holder has.

        Args:
            holder: Who needs the broker.
            settings: How it is run.
            host: The application around it; injected as `Context("host")`.

        Raises:
            SetupError: Another holder runs it with other settings, or in another host.
        """
        if self.holders:
            if self.settings != settings:
                msg = (
                    f"{self.driver.name} is already run by another lifespan with other keywords: "
                    "share one BrokerLifespan, or give both the same keywords."
                )
                raise SetupError(msg)
            self.check_host(host)
        else:
            self.settings = settings
            self.optional = settings.optional
            self._down()
            self.round_trips.live_in(asyncio.get_running_loop())
            self._task = asyncio.create_task(self._run(settings, after=self._ended))
        self.holders.append(holder)
        changes.mark()
        if host is not None and self.host is None:
            self.host = host
            self.broker.context.set_global("host", host)

    def check_host(self, host: object) -> None:
        """Refuse a second host.

        Raises:
            SetupError: The broker is run in another host.
        """
        if host is not None and self.host is not None and host is not self.host:
            msg = (
                f"{self.driver.name} is already run by another host application: "
                "give each application a broker object of its own."
            )
            raise SetupError(msg)

    async def wait_up(self) -> None:
        """Wait until the broker is started, or raise what its start raised."""
        await self._start_is_over.wait()
        if self.error is not None:
            raise self.error

    async def release(self, holder: object, deadline: float) -> None:
        """Stop the broker, if nobody else needs it.

        Args:
            holder: Who needed the broker.
            deadline: Until when handlers may finish, on the event loop's clock.
        """
        if holder not in self.holders:
            return
        self.holders.remove(holder)
        changes.mark()
        if self.holders:
            return
        up, task, stopped = self.up, self._task, False
        self._down()
        ended = self._ended = asyncio.Event()
        try:
            await end(task)
            stopped = up and await self._stop(deadline)
        finally:
            try:
                if stopped:
                    await self.round_trips.give_up()
                else:
                    await self._abort()
                if not self.holders and self.host is not None:
                    self.host = None
                    self.broker.context.reset_global("host")
            finally:
                # Whoever has acquired the broker meanwhile starts it now.
                ended.set()

    def _down(self) -> None:
        """From now on the broker is not up, until a start has succeeded."""
        self.up, self.error = False, None
        self._start_is_over = asyncio.Event()
        self.consumers.forget()

    def fresh(self, ttl: float) -> Result | None:
        """Return whether the broker is there, if that is known without asking it."""
        if self.error is not None:
            return Result(self.driver.code(self.error), monotonic())
        last = self.round_trips.last
        return last if ttl and last is not None and monotonic() - last.at <= ttl else None

    def ask(self, seconds: float, ttl: float = 0.0) -> asyncio.Future[Result]:
        """Ask whether the broker is there, unless that is known; see `RoundTrips.ask`."""
        if (result := self.fresh(ttl)) is None:
            return self.round_trips.ask(seconds)
        known: asyncio.Future[Result] = asyncio.Future()
        known.set_result(result)
        return known

    def known(self) -> Result:
        """Return what the last round trip has found, without a new one; supervision makes one each second."""
        now = monotonic()
        if self.error is not None:
            return Result(self.driver.code(self.error), now)
        if (code := self.driver.down()) is not None:
            return Result(code, now)
        return self.round_trips.last or Result("not_started", now)

    async def _run(self, settings: Settings, after: asyncio.Event | None) -> None:
        if after is not None:
            await after.wait()
        await self._start(settings)
        if self.up:
            await self._watch(settings)

    async def _start(self, settings: Settings) -> None:
        delays = backoff()
        over = self._start_is_over
        while True:
            try:
                await self.driver.start(consume=settings.consume, supervise=settings.supervise)
            except Exception as error:  # noqa: BLE001 (reported by who waits, or tried again)
                if over is not self._start_is_over:
                    # Released meanwhile: clients that connect swallow a cancellation, or make an error of it.
                    return
                self.error = error
                changes.mark()
                await self._abort()
                if not settings.retry:
                    over.set()
                    return
                delay = next(delays)
                logger.warning("%s is not up: %s. Next try in %.1f s.", self.driver.name, self.why, delay)
                await asyncio.sleep(delay)
            else:
                if over is self._start_is_over:
                    self.consumers.started()
                    self.up, self.error = True, None
                    changes.mark()
                    over.set()
                return

    async def _watch(self, settings: Settings) -> None:
        """Look at a running broker again and again, and bring back what is lost."""
        watch = _Watch()
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            try:
                await self._look(watch, settings)
            except Exception as error:  # noqa: BLE001 (nobody else would watch from then on)
                if (kind := type(error).__name__) != watch.error:
                    watch.error = kind
                    logger.error("%s: %s while watching it.", self.driver.name, kind)  # noqa: TRY400 (redacted)

    async def _look(self, watch: "_Watch", settings: Settings) -> None:
        if not self.driver.real:
            # An in-memory TestBroker, or the user has stopped the broker: not ours to bring back.
            watch.healthy = monotonic()
            if settings.optional:
                # Readiness asks no optional broker, and tells what was found here.
                await self.round_trips.ask(CHECK_TIMEOUT)
            return
        result = await self.round_trips.ask(CHECK_TIMEOUT)
        watch.healthy = max(watch.healthy, self.round_trips.last_ok)
        if watch.lost == result.ok:
            watch.lost = not result.ok
            # A server that was away may have forgotten its consumers.
            watch.asked = -math.inf
            self._say(result)
        if result.ok:
            if ask := monotonic() - watch.asked >= CONSUMERS_INTERVAL:
                watch.asked = monotonic()
            await self.consumers.look(ask=ask)
            if settings.supervise and self.driver.down() is None:
                await self.consumers.revive()
        elif self.driver.reconnecting:
            watch.healthy = monotonic()
        elif settings.supervise and self._may_restart(monotonic() - watch.healthy):
            if self.driver.gave_up or not await self.driver.reconnect():
                await self._restart(settings)
            watch.healthy = monotonic()

    def _may_restart(self, seconds: float) -> bool:
        """Return whether a broker that has been lost for this long is to be restarted now."""
        if not self.driver.gave_up and seconds < PATIENCE:
            return False
        # A restart ends the handlers, and what was delivered would be lost with them.
        return self._idle or seconds >= PATIENCE + HANDLERS_TIMEOUT

    def _say(self, result: Result) -> None:
        if result.ok:
            logger.info("%s answers again.", self.driver.name)
        else:
            logger.warning("%s is lost: %s.", self.driver.name, _REASONS.get(result.code, result.code))

    async def _restart(self, settings: Settings) -> None:
        logger.warning("%s is restarted.", self.driver.name)
        stopped = self.consumers.stopped
        self._down()
        await self._abort()
        await self._start(settings._replace(retry=True))
        for subscriber in stopped:
            # Its user has stopped it, and a start starts all.
            await self.driver.halt(subscriber)

    async def _abort(self) -> None:
        try:
            await self.driver.abort()
        except Exception as error:  # noqa: BLE001 (what cannot be stopped is let go of)
            logger.debug("%s: %s while stopping", self.driver.name, type(error).__name__)
        finally:
            # Not before: a round trip must not be cancelled while its answer can still come.
            await self.round_trips.give_up()

    async def _stop(self, deadline: float) -> bool:
        """Let the handlers finish and stop; return whether that was done by the deadline."""
        loop = asyncio.get_running_loop()
        if not await self._reachable(deadline):
            return False
        # In a task of its own: a client's drain may swallow a cancellation, and then wait for many seconds.
        task = asyncio.create_task(self._drain_and_stop(deadline))
        try:
            await asyncio.wait((task,), timeout=deadline - loop.time())
        finally:
            if not task.done():
                if loop.time() >= deadline:
                    logger.warning("%s did not stop in time: its handlers are cut off.", self.driver.name)
                await end(task)
        if task.cancelled():
            return False
        if (error := task.exception()) is not None:
            logger.warning("%s did not stop cleanly: %s.", self.driver.name, type(error).__name__)
        return error is None

    async def _reachable(self, deadline: float) -> bool:
        """Return whether the server answers; handlers get the time that it takes to come back."""
        loop = asyncio.get_running_loop()
        while (left := deadline - loop.time()) > 0:
            if not self.driver.real or (await self.round_trips.ask(min(left, CHECK_TIMEOUT))).ok:
                return True
            # A drain would wait for the server. Handlers need not: what they have been given is here.
            if self._idle:
                return False
            await asyncio.sleep(LOOK_EVERY)
        if not self._idle:
            logger.warning("%s is lost, and its handlers did not finish in time.", self.driver.name)
        return False

    @property
    def _idle(self) -> bool:
        return all(map(self.driver.idle, self.broker.subscribers))

    async def _drain_and_stop(self, deadline: float) -> None:
        await self.driver.drain()
        await self.driver.stop(max(deadline - asyncio.get_running_loop().time(), 0.0))


def run_of(broker: Broker) -> BrokerRun:
    """Return the one run of this broker; it is kept on the broker, so that it goes when the broker goes."""
    run: BrokerRun | None = vars(broker).get("_faststream_adapters_run")
    if run is None:
        run = BrokerRun(broker)
        vars(broker)["_faststream_adapters_run"] = run
    return run
