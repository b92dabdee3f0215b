"""`on_health_change` with real servers: what it reports agrees with readiness and its details."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from faststream.nats import JStream, NatsBroker, PullSub

from faststream_adapters import BrokerLifespan, BrokerStartError, HealthChange, make_readiness_asgi
from faststream_adapters._lifecycle import subscriber_monitor, supervisor
from tests.harness.brokers import HARNESSES, BrokerHarness
from tests.harness.clients import client, eventually_status, status
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from faststream_adapters._compat.faststream import Broker
    from tests.harness.servers.nats import NatsServer

AGREEMENT = 2.0
"""Seconds within which changes and readiness agree."""

RECOVERY_TIMEOUT = 60.0

harnesses = pytest.mark.parametrize(
    "harness",
    [
        pytest.param(harness, id=name, marks=[] if name == "nats" else pytest.mark.full)
        for name, harness in HARNESSES.items()
    ],
)


class Changes:
    """A hook, and the changes that it got."""

    def __init__(self) -> None:
        self.all: list[HealthChange] = []

    async def __call__(self, change: HealthChange) -> None:
        self.all.append(change)

    def codes(self, kind: str) -> list[str]:
        """Return the codes that components of a kind had, in order; checks that no change is missing."""
        changes = [change for change in self.all if change.kind == kind]
        for name in {change.name for change in changes}:
            own = [change for change in changes if change.name == name]
            assert own[0].old == "not_started"
            assert all(before.new == after.old != after.new for before, after in pairwise(own)), own
        return [change.new for change in changes]

    def last(self, kind: str) -> str:
        """Return the code that was reported last for a kind."""
        return (self.codes(kind) or ["not_started"])[-1]


async def handle(number: int) -> None: ...


async def entries_of(app: Any) -> set[tuple[str, str, str]]:
    """Return the kind, the name and the code of each component in the details of a probe."""
    async with client(app) as http:
        body = (await http.get("/")).json()
    return {
        (entry["componentType"], entry["componentId"], entry["code"])
        for entries in body["checks"].values()
        for entry in entries
    }


def server_of(harness: BrokerHarness) -> Any:
    if reason := harness.missing():  # pragma: no cover (installed where skips are forbidden)
        pytest.skip(reason)
    return harness.server()


def consumer(harness: BrokerHarness, url: str) -> Broker:
    broker = harness.broker(url)
    harness.subscribe(broker, "numbers", handle)
    return broker


@harnesses
@pytest.mark.parametrize("how", ["kill", pytest.param("freeze", marks=pytest.mark.full)])
@pytest.mark.timeout(180)
async def test_a_lost_broker_is_reported_with_readiness(harness: BrokerHarness, how: str) -> None:
    with server_of(harness) as server:
        changes = Changes()
        lifespan = BrokerLifespan(consumer(harness, server.url), on_health_change=changes)
        ready, details = make_readiness_asgi(lifespan), make_readiness_asgi(lifespan, details=True)
        async with lifespan:
            await eventually(lambda: (changes.last("broker"), changes.last("subscriber")) == ("ok", "ok"))
            assert {(each.kind, each.name, each.new) for each in changes.all} == await entries_of(details)
            getattr(server, how)()
            await eventually_status(ready, 503, RECOVERY_TIMEOUT)
            await eventually(lambda: changes.last("broker") != "ok", AGREEMENT)
            server.thaw() if how == "freeze" else server.start()
            await eventually_status(ready, 200, RECOVERY_TIMEOUT)
            await eventually(lambda: changes.last("broker") == "ok", AGREEMENT)
        assert changes.last("broker") == "ok"


@harnesses
async def test_a_start_that_fails_reports_why(harness: BrokerHarness) -> None:
    changes = Changes()
    broker = consumer(harness, harness.unreachable_url())
    with pytest.raises(BrokerStartError):
        await BrokerLifespan(broker, startup_timeout=5.0, on_health_change=changes).enter()
    # A client that has not given up yet has no error.
    assert changes.codes("broker") in (["unreachable"], [])
    assert changes.codes("subscriber") == []


@harnesses
@pytest.mark.parametrize("optional", [True, pytest.param(False, marks=pytest.mark.full)])
@pytest.mark.timeout(180)
@pytest.mark.full
async def test_a_broker_that_comes_up_late_is_reported(harness: BrokerHarness, optional: bool) -> None:
    with server_of(harness) as server:
        url = server.url
        server.stop()
        broker = consumer(harness, url)
        changes = Changes()
        keywords: Any = {"optional": [broker]} if optional else {"startup": "background"}
        async with BrokerLifespan(broker, on_health_change=changes, **keywords):
            await eventually(lambda: changes.last("broker") in {"unreachable", "timeout"}, RECOVERY_TIMEOUT)
            assert changes.codes("subscriber") == []
            server.start()
            await eventually(lambda: changes.last("broker") == "ok", RECOVERY_TIMEOUT)
            await eventually(lambda: changes.last("subscriber") == "ok", AGREEMENT)
        # No fault in between that the client knew of itself. It is not started when it has connected.
        assert set(changes.codes("broker")[:-1]) <= {"unreachable", "timeout", "not_started"}


@harnesses
@pytest.mark.full
@pytest.mark.timeout(180)
async def test_a_broker_that_is_restarted_is_reported(harness: BrokerHarness) -> None:
    with server_of(harness) as server:
        changes = Changes()
        broker, seconds = harness.broker_that_gives_up(server.url)
        harness.subscribe(broker, "numbers", handle)
        lifespan = BrokerLifespan(broker, on_health_change=changes)
        ready = make_readiness_asgi(lifespan)
        async with lifespan:
            await eventually_status(ready, 200, RECOVERY_TIMEOUT)
            server.kill()
            await eventually_status(ready, 503, RECOVERY_TIMEOUT)
            # The fault lasts for a fixed time.
            await asyncio.sleep(seconds)
            assert changes.last("broker") != "ok"
            server.start()
            await eventually_status(ready, 200, RECOVERY_TIMEOUT)
            await eventually(lambda: changes.last("broker") == changes.last("subscriber") == "ok", AGREEMENT)


async def test_a_new_run_does_not_report_the_fault_of_the_last_one(nats: NatsServer) -> None:
    changes, broker = Changes(), NatsBroker(nats.url, reconnect_time_wait=0, logger=None)
    lifespan = BrokerLifespan(broker, shutdown_timeout=0.1, on_health_change=changes)
    async with lifespan:
        nats.kill()
        await eventually_status(make_readiness_asgi(lifespan), 503)
        await eventually(lambda: changes.last("broker") != "ok")
    nats.restart()
    changes.all.clear()
    async with lifespan:
        await eventually(lambda: changes.codes("broker") == ["ok"])
        assert await status(make_readiness_asgi(lifespan)) == 200
    assert changes.codes("broker") == ["ok"]


async def test_a_paused_consumer_is_reported_with_readiness(
    nats_js: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervisor, "SUBSCRIBERS_INTERVAL", 0.1)
    monkeypatch.setattr(subscriber_monitor, "RETRY_INTERVAL", 0.1)
    changes, broker = Changes(), NatsBroker(nats_js.url, logger=None)
    broker.subscriber("jobs", stream=JStream("jobs"), durable="worker", pull_sub=PullSub(timeout=0.5))(handle)
    lifespan = BrokerLifespan(broker, on_health_change=changes)
    ready = make_readiness_asgi(lifespan)
    async with lifespan:
        jetstream = broker.connection.jetstream()
        await jetstream.pause_consumer("jobs", "worker", "2999-01-01T00:00:00Z")
        await eventually_status(ready, 503)
        await eventually(lambda: changes.last("subscriber") == "consumer_paused", AGREEMENT)
        await jetstream.resume_consumer("jobs", "worker")
        await eventually_status(ready, 200)
        await eventually(lambda: changes.last("subscriber") == "ok", AGREEMENT)
    assert changes.codes("subscriber") == ["ok", "consumer_paused", "ok"]
    assert changes.codes("broker") == ["ok"]


async def test_a_lifespan_reports_on_a_broker_that_another_one_has_left(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url, reconnect_time_wait=0, logger=None)
    left, staying = Changes(), Changes()
    first = BrokerLifespan(broker, on_health_change=left)
    second = BrokerLifespan(broker, on_health_change=staying)
    async with second:
        async with first:
            await eventually(lambda: left.codes("broker") == staying.codes("broker") == ["ok"])
        nats.kill()
        await eventually_status(make_readiness_asgi(second), 503)
        await eventually(lambda: staying.last("broker") != "ok", AGREEMENT)
        nats.restart()
        await eventually(lambda: staying.last("broker") == "ok")
    assert left.codes("broker") == ["ok"]
