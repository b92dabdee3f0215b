"""The Redis server of the tests."""

from collections.abc import Iterator

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ConnectionError, TimeoutError  # noqa: A004
from redis.retry import Retry

from tests.harness.servers import HOST
from tests.harness.servers.redis import RedisServer, find_redis_server


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Return a server that has not been started."""
    server = RedisServer()
    yield server
    server.close()


def client_without_retries(server: RedisServer, password: str | None = None) -> Redis:
    """Return a client that does not retry commands."""
    no_retries = Retry(NoBackoff(), 0)
    return Redis(host=HOST, port=server.port, password=password, socket_timeout=0.5, retry=no_retries)


def test_a_killed_server_can_be_restarted_on_the_same_port_with_its_data(server: RedisServer) -> None:
    server.start()
    with server.client() as client:
        client.set("key", "value")
        server.kill()
        with pytest.raises(ConnectionError), client_without_retries(server) as other:
            other.ping()
        server.start()
        assert client.get("key") == b"value"
        server.restart()
        assert client.get("key") == b"value"


def test_a_frozen_server_does_not_respond_until_it_is_thawed(server: RedisServer) -> None:
    server.start()
    with client_without_retries(server) as client, server.client() as retrying:
        assert client.ping()
        server.freeze()
        with pytest.raises(TimeoutError):
            client.ping()
        server.thaw()
        assert retrying.ping()
    server.freeze()
    server.stop()
    assert not server.running


def test_a_wrong_password_is_rejected(server: RedisServer) -> None:
    server.password = "right"
    server.start()
    with server.client() as client, client_without_retries(server, "wrong") as other:
        assert client.ping()
        with pytest.raises(AuthenticationError):
            other.ping()
    with Redis.from_url(server.url) as client:
        assert client.ping()


def test_the_path_is_none_if_redis_server_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: object,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tests.harness.servers.redis.find_spec", lambda _: None)
    assert find_redis_server() is None
