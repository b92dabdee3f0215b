"""A RabbitMQ node that a test can kill, freeze and restart."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from pathlib import Path

from tests.harness.servers import HOST, ServerError, hold_port
from tests.harness.servers.broker import BrokerServer

MEMORY = "1GB"
"""The default amount of memory above which the server blocks publishers."""

# Debian's commands on PATH switch to another user. The original commands are in this directory.
_SCRIPTS = os.pathsep.join(["/usr/lib/rabbitmq/bin", os.environ.get("PATH", os.defpath)])


def find_rabbitmq() -> str:
    """Return the path of RabbitMQ's start script.

    Raises:
        FileNotFoundError: RabbitMQ is not installed.
    """
    script = shutil.which("rabbitmq-server", path=_SCRIPTS)
    if script is None:
        msg = "RabbitMQ is not installed, and no wheel ships it: install your system's rabbitmq-server."
        raise FileNotFoundError(msg)
    return script


def find_erl_call() -> str:
    """Return the path of Erlang's erl_call, which runs code in an Erlang node.

    Raises:
        FileNotFoundError: Erlang is not installed.
    """
    erl = shutil.which("erl")
    # Few systems have it on PATH.
    paths = [*Path(erl).resolve().parents[1].glob("lib/erl_interface-*/bin/erl_call")] if erl else []
    if not paths:
        msg = "Erlang's erl_call is not installed: it belongs to your system's erlang-base."
        raise FileNotFoundError(msg)
    return str(paths[0])


def missing() -> str | None:
    """Return why the server cannot be started on this machine, or None if it can."""
    try:
        find_rabbitmq()
        find_erl_call()
    except FileNotFoundError as error:
        return str(error)
    return None


class RabbitServer(BrokerServer):
    """A RabbitMQ node that keeps its port and its data across restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.password = secrets.token_hex()
        """The password of the user `guest`, which the first start sets."""
        self._dist_port, self._dist_held = hold_port()
        self._cookie = secrets.token_hex()
        cookie = self.directory / ".erlang.cookie"
        cookie.write_text(self._cookie, encoding="ascii")
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
        """Start the server and wait until it sends its greeting."""
        files = {"rabbitmq.conf": self._config(), "enabled_plugins": "[]."}
        # Without -noinput, the Erlang VM ends with its input.
        self._spawn([find_rabbitmq(), "-noinput"], files=files, env=self._env())
        self._wait_until(self._greets, timeout)

    def close_connections(self) -> None:
        """Close the connections of all clients."""
        self.evaluate(
            '[rabbit_networking:close_connection(C, "test") || C <- rabbit_networking:connections()]'
        )

    def connections(self) -> int:
        """Return the number of connected clients."""
        return int(self.evaluate("length(rabbit_networking:connections())"))

    def channels(self) -> int:
        """Return the number of open channels."""
        return int(self.evaluate("length(rabbit_channel:list())"))

    def change_password(self, password: str) -> None:
        """Change the password of the user `guest`."""
        arguments = f'<<"guest">>, <<"{password}">>, <<"test">>'
        self.evaluate(f"ok = rabbit_auth_backend_internal:change_password({arguments})")

    def delete_queue(self, name: str) -> None:
        """Delete a queue, which must exist."""
        queue = f'rabbit_misc:r(<<"/">>, queue, <<"{name}">>)'
        self.evaluate(
            f"{{ok, Q}} = rabbit_amqqueue:lookup({queue}), "
            '{ok, _} = rabbit_amqqueue:delete(Q, false, false, <<"test">>)'
        )

    def limit_memory(self, size: str) -> None:
        """Set the amount of memory above which publishers are blocked, such as "1" or "1GB"."""
        self.evaluate(f'ok = vm_memory_monitor:set_vm_memory_high_watermark({{absolute, "{size}"}})')

    def evaluate(self, expression: str) -> str:
        """Evaluate an Erlang expression in the server, and return its value as text.

        rabbitmqctl evaluates an expression too, but takes most of a second to start.

        Raises:
            ServerError: The expression failed.
        """
        command = [find_erl_call(), "-c", self._cookie, "-address", f"{HOST}:{self._dist_port}", "-e"]
        run = subprocess.run(
            command, input=f"{expression}.\n", capture_output=True, text=True, check=False, timeout=60.0
        )
        if not run.stdout.startswith("{ok, "):
            msg = f"{expression} failed: {run.stdout}{run.stderr}"
            raise ServerError(msg)
        return run.stdout.removeprefix("{ok, ").removesuffix("}")

    def close(self) -> None:
        """Kill the server, and release its ports and its directory."""
        super().close()
        if self._dist_held is not None:  # pragma: no branch (macOS takes the other branch)
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
            # The tests must not depend on the free disk space and memory of the machine.
            "disk_free_limit.absolute = 1MB",
            f"vm_memory_high_watermark.absolute = {MEMORY}",
        ]
        return "\n".join([*lines, ""])

    def _env(self) -> dict[str, str]:
        here = str(self.directory)
        return {
            "HOME": here,
            "ERL_EPMD_ADDRESS": HOST,
            # With this, the script replaces itself with the Erlang VM, which receives the signals.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # The node must not read the configuration of the system.
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
        # The name distinguishes the node from another server that uses the port.
        return self.node.encode() in greeting
