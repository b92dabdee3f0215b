"""One start and one stop for any number of concurrent entries."""

import asyncio
from collections.abc import Awaitable, Callable

from faststream.exceptions import SetupError

from faststream_adapters._utils.errors import BrokerStartError


class Entries:
    """Runs the start for the first entry and the stop for the last exit.

    Invariant: while there are entries, one start has run or is running, and the entries belong to one event
    loop. A stop has ended before the next start begins.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop of the last entry."""
        self._count = 0
        self._started: asyncio.Future[BaseException | None]
        self._stopped: asyncio.Event | None = None

    async def enter(self, start: Callable[[], Awaitable[None]], join: Callable[[], None]) -> None:
        """Start, or wait for the start that is in progress.

        Args:
            start: Starts everything.
            join: Checks whether another entry is possible.

        Raises:
            BrokerStartError: The start in progress failed.
            SetupError: The other entries belong to another event loop.
        """
        self._check_loop()
        self._count += 1
        try:
            if self._count == 1:
                await self._start(start)
            else:
                join()
                await self._join()
        except BaseException:
            self._count -= 1
            raise

    async def leave(self, stop: Callable[[], Awaitable[None]]) -> None:
        """Stop after the last exit; a further exit does nothing.

        Args:
            stop: Stops everything.
        """
        if self._count == 0:
            return
        self._count -= 1
        if self._count == 0:
            stopped = self._stopped = asyncio.Event()
            try:
                await stop()
            finally:
                stopped.set()

    def _check_loop(self) -> None:
        if self._count and self.loop is not None and self.loop is not asyncio.get_running_loop():
            how = (
                "was not left when its event loop ended"
                if self.loop.is_closed()
                else "runs in another event loop"
            )
            msg = f"This lifespan {how}: give each event loop a lifespan and brokers of its own."
            raise SetupError(msg)

    async def _join(self) -> None:
        if (error := await asyncio.shield(self._started)) is not None:
            msg = "The startup already in progress failed."
            raise BrokerStartError(msg) from error

    async def _start(self, start: Callable[[], Awaitable[None]]) -> None:
        self.loop = loop = asyncio.get_running_loop()
        self._started = loop.create_future()
        error: BaseException | None = None
        try:
            if self._stopped is not None:
                await self._stopped.wait()
            await start()
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._started.set_result(error)
