"""An event loop whose turns are counted, so that a test can do something at a given turn."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Turns(selectors.DefaultSelector):
    """The selector of an event loop, which selects once per turn.

    The turns are always the same for the same events, because a loop without work waits in its selector.
    """

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0
        """The turns since the last call of `plan`."""
        self._call: Callable[[], object] | None = None
        self._first, self._last = 0.0, 0.0

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Return an event loop with this selector."""
        return asyncio.SelectorEventLoop(self)

    def plan(self, call: Callable[[], object] | None, at: int = 0, times: float = 1) -> None:
        """Call a function at some turns, counted from now on.

        Args:
            call: The function; None ends the calls.
            at: The first turn at which it is called; 0 is the current one.
            times: At how many turns; it can be infinite.
        """
        self.passed, self._call, self._first, self._last = 0, call, at, at + times

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events, unless the planned call has given the loop something to do."""
        if self._call is not None and self._first <= self.passed < self._last:
            self._call()
            timeout = 0
        self.passed += 1
        return super().select(timeout)
