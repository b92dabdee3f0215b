"""Targets in every host: brokers, FastStream applications and lifespans."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from faststream import AsyncAPI, Context, ContextRepo
from faststream import FastStream as UpstreamFastStream
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker, TestNatsBroker
from nats.errors import NoRespondersError

from faststream_adapters import BrokerLifespan, FastStream
from tests.conformance.orders import Orders
from tests.harness.hosts import AdapterUse, HostApp, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.hosts import Host
    from tests.harness.servers.nats import NatsServer


async def test_a_route_of_the_host_sends_a_message_and_receives_the_reply(host: Host, orders: Orders) -> None:
    async with serving(host.build(orders.broker, host_app=orders.host_app)) as served:
        for _ in range(3):
            assert await served.text("/hello") == "tea ordered"


async def test_the_host_is_in_the_context_of_subscribers(host: Host, shared_nats: NatsServer) -> None:
    orders = Orders(shared_nats.url)
    seen: list[object] = []

    @orders.broker.subscriber(f"{orders.subject}.host")
    async def handle(message: str, app: Any = Context("host")) -> str:
        seen.append(app)
        return message

    app = host.build(orders.broker)
    async with serving(app):
        await orders.broker.request("hello", f"{orders.subject}.host", timeout=5.0)
    assert len(seen) == 1
    assert seen[0] is host.application(app)
    assert orders.broker.context.get("host") is None


async def test_two_brokers_run_together(host: Host, shared_nats: NatsServer) -> None:
    teas, cakes = Orders(shared_nats.url), Orders(shared_nats.url)

    async def both() -> str:
        return f"{await teas.place('tea')}, {await cakes.place('cake')}"

    app = host.build(
        teas.broker,
        cakes.broker,
        host_app=HostApp(hello=both),
        readiness_path="/ready",
        asyncapi_path="/asyncapi",
        probe_details=True,
    )
    async with serving(app) as served:
        assert await served.text("/hello") == "tea ordered, cake ordered"
        checks = (await served.http.get("/ready")).json()["checks"]["NatsBroker"]
        assert [check["componentType"] for check in checks] == ["broker", "subscriber"] * 2
        document = await served.text("/asyncapi.json")
        assert teas.subject in document
        assert cakes.subject in document
    assert not teas.broker.running
    assert not cakes.broker.running


async def test_readiness_succeeds_while_an_optional_broker_is_down(
    host: Host,
    orders: Orders,
    late_nats: NatsServer,
) -> None:
    extra = NatsBroker(late_nats.url)
    app = host.build(
        orders.broker,
        extra,
        host_app=orders.host_app,
        optional=[extra],
        readiness_path="/ready",
        probe_details=True,
    )
    async with serving(app) as served:
        response = await served.http.get("/ready")
        assert (response.status_code, response.json()["status"]) == (200, "warn")
        assert await served.text("/hello") == "tea ordered"


async def test_a_broker_that_does_not_consume_publishes(host: Host, orders: Orders) -> None:
    app = host.build(orders.broker, consume=False, readiness_path="/ready")
    other = NatsBroker(orders.broker.specification.url[0])

    @other.subscriber(f"{orders.subject}.elsewhere")
    async def elsewhere(item: str) -> str:
        return f"{item} ordered elsewhere"

    async with serving(app) as served, BrokerLifespan(other):
        assert await served.status("/ready") == 200
        with pytest.raises(NoRespondersError):
            await orders.place()
        reply = await orders.broker.request("tea", f"{orders.subject}.elsewhere", timeout=5.0)
        assert await reply.decode() == "tea ordered elsewhere"


@pytest.mark.parametrize("kind", [FastStream, UpstreamFastStream], ids=["adapters", "upstream"])
async def test_the_hooks_of_a_faststream_app_run_in_order(host: Host, orders: Orders, kind: Any) -> None:
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(context: ContextRepo) -> AsyncIterator[None]:
        log.append("lifespan in")
        context.set_global("greeting", "good morning")
        yield
        log.append("lifespan out")

    def hook(stage: str) -> Any:
        return lambda: log.append(f"{stage}, broker {'up' if orders.broker.running else 'down'}")

    async def greet(greeting: str = Context()) -> None:
        log.append(greeting)

    target = kind(
        orders.broker,
        lifespan=lifespan,
        on_startup=[hook("on_startup"), greet],
        after_startup=[hook("after_startup")],
        on_shutdown=[hook("on_shutdown")],
        after_shutdown=[hook("after_shutdown")],
    )
    host_app = HostApp(
        hello=orders.place,
        on_startup=lambda: log.append("host up"),
        on_shutdown=lambda: log.append("host down"),
    )
    async with serving(host.build(target, host_app=host_app, readiness_path="/ready")) as served:
        assert await served.status("/ready") == 200
        assert await served.text("/hello") == "tea ordered"
        log.append("served")
    expected = [
        "lifespan in",
        "on_startup, broker down",
        "good morning",
        "after_startup, broker up",
        "served",
        "on_shutdown, broker up",
        "after_shutdown, broker down",
        "lifespan out",
    ]
    if host.has("resources", "lifespans"):
        expected = ["host up", *expected, "host down"]
    assert log == expected


async def test_the_document_has_the_title_of_the_faststream_app(host: Host, orders: Orders) -> None:
    target = FastStream(orders.broker, specification=AsyncAPI(title="Tea house", version="7.0"))
    async with serving(host.build(target, asyncapi_path="/asyncapi")) as served:
        document = (await served.http.get("/asyncapi.json")).json()
        assert (document["info"]["title"], document["info"]["version"]) == ("Tea house", "7.0")
        assert orders.subject in (await served.text("/asyncapi"))


@pytest.mark.needs("lifespans")
async def test_a_lifespan_is_used_with_its_own_keywords(host: Host, orders: Orders) -> None:
    states: list[str] = []
    lifespan = BrokerLifespan(orders.broker, on_state_change=lambda _, new: states.append(new))
    async with serving(host.build(lifespan, host_app=orders.host_app, readiness_path="/ready")) as served:
        assert await served.status("/ready") == 200
        assert await served.text("/hello") == "tea ordered"
        assert lifespan.state == "running"
    assert states == ["starting", "running", "draining", "stopped"]


@pytest.mark.needs("lifespans")
def test_lifespan_keywords_with_a_lifespan_are_refused(host: Host) -> None:
    with pytest.raises(SetupError, match="consume: pass these to the BrokerLifespan itself"):
        host.build(BrokerLifespan(NatsBroker()), consume=False)


@pytest.mark.needs("composes", "lifespans")
async def test_a_lifespan_that_two_adapters_use_starts_once(host: Host, orders: Orders) -> None:
    states: list[str] = []
    lifespan = BrokerLifespan(orders.broker, on_state_change=lambda _, new: states.append(new))
    app = host.compose(
        orders.host_app,
        AdapterUse([lifespan], {"readiness_path": "/ready"}),
        AdapterUse([lifespan], {"asyncapi_path": "/asyncapi"}),
    )
    async with serving(app) as served:
        assert await served.status("/ready") == 200
        assert await served.status("/asyncapi.json") == 200
        assert await served.text("/hello") == "tea ordered"
    assert states == ["starting", "running", "draining", "stopped"]


@pytest.mark.needs("composes")
async def test_two_adapters_run_two_brokers(host: Host, shared_nats: NatsServer) -> None:
    teas, cakes = Orders(shared_nats.url), Orders(shared_nats.url)

    async def both() -> str:
        return f"{await teas.place('tea')}, {await cakes.place('cake')}"

    app = host.compose(
        HostApp(hello=both),
        AdapterUse([teas.broker], {"readiness_path": "/teas"}),
        AdapterUse([cakes.broker], {"readiness_path": "/cakes"}),
    )
    async with serving(app) as served:
        assert await served.status("/teas") == 200
        assert await served.status("/cakes") == 200
        assert await served.text("/hello") == "tea ordered, cake ordered"


@pytest.mark.needs("composes")
async def test_all_adapters_of_an_application_get_the_same_host(
    host: Host,
    shared_nats: NatsServer,
) -> None:
    teas, cakes = Orders(shared_nats.url), Orders(shared_nats.url)
    app = host.compose(HostApp(), AdapterUse([teas.broker], {}), AdapterUse([cakes.broker], {}))
    async with serving(app):
        seen = [orders.broker.context.get("host") for orders in (teas, cakes)]
    assert seen[0] is seen[1] is host.application(app)


async def test_a_test_broker_needs_no_server(host: Host) -> None:
    orders = Orders("nats://127.0.0.1:1")
    app = host.build(
        orders.broker,
        host_app=orders.host_app,
        readiness_path="/ready",
        ping_path="/ping",
        liveness_path="/live",
    )
    for _ in range(2):
        async with TestNatsBroker(orders.broker, connect_only=False), serving(app) as served:
            assert await served.status("/ready") == 200
            assert await served.status("/ping") == 204
            assert await served.status("/live") == 200
            assert await served.text("/hello") == "tea ordered"


def test_an_unknown_keyword_is_refused_with_a_list_of_known_ones(host: Host) -> None:
    with pytest.raises(TypeError, match=r"'pong_path'.*Known keywords: .*ping_path"):
        host.build(NatsBroker(), pong_path="/pong")


def test_an_invalid_keyword_is_refused(host: Host) -> None:
    with pytest.raises(SetupError, match=r'startup must be "strict" or "background", not "?\'?later'):
        host.build(NatsBroker(), startup="later")
