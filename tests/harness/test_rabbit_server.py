"""The RabbitMQ server of the tests does what its methods say."""

from __future__ import annotations

import asyncio
import signal

import aio_pika
import pytest

from tests.kits import KITS
from tests.servers import ServerError
from tests.servers.rabbit import RabbitServer, missing


def test_a_missing_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    assert "rabbitmq-server" in str(missing())
    assert KITS["rabbit"].missing() == missing()
    with pytest.raises(FileNotFoundError, match="no wheel ships it"):
        RabbitServer().start()


@pytest.mark.full
async def test_frozen_stopped_killed_and_restarted() -> None:
    if reason := missing():  # pragma: no cover (where nothing may be skipped, nothing is missing)
        pytest.skip(reason)
    with RabbitServer() as server:
        port = server.port
        connection = await aio_pika.connect(server.url)
        server.freeze()
        opening = asyncio.create_task(connection.channel().initialize())
        done, _ = await asyncio.wait({opening}, timeout=0.3)
        assert not done
        server.thaw()
        await opening
        assert "guest" in server.control("list_users")
        with pytest.raises(ServerError, match="rabbitmqctl list_nonsense failed"):
            server.control("list_nonsense")
        server.kill()
        assert server.process.returncode == -signal.SIGKILL
        with pytest.raises(ConnectionError):
            await aio_pika.connect(server.url)
        server.restart()
        server.freeze()
        server.stop()
        server.start()
        assert server.port == port
        await (await aio_pika.connect(server.url)).close()
        with pytest.raises(aio_pika.exceptions.ProbableAuthenticationError):
            await aio_pika.connect(server.url.replace(server.password, "wrong"))
        await connection.close()
