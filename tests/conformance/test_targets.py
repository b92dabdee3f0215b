"""What can be run, in every host: brokers, applications, lifespans; and what a handler sees of the host."""

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
from tests.hosts import Ours, Own, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.hosts import Host
    from tests.servers.nats import NatsServer


async def test_a_route_of_the_host_sends_a_message_and_gets_an_answer(host: Host, orders: Orders) -> None:
    async with serving(host.build(orders.broker, own=orders.own)) as served:
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
        await orders.broker.request("who", f"{orders.subject}.host", timeout=5.0)
    assert len(seen) == 1
    assert seen[0] is host.application(app)
    assert orders.broker.context.get("host") is None


async def test_two_brokers_run_side_by_side(host: Host, shared_nats: NatsServer) -> None:
    teas, cakes = Orders(shared_nats.url), Orders(shared_nats.url)

    async def both() -> str:
        return f"{await teas.place('tea')}, {await cakes.place('cake')}"

    app = host.build(
        teas.broker,
        cakes.broker,
        own=Own(hello=both),
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


async def test_an_optional_broker_may_be_away(
    host: Host,
    orders: Orders,
    late_nats: NatsServer,
) -> None:
    extra = NatsBroker(late_nats.url)
    app = host.build(
        orders.broker,
        extra,
        own=orders.own,
        optional=[extra],
        readiness_path="/ready",
        probe_details=True,
    )
    async with serving(app) as served:
        answer = await served.http.get("/ready")
        assert (answer.status_code, answer.json()["status"]) == (200, "warn")
        assert await served.text("/hello") == "tea ordered"


async def test_without_consuming_it_publishes_only(host: Host, orders: Orders) -> None:
    app = host.build(orders.broker, consume=False, readiness_path="/ready")
    other = NatsBroker(orders.broker.specification.url[0])

    @other.subscriber(f"{orders.subject}.elsewhere")
    async def elsewhere(item: str) -> str:
        return f"{item} ordered elsewhere"

    async with serving(app) as served, BrokerLifespan(other):
        assert await served.status("/ready") == 204
        with pytest.raises(NoRespondersError):
            await orders.place()
        answer = await orders.broker.request("tea", f"{orders.subject}.elsewhere", timeout=5.0)
        assert await answer.decode() == "tea ordered elsewhere"


@pytest.mark.parametrize("kind", [FastStream, UpstreamFastStream], ids=["ours", "upstream"])
async def test_an_application_runs_with_its_hooks(host: Host, orders: Orders, kind: Any) -> None:
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
    own = Own(hello=orders.place, up=lambda: log.append("host up"), down=lambda: log.append("host down"))
    async with serving(host.build(target, own=own, readiness_path="/ready")) as served:
        assert await served.status("/ready") == 204
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


async def test_the_document_of_an_application_is_its_own(host: Host, orders: Orders) -> None:
    target = FastStream(orders.broker, specification=AsyncAPI(title="Tea house", version="7.0"))
    async with serving(host.build(target, asyncapi_path="/asyncapi")) as served:
        document = (await served.http.get("/asyncapi.json")).json()
        assert (document["info"]["title"], document["info"]["version"]) == ("Tea house", "7.0")
        assert orders.subject in (await served.text("/asyncapi"))


@pytest.mark.needs("lifespans")
async def test_a_lifespan_brings_its_keywords(host: Host, orders: Orders) -> None:
    states: list[str] = []
    lifespan = BrokerLifespan(orders.broker, on_state_change=lambda _, new: states.append(new))
    async with serving(host.build(lifespan, own=orders.own, readiness_path="/ready")) as served:
        assert await served.status("/ready") == 204
        assert await served.text("/hello") == "tea ordered"
        assert lifespan.state == "running"
    assert states == ["starting", "running", "draining", "stopped"]


@pytest.mark.needs("lifespans")
def test_a_lifespan_takes_no_more_keywords(host: Host) -> None:
    with pytest.raises(SetupError, match="consume: give these to the BrokerLifespan itself"):
        host.build(BrokerLifespan(NatsBroker()), consume=False)


@pytest.mark.needs("composes", "lifespans")
async def test_one_lifespan_can_be_used_twice_and_starts_once(host: Host, orders: Orders) -> None:
    states: list[str] = []
    lifespan = BrokerLifespan(orders.broker, on_state_change=lambda _, new: states.append(new))
    app = host.compose(
        orders.own,
        Ours([lifespan], {"readiness_path": "/ready"}),
        Ours([lifespan], {"asyncapi_path": "/asyncapi"}),
    )
    async with serving(app) as served:
        assert await served.status("/ready") == 204
        assert await served.status("/asyncapi.json") == 200
        assert await served.text("/hello") == "tea ordered"
    assert states == ["starting", "running", "draining", "stopped"]


@pytest.mark.needs("composes")
async def test_two_adapters_can_run_two_brokers(host: Host, shared_nats: NatsServer) -> None:
    teas, cakes = Orders(shared_nats.url), Orders(shared_nats.url)

    async def both() -> str:
        return f"{await teas.place('tea')}, {await cakes.place('cake')}"

    app = host.compose(
        Own(hello=both),
        Ours([teas.broker], {"readiness_path": "/teas"}),
        Ours([cakes.broker], {"readiness_path": "/cakes"}),
    )
    async with serving(app) as served:
        assert await served.status("/teas") == 204
        assert await served.status("/cakes") == 204
        assert await served.text("/hello") == "tea ordered, cake ordered"


@pytest.mark.needs("composes")
async def test_all_adapters_of_one_application_see_the_same_host(
    host: Host,
    shared_nats: NatsServer,
) -> None:
    teas, cakes = Orders(shared_nats.url), Orders(shared_nats.url)
    app = host.compose(Own(), Ours([teas.broker], {}), Ours([cakes.broker], {}))
    async with serving(app):
        seen = [orders.broker.context.get("host") for orders in (teas, cakes)]
    assert seen[0] is seen[1] is host.application(app)


async def test_in_memory_no_server_is_needed(host: Host) -> None:
    orders = Orders("nats://127.0.0.1:1")
    app = host.build(
        orders.broker, own=orders.own, readiness_path="/ready", ping_path="/ping", liveness_path="/live"
    )
    for _ in range(2):
        async with TestNatsBroker(orders.broker, connect_only=False), serving(app) as served:
            assert await served.status("/ready") == 204
            assert await served.status("/ping") == 204
            assert await served.status("/live") == 204
            assert await served.text("/hello") == "tea ordered"


def test_an_unknown_keyword_is_an_error_that_lists_the_known_ones(host: Host) -> None:
    with pytest.raises(TypeError, match=r"'pong_path'.*Known are: .*ping_path"):
        host.build(NatsBroker(), pong_path="/pong")


def test_a_keyword_that_cannot_work_is_an_error(host: Host) -> None:
    with pytest.raises(SetupError, match=r'startup must be "strict" or "background", not "?\'?later'):
        host.build(NatsBroker(), startup="later")
