"""BrokerCheck on real NATS servers: callers in other threads, and a blocked event loop."""

import asyncio
import threading
import time

import pytest
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker

from faststream_adapters import BrokerLifespan, make_ping_asgi, make_readiness_asgi
from faststream_adapters._lifecycle.broker_check import BrokerCheck, Result
from faststream_adapters._lifecycle.managed import managed_broker
from tests.harness.clients import status
from tests.harness.servers.nats import NatsFactory, NatsServer
from tests.harness.waiting import eventually


async def run_check(broker_check: BrokerCheck, seconds: float) -> Result:
    return await broker_check.check(seconds)


async def test_a_reply_that_arrives_while_the_event_loop_is_blocked_counts(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    ping = make_ping_asgi(broker, timeout=0.3)
    async with broker:
        assert await status(ping) == 204
        broker_check = managed_broker(broker).broker_check
        pending = broker_check.check(0.3)
        await asyncio.sleep(0)
        time.sleep(0.5)  # noqa: ASYNC251 (blocks the event loop on purpose)
        assert (await pending).code == "ok"


async def test_probes_can_run_in_another_thread(nats: NatsServer) -> None:
    """A probe server may run in another thread, which must not use the client of the broker."""
    broker = NatsBroker(nats.url)
    handled: set[int] = set()

    @broker.subscriber("numbers")
    async def handle(number: int) -> None:
        handled.add(number)

    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan)
    statuses: list[int] = []

    async def probe() -> None:
        statuses.extend([await status(ready) for _ in range(20)])

    async with lifespan:
        thread = threading.Thread(target=asyncio.run, args=(probe(),))
        thread.start()
        while thread.is_alive():
            statuses.append(await status(ready))
        await broker.publish(1, "numbers")
        await eventually(lambda: 1 in handled)
        nats.freeze()
        broker_check = managed_broker(broker).broker_check
        check_in_thread = asyncio.create_task(asyncio.to_thread(asyncio.run, run_check(broker_check, 0.1)))
        assert (await check_in_thread).code == "timeout"
        nats.thaw()
    assert set(statuses) == {200}


async def test_a_running_lifespan_cannot_be_entered_in_another_event_loop(nats: NatsServer) -> None:
    lifespan = BrokerLifespan(NatsBroker(nats.url))
    async with lifespan:
        with pytest.raises(SetupError, match="This lifespan runs in another event loop: give each"):
            await asyncio.to_thread(asyncio.run, lifespan.enter())
    async with lifespan:
        pass


def test_entering_a_lifespan_that_was_not_left_in_an_ended_event_loop_raises(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    lifespan = BrokerLifespan(broker)

    async def abandon() -> None:
        await lifespan.enter()
        # Close the connection in the event loop that opened it.
        await broker.stop()

    asyncio.run(abandon())
    with pytest.raises(SetupError, match="was not left when its event loop ended"):
        asyncio.run(lifespan.enter())


async def test_continuous_pings_do_not_prevent_a_reconnect(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url, reconnect_time_wait=0)
    async with BrokerLifespan(broker):
        ping = make_ping_asgi(broker)
        nats.stop()
        await eventually(lambda: broker.connection.is_reconnecting)
        nats.start()
        async with asyncio.timeout(30):
            while await status(ping) != 204:
                ...


async def test_broker_checks_from_another_thread_share_one_deadline(
    nats_factory: NatsFactory,
) -> None:
    servers = [nats_factory() for _ in range(3)]
    brokers = [NatsBroker(server.url) for server in servers]
    lifespan = BrokerLifespan(*brokers, shutdown_timeout=1.0)
    ready = make_readiness_asgi(lifespan, timeout=0.5)
    async with lifespan:
        assert await asyncio.to_thread(asyncio.run, status(ready)) == 200
        for server in servers:
            server.freeze()
        started = time.monotonic()
        assert await asyncio.to_thread(asyncio.run, status(ready)) == 503
        assert time.monotonic() - started < 1.0
        for server in servers:
            server.thaw()
