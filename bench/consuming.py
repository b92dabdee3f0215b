"""The cost of a message in each host, beside plain FastStream."""

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import nats as nats_py

from tests.harness.servers import hold_port
from tests.harness.servers.nats import NatsServer

from .measure import Contender, Goal, Row, unless_quick
from .paced import paced
from .slices import SlicedProcess, run_in_slices
from .under_load import ROOT

MIN_ROUNDS = unless_quick(5)
MAX_ROUNDS = unless_quick(16)
MESSAGES = unless_quick(10_000, 500)
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
        consumers = {
            name: await stack.enter_async_context(consumer(url, kind)) for name, kind in kinds.items()
        }
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


async def measure() -> list[Row]:
    """Measure all hosts."""
    goal = (Goal("bare", at_most=1.03),)
    standalone: dict[Contender, str] = {"bare": "plain", "upstream": "upstream", "adapters": "standalone"}
    in_fastapi: dict[Contender, str] = {"bare": "plain", "adapters": "fastapi"}
    with_dependencies: dict[Contender, str] = {
        "bare": "plain",
        "upstream": "peer-depends",
        "adapters": "fastapi-depends",
    }
    with_clean_up: dict[Contender, str] = {
        "bare": "plain",
        "upstream": "peer-yield",
        "adapters": "fastapi-yield",
    }
    cheaper = (Goal("upstream", at_most=0.8),)
    with_statistics: dict[Contender, str] = {"bare": "standalone", "adapters": "statistics"}
    light = (Goal("bare", at_most=1.06),)
    in_quart: dict[Contender, str] = {"bare": "plain", "adapters": "quart"}
    with_requests = f"with {REQUESTS_PER_SECOND} requests per second (bare: none)"
    rows: list[Row] = []
    with NatsServer() as server:
        for where, kinds, goals, requests in (
            ("standalone", standalone, goal, False),
            ("in FastAPI", in_fastapi, goal, False),
            (
                "with two nested FastAPI dependencies (bare: none; upstream: faststream-fastapi)",
                with_dependencies,
                cheaper,
                False,
            ),
            (
                "with two nested FastAPI dependencies that yield (bare: none; upstream: faststream-fastapi)",
                with_clean_up,
                cheaper,
                False,
            ),
            ("standalone, with metrics (bare: without)", with_statistics, light, False),
            ("in Quart, in the app context", in_quart, (), False),
            (f"standalone, {with_requests}", standalone, (), True),
            (f"in FastAPI, {with_requests}", in_fastapi, (), True),
        ):
            cost = Row(f"one message, {where}", "µs of CPU", goals)
            rate = Row(f"throughput, {where}", "messages/s")
            for number in range(MAX_ROUNDS):
                if not cost.needs_round(number, MIN_ROUNDS):
                    break
                consumers = await consume_side_by_side(server.url, kinds, with_requests=requests)
                for name, each in consumers.items():
                    cost.add(name, each.cpu / MESSAGES * 1e6)
                    rate.add(name, MESSAGES / each.seconds)
            rows += [cost, rate]
    return rows
