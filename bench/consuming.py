"""What a message costs in a host app, beside plain FastStream."""

import asyncio
import contextlib
import sys
from functools import partial

import nats as nats_py
from nats.aio.client import Client
from nats.errors import NoRespondersError

from tests.servers import hold_port
from tests.servers.nats import NatsServer

from .measure import Case, Contender, Goal, Row, in_turns
from .storm import paced
from .under_load import ROOT

TURNS = 5
MESSAGES = 20_000
REQUESTS_PER_SECOND = 100


async def _turn(url: str, how: str, *, requests: bool) -> float:
    """Return the microseconds of CPU time that a message takes."""
    port, held = hold_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.consumer", how, url, str(MESSAGES), str(port)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    client = await nats_py.connect(url)
    load: asyncio.Task[list[float]] | None = None
    try:
        while not await _is_ready(client):  # noqa: ASYNC110 (nobody else tells)
            await asyncio.sleep(0.05)
        if requests:
            load = asyncio.create_task(paced(port, "/livez", 1 / REQUESTS_PER_SECOND, 0.0, 600.0))
        headers = {"content-type": "application/json"}
        for number in range(MESSAGES):
            await client.publish("numbers", str(number).encode(), headers=headers)
        await client.flush()
        output = (await process.communicate())[0]
    finally:
        await client.close()
        if load is not None:
            load.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
                await load
        if held is not None:
            held.close()
    return float(output.split()[0])


async def _is_ready(client: Client) -> bool:
    try:
        await client.request("ready", timeout=1.0)
    except NoRespondersError:
        return False
    return True


async def measure() -> list[Row]:
    """Measure all hosts."""
    with NatsServer() as server:
        cases: list[Case] = []
        for what, hows, requests, goals in (
            ("a message, standalone", ("plain", "upstream", "standalone"), False, (Goal("bare", most=1.03),)),
            ("a message, in FastAPI", ("plain", None, "fastapi"), False, (Goal("bare", most=1.03),)),
            (
                f"a message, standalone, {REQUESTS_PER_SECOND} requests a second beside it",
                (None, "upstream", "standalone"),
                True,
                (),
            ),
        ):
            names: tuple[Contender, ...] = ("bare", "upstream", "ours")
            runs = {
                name: partial(_turn, server.url, how, requests=requests)
                for name, how in zip(names, hows, strict=True)
                if how is not None
            }
            cases.append((Row(what, "µs of CPU", goals), runs))
        return await in_turns(cases, TURNS)
