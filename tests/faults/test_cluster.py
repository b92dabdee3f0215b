"""Faults of a cluster of three NATS servers, whose JetStream keeps every message on each of them."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import nats as nats_py
import pytest
from nats.errors import Error as NatsError

from tests.faults.matrix import Fault, Service, row
from tests.servers import HOST, hold_port
from tests.servers.nats import NatsServer
from tests.support import eventually, eventually_status, status

SIZE = 3


@pytest.fixture
def cluster() -> Iterator[list[NatsServer]]:
    """Return the started servers of a cluster."""
    with ExitStack() as stack:
        servers, ports = [NatsServer(jetstream=True) for _ in range(SIZE)], []
        for _ in servers:
            port, held = hold_port()
            ports.append(port)
            if held is not None:  # pragma: no branch (macOS goes the other way)
                stack.enter_context(held)
        routes = ", ".join(f'"nats://{HOST}:{port}"' for port in ports)
        for server, port in zip(servers, ports, strict=True):
            server.config = f'cluster {{ name: "faults", listen: "{HOST}:{port}", routes: [{routes}] }}'
            stack.enter_context(server)
        yield servers


async def is_formed(cluster: list[NatsServer]) -> None:
    """Wait until JetStream can place a stream on all servers."""
    connection = await nats_py.connect(cluster[0].url)
    jetstream = connection.jetstream(timeout=2.0)
    formed = False
    async with asyncio.timeout(60):
        while not formed:
            with suppress(NatsError, TimeoutError):
                await jetstream.add_stream(name="probe", subjects=["probe"], num_replicas=SIZE)
                formed = True
            await asyncio.sleep(0.05)
    await connection.close()


async def server_of(service: Service, cluster: list[NatsServer]) -> NatsServer:
    """Return the server that the service is connected to, as soon as it is."""
    connection = service.broker.connection
    await eventually(lambda: connection.connected_url is not None, 30.0)
    return next(server for server in cluster if server.port == connection.connected_url.port)  # type: ignore[union-attr]


async def publishes(service: Service) -> None:
    """Publish a message, again and again until JetStream acknowledges one."""
    before = len(service.published)
    async with asyncio.timeout(60):
        while len(service.published) == before:
            with suppress(Exception):  # not acknowledged, so not promised
                await service.publish(1.0)
            await asyncio.sleep(0.05)


kinds = pytest.mark.parametrize("kind", ["push", "pull"])


@row(
    "One of the three nodes of a cluster killed, the one that the service is connected to",
    "503 at most until the client has found another node; after the election of a new leader all goes on by "
    "itself, with the node or without it",
    counts="acknowledged publishes handled",
)
@pytest.mark.full
@pytest.mark.timeout(240)
@kinds
async def test_one_node_lost(cluster: list[NatsServer], fault: Fault, kind: str) -> None:
    await is_formed(cluster)
    service = Service([server.url for server in cluster], kind, replicas=SIZE)
    async with service.lifespan:
        await publishes(service)
        for _ in range(2):
            lost = await server_of(service, cluster)
            for _ in range(20):
                await service.publish()
            # Nobody repairs it: the cluster and the client do.
            fault.repaired()
            lost.kill()
            await publishes(service)
            assert await server_of(service, cluster) is not lost
            await eventually_status(service.ready, 204, 60.0)
            await service.handled_all()
            fault.back()
            assert await status(service.live) == 204
            lost.restart()
            await is_formed(cluster)
            await service.works()
    fault.counted(len(set(service.handled)), of=len(service.published))


@row(
    "Two of the three nodes of a cluster killed",
    "publishing fails; 503 as soon as the node that is left says that its consumers have lost their leader, "
    "liveness 204; goes on by itself when one of them is back",
    counts="acknowledged publishes handled",
)
@pytest.mark.full
@pytest.mark.timeout(240)
@kinds
async def test_two_nodes_lost(cluster: list[NatsServer], fault: Fault, kind: str) -> None:
    await is_formed(cluster)
    service = Service([server.url for server in cluster], kind, replicas=SIZE)
    async with service.lifespan:
        await publishes(service)
        kept = await server_of(service, cluster)
        first, second = (server for server in cluster if server is not kept)
        for _ in range(20):
            await service.publish()
        first.kill()
        await publishes(service)
        await service.works()
        fault.happened()
        second.kill()
        with pytest.raises((TimeoutError, NatsError)):
            await service.publish(1.0)
        # For some seconds the server that is left goes on answering for its consumers.
        await eventually_status(service.ready, 503, 60.0)
        fault.told()
        assert await status(service.live) == 204
        assert await server_of(service, cluster) is kept
        fault.repaired()
        first.restart()
        await publishes(service)
        await service.works()
        fault.back()
    fault.counted(len(set(service.handled)), of=len(service.published))
