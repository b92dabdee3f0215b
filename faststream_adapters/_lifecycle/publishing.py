"""Whether a broker can publish, and the error for trying it while it cannot."""

from collections.abc import Callable
from typing import Any, Literal

from faststream_adapters._compat.faststream import (
    Broker,
    Publish,
    guard_producers,
    is_connected,
    is_in_memory,
    unguard_producers,
)
from faststream_adapters._utils.errors import BrokerNotUpError


class PublishGuard:
    """Raises BrokerNotUpError while a broker cannot publish.

        unmanaged ── first owner ──▶ refusing ── declared ──▶ open
        open ── restart, or its client has closed ──▶ refusing
        refusing, open ── close ──▶ refusing ── closed ──▶ unmanaged

    Unmanaged, the application may connect the broker by itself, and publish then. While open, the producers
    are not guarded, so that it costs nothing per message.

    Args:
        broker: The broker.
        error: Returns the error.
    """

    def __init__(self, broker: Broker, error: Callable[[], BrokerNotUpError]) -> None:
        self._broker = broker
        self._error = error
        self.state: Literal["unmanaged", "refusing", "open"]
        self.set("unmanaged")

    def set(self, state: Literal["unmanaged", "refusing", "open"]) -> None:
        """Change the state."""
        self.state = state
        if state == "open":
            unguard_producers(self._broker)
        elif not is_in_memory(self._broker):
            # A TestBroker has replaced the producers, and puts them back at its end.
            guard_producers(self._broker, self._publish)

    async def _publish(self, publish: Publish, command: Any) -> Any:
        if self.state == "refusing" or not is_connected(self._broker):
            raise self._error()
        return await publish(command)
