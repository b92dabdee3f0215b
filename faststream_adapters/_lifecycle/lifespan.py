"""BrokerLifespan: the only place where brokers start, drain and stop."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context, copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Unpack

from faststream.exceptions import SetupError

from faststream_adapters._compat.faststream import Application, Broker, BrokerUsecase, Subscriber
from faststream_adapters._utils.errors import BrokerNotUpError, shown_text
from faststream_adapters._utils.loggers import Loggers
from faststream_adapters._utils.options import accepts, complete
from faststream_adapters._utils.redaction import without_secrets
from faststream_adapters._utils.tasks import cancel_and_wait, outlive_current_task, uninterrupted

from .broker_group import BrokerGroup
from .entries import Entries
from .faststream_run import explain_refusal
from .health_check import HealthCheck, manage
from .health_hook import HealthHook
from .health_observer import HealthObserver
from .hooks import AppHooks
from .managed import ManagedBroker, Settings, managed_broker
from .options import LifespanKeywords, State
from .run_mode import RunMode, current_mode
from .selectors import Selection, SubscriberNames, as_tuple
from .services import Services
from .signals import DrainSignals
from .state import LifespanState
from .statistics import Collected
from .subscriber_info import SubscriberInfo, describe
from .targets import parse_targets
from .workers import warn_about_workers

if TYPE_CHECKING:
    from faststream_adapters._compat.faststream import SettingField

_STRICT_TIMEOUT = 20.0
_KILLED_AFTER = 30.0
"""Seconds that Kubernetes and gunicorn give a process to stop, unless configured otherwise."""


class BrokerLifespan:
    """Starts brokers with a block of code or a host application, and stops them with it.

    It is an async context manager. Called with the host application it returns one, so that it can be passed
    as a framework's `lifespan`. It can be entered again after it has ended, also in another event loop.
    Concurrent entries start the brokers once. Two lifespans can share a broker.

    Args:
        targets: One or more brokers, or one FastStream app, whose hooks, lifespan and context are used too.
        keywords: See `LifespanKeywords`.

    Raises:
        SetupError: The arguments cannot work together.
        TypeError: A keyword is unknown.
    """

    @accepts(LifespanKeywords)
    def __init__(self, *targets: Broker | Application, **keywords: Unpack[LifespanKeywords]) -> None:
        parsed = parse_targets(targets)
        if parsed.lifespan is not None and parsed.app is None:
            msg = "A BrokerLifespan runs these brokers already: use that one."
            raise SetupError(msg)
        options = complete(LifespanKeywords, keywords)
        self.app = parsed.app
        self._brokers = parsed.brokers
        self.optional = as_tuple(options["optional"])
        self.startup = options["startup"]
        if (timeout := options["startup_timeout"]) is None:
            timeout = _STRICT_TIMEOUT if self.startup == "strict" else math.inf
        self.startup_timeout: float = timeout
        # True, False, or the selectors of the subscribers to start.
        self.consume = consume if isinstance(consume := options["consume"], bool) else as_tuple(consume)
        self.supervise = options["supervise"]
        self.drain_delay = options["drain_delay"]
        self.shutdown_timeout = options["shutdown_timeout"]
        if self.app is None:
            self._check_optional()
        self.loggers = Loggers(self.app)
        """Where lines about the lifespan and its brokers are logged."""
        self.checks = manage(options["checks"], self.optional, self.loggers)
        """The application's own health checks."""
        self.was_entered = False
        """Whether the lifespan was ever entered."""
        hook = options["on_health_change"]
        self.collected = Collected.NOTHING if hook is None else Collected.CHECKS
        """What is shown or reported of its brokers and checks, so that it has to be collected."""
        self.preparations: list[Callable[[object], None]] = []
        """Called with the host before the brokers start, when all of them are known."""
        self.services = Services(self)
        self._mode = RunMode()
        self.status = LifespanState(options["on_state_change"], self.loggers)
        self._entries = Entries()
        self._hooks = AppHooks(self.app)
        self._group = BrokerGroup(self)
        self._names = SubscriberNames()
        self._background: asyncio.Task[None] | None = None
        self._signals = DrainSignals(self.drain_delay, self._begin_drain)
        self._delay: asyncio.TimerHandle | None = None
        """Ends the `drain_delay` that a signal or `drain` has begun."""
        self._drained: asyncio.Task[float] | None = None
        """The drain that followed this delay."""
        self._context: Context
        self._errors: list[Exception] = []
        """What the hooks of the shutdown have raised."""
        self._observer = HealthObserver(self, None if hook is None else HealthHook(hook, self.loggers))
        self.prepare_brokers()
        explain_refusal()

    def prepare_brokers(self) -> None:
        """Make messages that are published too early raise BrokerNotUpError, and remember the subscribers."""
        for broker in self.brokers:
            managed_broker(broker).remember_subscribers()

    def _check_optional(self) -> None:
        for each in self.optional:
            if isinstance(each, BrokerUsecase) and each not in self.brokers:
                msg = "optional names a broker that this lifespan does not run: pass it as a target too."
                raise SetupError(msg)

    @property
    def broker_lifespan(self) -> "BrokerLifespan":
        """The lifespan itself, so that it can be passed as a target."""
        return self

    @property
    def state(self) -> State:
        """`stopped`, `starting`, `running`, `draining` or `failed`."""
        return self.status.current

    @property
    def brokers(self) -> tuple[Broker, ...]:
        """The brokers, including those that were added to the app later."""
        return self._brokers if self.app is None else tuple(self.app.brokers)

    @property
    def subscribers(self) -> tuple[SubscriberInfo, ...]:
        """The subscribers of the brokers as they are now, sorted by name."""
        return describe(self._names.of(self._managed))

    def subscriber_name(self, subscriber: Subscriber) -> str:
        """Return the name of a subscriber in `subscribers`."""
        return self._names.name(self._managed, subscriber)

    @property
    def _managed(self) -> list[ManagedBroker]:
        return [managed_broker(broker) for broker in self.brokers]

    def _select(self, selection: object, keyword: str) -> list[tuple[ManagedBroker, Subscriber]]:
        return self._names.select(self._managed, selection, keyword)

    def __call__(self, host: object = None) -> AbstractAsyncContextManager[None]:
        """Return a context manager for one run in this host application."""
        return self._in_host(host)

    @asynccontextmanager
    async def _in_host(self, host: object) -> AsyncIterator[None]:
        try:
            await self.enter(host=host)
        except BaseException:
            outlive_current_task()
            raise
        try:
            yield
        finally:
            await self.leave()

    async def __aenter__(self) -> None:
        await self.enter()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.leave()

    async def enter(
        self,
        *,
        host: object = None,
        options: Mapping[str, "SettingField"] | None = None,
        hooks_only: bool = False,
    ) -> None:
        """Start, or join a start that is in progress.

        Args:
            host: The application around the brokers.
            options: Options for a FastStream app's lifespan and `on_startup` hooks.
            hooks_only: Leave out the FastStream app's lifespan, which the caller runs.

        Raises:
            BrokerStartError: A broker could not be started in time.
            SetupError: It runs in another event loop.
        """

        def join() -> None:
            for managed in self._group:
                managed.join_host(host)

        await _redacting(
            self._entries.enter(lambda: self._start(host, options or {}, hooks_only=hooks_only), join)
        )

    async def leave(self) -> None:
        """Stop after the last exit; a further call does nothing."""
        await _redacting(self._entries.leave(self._stop))

    async def idle(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 (tests pass it)
        """Wait until every message that the clients have received is handled.

        Messages that a client has not received yet cannot be seen.

        Args:
            timeout: The limit in seconds; None waits without one.

        Raises:
            TimeoutError: Messages are still being handled.
        """
        async with asyncio.timeout(timeout):
            await self._group.wait_idle()

    async def pause(self, which: Selection) -> None:
        """Stop subscribers from consuming, and wait until they have handled what was delivered to them.

        They stay paused, also when their broker is restarted, until they are resumed or the last lifespan
        of the broker has stopped. If the server does not reply, this waits until it does. A call that is
        cancelled only stops waiting. A handler does not wait for its own subscriber.

        Without effect under a TestBroker.

        Args:
            which: A subscriber, its handler function or its name, or several of these.

        Raises:
            BrokerNotUpError: The lifespan is not running.
            SetupError: A selector names no subscriber, or more than one, or this is another event loop.
        """
        await self._change(which, "pause", "pause()")

    async def resume(self, which: Selection) -> None:
        """Let subscribers consume that are paused, that `consume=` leaves out, or that were stopped.

        Args:
            which: A subscriber, its handler function or its name, or several of these.

        Raises:
            BrokerNotUpError: The lifespan is not running.
            BrokerStartError: A subscriber could not be started, and stays paused.
            SetupError: A selector names no subscriber, or more than one, or this is another event loop.
        """
        await self._change(which, "resume", "resume()")

    async def _change(self, which: Selection, change: Literal["pause", "resume"], keyword: str) -> None:
        selected = self._select(which, keyword)
        if self.state in {"stopped", "failed"}:
            msg = f"{keyword} works while the lifespan runs, and its state is {self.state!r}."
            raise BrokerNotUpError(msg)
        if self._entries.loop is not asyncio.get_running_loop():
            msg = f"{keyword} must be called in the event loop of the lifespan."
            raise SetupError(msg)
        calls = [
            getattr(managed.consumption, change)(subscriber)
            for managed, subscriber in selected
            if not managed.in_memory
        ]
        for result in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def draining(self) -> None:
        """Wait until the drain begins, so that a long-lived response can end.

        Returns at once unless the lifespan is starting or running. Any number of tasks can wait, in the
        event loop of the lifespan.
        """
        await self.status.drain_begun.wait()

    def end_observation(self) -> None:
        """Report no more changes of the health: what ends from now on is meant to end."""
        self._observer.end()

    def drain(self, then: Callable[[], object]) -> None:
        """Begin to drain now, and call a function after `drain_delay`; can be called in any thread.

        Args:
            then: Stops the server; called in the event loop.
        """
        if (loop := self._entries.loop) is None:
            then()
            return

        def begin() -> None:
            self._begin_drain()
            loop.call_later(self._drain_delay, then)

        loop.call_soon_threadsafe(begin)

    async def _start(self, host: object, options: Mapping[str, "SettingField"], *, hooks_only: bool) -> None:
        self.was_entered = True
        self._mode = current_mode()
        self._mode.lifespans.append(self)
        self._delay = self._drained = None
        # A stop that was cancelled has not raised them.
        self._errors = []
        for check in self.checks:
            check.attach()
        self.status.set("starting")
        self._check_shutdown_time()
        self.prepare_brokers()
        self._forget_pauses()
        try:
            await self.services.start(self._mode, options)
            await self._hooks.enter(self, host, options, hooks_only=hooks_only)
            self._check_optional()
            for prepare in self.preparations:
                prepare(host)
            self._acquire(host)
            if not self.brokers:
                self.loggers["lifecycle"].warning(
                    "The application has no broker, so it consumes nothing and is not ready. Pass one to the "
                    "FastStream app, or call its add_broker() in an on_startup hook at the latest."
                )
            if self._consumes:
                warn_about_workers(options, list(self._group), self.loggers)
            if self.startup == "background":
                self._background = asyncio.create_task(self._go_up_in_background())
            else:
                await self._go_up()
            # For the hooks when a signal begins the drain. Python 3.11 can only copy a task's context.
            self._context = getattr(asyncio.current_task(), "get_context", copy_context)()
            self._signals.install()
        except BaseException as error:
            # A cancelled start has not failed: its caller gave up.
            failed = isinstance(error, Exception)
            if failed:
                self.status.set("failed")
            try:
                await self._end()
            finally:
                if not failed:
                    self.status.set("stopped")
            raise

    @property
    def _consumes(self) -> bool | Selection:
        return self.consume if self._mode.consume is None else self._mode.consume

    def _forget_pauses(self) -> None:
        for managed in self._managed:
            if not managed.owners:
                managed.consumption.paused.clear()

    def _check_shutdown_time(self) -> None:
        longest = self.drain_delay + self.shutdown_timeout
        if longest >= _KILLED_AFTER:
            self.loggers["lifecycle"].warning(
                "drain_delay + shutdown_timeout is %g s, but Kubernetes and gunicorn kill after %g s: "
                "raise their limit (terminationGracePeriodSeconds, --graceful-timeout) above it.",
                longest,
                _KILLED_AFTER,
            )

    def _acquire(self, host: object) -> None:
        started, not_required = self.selected()
        for broker in self.brokers:
            optional = broker in self.optional
            settings = Settings(
                retry=optional or self.startup == "background",
                consume=True if started is None else started.intersection(broker.subscribers),
                supervise=self.supervise,
                optional=optional,
                optional_subscribers=not_required.intersection(broker.subscribers),
            )
            self._group.acquire(broker, settings, host, self.collected)

    def selected(self) -> tuple[frozenset[Subscriber] | None, frozenset[Subscriber]]:
        """Return the subscribers to start, None for all, and those that are optional.

        Raises:
            SetupError: A selector names no subscriber, or more than one.
        """
        others = [each for each in self.optional if not isinstance(each, BrokerUsecase | HealthCheck)]
        optional = frozenset(each for _, each in self._select(others, "optional"))
        if self._mode.select is not None:
            return self._mode.select(self.brokers), optional
        if (consume := self._consumes) is True:
            return None, optional
        return frozenset(each for _, each in self._select(consume or (), "consume")), optional

    async def _go_up(self) -> None:
        await self._group.start(self.startup_timeout)
        await self._hooks.after_startup()
        if self.state == "starting":
            if any(Collected.CHECKS in each.collected for each in (self, *self._group)):
                for check in self.checks:
                    check.start_polling()
            self.status.set("running")

    async def _go_up_in_background(self) -> None:
        try:
            await self._go_up()
        except Exception as error:  # noqa: BLE001 (no caller waits for it: the log and the state report it)
            logger = self.loggers["lifecycle"]
            logger.error("The start in the background failed: %s", shown_text(error))  # noqa: TRY400 (redacted)
            self.status.set("failed")
            await self._group.release()

    def _begin_drain(self) -> None:
        """Fail readiness now, and drain after `drain_delay`, also while the server has open connections."""
        if self.state not in {"starting", "running"}:
            return
        started = self.state == "running" or self._background is not None
        self._fail_readiness()
        # Otherwise the server waits for the startup to end, and then stops the lifespan.
        if started:
            loop = asyncio.get_running_loop()
            self._delay = loop.call_later(self._drain_delay, self._drain_in_task)

    def _fail_readiness(self) -> None:
        self.status.begin_drain()
        # The hooks of the shutdown close what they check.
        for check in self.checks:
            check.detach()

    @property
    def _drain_delay(self) -> float:
        return self.drain_delay if self._mode.drain_delay and not self._group.in_memory else 0.0

    def _drain_in_task(self) -> None:
        self._drained = asyncio.create_task(self._drain_and_leave_groups(), context=self._context)

    async def _drain_and_leave_groups(self) -> float:
        deadline = await self._drain()
        await self._group.leave_groups(deadline - self._reserve)
        return deadline

    async def _drain(self) -> float:
        """Stop the subscribers, wait for their handlers, and return the deadline of the shutdown."""
        loop = asyncio.get_running_loop()
        await self._cancel_background()
        await self._collect(self._hooks.on_shutdown(), loop.time() + self.shutdown_timeout)
        deadline = loop.time() + self.shutdown_timeout
        await self._group.drain(deadline - self._reserve)
        return deadline

    async def _cancel_background(self) -> None:
        if self._background is not None:
            await cancel_and_wait(self._background, loggers=self.loggers)
            self._background = None

    @property
    def _reserve(self) -> float:
        """Seconds that handlers cannot use: they are for the hooks, which close what the handlers used."""
        return min(1.0, self.shutdown_timeout / 10)

    async def _stop(self) -> None:
        earliest = asyncio.get_running_loop().time() + self.shutdown_timeout
        state = self.state
        self._fail_readiness()
        try:
            await self._cancel_background()
            if self._delay is not None:
                self._delay.cancel()
            elif state in {"starting", "running"}:
                await asyncio.sleep(self._drain_delay)
            if state != "failed":
                deadline = await (self._drain() if self._drained is None else self._drained)
                # A drain may have ended long before the server's last response.
                deadline = max(deadline, earliest)
                await self._group.close(deadline - self._reserve)
                await self._collect(self._hooks.after_shutdown(), deadline)
        finally:
            try:
                # A regular stop has ended everything already; a cancelled one has not.
                await self._end()
            finally:
                self.status.set("stopped")
        errors, self._errors = self._errors, []
        for error in errors[1:]:
            self.loggers["lifecycle"].error("Another error while stopping: %s", shown_text(error))
        if errors:
            raise errors[0]

    async def _collect(self, hooks: Awaitable[None], deadline: float) -> None:
        """Run hooks until the deadline; an error is raised after everything has stopped."""
        try:
            async with asyncio.timeout_at(deadline):
                await hooks
        except Exception as error:  # noqa: BLE001 (raised in the end)
            self._errors.append(error)

    async def _end(self) -> None:
        """End what is running; no cancellation leaves any of it behind."""
        try:
            await uninterrupted(self._release())
        finally:
            self._signals.restore()
            try:
                # In this task, because the app's lifespan may hold a cancel scope or a task group.
                await self._hooks.exit()
            finally:
                await self.services.stop()

    async def _release(self) -> None:
        if self._delay is not None:
            self._delay.cancel()
        await self._cancel_background()
        if self._drained is not None:
            await cancel_and_wait(self._drained, loggers=self.loggers)
        self.end_observation()
        await asyncio.gather(self._observer.wait_ended(), *(check.wait_ended() for check in self.checks))
        await self._group.release()


async def _redacting(step: Awaitable[None]) -> None:
    """Raise errors without credentials: FastAPI and Litestar send the traceback to the server."""
    try:
        await step
    except Exception as error:
        if (redacted := without_secrets(error)) is error:
            raise
    else:
        return
    # Outside the `except` block, or the error with the credentials would be the context of this one.
    raise redacted
