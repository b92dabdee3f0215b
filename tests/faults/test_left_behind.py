"""Clients after the end of a lifespan: no thread, socket or object is left, and they do not reconnect.

The broker object remains, because the application may keep it or start it again.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from faststream_adapters import BrokerLifespan
from faststream_adapters._utils.errors import BrokerStartError
from faststream_adapters._utils.tasks import cancel_and_wait
from tests.faults.test_brokers import Service
from tests.harness import leftovers
from tests.harness.brokers import ALL_HARNESSES, BrokerHarness
from tests.harness.leftovers import Held
from tests.harness.servers import HOST
from tests.harness.servers.broker import BrokerServer
from tests.harness.waiting import eventually

pytestmark = [
    pytest.mark.skipif(
        not leftovers.THREADS.exists(), reason="Only /proc lists the threads that Python does not know."
    ),
    pytest.mark.usefixtures("no_log"),
]

QUIET = 0.5
"""Seconds without a connection after which none is expected. The clients of the harnesses retry at once."""

END_TIMEOUT = 3.0
"""Seconds that threads and sockets may take to end."""


class LeakCheck:
    """Compares the resources of this process with those when this object was created.

    Args:
        harness: The harness of the broker whose clients are searched for.
    """

    def __init__(self, harness: BrokerHarness) -> None:
        self._kinds = harness.clients
        self._clients = leftovers.clients(self._kinds)
        self._held = Held.now()

    async def assert_none(self, port: int) -> None:
        """Check that nothing was left behind, and that no client connects to the port."""
        with _listening(port) as listener:
            await _stays_quiet(listener)
        with contextlib.suppress(TimeoutError):
            await eventually(lambda: not self._more(), END_TIMEOUT)
        assert str(self._more()) == ""
        clients = leftovers.clients(self._kinds)
        assert [each for each in clients if all(each is not before for before in self._clients)] == []

    def _more(self) -> Held:
        # The threads of thread pools belong to the event loop.
        return Held.now().without(self._held).without(leftovers.pools())


@contextlib.contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((HOST, port))
        listener.listen()
        listener.setblocking(False)
        yield listener


async def _accept(listener: socket.socket) -> socket.socket:
    connection, _ = await asyncio.get_running_loop().sock_accept(listener)
    return connection


async def _stays_quiet(listener: socket.socket) -> None:
    # Not asyncio.timeout(): Python 3.11 does not trace a frame again that was cancelled.
    accepting = asyncio.create_task(_accept(listener))
    connected, _ = await asyncio.wait((accepting,), timeout=QUIET)
    await cancel_and_wait(accepting)
    for task in connected:  # pragma: no cover (only when the test fails)
        task.result().close()
    assert not connected, "A client connected after the shutdown."


# A reference that is left keeps a client of librdkafka alive, so it runs always. NATS is in test_growth.py.
EACH_HARNESS = [
    pytest.param(name, marks=[] if name == "confluent" else pytest.mark.full) for name in ALL_HARNESSES
]


@pytest.fixture(params=EACH_HARNESS)
def harness(request: pytest.FixtureRequest) -> BrokerHarness:
    """Return the harness of each kind of broker whose server is installed."""
    harness = ALL_HARNESSES[request.param]
    if reason := harness.missing():  # pragma: no cover (installed where skips are forbidden)
        pytest.skip(reason)
    return harness


@pytest.fixture
def server(harness: BrokerHarness) -> Iterator[BrokerServer]:
    """Return a server that has not been started. Its port refuses connections."""
    with contextlib.closing(harness.server()) as server:
        yield server


async def test_a_shutdown_leaves_nothing_behind(harness: BrokerHarness, server: BrokerServer) -> None:
    server.start()
    leaks = LeakCheck(harness)
    service = Service(harness, harness.broker(server.url))
    for _ in range(2):
        async with service.lifespan:
            await service.works()
    server.kill()
    await leaks.assert_none(server.port)


@pytest.mark.parametrize("how", ["killed", pytest.param("frozen", marks=pytest.mark.full)])
@pytest.mark.full
async def test_a_shutdown_without_the_server_leaves_nothing_behind(
    harness: BrokerHarness, server: BrokerServer, how: str
) -> None:
    server.start()
    leaks = LeakCheck(harness)
    service = Service(harness, harness.broker(server.url))
    async with service.lifespan:
        await service.works()
        if how == "killed":
            server.kill()
        else:
            server.freeze()
    server.kill()
    await leaks.assert_none(server.port)


@pytest.mark.full
async def test_a_failed_startup_leaves_nothing_behind(harness: BrokerHarness, server: BrokerServer) -> None:
    leaks = LeakCheck(harness)
    service = Service(harness, harness.broker(server.url))
    service.lifespan = BrokerLifespan(service.broker, startup_timeout=3.0)
    with pytest.raises(BrokerStartError) as failed:
        await service.lifespan.enter()
    await leaks.assert_none(server.port)
    assert failed.value.__cause__ is not None


@pytest.mark.full
async def test_an_unfinished_background_startup_leaves_nothing_behind(
    harness: BrokerHarness, server: BrokerServer
) -> None:
    leaks = LeakCheck(harness)
    service = Service(harness, harness.broker(server.url))
    service.lifespan = BrokerLifespan(service.broker, startup="background")
    with _listening(server.port) as listener:
        async with service.lifespan:
            # The server closes each connection at once.
            for _ in range(2):
                (await _accept(listener)).close()
    await leaks.assert_none(server.port)


@pytest.mark.full
async def test_a_cancelled_startup_leaves_nothing_behind(
    harness: BrokerHarness, server: BrokerServer
) -> None:
    leaks = LeakCheck(harness)
    service = Service(harness, harness.broker(server.url))
    with _listening(server.port) as listener:
        start = asyncio.create_task(service.lifespan.enter())
        # The server does not respond.
        with await _accept(listener):
            start.cancel()
            with pytest.raises(asyncio.CancelledError):
                await start
    await leaks.assert_none(server.port)
