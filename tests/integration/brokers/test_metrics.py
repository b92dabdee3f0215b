"""Metrics of brokers and of the lifespans that run them."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING, Any, Literal

import pytest
from faststream import FastStream
from faststream.exceptions import SetupError
from faststream.nats import JStream, NatsBroker, PullSub, TestNatsBroker
from faststream.nats.prometheus import NatsPrometheusMiddleware
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from faststream_adapters import (
    AsgiFastStream,
    BrokerLifespan,
    HealthCheck,
    make_metrics_asgi,
    make_readiness_asgi,
)
from faststream_adapters._lifecycle import health_check, supervisor
from faststream_adapters._lifecycle.managed import managed_broker
from tests.harness.asgi_calls import http_scope, request
from tests.harness.scrapes import Scrape, scrape

if TYPE_CHECKING:
    from collections.abc import Callable

    from faststream.asgi.types import ASGIApp

    from tests.harness.servers.nats import NatsServer

PREFIX = "faststream_adapters_"


@pytest.fixture(autouse=True)
def short_check_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let supervision check the brokers often, because the metrics follow its checks."""
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.05)


def endpoint_for(*targets: Any) -> ASGIApp:
    return make_metrics_asgi(CollectorRegistry(), targets=targets)


async def scrape_until(app: ASGIApp, condition: Callable[[Scrape], bool]) -> Scrape:
    """Scrape until the metrics meet the condition, and return them."""
    async with asyncio.timeout(20):
        while not condition(metrics := await scrape(app)):  # noqa: ASYNC110 (no event to wait for)
            await asyncio.sleep(0.02)
    return metrics


def has_success(metrics: Scrape) -> bool:
    return metrics.broker_metric("last_success_timestamp_seconds") is not None


async def test_a_running_broker_is_up(shared_nats: NatsServer) -> None:
    lifespan = BrokerLifespan(NatsBroker(shared_nats.url))
    endpoint = endpoint_for(lifespan)
    before = time.time()
    async with lifespan:
        metrics = await scrape_until(endpoint, has_success)
        assert metrics.broker_metric("up") == 1
        assert metrics.states == {"running": 1}
        assert before < (metrics.broker_metric("last_success_timestamp_seconds") or 0) <= time.time()
        assert (metrics.broker_metric("round_trip_duration_seconds_count") or 0) >= 1
        assert 0 < (metrics.broker_metric("round_trip_duration_seconds_sum") or 0) < 10
        assert metrics.labels("state") == {"stopped", "starting", "running", "draining", "failed"}


@pytest.mark.parametrize("supervise", [True, False])
async def test_up_follows_a_lost_and_restored_connection(nats: NatsServer, supervise: bool) -> None:
    broker = NatsBroker(nats.url, reconnect_time_wait=0, max_reconnect_attempts=-1)
    lifespan = BrokerLifespan(broker, supervise=supervise)
    endpoint = endpoint_for(lifespan)
    async with lifespan:
        await scrape_until(endpoint, has_success)
        nats.kill()
        lost = await scrape_until(endpoint, lambda metrics: metrics.broker_metric("up") == 0)
        assert lost.states == {"running": 1}
        nats.start()
        count, last = "round_trip_duration_seconds_count", "last_success_timestamp_seconds"
        before = lost.broker_metric(count) or 0
        restored = await scrape_until(endpoint, lambda metrics: (metrics.broker_metric(count) or 0) > before)
        assert (restored.broker_metric(last) or 0) > (lost.broker_metric(last) or 0)
        assert restored.broker_metric("up") == 1


@pytest.mark.full
async def test_up_follows_a_frozen_and_thawed_server(nats: NatsServer) -> None:
    lifespan = BrokerLifespan(NatsBroker(nats.url))
    endpoint = endpoint_for(lifespan)
    async with lifespan:
        await scrape_until(endpoint, has_success)
        nats.freeze()
        await scrape_until(endpoint, lambda metrics: metrics.broker_metric("up") == 0)
        nats.thaw()
        await scrape_until(endpoint, lambda metrics: metrics.broker_metric("up") == 1)


async def test_the_state_of_the_lifespan_is_exposed(shared_nats: NatsServer) -> None:
    lifespan = BrokerLifespan(NatsBroker(shared_nats.url))
    endpoint = endpoint_for(lifespan)
    for _ in range(2):
        metrics = await scrape(endpoint)
        assert (metrics.states, metrics.broker_metric("up")) == ({"stopped": 1}, 0)
        async with lifespan:
            metrics = await scrape(endpoint)
            assert (metrics.states, metrics.broker_metric("up")) == ({"running": 1}, 1)


@pytest.mark.parametrize(("startup", "state"), [("strict", "failed"), ("background", "starting")])
async def test_a_broker_that_cannot_start_is_not_up(
    nats: NatsServer, startup: Literal["strict", "background"], state: str
) -> None:
    nats.kill()
    lifespan = BrokerLifespan(NatsBroker(nats.url), startup=startup, startup_timeout=0.2)
    endpoint = endpoint_for(lifespan)
    if startup == "strict":
        with pytest.raises(RuntimeError):
            await lifespan.enter()
        metrics = await scrape(endpoint)
    else:
        async with lifespan:
            metrics = await scrape(endpoint)
    assert (metrics.states, metrics.broker_metric("up")) == ({state: 1}, 0)
    assert not has_success(metrics)
    assert metrics.broker_metric("round_trip_duration_seconds_count") == 0


async def test_brokers_of_the_same_class_have_different_labels(
    shared_nats: NatsServer, nats: NatsServer
) -> None:
    first, second = NatsBroker(shared_nats.url), NatsBroker(nats.url)
    lifespan = BrokerLifespan(first, second, optional=[second])
    endpoint = endpoint_for(lifespan)
    async with lifespan:
        metrics = await scrape_until(endpoint, has_success)
        assert metrics.labels("broker") == {"NatsBroker 1", "NatsBroker 2"}
        nats.kill()
        metrics = await scrape_until(
            endpoint, lambda metrics: metrics.broker_metric("up", "NatsBroker 2") == 0
        )
        assert metrics.broker_metric("up", "NatsBroker 1") == 1


async def test_a_broker_added_by_a_startup_hook_is_included(shared_nats: NatsServer) -> None:
    app = FastStream()

    @app.on_startup
    async def add() -> None:
        app.add_broker(NatsBroker(shared_nats.url))

    lifespan = BrokerLifespan(app)
    endpoint = endpoint_for(lifespan)
    async with lifespan:
        metrics = await scrape_until(endpoint, has_success)
        assert metrics.broker_metric("up") == 1


async def test_a_scrape_does_not_check_the_broker(shared_nats: NatsServer) -> None:
    broker = NatsBroker(shared_nats.url)
    async with broker:
        metrics = await scrape(endpoint_for(broker))
        assert managed_broker(broker).broker_check.last is None
    # The application has started the broker itself, without a lifespan.
    assert (metrics.broker_metric("up"), metrics.states) == (0, {"stopped": 1})


async def test_a_broker_as_target_includes_the_lifespan_that_runs_it(shared_nats: NatsServer) -> None:
    broker = NatsBroker(shared_nats.url)
    endpoint = endpoint_for(broker)
    async with BrokerLifespan(broker):
        metrics = await scrape_until(endpoint, has_success)
        assert (metrics.broker_metric("up"), metrics.states) == (1, {"running": 1})


async def test_a_broker_under_a_test_broker_is_up() -> None:
    broker = NatsBroker("nats://127.0.0.1:1")
    lifespan = BrokerLifespan(broker)
    endpoint = endpoint_for(lifespan)
    async with TestNatsBroker(broker), lifespan:
        metrics = await scrape(endpoint)
    assert (metrics.broker_metric("up"), metrics.states) == (1, {"running": 1})


async def test_several_apps_do_not_collide_and_leave_no_metrics_behind(shared_nats: NatsServer) -> None:
    before = {metric.name for metric in REGISTRY.collect()}
    broker = NatsBroker(shared_nats.url)
    first, second = (AsgiFastStream(broker, metrics_path="/metrics") for _ in range(2))
    other = AsgiFastStream(NatsBroker(shared_nats.url), metrics_path="/metrics")
    for app in (first, second, first):
        # Two apps use one broker in turn, while a third app runs.
        async with app, other:
            for each in (app, other):
                metrics = await scrape(each, "/metrics")
                assert (metrics.broker_metric("up"), metrics.states) == (1, {"running": 1})
    assert {metric.name for metric in REGISTRY.collect()} == before


async def test_an_unused_endpoint_is_garbage_collected(shared_nats: NatsServer) -> None:
    broker = NatsBroker(shared_nats.url)
    lifespan = BrokerLifespan(broker)
    observers = (lifespan.status.observers, managed_broker(broker).broker_check.observers)
    before = [len(each) for each in observers]
    endpoint = endpoint_for(lifespan)
    async with lifespan:
        await scrape_until(endpoint, has_success)
        assert [len(each) for each in observers] == [each + 1 for each in before]
        del endpoint
        gc.collect()
        assert [len(each) for each in observers] == before


async def test_metrics_of_brokers_can_be_selected_by_name(shared_nats: NatsServer) -> None:
    lifespan = BrokerLifespan(NatsBroker(shared_nats.url))
    async with lifespan:
        metrics = await scrape(endpoint_for(lifespan), f"/?name[]={PREFIX}broker_up")
    assert metrics.broker_metric("up") == 1
    assert metrics.states == {}


def test_a_target_of_the_wrong_type_is_rejected() -> None:
    with pytest.raises(SetupError, match="not str"):
        endpoint_for("broker")


async def test_metrics_of_the_faststream_middleware_are_exposed(shared_nats: NatsServer) -> None:
    registry = CollectorRegistry()
    broker = NatsBroker(shared_nats.url, middlewares=[NatsPrometheusMiddleware(registry=registry)])

    @broker.subscriber("metrics.in")
    async def handle(message: str) -> str:
        return message

    app = AsgiFastStream(broker, metrics_path="/metrics", metrics_registry=registry)
    async with app:
        await broker.request("hello", "metrics.in", timeout=5)
        reply = await request(app, http_scope("/metrics/"))
    assert reply.body.startswith(generate_latest(registry))
    assert b'handler="metrics.in"' in reply.body


# Readiness, subscribers and checks


def on_jetstream(broker: NatsBroker, subject: str = "jobs", durable: str = "worker") -> Any:
    """Subscribe to a stream by a durable consumer, and return the subscriber."""
    subscriber = broker.subscriber(subject, stream=JStream("jobs"), durable=durable, pull_sub=PullSub())
    subscriber(handle)
    return subscriber


async def handle(message: str) -> None: ...


async def agree(ready: ASGIApp, endpoint: ASGIApp, code: str, up: float | None) -> None:
    """Wait until readiness has this code, and check that the metrics agree within two seconds."""
    async with asyncio.timeout(20):
        while (await code_of(ready)) != code:  # noqa: ASYNC110 (no event to wait for)
            await asyncio.sleep(0.02)
    async with asyncio.timeout(2):
        await scrape_until(
            endpoint,
            lambda metrics: (metrics(f"{PREFIX}ready"), subscriber_up(metrics)) == (code == "ok", up),
        )


async def code_of(probe: ASGIApp) -> str:
    return (await request(probe, http_scope())).body.decode()


def subscriber_up(metrics: Scrape, name: str = "handle") -> float | None:
    return metrics(f"{PREFIX}subscriber_up", broker="NatsBroker 1", subscriber=name)


@pytest.mark.timeout(60)
async def test_ready_agrees_with_readiness(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url, reconnect_time_wait=0, max_reconnect_attempts=-1)
    broker.subscriber("jobs")(handle)
    lifespan = BrokerLifespan(broker)
    endpoint, ready = endpoint_for(lifespan), make_readiness_asgi(lifespan)
    await agree(ready, endpoint, "not_started", None)
    async with lifespan:
        await agree(ready, endpoint, "ok", 1)
        nats.kill()
        await agree(ready, endpoint, "unreachable", 1)
        nats.start()
        await agree(ready, endpoint, "ok", 1)
    await agree(ready, endpoint, "not_started", None)


@pytest.mark.parametrize(
    "optional",
    [
        "nothing",
        pytest.param("the broker", marks=pytest.mark.full),
        pytest.param("the subscriber", marks=pytest.mark.full),
    ],
)
async def test_a_consumer_that_is_paused_on_the_server_is_not_up(
    nats_js: NatsServer, optional: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "SUBSCRIBERS_INTERVAL", 0.1)
    broker = NatsBroker(nats_js.url)
    subscriber = on_jetstream(broker)
    lifespan = BrokerLifespan(
        broker, optional={"nothing": [], "the broker": [broker], "the subscriber": [subscriber]}[optional]
    )
    endpoint, ready = endpoint_for(lifespan), make_readiness_asgi(lifespan)
    async with lifespan:
        await scrape_until(endpoint, lambda metrics: subscriber_up(metrics) == 1)
        context = broker.connection.jetstream()
        await context.pause_consumer("jobs", "worker", "2999-01-01T00:00:00Z")
        metrics = await scrape_until(endpoint, lambda metrics: subscriber_up(metrics) == 0)
        assert metrics(f"{PREFIX}ready") == (optional != "nothing")
        assert await code_of(ready) == ("consumer_paused" if optional == "nothing" else "ok")
        await context.resume_consumer("jobs", "worker")
        await agree(ready, endpoint, "ok", 1)


async def test_a_subscriber_that_is_not_meant_to_consume_has_no_sample(shared_nats: NatsServer) -> None:
    broker = NatsBroker(shared_nats.url)
    subscriber = broker.subscriber("metrics.stopped")
    subscriber(handle)
    consuming, publishing = BrokerLifespan(broker), BrokerLifespan(broker, consume=False)
    endpoint = endpoint_for(broker)
    async with consuming:
        assert subscriber_up(await scrape(endpoint)) == 1
        await subscriber.stop()
        metrics = await scrape_until(endpoint, lambda metrics: subscriber_up(metrics) is None)
        assert metrics(f"{PREFIX}ready") == 1
        await subscriber.start()
        await scrape_until(endpoint, lambda metrics: subscriber_up(metrics) == 1)
        await consuming.pause(subscriber)
        metrics = await scrape(endpoint)
        assert (metrics(f"{PREFIX}ready"), subscriber_up(metrics)) == (1, None)
        await consuming.resume(subscriber)
        assert subscriber_up(await scrape(endpoint)) == 1
    async with publishing:
        metrics = await scrape(endpoint)
        assert (metrics(f"{PREFIX}ready"), subscriber_up(metrics)) == (1, None)


async def test_subscribers_of_the_same_name_have_different_labels(shared_nats: NatsServer) -> None:
    broker = NatsBroker(shared_nats.url)
    for subject in ("metrics.first", "metrics.second"):
        broker.subscriber(subject)(handle)
    lifespan = BrokerLifespan(broker)
    endpoint = endpoint_for(lifespan)
    async with lifespan:
        metrics = await scrape(endpoint)
    assert metrics.labels("subscriber") == {"handle@metrics.first", "handle@metrics.second"}


async def test_the_oldest_message_is_exposed(shared_nats: NatsServer) -> None:
    started, finish = asyncio.Event(), asyncio.Event()
    broker = NatsBroker(shared_nats.url)

    @broker.subscriber("metrics.oldest")
    async def work(message: str) -> None:
        started.set()
        await finish.wait()

    def oldest(metrics: Scrape) -> float | None:
        return metrics(f"{PREFIX}subscriber_oldest_message_seconds", broker="NatsBroker 1", subscriber="work")

    lifespan = BrokerLifespan(broker)
    endpoint = endpoint_for(lifespan)
    async with lifespan:
        assert oldest(await scrape(endpoint)) == 0
        await broker.publish("work", "metrics.oldest")
        await started.wait()
        await scrape_until(endpoint, lambda metrics: (oldest(metrics) or 0) > 0.1)
        finish.set()
        await scrape_until(endpoint, lambda metrics: oldest(metrics) == 0)


async def test_what_a_handler_receives_by_itself_is_no_message_of_its_subscriber(
    shared_nats: NatsServer,
) -> None:
    fetched: list[object] = []
    broker = NatsBroker(shared_nats.url)
    other = broker.subscriber("metrics.other")

    @broker.subscriber("metrics.fetching")
    async def fetch(message: str) -> None:
        fetched.append(await other.get_one(timeout=20))

    lifespan = BrokerLifespan(broker)
    endpoint_for(lifespan)
    async with lifespan:
        await broker.publish("go", "metrics.fetching")
        async with asyncio.timeout(20):
            while not fetched:
                await broker.publish("tea", "metrics.other")
                await asyncio.sleep(0.01)
        await lifespan.idle(20)
        [info] = lifespan.subscribers
    assert (info.received, info.failed, info.in_flight, info.oldest_seconds) == (1, 0, 0, 0)


async def test_dropped_messages_are_counted(shared_nats: NatsServer) -> None:
    finish = asyncio.Event()
    broker = NatsBroker(shared_nats.url, logger=None)

    @broker.subscriber("metrics.dropped", pending_msgs_limit=10)
    async def work(message: str) -> None:
        await finish.wait()

    def dropped(metrics: Scrape) -> float | None:
        return metrics(f"{PREFIX}subscriber_dropped_total", broker="NatsBroker 1", subscriber="work")

    lifespan = BrokerLifespan(broker)
    endpoint = endpoint_for(lifespan)
    async with lifespan:
        assert dropped(await scrape(endpoint)) == 0
        for _ in range(100):
            await broker.publish("work", "metrics.dropped")
        await scrape_until(endpoint, lambda metrics: (dropped(metrics) or 0) >= 80)
        finish.set()


async def test_restarts_by_supervision_are_counted(shared_nats: NatsServer) -> None:
    broker = NatsBroker(shared_nats.url)
    lifespan = BrokerLifespan(broker)
    endpoint = endpoint_for(lifespan)
    async with lifespan:
        assert (await scrape(endpoint)).broker_metric("restarts_total") == 0
        await broker.connection.close()
        await scrape_until(endpoint, lambda metrics: metrics.broker_metric("restarts_total") == 1)
        await scrape_until(endpoint, lambda metrics: metrics(f"{PREFIX}ready") == 1)


@pytest.mark.parametrize(
    ("of_lifespan", "optional"),
    [
        (True, False),
        (False, True),
        *(pytest.param(each, each, marks=pytest.mark.full) for each in (True, False)),
    ],
)
async def test_a_health_check_is_asked_and_exposed(
    shared_nats: NatsServer, optional: bool, of_lifespan: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_check, "_MIN_POLL_INTERVAL", 0.05)
    passes = True
    check = HealthCheck("database", lambda: passes)
    broker = NatsBroker(shared_nats.url)
    lifespan = BrokerLifespan(broker, checks=[check], optional=[check] if optional else [])
    endpoint = endpoint_for(lifespan if of_lifespan else broker)
    name = f"{PREFIX}check_up"
    assert (await scrape(endpoint))(name, check="database") is None
    async with lifespan:
        await scrape_until(endpoint, lambda metrics: metrics(name, check="database") == 1)
        passes = False
        metrics = await scrape_until(endpoint, lambda metrics: metrics(name, check="database") == 0)
        assert metrics(f"{PREFIX}ready") == optional
        passes = True
        metrics = await scrape_until(endpoint, lambda metrics: metrics(name, check="database") == 1)
        assert metrics(f"{PREFIX}ready") == 1
    assert (await scrape(endpoint))(name, check="database") is None


async def test_of_two_checks_of_the_same_name_the_one_that_fails_counts(shared_nats: NatsServer) -> None:
    broker = NatsBroker(shared_nats.url)
    first = BrokerLifespan(broker, checks=[HealthCheck("database", lambda: False)])
    second = BrokerLifespan(broker, checks=[HealthCheck("database", lambda: True)])
    endpoint = endpoint_for(broker)
    async with first, second:
        await scrape_until(endpoint, lambda metrics: metrics(f"{PREFIX}check_up", check="database") == 0)


async def test_subscribers_under_a_test_broker_are_up() -> None:
    broker = NatsBroker("nats://127.0.0.1:1")
    broker.subscriber("jobs")(handle)
    lifespan = BrokerLifespan(broker)
    endpoint = endpoint_for(lifespan)
    async with TestNatsBroker(broker), lifespan:
        await broker.publish("work", "jobs")
        metrics = await scrape(endpoint)
        assert (metrics(f"{PREFIX}ready"), subscriber_up(metrics)) == (1, 1)
        assert metrics.labels("shared") == set()
