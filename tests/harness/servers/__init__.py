"""Real servers for the tests: child processes on 127.0.0.1 that never outlive the tests' interpreter."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

HOST = "127.0.0.1"

T = TypeVar("T")

# Reads "+GROUP" and "-GROUP" lines. Its input ends when the interpreter of the tests ends, even by SIGKILL.
# Unlike PR_SET_PDEATHSIG, this works on macOS, from any thread, and for the children of a server.
_WATCHDOG = """
import os, shutil, signal, sys
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


_started: set[ChildServer] = set()
"""The servers whose process group has not ended, as of the last check."""


class ServerError(Exception):
    """A server did not do what the test requested."""


def poll(check: Callable[[], T], timeout: float) -> T:
    """Call `check` until its result is true or `timeout` seconds have passed, and return the last result."""
    deadline = time.monotonic() + timeout
    while not (result := check()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return result


def running() -> frozenset[ChildServer]:
    """Return the servers that are running, or whose children are."""
    for server in tuple(_started):
        # The property removes a server that has ended from `_started`.
        _ = server.running
    return frozenset(_started)


def hold_port() -> tuple[int, socket.socket | None]:
    """Return a free port, and the socket that reserves it while no server listens on it."""
    held = socket.socket()
    # A bound socket that does not listen refuses connections and lets a server that sets one of these options
    # use the port. The kernel assigns the port neither to bind(0) nor to a client that reconnects to the dead
    # server, which would connect the client to itself.
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sys.platform == "linux":  # pragma: no branch (macOS takes the other branch)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        held.bind((HOST, 0))
    except BaseException:
        held.close()
        raise
    port: int = held.getsockname()[1]
    if sys.platform != "linux":  # pragma: no cover (macOS)
        # BSD requires SO_REUSEPORT on both sockets, which a server may not set. A port that was just released
        # is not reassigned soon.
        held.close()
        return port, None
    return port, held


class _Watchdog:
    """A process that kills the servers that this interpreter leaves behind, and removes their files."""

    def __init__(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="faststream-adapters-")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCHDOG, self.directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C must not end it too early
        )
        atexit.register(self._process.communicate)

    def send(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()


_watchdog = functools.cache(_Watchdog)


class ChildServer:
    """A server in a child process, with its own port and directory."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(dir=_watchdog().directory))
        self.port, self._held = hold_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._group: int | None = None
        atexit.register(self.close)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The most recently started process."""
        if self._process is None:
            msg = f"{self} has not been started."
            raise ServerError(msg)
        return self._process

    @property
    def pid(self) -> int:
        """The id of the most recently started process, which is also that of its process group."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process has been started and has not ended. A frozen process is running."""
        if self._process is None:
            return False
        if self._process.poll() is None:
            return True
        self._forget_empty_group()
        return False

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        raise NotImplementedError

    def output(self) -> str:
        """Return the output on stdout and stderr since the first start."""
        log = self.directory / "output.log"
        return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""

    def error(self, problem: str) -> ServerError:
        """Return an error that includes the end of the server's output."""
        tail = "\n".join(self.output().splitlines()[-30:]) or "(nothing)"
        return ServerError(f"{self} {problem}. Its output ends with:\n{tail}")

    def wait(self, timeout: float = 10.0) -> int:
        """Wait until the process has ended, and return its return code, which is -N after signal N."""
        try:
            returncode = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            problem = f"still ran after {timeout} s"
            raise self.error(problem) from None
        self._forget_empty_group()
        return returncode

    def kill(self) -> None:
        """Kill the process and its children, frozen or not, and wait until the process has ended."""
        if self._group is None:
            return
        # On macOS, the result is EPERM if only a zombie is left in the group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._group, signal.SIGKILL)
        self.process.wait(10.0)
        self._forget_group()

    def close(self) -> None:
        """Kill the process, and release the port and the directory. The server cannot be started again."""
        self.kill()
        if self._held is not None:  # pragma: no branch (macOS takes the other branch)
            self._held.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        if not self.running:
            try:
                self.start()
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({HOST}:{self.port})"

    def _spawn(
        self,
        command: Sequence[str],
        *,
        files: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        if self.running:
            msg = f"{self} is running already."
            raise ServerError(msg)
        if not self.directory.exists():
            msg = f"{self} has been closed: create another one."
            raise ServerError(msg)
        self.kill()  # children that the last start left behind
        for name, text in (files or {}).items():
            (self.directory / name).write_text(text, encoding="utf-8")
        with (self.directory / "output.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.directory,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._group = self.pid
        _started.add(self)
        _watchdog().send(f"+{self._group}")

    def _wait_until(self, ready: Callable[[], bool], timeout: float) -> None:
        """Wait until the process is ready. Otherwise kill it and raise an error that includes its output."""

        def state() -> str:
            if not self.running:
                return f"ended with code {self.process.returncode} at its start"
            return "ready" if ready() else ""

        result = poll(state, timeout) or f"did not serve within {timeout} s"
        if result != "ready":
            error = self.error(result)
            self.kill()
            raise error

    def _forget_empty_group(self) -> None:
        # Must run as soon as the process has ended, because its id can be reused later.
        if self._group is not None:
            try:
                os.killpg(self._group, 0)
            except (ProcessLookupError, PermissionError):
                self._forget_group()

    def _forget_group(self) -> None:
        _watchdog().send(f"-{self._group}")
        self._group = None
        _started.discard(self)
