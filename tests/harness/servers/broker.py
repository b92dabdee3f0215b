"""The base class of message brokers, which a test can kill, freeze and restart."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import psutil

from tests.harness.servers import ChildServer, poll


class BrokerServer(ChildServer):
    """A server that keeps its port and its data across restarts."""

    @property
    def url(self) -> str:
        """The URL for clients."""
        raise NotImplementedError

    def stop(self, timeout: float = 10.0) -> None:
        """Stop the server by SIGTERM, frozen or not, and wait until it has ended."""
        if not self.running:
            return
        self.process.terminate()
        self.thaw()
        self.wait(timeout)

    def restart(self) -> None:
        """Stop the server if it runs, and start it on the same port."""
        self.stop()
        self.start()

    def freeze(self, timeout: float = 5.0) -> None:
        """Suspend the process by SIGSTOP: connections stay open, but it does not respond."""
        self._signal(signal.SIGSTOP)
        if not poll(lambda: not self.running or self._frozen(), timeout) or not self.running:
            problem = "did not freeze"
            raise self.error(problem)

    def thaw(self) -> None:
        """Resume a frozen process by SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        # Signal the whole group, because some servers have more than one process.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _frozen(self) -> bool:
        tasks = Path(f"/proc/{self.pid}/task")
        if not tasks.exists():  # pragma: no cover (there is no /proc outside Linux)
            return psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
        try:
            # Check all threads, because one that is not stopped yet can still respond.
            stats = [Path(task, "stat").read_text(encoding="utf-8") for task in os.scandir(tasks)]
        except OSError:  # pragma: no cover (a thread ended meanwhile)
            return False
        return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)
