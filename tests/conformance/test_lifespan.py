"""The start and the stop of the brokers, in every host."""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest
from faststream import FastStream
from faststream.nats import NatsBroker

from faststream_adapters import HealthChange, HealthCheck
from tests.conformance.orders import Orders
from tests.harness.clients import client
from tests.harness.hosts import HostApp, StartupFailedError, serving
from tests.harness.servers import hold_port
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faststream.asgi.types import ASGIApp

    from tests.harness.hosts import Host
    from tests.harness.servers.nats import NatsServer


@pytest.fixture
def refusing_broker() -> Iterator[NatsBroker]:
    """Return a broker whose server refuses connections."""
    port, held = hold_port()
    with held or nullcontext():
        yield NatsBroker(f"nats://user:hunter2@127.0.0.1:{port}")


class Log:
    """The events of a host and its broker, in order. Events of the host include the state of the broker."""

    def __init__(self, broker: NatsBroker) -> None:
        self.lines: list[str] = []
        self._broker = broker

    def host_app(self) -> HostApp:
        return HostApp(on_startup=lambda: self._add("host up"), on_shutdown=lambda: self._add("host down"))

    def _add(self, what: str) -> None:
        self.lines.append(f"{what}, broker {'up' if self._broker.running else 'down'}")

    def state(self, _: str, new: str) -> None:
        if new in {"running", "draining"}:
            self.lines.append(new)


async def test_an_application_without_a_broker_starts_and_is_not_ready(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    app = host.build(
        FastStream(),
        readiness_path="/ready",
        liveness_path="/live",
        startup_path="/started",
        probe_details=True,
    )
    async with serving(app) as served, client(served.app) as http:
        response = await http.get("/ready")
        assert response.status_code == 503
        body = response.json()
        assert (body["status"], body["code"], body["state"], body["checks"]) == (
            "fail",
            "no_brokers",
            ["running"],
            {},
        )
        assert [await served.status(path) for path in ("/live", "/started")] == [200, 200]
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "has no broker" in warning
    assert "add_broker()" in warning


async def test_a_broker_that_a_hook_adds_counts(
    host: Host, orders: Orders, caplog: pytest.LogCaptureFixture
) -> None:
    target = FastStream()
    target.on_startup(lambda: target.add_broker(orders.broker))
    app = host.build(target, readiness_path="/ready")
    async with serving(app) as served:
        assert await served.status("/ready") == 200
    assert "has no broker" not in caplog.text


async def test_the_broker_runs_within_the_lifespan_of_the_host(host: Host, orders: Orders) -> None:
    """It starts after the host's resources and stops before them. Readiness fails while handlers finish."""
    log = Log(orders.broker)
    app = host.build(
        orders.broker,
        host_app=log.host_app(),
        on_state_change=log.state,
        drain_delay=0.05,
        readiness_path="/ready",
        liveness_path="/live",
    )

    async def while_draining(app: ASGIApp) -> None:
        await eventually(lambda: log.lines[-1] == "draining")
        async with client(app) as http:
            assert (await http.get("/ready")).status_code == 503
            assert (await http.get("/live")).status_code == 200
        log.lines.append("the handler finishes")
        orders.free.set()

    async with asyncio.TaskGroup() as tasks, serving(app) as served:
        assert await served.status("/ready") == 200
        orders.free.clear()
        order = tasks.create_task(orders.place())
        await orders.started.wait()
        tasks.create_task(while_draining(served.app))
    assert order.result() == "tea ordered"
    expected = ["running", "draining", "the handler finishes"]
    if host.resources:
        expected = ["host up, broker down", *expected, "host down, broker down"]
    assert log.lines == expected
    assert not orders.broker.running


@pytest.mark.slow_start
async def test_changes_of_the_health_are_reported(host: Host, orders: Orders) -> None:
    changes: list[HealthChange] = []
    checks = [HealthCheck("database", lambda: None)]
    app = host.build(
        orders.broker,
        checks=checks,
        on_health_change=changes.append,
        readiness_path="/ready",
        probe_details=True,
    )
    async with serving(app) as served, client(served.app) as http:
        await eventually(lambda: len(changes) == 3)
        body = (await http.get("/ready")).json()
    assert {(each.old, each.new) for each in changes} == {("not_started", "ok")}
    assert [(each.kind, each.name) for each in changes] == [
        (entry["componentType"], entry["componentId"])
        for entries in body["checks"].values()
        for entry in entries
    ]


@pytest.mark.needs("state")
async def test_requests_receive_the_lifespan_state_of_the_host(host: Host, orders: Orders) -> None:
    host_app = HostApp(state={"greeting": "good morning"})
    async with serving(host.build(orders.broker, host_app=host_app, readiness_path="/ready")) as served:
        assert await served.text("/state") == "good morning"
        assert await served.status("/ready") == 200


async def test_the_server_need_not_support_lifespan_state(host: Host, orders: Orders) -> None:
    async with serving(host.build(orders.broker, host_app=orders.host_app), state=False) as served:
        assert await served.text("/hello") == "tea ordered"


@pytest.mark.slow_start
async def test_startup_fails_if_the_broker_is_unreachable(host: Host, refusing_broker: NatsBroker) -> None:
    """The host closes its resources, and the message to the server has the reason without the password."""
    log = Log(refusing_broker)
    app = host.build(refusing_broker, host_app=log.host_app(), on_state_change=log.state, startup_timeout=0.2)
    with pytest.raises(StartupFailedError) as failed:
        async with serving(app):
            pytest.fail("It started without a NATS server.")
    assert "could not be started within 0.2 s: the connection was refused" in str(failed.value)
    assert "hunter2" not in str(failed.value)
    assert log.lines == (["host up, broker down", "host down, broker down"] if host.resources else [])
    assert not refusing_broker.running


@pytest.mark.needs("resources")
async def test_the_broker_is_stopped_if_the_startup_of_the_host_fails(host: Host, orders: Orders) -> None:
    states: list[str] = []

    def up() -> None:
        raise KeyError("the startup of the host")

    app = host.build(
        orders.broker,
        host_app=HostApp(on_startup=up),
        on_state_change=lambda _, new: states.append(new),
    )
    with pytest.raises(StartupFailedError):
        async with serving(app):
            pytest.fail("It started without the host.")
    assert "running" not in states
    assert not orders.broker.running
    # The broker can be used again at once.
    async with orders.broker:
        await orders.broker.start()
        assert await orders.place() == "tea ordered"


async def test_a_background_startup_succeeds_when_the_server_comes_up(
    host: Host, late_nats: NatsServer
) -> None:
    orders = Orders(late_nats.url)
    app = host.build(
        orders.broker,
        host_app=orders.host_app,
        startup="background",
        readiness_path="/ready",
        liveness_path="/live",
        startup_path="/started",
    )
    async with serving(app) as served:
        assert await served.status("/ready") == 503
        assert await served.status("/started") == 503
        assert await served.status("/live") == 200
        late_nats.start()
        async with asyncio.timeout(15):
            while await served.status("/ready") != 200:  # noqa: ASYNC110 (a probe can only be polled)
                await asyncio.sleep(0.02)
        assert await served.status("/started") == 200
        assert await served.text("/hello") == "tea ordered"


async def test_the_same_application_can_be_served_again(host: Host, orders: Orders) -> None:
    app = host.build(orders.broker, host_app=orders.host_app, readiness_path="/ready")
    for _ in range(3):
        async with serving(app) as served:
            assert await served.status("/ready") == 200
            assert await served.text("/hello") == "tea ordered"
        assert not orders.broker.running


def test_the_same_application_can_be_served_in_another_event_loop(host: Host, orders: Orders) -> None:
    app = host.build(orders.broker, host_app=orders.host_app, readiness_path="/ready")

    async def serve() -> None:
        async with serving(app) as served:
            assert await served.status("/ready") == 200
            assert await served.text("/hello") == "tea ordered"

    for _ in range(3):
        asyncio.run(serve())


@pytest.mark.slow_start
async def test_startup_succeeds_after_a_failed_startup(host: Host, late_nats: NatsServer) -> None:
    orders = Orders(late_nats.url)
    app = host.build(orders.broker, host_app=orders.host_app, startup_timeout=0.5, readiness_path="/ready")
    with pytest.raises(StartupFailedError):
        async with serving(app):
            pytest.fail("It started without a NATS server.")
    late_nats.start()
    async with serving(app) as served:
        assert await served.status("/ready") == 200
        assert await served.text("/hello") == "tea ordered"


async def test_startup_fails_if_another_host_runs_the_broker(host: Host, orders: Orders) -> None:
    first, second = (host.build(orders.broker, host_app=orders.host_app) for _ in range(2))
    async with serving(first) as served:
        with pytest.raises(StartupFailedError, match="already run by another host application"):
            async with serving(second):
                pytest.fail("It started with the other's broker.")
        assert await served.text("/hello") == "tea ordered"
