"""Costs that could grow with the number of subscribers and brokers, beside plain FastStream."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from tests.harness.servers.nats import NatsServer

from .measure import Contender, Goal, Row, unless_quick
from .under_load import ROOT

ROUNDS = unless_quick(4)
_COLUMNS: Mapping[str, Contender] = {"plain": "bare", "peer": "upstream", "adapters": "adapters"}
IDLE_GOAL = 5
"""Milliseconds of CPU per second, over plain FastStream, at 400 subscribers."""


@dataclass
class Service:
    """A size of service, and what was measured of it, by kind and by name.

    Args:
        transport: `core` or `jetstream`.
        subscribers: The number of subscribers of each broker.
        brokers: The number of brokers.
    """

    transport: str
    subscribers: int
    brokers: int = 1
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def __str__(self) -> str:
        transport = "core NATS" if self.transport == "core" else "JetStream"
        size = f"{self.subscribers:,} subscriber" + "s" * (self.subscribers > 1)
        return f"{size}, {transport}" + (f", on each of {self.brokers} brokers" if self.brokers > 1 else "")

    @property
    def has_goals(self) -> bool:
        """Whether goals apply to what is measured."""
        return self.transport == "core" and self.brokers == 1

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of application that can have this size."""
        return ("plain", "peer", "adapters") if self.brokers == 1 else ("plain", "adapters")

    @asynccontextmanager
    async def process(self, kind: str) -> AsyncIterator["Steps"]:
        """Run the service in a process, with a new server."""
        with NatsServer(jetstream=self.transport == "jetstream") as server:
            arguments = (kind, self.transport, server.url, str(self.subscribers), str(self.brokers))
            process = await create_subprocess_exec(
                sys.executable, "-m", "bench.scaled", *arguments, cwd=ROOT, stdin=PIPE, stdout=PIPE
            )
            try:
                yield Steps(self, kind, process)
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()

    def add(self, kind: str, results: dict[str, float]) -> None:
        """Keep what a process has measured."""
        for name, value in results.items():
            self.values.setdefault(kind, {}).setdefault(name, []).append(value)

    def of(self, name: str, kind: str = "adapters") -> list[float]:
        """Return the values of one measurement, one per round."""
        return self.values[kind][name]

    def over_plain(self, name: str) -> list[float]:
        """Return by how much this package's values exceed plain FastStream's."""
        return [ours - plain for ours, plain in zip(self.of(name), self.of(name, "plain"), strict=True)]

    def compared(self, what: str, unit: str, name: str, goals: tuple[Goal, ...] = ()) -> Row:
        """Return a row that compares a measurement with plain FastStream's and with the other package's."""
        other = " (upstream: faststream-fastapi)" if "peer" in self.kinds else ""
        row = Row(f"{what}, {self}{other}", unit, goals)
        row.values = {column: self.of(name, kind) for kind, column in _COLUMNS.items() if kind in self.kinds}
        return row

    def alone(self, what: str, unit: str, name: str, limit: float | None = None) -> Row:
        """Return a row of a measurement that plain FastStream does not have."""
        row = Row(f"{what}, {self}", unit, limit=limit)
        row.values = {"adapters": self.of(name)}
        return row


class Steps:
    """A process of a service, which measures in steps.

    Args:
        service: The service.
        kind: The kind of application.
        process: The process.
    """

    def __init__(self, service: Service, kind: str, process: Process) -> None:
        self._service = service
        self._kind = kind
        self._process = process

    async def done(self) -> str:
        """Wait until the current step is done, and return the line that the process prints then."""
        output = self._process.stdout
        line = await output.readline() if output is not None else b""
        if not line:
            raise RuntimeError(f"The service with {self._service} has failed.")
        return line.decode()

    async def step(self) -> str:
        """Measure the next step, and return the line at its end."""
        if self._process.stdin is not None:
            self._process.stdin.write(b"\n")
        return await self.done()

    async def finish(self) -> None:
        """Measure the last step, and keep all results."""
        self._service.add(self._kind, json.loads(await self.step()))
        # The application stops.
        if await self._process.wait():
            raise RuntimeError(f"The service with {self._service} has failed.")


SERVICES = [
    *(Service("core", subscribers) for subscribers in (1, 100, 400, 1_000)),
    *(Service("jetstream", subscribers) for subscribers in (1, 100, 400, 1_000)),
    *(Service("core", 50, brokers) for brokers in (3, 8)),
]


def _rows(services: list[Service]) -> Iterator[Row]:
    for service in services:
        at_400 = service.transport == "core" and service.subscribers == 400  # noqa: PLR2004 (the goals' size)
        faster = (Goal("bare", at_most=1.05),) if at_400 else ()
        yield service.compared("start", "ms", "start", faster)
        yield service.compared("stop", "ms", "stop")
        yield service.compared("resident memory", "MiB", "memory")
        yield service.compared("idle CPU", "ms per second", "idle")
        over = Row(
            f"idle CPU over plain FastStream, {service}", "ms per second", limit=IDLE_GOAL if at_400 else None
        )
        over.values = {"adapters": service.over_plain("idle")}
        yield over
        yield service.alone("readiness, cached by `ttl`", "µs", "readyz-ttl")
        yield service.alone("readiness with details", "µs", "readyz-details")
        yield service.alone("a scrape", "ms", "metrics")
        yield service.alone("the longest stall of a scrape", "ms", "metrics-stall")
        yield service.alone("the first docs page", "ms", "docs")
        yield service.alone(
            "the longest stall of the first docs page", "ms", "docs-stall", 20 if at_400 else None
        )
    by_size = {service.subscribers: service for service in services if service.transport == "core"}
    growth = Row(
        "idle CPU over plain FastStream, 1,000 subscribers (bare: 100)",
        "ms per second",
        (Goal("bare", at_most=3),),
    )
    growth.values = {"bare": by_size[100].over_plain("idle"), "adapters": by_size[1_000].over_plain("idle")}
    yield growth
    cached = Row(
        "readiness, cached by `ttl`, 1,000 subscribers (bare: 1)", "µs", (Goal("bare", at_most=1.2),)
    )
    cached.values = {"bare": by_size[1].of("readyz-ttl"), "adapters": by_size[1_000].of("readyz-ttl")}
    yield cached


async def _measure_round(services: Iterable[Service]) -> None:
    """Measure services of every kind: while they are idle all of them together, and else one at a time."""
    async with AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(service.process(kind))
            for service in services
            for kind in service.kinds
        ]
        for each in processes:
            await each.done()
        for each in processes:
            await each.step()
        await asyncio.gather(*(each.step() for each in processes))
        for each in processes:
            await each.finish()


async def measure() -> list[Row]:
    """Measure every size, the kinds alternately; those that goals compare more than once."""
    await _measure_round(service for service in SERVICES if not service.has_goals)
    for _ in range(ROUNDS):
        await _measure_round(service for service in SERVICES if service.has_goals)
    return list(_rows(SERVICES))
