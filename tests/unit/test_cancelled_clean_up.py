"""A cancellation does not interrupt the clean-up after a message, in any host."""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio
import pytest
from fastapi import Depends, FastAPI
from faststream.nats import NatsBroker, TestNatsBroker
from litestar import Litestar
from litestar.di import NamedDependency
from quart import Quart, g

from faststream_adapters.fastapi import FastStreamRouter
from faststream_adapters.litestar import FastStreamPlugin
from faststream_adapters.quart import QuartFastStream

CleanUp = Callable[[], Awaitable[None]]
Handle = Callable[[str], Any]
Host = Callable[[NatsBroker, Handle, CleanUp], Any]
"""Return an application whose subscriber of "orders" calls the handler, and that cleans up after it."""


@pytest.fixture
def broker() -> NatsBroker:
    return NatsBroker("nats://127.0.0.1:1")


def fastapi(broker: NatsBroker, handle: Handle, clean_up: CleanUp) -> Any:
    async def session() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await clean_up()

    if inspect.iscoroutinefunction(handle):

        @broker.subscriber("orders")
        async def subscriber(item: str, session: Annotated[None, Depends(session)]) -> str:
            reply: str = await handle(item)
            return reply

    else:

        @broker.subscriber("orders")
        def sync_subscriber(item: str, session: Annotated[None, Depends(session)]) -> str:
            reply: str = handle(item)
            return reply

    app = FastAPI()
    app.include_router(FastStreamRouter(broker))
    return app.router.lifespan_context(app)


def litestar(broker: NatsBroker, handle: Handle, clean_up: CleanUp) -> Any:
    async def session() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await clean_up()

    if inspect.iscoroutinefunction(handle):

        @broker.subscriber("orders")
        async def subscriber(item: str, session: NamedDependency[None]) -> str:
            reply: str = await handle(item)
            return reply

    else:

        @broker.subscriber("orders")
        def sync_subscriber(item: str, session: NamedDependency[None]) -> str:
            reply: str = handle(item)
            return reply

    plugins = [FastStreamPlugin(broker)]
    return Litestar(plugins=plugins, dependencies={"session": session}, logging_config=None).lifespan()


def quart(broker: NatsBroker, handle: Handle, clean_up: CleanUp) -> Any:
    app = Quart("shop")

    @broker.subscriber("orders")
    async def subscriber(item: str) -> str:
        g.item = item
        reply: str = await handle(item)
        return reply

    @app.teardown_appcontext
    async def tear_down(error: BaseException | None) -> None:
        # The startup of the application has a context too.
        if "item" in g:
            await clean_up()

    QuartFastStream(broker, app=app)
    return app.test_app()


HOSTS = pytest.mark.parametrize("host", [fastapi, litestar, quart])


@asynccontextmanager
async def running(broker: NatsBroker, app: Any) -> AsyncIterator[None]:
    """Run the application with its broker in memory: a message is handled inside `publish()`."""
    async with TestNatsBroker(broker), app:
        yield


class HeldCleanUp:
    """A clean-up that ends when it may."""

    def __init__(self) -> None:
        self.began, self.may_end = asyncio.Event(), asyncio.Event()
        self.ended = False

    async def __call__(self) -> None:
        self.began.set()
        await self.may_end.wait()
        self.ended = True


@HOSTS
async def test_a_clean_up_ends_however_often_the_handler_is_cancelled(host: Host, broker: NatsBroker) -> None:
    handling, clean_up = asyncio.Event(), HeldCleanUp()

    async def handle(item: str) -> None:
        handling.set()
        await asyncio.Event().wait()

    async with running(broker, host(broker, handle, clean_up)):
        task = asyncio.create_task(broker.publish("tea", "orders"))
        await handling.wait()
        task.cancel()
        await clean_up.began.wait()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        clean_up.may_end.set()
        await asyncio.wait((task,))
    assert task.cancelled()
    assert clean_up.ended


@HOSTS
async def test_a_cancellation_waits_for_a_clean_up_that_has_begun(host: Host, broker: NatsBroker) -> None:
    clean_up = HeldCleanUp()

    async def handle(item: str) -> None: ...

    async with running(broker, host(broker, handle, clean_up)):
        task = asyncio.create_task(broker.publish("tea", "orders"))
        await clean_up.began.wait()
        task.cancel("stop")
        await asyncio.sleep(0)
        clean_up.may_end.set()
        await asyncio.wait((task,))
    assert task.cancelled()
    assert clean_up.ended


@HOSTS
async def test_a_cancel_scope_around_the_message_waits_for_the_clean_up(
    host: Host, broker: NatsBroker
) -> None:
    clean_up = HeldCleanUp()
    scope = anyio.CancelScope()

    async def handle(item: str) -> None:
        scope.cancel()
        await asyncio.Event().wait()

    async def publish() -> None:
        with scope:
            await broker.publish("tea", "orders")

    async with running(broker, host(broker, handle, clean_up)):
        task = asyncio.create_task(publish())
        await clean_up.began.wait()
        await asyncio.sleep(0)
        clean_up.may_end.set()
        await task
    assert scope.cancelled_caught
    assert clean_up.ended


@HOSTS
async def test_a_clean_up_may_have_a_timeout_of_its_own(host: Host, broker: NatsBroker) -> None:
    seen: list[str] = []

    async def clean_up() -> None:
        try:
            async with asyncio.timeout(0.0):
                await asyncio.Event().wait()
        except TimeoutError:
            seen.append("timeout")
        with anyio.move_on_after(0.0):
            await asyncio.Event().wait()
        seen.append("moved on")

    async def handle(item: str) -> str:
        return item

    async with running(broker, host(broker, handle, clean_up)):
        reply = await broker.request("tea", "orders", timeout=5.0)
    assert await reply.decode() == "tea"
    assert seen == ["timeout", "moved on"]


@HOSTS
async def test_a_clean_up_that_hangs_is_interrupted_in_the_end(
    host: Host, broker: NatsBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faststream_adapters._hosting.clean_up.HOLD", 0.0)
    clean_up = HeldCleanUp()

    async def handle(item: str) -> None: ...

    async with running(broker, host(broker, handle, clean_up)):
        task = asyncio.create_task(broker.publish("tea", "orders"))
        await clean_up.began.wait()
        task.cancel()
        await asyncio.wait((task,))
    assert task.cancelled()
    assert not clean_up.ended


@pytest.mark.parametrize("host", [fastapi, litestar])
async def test_a_clean_up_waits_for_the_thread_of_the_handler(host: Host, broker: NatsBroker) -> None:
    seen: list[str] = []
    loop = asyncio.get_running_loop()
    handling, may_end = asyncio.Event(), threading.Event()

    def handle(item: str) -> str:
        loop.call_soon_threadsafe(handling.set)
        may_end.wait()
        seen.append("handled")
        return item

    async def clean_up() -> None:
        seen.append("cleaned up")

    async with running(broker, host(broker, handle, clean_up)):
        task = asyncio.create_task(broker.publish("tea", "orders"))
        await handling.wait()
        task.cancel()
        await asyncio.sleep(0)
        may_end.set()
        await asyncio.wait((task,))
    assert task.cancelled()
    assert seen == ["handled", "cleaned up"]
