"""A PostgreSQL that a test can stop and restart."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.harness.servers import HOST
from tests.harness.servers.broker import BrokerServer

MISSING = "There is no PostgreSQL: install the operating system's package postgresql."
"""Why a test that needs the server is skipped."""

_DEBIAN = Path("/usr/lib/postgresql")
_NOBODY = 65534


def find_postgres(directory: Path = _DEBIAN) -> Path | None:
    """Return the directory of PostgreSQL's programs, or None.

    Args:
        directory: Where Debian has them, which are not on the PATH.
    """
    if (path := shutil.which("postgres")) is not None:
        return Path(path).resolve().parent
    return max((path.parent for path in directory.glob("*/bin/postgres")), default=None)


class PostgresServer(BrokerServer):
    """A PostgreSQL with the user `app`, without a password, and the database `postgres`."""

    def __init__(self) -> None:
        super().__init__()
        self._data = self.directory / "data"
        self._programs: Path | None = find_postgres()

    @property
    def url(self) -> str:
        """The URL for clients, without a scheme."""
        return f"app@{HOST}:{self.port}/postgres"

    def start(self) -> None:
        """Start the server, with an empty database if it is the first time, and wait until it responds."""
        if self._programs is None:  # pragma: no cover (installed where skips are forbidden)
            pytest.skip(MISSING)
        if not self._data.exists():
            self._create(self._programs)
        ready = "database system is ready to accept connections"
        before = self.output().count(ready)
        options = ["-h", HOST, "-p", str(self.port), "-k", "", "-F", "-D", str(self._data)]
        self._spawn(self._unprivileged(self._programs / "postgres", *options))
        self._wait_until(lambda: self.output().count(ready) > before, 20.0)

    def stop(self, timeout: float = 10.0) -> None:
        """Stop the server, which ends the connections of its clients, and wait until it has ended."""
        if self.running:  # pragma: no branch (a test stops a running one)
            # It would wait for its clients after SIGTERM.
            self.process.send_signal(signal.SIGINT)
            self.wait(timeout)

    def _create(self, programs: Path) -> None:
        self._data.mkdir(mode=0o700)
        if os.geteuid() == 0:  # pragma: no cover (depends on who runs the tests)
            os.chown(self._data, _NOBODY, _NOBODY)
            for directory in (self.directory, self.directory.parent):
                directory.chmod(0o711)
        options = ["--auth=trust", "--username=app", "--no-locale", "--encoding=UTF8", "--no-sync"]
        command = self._unprivileged(programs / "initdb", *options, "-D", str(self._data))
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def _unprivileged(self, program: Path, *options: str) -> list[str]:
        """Return a command that does not run as root, which PostgreSQL refuses."""
        user = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
        another_user = ["env", f"--chdir={self._data}", *user] if os.geteuid() == 0 else []
        return [*another_user, str(program), *options]
