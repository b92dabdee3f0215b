"""Faults of a cluster of three NATS servers.

With JetStream, each message is stored on all of them. Without it, the client lists one server, and learns the
addresses of the others from the cluster.
"""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from faststream.nats.security import NatsCredentials, NatsNKey, NatsSecurity, NatsToken
from faststream.security import SASLPlaintext
from nats.aio.client import Client
from nats.errors import Error as NatsError

from faststream_adapters._lifecycle import supervisor
from tests.faults.matrix import Fault, Service, row
from tests.harness.clients import eventually_status, status
from tests.harness.servers.nats import NatsServer, nats_cluster, tls, wait_until_formed
from tests.harness.servers.nats_keys import Account, Key
from tests.harness.waiting import eventually

SIZE = 3


@pytest.fixture
def cluster() -> Iterator[list[NatsServer]]:
    """Return the started servers of a cluster."""
    with nats_cluster(SIZE, jetstream=True) as servers:
        yield servers


async def server_of(service: Service, cluster: list[NatsServer]) -> NatsServer:
    """Wait until the service is connected, and return the server that it is connected to."""
    connection = service.broker.connection
    await eventually(lambda: connection.connected_url is not None, 30.0)
    return next(server for server in cluster if server.port == connection.connected_url.port)  # type: ignore[union-attr]


async def publish_until_acknowledged(service: Service) -> None:
    """Publish repeatedly until JetStream acknowledges a message."""
    before = len(service.published)
    async with asyncio.timeout(60):
        while len(service.published) == before:
            with suppress(Exception):  # not acknowledged, so it may be lost
                await service.publish(1.0)
            await asyncio.sleep(0.05)


kinds = pytest.mark.parametrize("kind", ["push", "pull"])


@row(
    "One of three cluster nodes killed, the one that the service is connected to",
    "503 at most until the client has connected to another node; recovers by itself after the election of "
    "a new leader, with or without the node",
    counts="acknowledged publishes handled",
)
@pytest.mark.full
@pytest.mark.timeout(240)
@kinds
async def test_messages_survive_the_loss_of_one_node(
    cluster: list[NatsServer], fault: Fault, kind: str
) -> None:
    await wait_until_formed(cluster)
    service = Service([server.url for server in cluster], kind, replicas=SIZE)
    async with service.lifespan:
        await publish_until_acknowledged(service)
        for _ in range(2):
            lost = await server_of(service, cluster)
            for _ in range(20):
                await service.publish()
            # The repair starts with the fault: the cluster and the client recover by themselves.
            fault.repaired()
            lost.kill()
            await publish_until_acknowledged(service)
            assert await server_of(service, cluster) is not lost
            await eventually_status(service.ready, 200, 60.0)
            await service.handled_all()
            fault.ready()
            assert await status(service.live) == 200
            lost.restart()
            await wait_until_formed(cluster)
            await service.works()
    fault.counted(len(set(service.handled)), of=len(service.published))


@row(
    "Two of three cluster nodes killed",
    "publishing fails; 503 once the remaining node reports that its consumers have no leader, liveness "
    "200; recovers by itself when another node is up again",
    counts="acknowledged publishes handled",
)
@pytest.mark.full
@pytest.mark.timeout(240)
@kinds
async def test_readiness_fails_without_a_quorum(cluster: list[NatsServer], fault: Fault, kind: str) -> None:
    await wait_until_formed(cluster)
    service = Service([server.url for server in cluster], kind, replicas=SIZE)
    async with service.lifespan:
        await publish_until_acknowledged(service)
        kept = await server_of(service, cluster)
        first, second = (server for server in cluster if server is not kept)
        for _ in range(20):
            await service.publish()
        first.kill()
        await publish_until_acknowledged(service)
        await service.works()
        fault.happened()
        second.kill()
        with pytest.raises((TimeoutError, NatsError)):
            await service.publish(1.0)
        # For some seconds, the remaining server still reports its consumers as healthy.
        await eventually_status(service.ready, 503, 60.0)
        fault.not_ready()
        assert await status(service.live) == 200
        assert await server_of(service, cluster) is kept
        fault.repaired()
        first.restart()
        await publish_until_acknowledged(service)
        await service.works()
        fault.ready()
    fault.counted(len(set(service.handled)), of=len(service.published))


LOGINS: dict[str, dict[str, Any]] = {
    "user and password in the URL": {"user": "user", "password": "secret"},
    "SASLPlaintext": {"user": "user", "password": "secret"},
    "token in the URL": {"token": "secret"},
    "NatsToken": {"token": "secret"},
    "NatsNKey": {},
    "NatsCredentials": {},
}

RECONNECTED_WITHIN = 2.0
"""Seconds until the service has to work again when another node is up."""


@contextmanager
def cluster_with_login(
    login: str, directory: Path, certificate: Path | None = None, config: str = "", listed: int = 1
) -> Iterator[tuple[list[NatsServer], Service]]:
    """Start a cluster that requires a login, and return it with a service that lists its first servers."""
    context = ssl.create_default_context(cafile=certificate) if certificate else None
    security: Any = NatsSecurity(ssl_context=context)
    configs = [config, tls(certificate) if certificate else ""]
    if login == "SASLPlaintext":
        security = SASLPlaintext("user", "secret", ssl_context=context)
    elif login == "NatsToken":
        security = NatsToken("secret", ssl_context=context)
    elif login == "NatsNKey":
        key = Key()
        configs.append(f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}")
        security = NatsNKey.from_seed(key.seed, ssl_context=context)
    elif login == "NatsCredentials":
        account = Account()
        configs.append(account.config)
        (directory / "user.creds").write_text(account.credentials())
        security = NatsCredentials.from_file(directory / "user.creds", ssl_context=context)
    with nats_cluster(SIZE, config="\n".join(configs), **LOGINS[login]) as cluster:
        urls = [server.url if "URL" in login else server.safe_url for server in cluster[:listed]]
        # With nats-py's own default, which a service of the other tests replaces by 0.
        yield cluster, Service(urls, client={"security": security, "reconnect_time_wait": 2})


async def knows_all_servers(service: Service) -> None:
    """Wait until the client has been told the addresses of all servers."""
    client = service.broker.connection
    await eventually(lambda: len({url.port for url in client.servers}) == SIZE)


def reconnects(service: Service) -> int:
    return service.broker.connection.stats["reconnects"]


logins = pytest.mark.parametrize(
    "login", [name if "user" in name else pytest.param(name, marks=pytest.mark.full) for name in LOGINS]
)


@row(
    "One of three cluster nodes killed, the only one that the client lists",
    "503 at most until the client has connected to another node, whose address the cluster advertises; any "
    "kind of login, with and without TLS",
)
@pytest.mark.parametrize(
    "encrypted", [False, pytest.param(True, marks=pytest.mark.full)], ids=["plain", "TLS"]
)
@logins
async def test_the_service_moves_to_a_node_that_it_does_not_list(
    fault: Fault, login: str, tmp_path: Path, certificate: Path, *, encrypted: bool
) -> None:
    with cluster_with_login(login, tmp_path, certificate if encrypted else None) as (cluster, service):
        async with service.lifespan:
            await service.works()
            await knows_all_servers(service)
            fault.repaired()
            cluster[0].kill()
            async with asyncio.timeout(RECONNECTED_WITHIN):
                await service.works()
            fault.ready()
            assert await server_of(service, cluster) is not cluster[0]


@row(
    "Three cluster nodes restarted one after the other",
    "503 at most until the client has connected to another node; it lists one of them, or all",
)
@pytest.mark.full
@pytest.mark.parametrize("listed", [1, SIZE])
async def test_the_service_survives_a_rolling_restart(fault: Fault, tmp_path: Path, listed: int) -> None:
    with cluster_with_login("user and password in the URL", tmp_path, listed=listed) as (cluster, service):
        async with service.lifespan:
            await service.works()
            await knows_all_servers(service)
            for restarted in cluster * 2:
                moves = await server_of(service, cluster) is restarted
                before = reconnects(service)
                fault.repaired()
                restart = asyncio.create_task(asyncio.to_thread(restarted.restart))
                async with asyncio.timeout(RECONNECTED_WITHIN):
                    await eventually(lambda: not moves or reconnects(service) > before)  # noqa: B023 (awaited here)
                    await service.works()
                fault.ready()
                await restart


@row(
    "A cluster node in lame duck mode, the only one that the client lists",
    "503 at most until the client has connected to another node, when the server closes its connection",
)
@pytest.mark.full
async def test_the_service_leaves_a_node_in_lame_duck_mode(fault: Fault, tmp_path: Path) -> None:
    config = 'lame_duck_grace_period: "1s"\nlame_duck_duration: "30s"'
    with cluster_with_login("user and password in the URL", tmp_path, config=config) as (cluster, service):
        async with service.lifespan:
            await service.works()
            await knows_all_servers(service)
            client = service.broker.connection
            cluster[0].enter_lame_duck_mode()
            # It works until the server closes its connection.
            await service.works()
            await eventually(lambda: client.connected_url is None or reconnects(service) > 0, 40.0)
            fault.repaired()
            async with asyncio.timeout(RECONNECTED_WITHIN):
                await service.works()
            fault.ready()
            assert await server_of(service, cluster) is not cluster[0]
            cluster[0].wait(40.0)


async def publish_bytes(client: Client, size: int) -> None:
    part = bytes(500_000)
    for _ in range(size // len(part)):
        await client.publish("bytes", part)


@pytest.mark.full
async def test_the_service_leaves_a_frozen_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervisor, "CHECK_TIMEOUT", 0.1)
    monkeypatch.setattr(supervisor, "PATIENCE", 0.5)
    with cluster_with_login("user and password in the URL", tmp_path) as (cluster, service):
        async with service.lifespan:
            await service.works()
            await knows_all_servers(service)
            client = service.broker.connection
            cluster[0].freeze()
            # More than the sockets take, so that a part waits in the client.
            publisher = asyncio.create_task(publish_bytes(client, 30_000_000))
            await eventually(lambda: reconnects(service) == 1)
            await publisher
            await service.works()
            assert service.broker.connection is client
            assert await server_of(service, cluster) is not cluster[0]
