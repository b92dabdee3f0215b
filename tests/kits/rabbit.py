"""RabbitMQ, by the server that the machine has installed."""

from faststream.rabbit import RabbitBroker

from tests.kits import Kit
from tests.servers.rabbit import RabbitServer, missing


class RabbitKit(Kit):
    name = "rabbit"
    title = "RabbitMQ"
    keeps_handlers = False

    def missing(self) -> str | None:
        return missing()

    def server(self) -> RabbitServer:
        return RabbitServer()

    def broker(self, url: str) -> RabbitBroker:
        return RabbitBroker(url, reconnect_interval=0.1)

    def impatient(self, url: str) -> tuple[RabbitBroker, float]:
        # It never gives up: by then it has tried ten times.
        return RabbitBroker(url, reconnect_interval=0.1), 1.0


kit = RabbitKit()
