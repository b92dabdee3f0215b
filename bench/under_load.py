"""Requests per second under a real server, by wrk."""

import asyncio
import contextlib
import shutil
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path

from tests.servers import HOST
from tests.servers.asgi import AppServer
from tests.servers.nats import NatsServer

from .measure import Contender, Goal, Row, many
from .slices import Slices, in_slices

TURNS = many(8)
MOST_TURNS = many(40)
SECONDS = many(2)
"""How long the contenders are under load in a turn, all of them together."""
LATENCIES = many(3)
"""In so many turns the latencies are looked at too; the middle one is told."""
CONNECTIONS = 32
WARM_UP = many(500)
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
        "uvicorn --factory bench.apps:{app} --loop uvloop --http httptools --host {host} --port {{port}}"
        " --no-access-log --log-level warning"
    ),
    "granian": (
        "granian --interface asgi --factory bench.apps:{app} --loop uvloop --host {host} --port {{port}}"
        " --no-ws --log-level warning"
    ),
}


def app_server(server: str, app: str, nats: NatsServer) -> AppServer:
    """Return a server with one of the applications, which has not been started."""
    command = COMMANDS[server].format(app=app, host=HOST)
    if app == "plain":
        command = command.replace("--factory ", "")
    env = {"PYTHONPATH": str(ROOT), "SERVICE_URL": nats.url}
    return AppServer([sys.executable, "-m", *command.split()], env=env, ready_path="/livez")


class Load:
    """One URL under load.

    Args:
        server: The server.
        path: The path.
        script: What has wrk print one line.
    """

    def __init__(self, server: AppServer, path: str, script: Path) -> None:
        self.server = server
        self._path = path
        self._url = server.url + path
        self._script = script

    async def start(self, seconds: int) -> Process:
        """Start a load of so many seconds."""
        options = ("-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(self._script))
        return await create_subprocess_exec("wrk", *options, self._url, stdout=PIPE)

    def warm_up(self) -> None:
        """Make the requests that a new process is slower for."""
        connection = HTTPConnection(HOST, self.server.port)
        with contextlib.closing(connection):
            for _ in range(WARM_UP):
                connection.request("GET", self._path)
                connection.getresponse().read()

    async def latencies(self) -> tuple[float, ...]:
        """Return the latencies of a load that nothing interrupts."""
        return (await self.result(await self.start(1)))[1:]

    async def result(self, wrk: Process) -> tuple[float, ...]:
        """Return how many requests were answered, and the latencies."""
        output = (await wrk.communicate())[0].decode()
        [line] = [line for line in output.splitlines() if line.startswith("RESULT ")]
        requests, *latencies, errors = map(float, line.split()[1:])
        if errors:
            raise RuntimeError(f"{errors:g} requests of {self._url} failed:\n{output}")
        return requests, *latencies


async def side_by_side(loads: Mapping[Contender, Load]) -> dict[Contender, float]:
    """Load several URLs in slices of time, and return the requests per second."""
    slices: dict[Contender, Slices] = {}
    try:
        for name, load in loads.items():
            await asyncio.to_thread(load.warm_up)
            slices[name] = Slices(await load.start(SECONDS), load.server.pid)
        await in_slices(slices.values())
        return {
            name: (await load.result(slices[name].process))[0] / slices[name].seconds()
            for name, load in loads.items()
        }
    finally:
        for each in slices.values():
            each.close()


class Case:
    """What is compared.

    Args:
        what: What is asked for.
        asked: The server, the application and the path of each contender.
        goals: What the ratios have to be.
    """

    def __init__(
        self, what: str, asked: Mapping[Contender, tuple[str, str, str]], goals: tuple[Goal, ...] = ()
    ) -> None:
        self.row = Row(what, "requests/s", goals)
        self.asked = asked
        self.latencies: dict[Contender, list[tuple[float, ...]]] = {name: [] for name in asked}

    def note(self) -> None:
        """Note the latencies in the row."""
        middle = {name: sorted(turns)[len(turns) // 2] for name, turns in self.latencies.items()}
        told = ", ".join("{} {:.2g}/{:.2g}/{:.2g}".format(name, *times) for name, times in middle.items())
        self.row.note = f"p50/p99/p99.9 in ms: {told}"


def _cases() -> Iterator[Case]:
    same = Goal("bare", least=0.95)
    for server in COMMANDS:
        # The goals are those of uvicorn; granian is shown beside it.
        goals: dict[str, tuple[Goal, ...]] = {}
        if server == "uvicorn":
            goals = {
                "/livez": (same,),
                "/ping": (Goal("bare", least=0.75), Goal("upstream", least=2)),
                "/ping-ttl": (same,),
            }
        for what, path, like in (
            ("liveness", "/livez", None),
            ("ping, `ttl=0`", "/ping", "/ping"),
            ("ping, `ttl=1`", "/ping-ttl", "/ping"),
            ("`@get` without injection", "/hello", "/hello"),
        ):
            asked: dict[Contender, tuple[str, str, str]] = {
                "bare": (server, "plain", path),
                "ours": (server, "ours", path),
            }
            if like:
                asked["upstream"] = server, "upstream", like
            yield Case(f"{server}: {what}", asked, goals.get(path, ()))
    for host in HOSTS:
        yield Case(
            f"uvicorn + {host}: liveness (bare: its own route)",
            {"bare": ("uvicorn", host, "/trivial"), "ours": ("uvicorn", host, "/livez")},
        )


async def _turn(cases: Iterable[Case], nats: NatsServer, script: Path, *, latencies: bool) -> None:
    # One process is some percent faster than another of the same program, as long as it runs: each turn has
    # its own ones.
    servers: dict[tuple[str, str, Contender], AppServer] = {}
    with ExitStack() as stack:
        for case in cases:
            loads: dict[Contender, Load] = {}
            for name, (server, app, path) in case.asked.items():
                if (server, app, name) not in servers:
                    servers[server, app, name] = stack.enter_context(app_server(server, app, nats))
                loads[name] = Load(servers[server, app, name], path, script)
            for name, load in loads.items() if latencies else ():
                case.latencies[name].append(await load.latencies())
            for name, rate in (await side_by_side(loads)).items():
                case.row.add(name, rate)


async def measure() -> list[Row]:
    """Measure all servers and hosts."""
    if shutil.which("wrk") is None:
        sys.exit("The load comes from wrk: install it (on Debian and Ubuntu: apt-get install wrk).")
    cases = list(_cases())
    with NatsServer() as nats:
        script = nats.directory / "result.lua"
        script.write_text(_SCRIPT, encoding="utf-8")
        for turn in range(MOST_TURNS):
            left = [case for case in cases if case.row.wanted(turn, TURNS)]
            await _turn(left, nats, script, latencies=turn < LATENCIES)
    for case in cases:
        case.note()
    return [case.row for case in cases]
