"""Four processes of a service, and how they are replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple, Self

from tests.harness.servers import HOST
from tests.harness.servers.asgi import AppServer
from tests.harness.waiting import eventually
from tests.rollout.transports import PROCESSES

PATIENCE = 300.0
"""Seconds to wait for something that takes a few on an idle machine."""


class Record:
    """What the processes of a service have written about themselves.

    Args:
        path: The file to which they append.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handled: Counter[int] = Counter()
        self._states: defaultdict[str, set[int]] = defaultdict(set)
        self._position = 0
        path.touch()

    def handled(self) -> Counter[int]:
        """Return how often each message was handled."""
        self._read()
        return self._handled

    def processes(self, state: str) -> set[int]:
        """Return the processes whose brokers have been in a state."""
        self._read()
        return self._states[state]

    def _read(self) -> None:
        with self.path.open("rb") as file:
            file.seek(self._position)
            # A line without a line end is still being written.
            text = file.read().rpartition(b"\n")[0].decode()
        for line in text.splitlines():
            process, event, value = line.split()
            if event == "handled":
                self._handled[int(value)] += 1
            else:
                self._states[value].add(int(process))
            self._position += len(line) + 1


class Fleet:
    """The base class: servers that are started together, and replaced in steps.

    Args:
        words: The command after `python -m`.
        source: The service.
        env: The environment variables of the service.
        record: What the processes write about themselves.
    """

    returncode: int
    """The return code after SIGTERM."""

    def __init__(self, words: list[str], source: str, env: dict[str, str], record: Record) -> None:
        command = [sys.executable, "-m", *words]
        self.record = record
        self.servers = [
            AppServer(command, app=source, env=env, ready_path="/ready", timeout=PATIENCE)
            for _ in range(self.size)
        ]

    size: int
    """The number of servers."""

    async def start(self, server: AppServer) -> None:
        """Start a server, and wait until its processes consume."""
        raise NotImplementedError

    async def replace(self, server: AppServer) -> None:
        """Replace the processes of a server."""
        raise NotImplementedError

    async def stop(self, server: AppServer) -> None:
        """End a server by SIGTERM, and check its return code."""
        server.terminate()
        assert await asyncio.to_thread(server.wait, PATIENCE) == self.returncode, server.error("failed")

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for server in self.servers:
                stack.callback(server.close)
            await asyncio.gather(*map(self.start, self.servers))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


class OneByOne(Fleet):
    """Four servers with one process each: each one is ended by SIGTERM, and a new one is started then."""

    size = PROCESSES
    returncode = -signal.SIGTERM

    async def start(self, server: AppServer) -> None:
        await asyncio.to_thread(server.start)
        await eventually(lambda: server.pid in self.record.processes("running"), PATIENCE)

    async def replace(self, server: AppServer) -> None:
        await self.stop(server)
        await self.start(server)


class Reloaded(Fleet):
    """A gunicorn with four workers: at SIGHUP it starts new ones, and ends the old ones by SIGTERM."""

    size = 1
    returncode = 0

    async def start(self, server: AppServer) -> None:
        await asyncio.to_thread(server.start)
        await self._running(set())

    async def replace(self, server: AppServer) -> None:
        old = {*self.record.processes("running")}
        os.kill(server.pid, signal.SIGHUP)
        await self._running(old)
        await eventually(lambda: self.record.processes("stopped") >= old, PATIENCE)

    async def _running(self, old: set[int]) -> None:
        await eventually(lambda: len(self.record.processes("running") - old) == PROCESSES, PATIENCE)


class Command(NamedTuple):
    """How the service is served.

    Args:
        name: The name in the table.
        fleet: How its processes are replaced.
        words: The command after `python -m`.
        drain_delay: drain_delay, in seconds.
    """

    name: str
    fleet: type[Fleet]
    words: list[str]
    drain_delay: float = 0.0


_PORT = ["main:app", "--host", HOST, "--port", "{port}"]
_BIND = ["main:app", "--bind", f"{HOST}:{{port}}", "--workers", str(PROCESSES)]

UVICORN = Command("uvicorn", OneByOne, ["uvicorn", *_PORT])
FASTSTREAM = Command("`faststream run`", OneByOne, ["faststream", "run", *_PORT])
_GUNICORN = ["gunicorn", "-k", "uvicorn_worker.UvicornWorker", *_BIND]
GUNICORN = Command("gunicorn, SIGHUP, `drain_delay` 1 s", Reloaded, _GUNICORN, drain_delay=1.0)
# gunicorn ends the old workers before the new ones have started: the delay has to be longer than their start.
GUNICORN_LATE = Command("gunicorn, SIGHUP, `drain_delay` 15 s", Reloaded, _GUNICORN, drain_delay=15.0)
