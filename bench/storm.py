"""A thousand probes a second, each on its own connection, and what an unrelated request feels meanwhile."""

import asyncio
import random
import statistics
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psutil

from tests.servers import HOST
from tests.servers.asgi import AppServer
from tests.servers.nats import NatsServer

from .measure import Goal, Row, many
from .paced import Connection, paced, percentile
from .under_load import ROOT, app_server

PROBES = 1000
SECONDS = many(4)
UNRELATED_PER_SECOND = 100
SLOW = 0.2
"""Seconds that a slow broker's answers are held back."""
TURNS = many(6)
MOST_TURNS = many(24)


@asynccontextmanager
async def slowed(target: int, delay: Callable[[], float]) -> AsyncIterator[int]:
    """Pass a server on, its answers late; give the port to connect to."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, late: bool) -> None:
        while data := await reader.read(65536):
            if late:
                await asyncio.sleep(delay())
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(HOST, target)
        await asyncio.gather(copy(reader, back, late=False), copy(there, writer, late=True))

    proxy = await asyncio.start_server(serve, HOST, 0)
    try:
        yield proxy.sockets[0].getsockname()[1]
    finally:
        proxy.close()


async def _storm(app: AppServer, *, probes: int) -> tuple[list[float], list[float]]:
    """Return the times of the unrelated requests and of the probes."""
    arguments = (str(app.port), "/hello", str(1 / UNRELATED_PER_SECOND), str(SECONDS))
    unrelated = await create_subprocess_exec(
        sys.executable, "-m", "bench.paced", *arguments, cwd=ROOT, stdout=PIPE
    )
    storm = [paced(app.port, "/readyz", 1.0, random.random(), SECONDS) for _ in range(probes)]  # noqa: S311 (spread)
    stormy = await asyncio.gather(*storm)
    quiet = (await unrelated.communicate())[0]
    return [*map(float, quiet.split())], [time for times in stormy for time in times]


async def measure() -> list[Row]:
    """Measure a broker that is up, one that is slow, and one that is frozen."""
    rows = {
        "up": Row("unrelated request, p99, storm on a broker that is up (bare: no storm)", "ms"),
        "slow": Row(f"the same, the broker's answers {SLOW:g} s late", "ms"),
        "frozen": Row("the same, a frozen broker", "ms", (Goal("bare", most=1.5),)),
    }
    notes: dict[str, list[str]] = {name: [] for name in rows}
    late = 0.0
    with NatsServer() as nats:
        async with slowed(nats.port, lambda: late) as port:
            server = app_server("uvicorn", "ours", nats)
            server.env["SERVICE_URL"] = f"nats://{HOST}:{port}"
            # The proxy runs in this event loop: starting must not block it.
            await asyncio.to_thread(server.start)
            process = psutil.Process(server.pid)
            try:
                await _storm(server, probes=PROBES)
                for turn in range(MOST_TURNS):
                    for name, row in rows.items():
                        if not row.wanted(turn, TURNS):
                            continue
                        late = SLOW if name == "slow" else 0.0
                        if name == "frozen":
                            nats.freeze()
                        quiet, _ = await _storm(server, probes=0)
                        before = int(await _ask(server, "/round-trips")), process.memory_info().rss
                        stormy, probes = await _storm(server, probes=PROBES)
                        asked = int(await _ask(server, "/round-trips")) - before[0]
                        grown = (process.memory_info().rss - before[1]) / 2**20
                        nats.thaw()
                        row.add("bare", percentile(quiet, 0.99))
                        row.add("ours", percentile(stormy, 0.99))
                        p50, p99 = statistics.median(probes), percentile(probes, 0.99)
                        notes[name].append(
                            f"{len(probes)} probes, {asked} round trips, p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
                            f"memory {grown:+.1f} MiB"
                        )
                        await asyncio.sleep(1.0)
            finally:
                await asyncio.to_thread(server.close)
    for name, row in rows.items():
        row.note = f"last turn: {notes[name][-1]}"
    return list(rows.values())


async def _ask(server: AppServer, path: str) -> bytes:
    connection = Connection(server.port)
    try:
        return await connection.get(path)
    finally:
        connection.close()
