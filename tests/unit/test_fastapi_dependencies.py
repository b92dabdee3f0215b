"""FastAPI dependencies in subscribers, without a server."""

import contextvars
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from unittest.mock import AsyncMock

import faststream
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request, Security
from fastapi.requests import HTTPConnection
from fastapi.security import SecurityScopes
from faststream import AsyncAPI, BaseMiddleware, FastStream
from faststream.exceptions import SetupError
from faststream.kafka import KafkaBroker, TestKafkaBroker
from faststream.nats import NatsBroker, NatsRouter, TestNatsBroker
from faststream.nats.annotations import NatsMessage
from faststream.rabbit import RabbitBroker, TestRabbitBroker
from pydantic import BaseModel, Field

from faststream_adapters import BrokerLifespan
from faststream_adapters.fastapi import FastStreamRouter, provide_broker
from tests.harness.app_logs import AppLog, package_lines
from tests.harness.fastapi_apps import running


class Session:
    """What most applications share between routes and subscribers."""

    def __init__(self) -> None:
        self.closed = False


async def session() -> AsyncIterator[Session]:
    opened = Session()
    try:
        yield opened
    finally:
        opened.closed = True


OpenSession = Annotated[Session, Depends(session)]


class Orders:
    """A service that gets its own dependencies."""

    def __init__(self, session: OpenSession, *, prefix: str = "order") -> None:
        self.session = session
        self.prefix = prefix


@pytest.fixture
def broker() -> NatsBroker:
    return NatsBroker()


@pytest.fixture
def seen() -> list[Any]:
    """What the handler of a test has got."""
    return []


# --- sessions and services ---


async def test_a_session_is_open_in_the_handler_and_closed_afterwards(
    broker: NatsBroker, seen: list[Any]
) -> None:
    @broker.subscriber("orders")
    async def handle(item: str, session: OpenSession) -> None:
        seen.extend((item, session, session.closed))

    async with running(broker):
        await broker.publish("tea", "orders")
    item, session, was_closed = seen
    assert (item, was_closed, session.closed) == ("tea", False, True)


async def test_a_service_shares_the_session_of_the_handler(broker: NatsBroker, seen: list[Any]) -> None:
    @broker.subscriber("orders")
    async def handle(
        item: str,
        by_annotation: Annotated[Orders, Depends()],
        by_call: Annotated[Orders, Depends(Orders)],
        session: OpenSession,
    ) -> None:
        seen.append((by_annotation is by_call, by_annotation.session is session, by_call.prefix))

    async with running(broker):
        await broker.publish("tea", "orders")
    assert seen == [(True, True, "order")]


async def test_each_message_has_values_of_its_own(broker: NatsBroker, seen: list[Any]) -> None:
    @broker.subscriber("orders")
    async def handle(item: str, session: OpenSession) -> None:
        seen.append(session)

    async with running(broker):
        await broker.publish("tea", "orders")
        await broker.publish("tea", "orders")
    assert seen[0] is not seen[1]


async def test_without_a_cache_each_use_calls_the_dependency(broker: NatsBroker, seen: list[Any]) -> None:
    calls = iter(range(10))

    async def number() -> int:
        return next(calls)

    async def inner(number: Annotated[int, Depends(number)]) -> int:
        return number

    @broker.subscriber("orders")
    async def handle(
        item: str,
        first: Annotated[int, Depends(number)],
        inner: Annotated[int, Depends(inner)],
        own: Annotated[int, Depends(number, use_cache=False)],
    ) -> None:
        seen.append((first, inner, own))

    async with running(broker):
        await broker.publish("tea", "orders")
    assert seen == [(0, 0, 1)]


async def async_function() -> str:
    return "value"


def sync_function() -> str:
    return "value"


async def async_generator() -> AsyncIterator[str]:
    yield "value"


def sync_generator() -> Iterator[str]:
    yield "value"


class Instance:
    """Instances of it are dependencies."""

    async def __call__(self) -> str:
        return "value"

    async def method(self) -> str:
        return "value"


class SyncInstance:
    def __call__(self) -> str:
        return "value"


class GeneratorInstance:
    async def __call__(self) -> AsyncIterator[str]:
        yield "value"


class SyncGeneratorInstance:
    def __call__(self) -> Iterator[str]:
        yield "value"


def with_argument(value: str) -> str:
    return value


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    "dependency",
    [
        async_function,
        sync_function,
        async_generator,
        sync_generator,
        Instance(),
        Instance().method,
        SyncInstance(),
        GeneratorInstance(),
        SyncGeneratorInstance(),
        functools.partial(with_argument, value="value"),
        wrapped(async_function),
        wrapped(async_generator),
        wrapped(sync_generator),
        lambda: "value",
    ],
)
async def test_every_kind_of_dependency(broker: NatsBroker, seen: list[Any], dependency: Any) -> None:
    @broker.subscriber("orders")
    async def handle(item: str, value: Annotated[str, Depends(dependency)]) -> None:
        seen.append(value)

    async with running(broker):
        await broker.publish("tea", "orders")
    assert seen == ["value"]


async def test_the_default_style_works_like_the_annotated_one(broker: NatsBroker, seen: list[Any]) -> None:
    @broker.subscriber("orders")
    async def handle(item: str, value: str = Depends(async_function)) -> None:
        seen.append((item, value))

    async with running(broker):
        await broker.publish("tea", "orders")
    assert seen == [("tea", "value")]


async def test_sync_dependencies_and_handlers_run_in_threads(broker: NatsBroker, seen: list[Any]) -> None:
    def thread() -> int:
        return threading.get_ident()

    def opened() -> Iterator[int]:
        yield threading.get_ident()
        seen.append(threading.get_ident())

    @broker.subscriber("orders")
    def handle(
        item: str, plain: Annotated[int, Depends(thread)], opened: Annotated[int, Depends(opened)]
    ) -> None:
        seen.extend((plain, opened, threading.get_ident()))

    async with running(broker):
        await broker.publish("tea", "orders")
    assert len(seen) == 4
    assert threading.get_ident() not in seen


async def test_parameters_with_defaults_keep_them(broker: NatsBroker, seen: list[Any]) -> None:
    async def settings(
        names: Annotated[list[str], Field(default_factory=lambda: ["a"])],
        client: Session | None = None,
        size: Annotated[int, Field(gt=0)] = 3,
        *rest: str,
        **options: str,
    ) -> tuple[Any, ...]:
        return client, names, size, rest, options

    @broker.subscriber("orders")
    async def handle(item: str, settings: Annotated[Any, Depends(settings)]) -> None:
        seen.append(settings)

    async with running(broker):
        await broker.publish("tea", "orders")
    assert seen == [(None, ["a"], 3, (), {})]


async def test_a_task_context_variable_of_a_dependency_reaches_the_handler(
    broker: NatsBroker, seen: list[Any]
) -> None:
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="none")

    async def set_tenant() -> AsyncIterator[None]:
        token = tenant.set("acme")
        yield
        tenant.reset(token)

    @broker.subscriber("orders")
    async def handle(item: str, done: Annotated[None, Depends(set_tenant)]) -> None:
        seen.append(tenant.get())

    async with running(broker):
        await broker.publish("tea", "orders")
    assert seen == ["acme"]


async def test_security_passes_its_scopes(broker: NatsBroker, seen: list[Any]) -> None:
    calls: list[str] = []

    async def shared() -> None:
        calls.append("shared")

    async def user(scopes: SecurityScopes, shared: Annotated[None, Depends(shared)]) -> list[str]:
        return scopes.scopes

    async def relay(user: Annotated[list[str], Depends(user)]) -> list[str]:
        return user

    async def reader(user: Annotated[list[str], Security(user, scopes=["read"])]) -> list[str]:
        return user

    @broker.subscriber("orders")
    async def handle(
        item: str,
        reader: Annotated[list[str], Security(reader, scopes=["orders"])],
        writer: Annotated[list[str], Security(user, scopes=["write"])],
        relay: Annotated[list[str], Depends(relay)],
    ) -> None:
        seen.append((reader, writer, relay))

    async with running(broker):
        await broker.publish("tea", "orders")
    assert seen == [(["orders", "read"], ["write"], [])]
    assert calls == ["shared"]


# --- the application ---


async def test_a_request_has_the_application_a_fresh_state_and_the_headers(
    broker: NatsBroker, seen: list[Any]
) -> None:
    async def mark(connection: HTTPConnection) -> None:
        assert not hasattr(connection.state, "mark")
        connection.state.mark = connection.headers["x-key"]

    @broker.subscriber("orders")
    async def handle(item: str, request: Request, done: Annotated[None, Depends(mark)]) -> None:
        seen.append((request.app.state.shop, request.state.mark, request.headers.get("x-missing")))

    async with running(broker) as app:
        app.state.shop = "shop"
        await broker.publish("tea", "orders", headers={"X-Key": "k"})
        await broker.publish("tea", "orders", headers={"x-key": "ключ"})
    assert seen[0] == ("shop", "k", None)
    assert len(seen) == 2


async def test_header_values_need_not_be_text() -> None:
    broker = RabbitBroker()
    seen: list[str] = []

    @broker.subscriber("orders")
    async def handle(item: str, request: Request) -> None:
        seen.extend((request.headers["x-key"], request.headers["x-number"]))

    app = FastAPI()
    app.include_router(FastStreamRouter(broker))
    async with TestRabbitBroker(broker), app.router.lifespan_context(app):
        await broker.publish("tea", "orders", headers={"x-key": b"k", "x-number": 7})
    assert seen == ["k", "7"]


async def test_a_dependency_can_publish_to_the_provided_broker(broker: NatsBroker, seen: list[Any]) -> None:
    @broker.subscriber("orders")
    async def handle(item: str, provided: Annotated[NatsBroker, Depends(provide_broker(NatsBroker))]) -> None:
        await provided.publish(item, "bills")

    @broker.subscriber("bills")
    async def bill(item: str) -> None:
        seen.append(item)

    async with running(broker):
        await broker.publish("tea", "orders")
    assert seen == ["tea"]


async def test_background_tasks_run_after_the_handler(
    broker: NatsBroker, seen: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        message = "the mail server is down"
        raise ValueError(message)

    async def plan(tasks: BackgroundTasks) -> None:
        tasks.add_task(seen.append, "planned by a dependency")
        tasks.add_task(fail)

    @broker.subscriber("orders")
    async def handle(item: str, tasks: BackgroundTasks, done: Annotated[None, Depends(plan)]) -> str:
        tasks.add_task(seen.append, "planned by the handler")
        seen.append("handled")
        return "reply"

    async with running(broker):
        reply = await broker.request("tea", "orders")
    assert await reply.decode() == "reply"
    assert seen == ["handled", "planned by a dependency", "planned by the handler"]
    assert "A background task failed" in caplog.text
    assert "the mail server is down" in caplog.text


async def test_a_failed_background_task_is_logged_by_the_logger_of_the_application(
    broker: NatsBroker, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    @broker.subscriber("orders")
    async def handle(_: str, tasks: BackgroundTasks) -> None:
        tasks.add_task(fail)

    log, app = AppLog(), FastAPI()
    app.include_router(FastStreamRouter(FastStream(broker, logger=log)))
    async with TestNatsBroker(broker), app.router.lifespan_context(app):
        await broker.publish("tea", "orders")
    assert "ERROR A background task failed: " in log.text
    assert package_lines(caplog.records) == []


async def test_background_tasks_do_not_run_after_a_failure(broker: NatsBroker, seen: list[Any]) -> None:
    @broker.subscriber("orders")
    async def handle(item: str, tasks: BackgroundTasks) -> None:
        tasks.add_task(seen.append, "task")
        raise ValueError(item)

    async with running(broker):
        with pytest.raises(ValueError, match="tea"):
            await broker.publish("tea", "orders")
    assert seen == []


# --- overrides ---


async def replacement() -> str:
    return "replaced"


async def test_overrides_apply_while_the_application_runs(broker: NatsBroker, seen: list[Any]) -> None:
    async def outer(inner: Annotated[str, Depends(async_function)]) -> str:
        return inner

    @broker.subscriber("orders")
    async def handle(item: str, value: Annotated[str, Depends(outer)]) -> None:
        seen.append(value)

    async with running(broker) as app:
        await broker.publish("tea", "orders")
        app.dependency_overrides[async_function] = replacement
        await broker.publish("tea", "orders")
        app.dependency_overrides[sync_function] = replacement
        await broker.publish("tea", "orders")
        app.dependency_overrides[async_function] = lambda: "again"
        await broker.publish("tea", "orders")
        app.dependency_overrides = {outer: lambda: "outer"}
        await broker.publish("tea", "orders")
        app.dependency_overrides.clear()
        await broker.publish("tea", "orders")
    assert seen == ["value", "replaced", "replaced", "again", "outer", "value"]


class Provide:
    """A dependency that is equal to others, as in an application that overrides all of them in production."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self) -> Any:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Provide) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)


async def test_overrides_are_found_by_equality(broker: NatsBroker, seen: list[Any]) -> None:
    @broker.subscriber("orders")
    async def handle(item: str, value: Annotated[str, Depends(Provide("value"))]) -> None:
        seen.append(value)

    app = FastAPI()
    app.dependency_overrides[Provide("value")] = async_generator
    async with running(broker, app):
        await broker.publish("tea", "orders")
    assert seen == ["value"]


async def test_an_override_has_dependencies_of_its_own(broker: NatsBroker, seen: list[Any]) -> None:
    async def override(session: OpenSession, message: NatsMessage) -> AsyncIterator[tuple[Any, ...]]:
        yield session, message.raw_message.subject

    @broker.subscriber("orders")
    async def handle(item: str, session: OpenSession, value: Annotated[Any, Depends(async_function)]) -> None:
        seen.append((value[0] is session, value[1]))

    app = FastAPI()
    app.dependency_overrides[async_function] = override
    async with running(broker, app):
        await broker.publish("tea", "orders")
    assert seen == [(True, "orders")]


async def test_a_mock_is_an_override(broker: NatsBroker, seen: list[Any]) -> None:
    @broker.subscriber("orders")
    async def handle(item: str, value: Annotated[str, Depends(async_function)]) -> None:
        seen.append(value)

    app = FastAPI()
    mock = app.dependency_overrides[async_function] = AsyncMock(return_value="mock")
    async with running(broker, app):
        await broker.publish("tea", "orders")
    assert seen == ["mock"]
    mock.assert_awaited_once_with()


async def test_an_override_that_cannot_work_fails_the_message(broker: NatsBroker, seen: list[Any]) -> None:
    @broker.subscriber("orders")
    async def handle(item: str, value: Annotated[str, Depends(async_function)]) -> None:
        seen.append(value)

    async with running(broker) as app:
        app.dependency_overrides[async_function] = with_argument
        with pytest.raises(SetupError, match="parameter 'value' of the dependency 'with_argument'"):
            await broker.publish("tea", "orders")
        app.dependency_overrides.clear()
        await broker.publish("tea", "orders")
    assert seen == ["value"]


# --- beside FastStream's own ---


class Order(BaseModel):
    item: str
    quantity: int = 1


async def test_all_three_sources_in_one_signature(broker: NatsBroker, seen: list[Any]) -> None:
    async def from_message(item: str, message: NatsMessage) -> str:
        return item.upper()

    @broker.subscriber("orders.{number}")
    async def handle(  # noqa: PLR0917 (FastStream passes them by name)
        item: str,
        quantity: int,
        session: OpenSession,
        logger: faststream.Logger,
        message: NatsMessage,
        number: Annotated[int, faststream.Path()],
        key: Annotated[str, faststream.Header("x-key")],
        title: Annotated[str, faststream.Depends(from_message)],
        host: Annotated[FastAPI, faststream.Context()],
        request: Request,
        note: str = "none",
    ) -> None:
        seen.append((item, quantity, session.closed, number, key, title, note))
        assert request.app is host
        logger.info(message)

    async with running(broker):
        await broker.publish({"item": "tea", "quantity": "2"}, "orders.7", headers={"x-key": "k"})
    assert seen == [("tea", 2, False, 7, "k", "TEA", "none")]


async def test_one_model_takes_the_whole_message(broker: NatsBroker, seen: list[Any]) -> None:
    @broker.subscriber("orders")
    async def handle(order: Order, session: OpenSession) -> None:
        seen.append(order)

    async with running(broker):
        await broker.publish(Order(item="tea"), "orders")
    assert seen == [Order(item="tea")]


async def test_the_rest_of_a_message_is_passed_in_order(broker: NatsBroker, seen: list[Any]) -> None:
    @broker.subscriber("orders")
    async def handle(
        session: OpenSession, first: str, value: Annotated[str, Depends(async_function)], *rest: Any
    ) -> None:
        seen.append((session.closed, first, value, rest))

    async with running(broker):
        await broker.publish(["a", "b", "c"], "orders")
    assert seen == [(False, "a", "value", ("b", "c"))]


async def test_marks_of_faststream_inside_dependencies(broker: NatsBroker, seen: list[Any]) -> None:
    async def inner(  # noqa: PLR0917 (FastAPI passes them by name)
        number: Annotated[int, faststream.Path()],
        logger: faststream.Logger,
        message: NatsMessage,
        key: Annotated[int, faststream.Header("x-key")],
        app: Annotated[FastAPI, faststream.Context("host")],
        missing: Annotated[str, faststream.Context("missing")] = "default",
        none: Annotated[str | None, faststream.Context("missing", default=None)] = None,
        model: Annotated[
            Order | None, faststream.Context("order", cast=True, default={"item": "tea"})
        ] = None,
        order: Annotated[Any, faststream.Context("order", cast=True, default={"item": "tea"})] = None,
        made: str = faststream.Context("made", initial=lambda: "initial"),
    ) -> tuple[Any, ...]:
        return (number, logger, await message.decode(), key, type(app), missing, none, model, order, made)

    class Outer:
        def __init__(self, inner: Annotated[Any, Depends(inner)]) -> None:
            self.inner = inner

    @broker.subscriber("orders.{number}")
    async def handle(item: str, outer: Annotated[Outer, Depends()], logger: faststream.Logger) -> None:
        seen.extend((logger, outer.inner))

    async with running(broker):
        await broker.publish("tea", "orders.7", headers={"x-key": "8"})
    order = {"item": "tea"}
    logger, values = seen
    assert values == (7, logger, "tea", 8, FastAPI, "default", None, Order(item="tea"), order, "initial")


async def test_a_model_is_cast_inside_a_dependency(broker: NatsBroker, seen: list[Any]) -> None:
    async def order(order: Annotated[Order, faststream.Context(cast=True)]) -> Order:
        return order

    @broker.subscriber("orders")
    async def handle(item: str, order: Annotated[Order, Depends(order)]) -> None:
        seen.append(order)

    broker.context.set_global("order", {"item": "tea"})
    async with running(broker):
        await broker.publish("x", "orders")
    assert seen == [Order(item="tea")]


async def test_a_missing_context_value_fails_the_message(broker: NatsBroker) -> None:
    async def inner(missing: Annotated[str, faststream.Context()]) -> None: ...

    @broker.subscriber("orders")
    async def handle(item: str, done: Annotated[None, Depends(inner)]) -> None: ...

    async with running(broker):
        with pytest.raises(KeyError, match="parameter 'missing'"):
            await broker.publish("tea", "orders")


@pytest.mark.parametrize(
    "alias",
    [
        Annotated[str, Depends(sync_function), faststream.Depends(async_function)],
        Annotated[str, faststream.Depends(async_function), Depends(sync_function)],
    ],
)
async def test_faststream_resolves_an_alias_with_both_marks(
    broker: NatsBroker, seen: list[Any], alias: Any
) -> None:
    async def inner(value: alias) -> Any:
        return value

    async def nested(value: Annotated[str, Depends(inner)]) -> str:
        return value

    @broker.subscriber("orders")
    async def handle(item: str, value: alias, nested: Annotated[str, Depends(nested)]) -> None:
        seen.append((value, nested))

    @broker.subscriber("bills")
    async def bill(item: str, value: alias) -> None:
        seen.append(value)

    async with running(broker) as app:
        app.dependency_overrides[sync_function] = replacement
        await broker.publish("tea", "orders")
        await broker.publish("tea", "bills")
    assert seen == [("value", "replaced"), "value"]


# --- handlers and messages of every kind ---


async def test_a_callable_instance_handles_messages(broker: NatsBroker, seen: list[Any]) -> None:
    class Handler:
        async def __call__(self, item: str, session: OpenSession) -> None:
            seen.append((item, session.closed))

    class SyncHandler:
        def __call__(self, item: str, session: OpenSession) -> None:
            seen.append((item, session.closed))

    broker.subscriber("orders")(Handler())
    broker.subscriber("bills")(SyncHandler())
    async with running(broker):
        await broker.publish("tea", "orders")
        await broker.publish("milk", "bills")
    assert seen == [("tea", False), ("milk", False)]


async def test_a_handler_without_fields_of_the_message(broker: NatsBroker, seen: list[Any]) -> None:
    @broker.subscriber("orders")
    async def handle(session: OpenSession) -> None:
        seen.append(session.closed)

    async with running(broker):
        await broker.publish("tea", "orders")
    assert seen == [False]


@pytest.mark.parametrize("apply_types", [True, False])
async def test_types_need_not_be_applied(seen: list[Any], apply_types: bool) -> None:
    broker = NatsBroker(apply_types=apply_types)

    @broker.subscriber("orders")
    async def handle(session: OpenSession, item: str) -> None:
        seen.append((item, session.closed))

    @broker.subscriber("bills")
    def bill(item: str, session: OpenSession) -> None:
        seen.append((item, session.closed))

    @broker.subscriber("notes")
    async def note(session: OpenSession, text: Any, more: Any = None) -> None:
        seen.append((text, more))

    async with running(broker):
        await broker.publish("tea", "orders")
        await broker.publish("milk", "bills")
        await broker.publish(["x"], "notes")
    assert seen == [("tea", False), ("milk", False), ("x", None)]


async def test_signatures_without_annotations(broker: NatsBroker, seen: list[Any]) -> None:
    async def number(number=faststream.Path()):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, B008
        return number

    @broker.subscriber("orders.{number}")
    async def handle(item, number=Depends(number), note="none"):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, B008
        seen.append((item, number, note))

    async with running(broker):
        await broker.publish({"item": "tea"}, "orders.7")
    assert seen == [("tea", "7", "none")]


async def test_chains_of_publishers_and_replies(broker: NatsBroker, seen: list[Any]) -> None:
    @broker.subscriber("orders")
    @broker.publisher("bills")
    async def handle(item: str, session: OpenSession) -> str:
        return f"{item}: {session.closed}"

    @broker.subscriber("bills")
    async def bill(text: str, orders: Annotated[Orders, Depends()]) -> None:
        seen.append((text, orders.session.closed))

    async with running(broker):
        reply = await broker.request("tea", "orders")
        handle.mock.assert_called_once_with("tea")
        bill.mock.assert_called_once_with("tea: False")
    assert await reply.decode() == "tea: False"
    assert seen == [("tea: False", False)]


async def test_filters_choose_among_handlers_with_dependencies(broker: NatsBroker, seen: list[Any]) -> None:
    subscriber = broker.subscriber("orders")

    async def is_json(message: NatsMessage) -> bool:
        return message.content_type == "application/json"

    @subscriber(filter=is_json)
    async def handle_json(order: Order, session: OpenSession) -> None:
        seen.append((order, session.closed))

    @subscriber
    async def handle_text(text: str, value: Annotated[str, Depends(async_function)]) -> None:
        seen.append((text, value))

    async with running(broker):
        await broker.publish({"item": "tea"}, "orders")
        await broker.publish("milk", "orders")
    assert seen == [(Order(item="tea"), False), ("milk", "value")]


async def test_batches() -> None:
    broker = KafkaBroker()
    seen: list[Any] = []

    @broker.subscriber("orders", batch=True)
    async def handle(items: list[str], session: OpenSession, request: Request) -> None:
        seen.append((items, session.closed))

    app = FastAPI()
    app.include_router(FastStreamRouter(broker))
    async with TestKafkaBroker(broker), app.router.lifespan_context(app):
        await broker.publish_batch("tea", "milk", topic="orders")
    assert seen == [(["tea", "milk"], False)]


async def test_middlewares_surround_dependencies(seen: list[Any]) -> None:
    class Middleware(BaseMiddleware[Any, Any]):
        async def consume_scope(self, call_next: Any, msg: Any) -> Any:
            seen.append("before")
            result = await call_next(msg)
            seen.append("after")
            return result

    broker = NatsBroker(middlewares=[Middleware])

    async def noted() -> AsyncIterator[None]:
        seen.append("open")
        yield
        seen.append("close")

    @broker.subscriber("orders")
    async def handle(item: str, noted: Annotated[None, Depends(noted)]) -> None:
        seen.append("handle")

    async with running(broker):
        await broker.publish("tea", "orders")
    assert seen == ["before", "open", "handle", "close", "after"]


async def test_subscribers_of_included_routers_and_of_apps(broker: NatsBroker, seen: list[Any]) -> None:
    router = NatsRouter(prefix="shop.")

    @router.subscriber("orders")
    async def handle(item: str, session: OpenSession) -> None:
        seen.append((item, session.closed))

    broker.include_router(router)
    app = FastAPI()
    app.include_router(FastStreamRouter(FastStream(broker)))
    async with TestNatsBroker(broker), app.router.lifespan_context(app):
        await broker.publish("tea", "shop.orders")
    assert seen == [("tea", False)]


async def test_late_subscribers_have_dependencies(broker: NatsBroker, seen: list[Any]) -> None:
    app = FastAPI()
    app.include_router(FastStreamRouter(broker))

    @broker.subscriber("orders")
    async def handle(item: str, session: OpenSession) -> None:
        seen.append((item, session.closed))

    async with TestNatsBroker(broker), app.router.lifespan_context(app):
        await broker.publish("tea", "orders")
    assert seen == [("tea", False)]


async def test_a_broker_that_a_hook_adds_has_dependencies(broker: NatsBroker, seen: list[Any]) -> None:
    @broker.subscriber("orders")
    async def handle(item: str, session: OpenSession) -> None:
        seen.append((item, session.closed))

    stream = FastStream()

    @stream.on_startup
    async def add() -> None:
        stream.add_broker(broker)

    app = FastAPI()
    app.include_router(FastStreamRouter(stream))
    async with TestNatsBroker(broker), app.router.lifespan_context(app):
        await broker.publish("tea", "orders")
    assert seen == [("tea", False)]


async def test_a_lifespan_that_is_entered_earlier_without_the_host(
    broker: NatsBroker, seen: list[Any]
) -> None:
    @broker.subscriber("orders")
    async def handle(item: str, session: OpenSession) -> None:
        seen.append((item, session.closed))

    brokers = BrokerLifespan(broker)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with brokers:
            yield

    app = FastAPI(lifespan=lifespan)
    app.include_router(FastStreamRouter(brokers))
    async with TestNatsBroker(broker), app.router.lifespan_context(app):
        await broker.publish("tea", "orders")
    assert seen == [("tea", False)]


async def test_an_application_factory_with_one_broker_can_be_called_again(
    broker: NatsBroker, seen: list[Any]
) -> None:
    @broker.subscriber("orders")
    async def handle(item: str, value: Annotated[str, Depends(async_function)]) -> None:
        seen.append(value)

    for override in ("first", "second"):
        app = FastAPI()
        app.dependency_overrides[async_function] = lambda override=override: override
        async with running(broker, app):
            await broker.publish("tea", "orders")
    assert seen == ["first", "second"]


# --- direct calls ---


async def test_values_that_are_given_in_a_direct_call_take_precedence(
    broker: NatsBroker, seen: list[Any]
) -> None:
    @broker.subscriber("orders")
    async def handle(item: str, session: OpenSession, value: Annotated[str, Depends(async_function)]) -> str:
        seen.append((item, session, value))
        return value

    @broker.subscriber("bills")
    def bill(item: str, value: Annotated[str, Depends(async_function)]) -> str:
        return value

    own = Session()
    assert await handle("tea", own, value="own") == "own"
    async with running(broker):
        assert await handle("tea", own, "own") == "own"
        assert await handle("tea", value="own") == "own"  # type: ignore[call-arg]
        assert await handle(item="tea", session=own) == "value"  # type: ignore[call-arg]
        assert bill("tea", value="own") == "own"
        with pytest.raises(TypeError, match=r"'bill' needs values for value"):
            bill("tea")  # type: ignore[call-arg]
    assert [given is own for _, given, _ in seen] == [True, True, False, True]
    assert seen[2][1].closed


# --- dependencies of the router ---


async def test_dependencies_of_the_router_do_not_concern_messages(
    broker: NatsBroker, seen: list[Any]
) -> None:
    async def guard() -> None:
        raise NotImplementedError

    @broker.subscriber("orders")
    async def handle(item: str) -> None:
        seen.append(item)

    async with running(broker, dependencies=[Depends(guard)]):
        await broker.publish("tea", "orders")
    assert seen == ["tea"]


async def test_message_dependencies_run_for_each_message(broker: NatsBroker, seen: list[Any]) -> None:
    async def audit(session: OpenSession, message: NatsMessage) -> None:
        seen.append((session, await message.decode()))
        if await message.decode() == "poison":
            raise ValueError("poison")

    @broker.subscriber("orders")
    async def plain(item: str) -> None:
        seen.append(item)

    @broker.subscriber("bills")
    async def shared(item: str, session: OpenSession) -> None:
        seen.append(session)

    async with running(broker, message_dependencies=[Depends(audit)]) as app:
        await broker.publish("tea", "orders")
        await broker.publish("tea", "bills")
        with pytest.raises(ValueError, match="poison"):
            await broker.publish("poison", "orders")
        app.dependency_overrides[audit] = lambda: seen.append("override")
        await broker.publish("poison", "orders")
    (first, text), item, (second, _), session, (_, poison), override, overridden = seen
    assert (text, item, poison, override, overridden) == ("tea", "tea", "poison", "override", "poison")
    assert second is session
    assert first is not second


async def test_message_dependencies_belong_to_the_application_that_runs(
    broker: NatsBroker, seen: list[Any]
) -> None:
    @broker.subscriber("orders")
    async def handle(item: str) -> None:
        seen.append(item)

    for name in ("first", "second"):
        async with running(broker, message_dependencies=[Depends(functools.partial(seen.append, name))]):
            await broker.publish("tea", "orders")
    assert seen == ["first", "tea", "second", "tea"]


async def test_message_dependencies_of_a_router_that_starts_later_run_from_then_on(
    broker: NatsBroker, seen: list[Any]
) -> None:
    @broker.subscriber("orders")
    async def handle(item: str) -> None:
        seen.append(item)

    @asynccontextmanager
    async def publish(_: FastAPI) -> AsyncIterator[None]:
        await broker.publish("tea", "orders")
        yield

    def mark(name: str) -> list[Any]:
        return [Depends(functools.partial(seen.append, name))]

    app = FastAPI()
    app.include_router(FastStreamRouter(broker, message_dependencies=mark("first")))
    app.include_router(APIRouter(lifespan=publish))
    async with running(broker, app, message_dependencies=mark("second")):
        await broker.publish("milk", "orders")
    assert (seen[:2], sorted(seen[2:4]), seen[4:]) == (["first", "tea"], ["first", "second"], ["milk"])


# --- without the application ---


async def test_without_the_application_only_those_with_dependencies_fail(
    broker: NatsBroker, seen: list[Any]
) -> None:
    FastStreamRouter(broker)

    @broker.subscriber("orders")
    async def handle(item: str, session: OpenSession) -> None:
        raise NotImplementedError

    @broker.subscriber("bills")
    async def plain(item: str, name: Annotated[str, faststream.Depends(async_function)]) -> None:
        seen.append((item, name))

    async with TestNatsBroker(broker):
        await broker.publish("tea", "bills")
        with pytest.raises(
            SetupError, match=r"subscriber 'handle' needs its FastAPI application.*app_client"
        ):
            await broker.publish("tea", "orders")
        with pytest.raises(SetupError, match="app_client"):
            await handle("tea")  # type: ignore[call-arg]
    assert seen == [("tea", "value")]


async def test_without_the_application_message_dependencies_are_not_left_out(broker: NatsBroker) -> None:
    router = FastStreamRouter(broker, message_dependencies=[Depends(async_function)])

    @broker.subscriber("orders")
    async def handle(item: str) -> None:
        raise NotImplementedError

    async with TestNatsBroker(broker):
        with pytest.raises(SetupError, match="app_client"):
            await broker.publish("tea", "orders")
    assert router.broker_lifespan.state == "stopped"


# --- the document ---


def document_of(broker: NatsBroker) -> Any:
    return AsyncAPI(broker).to_specification().to_jsonable()


def test_the_document_is_that_of_a_subscriber_without_dependencies(broker: NatsBroker) -> None:
    def subscribe(broker: NatsBroker, handle: Any, many: Any) -> None:
        broker.subscriber("orders")(broker.publisher("bills")(handle))
        broker.subscriber("many")(many)

    def without() -> tuple[Any, Any]:
        async def handle(order: Order, key: Annotated[str, faststream.Header()]) -> Order:
            """Handle an order."""
            raise NotImplementedError

        async def many(item: str, quantity: int = 1) -> None:
            raise NotImplementedError

        return handle, many

    def with_dependencies() -> tuple[Any, Any]:
        async def handle(
            order: Order, session: OpenSession, key: Annotated[str, faststream.Header()], request: Request
        ) -> Order:
            """Handle an order."""
            raise NotImplementedError

        async def many(session: OpenSession, item: str, tasks: BackgroundTasks, quantity: int = 1) -> None:
            raise NotImplementedError

        return handle, many

    FastStreamRouter(broker, message_dependencies=[Depends(async_function)])
    subscribe(broker, *with_dependencies())
    plain = NatsBroker()
    subscribe(plain, *without())
    assert document_of(broker) == document_of(plain)
