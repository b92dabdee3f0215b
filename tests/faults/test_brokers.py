"""Faults that are tested with each kind of broker. docs/faults.md has a row for each of them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest

from faststream_adapters import BrokerLifespan, make_liveness_asgi, make_readiness_asgi
from faststream_adapters._compat.faststream import Broker
from faststream_adapters._lifecycle.managed import managed_broker
from faststream_adapters._utils.errors import BrokerStartError
from tests.faults.matrix import Fault, row
from tests.harness.brokers import ALL_HARNESSES, HARNESSES, BrokerHarness
from tests.harness.clients import eventually_status, status
from tests.harness.servers.broker import BrokerServer
from tests.harness.waiting import eventually

PLACES = tuple(f"{harness.title}, in process" for harness in HARNESSES.values())
KEEPING = [name for name, harness in HARNESSES.items() if harness.keeps_handlers]
CHANNEL = "numbers"
LAST = 1_000_000
"""The number of the last message. No other message has it."""
RECOVERY_TIMEOUT = 60.0
"""Seconds that a broker may take to recover. The slowest kind needs most of them on a busy machine."""

pytestmark = pytest.mark.timeout(180)


class Service:
    """A consumer, its lifespan and its probes."""

    def __init__(self, harness: BrokerHarness, broker: Broker) -> None:
        self.harness = harness
        self.broker = broker
        self.lifespan = BrokerLifespan(broker)
        self.ready = make_readiness_asgi(broker)
        self.live = make_liveness_asgi(broker)
        self.handled: set[int] = set()
        harness.subscribe(broker, CHANNEL, self.handle)

    async def handle(self, number: int) -> None:
        self.handled.add(number)

    async def works(self) -> None:
        """Wait until readiness is 200 and a new message is handled."""
        await eventually_status(self.ready, 200, RECOVERY_TIMEOUT)
        number = max(self.handled, default=0)
        async with asyncio.timeout(RECOVERY_TIMEOUT):
            # Repeatedly, because some brokers drop messages until the subscriber has reconnected.
            while max(self.handled, default=0) <= number:
                await self.harness.publish(self.broker, number + 1, CHANNEL)
                await self._arrives(number + 1)

    async def _arrives(self, number: int) -> None:
        with suppress(TimeoutError):
            await eventually(lambda: number in self.handled, 0.2)

    async def becomes_unready(self, fault: Fault, seconds: float = 15.0) -> None:
        """Wait until readiness fails. Liveness succeeds, because a restart would not help."""
        await eventually_status(self.ready, 503, seconds)
        fault.not_ready()
        assert await status(self.live) == 200

    async def recovers(self, fault: Fault) -> None:
        """Wait until the service works after the repair."""
        await self.works()
        fault.ready()
        assert await status(self.live) == 200


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.full if harness.starts_slowly else [])
        for name, harness in HARNESSES.items()
    ]
)
def harness(request: pytest.FixtureRequest) -> BrokerHarness:
    """Return the harness of each kind of broker whose server is installed."""
    harness = HARNESSES[request.param]
    if reason := harness.missing():  # pragma: no cover (installed where skips are forbidden)
        pytest.skip(reason)
    return harness


@pytest.fixture
def server(harness: BrokerHarness) -> Iterator[BrokerServer]:
    """Return a started server, which only this test uses."""
    with harness.server() as server:
        yield server


@pytest.fixture
async def service(harness: BrokerHarness, server: BrokerServer, fault: Fault) -> AsyncIterator[Service]:
    """Return a service that works."""
    fault.at(f"{harness.title}, in process")
    service = Service(harness, harness.broker(server.url))
    async with service.lifespan:
        await service.works()
        yield service


@row(
    "Any broker killed and restarted",
    "503 while the server is down, liveness 200; recovers by itself",
    where=PLACES,
)
async def test_readiness_fails_while_the_server_is_down(
    service: Service, server: BrokerServer, fault: Fault
) -> None:
    fault.happened()
    server.kill()
    await service.becomes_unready(fault)
    fault.repaired()
    server.start()
    await service.recovers(fault)


@row(
    "Any broker frozen and thawed",
    "503 while the server does not respond, liveness 200; recovers by itself",
    where=PLACES,
)
@pytest.mark.full
async def test_readiness_fails_while_the_server_is_frozen(
    service: Service, server: BrokerServer, fault: Fault
) -> None:
    fault.happened()
    server.freeze()
    await service.becomes_unready(fault)
    fault.repaired()
    server.thaw()
    await service.recovers(fault)


@row(
    'Any broker down at startup, `startup="strict"`',
    "the startup fails with an error that says why; nothing is left behind, and it can be tried again",
    where=PLACES,
)
@pytest.mark.full
async def test_a_strict_startup_fails_while_the_server_is_down(
    harness: BrokerHarness, server: BrokerServer, fault: Fault
) -> None:
    fault.at(f"{harness.title}, in process")
    server.stop()
    service = Service(harness, harness.broker(server.url))
    service.lifespan = BrokerLifespan(service.broker, startup_timeout=3.0)
    fault.happened()
    with pytest.raises(BrokerStartError, match=r"could not be started.*: the connection was refused"):
        await service.lifespan.enter()
    fault.not_ready()
    assert str(service.lifespan.state) == "failed"
    assert await status(service.ready) == 503
    fault.repaired()
    server.start()
    service.lifespan = BrokerLifespan(service.broker)
    async with service.lifespan:
        await service.recovers(fault)


@row(
    'Any broker down at startup, `startup="background"`',
    "503 at once, liveness 200; recovers by itself when the server is up",
    where=PLACES,
)
@pytest.mark.full
async def test_a_background_startup_succeeds_when_the_server_comes_up(
    harness: BrokerHarness, server: BrokerServer, fault: Fault
) -> None:
    fault.at(f"{harness.title}, in process")
    server.stop()
    service = Service(harness, harness.broker(server.url))
    service.lifespan = BrokerLifespan(service.broker, startup="background")
    fault.happened()
    async with service.lifespan:
        await service.becomes_unready(fault)
        # The server comes up after the first attempt has failed.
        managed = managed_broker(service.broker)
        await eventually(lambda: managed.error is not None)
        fault.repaired()
        server.start()
        await service.recovers(fault)


@row(
    "Any broker down for longer than its client retries",
    "503 while the server is down, liveness 200; recovers when the server is up again, whatever the "
    "client does",
    where=PLACES,
)
@pytest.mark.full
async def test_the_service_recovers_after_the_client_has_given_up(
    harness: BrokerHarness, server: BrokerServer, fault: Fault
) -> None:
    fault.at(f"{harness.title}, in process")
    broker, seconds = harness.broker_that_gives_up(server.url)
    service = Service(harness, broker)
    async with service.lifespan:
        await service.works()
        fault.happened()
        server.kill()
        await service.becomes_unready(fault)
        # The fault lasts for a fixed time.
        await asyncio.sleep(seconds)
        assert await status(service.live) == 200
        fault.repaired()
        server.start()
        await service.recovers(fault)


@row(
    "Any broker killed while a message is handled, and the service stops",
    "the handler finishes within `shutdown_timeout`",
    where=tuple(f"{HARNESSES[name].title}, in process" for name in KEEPING),
)
@pytest.mark.parametrize("harness", KEEPING, indirect=True)
async def test_a_handler_finishes_while_the_server_is_down(
    harness: BrokerHarness,
    server: BrokerServer,
    fault: Fault,
) -> None:
    fault.at(f"{harness.title}, in process")
    started, resume, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Slow(Service):
        async def handle(self, number: int) -> None:
            if number == LAST:
                started.set()
                await resume.wait()
                finished.set()
            await super().handle(number)

    service = Slow(harness, harness.broker(server.url))
    await service.lifespan.enter()
    await service.works()
    await harness.publish(service.broker, LAST, CHANNEL)
    await asyncio.wait_for(started.wait(), RECOVERY_TIMEOUT)
    server.kill()
    await eventually_status(service.ready, 503)
    async with asyncio.TaskGroup() as tasks:
        stopping = tasks.create_task(service.lifespan.leave())
        # The handler resumes after the loss of the connection has been detected.
        managed = managed_broker(service.broker)
        await eventually(lambda: not managed.up)
        await status(service.ready)
        assert not stopping.done()
        resume.set()
    assert finished.is_set()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if harness.starts_fast else pytest.mark.full)
        for name, harness in ALL_HARNESSES.items()
    ],
)
async def test_a_check_that_is_cancelled_leaves_the_client_usable(name: str) -> None:
    """Its reply arrives after the cancellation, at whatever await that is."""
    harness = ALL_HARNESSES[name]
    if reason := harness.missing():  # pragma: no cover (installed where skips are forbidden)
        pytest.skip(reason)
    with harness.server() as server:
        service = Service(harness, harness.broker(server.url))
        # Supervision would repair a client that is not usable.
        service.lifespan = BrokerLifespan(service.broker, supervise=False)
        driver = managed_broker(service.broker).driver
        async with service.lifespan:
            await service.works()
            clients = driver.client
            for turns in range(5):
                server.freeze()
                check = asyncio.create_task(driver.check())
                for _ in range(turns):
                    await asyncio.sleep(0)
                check.cancel()
                await asyncio.wait((check,))
                server.thaw()
                await service.works()
            assert driver.client is clients
