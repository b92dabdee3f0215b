"""Processes that run in turn, a tenth of a second each: the noise of a busy machine meets them all alike."""

import asyncio
import signal
import time
from asyncio.subprocess import Process
from collections.abc import Collection

SECONDS = 0.1


class Slices:
    """The times in which one process ran, while the others were stopped.

    Args:
        process: The process; it is stopped until its first turn.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self._times: list[tuple[float, float]] = []
        process.send_signal(signal.SIGSTOP)

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self.process.returncode is not None

    async def run(self, *, told: signal.Signals | None = None) -> None:
        """Let it run for one slice, or until it ends.

        Args:
            told: A signal for it.
        """
        begin = time.perf_counter()
        self.process.send_signal(signal.SIGCONT)
        if told is not None:
            # Not while it is stopped: then any of its threads would get the signal, and not the main one.
            self.process.send_signal(told)
        ended = asyncio.ensure_future(self.process.wait())
        await asyncio.wait((ended,), timeout=SECONDS)
        if not ended.done():
            ended.cancel()
            self.process.send_signal(signal.SIGSTOP)
        self._times.append((begin, time.perf_counter()))

    async def run_out(self, told: signal.Signals | None = None) -> None:
        """Let it run until it ends; see `run`. It is told once."""
        while not self.ended:
            await self.run(told=told)
            told = None

    def kill(self) -> None:
        """End it, if it has not ended."""
        if not self.ended:
            self.process.kill()

    def seconds(self, since: float = 0.0, until: float = float("inf")) -> float:
        """Return how long it ran between two moments of `time.perf_counter`, which all processes share."""
        return sum(max(0.0, min(end, until) - max(begin, since)) for begin, end in self._times)


async def in_slices(slices: Collection[Slices], rounds: int) -> None:
    """Let processes run in turn, for so many rounds or until all have ended."""
    for _ in range(rounds):
        for each in slices:
            if not each.ended:
                await each.run()
