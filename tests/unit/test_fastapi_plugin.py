"""The stand-in for FastStream's FastAPI plugin behaves as the plugin does, without a server."""

# Most tests run with either of two modules, whose type is Any.
# mypy: disable-error-code="untyped-decorator"

import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.testclient import TestClient
from faststream import AsyncAPI, BaseMiddleware, ExceptionMiddleware, FastStream
from faststream.kafka import TestKafkaBroker
from faststream.nats import NatsBroker, TestNatsBroker
from faststream.nats import NatsRouter as BrokerRouter
from faststream.security import BaseSecurity
from pydantic import BaseModel, Field

from faststream_adapters._compat.plugin import ContextRepo as Repository
from tests.harness.plugins import (
    CLIENTS,
    SERVICES,
    STAND_IN,
    app_with,
    client_of,
    importable_plugins,
    in_memory,
    kind_of,
    load_plugin,
    router_class,
)


@pytest.fixture(params=importable_plugins())
def plugin(request: pytest.FixtureRequest) -> Any:
    """The plugin and the stand-in, for what both do."""
    return load_plugin(request.param)


@pytest.fixture
def stand_in() -> Any:
    return load_plugin(STAND_IN)


@pytest.fixture
def seen() -> list[Any]:
    """What the handlers of a test have got."""
    return []


class Order(BaseModel):
    item: str
    quantity: int = 1


@dataclass
class Bill:
    item: str
    total: int


def price() -> int:
    return 3


Price = Annotated[int, Depends(price)]


# --- the broker of the router ---


async def test_routes_dependencies_and_services_use_the_broker(plugin: Any, seen: list[Any]) -> None:
    router = plugin.NatsRouter(prefix="/shop", tags=["shop"])

    def get_broker() -> NatsBroker:
        broker: NatsBroker = router.broker
        return broker

    @router.subscriber("orders")
    @router.publisher("bills")
    async def handle(item: str, price: Price) -> str:
        return f"{item}: {price}"

    @router.subscriber("bills")
    async def bills(bill: str) -> None:
        seen.append(bill)

    @router.post("/orders/{item}", status_code=202)
    async def place(item: str, broker: Annotated[NatsBroker, Depends(get_broker)]) -> None:
        await broker.publish(item, "orders")

    app = app_with(router)
    async with TestNatsBroker(router.broker), client_of(app) as client:
        assert (await client.post("/shop/orders/tea")).status_code == 202
    assert seen == ["tea: 3"]
    assert app.openapi()["paths"]["/shop/orders/{item}"]["post"]["tags"] == ["shop"]


@pytest.mark.parametrize("client", CLIENTS)
async def test_every_client_has_a_router_and_its_names(client: str, seen: list[Any]) -> None:
    module = load_plugin(STAND_IN, client)
    kind = kind_of(client)
    router = router_class(module, client)()

    async def handle(item: str, message: Any, context: Any, broker: Any) -> None:
        seen.append((item, type(message).__name__, isinstance(context, Repository), broker is router.broker))

    handle.__annotations__ |= {
        "message": getattr(module, "RedisChannelMessage" if client == "redis" else f"{kind}Message"),
        "context": module.ContextRepo,
        "broker": getattr(module, f"{kind}Broker"),
    }
    router.subscriber("orders")(handle)
    app = app_with(router)
    async with in_memory(router), client_of(app):
        await router.broker.publish("tea", "orders")
    [(item, name, has_context, has_broker)] = seen
    assert (item, has_context, has_broker) == ("tea", True, True)
    assert name.endswith(("Message", "Msg"))


@pytest.mark.parametrize("client", CLIENTS)
def test_the_names_are_those_of_the_plugin(client: str) -> None:
    names = [set(load_plugin(each, client).__all__) for each in importable_plugins()]
    assert all(each == names[-1] for each in names)


def test_a_sentinel_router_has_a_broker_of_its_kind() -> None:
    module = load_plugin(STAND_IN, "redis")
    router = module.RedisSentinelRouter(sentinels=[("127.0.0.1", 1)], sentinel_master_name="main")
    assert type(router.broker).__name__ == "RedisSentinelBroker"


# --- subscribers ---


async def test_subscribers_have_dependencies_that_use_the_message(plugin: Any, seen: list[Any]) -> None:
    router = plugin.NatsRouter()

    class Service:
        def __init__(
            self, message: plugin.NatsMessage, logger: plugin.Logger, broker: plugin.NatsBroker
        ) -> None:
            self.value = (type(message).__name__, logger.name, broker is router.broker)

    async def opened(service: Annotated[Service, Depends()]) -> AsyncIterator[Service]:
        yield service
        seen.append("closed")

    @router.subscriber("orders")
    async def handle(item: str, service: Annotated[Service, Depends(opened)]) -> None:
        seen.append((item, service.value))

    async with TestNatsBroker(router.broker), client_of(app_with(router)):
        await router.broker.publish("tea", "orders")
    [(item, (message, logger, same)), closed] = seen
    assert (item, message, same, closed) == ("tea", "NatsMessage", True, "closed")
    assert logger.startswith("faststream")


async def test_a_dependency_serves_messages_and_requests(stand_in: Any, seen: list[Any]) -> None:
    """The plugin of FastStream 0.7 responds with 422 to the request."""
    router = stand_in.NatsRouter()

    class Service:
        def __init__(self, logger: stand_in.Logger, broker: stand_in.NatsBroker) -> None:
            seen.append((hasattr(logger, "info"), broker is router.broker))

    @router.subscriber("orders")
    async def handle(item: str, service: Annotated[Service, Depends()]) -> None:
        assert item == "tea"

    @router.get("/", status_code=201)
    async def show(service: Annotated[Service, Depends()], context: stand_in.ContextRepo) -> None:
        assert context is router.broker.context

    async with TestNatsBroker(router.broker), client_of(app_with(router)) as client:
        assert (await client.get("/")).status_code == 201
        await router.broker.publish("tea", "orders")
    assert seen == [(True, True)] * 2


@pytest.mark.parametrize("in_app", [True, False], ids=["app", "no app"])
async def test_dependencies_of_router_and_subscriber_run_for_each_message(
    plugin: Any, seen: list[Any], in_app: bool
) -> None:
    router = plugin.NatsRouter(dependencies=[Depends(lambda: seen.append("router"))])

    @router.subscriber("orders", dependencies=[Depends(lambda: seen.append("subscriber"))])
    async def handle(item: str, price: Price) -> None:
        seen.append((item, price))

    @router.subscriber("bills", dependencies=[Depends(lambda: seen.append("other"))])
    def without(item: str) -> None:
        seen.append(item)

    async with TestNatsBroker(router.broker):
        app = app_with(router)
        if in_app:
            async with client_of(app):
                await router.broker.publish("tea", "orders")
                await router.broker.publish("milk", "bills")
        else:
            await router.broker.publish("tea", "orders")
            await router.broker.publish("milk", "bills")
    assert seen == ["router", "subscriber", ("tea", 3), "router", "other", "milk"]


async def test_requests_and_background_tasks_are_those_of_the_message(plugin: Any, seen: list[Any]) -> None:
    router = plugin.NatsRouter()

    @router.subscriber("orders")
    async def handle(item: str, request: Request, tasks: BackgroundTasks) -> None:
        tasks.add_task(seen.append, request.app.title)
        seen.append(item)

    async with TestNatsBroker(router.broker), client_of(app_with(router, title="Shop")):
        await router.broker.publish("tea", "orders")
    assert seen == ["tea", "Shop"]


async def test_overrides_apply_to_messages(plugin: Any, seen: list[Any]) -> None:
    router = plugin.NatsRouter()

    @router.subscriber("orders")
    async def handle(item: str, price: Price) -> None:
        seen.append(price)

    app = app_with(router)
    app.dependency_overrides[price] = lambda: 9
    async with TestNatsBroker(router.broker), client_of(app):
        await router.broker.publish("tea", "orders")
    assert seen == [9]


async def test_a_subscriber_of_a_brokers_router_is_one_of_the_router(plugin: Any, seen: list[Any]) -> None:
    router, nested = plugin.NatsRouter(), BrokerRouter(prefix="shop.")

    @nested.subscriber("orders")
    async def handle(item: str, price: Price, message: plugin.NatsMessage) -> None:
        seen.append((item, price, message.correlation_id))

    router.include_router(nested)
    async with TestNatsBroker(router.broker), client_of(app_with(router)):
        await router.broker.publish({"item": "tea"}, "shop.orders", correlation_id="7")
    assert seen == [("tea", 3, "7")]


def test_a_router_of_this_kind_is_refused_in_another(plugin: Any) -> None:
    with pytest.raises(TypeError, match="Including a StreamRouter into another StreamRouter is not"):
        plugin.NatsRouter().include_router(plugin.NatsRouter())


async def test_routers_of_fastapi_include_and_are_included(stand_in: Any) -> None:
    inner, outer = APIRouter(prefix="/inner"), APIRouter(prefix="/outer")
    inner.add_api_route("/", lambda: "inner")
    router = stand_in.NatsRouter()
    router.include_router(inner)
    outer.include_router(router)
    async with TestNatsBroker(router.broker), client_of(app_with(outer)) as client:
        assert (await client.get("/outer/inner/")).json() == "inner"
        assert router.broker_lifespan.state == "running"


async def test_a_router_of_a_factory_gets_subscribers_late(plugin: Any, seen: list[Any]) -> None:
    def make_app() -> tuple[FastAPI, Any]:
        router = plugin.NatsRouter()
        return app_with(router), router

    app, router = make_app()

    @router.subscriber("orders")
    async def handle(item: str, price: Price) -> None:
        seen.append((item, price))

    async with TestNatsBroker(router.broker), client_of(app):
        await router.broker.publish("tea", "orders")
    assert seen == [("tea", 3)]


async def test_a_subscriber_starts_while_the_application_runs(plugin: Any, seen: list[Any]) -> None:
    router = plugin.NatsRouter()
    async with TestNatsBroker(router.broker), client_of(app_with(router)):
        subscriber = router.subscriber("orders", dependencies=[Depends(lambda: seen.append("guard"))])

        @subscriber
        async def handle(item: str, price: Price) -> None:
            seen.append((item, price))

        await subscriber.start()
        await router.broker.publish({"item": "tea"}, "orders")
    assert seen == ["guard", ("tea", 3)]


async def test_a_function_is_a_route_and_a_subscriber(plugin: Any, seen: list[Any]) -> None:
    router = plugin.NatsRouter()

    @router.subscriber("orders")
    @router.post("/orders")
    async def handle(order: Order, price: Price) -> int:
        seen.append(order)
        return order.quantity * price

    async with TestNatsBroker(router.broker), client_of(app_with(router)) as client:
        await router.broker.publish(Order(item="tea"), "orders")
        assert (await client.post("/orders", json={"item": "tea", "quantity": 2})).json() == 6
    assert seen == [Order(item="tea"), Order(item="tea", quantity=2)]


# --- the fields of the message ---

SITUATIONS: list[tuple[Any, Any]] = []


def situation(*messages: Any) -> Any:
    def register(handler: Any) -> Any:
        SITUATIONS.append((handler, messages))
        return handler

    return register


@situation("tea", {"item": "tea"}, {"item": "tea", "more": 1}, {}, {"item": [1]}, b"\xff")
async def one_scalar(item: str) -> Any:
    return item


@situation({}, {"item": "tea"}, 7)
async def optional_scalar(item: str | None = None) -> Any:
    return item


async def aliased_scalar(item: Annotated[str, Field(alias="name")]) -> Any:
    return item


@situation("tea", {"item": "tea"}, {"item": "tea", "count": "2"}, {"item": "tea", "count": "x"}, [1, 2])
async def two_scalars(item: str, count: int = 1) -> Any:
    return item, count


@situation("tea")
async def part_of_the_subject(item: str, number: int) -> Any:
    return item, number


@situation({"item": "tea", "quantity": 2}, {"item": "tea", "quantity": "many"}, {"quantity": 1}, "tea", [])
async def model(order: Order) -> Any:
    return order


@situation({"item": "tea", "total": 2}, {"item": "tea", "total": "much"})
async def dataclass_(bill: Bill) -> Any:
    return bill


@situation({"item": "tea", "user": 5}, {"item": "tea"}, {"user": 5})
async def model_and_scalar(order: Order, user: int) -> Any:
    return order, user


@situation({"order": {"item": "tea"}, "bill": {"item": "tea", "total": 2}}, {"order": {}}, "tea", [1])
async def two_models(order: Order, bill: Bill) -> Any:
    return order, bill


@situation({"a": 1}, "tea", [])
async def mapping(body: dict[str, Any]) -> Any:
    return body


@situation([1, 2], [], [{}], "tea", 5)
async def numbers(body: list[int]) -> Any:
    return body


@situation("tea", {"item": "tea"}, [1])
async def nothing() -> Any:
    return "called"


@situation("tea", {"item": "tea"})
async def anything(item: Any) -> Any:
    return item


@situation({"item": "tea"}, {"price": 8, "item": "tea"})
async def with_dependency(item: str, price: Price) -> Any:
    return item, price


def by_user(user: int, limit: Annotated[int, Field(le=9)] = 5) -> Any:
    return user, limit


def by_model(order: Order, user: Annotated[Any, Depends(by_user)]) -> Any:
    return order, user


@situation(
    {"item": "tea", "user": 1},
    {"item": "tea", "user": "2", "limit": 3},
    {"item": "tea", "user": 1, "limit": 10},
    {"item": "tea"},
    "tea",
)
async def fields_of_dependencies(item: str, user: Annotated[Any, Depends(by_user)]) -> Any:
    return item, user


@situation({"item": "tea", "user": 1, "quantity": 3}, {"item": "tea", "user": 1, "quantity": "x"})
async def fields_of_nested_dependencies(item: str, order: Annotated[Any, Depends(by_model)]) -> Any:
    return item, order


@situation("tea")
def result_that_contradicts_the_annotation(item: str) -> int:
    return item  # type: ignore[return-value]


@pytest.mark.parametrize(("handler", "messages"), SITUATIONS, ids=lambda each: getattr(each, "__name__", ""))
async def test_messages_have_the_values_and_errors_of_the_plugin(handler: Any, messages: Any) -> None:
    outcomes = [await outcomes_in(load_plugin(each), handler, messages) for each in importable_plugins()]
    assert all(each == outcomes[0] for each in outcomes)


async def outcomes_in(plugin: Any, handler: Any, messages: Any) -> list[Any]:
    router = plugin.NatsRouter()
    router.subscriber("orders.{number}")(handler)
    outcomes: list[Any] = []
    async with TestNatsBroker(router.broker), client_of(app_with(router)):
        for message in messages:
            try:
                reply = await router.broker.request(message, "orders.7")
            except RequestValidationError as error:
                # FastAPI also accepts objects with attributes, which messages are not.
                types = [each["type"].replace("attributes_", "") for each in error.errors()]
                outcomes.append((types, [each["loc"] for each in error.errors()], error.body))
            else:
                outcomes.append(reply.body)
    return outcomes


async def test_a_parameter_can_have_an_alias(stand_in: Any) -> None:
    """The plugin ignores it with older releases of FastAPI."""
    outcomes = await outcomes_in(stand_in, aliased_scalar, ({"name": "tea"}, {"item": "tea"}))
    assert outcomes == [b"tea", (["missing"], [("query", "name")], {"item": "tea"})]


async def test_an_error_of_the_handler_is_its_own(stand_in: Any) -> None:
    router = stand_in.NatsRouter()

    @router.subscriber("orders")
    async def handle(item: str) -> None:
        Order.model_validate({})

    async with TestNatsBroker(router.broker), client_of(app_with(router)):
        with pytest.raises(ValueError, match="1 validation error for Order") as caught:
            await router.broker.publish("tea", "orders")
    assert not isinstance(caught.value, RequestValidationError)


async def test_a_broker_without_validation_stays_without(stand_in: Any, seen: list[Any]) -> None:
    router = stand_in.NatsRouter(serializer=None)

    @router.subscriber("orders")
    async def handle(item: int) -> None:
        seen.append(item)

    async with TestNatsBroker(router.broker), client_of(app_with(router)):
        await router.broker.publish("tea", "orders")
    assert seen == ["tea"]


async def test_an_exception_middleware_gets_the_validation_error(plugin: Any, seen: list[Any]) -> None:
    errors = ExceptionMiddleware()

    @errors.add_handler(RequestValidationError)
    def keep(error: RequestValidationError) -> None:
        seen.append(error.body)

    router = plugin.NatsRouter(middlewares=[errors])

    @router.subscriber("orders")
    async def handle(order: Order) -> None:
        pytest.fail("The message is valid.")

    async with TestNatsBroker(router.broker), client_of(app_with(router)):
        await router.broker.publish({"quantity": 2}, "orders")
    assert seen == [{"quantity": 2}]


# --- in the application ---


@pytest.mark.parametrize("how", ["included", "lifespan", "both"])
async def test_the_lifespan_is_included_or_given_by_hand(stand_in: Any, seen: list[Any], how: str) -> None:
    """Given by hand beside `include_router`, the plugin calls the hooks twice, and warns."""
    router = stand_in.NatsRouter(on_startup=[lambda: seen.append("before")])

    @router.after_startup
    async def up(app: FastAPI) -> dict[str, str]:
        seen.append((app.title, router.broker_lifespan.state))
        return {"name": "Shop"}

    @router.on_broker_shutdown
    def down(app: FastAPI) -> None:
        seen.append((app.title, router.broker_lifespan.state))

    async def after() -> None:
        seen.append("after")

    with pytest.warns(DeprecationWarning, match="on_event"):
        router.on_event("shutdown")(after)
    app = FastAPI(title="Shop", **({} if how == "included" else {"lifespan": router.lifespan_context}))
    if how != "lifespan":
        app.include_router(router)

    @app.get("/")
    async def show(request: Request) -> list[Any]:
        return [request.state.broker is router.broker, request.state.name]

    for _ in range(2):
        async with TestNatsBroker(router.broker), client_of(app) as client:
            assert (await client.get("/")).json() == [True, "Shop"]
        assert seen == ["before", ("Shop", "running"), ("Shop", "running"), "after"]
        seen.clear()


async def test_the_state_has_what_the_lifespan_and_the_hooks_return(plugin: Any, seen: list[Any]) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        seen.append(router.broker.running)
        yield {"settings": app.title, "broker_name": "old"}
        seen.append(app.title)

    router = plugin.NatsRouter(lifespan=lifespan)
    router.after_startup(lambda app: {"broker_name": "new"})

    @router.get("/")
    async def show(request: Request) -> list[Any]:
        return [request.state.settings, request.state.broker_name, request.state.broker is router.broker]

    app = app_with(router, title="Shop")
    async with TestNatsBroker(router.broker):
        with TestClient(app) as client:
            assert client.get("/").json() == ["Shop", "new", True]
    assert seen[1:] == ["Shop"]


async def test_the_router_is_the_app_in_the_context(plugin: Any, seen: list[Any]) -> None:
    router = plugin.NatsRouter()
    router.context.set_global("limit", 3)

    @router.subscriber("orders")
    async def handle(
        item: str, app: Annotated[Any, plugin.Context("app")], limit: Annotated[int, plugin.Context("limit")]
    ) -> None:
        seen.append((app is router, limit))

    async with TestNatsBroker(router.broker), client_of(app_with(router)):
        await router.broker.publish("tea", "orders")
    assert seen == [(True, 3)]
    assert list(router.schema.to_specification().to_jsonable()["channels"]) == ["orders:Handle"]


async def test_the_state_can_be_off(plugin: Any) -> None:
    router = plugin.NatsRouter(setup_state=False)
    async with TestNatsBroker(router.broker), router.lifespan_context(FastAPI()) as state:
        assert state is None


async def test_broker_keywords_reach_the_broker(plugin: Any, seen: list[Any], caplog: Any) -> None:
    class Middleware(BaseMiddleware):
        async def consume_scope(self, call_next: Any, msg: Any) -> Any:
            seen.append("middleware")
            return await call_next(msg)

    async def parser(message: Any, original: Any) -> Any:
        parsed = await original(message)
        parsed.headers["parsed"] = True
        return parsed

    context = Repository()
    context.set_global("shop", "tea")
    router = plugin.NatsRouter(
        ["nats://127.0.0.1:1"],
        name="shop",
        logger=logging.getLogger("shop"),
        log_level=logging.WARNING,
        middlewares=[Middleware],
        parser=parser,
        graceful_timeout=2.0,
        description="The shop",
        specification_tags=[{"name": "tagged"}],
        security=BaseSecurity(use_ssl=True),
        context=context,
        default_response_class=Request,
        deprecated=True,
        routes=[],
    )

    @router.subscriber("orders")
    async def handle(item: str, message: plugin.NatsMessage) -> None:
        seen.append(message.headers["parsed"])

    assert router.broker.context.get("shop") == "tea"
    assert router.broker.specification.description == "The shop"
    assert router.broker.specification.security.use_ssl
    assert [tag["name"] for tag in router.broker.specification.tags] == ["tagged"]
    assert (router.deprecated, router.default_response_class) == (True, Request)
    async with TestNatsBroker(router.broker):
        await router.broker.publish("tea", "orders")
    assert seen == ["middleware", True]


async def test_test_broker_works_without_the_lifespan(plugin: Any, seen: list[Any]) -> None:
    router = plugin.NatsRouter()

    def get_headers(request: Request, message: plugin.NatsMessage) -> str:
        return str(message.headers["key"])

    @router.subscriber("orders")
    async def handle(item: str, key: Annotated[str, Depends(get_headers)], price: Price) -> None:
        seen.append((item, key, price))

    @router.post("/orders/{item}")
    async def place(item: str) -> None:
        await router.broker.publish(item, "orders", headers={"key": "7"})

    async with TestNatsBroker(router.broker) as broker:
        await broker.publish("tea", "orders", headers={"key": "7"})
        handle.mock.assert_called_once_with("tea")
        assert TestClient(app_with(router)).post("/orders/milk").status_code == 200
    assert seen == [("tea", "7", 3), ("milk", "7", 3)]


async def test_a_faststream_app_can_take_the_broker(stand_in: Any, seen: list[Any]) -> None:
    router = stand_in.NatsRouter()
    FastStream(router.broker)

    @router.subscriber("orders")
    async def handle(item: str, price: Price) -> None:
        seen.append((item, price))

    async with TestNatsBroker(router.broker):
        await router.broker.publish({"item": "tea"}, "orders")
    assert seen == [("tea", 3)]


# --- the documents ---


@pytest.mark.parametrize(
    "client",
    [name if name == "nats" else pytest.param(name, marks=pytest.mark.full) for name in CLIENTS],
)
async def test_the_documents_are_those_of_the_plugin(client: str) -> None:
    documents = [await document_of(load_plugin(each, client), client) for each in importable_plugins()]
    assert all(each == documents[0] for each in documents)
    assert documents[0]["info"] == {
        "title": "Shop",
        "version": "2.0",
        "description": "Sells tea.",
        "contact": {"name": "Ann"},
        "license": {"name": "MIT"},
    }


async def document_of(plugin: Any, client: str) -> Any:
    router = router_class(plugin, client)(schema_url="/asyncapi", description="The broker", prefix="/api")
    for handler in (one_scalar, optional_scalar, two_scalars, model, two_models, mapping, numbers):
        router.subscriber(handler.__name__, title=handler.__name__)(handler)

    @router.subscriber("orders", description="Takes orders.")
    @router.publisher("bills", schema=Order)
    async def handle(order: Order, price: Price, logger: plugin.Logger) -> None:
        """Not called."""

    app = app_with(
        router,
        title="Shop",
        version="2.0",
        description="Sells tea.",
        contact={"name": "Ann"},
        license_info={"name": "MIT"},
    )
    async with in_memory(router), client_of(app) as http:
        assert (await http.get("/api/asyncapi")).headers["content-type"].startswith("text/html")
        assert (await http.get("/api/asyncapi.yaml")).status_code == 200
        assert {"/api/asyncapi", "/api/asyncapi.json"} <= {*app.openapi()["paths"]}
        return (await http.get("/api/asyncapi.json")).json()


async def test_the_docs_are_off_until_the_path_is_given(stand_in: Any) -> None:
    for router in (
        stand_in.NatsRouter(),
        stand_in.NatsRouter(schema_url=None),
        stand_in.NatsRouter(schema_url="/asyncapi", include_in_schema=False),
    ):
        router.add_api_route("/route", lambda: None)
        app = app_with(router)
        async with TestNatsBroker(router.broker), client_of(app) as client:
            assert (await client.get("/asyncapi")).status_code == 404
        assert ("/route" in app.openapi()["paths"]) == router.include_in_schema


async def test_the_docs_have_no_form_that_publishes(stand_in: Any, caplog: Any) -> None:
    router = stand_in.NatsRouter(schema_url="/asyncapi")
    async with TestNatsBroker(router.broker), client_of(app_with(router)) as client:
        assert (await client.post("/asyncapi/try", json={})).status_code in {404, 405}
    assert lines_about(caplog, logging.WARNING) == [
        "The AsyncAPI docs of NatsRouter have no form that publishes, unlike FastStream's."
    ]


def lines_about(caplog: Any, level: int) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "faststream.adapters.hosts" and record.levelno == level
    ]


async def test_the_application_can_bring_the_specification(stand_in: Any) -> None:
    specification = AsyncAPI(identifier="urn:shop")
    router = stand_in.NatsRouter(schema_url="/asyncapi", specification=specification)
    async with TestNatsBroker(router.broker), client_of(app_with(router, title="Shop")) as client:
        document = (await client.get("/asyncapi.json")).json()
    assert (document["id"], document["info"]["title"]) == ("urn:shop", "Shop")


# --- what the stand-in leaves out, and what replaces it ---


@pytest.mark.parametrize(
    "options",
    [
        {"response_model": Order},
        {"response_model_include": {"item"}},
        {"response_model_by_alias": False},
        {"response_model_exclude_none": True, "response_model": None},
    ],
)
async def test_a_response_model_is_ignored_with_a_warning(
    stand_in: Any, seen: list[Any], options: dict[str, Any]
) -> None:
    router = stand_in.NatsRouter()
    with pytest.warns(RuntimeWarning, match=f"{next(iter(options))}: a subscriber .* unfiltered") as caught:
        subscriber = router.subscriber("orders", **options)
    assert [warning.filename for warning in caught] == [__file__]
    subscriber(lambda item: {"item": item, "margin": 2})
    async with TestNatsBroker(router.broker):
        reply = await router.broker.request("tea", "orders")
    assert await reply.decode() == {"item": "tea", "margin": 2}


def test_the_defaults_of_a_response_model_do_not_warn(plugin: Any) -> None:
    plugin.NatsRouter().subscriber("orders", response_model=None, response_model_by_alias=True)


async def test_batches_are_those_of_the_plugin(seen: list[Any]) -> None:
    async def handle(orders: list[Order], price: Price) -> None:
        seen.append((orders, price))

    for name in importable_plugins():
        router = load_plugin(name, "kafka").KafkaRouter()
        router.subscriber("orders", batch=True)(handle)
        async with TestKafkaBroker(router.broker), client_of(app_with(router)):
            await router.broker.publish_batch({"item": "tea"}, {"item": "milk"}, topic="orders")
    assert seen == [([Order(item="tea"), Order(item="milk")], 3)] * len(importable_plugins())


async def test_each_router_logs_its_native_lines_once(stand_in: Any, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    router = stand_in.NatsRouter(
        "nats://user:hush-hush@127.0.0.1",
        connect_timeout=3,
        prefix="/shop",
        dependencies=[Depends(price)],
        schema_url="/asyncapi",
    )
    router.subscriber("orders")(one_scalar)
    for _ in range(2):
        async with TestNatsBroker(router.broker), client_of(app_with(router)):
            pass
    [line] = lines_about(caplog, logging.INFO)
    assert line == (
        "NatsRouter is a stand-in for the one that FastStream removes in 1.0. Without it: "
        "from faststream.nats import NatsBroker; "
        "from faststream_adapters.fastapi import FastStreamRouter; "
        "broker = NatsBroker(..., connect_timeout=...); "
        "router = FastStreamRouter(broker, prefix='/shop', asyncapi_path='/asyncapi', dependencies=..., "
        "message_dependencies=..., startup_timeout=120.0); "
        "@broker.subscriber instead of @router.subscriber (1 here). See docs/fastapi-plugin.md."
    )


@pytest.mark.full
@pytest.mark.timeout(300)
def test_everything_works_without_the_plugin_of_faststream() -> None:
    command = ["-m", "pytest", "-v", "-p", "tests.harness.without_plugin"]
    command += ["-k", "not without_the_plugin_of_faststream"]
    options = ["-p", "no:cacheprovider", "-p", "no:xdist"]
    files = [__file__, str(SERVICES.with_name("test_plugin_services.py"))]
    result = subprocess.run(
        [sys.executable, *command, *options, *files],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert result.returncode == 0, result.stdout
    assert "[faststream_adapters.fastapi.plugin.{}" in result.stdout
    assert "[faststream.{}.fastapi" not in result.stdout
