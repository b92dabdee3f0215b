"""When the brokers start and stop, in every host."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest
from faststream.nats import NatsBroker

from tests.conformance.orders import Orders
from tests.hosts import Own, StartupFailedError, serving
from tests.servers import hold_port
from tests.support import client, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faststream.asgi.types import ASGIApp

    from tests.hosts import Host
    from tests.servers.nats import NatsServer


@pytest.fixture
def nowhere() -> Iterator[NatsBroker]:
    """Return a broker whose server refuses connections."""
    port, held = hold_port()
    with held or nullcontext():
        yield NatsBroker(f"nats://user:hunter2@127.0.0.1:{port}")


class Log:
    """What happened, in order; says of the host's resources whether the broker is up meanwhile."""

    def __init__(self, broker: NatsBroker) -> None:
        self.lines: list[str] = []
        self._broker = broker

    def own(self) -> Own:
        return Own(up=lambda: self._add("host up"), down=lambda: self._add("host down"))

    def _add(self, what: str) -> None:
        self.lines.append(f"{what}, broker {'up' if self._broker.running else 'down'}")

    def state(self, _: str, new: str) -> None:
        if new in {"running", "draining"}:
            self.lines.append(new)


async def test_the_broker_is_up_as_long_as_the_host_serves(host: Host, orders: Orders) -> None:
    """Not before its resources, not longer than they are; handlers may finish, and readiness says so."""
    log = Log(orders.broker)
    app = host.build(
        orders.broker,
        own=log.own(),
        on_state_change=log.state,
        drain_delay=0.05,
        readiness_path="/ready",
        liveness_path="/live",
    )

    async def while_draining(app: ASGIApp) -> None:
        await eventually(lambda: log.lines[-1] == "draining")
        async with client(app) as http:
            assert (await http.get("/ready")).status_code == 503
            assert (await http.get("/live")).status_code == 204
        log.lines.append("the handler may finish")
        orders.free.set()

    async with asyncio.TaskGroup() as tasks, serving(app) as served:
        assert await served.status("/ready") == 204
        orders.free.clear()
        order = tasks.create_task(orders.place())
        await orders.begun.wait()
        tasks.create_task(while_draining(served.app))
    assert order.result() == "tea ordered"
    expected = ["running", "draining", "the handler may finish"]
    if host.resources:
        expected = ["host up, broker down", *expected, "host down, broker down"]
    assert log.lines == expected
    assert not orders.broker.running


@pytest.mark.needs("state")
async def test_what_the_hosts_lifespan_hands_to_requests_arrives(host: Host, orders: Orders) -> None:
    own = Own(state={"greeting": "good morning"})
    async with serving(host.build(orders.broker, own=own, readiness_path="/ready")) as served:
        assert await served.text("/state") == "good morning"
        assert await served.status("/ready") == 204


async def test_a_server_without_lifespan_state_will_do(host: Host, orders: Orders) -> None:
    async with serving(host.build(orders.broker, own=orders.own), state=False) as served:
        assert await served.text("/hello") == "tea ordered"


async def test_a_broker_that_cannot_be_reached_fails_the_start(host: Host, nowhere: NatsBroker) -> None:
    """The host's resources are closed again, and the server is told why, but no password."""
    log = Log(nowhere)
    app = host.build(nowhere, own=log.own(), on_state_change=log.state, startup_timeout=0.2)
    with pytest.raises(StartupFailedError) as failed:
        async with serving(app):
            pytest.fail("It started without a NATS server.")
    assert "could not be started within 0.2 s: the connection was refused" in str(failed.value)
    assert "hunter2" not in str(failed.value)
    assert log.lines == (["host up, broker down", "host down, broker down"] if host.resources else [])
    assert not nowhere.running


@pytest.mark.needs("resources")
async def test_a_host_that_cannot_start_leaves_no_broker_up(host: Host, orders: Orders) -> None:
    states: list[str] = []

    def up() -> None:
        raise KeyError("the host's own problem")

    app = host.build(
        orders.broker,
        own=Own(up=up),
        on_state_change=lambda _, new: states.append(new),
    )
    with pytest.raises(StartupFailedError):
        async with serving(app):
            pytest.fail("It started without the host.")
    assert "running" not in states
    assert not orders.broker.running
    # It could be used elsewhere at once.
    async with orders.broker:
        await orders.broker.start()
        assert await orders.place() == "tea ordered"


async def test_the_host_can_start_before_the_broker(host: Host, late_nats: NatsServer) -> None:
    orders = Orders(late_nats.url)
    app = host.build(
        orders.broker,
        own=orders.own,
        startup="background",
        readiness_path="/ready",
        liveness_path="/live",
        startup_path="/started",
    )
    async with serving(app) as served:
        assert await served.status("/ready") == 503
        assert await served.status("/started") == 503
        assert await served.status("/live") == 204
        late_nats.start()
        async with asyncio.timeout(15):
            while await served.status("/ready") != 204:  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.02)
        assert await served.status("/started") == 204
        assert await served.text("/hello") == "tea ordered"


async def test_the_same_application_can_be_served_again(host: Host, orders: Orders) -> None:
    app = host.build(orders.broker, own=orders.own, readiness_path="/ready")
    for _ in range(3):
        async with serving(app) as served:
            assert await served.status("/ready") == 204
            assert await served.text("/hello") == "tea ordered"
        assert not orders.broker.running


def test_the_same_application_can_be_served_in_another_event_loop(host: Host, orders: Orders) -> None:
    app = host.build(orders.broker, own=orders.own, readiness_path="/ready")

    async def serve() -> None:
        async with serving(app) as served:
            assert await served.status("/ready") == 204
            assert await served.text("/hello") == "tea ordered"

    for _ in range(3):
        asyncio.run(serve())


async def test_it_starts_after_a_start_that_failed(host: Host, late_nats: NatsServer) -> None:
    orders = Orders(late_nats.url)
    app = host.build(orders.broker, own=orders.own, startup_timeout=0.5, readiness_path="/ready")
    with pytest.raises(StartupFailedError):
        async with serving(app):
            pytest.fail("It started without a NATS server.")
    late_nats.start()
    async with serving(app) as served:
        assert await served.status("/ready") == 204
        assert await served.text("/hello") == "tea ordered"


async def test_two_hosts_cannot_have_one_broker(host: Host, orders: Orders) -> None:
    first, second = (host.build(orders.broker, own=orders.own) for _ in range(2))
    async with serving(first) as served:
        with pytest.raises(StartupFailedError, match="already run by another host application"):
            async with serving(second):
                pytest.fail("It started with the other's broker.")
        assert await served.text("/hello") == "tea ordered"
