"""The fault matrix: a test declares a row, measures it, and the rows of all tests become one table.

A test of a fault looks like this::

    @row("Killed and restarted", "503 until it is back", counts="messages handled")
    async def test_killed_and_restarted(nats: NatsServer, fault: Fault) -> None:
        fault.happened()
        nats.kill()
        await eventually_status(ready, 503)
        fault.told()
        fault.repaired()
        nats.restart()
        await eventually_status(ready, 204)
        await round_trip(broker, received, "after")
        fault.back()
        fault.counted(len(handled), of=len(published))
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import pytest
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import ConsumerConfig

from faststream_adapters import BrokerLifespan, make_liveness_asgi, make_readiness_asgi
from faststream_adapters.lifespan import LifespanKeywords
from tests.support import eventually, eventually_status

IN_PROCESS = "in process"
STANDALONE = "uvicorn standalone"
FASTAPI = "uvicorn + FastAPI"

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"

MARKER = "fault(row): the row of docs/faults.md that the test measures; see tests/faults/matrix.py"

NOTHING = "-"

_EXPLANATION = f"""\
# Faults, and what becomes of them

What this package does when something breaks, as its tests have measured it: on real servers, which they kill,
freeze and restart. `make fault-table` runs those tests and writes this page; do not edit it by hand.

The times are those of one run on a machine with two cores, where two tests run side by side. They show the
order of magnitude and promise nothing. Where several tests measure one row, the slowest counts, and every
time is rounded up to a tenth of a second.

- **Fault**: what the test does to the service.
- **Where**: `{IN_PROCESS}` is a `BrokerLifespan` and its probes inside the test; `{STANDALONE}` is an
  `AsgiFastStream`, and `{FASTAPI}` a FastAPI application, each served by uvicorn in a process of its own and
  asked over HTTP. The broker is NATS where no other is named; what each kind of broker has to stand is in the
  rows that begin with "Any broker".
- **What a user sees**: the answers of the probes, the error, what happens to messages. `204` and `503` are
  those of the readiness endpoint, unless another one is named.
- **Told after**: from the fault until readiness, or the start that failed, said so.
- **Back after**: from the repair until readiness said 204 again *and* a message went through, from a
  publisher to a handler.
- **Nothing lost**: what was counted to see that no message was lost, where the fault could lose one.

A dash stands where there is nothing to measure.
"""

_HEADINGS = ("Fault", "Where", "What a user sees", "Told after", "Back after", "Nothing lost")


@dataclass(frozen=True, slots=True)
class Row:
    """What a test states about its row.

    Args:
        name: The fault.
        sees: What a user sees.
        where: Where the test brings it about; one line of the table for each.
        counts: What was counted to see that nothing was lost, as it is read after "20 of 20".
    """

    name: str
    sees: str
    where: tuple[str, ...]
    counts: str


class Measured(NamedTuple):
    """What one run of a test has measured; made of plain values, which travel between processes."""

    name: str
    where: str
    told: float | None
    back: float | None
    done: int
    of: int


def row(
    name: str,
    sees: str,
    *,
    where: str | tuple[str, ...] = IN_PROCESS,
    counts: str = "",
) -> pytest.MarkDecorator:
    """Declare the row that a test measures with the `fault` fixture; see `Row`."""
    places = (where,) if isinstance(where, str) else where
    return pytest.mark.fault(Row(name, sees, places, counts))


class Fault:
    """The stopwatch of one run of a test; a time that is taken twice is the slower one."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self._where = row.where[0] if len(row.where) == 1 else None
        self._since: dict[str, float] = {}
        self._told: float | None = None
        self._back: float | None = None
        self._done = self._of = 0

    def at(self, where: str) -> None:
        """Say where this run takes place; needed when the row names more than one place."""
        assert where in self.row.where
        self._where = where

    def happened(self) -> None:
        """Call it just before the fault is brought about."""
        self._since["fault"] = time.monotonic()

    def told(self) -> None:
        """Call it when readiness, or the start, has told of the fault."""
        self._told = max(self._told or 0.0, time.monotonic() - self._since.pop("fault"))

    def repaired(self) -> None:
        """Call it just before the fault is repaired."""
        self._since["repair"] = time.monotonic()

    def back(self) -> None:
        """Call it when readiness has said 204 and a message has gone through."""
        self._back = max(self._back or 0.0, time.monotonic() - self._since.pop("repair"))

    def counted(self, done: int, *, of: int) -> None:
        """Record that so many of so many were not lost; the test has checked it."""
        assert self.row.counts, "Say in the row what is counted."
        self._done += done
        self._of += of

    def measured(self) -> Measured:
        """Return what was measured; a stopwatch that still runs is a mistake of the test."""
        assert self._where is not None, "Say where: fault.at(...)."
        assert not self._since, f"Nobody has stopped the clock of the {' and '.join(self._since)}."
        assert bool(self.row.counts) == bool(self._of), "What the row counts was not counted."
        return Measured(self.row.name, self._where, self._told, self._back, self._done, self._of)


def declared() -> Iterator[Row]:
    """Yield the rows that the tests in this folder declare, whether they run or not."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        module = import_module(f"{__package__}.{path.stem}")
        for member in vars(module).values():
            for mark in getattr(member, "pytestmark", ()):
                if mark.name == "fault":
                    yield mark.args[0]


def lines(rows: Iterable[Row]) -> Mapping[tuple[str, str], Row]:
    """Return the row of each line of the table, in their order, by name and place."""
    found: dict[tuple[str, str], Row] = {}
    for each in rows:
        for where in each.where:
            assert found.setdefault((each.name, where), each) == each, f"Two different rows: {each.name}"
    return dict(sorted(found.items(), key=lambda item: (item[0][0].casefold(), item[0][1])))


def page(rows: Iterable[Row], runs: Iterable[Measured]) -> str:
    """Return the page.

    Raises:
        LookupError: A row was not measured.
    """
    table = lines(rows)
    measured: dict[tuple[str, str], list[Measured]] = {key: [] for key in table}
    for run in runs:
        measured[run.name, run.where].append(run)
    if missing := [" / ".join(key) for key, of_key in measured.items() if not of_key]:
        msg = f"Not measured: {', '.join(missing)}."
        raise LookupError(msg)
    body = [_line(_HEADINGS), _line("---" for _ in _HEADINGS)]
    for (name, where), each in table.items():
        body.append(_line((name, where, each.sees, *_results(each, measured[name, where]))))
    return "\n".join([_EXPLANATION, *body, ""])


def rows_of(text: str) -> list[tuple[str, str, str]]:
    """Return fault, place and what a user sees of each line in a page."""
    table = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[2:]]
    return [(name, where, sees) for name, where, sees, *_ in cells]


def _results(row: Row, runs: list[Measured]) -> tuple[str, str, str]:
    of = sum(run.of for run in runs)
    lost = f"{sum(run.done for run in runs)} of {of} {row.counts}" if of else NOTHING
    return _seconds(run.told for run in runs), _seconds(run.back for run in runs), lost


def _seconds(times: Iterable[float | None]) -> str:
    slowest = max((each for each in times if each is not None), default=None)
    # Up, so that nothing is said to be faster than it was.
    return NOTHING if slowest is None else f"{math.ceil(slowest * 10) / 10:.1f} s"


def _line(cells: Iterable[Any]) -> str:
    return f"| {' | '.join(cells)} |"


class Service:
    """The consumer that the faults in process are tried on: a broker, its lifespan and its probes.

    Args:
        url: Where NATS is.
        kind: How the subscriber is fed: `core`, or JetStream's `push` or `pull`.
        replicas: On how many servers JetStream keeps the messages.
        client: Options for the broker.
        keywords: Keywords for the lifespan.
    """

    def __init__(
        self,
        url: str | list[str],
        kind: str = "core",
        *,
        replicas: int = 1,
        client: Mapping[str, Any] | None = None,
        **keywords: Unpack[LifespanKeywords],
    ) -> None:
        self.broker = NatsBroker(url, reconnect_time_wait=0, **(client or {}))
        self.kind = kind
        self.published: list[int] = []
        """What the server has acknowledged, where it does."""
        self.handled: list[int] = []
        options = {"stream": JStream("jobs", num_replicas=replicas), "ack_policy": AckPolicy.NACK_ON_ERROR}
        options["config"] = ConsumerConfig(ack_wait=1.0)
        kinds: dict[str, dict[str, Any]] = {
            "core": {},
            "push": {"queue": "workers", **options},
            "pull": {"durable": "worker", "pull_sub": PullSub(timeout=0.5), **options},
        }
        self.broker.subscriber("jobs", **kinds[kind])(self.handle)
        self.run_by(BrokerLifespan(self.broker, **keywords))

    def run_by(self, lifespan: BrokerLifespan) -> None:
        """Let this lifespan run the broker, instead of one of its own."""
        self.lifespan = lifespan
        self.ready = make_readiness_asgi(lifespan)
        self.live = make_liveness_asgi(lifespan)

    async def handle(self, number: int) -> None:
        await self.work(number)
        self.handled.append(number)

    async def work(self, number: int) -> None:
        """Do what the handler does for a message; a subclass may have something to do."""

    async def publish(self, seconds: float = 5.0) -> None:
        """Publish the next number, and wait until JetStream has acknowledged it, for so many seconds."""
        number = len(self.published)
        stream = None if self.kind == "core" else "jobs"
        await self.broker.publish(number, "jobs", stream=stream, timeout=seconds)
        self.published.append(number)

    async def works(self) -> None:
        """Wait until readiness says 204, a new message has gone through, and none before it is missing."""
        await eventually_status(self.ready, 204, 30.0)
        await self.publish()
        await self.handled_all()

    async def handled_all(self) -> None:
        """Wait until all that was published is handled, at least once."""
        await eventually(lambda: set(self.published) <= set(self.handled), 30.0)
