"""When FastAPI dependencies of subscribers are cleaned up, and that nothing interrupts it."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import anyio
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, params
from faststream import BaseMiddleware, PublishCommand
from faststream.exceptions import AckMessage
from faststream.nats import NatsBroker, TestNatsBroker
from faststream.rabbit import RabbitBroker, TestRabbitBroker
from faststream.rabbit.annotations import RabbitMessage

from faststream_adapters.fastapi import FastStreamRouter
from tests.harness.fastapi_apps import running


@pytest.fixture
def broker() -> NatsBroker:
    return NatsBroker()


@pytest.fixture
def seen() -> list[str]:
    return []


def noting(seen: list[str], name: str) -> Callable[[], AsyncIterator[None]]:
    """Return a dependency that notes when it is opened, how the handler ended, and when it is closed."""

    async def noted() -> AsyncIterator[None]:
        seen.append(f"open {name}")
        try:
            yield
        except BaseException as error:
            seen.append(f"{name}: {type(error).__name__}")
            raise
        finally:
            await asyncio.sleep(0)
            seen.append(f"close {name}")

    return noted


async def test_the_order(seen: list[str]) -> None:
    class Middleware(BaseMiddleware[PublishCommand, Any]):
        async def publish_scope(self, call_next: Any, cmd: Any) -> Any:
            seen.append(f"publish to {cmd.destination}")
            return await call_next(cmd)

    broker = RabbitBroker(middlewares=[Middleware])
    request = noting(seen, "request")
    function = noting(seen, "function")

    @broker.subscriber("orders")
    @broker.publisher("bills")
    async def handle(
        item: str,
        request: Annotated[None, Depends(request)],
        function: Annotated[None, Depends(function, scope="function")],
        tasks: BackgroundTasks,
        message: RabbitMessage,
    ) -> str:
        tasks.add_task(seen.append, "task")
        ack = message.ack

        async def noted_ack() -> None:
            seen.append("ack")
            await ack()

        message.ack = noted_ack  # type: ignore[method-assign, assignment]
        seen.append("handle")
        return item

    @broker.subscriber("replies")
    async def reply(item: str) -> None:
        seen.append("replied")

    app = FastAPI()
    app.include_router(FastStreamRouter(broker))
    async with TestRabbitBroker(broker), app.router.lifespan_context(app):
        await broker.publish("tea", "orders", reply_to="replies")
    assert seen == [
        "publish to orders",
        "open request",
        "open function",
        "handle",
        "close function",
        "task",
        "close request",
        "publish to replies",
        "replied",
        "publish to bills",
        "ack",
    ]


@pytest.mark.parametrize("error", [ValueError, AckMessage])
async def test_dependencies_see_the_error_of_the_handler(
    broker: NatsBroker, seen: list[str], error: type[Exception]
) -> None:
    request = noting(seen, "request")
    function = noting(seen, "function")

    @broker.subscriber("orders")
    async def handle(
        item: str,
        request: Annotated[None, Depends(request)],
        function: Annotated[None, Depends(function, scope="function")],
    ) -> None:
        raise error

    async with running(broker):
        try:
            await broker.publish("tea", "orders")
        except ValueError:
            seen.append("raised")
    name = error.__name__
    expected = [f"function: {name}", "close function", f"request: {name}", "close request"]
    assert seen[2:6] == expected
    assert ("raised" in seen) == (error is ValueError)


async def test_what_is_open_is_closed_if_another_dependency_fails(
    broker: NatsBroker, seen: list[str]
) -> None:
    noted = noting(seen, "first")

    def fail() -> None:
        raise ValueError("second")

    @broker.subscriber("orders")
    async def handle(
        item: str, first: Annotated[None, Depends(noted)], second: Annotated[None, Depends(fail)]
    ) -> None:
        raise NotImplementedError

    async with running(broker):
        with pytest.raises(ValueError, match="second"):
            await broker.publish("tea", "orders")
    assert seen == ["open first", "first: ValueError", "close first"]


@pytest.mark.parametrize("scope", ["function", "request"])
async def test_a_clean_up_that_fails_is_a_failing_handler(
    broker: NatsBroker, seen: list[str], scope: Any
) -> None:
    noted = noting(seen, "other")

    async def failing() -> AsyncIterator[None]:
        yield
        raise ValueError(scope)

    @broker.subscriber("orders")
    async def handle(
        item: str,
        other: Annotated[None, Depends(noted)],
        failing: Annotated[None, Depends(failing, scope=scope)],
    ) -> None:
        seen.append("handle")

    async with running(broker):
        with pytest.raises(ValueError, match=scope):
            await broker.publish("tea", "orders")
    assert seen == ["open other", "handle", "other: ValueError", "close other"]


@pytest.mark.parametrize("scope", ["function", "request"])
async def test_a_dependency_cannot_hide_the_error_of_the_handler(
    broker: NatsBroker, seen: list[str], scope: Any
) -> None:
    noted = noting(seen, "outer")

    async def hiding() -> AsyncIterator[None]:
        try:
            yield
        except ValueError:
            seen.append("hidden")

    @broker.subscriber("orders")
    async def handle(
        item: str,
        outer: Annotated[None, Depends(noted)],
        hiding: Annotated[None, Depends(hiding, scope=scope)],
    ) -> None:
        raise ValueError(item)

    async with running(broker):
        with pytest.raises(ValueError, match="tea"):
            await broker.publish("tea", "orders")
    assert "hidden" in seen
    assert seen[-1] == "close outer"


async def test_a_cancel_scope_of_a_dependency_is_left_in_its_task(
    broker: NatsBroker, seen: list[str]
) -> None:
    async def workers() -> AsyncIterator[Any]:
        async with anyio.create_task_group() as group:
            yield group

    async def work() -> None:
        await asyncio.sleep(0)
        seen.append("worked")

    @broker.subscriber("orders")
    async def handle(item: str, workers: Annotated[Any, Depends(workers)]) -> None:
        workers.start_soon(work)
        seen.append("handled")

    async with running(broker):
        await broker.publish("tea", "orders")
    assert seen == ["handled", "worked"]


async def test_the_exit_of_a_handler_stops_what_it_should(broker: NatsBroker, seen: list[str]) -> None:
    noted = noting(seen, "session")

    @broker.subscriber("orders")
    async def handle(item: str, session: Annotated[None, Depends(noted)]) -> None:
        raise SystemExit

    async with running(broker):
        with pytest.raises(SystemExit):
            await broker.publish("tea", "orders")
    assert seen == ["open session", "session: SystemExit", "close session"]


# --- cancellation ---


async def cancelled(task: "asyncio.Task[Any]") -> bool:
    """Wait for a task without raising its error, and return whether it was cancelled."""
    await asyncio.wait((task,))
    return task.cancelled()


async def cancel_a_message(
    broker: NatsBroker, began: asyncio.Event, go_on: asyncio.Event | threading.Event
) -> None:
    """Publish a message, cancel it when this has begun, and let that go on."""
    task = asyncio.create_task(broker.publish("tea", "orders"))
    await began.wait()
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    assert await cancelled(task)


async def test_a_cancellation_waits_for_a_thread_that_opens_something(
    broker: NatsBroker, seen: list[str]
) -> None:
    loop = asyncio.get_running_loop()
    opening, may_open = asyncio.Event(), threading.Event()

    def session() -> Iterator[None]:
        loop.call_soon_threadsafe(opening.set)
        may_open.wait()
        seen.append("opened")
        try:
            yield
        finally:
            seen.append("closed")

    @broker.subscriber("orders")
    async def handle(item: str, session: Annotated[None, Depends(session)]) -> None:
        raise NotImplementedError

    async with running(broker):
        await cancel_a_message(broker, opening, may_open)
    assert seen == ["opened", "closed"]


async def test_a_cancellation_during_the_first_clean_up_leaves_out_background_tasks(
    broker: NatsBroker, seen: list[str]
) -> None:
    closing, may_close = asyncio.Event(), asyncio.Event()
    outer = noting(seen, "outer")

    async def inner() -> AsyncIterator[None]:
        yield
        closing.set()
        await may_close.wait()

    @broker.subscriber("orders")
    async def handle(
        item: str,
        outer: Annotated[None, Depends(outer)],
        inner: Annotated[None, Depends(inner, scope="function")],
        tasks: BackgroundTasks,
    ) -> None:
        tasks.add_task(seen.append, "task")

    async with running(broker):
        await cancel_a_message(broker, closing, may_close)
    assert seen == ["open outer", "outer: CancelledError", "close outer"]


async def test_a_timeout_around_the_handler_is_a_timeout(seen: list[str]) -> None:
    ends: list[Callable[[], None]] = []

    class Middleware(BaseMiddleware[PublishCommand, Any]):
        async def consume_scope(self, call_next: Any, msg: Any) -> Any:
            with anyio.CancelScope() as scope:
                ends.append(scope.cancel)
                await call_next(msg)
            async with asyncio.timeout(None) as timeout:
                ends.append(lambda: timeout.reschedule(0.0))
                return await call_next(msg)

    broker = NatsBroker(middlewares=[Middleware])
    noted = noting(seen, "session")

    @broker.subscriber("orders")
    async def handle(item: str, session: Annotated[None, Depends(noted)]) -> None:
        ends[-1]()
        await asyncio.Event().wait()

    async with running(broker):
        with pytest.raises(TimeoutError):
            await broker.publish("tea", "orders")
    assert seen == ["open session", "session: CancelledError", "close session"] * 2


async def test_a_handler_may_swallow_a_cancellation(broker: NatsBroker, seen: list[str]) -> None:
    handling = asyncio.Event()
    noted = noting(seen, "session")

    @broker.subscriber("orders")
    async def handle(item: str, session: Annotated[None, Depends(noted)]) -> str:
        handling.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("swallowed")
        return "reply"

    async with running(broker):
        task = asyncio.create_task(broker.publish("tea", "orders"))
        await handling.wait()
        task.cancel()
        assert not await cancelled(task)
    assert seen == ["open session", "swallowed", "close session"]


@pytest.mark.skipif(
    not hasattr(params.Depends, "max_concurrency"), reason="This FastAPI cannot limit concurrent calls."
)
async def test_concurrent_calls_are_limited_until_the_clean_up(broker: NatsBroker, seen: list[str]) -> None:
    limited: Any = Depends(noting(seen, "limited"), max_concurrency=1)
    calls = Depends(lambda: seen.append("call"), max_concurrency=1)

    async def wait() -> None:
        await asyncio.sleep(0)

    waits = Depends(wait, max_concurrency=1)

    @broker.subscriber("orders")
    async def handle(
        item: str,
        limited: Annotated[None, limited],
        call: Annotated[None, calls],
        done: Annotated[None, waits],
    ) -> None:
        await asyncio.sleep(0)

    async with running(broker):
        await asyncio.gather(*(broker.publish("tea", "orders") for _ in range(3)))
    assert seen == ["open limited", "call", "close limited"] * 3


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_every_dependency_that_was_opened_is_closed_once(broker: NatsBroker) -> None:
    """10,000 messages under failing handlers, cancellations, and a stop in the middle."""
    chance = random.Random(7)
    opened: list[int] = []
    closed: list[int] = []
    numbers = iter(range(10**6))

    async def async_session() -> AsyncIterator[int]:
        await asyncio.sleep(0)
        number = next(numbers)
        opened.append(number)
        try:
            yield number
        finally:
            await asyncio.sleep(0)
            closed.append(number)

    def sync_session() -> Iterator[int]:
        number = next(numbers)
        opened.append(number)
        try:
            yield number
        finally:
            closed.append(number)

    def maybe_fail() -> None:
        if chance.random() < 0.1:
            raise ValueError

    @broker.subscriber("orders")
    async def handle(
        item: int,
        first: Annotated[int, Depends(async_session)],
        second: Annotated[int, Depends(async_session, use_cache=False, scope="function")],
        third: Annotated[int, Depends(sync_session)],
        fourth: Annotated[None, Depends(maybe_fail)],
    ) -> None:
        maybe_fail()
        await asyncio.sleep(0)

    app = FastAPI()
    app.include_router(FastStreamRouter(broker))
    tasks: list[asyncio.Task[Any]] = []
    async with TestNatsBroker(broker), app.router.lifespan_context(app):
        for batch in range(100):
            tasks = [asyncio.create_task(broker.publish(each, "orders")) for each in range(100)]
            for _ in range(chance.randrange(40)):
                await asyncio.sleep(0)
                chance.choice(tasks).cancel()
                chance.choice(tasks).cancel()
            if batch < 99:
                await asyncio.wait(tasks)
    for each in tasks:
        each.cancel()
    await asyncio.wait(tasks)
    assert len(opened) > 10_000
    assert sorted(opened) == sorted(closed)
