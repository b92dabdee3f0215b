"""The server commands and their behaviour, which the tests check and the documentation lists."""

from __future__ import annotations

import shlex
import sys
from typing import NamedTuple

from tests.harness.servers import HOST

WORKERS = 4


class Row(NamedTuple):
    """A server command, with one process or with several workers."""

    server: str
    command: str
    """The command as the documentation shows it."""

    listen: str
    """The arguments that the tests add to select the port."""

    sigterm: int
    """The return code after SIGTERM; -N is death by signal N."""

    interrupted: int
    """The return code after Ctrl-C."""

    failed: tuple[int, ...]
    """The possible return codes after a failed start; empty if the server restarts its workers forever."""

    drains: bool
    """Whether new requests are answered during `drain_delay`."""

    observes: bool = True
    """Whether the process with the application gets the signal, so that draining begins with it."""

    workers: int = 1

    def words(self, *more: str) -> list[str]:
        """Return the words of the command; `{port}` is a placeholder for the port."""
        program, *words = shlex.split(self.command)
        return [sys.executable, "-m", program, *words, *shlex.split(self.listen), *more]


_PORT = f"--host {HOST} --port {{port}}"
_BIND = f"--bind {HOST}:{{port}}"

_SINGLE = [
    Row("`faststream run`", "faststream run main:app", _PORT, -15, 130, (3,), drains=True),
    Row("uvicorn", "uvicorn main:app", _PORT, -15, 0, (3,), drains=True),
    Row(
        "gunicorn with uvicorn's worker",
        "gunicorn -k uvicorn_worker.UvicornWorker main:app",
        _BIND,
        0,
        0,
        (3,),
        drains=True,
    ),
    Row("gunicorn with its own worker", "gunicorn -k asgi main:app", _BIND, 0, 0, (3,), drains=False),
    Row("granian", "granian --interface asgi main:app", _PORT, 0, 0, (1,), drains=False),
    Row("hypercorn", "hypercorn main:app", _BIND, 0, 0, (0,), drains=False, observes=False),
]

_WITH_WORKERS = {
    # FastStream's supervisor restarts a worker whatever its return code.
    "`faststream run`": {"sigterm": 0, "interrupted": 0, "failed": ()},
    "uvicorn": {"sigterm": 0, "failed": (0,)},
    # The code is 1 if a second worker fails while gunicorn stops the others.
    "gunicorn with uvicorn's worker": {"failed": (3, 1)},
    "gunicorn with its own worker": {"failed": (3, 1)},
}
"""The columns that differ with several workers."""

ROWS = [
    row
    for single in _SINGLE
    for row in (
        single,
        single._replace(
            command=f"{single.command} --workers {WORKERS}",
            workers=WORKERS,
            **_WITH_WORKERS.get(single.server, {}),  # type: ignore[arg-type]  # the names and types are those above
        ),
    )
]


def commands_table() -> list[str]:
    """Return the lines of the documentation's table of commands."""
    return [
        "| Server | One process | Four workers |",
        "| --- | --- | --- |",
        *(
            f"| {one.server} | `{one.command}` | `{four.command}` |"
            for one, four in zip(ROWS[::2], ROWS[1::2], strict=True)
        ),
    ]


def behaviour_table() -> list[str]:
    """Return the lines of the documentation's table of behaviour."""
    return [
        (
            "| Server | Code after SIGTERM | After Ctrl-C | After a failed start "
            "| Drains at the signal | Serves during `drain_delay` |"
        ),
        "| --- | --- | --- | --- | --- | --- |",
        *map(_behaviour, ROWS),
    ]


def _behaviour(row: Row) -> str:
    server = row.server if row.workers == 1 else f"{row.server}, workers"
    failed = " or ".join(map(_code, row.failed)) or "none: it restarts the workers"
    codes = f"{_code(row.sigterm)} | {_code(row.interrupted)} | {failed}"
    return f"| {server} | {codes} | {_yes(row.observes)} | {_yes(row.drains)} |"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _code(code: int) -> str:
    # A shell and Kubernetes report death by signal N as 128 + N.
    return str(code) if code >= 0 else str(128 - code)
