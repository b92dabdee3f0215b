"""Costs that could grow with the number of subscribers and brokers, beside plain FastStream."""

import json
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.harness.servers.nats import NatsServer

from .measure import Goal, Row, unless_quick
from .under_load import ROOT

ROUNDS = unless_quick(3)
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

    async def run(self, kind: str) -> None:
        """Run the service once, on a new server, and keep what it measures."""
        with NatsServer(jetstream=self.transport == "jetstream") as server:
            arguments = (kind, self.transport, server.url, str(self.subscribers), str(self.brokers))
            process = await create_subprocess_exec(
                sys.executable, "-m", "bench.scaled", *arguments, cwd=ROOT, stdout=PIPE
            )
            try:
                output, _ = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode:
            raise RuntimeError(f"The service with {self} has failed.")
        for name, value in json.loads(output).items():
            self.values.setdefault(kind, {}).setdefault(name, []).append(value)

    def of(self, name: str, kind: str = "adapters") -> list[float]:
        """Return the values of one measurement, one per round."""
        return self.values[kind][name]

    def over_plain(self, name: str) -> list[float]:
        """Return by how much this package's values exceed plain FastStream's."""
        return [ours - plain for ours, plain in zip(self.of(name), self.of(name, "plain"), strict=True)]

    def compared(self, what: str, unit: str, name: str, goals: tuple[Goal, ...] = ()) -> Row:
        """Return a row that compares a measurement with plain FastStream's."""
        row = Row(f"{what}, {self}", unit, goals)
        row.values = {"bare": self.of(name, "plain"), "adapters": self.of(name)}
        return row

    def alone(self, what: str, unit: str, name: str, limit: float | None = None) -> Row:
        """Return a row of a measurement that plain FastStream does not have."""
        row = Row(f"{what}, {self}", unit, limit=limit)
        row.values = {"adapters": self.of(name)}
        return row


SERVICES = [
    *(Service("core", subscribers) for subscribers in (1, 100, 400, 1_000)),
    *(Service("jetstream", subscribers) for subscribers in (1, 100, 400)),
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


async def measure() -> list[Row]:
    """Measure every size, the kinds alternately; those that goals compare more than once."""
    for number in range(ROUNDS):
        for service in SERVICES:
            if number and not service.has_goals:
                continue
            for kind in ("plain", "adapters"):
                await service.run(kind)
    return list(_rows(SERVICES))
