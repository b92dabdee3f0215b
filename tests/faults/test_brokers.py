"""What every kind of broker has to stand, measured for each: docs/faults.md has a line for each of them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest

from faststream_adapters import BrokerLifespan, make_liveness_asgi, make_readiness_asgi, supervision
from faststream_adapters._compat import Broker
from faststream_adapters.lifespan import BrokerStartError
from tests.faults.matrix import Fault, row
from tests.kits import KITS, Kit
from tests.servers.broker import BrokerServer
from tests.support import eventually, eventually_status, status

PLACES = tuple(f"{kit.title}, in process" for kit in KITS.values())
KEEPING = [name for name, kit in KITS.items() if kit.keeps_handlers]
CHANNEL = "numbers"
LAST = 1_000_000
"""A number that is not used otherwise."""
UP_AGAIN = 60.0
"""Seconds that a kind of broker may take to work again; the slowest needs most of them on a busy machine."""

pytestmark = pytest.mark.timeout(180)


class Service:
    """A consumer, its lifespan and its probes."""

    def __init__(self, kit: Kit, broker: Broker) -> None:
        self.kit = kit
        self.broker = broker
        self.lifespan = BrokerLifespan(broker)
        self.ready = make_readiness_asgi(broker)
        self.live = make_liveness_asgi(broker)
        self.handled: set[int] = set()
        kit.subscribe(broker, CHANNEL, self.handle)

    async def handle(self, number: int) -> None:
        self.handled.add(number)

    async def works(self) -> None:
        """Wait until readiness says 204 and a message goes through."""
        await eventually_status(self.ready, 204, UP_AGAIN)
        number = max(self.handled, default=0)
        async with asyncio.timeout(UP_AGAIN):
            # Again and again: some kinds drop what is published before their subscriber is back.
            while max(self.handled, default=0) <= number:
                await self.kit.publish(self.broker, number + 1, CHANNEL)
                await self._arrives(number + 1)

    async def _arrives(self, number: int) -> None:
        with suppress(TimeoutError):
            await eventually(lambda: number in self.handled, 1.0)

    async def is_lost(self, fault: Fault, seconds: float = 15.0) -> None:
        """Wait until readiness has told of the fault; liveness must not, a restart would not help."""
        await eventually_status(self.ready, 503, seconds)
        fault.told()
        assert await status(self.live) == 204

    async def is_back(self, fault: Fault) -> None:
        """Wait until the service works after the repair."""
        await self.works()
        fault.back()
        assert await status(self.live) == 204


@pytest.fixture(params=KITS)
def kit(request: pytest.FixtureRequest) -> Kit:
    """Return each kind of broker whose server can be started here."""
    kit = KITS[request.param]
    if reason := kit.missing():  # pragma: no cover (where nothing may be skipped, nothing is missing)
        pytest.skip(reason)
    return kit


@pytest.fixture
def server(kit: Kit) -> Iterator[BrokerServer]:
    """Return a server that runs; the test may do to it what it likes."""
    with kit.server() as server:
        yield server


@pytest.fixture
async def service(kit: Kit, server: BrokerServer, fault: Fault) -> AsyncIterator[Service]:
    """Return a service that works."""
    fault.at(f"{kit.title}, in process")
    service = Service(kit, kit.broker(server.url))
    async with service.lifespan:
        await service.works()
        yield service


@row(
    "Any broker killed and restarted",
    "503 while it is away, liveness 204; consumes again by itself",
    where=PLACES,
)
async def test_killed_and_restarted(service: Service, server: BrokerServer, fault: Fault) -> None:
    fault.happened()
    server.kill()
    await service.is_lost(fault)
    fault.repaired()
    server.start()
    await service.is_back(fault)


@row(
    "Any broker frozen, and thawed",
    "503 while it does not answer, liveness 204; consumes again by itself",
    where=PLACES,
)
@pytest.mark.full
async def test_frozen(service: Service, server: BrokerServer, fault: Fault) -> None:
    fault.happened()
    server.freeze()
    await service.is_lost(fault)
    fault.repaired()
    server.thaw()
    await service.is_back(fault)


@row(
    'Any broker down at the start, `startup="strict"`',
    "the start fails with an error that says so; nothing is left behind, and it can be tried again",
    where=PLACES,
)
@pytest.mark.full
async def test_down_at_the_start(kit: Kit, server: BrokerServer, fault: Fault) -> None:
    fault.at(f"{kit.title}, in process")
    server.stop()
    service = Service(kit, kit.broker(server.url))
    service.lifespan = BrokerLifespan(service.broker, startup_timeout=3.0)
    fault.happened()
    with pytest.raises(BrokerStartError, match=r"could not be started.*: the connection was refused"):
        await service.lifespan.enter()
    fault.told()
    assert str(service.lifespan.state) == "failed"
    assert await status(service.ready) == 503
    fault.repaired()
    server.start()
    service.lifespan = BrokerLifespan(service.broker)
    async with service.lifespan:
        await service.is_back(fault)


@row(
    'Any broker down at the start, `startup="background"`',
    "503 from the first moment, liveness 204; comes up by itself when the server does",
    where=PLACES,
)
@pytest.mark.full
async def test_up_late(kit: Kit, server: BrokerServer, fault: Fault) -> None:
    fault.at(f"{kit.title}, in process")
    server.stop()
    service = Service(kit, kit.broker(server.url))
    service.lifespan = BrokerLifespan(service.broker, startup="background")
    fault.happened()
    async with service.lifespan:
        await service.is_lost(fault)
        # As late as it takes for a first try to fail.
        run = supervision.run_of(service.broker)
        await eventually(lambda: run.error is not None)
        fault.repaired()
        server.start()
        await service.is_back(fault)


@row(
    "Any broker down for longer than its client retries",
    "503 while it is away, liveness 204; whatever the client does, it consumes again when the server is back",
    where=PLACES,
)
@pytest.mark.full
async def test_down_for_longer_than_the_client_retries(kit: Kit, server: BrokerServer, fault: Fault) -> None:
    fault.at(f"{kit.title}, in process")
    broker, seconds = kit.impatient(server.url)
    service = Service(kit, broker)
    async with service.lifespan:
        await service.works()
        fault.happened()
        server.kill()
        await service.is_lost(fault)
        # That time has to pass is the fault itself.
        await asyncio.sleep(seconds)
        assert await status(service.live) == 204
        fault.repaired()
        server.start()
        await service.is_back(fault)


@row(
    "Any broker killed while a message is handled, and the service stops",
    "the handler finishes, within `shutdown_timeout`",
    where=tuple(f"{KITS[name].title}, in process" for name in KEEPING),
)
@pytest.mark.parametrize("kit", KEEPING, indirect=True)
async def test_a_handler_finishes_without_its_server(
    kit: Kit,
    server: BrokerServer,
    fault: Fault,
) -> None:
    fault.at(f"{kit.title}, in process")
    begun, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Slow(Service):
        async def handle(self, number: int) -> None:
            if number == LAST:
                begun.set()
                await go_on.wait()
                ended.set()
            await super().handle(number)

    service = Slow(kit, kit.broker(server.url))
    await service.lifespan.enter()
    await service.works()
    await kit.publish(service.broker, LAST, CHANNEL)
    await asyncio.wait_for(begun.wait(), UP_AGAIN)
    server.kill()
    await eventually_status(service.ready, 503)
    async with asyncio.TaskGroup() as tasks:
        stopping = tasks.create_task(service.lifespan.leave())
        # As late as it takes to find out that the server is away.
        run = supervision.run_of(service.broker)
        await eventually(lambda: not run.up)
        await status(service.ready)
        assert not stopping.done()
        go_on.set()
    assert ended.is_set()
