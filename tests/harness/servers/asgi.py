"""An ASGI server in a child process, serving an application from a file."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from tests.harness.servers import HOST, ChildServer, poll

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Exited(NamedTuple):
    """The result of a server that has ended."""

    returncode: int
    output: str
    seconds: float


class AppServer(ChildServer):
    """A command that serves an application. `with` starts it, waits until it responds, and always ends it.

    The command runs in a separate directory, where the application is `main.py`. More files can be added to
    `files` before the start.

    Args:
        command: The command. `{port}` and `{directory}` are replaced in its words.
        app: The application, as source text or as the path of a file.
        env: Additional environment variables, with the same replacements.
        ready_path: The path that is requested until there is a response with any status. With `None`,
            `start()` does not wait; use `wait_output()`.
        timeout: The timeout of the start, in seconds.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        app: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        ready_path: str | None = "/",
        timeout: float = 20.0,
    ) -> None:
        super().__init__()
        self.command = [self._fill(word) for word in command]
        self.env = {
            name: self._fill(value) for name, value in {"PYTHONUNBUFFERED": "1", **(env or {})}.items()
        }
        self.ready_path = ready_path
        self.timeout = timeout
        self.files: dict[str, str] = {}
        if app is not None:
            self.files["main.py"] = app.read_text(encoding="utf-8") if isinstance(app, Path) else app

    @classmethod
    def uvicorn(
        cls,
        app: str | Path,
        *args: str,
        target: str = "main:app",
        env: Mapping[str, str] | None = None,
        ready_path: str | None = "/",
        timeout: float = 20.0,
    ) -> Self:
        """Return a server that runs uvicorn with additional arguments."""
        command = [sys.executable, "-m", "uvicorn", target, "--host", HOST, "--port", "{port}", *args]
        return cls(command, app=app, env=env, ready_path=ready_path, timeout=timeout)

    @property
    def url(self) -> str:
        """The URL, without a trailing slash."""
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Start the command and wait until it responds."""
        self._spawn(self.command, files=self.files, env=self.env)
        if (path := self.ready_path) is not None:
            self._wait_until(lambda: self._responds(path), self.timeout)

    def run_to_exit(self, timeout: float = 20.0) -> Exited:
        """Start the command, wait until it ends by itself, close the server and return the result."""
        with contextlib.closing(self):
            started = time.monotonic()
            self._spawn(self.command, files=self.files, env=self.env)
            returncode = self.wait(timeout)
            return Exited(returncode, self.output(), time.monotonic() - started)

    def terminate(self) -> None:
        """Send SIGTERM to the process."""
        self.process.terminate()

    def interrupt(self, *, group: bool = False) -> None:
        """Send SIGINT to the process, or to its whole process group, like Ctrl-C in a terminal."""
        if group:
            os.killpg(self.pid, signal.SIGINT)
        else:
            self.process.send_signal(signal.SIGINT)

    def wait_output(self, text: str, timeout: float = 10.0) -> None:
        """Wait until the output contains the text."""
        poll(lambda: text in self.output() or not self.running, timeout)
        if text not in self.output():
            how = f"did not write {text!r} within {timeout} s" if self.running else f"ended without {text!r}"
            raise self.error(how)

    def _fill(self, text: str) -> str:
        return text.replace("{port}", str(self.port)).replace("{directory}", str(self.directory))

    def _responds(self, path: str) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=1.0)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return True
