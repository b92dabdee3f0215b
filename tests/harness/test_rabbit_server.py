"""The RabbitMQ server of the tests."""

from __future__ import annotations

import asyncio
import shutil
import signal

import aio_pika
import pytest

from tests.harness.brokers import HARNESSES
from tests.harness.servers import ServerError
from tests.harness.servers.rabbit import RabbitServer, missing


def test_the_error_names_the_missing_program(monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr("shutil.which", lambda name, **_: None if name == "erl" else which("true"))
    assert "erl_call" in str(missing())
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    assert "rabbitmq-server" in str(missing())
    assert HARNESSES["rabbit"].missing() == missing()
    with pytest.raises(FileNotFoundError, match="no wheel ships it"), RabbitServer():
        pytest.fail("It has started.")


@pytest.mark.full
async def test_the_server_can_be_frozen_stopped_killed_and_restarted() -> None:
    if reason := missing():  # pragma: no cover (installed where skips are forbidden)
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
        assert (server.connections(), server.channels()) == (1, 1)
        with pytest.raises(ServerError, match=r"no:such_function\(\) failed: .*undef"):
            server.evaluate("no:such_function()")
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
