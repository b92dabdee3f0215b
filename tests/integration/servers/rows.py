"""The commands, and what each is known to do: tests hold the servers to it, the documentation shows it."""

from __future__ import annotations

import shlex
import sys
from typing import NamedTuple

from tests.servers import HOST

WORKERS = 4


class Row(NamedTuple):
    """A server with one process, or with several workers."""

    server: str
    command: str
    """What a person types."""

    listen: str
    """What the tests add, to have a port of their own."""

    sigterm: int
    """The return code after SIGTERM; -N is death by signal N."""

    interrupted: int
    """The return code after Ctrl-C."""

    failed: tuple[int, ...]
    """The return codes that are seen after a start that failed; none where it is tried again for ever."""

    drains: bool
    """Whether new requests are answered during `drain_delay`."""

    workers: int = 1

    def words(self, *more: str) -> list[str]:
        """Return the command with more arguments, at the port that is put in for `{port}`."""
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
    Row("hypercorn", "hypercorn main:app", _BIND, 0, 0, (0,), drains=False),
]

_DIFFERENT = {
    # FastStream's supervisor starts a worker again whatever it died of.
    "`faststream run`": {"sigterm": 0, "interrupted": 0, "failed": ()},
    "uvicorn": {"sigterm": 0, "failed": (0,)},
    # A second worker that fails while it stops the others is too much for it.
    "gunicorn with uvicorn's worker": {"failed": (3, 1)},
    "gunicorn with its own worker": {"failed": (3, 1)},
}
"""What is not the same with several workers."""

ROWS = [
    row
    for single in _SINGLE
    for row in (
        single,
        single._replace(
            command=f"{single.command} --workers {WORKERS}",
            workers=WORKERS,
            **_DIFFERENT.get(single.server, {}),  # type: ignore[arg-type]  # the names and types are those above
        ),
    )
]


def commands_table() -> list[str]:
    """Return the lines of the table of commands."""
    return [
        "| Server | One process | Four workers |",
        "| --- | --- | --- |",
        *(
            f"| {one.server} | `{one.command}` | `{four.command}` |"
            for one, four in zip(ROWS[::2], ROWS[1::2], strict=True)
        ),
    ]


def behaviour_table() -> list[str]:
    """Return the lines of the table of what the servers do."""
    return [
        "| Server | Code after SIGTERM | After Ctrl-C | After a failed start | Serves during `drain_delay` |",
        "| --- | --- | --- | --- | --- |",
        *map(_behaviour, ROWS),
    ]


def _behaviour(row: Row) -> str:
    server = row.server if row.workers == 1 else f"{row.server}, workers"
    failed = " or ".join(map(_code, row.failed)) or "none: it tries again for ever"
    codes = f"{_code(row.sigterm)} | {_code(row.interrupted)} | {failed}"
    return f"| {server} | {codes} | {'yes' if row.drains else 'no'} |"


def _code(code: int) -> str:
    # A shell and Kubernetes show death by a signal like this.
    return str(code) if code >= 0 else str(128 - code)
