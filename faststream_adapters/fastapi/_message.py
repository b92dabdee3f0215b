"""Handle one message with a plan: dependencies, handler, background tasks, and every clean-up once."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from functools import cached_property, partial
from types import TracebackType
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import BackgroundTasks, FastAPI, Request

from faststream_adapters._compat.faststream import Broker
from faststream_adapters._hosting.clean_up import CleanUpStack, MessageScope
from faststream_adapters._lifecycle.managed import managed_broker
from faststream_adapters._utils.errors import shown_text

from ._plan import GENERATORS, Kind, Plan, Step

Invoke = Callable[["MessageRun"], Awaitable[Any]]


class MessageRun(MessageScope):
    """The dependencies of one message.

    The order is: dependencies, handler, clean-up of the function scope, background tasks, clean-up of the
    request scope. A cancellation reaches dependencies, the handler and background tasks, and waits while
    something is opened in a thread or cleaned up.

    Args:
        plan: The plan of the handler.
        app: The application.
        broker: The broker of the message.
    """

    def __init__(self, plan: Plan, app: FastAPI, broker: Broker) -> None:
        super().__init__()
        self.plan = plan
        self.context = broker.context
        self._broker = broker
        self._app = app
        self._values: list[Any] = []
        self._request_stack: AsyncExitStack
        self._function_stack: AsyncExitStack
        self._has_tasks = False

    async def handle(self, invoke: Invoke) -> Any:
        """Return what the handler returns.

        Args:
            invoke: Calls the handler.
        """
        if self.plan.has_clean_up:
            return await self.run(partial(self._handle_with_clean_up, invoke))
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
        self.hold()
        value = await stack.enter_async_context(_InThread(manager))
        self.release()
        return value

    async def _run_tasks(self) -> None:
        for task in self.tasks.tasks if self._has_tasks else ():
            try:
                await task()
            except Exception as error:  # noqa: BLE001 (as in a request, the response is complete already)
                logger = managed_broker(self._broker).driver.loggers["hosts"]
                logger.error("A background task failed: %s", shown_text(error))  # noqa: TRY400 (redacted)

    async def _handle_with_clean_up(self, invoke: Invoke) -> Any:
        async with CleanUpStack(self) as self._request_stack:
            async with CleanUpStack(self) as self._function_stack:
                await self._resolve()
                result = await invoke(self)
            self.release()
            await self._run_tasks()
        return result


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
