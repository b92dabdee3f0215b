"""The life cycle of one broker: its owners, its state, its start and its stop."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

from faststream.exceptions import SetupError

from faststream_adapters._brokers.codes import Code
from faststream_adapters._brokers.in_memory import InMemoryDriver
from faststream_adapters._brokers.registry import driver_for
from faststream_adapters._compat.faststream import (
    Broker,
    Subscriber,
    guard_method,
    handler_name,
    is_connected,
    is_in_memory,
    observe_routers,
)
from faststream_adapters._utils.errors import BrokerNotUpError, clear_frames, forget_frames
from faststream_adapters._utils.tasks import cancel_and_wait, uninterrupted

from .broker_check import BrokerCheck, Result
from .consumption import Consumption, Selected
from .publishing import PublishGuard
from .reasons import start_failure
from .run_mode import current_mode
from .start_log import StartLog
from .statistics import Collected, Statistics
from .subscriber_monitor import SubscriberMonitor
from .supervisor import Supervisor

if TYPE_CHECKING:
    from .lifespan import BrokerLifespan

REACHABLE_TIMEOUT = 1.0
"""Seconds that a check before the drain may take."""

ABORT_TIMEOUT = 15.0
"""Seconds that a driver's `abort` may take; with unreachable servers it needs several."""

BACKLOG_TIMEOUT = 2.0
"""Seconds that the backlogs of all subscribers of a broker may take."""

_CONNECT_DELAY = 0.1
"""Seconds until a lost broker connects again in the drain: usually it is closed sooner."""

POLL_INTERVAL = 0.01
"""Seconds between two polls of handlers that finish."""

_CLOSED_ALREADY = (
    "%s was closed before it was stopped: messages that were not handled are delivered again or lost."
)

_STARTED_ALREADY = "%s is started already: remove your own start(), the lifespan starts it."

_ATTRIBUTE = "_faststream_adapters_managed"


def backoff() -> Iterator[float]:
    """Yield delays in seconds: from 0.5 to 30, doubling, each shortened at random by up to a half."""
    delay = 0.5
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311 (spreads load, guards nothing)
        delay = min(delay * 2, 30.0)


class Settings(NamedTuple):
    """The settings of a broker; all its owners must pass the same.

    Args:
        retry: Whether to retry a start that fails.
        consume: The subscribers to start.
        supervise: Whether to keep the client from giving up, and to restart the broker when it is lost.
        optional: Whether the service works without this broker.
        optional_subscribers: Those of its subscribers that the service works without.
    """

    retry: bool
    consume: Selected
    supervise: bool
    optional: bool
    optional_subscribers: frozenset[Subscriber] = frozenset()


class ManagedBroker:
    """One broker, shared by every lifespan that owns it and every endpoint that reports on it.

        down ── first owner ──▶ connecting ── declared ──▶ waiting ── gate opens ──▶ starting ──▶ up
        connecting, starting ── failed ──▶ connecting     after a delay, with `retry`
        connecting, starting ── failed ──▶ failed         without; `error` says why
        up ── supervision ──▶ connecting                  a restart
        any ── last owner leaves ──▶ draining ──▶ drained ── close ──▶ down
        drained, while it cannot publish ──▶ connecting, without consuming ──▶ drained

    A broker can publish as soon as it has made its declarations. It consumes only when the gate of its first
    owner is open, and it is closed only when its last owner has drained all its brokers. So a handler can
    publish to every broker of its lifespan. `PublishGuard` refuses what is published at other times.

    Invariant: one task starts and supervises the broker, from the first owner to the last. A stop has ended
    before the next start begins. `up` is true only between a successful start and the drain or restart that
    follows.

    Args:
        broker: The broker.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.driver = driver_for(broker)
        self.broker_check = BrokerCheck(self.driver)
        self.monitor = SubscriberMonitor(self.driver)
        self.consumption = Consumption(self)
        self.collected = Collected.NOTHING
        """What endpoints show of it, so that it has to be collected."""
        self.statistics: Statistics | None = None
        """What was counted of its messages, if that is collected."""
        self.backlogs: Mapping[Subscriber, int] = {}
        """How many messages wait on the server for each subscriber, as far as that is collected and known."""
        self.restarts = 0
        """How often supervision has restarted it."""
        self.owners: list[BrokerLifespan] = []
        """The lifespans that run it."""
        self.settings: Settings | None = None
        self.host: object = None
        self.error: Exception | None = None
        """What the last start raised."""
        self.up = False
        """Whether it was started and not stopped since, regardless of the connection's state."""
        self.optional = False
        """Whether the service works without this broker."""
        self.in_memory = False
        """Whether it was started under a TestBroker: nothing is contacted, supervised or waited for."""
        self._stops = 0
        """How many calls of the broker's `stop()` have not ended."""
        self._runner = self.driver
        """The driver that starts and stops the broker."""
        self._warned_of_owners = False
        self._adopted = False
        """Whether the application had started the broker before its first owner did."""
        self.publishing = PublishGuard(broker, self.not_up_error)
        self._known_subscribers: WeakSet[Subscriber] = WeakSet()
        observe_routers(broker, self.remember_subscribers)
        self._declared = asyncio.Event()
        self._start_ended = asyncio.Event()
        self._task: asyncio.Task[None]
        self._leaving: BrokerLifespan | None = None
        """The last owner, while the broker drains and until it is closed."""
        self._drained = False
        """Whether every handler has finished."""
        self._connecting: asyncio.Task[None] | None = None
        """Connects a lost broker in the drain: handlers of other brokers and open responses may publish."""
        self._stop_ended: asyncio.Event | None = None

    # Used by endpoints.

    @property
    def start_failure(self) -> str:
        """Why the last start failed, in words."""
        return start_failure(self.driver, self.error)

    @property
    def is_idle(self) -> bool:
        """Whether every message that was delivered is handled."""
        return all(map(self._runner.is_idle, self.broker.subscribers))

    @property
    def can_publish(self) -> bool:
        """Whether it is connected and has made its declarations; also while its client reconnects."""
        return self.in_memory or (self.publishing.state == "open" and not self._runner.is_closed)

    def not_up_error(self) -> BrokerNotUpError:
        """Return the error for publishing while the broker is not up, which says why and what to do."""
        advice = "Catch BrokerNotUpError, and try again later."
        if self.up:
            reason = "its client has closed the connection, and supervision has not restarted it"
        elif self.error is not None:
            reason = self.start_failure
        elif self.owners or self._connecting is not None:
            reason = "it is still connecting"
        else:
            reason = "it has not been started" if self._stop_ended is None else "it has been stopped"
            advice = "Publish while its lifespan runs, such as in an after_startup hook."
        return BrokerNotUpError(f"{self.driver.name} is not up: {reason}. {advice}")

    def is_unrecoverable(self) -> bool:
        """Return whether the broker or a subscriber is dead, and no supervision will restart it."""
        if self.settings is None or self.settings.supervise or self.optional:
            return False
        return self.driver.is_closed or "task_failed" in self._required_faults()

    @property
    def is_starting(self) -> bool:
        """Whether a lifespan needs the broker, and its start, or its restart, has not yet succeeded."""
        return bool(self.owners) and not self.up

    def subscriber_fault(self) -> Code | None:
        """Return why messages that the server delivers are not handled here; None if they are."""
        if self.owners and not self.up:
            return "not_started"
        # Usually there is none, and there may be hundreds of subscribers.
        if self.monitor.fault is None:
            return None
        return next(self._required_faults(), None)

    def _required_faults(self) -> Iterator[Code]:
        return (code for each, code in self.monitor.faults.items() if not self.is_optional(each))

    def is_optional(self, subscriber: Subscriber) -> bool:
        """Return whether the service works without a subscriber."""
        return self.settings is not None and subscriber in self.settings.optional_subscribers

    def subscriber_code(self, subscriber: Subscriber) -> Code:
        """Return the code of a subscriber."""
        code = self.monitor.code(subscriber)
        if code == "not_started" and self.owners and not self.consumption.wants(subscriber):
            return "stopped"
        return "not_started" if self.is_starting and code != "paused" else code

    def check(self, seconds: float, ttl: float = 0.0) -> asyncio.Future[Result]:
        """Check the broker, unless a cached result is at most `ttl` seconds old; see `BrokerCheck.check`."""
        if (not ttl and self.error is None) or (result := self.cached_result(ttl)) is None:
            return self.broker_check.check(seconds)
        known: asyncio.Future[Result] = asyncio.Future()
        known.set_result(result)
        return known

    def cached_result(self, ttl: float) -> Result | None:
        """Return a result that is at most `ttl` seconds old, or that of a failed start, or None."""
        if self.error is not None:
            return Result(self.driver.classify(self.error), monotonic())
        last = self.broker_check.last
        return last if ttl and last is not None and monotonic() - last.at <= ttl else None

    def last_result(self) -> Result:
        """Return the last result without a new check; supervision makes one every second."""
        now = monotonic()
        if self.error is not None:
            return Result(self.driver.classify(self.error), now)
        if self.in_memory and self.up:
            return Result("ok", now)
        if (code := self.driver.local_status()) is not None:
            return Result(code, now)
        # The start has ended with a reply.
        return self.broker_check.last or Result("ok" if self.up else "not_started", now)

    @property
    def code(self) -> Code:
        """The code without a new check, as the details of readiness show it."""
        if self.up:
            return self.last_result().code
        if not self.owners:
            return "not_started"
        error: BaseException | None = self.error
        if error is None and not self._declared.is_set():
            # Of a client that keeps trying by itself, so that its start does not end.
            error = self.driver.last_error
        if error is not None:
            return self.driver.classify(error)
        # Whatever the client of a broker that is starting knows of itself, it is not started.
        last = self.broker_check.last
        return "not_started" if last is None or last.ok else last.code

    def update_publishing(self) -> None:
        """Refuse to publish once the client of a started broker has closed by itself."""
        closed = self._runner.is_closed
        if closed == (self.publishing.state == "open"):
            self.publishing.set("refusing" if closed else "open")

    def mark_rates(self) -> None:
        """Prepare the rates of messages, if messages are counted; called often."""
        if self.statistics is not None:
            self.statistics.mark(self.broker.subscribers)

    @property
    def oldest_message(self) -> float:
        """Seconds since the oldest message in flight was received; 0 without one, or if none are counted."""
        return 0.0 if self.statistics is None else self.statistics.oldest_of(self.broker.subscribers)

    def collect(self, what: Collected) -> None:
        """Collect this too from now on."""
        self.collected |= what
        if Collected.MESSAGES in what and self.statistics is None:
            self.statistics = Statistics()
            self.broker.insert_middleware(self.statistics)

    # Used by lifespans.

    def acquire(
        self, owner: "BrokerLifespan", settings: Settings, gate: asyncio.Event, host: object = None
    ) -> None:
        """Start the broker, unless another owner has.

        Args:
            owner: The lifespan that needs the broker.
            settings: How it is run.
            gate: Set when the subscribers may start.
            host: The application around it; injected as `Context("host")`.

        Raises:
            SetupError: Another owner runs it with other settings, or in another host.
        """
        if self.owners:
            if self.settings != settings:
                msg = (
                    f"{self.driver.name} is already run by another lifespan with other keywords: "
                    "share one BrokerLifespan, or give both the same keywords."
                )
                raise SetupError(msg)
            had_host = self.host is not None
            self.join_host(host)
            if had_host and host is not None and not self._warned_of_owners:
                self._warned_of_owners = True
                self._warn(
                    "%s is run by two lifespans of one application: "
                    "make one BrokerLifespan, and pass it to both adapters."
                )
        else:
            self.settings = settings
            self.optional = settings.optional
            self.in_memory = is_in_memory(self.broker) or current_mode().in_memory
            self._runner = InMemoryDriver(self.broker) if self.in_memory else self.driver
            if self._leaving is None:
                self._log_for(owner)
            self._adopted = self._leaving is None and self.broker.running and not self.in_memory
            if self._adopted:
                self._warn(_STARTED_ALREADY)
            self.driver.optional = settings.optional_subscribers
            self.consumption.begin(settings.consume, settings.optional_subscribers)
            if settings.consume:
                self._warn_about_moved_subscribers()
            self._reset()
            self.broker_check.forget()
            self.driver.last_error = None
            if not is_connected(self.broker):
                # Otherwise the handlers of the last owner may still publish, until it closes the broker, or
                # the application has connected the broker by itself.
                self.publishing.set("refusing")
            self.broker_check.attach(asyncio.get_running_loop())
            self._task = asyncio.create_task(self._run(settings, gate, after=self._stop_ended))
        self.owners.append(owner)
        if host is not None and self.host is None:
            self.host = host
            self.broker.context.set_global("host", host)

    def _log_for(self, owner: "BrokerLifespan") -> None:
        """Log to the application of this owner, which is the first one, or the one that stops the broker."""
        self.driver.loggers, self.driver.subscriber_name = owner.loggers, owner.subscriber_name

    def remember_subscribers(self) -> None:
        """Remember which subscribers the broker has; a TestBroker adds some for a while."""
        if not is_in_memory(self.broker):
            self._known_subscribers.update(each for each in self.broker.subscribers if each.calls)

    def _warn_about_moved_subscribers(self) -> None:
        """Log the subscribers that another broker has now: FastStream moves a router that it includes."""
        moved = self._known_subscribers.difference(self.broker.subscribers)
        if names := sorted(map(handler_name, moved)):
            self._warn(
                "%s starts without the subscribers %s: another broker has included their router meanwhile, "
                "and a router belongs to the last broker that includes it. If the function that creates the "
                "application is called more than once, create the routers in it too.",
                ", ".join(names),
            )

    def join_host(self, host: object) -> None:
        """Take over the host of another entry; it is injected as `Context("host")`.

        Raises:
            SetupError: The broker is run in another host.
        """
        if host is not None and self.host is not None and host is not self.host:
            msg = (
                f"{self.driver.name} is already run by another host application: "
                "give each application a broker object of its own."
            )
            raise SetupError(msg)
        if host is not None and self.host is None:
            self.host = host
            self.broker.context.set_global("host", host)

    async def wait_declared(self) -> None:
        """Wait until the broker can publish and has made its declarations, or raise its start's error."""
        await self._declared.wait()
        if self.error is not None:
            raise self.error

    async def wait_up(self) -> None:
        """Wait until the broker has started, or raise its start's error."""
        await self._start_ended.wait()
        if self.error is not None:
            raise self.error

    def is_held_by(self, owner: "BrokerLifespan") -> bool:
        """Return whether the broker is used by an owner, or was drained by the owner and not yet closed."""
        return owner in self.owners or self._leaving is owner

    async def drain(self, owner: "BrokerLifespan", deadline: float) -> None:
        """Remove an owner. After the last one, stop the subscribers and wait until the handlers finish.

        The broker can still publish. If it is lost, it goes on connecting.

        Args:
            owner: The lifespan that needed the broker.
            deadline: The deadline for the handlers, on the event loop's clock.
        """
        if owner not in self.owners:
            return
        self.owners.remove(owner)
        if self.owners:
            self._log_for(self.owners[0])
            return
        up, task = self.up, self._task
        # A cancelled task would keep the frames of a start alive, and with them a client.
        del self._task
        # Otherwise an earlier owner is stopping the broker, and this one's start was still waiting for that.
        had_started = self._leaving is None
        if had_started:
            self._leaving, self._drained = owner, False
            self._stop_ended = asyncio.Event()
        self._reset()
        await cancel_and_wait(task, loggers=self.driver.loggers)
        if had_started:
            self._drained = up and await self._drain(deadline)
            settings, left = self.settings, deadline - asyncio.get_running_loop().time()
            if settings is not None and settings.supervise and left > 0 and not self.can_publish:
                self._connecting = asyncio.create_task(self._connect_again(settings))

    async def leave_groups(self, owner: "BrokerLifespan", deadline: float) -> None:
        """Let other processes have what the drained subscribers keep, as the broker may stay connected long.

        Args:
            owner: The lifespan that has drained the broker.
            deadline: The deadline, on the event loop's clock.
        """
        if self._drained and self._leaving is owner:
            self._drained = await self._by_deadline(
                self._runner.leave_groups(), deadline, "its consumers are cut off"
            )

    async def close(self, owner: "BrokerLifespan", deadline: float) -> None:
        """Close a broker that the owner has drained, or abort it if the drain failed.

        Args:
            owner: The lifespan that needed the broker.
            deadline: The deadline, on the event loop's clock.
        """
        if self._leaving is not owner or self._stop_ended is None:
            return
        stopped, ended = False, self._stop_ended
        self.publishing.set("refusing")
        try:
            await uninterrupted(self._end_connecting())
            stopped = self._drained and await self._close(deadline)
        finally:
            self._leaving = None
            try:
                if stopped:
                    await self.broker_check.abandon()
                else:
                    await self._abort()
                if not self.owners:
                    self.consumption.paused.clear()
                if not self.owners and self.host is not None:
                    self.host = None
                    self.broker.context.reset_global("host")
            finally:
                self.publishing.set("refusing" if self.owners else "unmanaged")
                forget_frames(self.driver.last_error)
                if self.owners:
                    self._log_for(self.owners[0])
                # An owner that has acquired the broker meanwhile starts it now.
                ended.set()

    async def restart(self, settings: Settings) -> None:
        """Restart a lost broker, and retry until this succeeds; called by the supervisor."""
        self._warn("Restarting %s.")
        self.restarts += 1
        self.consumption.remember()
        self._reset()
        await self._abort()
        await self._start(settings._replace(retry=True))

    async def update_backlogs(self) -> None:
        """Ask the server how many messages wait for its subscribers, if an endpoint shows that."""
        if Collected.BACKLOGS not in self.collected:
            return
        running = [each for each in self.broker.subscribers if each.calls and each.running]
        backlogs: Mapping[Subscriber, int] = {}
        try:
            async with asyncio.timeout(BACKLOG_TIMEOUT):
                backlogs = await self.driver.backlogs(running)
        except Exception as error:  # noqa: BLE001 (without the backlogs everything else goes on)
            logger = self.driver.loggers["metrics"]
            logger.debug("%s: %s while asking for backlogs", self.driver.name, type(error).__name__)
        self.backlogs = backlogs

    async def _connect_again(self, settings: Settings) -> None:
        """Connect a drained broker without its subscribers, and retry until this succeeds."""
        await asyncio.sleep(_CONNECT_DELAY)
        await self._abort()
        await self._start(settings._replace(retry=True), consume=False)

    async def _end_connecting(self) -> None:
        if self._connecting is not None:
            await cancel_and_wait(self._connecting, loggers=self.driver.loggers)
            self._connecting = None
            # Without subscribers there is nothing to drain. For another owner, it is not up.
            self._drained, self.up, self.error = self.up, False, None
            self.monitor.clear()

    async def _start_again(self, start: Callable[[], Awaitable[None]]) -> None:
        """Start a broker that the application has stopped, or whose client is closed.

        Do nothing if it is started: each Kafka subscriber would get a second consumer.
        """
        if not self.up or self.settings is None:
            await start()
            return
        is_closed = self.driver.is_closed and not self.settings.supervise
        if self.broker.running and not is_closed:
            self._warn(_STARTED_ALREADY)
            return
        if is_closed:
            # FastStream would keep the closed client.
            await self._abort()
        await self._runner.connect(consume=self.consumption.starts_any, supervise=self.settings.supervise)
        await self.consumption.start(start)
        self.update_publishing()

    async def _stop(self, stop: Callable[..., Awaitable[None]], *args: Any, **kwargs: Any) -> None:
        self._stops += 1
        try:
            await stop(*args, **kwargs)
        finally:
            self._stops -= 1

    @property
    def is_stopping(self) -> bool:
        """Whether the application is stopping the broker, which must not be restarted meanwhile."""
        return self._stops > 0

    def _reset(self) -> None:
        self.up, self.error = False, None
        self._declared = asyncio.Event()
        self._start_ended = asyncio.Event()
        self.monitor.clear()
        self.backlogs = {}

    async def _run(self, settings: Settings, gate: asyncio.Event, after: asyncio.Event | None) -> None:
        if after is not None:
            await after.wait()
        await self._start(settings, gate)
        if self.up and not self.in_memory:
            await Supervisor(self, settings).run()

    async def _start(
        self, settings: Settings, gate: asyncio.Event | None = None, *, consume: bool = True
    ) -> None:
        delays, log = backoff(), StartLog(self.driver)
        declared, ended = self._declared, self._start_ended
        while True:
            try:
                await self._start_once(settings, declared, gate, log, consume=consume)
            except Exception as error:  # noqa: BLE001 (reported by the waiting lifespan, or retried)
                if ended is not self._start_ended:
                    # It was released: connecting clients swallow a cancellation, or turn it into an error.
                    return
                self.error = error
                # Before the abort: it must drop the last reference to each client.
                clear_frames(error)
                try:
                    await self._abort()
                finally:
                    if self.driver.classify(error) != "error":
                        # A fault of the network needs no traceback; a mistake in the application does.
                        forget_frames(error)
                if not settings.retry:
                    declared.set()
                    ended.set()
                    return
                delay = next(delays)
                log.failed(error, delay)
                await asyncio.sleep(delay)
            else:
                if ended is self._start_ended:
                    self.broker_check.forget()
                    if not self.in_memory:
                        self.monitor.on_started()
                        guard_method(self.broker, "start", self._start_again)
                        guard_method(self.broker, "stop", self._stop)
                    self.up, self.error = True, None
                    ended.set()
                    if consume and not self.in_memory:
                        self.consumption.on_started()
                return

    async def _start_once(
        self,
        settings: Settings,
        declared: asyncio.Event,
        gate: asyncio.Event | None,
        log: StartLog,
        *,
        consume: bool,
    ) -> None:
        consume = consume and self.consumption.starts_any
        with log.connecting():
            await self._runner.connect(consume=consume, supervise=settings.supervise)
        await self._runner.declare()
        if declared is self._declared:
            self.error = None
            self.publishing.set("open")
        declared.set()
        if gate is not None:
            await gate.wait()
        # A second start would give each subscriber a second consumer.
        if not consume or self._adopted:
            return
        if self.in_memory:
            await self._runner.start_subscribers()
        else:
            await self.consumption.start(self._runner.start_subscribers)

    async def _abort(self) -> None:
        """End everything; no cancellation interrupts it, because a second attempt could not find the rest."""
        self._adopted = False
        self.publishing.set("refusing")
        deadline = asyncio.get_running_loop().time() + ABORT_TIMEOUT
        await uninterrupted(self._by_deadline(self._abort_driver(), deadline, "it is abandoned"))

    async def _abort_driver(self) -> None:
        try:
            await self.consumption.cancel()
            await self._runner.abort()
        except Exception as error:  # noqa: BLE001 (what cannot be stopped is abandoned)
            logger, name = self.driver.loggers["lifecycle"], self.driver.name
            logger.debug("%s: %s while aborting", name, type(error).__name__, extra={"broker": name})
        finally:
            # Only now, because a check must not be cancelled while its reply can still arrive.
            await self.broker_check.abandon()

    async def _drain(self, deadline: float) -> bool:
        """Wait until the handlers finish; return whether they did by the deadline, and the server replied."""
        drained = await self._wait_reachable(deadline) and await self._by_deadline(
            self._drain_and_wait(), deadline, "its handlers are cut off"
        )
        return not self._is_closed_already() and drained

    async def _close(self, deadline: float) -> bool:
        if self._is_closed_already():
            return False
        seconds = max(deadline - asyncio.get_running_loop().time(), 0.0)
        return await self._by_deadline(self._runner.stop(seconds), deadline, "its connection is cut off")

    def _is_closed_already(self) -> bool:
        """Return whether the client is closed, as by the application, and log that: `stop()` would fail."""
        closed = self._runner.is_closed
        if closed:
            self._warn(_CLOSED_ALREADY)
        return closed

    async def _by_deadline(
        self, coroutine: Coroutine[Any, Any, None], deadline: float, otherwise: str
    ) -> bool:
        """Run a part of the stop; return whether it succeeded by the deadline."""
        loop = asyncio.get_running_loop()
        # In its own task: a client may swallow a cancellation, and then wait for many seconds.
        task = asyncio.create_task(coroutine)
        try:
            await asyncio.wait((task,), timeout=deadline - loop.time())
        finally:
            if not task.done():
                if loop.time() >= deadline:
                    self._warn("%s did not stop in time: %s.", otherwise)
                await cancel_and_wait(task, loggers=self.driver.loggers)
        if task.cancelled():
            return False
        if (error := task.exception()) is not None:
            self._warn("%s did not stop cleanly: %s.", type(error).__name__)
        return error is None

    async def _wait_reachable(self, deadline: float) -> bool:
        """Wait until the server replies or the handlers have finished; return whether the server replied."""
        loop = asyncio.get_running_loop()
        while (left := deadline - loop.time()) > 0:
            if not self._runner.has_client:
                return True
            if (await self.broker_check.check(min(left, REACHABLE_TIMEOUT))).ok:
                return True
            # All delivered messages are handled, and a drain would wait for the server.
            if self.is_idle:
                return False
            await asyncio.sleep(POLL_INTERVAL)
        if not self.is_idle:
            self._warn("%s is lost, and its handlers did not finish in time.")
        return False

    async def _drain_and_wait(self) -> None:
        await self.consumption.wait_resumed()
        for subscriber in self._runner.to_drain:
            # The application may have started it since the last poll.
            self._runner.on_started(subscriber)
        await asyncio.gather(self._runner.drain(), self.consumption.wait())
        # The drain of some drivers stops new messages, but does not wait for the handlers.
        while not self.is_idle:  # noqa: ASYNC110 (there is no event for the end of the handlers)
            await asyncio.sleep(POLL_INTERVAL)

    def _warn(self, text: str, *args: object) -> None:
        logger = self.driver.loggers["lifecycle"]
        logger.warning(text, self.driver.name, *args, extra={"broker": self.driver.name})


def managed_broker(broker: Broker) -> ManagedBroker:
    """Return the ManagedBroker of a broker; it is stored on the broker, so that there is only one."""
    managed: ManagedBroker | None = vars(broker).get(_ATTRIBUTE)
    if managed is None:
        managed = vars(broker)[_ATTRIBUTE] = ManagedBroker(broker)
    return managed
