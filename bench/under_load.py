"""Requests per second under a real server, as measured by wrk."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path

from tests.harness.servers import HOST
from tests.harness.servers.asgi import AppServer
from tests.harness.servers.nats import NatsServer

from .measure import Contender, Goal, Row, unless_quick
from .slices import SlicedProcess, run_in_slices

MIN_ROUNDS = unless_quick(4)
MAX_ROUNDS = unless_quick(16)
SECONDS = unless_quick(2)
"""The duration of the load in a round, for all contenders together."""
LATENCY_ROUNDS = 1
"""The number of rounds that measure latencies too; the round with the median p50 is reported."""
CONNECTIONS = 32
WARM_UP_REQUESTS = unless_quick(500)
ROOT = Path(__file__).parents[1]
HOSTS = ("fastapi", "litestar", "quart", "starlette")

_SCRIPT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %f %f %f %f %d\\n",
    summary.requests, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency:percentile(99.9) / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
"""

COMMANDS = {
    "uvicorn": (
        "uvicorn --factory bench.{module}:{app} --loop uvloop --http httptools --host {host} --port {{port}}"
        " --no-access-log --log-level warning"
    ),
    "granian": (
        "granian --interface asgi --factory bench.{module}:{app} --loop uvloop --host {host} --port {{port}}"
        " --no-ws --log-level warning"
    ),
}


def app_server(server: str, app: str, nats: NatsServer, module: str = "apps") -> AppServer:
    """Return a server for one of the applications, not started yet.

    Args:
        server: A key of `COMMANDS`.
        app: A function in the module.
        nats: The NATS server of the application.
        module: A module of this package.
    """
    command = COMMANDS[server].format(module=module, app=app, host=HOST)
    if app == "bare_app":
        command = command.replace("--factory ", "")
    env = {"PYTHONPATH": str(ROOT), "SERVICE_URL": nats.url}
    return AppServer([sys.executable, "-m", *command.split()], env=env, ready_path="/livez")


class Load:
    """Put one URL under load.

    Args:
        server: The server.
        path: The path to request.
        script: The Lua script that makes wrk print its results in one line.
    """

    def __init__(self, server: AppServer, path: str, script: Path) -> None:
        self.server = server
        self._path = path
        self._url = server.url + path
        self._script = script

    async def start(self, seconds: int) -> Process:
        """Start wrk for a number of seconds."""
        options = ("-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(self._script))
        return await create_subprocess_exec("wrk", *options, self._url, stdout=PIPE)

    def warm_up(self) -> None:
        """Send the first requests, which are slower in a new process."""
        connection = HTTPConnection(HOST, self.server.port)
        with closing(connection):
            for _ in range(WARM_UP_REQUESTS):
                connection.request("GET", self._path)
                connection.getresponse().read()

    async def latencies(self) -> tuple[float, ...]:
        """Return p50, p99 and p99.9 in milliseconds, under a load that runs without interruption."""
        return (await self.result(await self.start(1)))[1:]

    async def result(self, wrk: Process) -> tuple[float, ...]:
        """Return the number of responses, and p50, p99 and p99.9 in milliseconds."""
        output = (await wrk.communicate())[0].decode()
        [line] = [line for line in output.splitlines() if line.startswith("RESULT ")]
        requests, *latencies, errors = map(float, line.split()[1:])
        if errors:
            raise RuntimeError(f"{errors:g} requests for {self._url} failed:\n{output}")
        return requests, *latencies


async def load_side_by_side(loads: Mapping[Contender, Load]) -> dict[Contender, float]:
    """Put several URLs under load in alternating slices, and return the requests per second of each."""
    processes: dict[Contender, SlicedProcess] = {}
    try:
        for name, load in loads.items():
            await asyncio.to_thread(load.warm_up)
            processes[name] = SlicedProcess(await load.start(SECONDS), load.server.pid)
        await run_in_slices(processes.values())
        return {
            name: (await load.result(processes[name].process))[0] / processes[name].seconds()
            for name, load in loads.items()
        }
    finally:
        for process in processes.values():
            process.close()


class Comparison:
    """A row, with the URLs that it compares.

    Args:
        what: The operation.
        targets: The server, the application and the path of each contender.
        goals: The bounds for the ratios.
    """

    def __init__(
        self, what: str, targets: Mapping[Contender, tuple[str, str, str]], goals: tuple[Goal, ...] = ()
    ) -> None:
        self.row = Row(what, "requests/s", goals)
        self.targets = targets
        self.latencies: dict[Contender, list[tuple[float, ...]]] = {name: [] for name in targets}

    def note_latencies(self) -> None:
        """Write the latencies of the median round into the row's note."""
        medians = {name: sorted(rounds)[len(rounds) // 2] for name, rounds in self.latencies.items()}
        text = ", ".join("{} {:.2g}/{:.2g}/{:.2g}".format(name, *times) for name, times in medians.items())
        self.row.note = f"p50/p99/p99.9 in ms: {text}"


def _comparisons() -> Iterator[Comparison]:
    same = Goal("bare", at_least=0.95)
    for server in COMMANDS:
        # The goals apply to uvicorn; granian is measured for comparison.
        goals: dict[str, tuple[Goal, ...]] = {}
        if server == "uvicorn":
            goals = {
                "/livez": (Goal("bare", at_least=0.9),),
                "/ping": (Goal("bare", at_least=0.75), Goal("upstream", at_least=2)),
                "/ping-ttl": (same,),
            }
        for what, path, upstream_path in (
            ("liveness", "/livez", None),
            ("ping, `ttl=0`", "/ping", "/ping"),
            ("ping, `ttl=1`", "/ping-ttl", "/ping"),
            ("`@get` without injection", "/hello", "/hello"),
        ):
            targets: dict[Contender, tuple[str, str, str]] = {
                "bare": (server, "bare_app", path),
                "adapters": (server, "adapters", path),
            }
            if upstream_path:
                targets["upstream"] = server, "upstream", upstream_path
            yield Comparison(f"{server}: {what}", targets, goals.get(path, ()))
    for host in HOSTS:
        yield Comparison(
            f"uvicorn + {host}: liveness (bare: a route of the host)",
            {"bare": ("uvicorn", host, "/trivial"), "adapters": ("uvicorn", host, "/livez")},
            (Goal("bare", at_least=0.92),),
        )


async def _measure_round(
    comparisons: Collection[Comparison], nats: NatsServer, script: Path, *, latencies: bool
) -> None:
    # Two processes of the same program can differ in speed by a few percent for as long as they run, so each
    # round starts new ones.
    keys = {(server, app, name) for each in comparisons for name, (server, app, _) in each.targets.items()}
    with ExitStack() as stack:
        servers = {
            (server, app, name): stack.enter_context(closing(app_server(server, app, nats)))
            for server, app, name in keys
        }
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in servers.values()))
        for comparison in comparisons:
            loads = {
                name: Load(servers[server, app, name], path, script)
                for name, (server, app, path) in comparison.targets.items()
            }
            for name, load in loads.items() if latencies else ():
                comparison.latencies[name].append(await load.latencies())
            for name, rate in (await load_side_by_side(loads)).items():
                comparison.row.add(name, rate)


async def measure() -> list[Row]:
    """Measure all servers and hosts."""
    comparisons = list(_comparisons())
    with NatsServer() as nats:
        script = nats.directory / "result.lua"
        script.write_text(_SCRIPT, encoding="utf-8")
        for number in range(MAX_ROUNDS):
            left = [each for each in comparisons if each.row.needs_round(number, MIN_ROUNDS)]
            await _measure_round(left, nats, script, latencies=number < LATENCY_ROUNDS)
    for comparison in comparisons:
        comparison.note_latencies()
    return [comparison.row for comparison in comparisons]
