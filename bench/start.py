"""What the package costs before the first request, and what it keeps."""

import asyncio
import gc
import os
import sys
import tempfile
import time
from functools import partial

import psutil

from tests.servers.nats import NatsServer

from .in_process import Apps, request
from .measure import Case, Contender, Row, in_turns, many, one_by_one
from .under_load import app_server

TURNS = many(7)
MOST_TURNS = many(20)
PROBES = many(1_000_000, 10_000)

_IMPORT = """
import time
start = time.perf_counter()
import faststream
middle = time.perf_counter()
import faststream_adapters
print((middle - start) * 1e3, (time.perf_counter() - middle) * 1e3)
"""


async def _import() -> dict[Contender, float]:
    with tempfile.TemporaryDirectory() as folder:
        # As it is where pip has installed it: compiled, which the first of the two imports does.
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": folder}
        for _ in range(2):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _IMPORT), env=env, stdout=asyncio.subprocess.PIPE
            )
            output = (await process.communicate())[0]
    faststream, package = map(float, output.split())
    return {"bare": faststream, "ours": package}


class _Start:
    """Starts the applications; keeps how much memory each took."""

    def __init__(self, nats: NatsServer) -> None:
        self._nats = nats
        self.memory: dict[str, list[float]] = {}

    async def seconds(self, app: str) -> float:
        """Return the seconds from the start of the process to its first answer."""
        server = app_server("uvicorn", app, self._nats)
        server.ready_path = "/ping" if app == "upstream" else "/readyz"
        start = time.perf_counter()
        with server:
            taken = time.perf_counter() - start
            memory = psutil.Process(server.pid).memory_info().rss / 2**20
            self.memory.setdefault(app, []).append(memory)
        return taken


async def _probes(nats: NatsServer) -> Row:
    row = Row(f"memory after {PROBES:,} probes, liveness and readiness in turns", "MiB", limit=2)
    process = psutil.Process()
    apps = Apps(nats.url)
    async with apps.ours.start_lifespan_context():
        probes = request(apps.ours, "/livez"), request(apps.ours, "/readyz-ttl")
        for count in (PROBES // 20, PROBES):
            gc.collect()
            before = process.memory_info().rss
            for _ in range(count // 2):
                for probe in probes:
                    await probe()
                # A server hands control back to the event loop between requests.
                await asyncio.sleep(0)
            gc.collect()
        row.add("ours", (process.memory_info().rss - before) / 2**20)
    return row


async def measure() -> list[Row]:
    """Measure the import, the start and the memory."""
    with NatsServer() as nats:
        start = _Start(nats)
        apps: dict[Contender, str] = {"bare": "plain", "upstream": "upstream", "ours": "ours"}
        cases: list[Case] = [
            (Row("import, over `import faststream` (bare: that)", "ms", limit=15), _import),
            (
                Row("from the start of uvicorn to the first answer (bare: no broker)", "s"),
                one_by_one({name: partial(start.seconds, app) for name, app in apps.items()}),
            ),
        ]
        rows = await in_turns(cases, TURNS, MOST_TURNS)
        memory = Row("resident memory then", "MiB")
        memory.values = {name: start.memory[app] for name, app in apps.items()}
        return [*rows, memory, await _probes(nats)]
