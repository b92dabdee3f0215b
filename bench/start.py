"""The cost of the package before the first request, and the memory it retains."""

import asyncio
import gc
import os
import sys
import tempfile
import time
from functools import partial

import psutil

from tests.harness.servers.nats import NatsServer

from .in_process import Apps, requester
from .measure import Case, Contender, Goal, Row, measure_in_rounds, sequential, unless_quick
from .under_load import app_server

MIN_ROUNDS = unless_quick(7)
MAX_ROUNDS = unless_quick(20)
PROBES = unless_quick(1_000_000, 10_000)

_IMPORT = """
import time
start = time.perf_counter()
import faststream
middle = time.perf_counter()
from faststream_adapters import *
print((middle - start) * 1e3, (time.perf_counter() - middle) * 1e3)
"""


async def _time_imports() -> dict[Contender, float]:
    with tempfile.TemporaryDirectory() as directory:
        # With compiled bytecode, as after an installation by pip: the first process writes it, the second one
        # is measured.
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": directory}
        for _ in range(2):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _IMPORT), env=env, stdout=asyncio.subprocess.PIPE
            )
            output = (await process.communicate())[0]
    faststream, package = map(float, output.split())
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


async def measure() -> list[Row]:
    """Measure the import, the startup and the memory."""
    with NatsServer() as nats:
        startup = _Startup(nats)
        apps: dict[Contender, str] = {"bare": "bare_app", "upstream": "upstream", "adapters": "adapters"}
        cases: list[Case] = [
            (
                Row(
                    "import of all names after `import faststream` (bare: that import)",
                    "ms",
                    (Goal("bare", at_most=0.05),),
                ),
                _time_imports,
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
        return [*rows, stop, memory, await _memory_growth(nats)]
