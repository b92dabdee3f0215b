"""RabbitMQ. The server must be installed on the machine."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from aio_pika import RobustConnection
from aiormq import Connection
from faststream.rabbit import RabbitBroker
from faststream.security import BaseSecurity, SASLPlaintext

from tests.harness.brokers import BrokerHarness, SecretPositions
from tests.harness.brokers.shared import shared_server
from tests.harness.servers import HOST
from tests.harness.servers.rabbit import RabbitServer, missing


class RabbitHarness(BrokerHarness):
    name = "rabbit"
    title = "RabbitMQ"
    module = "aio_pika"
    protocol = "amqp"
    starts_slowly = True
    clients = (RobustConnection, Connection)
    keeps_handlers = False
    requests = True
    attempt_timeout = "rabbit.CONNECT_TIMEOUT"

    def missing(self) -> str | None:
        return missing()

    def server(self) -> RabbitServer:
        return RabbitServer()

    def broker(self, url: str) -> RabbitBroker:
        return RabbitBroker(url, reconnect_interval=0.1)

    def broker_that_gives_up(self, url: str) -> tuple[RabbitBroker, float]:
        # The client never gives up. It makes ten attempts in this time.
        return RabbitBroker(url, reconnect_interval=0.1), 1.0

    def secrets(self) -> SecretPositions:
        return {
            "url-password": lambda secret, at: RabbitBroker(f"amqp://svc:{quote(secret, '')}@{at}/"),
            "url-user": lambda secret, at: RabbitBroker(f"amqp://{quote(secret, '')}:pw@{at}/"),
            "sasl-password": lambda secret, at: RabbitBroker(
                f"amqp://{at}/", security=SASLPlaintext("svc", secret)
            ),
            "sasl-user": lambda secret, at: RabbitBroker(
                f"amqp://{at}/", security=SASLPlaintext(secret, "pw")
            ),
        }

    def broker_over_tls(self, url: str) -> RabbitBroker:
        security = BaseSecurity(ssl_context=ssl.create_default_context(), use_ssl=True)
        return RabbitBroker(url.replace("amqp:", "amqps:"), security=security)

    @contextmanager
    def broker_with_wrong_password(self, password: str) -> Iterator[RabbitBroker]:
        # Its user is always guest, and another server takes seconds to start.
        yield RabbitBroker(f"amqp://guest:{password}@{HOST}:{shared_server(self).port}/")


harness = RabbitHarness()
