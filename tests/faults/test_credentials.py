"""Credentials that are replaced while the service runs: the codes, the log, and the recovery."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from faststream.nats.security import NatsCredentials, NatsNKey, NatsSecurity, NatsToken

from faststream_adapters import BrokerStartError
from tests.faults.matrix import Fault, Service, row
from tests.harness.clients import client, eventually_status, status
from tests.harness.servers.nats import NatsFactory, NatsServer
from tests.harness.servers.nats_keys import Account, Key
from tests.harness.waiting import eventually


@dataclass
class Rotation:
    """One kind of login, and how its credentials are replaced.

    Args:
        server: A started server that accepts the old credentials.
        security: The login of the broker.
        revoke: Make the server reject the old credentials.
        hand_over: Give the new credentials to the service.
    """

    server: NatsServer
    security: NatsSecurity
    revoke: Callable[[], object]
    hand_over: Callable[[], object]


def token(nats_factory: NatsFactory, file: Path) -> Rotation:
    server = nats_factory(token="old")
    file.write_text("old")

    def revoke() -> None:
        server.token = "new"
        server.reload()

    return Rotation(server, NatsToken(file.read_text), revoke, lambda: file.write_text("new"))


def nkey(nats_factory: NatsFactory, file: Path) -> Rotation:
    old, new = Key(), Key()
    server = nats_factory(config=_accepts(old))
    file.write_text(old.seed)

    def revoke() -> None:
        server.config = _accepts(new)
        server.reload()

    return Rotation(server, NatsNKey.from_file(file), revoke, lambda: file.write_text(new.seed))


def creds(nats_factory: NatsFactory, file: Path) -> Rotation:
    account = Account()
    server = nats_factory(config=account.config)
    file.write_text(account.credentials())

    def revoke() -> None:
        account.revoke()
        server.config = account.config
        server.reload()

    return Rotation(
        server, NatsCredentials.from_file(file), revoke, lambda: file.write_text(account.credentials())
    )


async def eventually_code(service: Service, code: str) -> None:
    """Wait until readiness responds with this code."""
    text = ""
    async with client(service.ready) as http, asyncio.timeout(15):
        while text != code:
            await asyncio.sleep(0.02)
            text = (await http.get("/")).text


def _accepts(key: Key) -> str:
    return f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}"


@row(
    "Login rejected while the service runs, and a new token, nkey file or creds file put in place",
    "503 with the code `auth_failed`, liveness 200; recovers by itself: each attempt reads the file or calls "
    "the function that returns the token",
)
@pytest.mark.full
@pytest.mark.parametrize("kind", [token, nkey, creds])
async def test_new_credentials_are_used_as_soon_as_they_are_in_place(
    nats_factory: NatsFactory,
    fault: Fault,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    kind: Callable[[NatsFactory, Path], Rotation],
) -> None:
    file = tmp_path / "secret"
    rotation = kind(nats_factory, file)
    service = Service(rotation.server.safe_url, client={"security": rotation.security})
    async with service.lifespan:
        await service.works()
        fault.happened()
        rotation.revoke()
        await eventually_status(service.ready, 503)
        fault.not_ready()
        await eventually_code(service, "auth_failed")
        assert await status(service.live) == 200
        # Attempts with the old credentials fail.
        await eventually(lambda: "is not up: the credentials were rejected" in caplog.text)
        assert re.search("Lost connection to .*: the credentials were rejected", caplog.text)
        fault.repaired()
        rotation.hand_over()
        await service.works()
        fault.ready()


@row(
    "Creds file replaced before the credentials expire",
    "503 at most until the client has logged in again, when the server closes its connection",
)
@pytest.mark.full
async def test_a_creds_file_is_replaced_before_its_credentials_expire(
    nats_factory: NatsFactory, fault: Fault, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    account = Account()
    server = nats_factory(config=account.config)
    file = tmp_path / "user.creds"
    file.write_text(account.credentials(seconds=2))
    service = Service(server.safe_url, client={"security": NatsCredentials.from_file(file)})
    async with service.lifespan:
        await service.works()
        file.write_text(account.credentials())
        client = service.broker.connection
        await eventually(lambda: client.is_closed)
        fault.repaired()
        await service.works()
        fault.ready()
    assert re.search("Lost connection to .*: the credentials were rejected", caplog.text)
    assert "is not up" not in caplog.text


@pytest.mark.parametrize("security", [NatsCredentials, NatsNKey])
async def test_a_start_names_the_file_that_is_missing(
    nats_factory: NatsFactory, tmp_path: Path, security: type[NatsCredentials | NatsNKey]
) -> None:
    server = nats_factory(config=_accepts(Key()))
    login = security.from_file(tmp_path / "missing")
    client = {"security": login, "reconnect_time_wait": 2}
    service = Service(server.safe_url, client=client, startup="strict", startup_timeout=0.5)
    with pytest.raises(BrokerStartError, match=r"could not be started.*: FileNotFoundError: .*/missing'"):
        await service.lifespan.enter()


@pytest.mark.full
@pytest.mark.parametrize("kind", [nkey, creds])
async def test_an_empty_file_is_read_again(
    nats_factory: NatsFactory,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    kind: Callable[[NatsFactory, Path], Rotation],
) -> None:
    file = tmp_path / "secret"
    rotation = kind(nats_factory, file)
    credentials = file.read_text()
    file.write_text("")
    service = Service(rotation.server.safe_url, client={"security": rotation.security}, startup="background")
    async with service.lifespan:
        await eventually(lambda: "is not up: " in caplog.text)
        file.write_text(credentials)
        await service.works()
