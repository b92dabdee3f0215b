"""Litestar's dependencies, its state and its controllers in subscribers."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from faststream import AsyncAPI, Context, Depends, FastStream
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker, NatsRouter, TestNatsBroker
from litestar import Controller, Litestar, Request, Router, get, post
from litestar.datastructures import ImmutableState, State
from litestar.di import NamedDependency, Provide
from litestar.params import FromHeader
from litestar.plugins import InitPlugin
from litestar.testing import AsyncTestClient
from pydantic import BaseModel

from faststream_adapters import BrokerLifespan
from faststream_adapters.litestar import FastStreamPlugin

NOWHERE = "nats://127.0.0.1:1"


@pytest.fixture
def broker() -> NatsBroker:
    return NatsBroker(NOWHERE)


def litestar(*targets: Any, handlers: Any = (), plugins: Any = (), **options: Any) -> Litestar:
    # Litestar's own logging configuration is global.
    plugins = [FastStreamPlugin(*targets), *plugins]
    return Litestar(list(handlers), plugins=plugins, logging_config=None, **options)


@asynccontextmanager
async def running(app: Litestar, *brokers: NatsBroker) -> AsyncIterator[None]:
    """Run the application with its brokers in memory: a message is handled inside `publish()`."""
    async with TestNatsBroker(*brokers, connect_only=False), app.lifespan():
        yield


class Order(BaseModel):
    item: str


@dataclass
class Store:
    """What the handlers of a test have done."""

    items: list[Any] = field(default_factory=list)
    events: list[str] = field(default_factory=list)


# --- dependencies ---


async def test_subscribers_get_dependencies_of_the_application(broker: NatsBroker) -> None:
    store = Store()

    def provide_store() -> Store:
        return store

    async def provide_prefix(store: NamedDependency[Store]) -> str:
        store.events.append("prefix")
        return "item "

    async def provide_label(prefix: NamedDependency[str], suffix: str = "!") -> Callable[[str], str]:
        return lambda item: prefix + item + suffix

    @broker.subscriber("orders")
    async def process(
        store: NamedDependency[Store],
        order: Order,
        label: NamedDependency[Callable[[str], str]],
        prefix: NamedDependency[str],
    ) -> None:
        store.items.append(label(order.item))

    dependencies = {
        "store": Provide(provide_store, sync_to_thread=False),
        "prefix": provide_prefix,
        "label": Provide(provide_label),
    }
    async with running(litestar(broker, dependencies=dependencies), broker):
        await broker.publish(Order(item="tea"), "orders")
        await broker.publish({"item": "milk"}, "orders")
    assert store.items == ["item tea!", "item milk!"]
    # Each dependency is resolved once per message, however often it is needed.
    assert store.events == ["prefix", "prefix"]


async def test_dependencies_stand_beside_those_of_faststream(broker: NatsBroker) -> None:
    store = Store()

    def provide_number() -> int:
        return 7

    async def provide_item(message: str) -> str:
        return message.upper()

    @broker.subscriber("orders.{kind}")
    @broker.publisher("done")
    async def process(
        message: str,
        number: NamedDependency[int],
        host: Annotated[Litestar, Context("host")],
        item: Annotated[str, Depends(provide_item)],
    ) -> str:
        store.items.append((message, number, item, host))
        return item

    @broker.subscriber("done")
    async def finish(item: str, number: NamedDependency[int]) -> None:
        store.items.append((item, number))

    app = litestar(broker, dependencies={"number": Provide(provide_number, sync_to_thread=False)})
    async with running(app, broker):
        await broker.publish("tea", "orders.a")
        process.mock.assert_called_once_with("tea")
    assert store.items == [("tea", 7, "TEA", app), ("TEA", 7)]


async def test_the_injected_brokers_are_dependencies(broker: NatsBroker) -> None:
    received: list[str] = []

    @broker.subscriber("orders")
    async def process(item: str, broker: NamedDependency[NatsBroker]) -> None:
        await broker.publish(item, "done")

    @broker.subscriber("done")
    async def finish(item: str) -> None:
        received.append(item)

    async with running(litestar(broker), broker):
        await broker.publish("tea", "orders")
    assert received == ["tea"]


@pytest.mark.parametrize("outcome", ["success", "failure"])
async def test_generators_end_after_the_handler_in_reverse(broker: NatsBroker, outcome: str) -> None:
    events: list[str] = []

    async def provide_connection() -> AsyncIterator[str]:
        events.append("connect")
        try:
            yield "connection"
        finally:
            await asyncio.sleep(0)
            events.append("disconnect")

    def provide_session(connection: NamedDependency[str]) -> Iterator[str]:
        try:
            yield f"session of {connection}"
        except ValueError:
            # As in a route, the error remains one.
            events.append("roll back")
        else:
            events.append("commit")

    @broker.subscriber("orders")
    @broker.publisher("done")
    async def process(item: str, session: NamedDependency[str]) -> str:
        events.append(session)
        if item == "failure":
            raise ValueError(item)
        return item

    @broker.subscriber("done")
    async def finish(item: str) -> None:
        events.append("published")

    app = litestar(broker, dependencies={"connection": provide_connection, "session": provide_session})
    async with running(app, broker):
        if outcome == "success":
            await broker.publish(outcome, "orders")
            last = ["commit", "disconnect", "published"]
        else:
            with pytest.raises(ValueError, match="failure"):
                await broker.publish(outcome, "orders")
            last = ["roll back", "disconnect"]
    assert events == ["connect", "session of connection", *last]


@pytest.mark.parametrize("where", ["start", "cleanup"])
async def test_an_error_of_a_dependency_is_one_of_the_handler(broker: NatsBroker, where: str) -> None:
    events: list[str] = []

    async def provide_outer() -> AsyncIterator[None]:
        try:
            yield
        finally:
            events.append("outer")

    async def provide_broken(outer: NamedDependency[None]) -> AsyncIterator[None]:
        if where == "start":
            raise LookupError(where)
        yield
        raise LookupError(where)

    @broker.subscriber("orders")
    async def process(item: str, broken: NamedDependency[None]) -> None:
        events.append(item)

    app = litestar(broker, dependencies={"outer": provide_outer, "broken": provide_broken})
    async with running(app, broker):
        with pytest.raises(LookupError, match=where):
            await broker.publish("tea", "orders")
    assert events == (["tea", "outer"] if where == "cleanup" else ["outer"])


async def test_a_cancelled_handler_ends_the_generators(broker: NatsBroker) -> None:
    ended, started = asyncio.Event(), asyncio.Event()

    async def provide_session() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.sleep(0)
            ended.set()

    @broker.subscriber("orders")
    async def process(item: str, session: NamedDependency[None]) -> None:
        started.set()
        await asyncio.Event().wait()

    async with running(litestar(broker, dependencies={"session": provide_session}), broker):
        task = asyncio.create_task(broker.publish("tea", "orders"))
        await started.wait()
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        assert ended.is_set()


async def test_a_cached_dependency_is_called_once(broker: NatsBroker) -> None:
    calls: list[str] = []

    async def provide_service() -> object:
        calls.append("called")
        return object()

    seen: set[Any] = set()

    @broker.subscriber("orders")
    async def process(item: str, service: NamedDependency[Any]) -> None:
        seen.add(service)

    @get("/service")
    async def show(service: NamedDependency[Any]) -> str:
        raise AssertionError  # not requested

    app = litestar(
        broker, handlers=[show], dependencies={"service": Provide(provide_service, use_cache=True)}
    )
    async with running(app, broker):
        await broker.publish("tea", "orders")
        await broker.publish("milk", "orders")
    assert (len(seen), calls) == (1, ["called"])


@pytest.mark.parametrize("to_thread", [True, False])
async def test_synchronous_dependencies_run_where_they_declare(broker: NatsBroker, to_thread: bool) -> None:
    seen: list[bool] = []

    class Service:
        def __init__(self) -> None:
            self.in_thread = threading.current_thread() is not threading.main_thread()

    @broker.subscriber("orders")
    async def process(item: str, service: NamedDependency[Service]) -> None:
        seen.append(service.in_thread)

    app = litestar(broker, dependencies={"service": Provide(Service, sync_to_thread=to_thread)})
    async with running(app, broker):
        await broker.publish("tea", "orders")
    assert seen == [to_thread]


async def test_dependencies_and_subscribers_get_the_state(broker: NatsBroker) -> None:
    class Prices(State):
        """A typed state."""

    async def provide_tea(state: State) -> int:
        return int(state.tea)

    async def provide_milk(state: ImmutableState) -> int:
        return int(state.milk)

    @broker.subscriber("orders")
    async def process(
        item: str,
        tea: NamedDependency[int],
        milk: NamedDependency[int],
        state: Prices,
    ) -> None:
        assert type(state) is Prices
        state.total = tea + milk

    app = litestar(
        broker,
        state=State({"tea": 3, "milk": 4}),
        dependencies={"tea": provide_tea, "milk": provide_milk},
    )
    async with running(app, broker):
        await broker.publish("tea", "orders")
    assert app.state.total == 7


async def test_a_synchronous_subscriber_runs_in_a_thread(broker: NatsBroker) -> None:
    seen: list[Any] = []

    async def provide_number() -> int:
        return 7

    @broker.subscriber("orders")
    def process(item: str, number: NamedDependency[int]) -> None:
        seen.append((item, number, threading.current_thread() is threading.main_thread()))

    async with running(litestar(broker, dependencies={"number": provide_number}), broker):
        await broker.publish("tea", "orders")
    assert seen == [("tea", 7, False)]


async def test_a_dependency_that_nobody_provides_has_its_default(broker: NatsBroker) -> None:
    seen: list[Any] = []

    @broker.subscriber("orders")
    async def process(item: str, service: NamedDependency[Any] = "default") -> None:
        seen.append(service)

    async with running(litestar(broker), broker):
        await broker.publish("tea", "orders")
    assert seen == ["default"]


async def test_later_subscribers_brokers_and_routers_get_dependencies() -> None:
    first, late = NatsBroker(NOWHERE), NatsBroker(NOWHERE)
    stream = FastStream(first)
    stream.on_startup(lambda: stream.add_broker(late))
    router, seen = NatsRouter(), list[Any]()

    async def provide_number() -> int:
        return 7

    app = litestar(stream, dependencies={"number": provide_number})

    @router.subscriber("routed")
    async def routed(item: str, number: NamedDependency[int]) -> None:
        seen.append((item, number))

    @late.subscriber("late")
    async def of_late_broker(item: str, number: NamedDependency[int]) -> None:
        seen.append((item, number))

    first.include_router(router)
    async with running(app, first, late):
        await first.publish("tea", "routed")
        await late.publish("milk", "late")
    assert seen == [("tea", 7), ("milk", 7)]


async def test_a_subscriber_of_a_running_broker_gets_dependencies(shared_nats: Any) -> None:
    broker, seen = NatsBroker(shared_nats.url), asyncio.Queue[Any]()

    async def provide_number() -> int:
        return 7

    async with litestar(broker, dependencies={"number": provide_number}).lifespan():
        subscriber = broker.subscriber("late-subscriber")

        @subscriber
        async def process(item: str, number: NamedDependency[int]) -> None:
            await seen.put((item, number))

        await subscriber.start()
        await broker.publish("tea", "late-subscriber")
        assert await asyncio.wait_for(seen.get(), 5.0) == ("tea", 7)
        wrong = broker.subscriber("wrong-subscriber")

        @wrong
        async def fail(item: str, unknown: NamedDependency[int]) -> None:
            raise AssertionError

        with pytest.raises(SetupError, match="'unknown' of the subscriber 'fail' is no dependency"):
            await wrong.start()


async def test_one_broker_serves_one_application_after_another(broker: NatsBroker) -> None:
    seen: list[str] = []

    @broker.subscriber("orders")
    async def process(item: str, name: NamedDependency[str]) -> None:
        seen.append(name)

    def app_named(value: str) -> Litestar:
        return litestar(broker, dependencies={"name": Provide(lambda: value, sync_to_thread=False)})

    one, two = app_named("one"), app_named("two")
    for app in (one, two, one):
        async with running(app, broker):
            await broker.publish("tea", "orders")
    assert seen == ["one", "two", "one"]


async def test_subscribers_without_applied_types_get_dependencies() -> None:
    broker, seen = NatsBroker(NOWHERE, apply_types=False), list[Any]()

    async def provide_number() -> int:
        return 7

    @broker.subscriber("orders")
    async def process(item: str, number: NamedDependency[int]) -> None:
        seen.append((item, number))

    async with running(litestar(broker, dependencies={"number": provide_number}), broker):
        await broker.publish("tea", "orders")
    assert seen == [("tea", 7)]


async def test_values_of_a_direct_call_take_precedence(broker: NatsBroker) -> None:
    async def provide_number() -> int:
        return 7

    @broker.subscriber("orders")
    async def process(item: str, number: NamedDependency[int]) -> tuple[str, int]:
        return item, number

    @broker.subscriber("plain")
    def process_plainly(item: str, number: NamedDependency[int]) -> tuple[str, int]:
        return item, number

    assert await process("tea", 3) == ("tea", 3)
    async with running(litestar(broker, dependencies={"number": provide_number}), broker):
        assert await process("tea", 3) == ("tea", 3)
        assert await process("tea", number=3) == ("tea", 3)
        without_number: Any = process
        assert await without_number("tea") == ("tea", 7)
        assert process_plainly("tea", 3) == ("tea", 3)
        without_number = process_plainly
        with pytest.raises(TypeError, match="'process_plainly' needs values for number: only an async"):
            without_number("tea")


# --- what is refused ---


async def provides() -> None: ...


async def needs_request(request: Request[Any, Any, Any]) -> None: ...


async def needs_query(limit: int) -> None: ...


async def needs_header(token: FromHeader[str]) -> None: ...


async def needs_nested(inner: NamedDependency[str]) -> None: ...


async def needs_circle(circle: NamedDependency[str]) -> None: ...


async def takes_dependency(message: str, named: NamedDependency[str]) -> None: ...


async def takes_request(message: str, request: Request[Any, Any, Any]) -> None: ...


REFUSED: dict[str, tuple[Callable[..., Any], dict[str, Any], str]] = {}


def refused(problem: str, **dependencies: Any) -> Callable[[Any], Any]:
    def add(handler: Any) -> Any:
        REFUSED[handler.__name__] = handler, dependencies, problem
        return handler

    return add


@refused("The parameter 'sesion' of the subscriber 'misspelt' is no dependency", session=provides)
async def misspelt(item: str, sesion: NamedDependency[str]) -> None: ...


@refused(
    "'request' of the dependency 'wanted' of the subscriber 'of_request' needs a request",
    wanted=needs_request,
)
async def of_request(item: str, wanted: NamedDependency[str]) -> None: ...


@refused(
    "'limit' of the dependency 'wanted' of the subscriber 'of_query' is no dependency",
    wanted=needs_query,
)
async def of_query(item: str, wanted: NamedDependency[str]) -> None: ...


@refused(
    "'token' of the dependency 'wanted' of the subscriber 'of_header' needs a request",
    wanted=needs_header,
)
async def of_header(item: str, wanted: NamedDependency[str]) -> None: ...


@refused(
    "'request' of the dependency 'inner' of the dependency 'wanted' of the subscriber 'of_nested' needs a",
    wanted=needs_nested,
    inner=needs_request,
)
async def of_nested(item: str, wanted: NamedDependency[str]) -> None: ...


@refused("dependency 'circle' .* depends on itself", circle=needs_circle)
async def of_circle(item: str, circle: NamedDependency[str]) -> None: ...


@refused("The parameter 'request' of the subscriber 'own_request' needs a request")
async def own_request(item: str, request: Request[Any, Any, Any]) -> None: ...


@refused("The parameter 'token' of the subscriber 'own_header' needs a request.*faststream.Header")
async def own_header(item: str, token: FromHeader[str]) -> None: ...


@refused("'named' of the dependency 'takes_dependency' of the subscriber 'of_faststream' is Litestar's")
async def of_faststream(item: str, wanted: Annotated[str, Depends(takes_dependency)]) -> None: ...


@refused("'request' of the dependency 'takes_request' of the subscriber 'of_faststream_request' needs a")
async def of_faststream_request(item: str, wanted: Annotated[str, Depends(takes_request)]) -> None: ...


async def refuses_to_start(app: Litestar, problem: str) -> None:
    # Litestar's lifespan is a task group.
    with pytest.RaisesGroup(pytest.RaisesExc(SetupError, match=problem), flatten_subgroups=True):
        async with app.lifespan():
            raise AssertionError


@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_be_passed_fails_the_start(broker: NatsBroker, name: str) -> None:
    handler, dependencies, problem = REFUSED[name]
    broker.subscriber("orders")(handler)
    app = litestar(broker, dependencies=dependencies)
    await refuses_to_start(app, problem)


async def test_a_misspelt_dependency_has_a_suggestion(broker: NatsBroker) -> None:
    broker.subscriber("orders")(misspelt)
    await refuses_to_start(litestar(broker, dependencies={"session": provides}), r"Did you mean 'session'\?")


async def test_dependencies_of_a_subscriber_or_broker_cannot_be_litestars() -> None:
    async def process(item: str) -> None: ...

    one, two = NatsBroker(NOWHERE), NatsBroker(NOWHERE, dependencies=[Depends(takes_dependency)])
    one.subscriber("orders", dependencies=[Depends(takes_dependency)])(process)
    two.subscriber("orders")(process)
    for broker in (one, two):
        await refuses_to_start(
            litestar(broker), "'takes_dependency' of the subscriber 'process' is Litestar's"
        )


async def test_without_its_application_a_subscriber_with_dependencies_is_refused(broker: NatsBroker) -> None:
    seen: list[str] = []

    @broker.subscriber("orders")
    async def process(item: str, number: NamedDependency[int]) -> None: ...

    @broker.subscriber("plain")
    async def process_plainly(item: str) -> None:
        seen.append(item)

    plugin = FastStreamPlugin(broker)
    for host in (None, object()):
        with pytest.raises(SetupError, match="'process' needs its Litestar application, but none runs"):
            async with plugin.broker_lifespan(host):
                raise AssertionError
    async with TestNatsBroker(broker, connect_only=False):
        await broker.publish("tea", "plain")
        with pytest.raises(SetupError, match="app_client"):
            await broker.publish("tea", "orders")
    assert seen == ["tea"]


async def test_without_an_application_other_subscribers_run(broker: NatsBroker) -> None:
    seen: list[str] = []

    @broker.subscriber("orders")
    async def process(item: str) -> None:
        seen.append(item)

    lifespan = FastStreamPlugin(broker).broker_lifespan
    async with TestNatsBroker(broker, connect_only=False), lifespan():
        await broker.publish("tea", "orders")
    assert seen == ["tea"]


# --- controllers ---


async def provide_unit() -> str:
    return "kg"


async def test_a_method_of_a_controller_is_a_subscriber(broker: NatsBroker) -> None:
    class Orders(Controller):
        path = "/orders"
        dependencies = {"price": Provide(lambda: 3, sync_to_thread=False)}  # noqa: RUF012 (Litestar's style)

        def __init__(self, owner: Router) -> None:
            super().__init__(owner)
            self.processed: list[Any] = []

        @broker.subscriber("orders")
        async def process(
            self,
            item: str,
            price: NamedDependency[int],
            unit: NamedDependency[str],
            amount: NamedDependency[int],
        ) -> None:
            self.processed.append([item, price, unit, amount])

        @broker.subscriber("plain")
        def process_plainly(self, /, item: str) -> None:
            self.processed.append(item)

        @get()
        async def show(self) -> list[Any]:
            return self.processed

    inner = Router("/inner", route_handlers=[Orders], dependencies={"amount": amount_of(5)})
    outer = Router("/outer", route_handlers=[inner], dependencies={"unit": provide_unit})
    app = litestar(broker, handlers=[outer])
    async with TestNatsBroker(broker, connect_only=False), AsyncTestClient(app) as client:
        await broker.publish("tea", "orders")
        await broker.publish("milk", "plain")
        response = await client.get("/outer/inner/orders")
    assert response.json() == [["tea", 3, "kg", 5], "milk"]


def amount_of(number: int) -> Provide:
    return Provide(lambda: number, sync_to_thread=False)


async def test_the_first_registered_instance_of_a_controller_handles_messages(broker: NatsBroker) -> None:
    class Orders(Controller):
        @broker.subscriber("orders")
        async def process(self, item: str, amount: NamedDependency[int]) -> None:
            self.seen = [*getattr(self, "seen", []), (item, amount)]

        @get("/seen", sync_to_thread=False)
        def show(self) -> list[Any]:
            return getattr(self, "seen", [])

    routers = [
        Router(path, route_handlers=[Orders], dependencies={"amount": amount_of(number)})
        for path, number in (("/second", 2), ("/first", 1))
    ]

    class Others(Controller):
        @get("/others")
        async def show(self) -> None: ...

    app = litestar(broker, handlers=[Others, routers[1], routers[0]])
    async with TestNatsBroker(broker, connect_only=False), AsyncTestClient(app) as client:
        await broker.publish("tea", "orders")
        assert (await client.get("/first/seen")).json() == [["tea", 1]]
        assert (await client.get("/second/seen")).json() == []


@pytest.mark.parametrize("nested", [False, True])
async def test_an_inherited_subscriber_runs_once(broker: NatsBroker, nested: bool) -> None:
    seen: list[str] = []

    class Base(Controller):
        @broker.subscriber("orders")
        async def process(self, item: str) -> None:
            seen.append(type(self).__name__)

    class One(Base):
        @get("/")
        async def show(self) -> None: ...

        @get("/one")
        async def show_one(self) -> None: ...

    class Two(Base):
        # In a router, two controllers can share a path.
        @post("/" if nested else "/two")
        async def create(self) -> None: ...

    for handlers in ([One, Two], [Two, One]):
        registered = [Router("/", route_handlers=handlers)] if nested else handlers
        async with running(litestar(broker, handlers=registered), broker):
            await broker.publish("tea", "orders")
    assert seen == (["One", "One"] if nested else ["One", "Two"])


async def test_a_subscriber_of_a_mixin_is_a_method_of_the_controller(broker: NatsBroker) -> None:
    seen: list[str] = []

    class Outer:
        class Mixin:
            @broker.subscriber("orders")
            async def process(self, item: str) -> None:
                seen.append(type(self).__name__)

        class Orders(Mixin, Controller):
            @get("/")
            async def show(self) -> None: ...

    async with running(litestar(broker, handlers=[Outer.Orders]), broker):
        await broker.publish("tea", "orders")
    assert seen == ["Orders"]


@pytest.mark.parametrize("registered", [True, False])
async def test_a_controller_without_routes_is_built_once(broker: NatsBroker, registered: bool) -> None:
    seen: list[Any] = []

    class Base(Controller):
        dependencies = {"amount": amount_of(2)}  # noqa: RUF012 (Litestar's style)

        @broker.subscriber("orders")
        async def process(self, item: str, amount: NamedDependency[int], unit: NamedDependency[str]) -> None:
            seen.append((self, amount, unit))

        @broker.subscriber("returns")
        async def take_back(self, item: str) -> None:
            seen.append((self, item))

    class Orders(Base):
        """Registered instead of its base class."""

    app = litestar(broker, handlers=[Orders] if registered else [], dependencies={"unit": provide_unit})
    for _ in range(2):
        async with running(app, broker):
            await broker.publish("tea", "orders")
            await broker.publish("tea", "returns")
    [controller] = {instance for instance, *_ in seen}
    assert type(controller) is (Orders if registered else Base)
    assert [rest for _, *rest in seen] == [[2, "kg"], ["tea"]] * 2


async def test_the_router_around_a_controller_without_routes_is_unknown(broker: NatsBroker) -> None:
    class Orders(Controller):
        @broker.subscriber("orders")
        async def process(self, item: str, amount: NamedDependency[int]) -> None: ...

    router = Router("/", route_handlers=[Orders], dependencies={"amount": amount_of(2)})
    problem = (
        "'amount' of the subscriber 'process' is no dependency.*has no routes.*`dependencies` of 'Orders'"
    )
    await refuses_to_start(litestar(broker, handlers=[router]), problem)


def document(broker: NatsBroker) -> Any:
    return json.loads(AsyncAPI(broker).to_specification().to_json())


def with_plain_subscribers(broker: NatsBroker) -> NatsBroker:
    @broker.subscriber("orders")
    async def process(item: str) -> None: ...

    @broker.subscriber("returns")
    async def take_back(order: Order) -> None: ...

    return broker


async def test_the_document_and_the_message_have_no_field_for_what_litestar_passes() -> None:
    broker = NatsBroker(NOWHERE)

    class Orders(Controller):
        @broker.subscriber("orders")
        async def process(self, item: str, amount: NamedDependency[int], state: State) -> None: ...

    @broker.subscriber("returns")
    async def take_back(order: Order, amount: NamedDependency[int]) -> None: ...

    plain_broker = with_plain_subscribers(NatsBroker(NOWHERE))
    app = litestar(broker, dependencies={"amount": amount_of(2)})
    plain = document(plain_broker)
    assert document(broker) == plain
    async with running(app, broker):
        assert document(broker) == plain


async def test_a_direct_call_of_a_method_may_have_an_instance(broker: NatsBroker) -> None:
    class Orders(Controller):
        @broker.subscriber("orders")
        async def process(self, item: str, amount: NamedDependency[int]) -> tuple[Any, str, int]:
            return self, item, amount

        @get("/")
        async def show(self) -> None: ...

    app = litestar(broker, handlers=[Orders], dependencies={"amount": amount_of(2)})
    own = Orders(app)
    async with running(app, broker):
        process: Any = Orders.process
        assert await process(own, "tea", 3) == (own, "tea", 3)
        assert await process(own, "tea") == (own, "tea", 2)
        controller, *rest = await process("tea")
        assert (type(controller), rest) == (Orders, ["tea", 2])
        assert controller is not own


async def test_two_plugins_share_a_lifespan(broker: NatsBroker) -> None:
    seen: list[Any] = []

    class Orders(Controller):
        @broker.subscriber("orders")
        async def process(self, item: str) -> None:
            seen.append(item)

    lifespan = BrokerLifespan(broker)
    app = litestar(lifespan, plugins=[FastStreamPlugin(lifespan)])
    async with running(app, broker):
        await broker.publish("tea", "orders")
    assert seen == ["tea"]


async def test_controllers_of_later_plugins_are_found(broker: NatsBroker) -> None:
    seen: list[str] = []

    class Base(Controller):
        @broker.subscriber("orders")
        async def process(self, item: str) -> None:
            seen.append(type(self).__name__)

    class Orders(Base):
        """Has no routes."""

    class AddsController(InitPlugin):
        def on_app_init(self, app_config: Any) -> Any:
            app_config.route_handlers.append(Orders)
            return app_config

    async with running(litestar(broker, plugins=[AddsController()]), broker):
        await broker.publish("tea", "orders")
    assert seen == ["Orders"]
