"""Supervision of a running broker: regular checks, and restarts of what has failed."""

import asyncio
import math
import random
from time import monotonic
from typing import TYPE_CHECKING

from faststream_adapters._brokers.codes import Code

from .reasons import BROKER_REASONS
from .subscriber_monitor import HANDLERS_TIMEOUT

if TYPE_CHECKING:
    from .managed import ManagedBroker, Settings

CHECK_INTERVAL = 1.0
"""Seconds between two checks of a running broker."""

CHECK_TIMEOUT = 1.0
"""Seconds that a check may take."""

SUBSCRIBERS_INTERVAL = 5.0
"""Seconds between two checks of the consumers on the server."""

PATIENCE = 30.0
"""Seconds without a reply after which the broker is restarted although its client claims to be connected."""


class Supervisor:
    """Supervises one broker from its start to its end.

        healthy ── check fails ──▶ lost ── check succeeds ──▶ healthy
        lost ── client reconnects by itself ──▶ lost (it is left alone)
        lost ── client closed, or no reply for PATIENCE seconds ──▶ restarted ──▶ healthy

    Invariant: a restart waits for the handlers, whose messages would be lost with it, up to HANDLERS_TIMEOUT.

    Args:
        managed: The broker.
        settings: How it is run.
    """

    def __init__(self, managed: "ManagedBroker", settings: "Settings") -> None:
        self._managed = managed
        self._driver = managed.driver
        self._settings = settings
        self._last_code: Code = "ok"
        """The code that was logged last."""
        # Times are those of `time.monotonic`.
        self._last_healthy = monotonic()
        self._next_subscribers_check = -math.inf
        self._last_error = ""
        self._asking: asyncio.Task[None] | None = None
        """Asks the server for the backlogs."""

    async def run(self) -> None:
        """Supervise until cancelled."""
        try:
            await self._run()
        finally:
            if self._asking is not None:
                self._asking.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            try:
                await self._step()
            except Exception as error:  # noqa: BLE001 (supervision has to go on)
                if (kind := type(error).__name__) != self._last_error:
                    self._last_error = kind
                    self._driver.loggers["lifecycle"].error(
                        "%s: supervision failed with %s.",
                        self._driver.name,
                        kind,
                        extra={"broker": self._driver.name},
                    )

    async def _step(self) -> None:
        checks = self._managed.broker_check
        if not self._driver.has_client or self._managed.is_stopping:
            # The driver sees no client, or the application has stopped the broker: it must not be restarted.
            self._last_healthy = monotonic()
            if self._settings.optional:
                # Readiness does not check an optional broker, and reports this result.
                await checks.check(CHECK_TIMEOUT)
            return
        self._managed.update_publishing()
        result = await checks.check(CHECK_TIMEOUT)
        self._last_healthy = max(self._last_healthy, checks.last_ok)
        if result.ok != (self._last_code == "ok"):
            # A server that was down may have lost its consumers.
            self._next_subscribers_check = -math.inf
            self._log(result.code)
        if result.ok:
            await self._check_subscribers()
        elif self._driver.is_reconnecting:
            self._last_healthy = monotonic()
        elif self._settings.supervise and self._may_restart(monotonic() - self._last_healthy):
            if self._driver.is_closed or not await self._driver.reconnect():
                await self._managed.restart(self._settings)
            self._last_healthy = monotonic()

    async def _check_subscribers(self) -> None:
        ask_server = (now := monotonic()) >= self._next_subscribers_check
        if ask_server:
            # Processes that connect together must not ask together for ever: only the first check is at once.
            is_first = self._next_subscribers_check == -math.inf
            share = random.random() if is_first else 1.0  # noqa: S311 (spreads load, guards nothing)
            self._next_subscribers_check = now + SUBSCRIBERS_INTERVAL * share
        await self._managed.monitor.poll(ask_server=ask_server)
        if ask_server and (self._asking is None or self._asking.done()):
            # Meanwhile supervision goes on.
            self._asking = asyncio.create_task(self._managed.update_backlogs())
        if self._settings.supervise and self._driver.local_status() is None:
            await self._managed.monitor.restart_failed()

    def _may_restart(self, seconds: float) -> bool:
        """Return whether a broker that has been lost for this long may be restarted now."""
        if self._managed.is_stopping or (not self._driver.is_closed and seconds < PATIENCE):
            return False
        return self._managed.is_idle or seconds >= PATIENCE + HANDLERS_TIMEOUT

    def _log(self, code: Code) -> None:
        name, logger = self._driver.name, self._driver.loggers["lifecycle"]
        fields = {"broker": name, "old": self._last_code, "new": code}
        self._last_code = code
        if code == "ok":
            logger.info("Reconnected to %s.", name, extra=fields)
        else:
            logger.warning("Lost connection to %s: %s.", name, BROKER_REASONS.get(code, code), extra=fields)
