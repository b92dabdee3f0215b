"""A real RabbitMQ node that a test can kill, freeze and restart."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess

from tests.servers import HOST, ServerError, hold_port
from tests.servers.broker import BrokerServer

# Debian's commands on PATH change to a user of their own; the real ones are here.
_SCRIPTS = os.pathsep.join(["/usr/lib/rabbitmq/bin", os.environ.get("PATH", os.defpath)])


def find_rabbitmq(name: str = "rabbitmq-server") -> str:
    """Return the path of one of RabbitMQ's scripts.

    Args:
        name: Which one.

    Raises:
        FileNotFoundError: RabbitMQ is not installed.
    """
    script = shutil.which(name, path=_SCRIPTS)
    if script is None:
        msg = "RabbitMQ is not installed, and no wheel ships it: install your system's rabbitmq-server."
        raise FileNotFoundError(msg)
    return script


def missing() -> str | None:
    """Return why the server cannot be started on this machine; None if it can."""
    try:
        find_rabbitmq()
    except FileNotFoundError as error:
        return str(error)
    return None


class RabbitServer(BrokerServer):
    """A RabbitMQ node that keeps its port, and what it has stored, over restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.password = secrets.token_hex()
        """That of the user `guest`, as the first start sets it."""
        self._dist_port, self._dist_held = hold_port()
        cookie = self.directory / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(), encoding="ascii")
        cookie.chmod(0o400)

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"amqp://guest:{self.password}@{HOST}:{self.port}/"

    @property
    def node(self) -> str:
        """The name of the Erlang node."""
        return f"faststream-adapters-{self.port}@localhost"

    def start(self, timeout: float = 60.0) -> None:
        """Start the server and wait until it greets clients."""
        files = {"rabbitmq.conf": self._config(), "enabled_plugins": "[]."}
        # Without -noinput the Erlang VM ends with its input.
        self._spawn([find_rabbitmq(), "-noinput"], files=files, env=self._env())
        self._wait_until(self._greets, timeout)

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl` for this node, and return what it has printed."""
        run = subprocess.run(
            [find_rabbitmq("rabbitmqctl"), "--quiet", "--node", self.node, *arguments],
            env={**os.environ, **self._env()},
            capture_output=True,
            text=True,
            check=False,
            timeout=60.0,
        )
        if run.returncode:
            msg = f"rabbitmqctl {arguments[0]} failed: {run.stdout}{run.stderr}"
            raise ServerError(msg)
        return run.stdout

    def close(self) -> None:
        """End the server and give back its ports and its directory."""
        super().close()
        if self._dist_held is not None:  # pragma: no branch (macOS goes the other way)
            self._dist_held.close()

    def _config(self) -> str:
        lines = [
            f"listeners.tcp.local = {HOST}:{self.port}",
            "default_user = guest",
            f"default_pass = {self.password}",
            f"cluster_name = {self.node}",
            "log.file = false",
            "log.console = true",
            "log.console.level = error",
            # A full disk or a busy machine is not what the tests are about.
            "disk_free_limit.absolute = 1MB",
            "vm_memory_high_watermark.absolute = 1GB",
        ]
        return "\n".join([*lines, ""])

    def _env(self) -> dict[str, str]:
        here = str(self.directory)
        return {
            "HOME": here,
            "ERL_EPMD_ADDRESS": HOST,
            # Then the script becomes the Erlang VM, and takes signals itself.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # The system's own configuration must not reach this node.
            "RABBITMQ_CONF_ENV_FILE": f"{here}/none",
            "RABBITMQ_CONFIG_FILE": f"{here}/rabbitmq.conf",
            "RABBITMQ_CONFIG_FILES": f"{here}/none",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{here}/none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{here}/mnesia",
            "RABBITMQ_LOG_BASE": f"{here}/log",
            "RABBITMQ_PID_FILE": f"{here}/pid",
        }

    def _greets(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=1.0) as client:
                client.sendall(b"AMQP\x00\x00\x09\x01")
                greeting = client.recv(4096)
        except OSError:
            return False
        # The name tells our node from a stranger that took the port.
        return self.node.encode() in greeting
