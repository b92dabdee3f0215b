"""BrokerLifespan: the only place where brokers start, drain and stop."""

import asyncio
import inspect
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypedDict
from weakref import WeakSet

from faststream import FastStream
from faststream.asgi.types import Receive, Send
from faststream.exceptions import SetupError, StartupValidationError

from ._compat import (
    Broker,
    BrokerUsecase,
    after_shutdown,
    after_startup,
    on_shutdown,
    on_startup,
)
from .health import Observer, changes
from .redaction import redacted_traceback, without_secrets
from .signals import DrainSignals
from .supervision import BrokerRun, Settings, run_of
from .tasks import end
from .workers import warn_of_siblings

if TYPE_CHECKING:
    from ._compat import SettingField

logger = logging.getLogger("faststream.adapters")

State = Literal["stopped", "starting", "running", "draining", "failed"]

_STRICT_TIMEOUT = 20.0
_OWNER = "_faststream_adapters_owner"
_NOTICE_AFTER = 1.0
"""Seconds of waiting for a broker after which the log says so."""

_KILLED_AFTER = 30.0
"""Seconds that Kubernetes and gunicorn give a process to stop, unless told otherwise."""


class BrokerStartError(RuntimeError):
    """A broker could not be started; the cause is what the client raised."""


class HostStartError(RuntimeError):
    """The host application's own start or stop failed; the text is the host's."""


class LifespanKeywords(TypedDict, total=False):
    """The keywords of `BrokerLifespan`, for functions that pass them on."""

    startup: Literal["strict", "background"]
    startup_timeout: float | None
    consume: bool
    optional: Iterable[Broker]
    supervise: bool
    drain_delay: float
    shutdown_timeout: float
    on_state_change: Callable[[State, State], object] | None


_TELLING = (BrokerStartError, HostStartError, SetupError, StartupValidationError)
"""Errors whose text is written for whoever operates the server, and holds no secret."""


class BrokerLifespan:
    """Ties the life of brokers to a block of code or to a host application.

    An async context manager; called with the host application it gives one, so that it can be handed over as
    a framework's `lifespan`. It can be entered again after it has ended, also in another event loop; entered
    twice at once it starts the brokers once. Two lifespans may share a broker.

    Args:
        targets: One or more brokers, or one FastStream app, whose hooks, lifespan and context then run too.
        startup: `"strict"`: wait for every broker, and fail the host's start if one fails.
            `"background"`: let the host start at once and go on connecting; not ready until they are up.
        startup_timeout: Seconds that the brokers get to come up, or the start has failed; 20 when strict, no
            limit in the background.
        consume: Whether subscribers are started; without them the brokers can only publish.
        optional: Brokers whose loss fails neither the start nor readiness.
        supervise: Whether clients are kept from giving up, and brokers that are lost for good are restarted.
        drain_delay: Seconds between "not ready" and the start of the shutdown. uvicorn goes on serving
            meanwhile; granian and hypercorn do not.
        shutdown_timeout: Seconds for draining and stopping everything.
        on_state_change: Called with the old and the new state.

    Raises:
        SetupError: The arguments cannot work together.
    """

    def __init__(
        self,
        *targets: Broker | FastStream,
        startup: Literal["strict", "background"] = "strict",
        startup_timeout: float | None = None,
        consume: bool = True,
        optional: Iterable[Broker] = (),
        supervise: bool = True,
        drain_delay: float = 0.0,
        shutdown_timeout: float = 20.0,
        on_state_change: Callable[[State, State], object] | None = None,
    ) -> None:
        self.app, self._brokers = _split(targets)
        if isinstance(optional, BrokerUsecase):
            msg = "optional must be a list of brokers: optional=[broker]."
            raise SetupError(msg)
        self.optional = tuple(optional)
        self.startup = startup
        if startup_timeout is None:
            startup_timeout = _STRICT_TIMEOUT if startup == "strict" else math.inf
        self.startup_timeout = startup_timeout
        self.consume = consume
        self.supervise = supervise
        self.drain_delay = drain_delay
        self.shutdown_timeout = shutdown_timeout
        self.on_state_change = on_state_change
        self._check()
        self.was_running = False
        """Whether the state was ever `running`."""
        self.was_entered = False
        """Whether the lifespan was ever entered."""
        self.watch_handlers = False
        """Whether somebody wants to know how long messages have been in their handlers."""
        self.observers: WeakSet[Observer] = WeakSet()
        self._state: State = "stopped"
        self._entered = 0
        self._ready: asyncio.Future[BaseException | None]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None
        self._background: asyncio.Task[None] | None = None
        self._runs: list[BrokerRun] = []
        self._resources = AsyncExitStack()
        self._signals = DrainSignals(drain_delay, self._begin_drain)

    def _check(self) -> None:
        if self.startup not in {"strict", "background"}:
            msg = f'startup must be "strict" or "background", not {self.startup!r}.'
            raise SetupError(msg)
        for name in ("startup_timeout", "drain_delay", "shutdown_timeout"):
            seconds = getattr(self, name)
            if not (isinstance(seconds, int | float) and seconds >= 0):
                msg = f"{name} must be a number of seconds that is not negative, not {seconds!r}."
                raise SetupError(msg)
        for name in ("consume", "supervise"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                msg = f"{name} must be True or False, not {value!r}."
                raise SetupError(msg)
        if self.on_state_change is not None and inspect.iscoroutinefunction(self.on_state_change):
            msg = "on_state_change must be a plain function: it is called, not awaited."
            raise SetupError(msg)
        if self.app is None:
            self._check_optional()

    def _check_optional(self) -> None:
        for broker in self.optional:
            if broker not in self.brokers:
                msg = "optional names a broker that this lifespan does not run: pass it as a target too."
                raise SetupError(msg)

    @property
    def state(self) -> State:
        """`stopped`, `starting`, `running`, `draining` or `failed`."""
        return self._state

    @property
    def brokers(self) -> tuple[Broker, ...]:
        """The brokers, those included that were added to the app later."""
        return self._brokers if self.app is None else tuple(self.app.brokers)

    def __call__(self, host: object = None) -> AbstractAsyncContextManager[None]:
        """Return a context manager for one run in this host application."""
        return self._in_host(host)

    @asynccontextmanager
    async def _in_host(self, host: object) -> AsyncIterator[None]:
        await self.enter(host=host)
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
        """Start, or join a start that has begun.

        Args:
            host: The application around the brokers.
            options: Options for a FastStream app's lifespan and `on_startup` hooks.
            hooks_only: Leave out the FastStream app's lifespan, which the caller runs himself.

        Raises:
            BrokerStartError: A broker could not be started in time.
            SetupError: It runs in another event loop.
        """
        if self._entered and self._loop is not None and self._loop is not asyncio.get_running_loop():
            how = (
                "was not left when its event loop ended"
                if self._loop.is_closed()
                else "runs in another event loop"
            )
            msg = f"This lifespan {how}: give each event loop a lifespan and brokers of its own."
            raise SetupError(msg)
        self._entered += 1
        try:
            if self._entered == 1:
                await self._begin(host, options or {}, hooks_only=hooks_only)
            else:
                await self._join(host)
        except BaseException:
            self._entered -= 1
            raise

    async def _begin(self, host: object, options: Mapping[str, "SettingField"], *, hooks_only: bool) -> None:
        """Start, and tell those who join."""
        self._loop = loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        error: BaseException | None = None
        try:
            if self._stopped is not None:
                # Entered again while the last stop is under way.
                await self._stopped.wait()
            await self._start(host, options, hooks_only=hooks_only)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._ready.set_result(error)

    async def _join(self, host: object) -> None:
        """Wait for a start that somebody else has begun."""
        for run in self._runs:
            run.check_host(host)
        if (error := await asyncio.shield(self._ready)) is not None:
            msg = "The start that this one has joined did not succeed."
            raise BrokerStartError(msg) from error

    async def leave(self) -> None:
        """Stop, when everybody who entered has left; once more does nothing."""
        if self._entered == 0:
            return
        self._entered -= 1
        if self._entered == 0:
            stopped = self._stopped = asyncio.Event()
            try:
                await self._stop()
            finally:
                stopped.set()

    async def _start(
        self,
        host: object,
        options: Mapping[str, "SettingField"],
        *,
        hooks_only: bool,
    ) -> None:
        if self.app is not None:
            self._claim(self.app)
        self.was_entered = True
        self._set_state("starting")
        if self.drain_delay + self.shutdown_timeout >= _KILLED_AFTER:
            logger.warning(
                "drain_delay + shutdown_timeout is %g s, but Kubernetes and gunicorn kill after %g s: "
                "raise their limit (terminationGracePeriodSeconds, --graceful-timeout) above it.",
                self.drain_delay + self.shutdown_timeout,
                _KILLED_AFTER,
            )
        try:
            if self.app is not None:
                if not hooks_only:
                    await self._resources.enter_async_context(self.app.lifespan_context(**options))
                await on_startup(self.app, options)
            self._check_optional()
            self._acquire(host)
            if self.consume:
                warn_of_siblings(options, self._runs)
            if self.startup == "background":
                self._background = asyncio.create_task(self._go_up_later())
            else:
                await self._go_up()
            if self.drain_delay:
                self._signals.install()
        except BaseException as error:
            # A start that was cancelled has not failed: somebody did not want it any more.
            self._set_state("failed" if isinstance(error, Exception) else "stopped")
            try:
                await self._release(0.0)
            finally:
                await self._leave_resources()
            raise

    def _claim(self, app: FastStream) -> None:
        """Refuse an app whose hooks another lifespan has run already."""
        owner = vars(app).setdefault(_OWNER, self)
        if owner is not self:
            msg = (
                "This FastStream app is run by another lifespan already, and its hooks must not run twice: "
                "share one BrokerLifespan."
            )
            raise SetupError(msg)

    def _acquire(self, host: object) -> None:
        for broker in self.brokers:
            run = run_of(broker)
            optional = broker in self.optional
            settings = Settings(
                retry=optional or self.startup == "background",
                consume=self.consume,
                supervise=self.supervise,
                optional=optional,
            )
            if self.watch_handlers:
                run.watch_handlers()
            run.acquire(self, settings, host)
            self._runs.append(run)

    async def _go_up(self) -> None:
        """Wait for the brokers and run the hooks that follow; the state is `running` then."""
        seconds = self.startup_timeout
        loop = asyncio.get_running_loop()
        deadline = None if seconds == math.inf else loop.time() + seconds
        for run in self._runs:
            if run.broker in self.optional:
                continue
            notice = loop.call_later(_NOTICE_AFTER, self._say_waiting, run)
            try:
                async with asyncio.timeout_at(deadline):
                    await run.wait_up()
            except Exception as error:  # noqa: BLE001 (it becomes the cause, unless it holds a secret)
                late = isinstance(error, TimeoutError) and run.error is None
                why = run.why
                await self._release(0.0)
                within = f" within {seconds:g} s" if late else ""
                # Only a client whose start has ended tells what it was waiting for.
                msg = f"{run.driver.name} could not be started{within}: {run.why if late else why}."
                raise BrokerStartError(msg) from without_secrets(error)
            finally:
                notice.cancel()
        if self.app is not None:
            await after_startup(self.app)
        if self._state == "starting":
            self._set_state("running")

    def _say_waiting(self, run: BrokerRun) -> None:
        limit = "" if self.startup_timeout == math.inf else f", for {self.startup_timeout:g} s at most"
        logger.warning("%s is not up yet; waiting for it%s.", run.driver.name, limit)

    async def _go_up_later(self) -> None:
        try:
            await self._go_up()
        except Exception as error:  # noqa: BLE001 (nobody waits for it: the log and the state have to tell)
            logger.error("The start in the background failed: %s", _told(error))  # noqa: TRY400 (redacted)
            self._set_state("failed")
            await self._release(0.0)

    def drain(self, then: Callable[[], object]) -> None:
        """Turn readiness now, and call something after `drain_delay`; from any thread.

        Args:
            then: Called in the event loop: what stops the server.
        """
        if (loop := self._loop) is None:
            then()
            return

        def begin() -> None:
            self._begin_drain()
            loop.call_later(self.drain_delay, then)

        loop.call_soon_threadsafe(begin)

    def _begin_drain(self) -> None:
        if self._state in {"starting", "running"}:
            self._set_state("draining")

    async def _stop(self) -> None:
        loop = asyncio.get_running_loop()
        delayed = self._state in {"draining", "failed"}
        failed = self._state == "failed"
        self._begin_drain()
        errors: list[BaseException] = []
        try:
            if self._background is not None:
                await end(self._background)
            if self.drain_delay and not delayed:
                await asyncio.sleep(self.drain_delay)
            deadline = loop.time() + self.shutdown_timeout
            # Handlers that use up all their time leave some to the hooks that close what they used.
            reserve = min(1.0, self.shutdown_timeout / 10)
            if self.app is not None and not failed:
                await _collect(errors, on_shutdown(self.app), deadline)
            await self._release(deadline - reserve)
            if self.app is not None and not failed:
                await _collect(errors, after_shutdown(self.app), deadline)
        finally:
            self._background = None
            try:
                # Nothing is left here after a good stop; after a cancelled one this is what ends it.
                await self._release(0.0)
            finally:
                await self._leave_resources()
                self._set_state("stopped")
        for error in errors[1:]:
            logger.error("One more error while stopping: %s", _told(error))
        if errors:
            raise errors[0]

    async def _release(self, deadline: float) -> None:
        """Stop the brokers that nobody else needs, together, whatever becomes of one of them."""
        try:
            async with asyncio.TaskGroup() as group:
                for run in self._runs:
                    group.create_task(run.release(self, deadline))
        finally:
            # A release that was cancelled before its first step has not happened.
            self._runs = [run for run in self._runs if self in run.holders]

    async def _leave_resources(self) -> None:
        self._signals.restore()
        if self.app is not None:
            vars(self.app).pop(_OWNER, None)
        resources, self._resources = self._resources, AsyncExitStack()
        await resources.aclose()

    def _set_state(self, new: State) -> None:
        old, self._state = self._state, new
        self.was_running = self.was_running or new == "running"
        changes.mark()
        logger.info("Brokers: %s -> %s", old, new)
        for observer in self.observers:
            observer.changed()
        if self.on_state_change is not None:
            try:
                self.on_state_change(old, new)
            except Exception as error:  # noqa: BLE001 (an observer's error must not stop what it observes)
                logger.error("on_state_change raised.\n%s", redacted_traceback(error))  # noqa: TRY400 (redacted)


def _split(targets: tuple[Any, ...]) -> tuple[FastStream | None, tuple[Broker, ...]]:
    """Return the app, if the target is one, or the brokers."""
    if len(targets) == 1 and isinstance(targets[0], FastStream):
        return targets[0], ()
    if targets and all(isinstance(target, BrokerUsecase) for target in targets):
        if len(set(targets)) == len(targets):
            return None, targets
        msg = "A broker is named twice: name each broker once."
        raise SetupError(msg)
    kinds = ", ".join(type(target).__name__ for target in targets) or "nothing"
    msg = f"Pass one or more brokers, or one FastStream app, not {kinds}."
    raise SetupError(msg)


def unwrapped(error: BaseException) -> BaseException:
    """Return what went wrong inside a host's task groups, when it is one thing."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _told(error: BaseException) -> str:
    """Return all that the log should have of an error."""
    return str(error) if isinstance(error, _TELLING) else redacted_traceback(error)


async def _collect(errors: list[BaseException], hooks: Any, deadline: float) -> None:
    """Run hooks until the deadline; an error waits until everything is stopped."""
    try:
        async with asyncio.timeout_at(deadline):
            await hooks
    except Exception as error:  # noqa: BLE001 (raised in the end)
        errors.append(error)


async def serve_lifespan(
    context: AbstractAsyncContextManager[None],
    receive: Receive,
    send: Send,
) -> Exception | None:
    """Answer an ASGI server's lifespan messages by entering and leaving a context.

    Args:
        context: What lives as long as the server.
        receive: The ASGI receive callable.
        send: The ASGI send callable.

    Returns:
        What went wrong, if anything; the server and the log know of it already.

    Source: ASGI specification, "Lifespan Protocol".
    """
    stage = "startup"
    await receive()
    try:
        async with context:
            await send({"type": "lifespan.startup.complete"})
            stage = "shutdown"
            await receive()
    except BaseException as raised:
        error = unwrapped(raised)
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            # The server does not want to hear from us any more.
            raise
        # Whatever else it is, a server that is not told takes it for "no lifespan" and serves all the same.
        message = str(error)
        if not isinstance(error, _TELLING):
            message = f"The {stage} failed with {type(error).__name__}; the log has the traceback."
            logger.error("The %s failed: %s", stage, _told(error))  # noqa: TRY400 (redacted)
        await send({"type": f"lifespan.{stage}.failed", "message": message})
        if not isinstance(error, Exception):
            raise
        return error
    await send({"type": "lifespan.shutdown.complete"})
    return None
