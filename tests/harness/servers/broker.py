"""What the servers that carry messages have in common: a test can kill, freeze and restart them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from tests.servers import ChildServer, poll


class BrokerServer(ChildServer):
    """A server that keeps its port, and what it has stored, over restarts."""

    @property
    def url(self) -> str:
        """The address for clients."""
        raise NotImplementedError

    def stop(self, timeout: float = 10.0) -> None:
        """End the server by SIGTERM, frozen or not, and wait until it has ended."""
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
        """Stop the process by SIGSTOP: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)
        if not poll(lambda: not self.running or self._frozen(), timeout) or not self.running:
            problem = "did not freeze"
            raise self.error(problem)

    def thaw(self) -> None:
        """Let a frozen process go on by SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        # The whole group: some servers are more than one process.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _frozen(self) -> bool:
        tasks = Path(f"/proc/{self.pid}/task")
        if not tasks.exists():  # pragma: no cover (there is no /proc outside Linux)
            command = ["ps", "-o", "stat=", "-p", str(self.pid)]
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout.startswith("T")
        try:
            # All threads: one that is not stopped yet can still answer a client.
            stats = [Path(task, "stat").read_text(encoding="utf-8") for task in os.scandir(tasks)]
        except OSError:  # pragma: no cover (a thread ended while we looked)
            return False
        return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)
