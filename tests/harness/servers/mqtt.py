"""MQTT servers that a test can kill, freeze and restart: Mosquitto, and amqtt, which is a Python package."""

from __future__ import annotations

import base64
import getpass
import hashlib
import json
import os
import shutil
import socket
import sys
from typing import ClassVar, Literal

from tests.harness.servers import HOST
from tests.harness.servers.broker import BrokerServer

_CONNECT = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x0a\x00\x05ready"
"""An MQTT 3.1.1 CONNECT packet: a clean session of the client `ready`, without credentials."""

_CONNACK = 0x20

_ITERATIONS = 101
"""The iterations of the password hash. A few are enough for tests."""


class MqttServer(BrokerServer):
    """An MQTT server that keeps its port across restarts.

    The options are plain attributes that each start reads. To change one, set it and call `restart()`.

    Args:
        user: The user name that clients must send, with `password`.
        password: The password of `user`.
    """

    version: ClassVar[Literal["3.1.1", "5.0"]]
    """The latest version of the protocol that the server supports."""

    def __init__(self, *, user: str | None = None, password: str = "") -> None:
        super().__init__()
        self.user = user
        self.password = password

    @classmethod
    def missing(cls) -> str | None:
        """Return why the server cannot be started on this machine, or None if it can."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """The URL for clients, with the credentials."""
        credentials = "" if self.user is None else f"{self.user}:{self.password}@"
        return f"mqtt://{credentials}{HOST}:{self.port}"

    @property
    def safe_url(self) -> str:
        """The URL without credentials."""
        return f"mqtt://{HOST}:{self.port}"

    def _responds(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=1.0) as client:
                client.sendall(_CONNECT)
                # Any response shows that it is up, even if the login is rejected.
                return client.recv(1) == bytes([_CONNACK])
        except OSError:
            return False


class Mosquitto(MqttServer):
    """A mosquitto that keeps its data across restarts.

    Args:
        user: The user name that clients must send, with `password`.
        password: The password of `user`.
        config: Additional text for the server's configuration file.
    """

    version = "5.0"

    def __init__(self, *, user: str | None = None, password: str = "", config: str = "") -> None:
        super().__init__(user=user, password=password)
        self.config = config

    @classmethod
    def missing(cls) -> str | None:
        """Return why the server cannot be started on this machine, or None if it can."""
        return None if cls._binary() else "There is no mosquitto on this machine, and no wheel ships it."

    @staticmethod
    def _binary() -> str | None:
        return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")

    def start(self, timeout: float = 10.0) -> None:
        """Start the server and wait until it responds."""
        lines = [
            f"listener {self.port} {HOST}",
            # If root starts it, it switches to another user, who cannot read its files.
            f"user {getpass.getuser()}",
            "persistence true",
            f"persistence_location {self.directory}/",
            f"allow_anonymous {'true' if self.user is None else 'false'}",
        ]
        files = {}
        if self.user is not None:
            lines.append(f"password_file {self.directory}/passwords")
            files["passwords"] = f"{self.user}:{_hashed(self.password)}\n"
        files["mosquitto.conf"] = "\n".join([*lines, self.config, ""])
        self._spawn([self._binary() or "mosquitto", "-c", "mosquitto.conf"], files=files)
        self._wait_until(self._responds, timeout)


class Amqtt(MqttServer):
    """An amqtt, which is written in Python and keeps its data in memory."""

    version = "3.1.1"

    @classmethod
    def missing(cls) -> str | None:
        """Return None, because amqtt is installed with the tests."""
        return None

    def start(self, timeout: float = 10.0) -> None:
        """Start the server and wait until it responds."""
        plugin, options = "AnonymousAuthPlugin", dict[str, object](allow_anonymous=True)
        files = {}
        if self.user is not None:
            from pwdlib.hashers.argon2 import Argon2Hasher

            plugin, options = "FileAuthPlugin", {"password_file": str(self.directory / "passwords")}
            hashed = Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1).hash(self.password)
            files["passwords"] = f"{self.user}:{hashed}\n"
        config = {
            "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{self.port}"}},
            "plugins": {
                f"amqtt.plugins.authentication.{plugin}": options,
                # Subscriptions to the topic `prohibited` are rejected.
                "amqtt.plugins.topic_checking.TopicTabooPlugin": {},
            },
        }
        # JSON is YAML.
        files["amqtt.yaml"] = json.dumps(config)
        self._spawn([sys.executable, "-m", "amqtt.scripts.broker_script", "-c", "amqtt.yaml"], files=files)
        self._wait_until(self._responds, timeout)


def _hashed(password: str) -> str:
    """Return the hash of a password in the format of mosquitto's password file."""
    salt = os.urandom(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


SERVERS: tuple[type[MqttServer], ...] = (Amqtt, Mosquitto)
"""The kinds of servers. The first one is available on every machine."""
