"""One class per kind of broker: a server that a test may break, and the FastStream broker that talks to it.

A new kind is one module here and its name in `NAMES`; the suites that go through `KITS` name none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from faststream_adapters._compat import Broker
    from tests.servers.broker import BrokerServer

NAMES = ("nats", "mqtt", "redis", "kafka", "confluent", "rabbit")
"""The kinds, each named as the FastStream package and as our extra."""


class Kit:
    """What the suites ask of a kind of broker."""

    name: ClassVar[str]
    """One of `NAMES`."""
    title: ClassVar[str]
    """How the documentation calls it."""
    keeps_handlers: ClassVar[bool] = True
    """Whether the client lets a handler finish when its connection is lost."""

    def missing(self) -> str | None:
        """Return why the server cannot be started on this machine; None if it can."""
        return None

    def server(self) -> BrokerServer:
        """Return a server of one's own, which has a free port and has not been started."""
        raise NotImplementedError

    def broker(self, url: str) -> Broker:
        """Return a broker whose client tries again as soon as it can, and as often as by default."""
        raise NotImplementedError

    def impatient(self, url: str) -> tuple[Broker, float]:
        """Return a broker whose client, left alone, gives up after this many seconds without its server.

        A client that never gives up has tried often after those seconds.
        """
        raise NotImplementedError

    def subscribe(self, broker: Broker, channel: str, handler: Callable[[int], Awaitable[None]]) -> None:
        """Have the handler called with what is published to the channel, a number each time."""
        subscribed: Any = broker
        subscribed.subscriber(channel)(handler)

    async def publish(self, broker: Broker, number: int, channel: str) -> None:
        """Publish a number."""
        publishing: Any = broker
        await publishing.publish(number, channel)


def _load() -> dict[str, Kit]:
    kits: dict[str, Kit] = {}
    for name in NAMES:
        kit: Kit = import_module(f"{__name__}.{name}").kit
        kits[name] = kit
    return kits


KITS = _load()
