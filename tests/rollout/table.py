"""The table of rollouts in docs/faults.md, which `make rollout` writes."""

from __future__ import annotations

from collections.abc import Iterable

from tests.rollout.fleets import FASTSTREAM, GUNICORN, GUNICORN_LATE, UVICORN
from tests.rollout.flow import FROZEN, KILLED, NODE_REPLACED, NONE, Outcome, Row
from tests.rollout.transports import CLASSIC, CORE, KAFKA, PULL, PUSH, QUORUM, REDIS

COUNT = 20_000
"""How many messages `make rollout` publishes for a row, at least."""

HEADING = "## Rollouts"

_EXPLANATION = f"""\
{HEADING}

Four processes of a service are replaced one by one while numbered messages flow: each process gets SIGTERM,
and when it has ended, a new one is started. gunicorn replaces its four workers by itself. Some rows add a
fault of the server, which happens while one of the processes is replaced. The publisher and the subscribers
do what [Delivery](delivery.md) advises. `make rollout` runs all rows with at least 20,000 messages each, and
writes this section.

Kafka's test server keeps its messages in memory, so it is not killed. Only NATS has a cluster here.

- **Handled** is the number of messages that a handler has finished, of those that were published.
- **Again** is the number of times that a message was handled again.
"""

_HEADINGS = ("Transport", "Served by", "Meanwhile", "Handled", "Again")

_TRANSPORTS = (CORE, PUSH, PULL, CLASSIC, QUORUM, REDIS)
_REPRESENTATIVE = {
    (CORE.name, GUNICORN_LATE.name, NONE.name),
    (PULL.name, FASTSTREAM.name, NONE.name),
    (CLASSIC.name, GUNICORN.name, NONE.name),
    (PUSH.name, UVICORN.name, FROZEN.name),
    (QUORUM.name, UVICORN.name, KILLED.name),
    (REDIS.name, UVICORN.name, KILLED.name),
    (PULL.name, UVICORN.name, NODE_REPLACED.name),
    (KAFKA.name, UVICORN.name, NONE.name),
}
"""The rows that `make test-all` runs, with fewer messages: each transport, each command and each fault."""


def _rows() -> Iterable[Row]:
    for transport in (*_TRANSPORTS, KAFKA):
        # Without a subscriber, core NATS drops what is published.
        for command in (UVICORN, FASTSTREAM, GUNICORN if transport.keeps else GUNICORN_LATE):
            yield Row(transport, command)
    for transport in _TRANSPORTS:
        # The command makes no difference to what the server does.
        yield Row(transport, UVICORN, KILLED)
        yield Row(transport, UVICORN, FROZEN)
    # Kafka's test server is not killed: its messages are in memory.
    yield Row(KAFKA, UVICORN, FROZEN)
    for transport in (CORE, PUSH, PULL):
        yield Row(transport, UVICORN, NODE_REPLACED)


ROWS = sorted(_rows(), key=lambda row: row.names)
REPRESENTATIVE = [row for row in ROWS if row.names in _REPRESENTATIVE]


def section(rows: Iterable[Row], outcomes: Iterable[Outcome]) -> str:
    """Return the section of the page.

    Raises:
        LookupError: A row was not measured.
    """
    measured = {outcome.names: outcome for outcome in outcomes}
    if missing := [" / ".join(row.names) for row in rows if row.names not in measured]:
        msg = f"Not measured: {', '.join(missing)}."
        raise LookupError(msg)
    body = [_line(_HEADINGS), _line("---" for _ in _HEADINGS)]
    body += [_line((*row.names, *_counts(measured[row.names]))) for row in rows]
    return "\n".join([_EXPLANATION, *body, ""])


def replaced(page: str, new: str) -> str:
    """Return a page with a new section at its end, in place of the one that it has."""
    return f"{page.partition(HEADING)[0].rstrip()}\n\n{new}"


def names_of(page: str) -> list[tuple[str, str, str]]:
    """Return the names of the rows in the section of a page."""
    lines = [line for line in page.partition(HEADING)[2].splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]
    return [(transport, command, fault) for transport, command, fault, *_ in cells]


def _counts(outcome: Outcome) -> tuple[str, str]:
    return f"{outcome.published - outcome.lost} of {outcome.published}", str(outcome.repeated)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
