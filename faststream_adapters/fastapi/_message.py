"""Handle one message with a plan: dependencies, handler, background tasks, and every clean-up once."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from contextvars import copy_context
from functools import cached_property, partial
from types import TracebackType
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import BackgroundTasks, FastAPI, Request

from faststream_adapters._compat.faststream import Broker
from faststream_adapters._lifecycle.managed import managed_broker
from faststream_adapters._utils.errors import shown_text

from ._plan import GENERATORS, Kind, Plan, Step

HOLD = 10.0
"""Seconds for which a cancellation waits for a clean-up, or for a thread that may open something."""

Invoke = Callable[["MessageRun"], Awaitable[Any]]


class MessageRun:
    """The dependencies of one message.

    The order is: dependencies, handler, clean-up of the function scope, background tasks, clean-up of the
    request scope. A message whose dependencies are cleaned up is handled in a task of its own, so that a
    cancellation cannot interrupt the clean-up: it reaches dependencies, the handler and background tasks, and
    waits while something is opened in a thread or cleaned up.

    Args:
        plan: The plan of the handler.
        app: The application.
        broker: The broker of the message.
    """

    def __init__(self, plan: Plan, app: FastAPI, broker: Broker) -> None:
        self.plan = plan
        self.context = broker.context
        self._broker = broker
        self._app = app
        self._values: list[Any] = []
        self._request_stack: AsyncExitStack
        self._function_stack: AsyncExitStack
        self._has_tasks = False
        self._can_be_cancelled = True
        self._cancelled: tuple[object, ...] = ()
        """The message of a cancellation that waits until it is possible."""
        self._timer: asyncio.TimerHandle | None = None

    async def handle(self, invoke: Invoke) -> Any:
        """Return what the handler returns.

        Args:
            invoke: Calls the handler.
        """
        if self.plan.has_clean_up:
            return await self._handle_in_task(invoke)
        await self._resolve()
        result = await invoke(self)
        await self._run_tasks()
        return result

    @property
    def arguments(self) -> dict[str, Any]:
        """The handler's arguments that FastAPI passes."""
        values = self._values
        return {name: values[step] for name, step in self.plan.inputs}

    @cached_property
    def request(self) -> Request:
        """A request with the application, a state of its own, and the headers of the message."""
        return _make_request(self._app, self.context.get_local("message"))

    @cached_property
    def tasks(self) -> BackgroundTasks:
        """The background tasks, which run after the handler."""
        self._has_tasks = True
        return BackgroundTasks()

    async def in_thread(self, function: Callable[[], Any]) -> Any:
        """Call a function in a thread, whose end a cancellation waits for."""
        self._can_be_cancelled = False
        result = await to_thread.run_sync(function)
        self._allow_cancellation()
        return result

    async def _resolve(self) -> None:
        values = self._values
        for step in self.plan.steps:
            arguments = {name: values[each] for name, each in step.inputs}
            if step.kind is Kind.COROUTINE and step.limit is None:
                values.append(await step.call(**arguments))
            else:
                values.append(await self._value_of(step, arguments))

    async def _value_of(self, step: Step, arguments: dict[str, Any]) -> Any:
        if step.kind in GENERATORS:
            return await self._open(step, arguments)
        if step.limit is not None:
            async with step.limit():
                return await self._value_of(step._replace(limit=None), arguments)
        if step.kind is Kind.COROUTINE:
            return await step.call(**arguments)
        if step.kind is Kind.THREAD:
            return await self.in_thread(partial(step.call, **arguments))
        return step.call(self)

    async def _open(self, step: Step, arguments: dict[str, Any]) -> Any:
        stack = self._function_stack if step.in_function_scope else self._request_stack
        if step.limit is not None:
            await stack.enter_async_context(step.limit())
        manager = step.call(**arguments)
        if step.kind is Kind.ASYNC_GENERATOR:
            return await stack.enter_async_context(manager)
        self._can_be_cancelled = False
        value = await stack.enter_async_context(_InThread(manager))
        self._allow_cancellation()
        return value

    async def _run_tasks(self) -> None:
        for task in self.tasks.tasks if self._has_tasks else ():
            try:
                await task()
            except Exception as error:  # noqa: BLE001 (as in a request, the response is complete already)
                logger = managed_broker(self._broker).driver.loggers["hosts"]
                logger.error("A background task failed: %s", shown_text(error))  # noqa: TRY400 (redacted)

    # With a clean-up.

    async def _handle_with_clean_up(self, invoke: Invoke) -> Any:
        error: BaseException | None = None
        try:
            async with AsyncExitStack() as self._request_stack:
                try:
                    async with AsyncExitStack() as self._function_stack:
                        try:
                            await self._resolve()
                            result = await invoke(self)
                        except BaseException as raised:
                            error = raised
                            raise
                        finally:
                            self._can_be_cancelled = False
                    self._raise(error)
                    self._allow_cancellation()
                    await self._run_tasks()
                finally:
                    self._can_be_cancelled = False
            self._raise(error)
            return result
        finally:
            del error

    @staticmethod
    def _raise(error: BaseException | None) -> None:
        """Raise an error that a dependency has swallowed: the handler has failed nevertheless."""
        if error is not None:
            raise error

    def _allow_cancellation(self) -> None:
        self._can_be_cancelled = True
        if self._cancelled:
            raise asyncio.CancelledError(*self._cancelled)

    async def _outcome(self, invoke: Invoke) -> tuple[Any, BaseException | None]:
        try:
            return await self._handle_with_clean_up(invoke), None
        except BaseException as error:  # noqa: BLE001 (SystemExit would end the event loop)
            return None, error

    async def _handle_in_task(self, invoke: Invoke) -> Any:
        # Python 3.11 can only copy a task's context.
        context = getattr(asyncio.current_task(), "get_context", copy_context)()
        task = _MessageTask(self._outcome(invoke), context=context)
        task.run = self
        error: BaseException | None = None
        try:
            result, error = await task
            if self._timer is not None:
                self._timer.cancel()
            if self._cancelled:
                # With the message: anyio recognizes its cancellations by it.
                raise asyncio.CancelledError(*self._cancelled)
            self._raise(error)
            return result
        finally:
            del error

    def hold_cancellation(self, task: "_MessageTask", message: object) -> bool:
        """Return whether a cancellation has to wait, for `HOLD` seconds at most."""
        if self._can_be_cancelled:
            return False
        self._cancelled = (message,)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(HOLD, task.cancel_now)
        return True


class _MessageTask(asyncio.Task[Any]):
    """Handles a message. A cancellation of the task that waits for it arrives here."""

    run: MessageRun | None = None

    def cancel(self, msg: Any = None) -> bool:
        if self.run is not None and not self.done() and self.run.hold_cancellation(self, msg):
            return True
        return super().cancel(msg)

    def cancel_now(self) -> None:
        """Cancel it although something is open."""
        super().cancel()


class _InThread(AbstractAsyncContextManager[Any]):
    """A context manager whose parts run in threads."""

    def __init__(self, manager: AbstractContextManager[Any]) -> None:
        self._manager = manager

    async def __aenter__(self) -> Any:
        return await to_thread.run_sync(self._manager.__enter__)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        # With a limiter of its own: a clean-up that waits for other threads to finish could wait forever.
        return await to_thread.run_sync(
            self._manager.__exit__, exc_type, exc_value, traceback, limiter=CapacityLimiter(1)
        )


def _make_request(app: FastAPI, message: Any) -> Request:
    headers = {} if message is None else message.headers
    return Request(
        {
            "type": "http",
            "method": "POST",
            "scheme": "http",
            "path": "/",
            "query_string": b"",
            "headers": [(_encoded(name).lower(), _encoded(value)) for name, value in headers.items()],
            "path_params": {},
            "app": app,
            "router": app.router,
            "state": {},
        }
    )


def _encoded(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    text = str(value)
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()
