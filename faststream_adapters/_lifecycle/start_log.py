"""Log why a broker does not start: at once, and again when the reason changes."""

import asyncio
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from faststream_adapters._brokers.driver import Driver

from .reasons import start_failure

_POLL_INTERVAL = 1.0
"""Seconds after which a client that keeps connecting is first asked for its last error."""

_LONGEST_INTERVAL = 30.0
"""The interval doubles with each line up to this: the servers of a cluster may fail for different reasons."""


class StartLog:
    """Logs the reasons for which one start of a broker fails, until it succeeds.

    A reason that was just logged is logged at the level DEBUG.

    Args:
        driver: The broker's driver.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._last = ""
        self._interval = _POLL_INTERVAL
        self._timer: asyncio.TimerHandle

    def failed(self, error: Exception, delay: float) -> None:
        """Log that an attempt has failed.

        Args:
            error: The error of the attempt.
            delay: Seconds until the next attempt.
        """
        self._log(error, f"Next attempt in {delay:.1f} s.")

    @contextmanager
    def connecting(self) -> Iterator[None]:
        """Log why the client has not connected yet, if it makes several attempts itself."""
        self._schedule_poll()
        try:
            yield
        finally:
            self._timer.cancel()

    def _schedule_poll(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._poll)

    def _poll(self) -> None:
        if self._driver.last_error is not None:
            self._log(self._driver.last_error, "Its client keeps trying.")
        self._schedule_poll()

    def _log(self, error: BaseException, then: str) -> None:
        reason = start_failure(self._driver, error)
        # Without numbers, such as ports and times, which differ in each attempt.
        words = re.sub(r"\d+", "", reason)
        level = logging.DEBUG if words == self._last else logging.WARNING
        if words != self._last:
            self._last = words
            self._interval = min(self._interval * 2, _LONGEST_INTERVAL)
        name = self._driver.name
        logger = self._driver.loggers["lifecycle"]
        fields = {"broker": name, "new": self._driver.classify(error)}
        logger.log(level, "%s is not up: %s. %s", name, reason, then, extra=fields)
