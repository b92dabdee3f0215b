"""One harness per kind of broker: it creates servers for tests and FastStream brokers that connect to them.

A new kind is one module here and its name in `NAMES`. The suites that use `HARNESSES` do not name any kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from faststream_adapters._compat.faststream import Broker
from tests.harness.certificates import serving_certificate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.harness.servers.broker import BrokerServer

NAMES = ("nats", "mqtt", "redis", "kafka", "confluent", "rabbit")
"""The kinds of brokers. Each has the name of its FastStream package and of its extra."""

SecretPositions = Mapping[str, Callable[[str, str], Broker]]
"""Functions that make a broker from a secret and a server's address, by the position of the secret."""


class BrokerHarness:
    """The base class of the harnesses."""

    name: ClassVar[str]
    """One of `NAMES`."""
    title: ClassVar[str]
    """The name in the documentation."""
    module: ClassVar[str]
    """The module of the client, which FastStream's package for it imports."""
    protocol: ClassVar[str]
    """The protocol, as in URLs and in the AsyncAPI document."""
    starts_fast: ClassVar[bool] = False
    """Whether server and client start within milliseconds: tests that start many of them run in each run."""
    starts_slowly: ClassVar[bool] = False
    """Whether the server takes seconds of CPU time to start: most of its tests run in the full run only."""
    clients: ClassVar[tuple[type, ...]]
    """The types of the objects that connect to the server."""
    options: ClassVar[Mapping[str, str]] = {}
    """Keywords without which the broker cannot use the server of the tests."""
    keeps_handlers: ClassVar[bool] = True
    """Whether the client lets a handler finish after the connection is lost."""
    requests: ClassVar[bool] = False
    """Whether the broker has `request()`."""
    batch_destination: ClassVar[str] = ""
    """The keyword of `publish_batch()` for the destination, if the broker has this method."""
    attempt_timeout: ClassVar[str] = ""
    """The driver's timeout for each attempt to connect, as `module.NAME` in `_brokers`; empty without one."""

    def missing(self) -> str | None:
        """Return why the server cannot be started on this machine, or None if it can."""
        return None

    def unreachable_url(self) -> str:
        """Return a URL at which no server listens."""
        return f"{self.protocol}://user:secret@127.0.0.1:1"

    def secrets(self) -> SecretPositions:
        """Return how a broker is made with a secret in each position that the client accepts."""
        raise NotImplementedError

    def unescaped_secrets(self) -> SecretPositions:
        """Return the same for secrets that the application has not escaped, although this is required."""
        return {}

    def url_at(self, port: int) -> str:
        """Return the URL of a server with this port."""
        with closing(self.server()) as server:
            return server.url.replace(str(server.port), str(port))

    def server(self) -> BrokerServer:
        """Return a new server with a free port, which has not been started."""
        raise NotImplementedError

    def broker(self, url: str) -> Broker:
        """Return a broker whose client reconnects without delay, with the default number of attempts."""
        raise NotImplementedError

    def broker_that_gives_up(self, url: str) -> tuple[Broker, float]:
        """Return a broker, and the seconds without a server after which its client gives up.

        A client that never gives up has made many attempts in this time.
        """
        raise NotImplementedError

    def broker_over_tls(self, url: str) -> Broker:
        """Return a broker that requires TLS, and trusts only well-known authorities."""
        raise NotImplementedError

    def broker_with_wrong_password(self, password: str) -> AbstractContextManager[Broker]:
        """Return a context manager that starts a server, and yields a broker whose password it rejects."""
        raise NotImplementedError

    @contextmanager
    def untrusted_url(self, certificate: Path) -> Iterator[str]:
        """Yield the URL of a server with this certificate, which no client trusts."""
        with serving_certificate(certificate) as port:
            yield self.url_at(port)

    def subscribe(self, broker: Broker, channel: str, handler: Callable[[int], Awaitable[None]]) -> None:
        """Subscribe a handler to the numbers that are published to a channel."""
        subscribed: Any = broker
        subscribed.subscriber(channel)(handler)

    async def publish(self, broker: Broker, number: int, channel: str) -> None:
        """Publish a number to a channel."""
        publishing: Any = broker
        await publishing.publish(number, channel)


def _load(*names: str) -> dict[str, BrokerHarness]:
    harnesses: dict[str, BrokerHarness] = {}
    for name in names:
        harness: BrokerHarness = import_module(f"{__name__}.{name}").harness
        harnesses[name] = harness
    return harnesses


HARNESSES = _load(*NAMES)
"""The kinds for which this package has a driver."""

ALL_HARNESSES = {**HARNESSES, **_load("acme")}
"""These kinds, and one whose driver is in another package."""
