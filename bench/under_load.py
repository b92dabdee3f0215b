"""Requests per second under a real server, by wrk."""

import asyncio
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.servers import HOST
from tests.servers.asgi import AppServer
from tests.servers.nats import NatsServer

from .measure import Case, Contender, Goal, Row, in_turns

TURNS = 3
SECONDS = 1
CONNECTIONS = 32
ROOT = Path(__file__).parents[1]
HOSTS = ("fastapi", "litestar", "quart", "starlette")

_SCRIPT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %f %f %f %f %d\\n",
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
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
    """One URL under load; the latencies of all turns are kept."""

    def __init__(self, url: str, script: Path) -> None:
        self.url = url
        self.latencies: list[tuple[float, ...]] = []
        self._script = script

    async def turn(self) -> float:
        """Return the requests per second of one turn."""
        wrk = await asyncio.create_subprocess_exec(
            *(
                "wrk",
                "-t1",
                f"-c{CONNECTIONS}",
                f"-d{SECONDS}s",
                "--latency",
                "-s",
                str(self._script),
                self.url,
            ),
            stdout=asyncio.subprocess.PIPE,
        )
        output = (await wrk.communicate())[0].decode()
        [line] = [line for line in output.splitlines() if line.startswith("RESULT ")]
        rate, *latencies, errors = map(float, line.split()[1:])
        if errors:
            raise RuntimeError(f"{errors:g} requests of {self.url} failed:\n{output}")
        self.latencies.append(tuple(latencies))
        return rate

    def __str__(self) -> str:
        middle = sorted(self.latencies)[len(self.latencies) // 2]
        return "{:.2g}/{:.2g}/{:.2g}".format(*middle)


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
            load = {name: Load(url, script) for name, url in urls.items()}
            loads.append(load)
            cases.append((row, {name: partial(Load.turn, each) for name, each in load.items()}))
        rows = await in_turns(cases, TURNS)
    for row, load in zip(rows, loads, strict=True):
        latencies = ", ".join(f"{name} {each}" for name, each in load.items())
        row.note = f"p50/p99/p99.9 in ms: {latencies}"
    return rows
