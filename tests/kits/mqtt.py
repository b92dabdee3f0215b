"""MQTT, by mosquitto, which few machines lack, else by the server that a wheel ships."""

from faststream.mqtt import MQTTBroker
from zmqtt import ReconnectConfig

from tests.kits import Kit
from tests.servers.mqtt import Amqtt, Mosquitto, MqttServer

SERVER: type[MqttServer] = Amqtt if Mosquitto.missing() else Mosquitto


class MqttKit(Kit):
    name = "mqtt"
    title = "MQTT"

    def server(self) -> MqttServer:
        return SERVER()

    def broker(self, url: str) -> MQTTBroker:
        return _broker(url, ReconnectConfig(initial_delay=0.05, max_delay=0.05))

    def impatient(self, url: str) -> tuple[MQTTBroker, float]:
        return _broker(url, ReconnectConfig(initial_delay=0.05, max_attempts=1)), 1.0


def _broker(url: str, reconnect: ReconnectConfig) -> MQTTBroker:
    return MQTTBroker(url, version=SERVER.version, reconnect=reconnect)


kit = MqttKit()
