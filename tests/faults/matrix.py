"""The fault table: tests declare rows and measure them, and all rows together make up docs/faults.md.

An example::

    @row("Killed and restarted", "503 until it recovers", counts="messages handled")
    async def test_killed_and_restarted(nats: NatsServer, fault: Fault) -> None:
        fault.happened()
        nats.kill()
        await eventually_status(ready, 503)
        fault.not_ready()
        fault.repaired()
        nats.restart()
        await eventually_status(ready, 200)
        await round_trip(broker, received, "after")
        fault.ready()
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
from faststream_adapters._lifecycle.options import LifespanKeywords
from tests.harness.clients import eventually_status
from tests.harness.waiting import eventually

IN_PROCESS = "in process"
STANDALONE = "uvicorn standalone"
FASTAPI = "uvicorn + FastAPI"

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"

MARKER = "fault(row): the row of docs/faults.md that the test measures (see tests/faults/matrix.py)"

NOTHING = "-"

_EXPLANATION = f"""\
# Faults and their effects

What happens when something fails, as measured by the tests of this package, which kill, freeze and restart
real servers. `make fault-table` runs these tests and writes this page; do not edit it by hand.

The times are those of one run on a machine with two cores, where two tests run in parallel. They show the
order of magnitude, and are not guaranteed. If several tests measure a row, it shows the slowest time. All
times are rounded up to a tenth of a second.

- **Fault**: what the test does to the service. A proxy in front of the server requires logins to Kafka,
  because none succeeds with the server itself. A client of Redis cannot be closed: it connects again for
  each request.
- **Where**: `{IN_PROCESS}` is a `BrokerLifespan` and its probes in the process of the test. `{STANDALONE}` is
  an `AsgiFastStream`, and `{FASTAPI}` a FastAPI application; uvicorn serves each of them in a separate
  process, and the test sends HTTP requests to it. The broker is NATS unless another one is named. The rows
  that start with "Any broker" apply to each kind of broker. In the rows that start with "Agreement", it may
  be the fault itself.
- **Effect**: the responses of the probes, the errors, and what happens to messages. `200` and `503` are those
  of readiness unless another probe is named.
- **Not ready after**: the time from the fault until readiness fails or the startup fails.
- **Ready after**: the time from the repair until readiness succeeds *and* a message has gone from a publisher
  to a handler.
- **Nothing lost**: what was counted to verify that no message is lost, if the fault could lose one. The rows
  that start with "Agreement" count the reports of the fault and of its end that were in time: by readiness,
  its details, the metrics, `on_health_change` and the log.

A dash means that there is nothing to measure.
"""

_SECTION = "\n## "
"""The start of a section after the table."""

_HEADINGS = ("Fault", "Where", "Effect", "Not ready after", "Ready after", "Nothing lost")


@dataclass(frozen=True, slots=True)
class Row:
    """A fault, as a test declares it.

    Args:
        name: The fault.
        sees: The effect.
        where: Where the test causes the fault. Each place is a row of the table.
        counts: What is counted to verify that nothing is lost. It follows "20 of 20" in the table.
    """

    name: str
    sees: str
    where: tuple[str, ...]
    counts: str


class Measured(NamedTuple):
    """The measurements of one run of a test: plain values, because workers send them to the main process."""

    name: str
    where: str
    time_to_unready: float | None
    time_to_ready: float | None
    done: int
    of: int


def row(
    name: str,
    sees: str,
    *,
    where: str | tuple[str, ...] = IN_PROCESS,
    counts: str = "",
) -> pytest.MarkDecorator:
    """Declare the row that a test measures with the `fault` fixture. The arguments are those of `Row`."""
    places = (where,) if isinstance(where, str) else where
    return pytest.mark.fault(Row(name, sees, places, counts))


class Fault:
    """Measures the times of one run of a test. If a time is measured several times, the slowest counts.

    Args:
        row: The row that the test declares.
    """

    def __init__(self, row: Row) -> None:
        self.row = row
        self._where = row.where[0] if len(row.where) == 1 else None
        self._since: dict[str, float] = {}
        self._time_to_unready: float | None = None
        self._time_to_ready: float | None = None
        self._done = self._of = 0

    def at(self, where: str) -> None:
        """Set the place of this run. Required if the row has several places."""
        assert where in self.row.where
        self._where = where

    def happened(self) -> None:
        """Start measuring; call this just before causing the fault."""
        self._since["fault"] = time.monotonic()

    def not_ready(self) -> None:
        """Record the time since the fault; call this when readiness, or the startup, has failed."""
        self._time_to_unready = max(self._time_to_unready or 0.0, time.monotonic() - self._since.pop("fault"))

    def repaired(self) -> None:
        """Start measuring; call this just before repairing the fault."""
        self._since["repair"] = time.monotonic()

    def ready(self) -> None:
        """Record the time since the repair; call this when readiness is 200 and a message was handled."""
        self._time_to_ready = max(self._time_to_ready or 0.0, time.monotonic() - self._since.pop("repair"))

    def counted(self, done: int, *, of: int) -> None:
        """Add to the count of what was not lost, after the test has verified it.

        Args:
            done: How many were not lost.
            of: How many there were.
        """
        assert self.row.counts, "The row does not say what is counted: row(..., counts=...)."
        self._done += done
        self._of += of

    def measured(self) -> Measured:
        """Return the measurements, and check that the test has completed all of them."""
        assert self._where is not None, "The place of this run is not set: fault.at(...)."
        assert not self._since, f"No time was recorded after: {', '.join(self._since)}."
        assert bool(self.row.counts) == bool(self._of), (
            "The row declares a count, but fault.counted(...) was not called."
        )
        return Measured(
            self.row.name, self._where, self._time_to_unready, self._time_to_ready, self._done, self._of
        )


def declared() -> Iterator[Row]:
    """Yield the rows that the tests in this directory declare, whether they run or not."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        module = import_module(f"{__package__}.{path.stem}")
        for member in vars(module).values():
            for mark in getattr(member, "pytestmark", ()):
                if mark.name == "fault":
                    yield mark.args[0]


def lines(rows: Iterable[Row]) -> Mapping[tuple[str, str], Row]:
    """Return the declared row for each name and place, in the order of the table."""
    table: dict[tuple[str, str], Row] = {}
    for each in rows:
        for where in each.where:
            assert table.setdefault((each.name, where), each) == each, (
                f"Two different rows have the name {each.name!r}."
            )
    return dict(sorted(table.items(), key=lambda item: (item[0][0].casefold(), item[0][1])))


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


def further_sections(text: str) -> str:
    """Return the part of a page that follows its table, which other commands write."""
    return _split(text)[1]


def _split(text: str) -> tuple[str, str]:
    first, heading, rest = text.partition(_SECTION)
    return first, heading + rest


def rows_of(text: str) -> list[tuple[str, str, str]]:
    """Return the name, the place and the effect of each row in a page."""
    first, _ = _split(text)
    table = [line for line in first.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[2:]]
    return [(name, where, sees) for name, where, sees, *_ in cells]


def _results(row: Row, runs: list[Measured]) -> tuple[str, str, str]:
    of = sum(run.of for run in runs)
    lost = f"{sum(run.done for run in runs)} of {of} {row.counts}" if of else NOTHING
    return _seconds(run.time_to_unready for run in runs), _seconds(run.time_to_ready for run in runs), lost


def _seconds(times: Iterable[float | None]) -> str:
    slowest = max((each for each in times if each is not None), default=None)
    # Rounded up, so that no time is shorter than the measured one.
    return NOTHING if slowest is None else f"{math.ceil(slowest * 10) / 10:.1f} s"


def _line(cells: Iterable[Any]) -> str:
    return f"| {' | '.join(cells)} |"


class Service:
    """The consumer for tests of faults in process: a broker, its lifespan and its probes.

    Args:
        url: The URL of the NATS server, or the URLs of several.
        kind: The kind of subscriber: `core`, or `push` or `pull` for JetStream.
        replicas: The number of servers on which JetStream stores the messages.
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
        self.broker = NatsBroker(url, **{"reconnect_time_wait": 0, **(client or {})})
        self.kind = kind
        self.published: list[int] = []
        """The published numbers. With JetStream, the server has acknowledged them."""
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
        """Use a lifespan for the broker, in place of the one made by the constructor."""
        self.lifespan = lifespan
        self.ready = make_readiness_asgi(lifespan)
        self.live = make_liveness_asgi(lifespan)

    async def handle(self, number: int) -> None:
        await self.work(number)
        self.handled.append(number)

    async def work(self, number: int) -> None:
        """Process a message. Does nothing; subclasses may override it."""

    async def publish(self, seconds: float = 5.0) -> None:
        """Publish the next number. With JetStream, wait for the acknowledgement.

        Args:
            seconds: The timeout of the publish.
        """
        number = len(self.published)
        stream = None if self.kind == "core" else "jobs"
        await self.broker.publish(number, "jobs", stream=stream, timeout=seconds)
        self.published.append(number)

    async def works(self) -> None:
        """Wait until readiness is 200, and a new message and all before it are handled."""
        await eventually_status(self.ready, 200, 30.0)
        await self.publish()
        await self.handled_all()

    async def handled_all(self) -> None:
        """Wait until every published number is handled at least once."""
        await eventually(lambda: set(self.published) <= set(self.handled), 30.0)
