"""What a test may leave behind in this process: tasks, threads, sockets and servers.

A client that is still active has a task, a socket or, if it is one of librdkafka's, threads that Python does
not know. tests/conftest.py looks for these because that is much faster than looking at all objects.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import logging
import os
import socket
import stat
import threading
from logging.handlers import QueueListener
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import nats

from tests.harness import servers
from tests.harness.servers import ChildServer, poll

if TYPE_CHECKING:
    from collections.abc import Iterator

THREADS = Path("/proc/self/task")
"""The threads of this process, including those that Python does not know."""

_CONNECTIONS = Path("/proc/net/tcp")
_ESTABLISHED = "01"
_DESCRIPTORS = Path("/dev/fd")
_NATS_PY = Path(nats.__file__).parent

_END_TIMEOUT = 5.0
"""Seconds that threads, sockets and servers may take to end."""

_SOON = 0.1
"""Seconds within which most of it has ended; a garbage collection takes longer."""

_TASKS_TIMEOUT = 1.0
"""Seconds that tasks may take to end."""


class Held(NamedTuple):
    """What this process holds.

    Args:
        threads: The system's ids of its threads; only of Python's where there is no /proc.
        sockets: The inode numbers of its sockets.
        servers: The servers of the tests that are running.
    """

    threads: frozenset[int] = frozenset()
    sockets: frozenset[int] = frozenset()
    servers: frozenset[ChildServer] = frozenset()

    @classmethod
    def now(cls) -> Held:
        """Return what is held at this moment."""
        return cls(_threads(), frozenset(_sockets()), servers.running())

    def without(self, other: Held) -> Held:
        """Return what of it the other does not hold."""
        return Held(self.threads - other.threads, self.sockets - other.sockets, self.servers - other.servers)

    def __bool__(self) -> bool:
        return any(self)

    def __str__(self) -> str:
        names = {thread.native_id: thread.name for thread in threading.enumerate()}
        descriptors = _sockets()
        return "\n".join(
            [
                *(f"thread {names.get(each) or _command(each)}" for each in sorted(self.threads)),
                *(f"socket {_addresses(descriptors.get(each, -1))}" for each in sorted(self.sockets)),
                *(f"server {each}" for each in self.servers),
            ]
        )


_lasting: list[Held] = []
"""What may outlive the tests that have started it."""


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """Let what starts in this block outlive the test. Give the reason in a comment."""
    before = Held.now()
    yield
    _lasting.append(Held.now().without(before))


def left_since(before: Held, *, loop_lasts: bool = False) -> Held:
    """Return what is held now and was not before, after waiting for what is about to end.

    Args:
        before: What was held before.
        loop_lasts: Whether the event loop outlives the test, and with it the threads of its pools.
    """

    def more() -> Held:
        more = Held.now().without(before)
        for allowed in (*_lasting, *([pools()] if loop_lasts else [])) if more else ():
            more = more.without(allowed)
        return more

    if more() and not poll(lambda: not more(), _SOON):
        # Unreachable objects are not left behind. One that was not closed warns, and a warning is a failure.
        gc.collect()
        poll(lambda: not more(), _END_TIMEOUT)
    return more()


async def tasks_since(before: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Return the tasks that are running now and were not before, after waiting for what is about to end."""
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    left = {task for task in left if not _is_of_nats_py(task)}
    if left:
        _, left = await asyncio.wait(left, timeout=_TASKS_TIMEOUT)
    return left


def _is_of_nats_py(task: asyncio.Task[Any]) -> bool:
    # nats-py leaks a task when close() meets a broken pipe.
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and Path(code.co_filename).is_relative_to(_NATS_PY)


def clients(kinds: tuple[type, ...]) -> list[Any]:
    """Return the objects of these types that are alive when all garbage is gone."""
    gc.collect()
    # Not isinstance(): it asks proxies for the object behind them.
    return [each for each in gc.get_objects() if issubclass(type(each), kinds)]


def connections(port: int) -> int:
    """Return how many connections a server on this port has, by the list of the system."""
    rows = [line.split() for line in _CONNECTIONS.read_text(encoding="ascii").splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == _ESTABLISHED for row in rows)


def pools() -> Held:
    """Return the threads of the thread pools that belong to an event loop, and end with it."""
    names = ("AnyIO worker thread", "asyncio_")
    found = [each for each in threading.enumerate() if any(name in each.name for name in names)]
    return Held(threads=frozenset(thread.native_id or 0 for thread in found))


@contextlib.contextmanager
def logging_restored() -> Iterator[None]:
    """Undo what an application in this block does to the logging of the process, as Litestar does by default.

    Its handlers write to the stream that stood in for stderr when it was created, and pytest closes that.
    """
    loggers = [logging.getLogger(name) for name in (None, "litestar")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
    # Litestar hands its records to a thread, which it ends only with the process.
    for thread in threading.enumerate():
        listener = getattr(getattr(thread, "_target", None), "__self__", None)
        if isinstance(listener, QueueListener):
            atexit.unregister(listener.stop)
            listener.stop()


def _threads() -> frozenset[int]:
    if not THREADS.exists():  # pragma: no cover (there is no /proc outside Linux)
        return frozenset(thread.native_id or 0 for thread in threading.enumerate())
    return frozenset(int(thread.name) for thread in os.scandir(THREADS))


def _command(thread: int) -> str:
    with contextlib.suppress(OSError):
        return (THREADS / str(thread) / "comm").read_text(encoding="utf-8").strip()
    return "that has just ended"


def _sockets() -> dict[int, int]:
    """Return the descriptors of the open sockets by their inode numbers."""
    found = {}
    for entry in os.scandir(_DESCRIPTORS):
        # The descriptor that the directory is read with is closed when it is looked at.
        with contextlib.suppress(OSError):
            status = os.fstat(int(entry.name))
            if stat.S_ISSOCK(status.st_mode):
                found[status.st_ino] = int(entry.name)
    return found


def _addresses(descriptor: int) -> str:
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as found:
        peer = ""
        with contextlib.suppress(OSError):
            peer = f" to {found.getpeername()}"
        return f"{found.getsockname()}{peer}"
    return "that has just been closed"
