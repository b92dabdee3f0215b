"""A thousand probes per second, each client on its own connection, and the latency of unrelated requests."""

import asyncio
import random
import statistics
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psutil

from tests.harness.servers import HOST
from tests.harness.servers.asgi import AppServer
from tests.harness.servers.nats import NatsServer

from .measure import Goal, Row, unless_quick
from .paced import Connection, paced, percentile
from .under_load import ROOT, app_server

PROBES = 1000
SECONDS = unless_quick(4)
UNRELATED_PER_SECOND = 100
SLOW = 0.2
"""The seconds by which the replies of a slow broker are delayed."""
MIN_ROUNDS = unless_quick(3)
MAX_ROUNDS = unless_quick(12)


@asynccontextmanager
async def delaying_proxy(server_port: int, delay: Callable[[], float]) -> AsyncIterator[int]:
    """Run a proxy that delays what the server sends, and yield its port.

    Args:
        server_port: The port of the server.
        delay: Returns the delay in seconds.
    """

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, delayed: bool) -> None:
        while data := await reader.read(65536):
            if delayed:
                await asyncio.sleep(delay())
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(HOST, server_port)
        await asyncio.gather(
            copy(reader, server_writer, delayed=False), copy(server_reader, writer, delayed=True)
        )

    proxy = await asyncio.start_server(serve, HOST, 0)
    try:
        yield proxy.sockets[0].getsockname()[1]
    finally:
        proxy.close()


async def _storm(app: AppServer, *, probes: int) -> tuple[list[float], list[float]]:
    """Return the latencies in milliseconds of the unrelated requests, and of the probes."""
    # From another process, so that sending the probes does not delay the unrelated requests.
    arguments = (str(app.port), "/hello", str(1 / UNRELATED_PER_SECOND), str(SECONDS))
    process = await create_subprocess_exec(
        sys.executable, "-m", "bench.paced", *arguments, cwd=ROOT, stdout=PIPE
    )
    storm = [paced(app.port, "/readyz", 1.0, random.random(), SECONDS) for _ in range(probes)]  # noqa: S311 (spread)
    probe_latencies = await asyncio.gather(*storm)
    output = (await process.communicate())[0]
    return [*map(float, output.split())], [latency for client in probe_latencies for latency in client]


async def measure() -> list[Row]:
    """Measure a broker that is up, one that is slow, and one that is frozen."""
    rows = {
        "up": Row("unrelated request, p99, broker up (bare: no probes)", "ms"),
        "slow": Row(f"unrelated request, p99, broker replies {SLOW:g} s late (bare: no probes)", "ms"),
        "frozen": Row(
            "unrelated request, p99, broker frozen (bare: no probes)", "ms", (Goal("bare", at_most=1.5),)
        ),
    }
    delay = 0.0
    with NatsServer() as nats:
        async with delaying_proxy(nats.port, lambda: delay) as port:
            server = app_server("uvicorn", "adapters", nats)
            server.env["SERVICE_URL"] = f"nats://{HOST}:{port}"
            # In a thread, because the proxy needs this event loop while the server starts.
            await asyncio.to_thread(server.start)
            process = psutil.Process(server.pid)
            try:
                # Warms up.
                await _storm(server, probes=PROBES)
                for number in range(MAX_ROUNDS):
                    for state, row in rows.items():
                        if not row.needs_round(number, MIN_ROUNDS):
                            continue
                        delay = SLOW if state == "slow" else 0.0
                        if state == "frozen":
                            nats.freeze()
                        quiet, _ = await _storm(server, probes=0)
                        round_trips = int(await _get(server, "/round-trips"))
                        memory = process.memory_info().rss
                        stormy, probes = await _storm(server, probes=PROBES)
                        round_trips = int(await _get(server, "/round-trips")) - round_trips
                        memory = process.memory_info().rss - memory
                        nats.thaw()
                        row.add("bare", percentile(quiet, 0.99))
                        row.add("adapters", percentile(stormy, 0.99))
                        p50, p99 = statistics.median(probes), percentile(probes, 0.99)
                        row.note = (
                            f"last round: {len(probes)} probes, {round_trips} round trips, p50 {p50:.1f} ms, "
                            f"p99 {p99:.1f} ms, memory {memory / 2**20:+.1f} MiB"
                        )
                        await asyncio.sleep(1.0)
            finally:
                await asyncio.to_thread(server.close)
    return list(rows.values())


async def _get(server: AppServer, path: str) -> bytes:
    connection = Connection(server.port)
    try:
        return await connection.get(path)
    finally:
        connection.close()
