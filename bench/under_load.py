"""Requests per second under a real server, by wrk."""

import asyncio
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from tests.servers import HOST
from tests.servers.asgi import AppServer
from tests.servers.nats import NatsServer

from .measure import Case, Contender, Goal, Row, Turn, in_turns, many
from .slices import Slices, in_slices

TURNS = many(5)
MOST_TURNS = many(15)
ROUNDS = many(8)
LATENCIES = many(3)
"""How often the latencies are looked at; the middle one is told."""
CONNECTIONS = 32
_NEVER = 3600
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
        url: The URL.
        script: What has wrk print one line.
    """

    def __init__(self, url: str, script: Path) -> None:
        self.url = url
        self.latencies: list[tuple[float, ...]] = []
        self._script = script

    async def start(self, seconds: int) -> Process:
        """Start a load of so many seconds."""
        options = ("-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(self._script))
        return await create_subprocess_exec("wrk", *options, self.url, stdout=PIPE)

    async def alone(self) -> None:
        """Note the latencies of a load that nothing interrupts."""
        _, *latencies = await self.result(await self.start(1))
        self.latencies.append(tuple(latencies))

    async def result(self, wrk: Process) -> tuple[float, ...]:
        """Return how many requests were answered, and the latencies."""
        output = (await wrk.communicate())[0].decode()
        [line] = [line for line in output.splitlines() if line.startswith("RESULT ")]
        requests, *latencies, errors = map(float, line.split()[1:])
        if errors:
            raise RuntimeError(f"{errors:g} requests of {self.url} failed:\n{output}")
        return requests, *latencies

    def __str__(self) -> str:
        middle = sorted(self.latencies)[len(self.latencies) // 2]
        return "{:.2g}/{:.2g}/{:.2g}".format(*middle)


def side_by_side(loads: Mapping[Contender, Load]) -> Turn:
    """Return what loads several URLs in slices of time; the values are requests per second."""

    async def turn() -> dict[Contender, float]:
        slices = {name: Slices(await load.start(_NEVER)) for name, load in loads.items()}
        rates: dict[Contender, float] = {}
        try:
            await in_slices(slices.values(), ROUNDS)
            for name, load in loads.items():
                # It takes a tenth of a second to end.
                result, _ = await asyncio.gather(
                    load.result(slices[name].process), slices[name].run_out(signal.SIGINT)
                )
                rates[name] = result[0] / slices[name].seconds()
        finally:
            for each in slices.values():
                each.kill()
        return rates

    return turn


def _rows(servers: dict[tuple[str, str], AppServer]) -> Iterator[tuple[Row, dict[Contender, str]]]:
    same = Goal("bare", least=0.95)
    for server in COMMANDS:
        bare, ours, upstream = (servers[server, app].url for app in ("plain", "ours", "upstream"))
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
            urls: dict[Contender, str] = {"bare": bare + path, "ours": ours + path}
            if like:
                urls["upstream"] = upstream + like
            yield Row(f"{server}: {what}", "requests/s", goals.get(path, ())), urls
    for host in HOSTS:
        url = servers["uvicorn", host].url
        yield (
            Row(f"uvicorn + {host}: liveness (bare: its own route)", "requests/s"),
            {"bare": f"{url}/trivial", "ours": f"{url}/livez"},
        )


async def measure() -> list[Row]:
    """Measure all servers and hosts."""
    if shutil.which("wrk") is None:
        sys.exit("The load comes from wrk: install it (on Debian and Ubuntu: apt-get install wrk).")
    with ExitStack() as stack:
        nats = stack.enter_context(NatsServer())
        apps = [(server, app) for server in COMMANDS for app in ("plain", "ours", "upstream")]
        apps += [("uvicorn", host) for host in HOSTS]
        servers = {key: stack.enter_context(app_server(*key, nats)) for key in apps}
        script = nats.directory / "result.lua"
        script.write_text(_SCRIPT, encoding="utf-8")
        cases: list[Case] = []
        loads: list[dict[Contender, Load]] = []
        for row, urls in _rows(servers):
            loads.append({name: Load(url, script) for name, url in urls.items()})
            cases.append((row, side_by_side(loads[-1])))
        rows = await in_turns(cases, TURNS, MOST_TURNS)
        for _ in range(LATENCIES):
            for load in loads:
                for each in load.values():
                    await each.alone()
    for row, load in zip(rows, loads, strict=True):
        latencies = ", ".join(f"{name} {each}" for name, each in load.items())
        row.note = f"p50/p99/p99.9 in ms: {latencies}"
    return rows
