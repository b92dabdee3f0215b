"""Processes that run in turn, a tenth of a second each: the noise of a busy machine meets them all alike."""

import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import Process
from collections.abc import Collection

SECONDS = 0.1


class Slices:
    """The times in which one process ran, while the others were stopped.

    Args:
        process: The process; it is stopped until its first turn.
        server: The process group of the server that it makes work for, which runs and stops with it: what it
            has been asked for and has not answered yet is then not done in the time of another one.
    """

    def __init__(self, process: Process, server: int | None = None) -> None:
        self.process = process
        self._server = server
        self._times: list[tuple[float, float]] = []
        self._stop()

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self.process.returncode is not None

    async def run(self) -> None:
        """Let it run for one slice, or until it ends."""
        self._signal_server(signal.SIGCONT)
        begin = time.perf_counter()
        self._signal(signal.SIGCONT)
        ended = asyncio.ensure_future(self.process.wait())
        await asyncio.wait((ended,), timeout=SECONDS)
        ended.cancel()
        self._stop()
        self._times.append((begin, time.perf_counter()))

    def close(self) -> None:
        """End it, if it has not ended, and let its server go on."""
        self._signal(signal.SIGKILL)
        self._signal_server(signal.SIGCONT)

    def seconds(self, since: float = 0.0, until: float = float("inf")) -> float:
        """Return how long it ran between two moments of `time.perf_counter`, which all processes share."""
        return sum(max(0.0, min(end, until) - max(begin, since)) for begin, end in self._times)

    def _stop(self) -> None:
        self._signal(signal.SIGSTOP)
        self._signal_server(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        # It can have ended without it being known yet.
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def _signal_server(self, number: signal.Signals) -> None:
        if self._server is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._server, number)


async def in_slices(slices: Collection[Slices], seconds: float = 300.0) -> None:
    """Let processes run in turn until all have ended.

    Args:
        slices: The processes.
        seconds: How long that may take.

    Raises:
        TimeoutError: It took longer.
    """
    async with asyncio.timeout(seconds):
        while running := [each for each in slices if not each.ended]:
            for each in running:
                await each.run()
