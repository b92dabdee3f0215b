"""Run processes alternately, a tenth of a second each, so that the noise of the machine affects all alike."""

import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import Process
from collections.abc import Collection

SECONDS = 0.1


class SlicedProcess:
    """Stop and continue a process, and record the times in which it ran.

    Args:
        process: The process, which is stopped until its first slice.
        server: The process group of the server under the process's load. It is stopped and continued together
            with the process, so that it handles no pending requests during another process's slice.
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

    async def run_slice(self) -> None:
        """Run the process for one slice, or until it ends."""
        self._signal_server(signal.SIGCONT)
        start = time.perf_counter()
        self._signal(signal.SIGCONT)
        ended = asyncio.ensure_future(self.process.wait())
        await asyncio.wait((ended,), timeout=SECONDS)
        ended.cancel()
        self._stop()
        self._times.append((start, time.perf_counter()))

    def close(self) -> None:
        """Kill the process if it has not ended, and continue its server."""
        self._signal(signal.SIGKILL)
        self._signal_server(signal.SIGCONT)

    def seconds(self, since: float = 0.0, until: float = float("inf")) -> float:
        """Return how long the process ran between two readings of `time.perf_counter`.

        They may come from any process: the clock is the same for all of them.
        """
        return sum(max(0.0, min(end, until) - max(start, since)) for start, end in self._times)

    def _stop(self) -> None:
        self._signal(signal.SIGSTOP)
        self._signal_server(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        # The process may have ended without the event loop having noticed.
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def _signal_server(self, number: signal.Signals) -> None:
        if self._server is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._server, number)


async def run_in_slices(processes: Collection[SlicedProcess], timeout: float = 300.0) -> None:  # noqa: ASYNC109
    """Run processes alternately until all have ended.

    Args:
        processes: The processes.
        timeout: The seconds that this may take.

    Raises:
        TimeoutError: The processes did not end within the timeout.
    """
    async with asyncio.timeout(timeout):
        while running := [process for process in processes if not process.ended]:
            for process in running:
                await process.run_slice()
