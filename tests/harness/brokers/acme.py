"""A third-party broker. Its driver is in another package, which registers an entry point."""

import sys
from pathlib import Path

from tests.harness.brokers import BrokerHarness
from tests.harness.servers.nats import NatsServer

PACKAGES = Path(__file__).parents[1] / "thirdparty"
"""The directory of that package, which serves as a separate `site-packages`."""

sys.path.append(str(PACKAGES))

from acme_messaging import AcmeBroker  # noqa: E402 (sys.path is extended first)
from nats.aio.client import Client  # noqa: E402 (as above)


class AcmeHarness(BrokerHarness):
    name = "acme"
    title = "Third party (NATS)"
    protocol = "nats"
    starts_fast = True
    clients = (Client,)

    def server(self) -> NatsServer:
        return NatsServer()

    def broker(self, url: str) -> AcmeBroker:
        return AcmeBroker(url)


harness = AcmeHarness()
