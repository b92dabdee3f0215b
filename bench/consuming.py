"""The cost of a message in each host, beside plain FastStream, and that of each feature."""

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

import nats as nats_py

from tests.harness.servers import hold_port
from tests.harness.servers.nats import NatsServer

from .measure import Contender, Goal, Row, unless_quick
from .paced import paced
from .slices import SlicedProcess, run_in_slices
from .under_load import ROOT

MIN_ROUNDS = unless_quick(4)
MAX_ROUNDS = unless_quick(16)
MESSAGES = unless_quick(5_000, 500)
REQUESTS_PER_SECOND = 100
_UNTIL_CANCELLED = 600.0


class Consumer:
    """A consumer process that runs in slices of time.

    Args:
        process: The process.
        port: The port that it serves HTTP on.
    """

    def __init__(self, process: Process, port: int) -> None:
        self.port = port
        self.sliced = SlicedProcess(process)
        self.cpu = self.seconds = 0.0

    async def read_results(self) -> None:
        """Wait for the process to end, and set `cpu` and `seconds` from its output."""
        output = (await self.sliced.process.communicate())[0]
        cpu, first, last = map(float, output.split())
        self.cpu, self.seconds = cpu, self.sliced.seconds(first, last)


@asynccontextmanager
async def consumer(url: str, kind: str) -> AsyncIterator[Consumer]:
    """Start a consumer, wait until it is ready, and yield it stopped, before its first slice."""
    port, held = hold_port()
    arguments = (kind, url, str(MESSAGES), str(port))
    process = await create_subprocess_exec(
        sys.executable, "-m", "bench.consumer", *arguments, cwd=ROOT, stdout=PIPE
    )
    try:
        output = process.stdout
        if output is None or await output.readline() != b"ready\n":
            raise RuntimeError(f"The consumer {kind!r} did not start.")
        yield Consumer(process, port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        if held is not None:
            held.close()


@asynccontextmanager
async def background_requests(port: int) -> AsyncIterator[None]:
    """Send `REQUESTS_PER_SECOND` until exit; the requests due while the server is stopped are skipped."""
    load = asyncio.create_task(paced(port, "/livez", 1 / REQUESTS_PER_SECOND, 0.0, _UNTIL_CANCELLED))
    try:
        yield
    finally:
        load.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
            await load


async def consume_side_by_side(
    url: str, kinds: Mapping[Contender, str], *, with_requests: bool
) -> dict[Contender, Consumer]:
    """Let each contender consume `MESSAGES` messages, in alternating slices.

    Args:
        url: The URL of the NATS server.
        kinds: The kind of application that each contender runs.
        with_requests: Whether to send HTTP requests meanwhile, to those that serve HTTP.
    """
    async with AsyncExitStack() as stack:
        # They start at the same time, because the import of the frameworks takes longer than the messages do.
        async with asyncio.TaskGroup() as group:
            starting = {
                name: group.create_task(stack.enter_async_context(consumer(url, kind)))
                for name, kind in kinds.items()
            }
        consumers = {name: task.result() for name, task in starting.items()}
        client = await nats_py.connect(url)
        headers = {"content-type": "application/json"}
        for kind in kinds.values():
            for number in range(MESSAGES):
                await client.publish(kind, str(number).encode(), headers=headers)
        await client.close()
        for name, each in consumers.items():
            if with_requests and kinds[name] != "plain":
                await stack.enter_async_context(background_requests(each.port))
        await run_in_slices([each.sliced for each in consumers.values()])
        for each in consumers.values():
            await each.read_results()
    return consumers


_SAME = (Goal("bare", at_most=1.03),)
_CHEAPER = (Goal("upstream", at_most=0.8),)
_LIGHT = (Goal("bare", at_most=1.06),)


class Case(NamedTuple):
    """Kinds of applications to compare.

    Args:
        what: Where a message is handled.
        bare: The kind without what is measured; by default FastStream alone.
        adapters: The kind with it, of this package.
        upstream: The kind of another package with it.
        goals: The bounds for the ratios of the CPU time.
        with_requests: Whether HTTP requests are handled meanwhile.
    """

    what: str
    adapters: str
    bare: str = "plain"
    upstream: str | None = None
    goals: tuple[Goal, ...] = ()
    with_requests: bool = False

    @property
    def kinds(self) -> dict[Contender, str]:
        """The kind of each contender."""
        kinds: dict[Contender, str] = {"bare": self.bare}
        if self.upstream is not None:
            kinds["upstream"] = self.upstream
        return {**kinds, "adapters": self.adapters}


_REQUESTS = f"with {REQUESTS_PER_SECOND} requests per second (bare: none)"
CASES = (
    Case("standalone", "standalone", upstream="upstream", goals=_SAME),
    Case("in FastAPI", "fastapi", goals=_SAME),
    Case("standalone, with metrics (bare: without)", "standalone-statistics", "standalone", goals=_LIGHT),
    Case(
        "with two nested FastAPI dependencies (bare: without; upstream: faststream-fastapi)",
        *("fastapi-depends", "fastapi", "peer-depends"),
        goals=_CHEAPER,
    ),
    Case(
        "with two nested FastAPI dependencies that yield (bare: without; upstream: faststream-fastapi)",
        *("fastapi-yield", "fastapi", "peer-yield"),
        goals=_CHEAPER,
    ),
    Case("standalone, with tracing (bare: without)", "standalone-tracing", "standalone", "upstream-tracing"),
    Case("in Quart, in the context of the app (bare: without)", "quart", "wrapped"),
    Case(
        "in FastAPI, with metrics, the dependencies and tracing (bare: without)",
        *("fastapi-depends-statistics-tracing", "fastapi"),
    ),
    Case(
        "in Quart, with metrics, the context and tracing (bare: without)",
        *("quart-statistics-tracing", "wrapped"),
    ),
    Case(f"standalone, {_REQUESTS}", "standalone", upstream="upstream", with_requests=True),
    Case(f"in FastAPI, {_REQUESTS}", "fastapi", with_requests=True),
)


async def measure() -> list[Row]:
    """Measure all hosts and features."""
    rows: list[Row] = []
    with NatsServer() as server:
        for case in CASES:
            cost = Row(f"one message, {case.what}", "µs of CPU", case.goals)
            rate = Row(f"throughput, {case.what}", "messages/s")
            for number in range(MAX_ROUNDS):
                if not cost.needs_round(number, MIN_ROUNDS):
                    break
                consumers = await consume_side_by_side(
                    server.url, case.kinds, with_requests=case.with_requests
                )
                for name, each in consumers.items():
                    cost.add(name, each.cpu / MESSAGES * 1e6)
                    rate.add(name, MESSAGES / each.seconds)
            rows += [cost, rate]
    return rows
