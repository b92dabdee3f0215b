"""The cost of the package before the first request, and the memory it retains."""

import asyncio
import gc
import os
import sys
import tempfile
import time
from functools import partial

import httpx
import psutil

from tests.harness.servers.nats import NatsServer

from .in_process import Apps, requester
from .measure import Case, Contender, Goal, Row, measure_in_rounds, sequential, unless_quick
from .resident import PAGES
from .under_load import app_server

MIN_ROUNDS = unless_quick(7)
MAX_ROUNDS = unless_quick(20)
PROBES = unless_quick(1_000_000, 10_000)
MEMORY_ROUNDS = unless_quick(3)
MEMORY_GOAL = 3
"""MiB over plain FastStream, in FastAPI with everything on."""

_IMPORT = """
import time
start = time.perf_counter()
import faststream
middle = time.perf_counter()
from faststream_adapters import *
print((middle - start) * 1e3, (time.perf_counter() - middle) * 1e3)
"""


async def _time_imports(directory: str) -> dict[Contender, float]:
    # With compiled bytecode, as after an installation by pip: the first round, which warms up, writes it.
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": directory}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _IMPORT), env=env, stdout=asyncio.subprocess.PIPE
    )
    faststream, package = map(float, (await process.communicate())[0].split())
    return {"bare": faststream, "adapters": package}


class _Startup:
    """Start and stop the applications, and record the memory and the stopping time of each of them."""

    def __init__(self, nats: NatsServer) -> None:
        self._nats = nats
        self.memory: dict[str, list[float]] = {}
        self.stops: dict[str, list[float]] = {}

    async def seconds(self, app: str) -> float:
        """Return the seconds from the start of the server process to its first response."""
        server = app_server("uvicorn", app, self._nats)
        server.ready_path = "/ping" if app == "upstream" else "/readyz"
        start = time.perf_counter()
        with server:
            seconds = time.perf_counter() - start
            memory = psutil.Process(server.pid).memory_info().rss / 2**20
            self.memory.setdefault(app, []).append(memory)
            stop = time.perf_counter()
            server.terminate()
            server.wait()
            self.stops.setdefault(app, []).append(time.perf_counter() - stop)
        return seconds


async def _memory_growth(nats: NatsServer) -> Row:
    row = Row(f"memory growth over {PROBES:,} probes, alternately liveness and readiness", "MiB", limit=2)
    process = psutil.Process()
    apps = Apps(nats.url)
    async with apps.adapters.start_lifespan_context():
        probes = requester(apps.adapters, "/livez"), requester(apps.adapters, "/readyz-ttl")
        # The first pass warms up.
        for count in (PROBES // 20, PROBES):
            gc.collect()
            before = process.memory_info().rss
            for _ in range(count // 2):
                for probe in probes:
                    await probe()
                # A server, too, yields to the event loop between requests.
                await asyncio.sleep(0)
            gc.collect()
        row.add("adapters", (process.memory_info().rss - before) / 2**20)
    return row


def _memory_in_fastapi(nats: NatsServer) -> list[Row]:
    compared = Row("resident memory in FastAPI, with everything on (bare: FastStream in the lifespan)", "MiB")
    over = Row(
        "resident memory over plain FastStream in FastAPI, with everything on", "MiB", limit=MEMORY_GOAL
    )
    requested = Row(f"{over.what}, after a request to each page", "MiB")
    for _ in range(MEMORY_ROUNDS):
        with app_server("uvicorn", "plain", nats, "resident") as server:
            plain = psutil.Process(server.pid).memory_info().rss / 2**20
        with app_server("uvicorn", "everything", nats, "resident") as server:
            process = psutil.Process(server.pid)
            memory = process.memory_info().rss / 2**20
            for path in PAGES:
                httpx.get(server.url + path).raise_for_status()
            requested.add("adapters", process.memory_info().rss / 2**20 - plain)
        compared.add("bare", plain)
        compared.add("adapters", memory)
        over.add("adapters", memory - plain)
    return [compared, over, requested]


async def measure() -> list[Row]:
    """Measure the import, the startup and the memory."""
    with NatsServer() as nats, tempfile.TemporaryDirectory() as directory:
        startup = _Startup(nats)
        apps: dict[Contender, str] = {"bare": "bare_app", "upstream": "upstream", "adapters": "adapters"}
        cases: list[Case] = [
            (
                Row(
                    "import of all names after `import faststream` (bare: that import)",
                    "ms",
                    (Goal("bare", at_most=0.05),),
                ),
                partial(_time_imports, directory),
            ),
            (
                Row("start of uvicorn to the first response (bare: no broker)", "s"),
                sequential({name: partial(startup.seconds, app) for name, app in apps.items()}),
            ),
        ]
        rows = await measure_in_rounds(cases, MIN_ROUNDS, MAX_ROUNDS)
        stop = Row("stop of uvicorn, from SIGTERM to the end of the process (bare: no broker)", "s")
        stop.values = {name: startup.stops[app] for name, app in apps.items()}
        memory = Row("resident memory after the first response", "MiB")
        memory.values = {name: startup.memory[app] for name, app in apps.items()}
        return [*rows, stop, memory, *_memory_in_fastapi(nats), await _memory_growth(nats)]
