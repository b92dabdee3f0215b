"""Real MQTT servers that a test can kill, freeze and restart: Mosquitto, and amqtt, which a wheel ships."""

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

from tests.servers import HOST
from tests.servers.broker import BrokerServer

_CONNECT = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x0a\x00\x05ready"
"""An MQTT 3.1.1 CONNECT packet: a clean session of the client `ready`, without credentials."""

_CONNACK = 0x20

_ITERATIONS = 101
"""Rounds of a password's hash; few, because it guards nothing."""


class MqttServer(BrokerServer):
    """An MQTT server that keeps its port over restarts.

    The options are plain attributes, read at each start: set one and `restart()` to change it.

    Args:
        user: The user that clients must name, together with `password`.
        password: The password of `user`.
    """

    version: ClassVar[Literal["3.1.1", "5.0"]]
    """The latest version of the protocol that it speaks."""

    def __init__(self, *, user: str | None = None, password: str = "") -> None:
        super().__init__()
        self.user = user
        self.password = password

    @classmethod
    def missing(cls) -> str | None:
        """Return why it cannot be started on this machine; None if it can."""
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

    def _answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=1.0) as client:
                client.sendall(_CONNECT)
                # It is up when it has an answer, whether it lets us in or not.
                return client.recv(1) == bytes([_CONNACK])
        except OSError:
            return False


class Mosquitto(MqttServer):
    """A mosquitto, with what it stores in a directory of its own.

    Args:
        user: The user that clients must name, together with `password`.
        password: The password of `user`.
        config: More text for the server's configuration file.
    """

    version = "5.0"

    def __init__(self, *, user: str | None = None, password: str = "", config: str = "") -> None:
        super().__init__(user=user, password=password)
        self.config = config

    @classmethod
    def missing(cls) -> str | None:
        """Return why it cannot be started on this machine; None if it can."""
        return None if cls._binary() else "There is no mosquitto on this machine, and no wheel ships it."

    @staticmethod
    def _binary() -> str | None:
        return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")

    def start(self, timeout: float = 10.0) -> None:
        """Start the server and wait until it answers."""
        lines = [
            f"listener {self.port} {HOST}",
            # Started by root it would become another user, who may not read its files.
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
        self._wait_until(self._answers, timeout)


class Amqtt(MqttServer):
    """An amqtt, which is written in Python and keeps everything in memory."""

    version = "3.1.1"

    @classmethod
    def missing(cls) -> str | None:
        """Return None: the tests cannot be installed without it."""
        return None

    def start(self, timeout: float = 10.0) -> None:
        """Start the server and wait until it answers."""
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
                # Nobody may subscribe to the topic `prohibited`.
                "amqtt.plugins.topic_checking.TopicTabooPlugin": {},
            },
        }
        # JSON is YAML.
        files["amqtt.yaml"] = json.dumps(config)
        self._spawn([sys.executable, "-m", "amqtt.scripts.broker_script", "-c", "amqtt.yaml"], files=files)
        self._wait_until(self._answers, timeout)


def _hashed(password: str) -> str:
    """Return a password as mosquitto wants to find it in its file."""
    salt = os.urandom(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


SERVERS: tuple[type[MqttServer], ...] = (Amqtt, Mosquitto)
"""The kinds, the one that every machine has first."""
