"""MQTT with mosquitto if it is installed, otherwise with amqtt."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar
from urllib.parse import quote

from faststream.mqtt import MQTTBroker
from faststream.security import BaseSecurity, SASLPlaintext
from zmqtt import ReconnectConfig
from zmqtt.client import MQTTClient

from tests.harness.brokers import BrokerHarness, SecretPositions
from tests.harness.servers import HOST
from tests.harness.servers.mqtt import Amqtt, Mosquitto, MqttServer

SERVER: type[MqttServer] = Amqtt if Mosquitto.missing() else Mosquitto


class MqttHarness(BrokerHarness):
    name = "mqtt"
    title = "MQTT"
    module = "zmqtt"
    protocol = "mqtt"
    starts_fast = True
    clients = (MQTTClient,)
    options: ClassVar = {"version": SERVER.version}
    requests = True
    attempt_timeout = "mqtt.START_TIMEOUT"

    def server(self) -> MqttServer:
        return SERVER()

    def broker(self, url: str) -> MQTTBroker:
        return _broker(url, ReconnectConfig(initial_delay=0.05, max_delay=0.05))

    def broker_that_gives_up(self, url: str) -> tuple[MQTTBroker, float]:
        return _broker(url, ReconnectConfig(initial_delay=0.05, max_attempts=1)), 1.0

    def secrets(self) -> SecretPositions:
        return {
            "url-password": lambda secret, at: MQTTBroker(f"mqtt://svc:{quote(secret, '')}@{at}"),
            "url-user": lambda secret, at: MQTTBroker(f"mqtt://{quote(secret, '')}:pw@{at}"),
            "sasl-password": lambda secret, at: MQTTBroker(
                f"mqtt://{at}", security=SASLPlaintext("svc", secret)
            ),
            "sasl-user": lambda secret, at: MQTTBroker(f"mqtt://{at}", security=SASLPlaintext(secret, "pw")),
        }

    def broker_over_tls(self, url: str) -> MQTTBroker:
        security = BaseSecurity(ssl_context=ssl.create_default_context(), use_ssl=True)
        return MQTTBroker(url, security=security, version=SERVER.version)

    @contextmanager
    def broker_with_wrong_password(self, password: str) -> Iterator[MQTTBroker]:
        with SERVER(user="alice", password="another") as server:
            yield MQTTBroker(f"mqtt://alice:{password}@{HOST}:{server.port}", version=SERVER.version)


def _broker(url: str, reconnect: ReconnectConfig) -> MQTTBroker:
    return MQTTBroker(url, version=SERVER.version, reconnect=reconnect)


harness = MqttHarness()
