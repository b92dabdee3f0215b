"""The state of a lifespan, and the callbacks that follow it."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from weakref import WeakSet

from faststream_adapters._utils.loggers import Loggers
from faststream_adapters._utils.redaction import redacted_traceback

from .broker_check import Observer
from .history import History
from .options import State


class LifespanState:
    """The state machine of a lifespan.

        stopped ──▶ starting ──▶ running ──▶ draining ──▶ stopped
                       ├──────────────────▶ draining     the lifespan ends while it starts
                       ├──▶ failed ──▶ stopped           a broker or a hook failed
                       └──▶ stopped                      the start was cancelled

    Invariant: only the lifespan that owns it changes it, in that lifespan's event loop, and each change is
    reported once.

    Args:
        on_change: Called with the old and the new state.
        loggers: Where changes are logged.
    """

    def __init__(self, on_change: Callable[[State, State], object] | None, loggers: Loggers) -> None:
        self.current: State = "stopped"
        self.was_running = False
        """Whether the state was ever `running`."""
        self.since = datetime.now(UTC)
        """When it became what it is, in UTC."""
        self.history = History()
        """The last changes, also those of the health if an endpoint shows them."""
        self.drain_begun = asyncio.Event()
        """Set unless the lifespan is starting or running."""
        self.drain_begun.set()
        self.observers: WeakSet[Observer] = WeakSet()
        self._on_change = on_change
        self._loggers = loggers

    def set(self, new: State) -> None:
        """Change the state and report the change."""
        old, self.current, self.since = self.current, new, datetime.now(UTC)
        self.history.add_state(old, new)
        self.was_running = self.was_running or new == "running"
        if new == "starting":
            # An event belongs to the event loop in which it was first awaited.
            self.drain_begun = asyncio.Event()
        elif new != "running":
            self.drain_begun.set()
        logger = self._loggers["lifecycle"]
        logger.info("Brokers: %s -> %s", old, new, extra={"old": old, "new": new})
        for observer in self.observers:
            observer.on_state_change()
        if self._on_change is not None:
            try:
                self._on_change(old, new)
            except Exception as error:  # noqa: BLE001 (a callback must not stop what it follows)
                logger.error("on_state_change raised.\n%s", redacted_traceback(error))  # noqa: TRY400 (redacted)

    def begin_drain(self) -> None:
        """Change to `draining`, unless the lifespan drains, has failed or has stopped already."""
        if self.current in {"starting", "running"}:
            self.set("draining")
