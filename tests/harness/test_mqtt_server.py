"""The MQTT servers of the tests."""

import asyncio

import pytest
import zmqtt
from zmqtt.client import MQTTClient

from tests.harness.servers import HOST, ServerError
from tests.harness.servers.mqtt import SERVERS, Mosquitto, MqttServer


def connection(server: MqttServer, **options: str) -> MQTTClient:
    """Return a client that does not reconnect."""
    no_reconnect = zmqtt.ReconnectConfig(enabled=False)
    return MQTTClient(
        HOST,
        server.port,
        version=server.version,
        reconnect=no_reconnect,
        username=options.get("user"),
        password=options.get("password"),
    )


@pytest.fixture(params=SERVERS, ids=lambda kind: kind.__name__)
def server(request: pytest.FixtureRequest) -> MqttServer:
    """Return a server of each kind, which has not been started."""
    kind: type[MqttServer] = request.param
    if reason := kind.missing():  # pragma: no cover (installed where skips are forbidden)
        pytest.skip(reason)
    return kind()


async def test_a_killed_server_can_be_restarted_on_the_same_port(server: MqttServer) -> None:
    with server:
        pid = server.pid
        async with connection(server) as client:
            assert await client.ping() < 1
        server.kill()
        with pytest.raises(ConnectionRefusedError):
            await connection(server).connect()
        server.restart()
        assert server.pid != pid
        async with connection(server) as client:
            assert await client.ping() < 1
        server.restart()
    assert not server.running


async def test_a_frozen_server_does_not_respond_until_it_is_thawed(server: MqttServer) -> None:
    with server:
        async with connection(server) as client:
            server.freeze()
            with pytest.raises(zmqtt.MQTTTimeoutError):
                await client.ping(0.2)
            server.thaw()
            async with asyncio.timeout(10):
                assert await client.ping() < 10
        server.freeze()
        server.stop()


async def test_a_wrong_password_is_rejected(server: MqttServer) -> None:
    server.user, server.password = "user", "right"
    assert server.url == f"mqtt://user:right@{HOST}:{server.port}"
    assert server.safe_url == f"mqtt://{HOST}:{server.port}"
    with server:
        async with connection(server, user="user", password="right") as client:
            assert await client.ping() < 1
        for options in ({"user": "user", "password": "wrong"}, {}):
            with pytest.raises(zmqtt.MQTTConnectError):
                await connection(server, **options).connect()


async def test_mosquitto_keeps_messages_across_restarts() -> None:
    if reason := Mosquitto.missing():  # pragma: no cover (installed where skips are forbidden)
        pytest.skip(reason)
    with Mosquitto() as server:
        async with connection(server) as client:
            await client.publish("kept", b"message", qos=zmqtt.QoS.AT_LEAST_ONCE, retain=True)
        server.restart()
        async with connection(server) as client, client.subscribe("kept") as messages:
            assert (await messages.get_message()).payload == b"message"


def test_the_error_of_a_failed_start_includes_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := Mosquitto.missing():  # pragma: no cover (installed where skips are forbidden)
        pytest.skip(reason)
    server = Mosquitto(config="no_such_option 1")
    with pytest.raises(ServerError, match=r"at its start[\s\S]*no_such_option"):
        server.__enter__()
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    assert "no mosquitto" in str(Mosquitto.missing())
