"""What the metrics say of brokers, and of the lifespan that runs them."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING, Any, Literal

import pytest
from faststream import FastStream
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker, TestNatsBroker
from prometheus_client import REGISTRY, CollectorRegistry

from faststream_adapters import AsgiFastStream, BrokerLifespan, make_metrics_asgi
from faststream_adapters.supervision import run_of
from tests.metrics.scrapes import Scrape, scrape

if TYPE_CHECKING:
    from collections.abc import Callable

    from faststream.asgi.types import ASGIApp

    from tests.servers.nats import NatsServer

OURS = "faststream_adapters_"


def metrics_of(*targets: Any) -> ASGIApp:
    return make_metrics_asgi(CollectorRegistry(), targets=targets)


async def until(app: ASGIApp, right: Callable[[Scrape], bool]) -> Scrape:
    """Scrape until the answer is right, and return it."""
    async with asyncio.timeout(20):
        while not right(found := await scrape(app)):  # noqa: ASYNC110 (it is told by nothing else)
            await asyncio.sleep(0.02)
    return found


def seen(found: Scrape) -> bool:
    return found.ours("last_success_timestamp_seconds") is not None


async def test_a_broker_that_is_well(shared_nats: NatsServer) -> None:
    lifespan = BrokerLifespan(NatsBroker(shared_nats.url))
    metrics = metrics_of(lifespan)
    before = time.time()
    async with lifespan:
        found = await until(metrics, seen)
        assert found.ours("up") == 1
        assert found.states == {"running": 1}
        assert before < (found.ours("last_success_timestamp_seconds") or 0) <= time.time()
        assert (found.ours("round_trip_duration_seconds_count") or 0) >= 1
        assert 0 < (found.ours("round_trip_duration_seconds_sum") or 0) < 10
        assert found.labels("state") == {"stopped", "starting", "running", "draining", "failed"}


@pytest.mark.parametrize("supervise", [True, False])
async def test_a_broker_that_is_lost_and_comes_back(nats: NatsServer, supervise: bool) -> None:
    broker = NatsBroker(nats.url, reconnect_time_wait=0, max_reconnect_attempts=-1)
    lifespan = BrokerLifespan(broker, supervise=supervise)
    metrics = metrics_of(lifespan)
    async with lifespan:
        await until(metrics, seen)
        nats.kill()
        lost = await until(metrics, lambda found: found.ours("up") == 0)
        assert lost.states == {"running": 1}
        nats.start()
        count, last = "round_trip_duration_seconds_count", "last_success_timestamp_seconds"
        back = await until(metrics, lambda found: (found.ours(count) or 0) > (lost.ours(count) or 0))
        assert (back.ours(last) or 0) > (lost.ours(last) or 0)
        assert back.ours("up") == 1


@pytest.mark.full
async def test_a_server_that_is_frozen(nats: NatsServer) -> None:
    lifespan = BrokerLifespan(NatsBroker(nats.url))
    metrics = metrics_of(lifespan)
    async with lifespan:
        await until(metrics, seen)
        nats.freeze()
        await until(metrics, lambda found: found.ours("up") == 0)
        nats.thaw()
        await until(metrics, lambda found: found.ours("up") == 1)


async def test_every_state_is_shown(shared_nats: NatsServer) -> None:
    lifespan = BrokerLifespan(NatsBroker(shared_nats.url))
    metrics = metrics_of(lifespan)
    for _ in range(2):
        found = await scrape(metrics)
        assert (found.states, found.ours("up")) == ({"stopped": 1}, 0)
        async with lifespan:
            found = await scrape(metrics)
            assert (found.states, found.ours("up")) == ({"running": 1}, 1)


@pytest.mark.parametrize(("startup", "state"), [("strict", "failed"), ("background", "starting")])
async def test_a_broker_that_was_never_there(
    nats: NatsServer, startup: Literal["strict", "background"], state: str
) -> None:
    nats.kill()
    lifespan = BrokerLifespan(NatsBroker(nats.url), startup=startup, startup_timeout=0.2)
    metrics = metrics_of(lifespan)
    if startup == "strict":
        with pytest.raises(RuntimeError):
            await lifespan.enter()
        found = await scrape(metrics)
    else:
        async with lifespan:
            found = await scrape(metrics)
    assert (found.states, found.ours("up")) == ({state: 1}, 0)
    assert not seen(found)
    assert found.ours("round_trip_duration_seconds_count") == 0


async def test_brokers_of_one_kind_are_told_apart(shared_nats: NatsServer, nats: NatsServer) -> None:
    here, there = NatsBroker(shared_nats.url), NatsBroker(nats.url)
    lifespan = BrokerLifespan(here, there, optional=[there])
    metrics = metrics_of(lifespan)
    async with lifespan:
        found = await until(metrics, seen)
        assert found.labels("broker") == {"NatsBroker 1", "NatsBroker 2"}
        nats.kill()
        found = await until(metrics, lambda found: found.ours("up", "NatsBroker 2") == 0)
        assert found.ours("up", "NatsBroker 1") == 1


async def test_a_broker_that_is_added_at_the_start(shared_nats: NatsServer) -> None:
    app = FastStream()

    @app.on_startup
    async def add() -> None:
        app.add_broker(NatsBroker(shared_nats.url))

    lifespan = BrokerLifespan(app)
    metrics = metrics_of(lifespan)
    async with lifespan:
        found = await until(metrics, seen)
        assert found.ours("up") == 1


async def test_a_scrape_asks_no_broker(shared_nats: NatsServer) -> None:
    broker = NatsBroker(shared_nats.url)
    async with broker:
        found = await scrape(metrics_of(broker))
        assert run_of(broker).round_trips.last is None
    # Nobody of ours has started it.
    assert (found.ours("up"), found.states) == (0, {"stopped": 1})


async def test_brokers_are_shown_with_the_lifespan_that_runs_them(shared_nats: NatsServer) -> None:
    broker = NatsBroker(shared_nats.url)
    metrics = metrics_of(broker)
    async with BrokerLifespan(broker):
        found = await until(metrics, seen)
        assert (found.ours("up"), found.states) == (1, {"running": 1})


async def test_under_a_test_broker() -> None:
    broker = NatsBroker("nats://127.0.0.1:1")
    lifespan = BrokerLifespan(broker)
    metrics = metrics_of(lifespan)
    async with TestNatsBroker(broker), lifespan:
        found = await scrape(metrics)
    assert (found.ours("up"), found.states) == (1, {"running": 1})


async def test_nothing_is_registered_twice_or_left_behind(shared_nats: NatsServer) -> None:
    before = {metric.name for metric in REGISTRY.collect()}
    broker = NatsBroker(shared_nats.url)
    first, second = (AsgiFastStream(broker, metrics_path="/metrics") for _ in range(2))
    other = AsgiFastStream(NatsBroker(shared_nats.url), metrics_path="/metrics")
    for app in (first, second, first):
        # One after the other on one broker, and two at once in the process.
        async with app, other:
            for each in (app, other):
                found = await scrape(each, "/metrics")
                assert (found.ours("up"), found.states) == (1, {"running": 1})
    assert {metric.name for metric in REGISTRY.collect()} == before


async def test_nobody_holds_an_endpoint_that_is_gone(shared_nats: NatsServer) -> None:
    broker = NatsBroker(shared_nats.url)
    lifespan = BrokerLifespan(broker)
    metrics = metrics_of(lifespan)
    async with lifespan:
        await until(metrics, seen)
        assert len(lifespan.observers) == len(run_of(broker).round_trips.observers) == 1
        del metrics
        gc.collect()
        assert len(lifespan.observers) == len(run_of(broker).round_trips.observers) == 0


async def test_by_name(shared_nats: NatsServer) -> None:
    lifespan = BrokerLifespan(NatsBroker(shared_nats.url))
    async with lifespan:
        found = await scrape(metrics_of(lifespan), f"/?name[]={OURS}broker_up")
    assert found.ours("up") == 1
    assert found.states == {}


def test_targets_that_are_none() -> None:
    with pytest.raises(SetupError, match="not str"):
        metrics_of("broker")
