"""What a message costs in a host app, beside plain FastStream."""

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import nats as nats_py

from tests.servers import hold_port
from tests.servers.nats import NatsServer

from .measure import Contender, Goal, Row, many
from .paced import paced
from .slices import Slices, in_slices
from .under_load import ROOT

TURNS = many(8)
MOST_TURNS = many(24)
MESSAGES = many(10_000, 500)
REQUESTS_PER_SECOND = 100
_NEVER = 600.0


class Consumer:
    """One consumer, which runs in slices of time.

    Args:
        process: Its process.
        port: The port that it serves on.
    """

    def __init__(self, process: Process, port: int) -> None:
        self.port = port
        self.slices = Slices(process)
        self.cpu = self.seconds = 0.0

    async def read(self) -> None:
        """Note what it has told in the end."""
        output = (await self.slices.process.communicate())[0]
        cpu, first, last = map(float, output.split())
        self.cpu, self.seconds = cpu, self.slices.seconds(first, last)


@asynccontextmanager
async def consumer(url: str, how: str) -> AsyncIterator[Consumer]:
    """Start a consumer; it is stopped when it is ready, until it is its turn."""
    port, held = hold_port()
    arguments = (how, url, str(MESSAGES), str(port))
    process = await create_subprocess_exec(
        sys.executable, "-m", "bench.consumer", *arguments, cwd=ROOT, stdout=PIPE
    )
    try:
        output = process.stdout
        if output is None or await output.readline() != b"ready\n":
            raise RuntimeError(f"The consumer {how} has not become ready.")
        yield Consumer(process, port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        if held is not None:
            held.close()


@asynccontextmanager
async def requests(port: int) -> AsyncIterator[None]:
    """Make requests, so many in a second of the server's own time, until it ends."""
    load = asyncio.create_task(paced(port, "/livez", 1 / REQUESTS_PER_SECOND, 0.0, _NEVER))
    try:
        yield
    finally:
        load.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
            await load


async def consumed(url: str, hows: Mapping[Contender, str], *, beside: bool) -> dict[Contender, Consumer]:
    """Have each way of consuming consume as many messages, side by side.

    Args:
        url: The server's.
        hows: Who consumes, and how.
        beside: Whether requests are made of those that serve any.
    """
    async with AsyncExitStack() as stack:
        consumers = {name: await stack.enter_async_context(consumer(url, how)) for name, how in hows.items()}
        client = await nats_py.connect(url)
        headers = {"content-type": "application/json"}
        for how in hows.values():
            for number in range(MESSAGES):
                await client.publish(how, str(number).encode(), headers=headers)
        await client.close()
        for name, each in consumers.items():
            if beside and hows[name] != "plain":
                await stack.enter_async_context(requests(each.port))
        await in_slices([each.slices for each in consumers.values()])
        for each in consumers.values():
            await each.read()
    return consumers


async def measure() -> list[Row]:
    """Measure all hosts."""
    goal = (Goal("bare", most=1.03),)
    rows: list[Row] = []
    with NatsServer() as server:
        for what, hows, goals, beside in (
            ("standalone", {"bare": "plain", "upstream": "upstream", "ours": "standalone"}, goal, False),
            ("in FastAPI", {"bare": "plain", "ours": "fastapi"}, goal, False),
            ("in Quart, each in the app's context", {"bare": "plain", "ours": "quart"}, (), False),
            (
                f"standalone, {REQUESTS_PER_SECOND} requests a second beside it (bare: none)",
                {"bare": "plain", "upstream": "upstream", "ours": "standalone"},
                (),
                True,
            ),
            (
                f"in FastAPI, {REQUESTS_PER_SECOND} requests a second beside it (bare: none)",
                {"bare": "plain", "ours": "fastapi"},
                (),
                True,
            ),
        ):
            cost = Row(f"a message, {what}", "µs of CPU", goals)
            rate = Row(f"the same, {what}", "messages/s")
            for turn in range(MOST_TURNS):
                if not cost.wanted(turn, TURNS):
                    break
                for name, each in (await consumed(server.url, hows, beside=beside)).items():  # type: ignore[arg-type]  # the names are contenders
                    cost.add(name, each.cpu / MESSAGES * 1e6)
                    rate.add(name, MESSAGES / each.seconds)
            rows += [cost, rate]
    return rows
