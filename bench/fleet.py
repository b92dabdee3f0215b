"""A fleet of processes on a cluster of three NATS servers: requests, restarts of servers, a rolling update.

Each process serves HTTP and consumes, and is probed as by a kubelet. The servers do the counting: their
traces contain every request, and their lists of connections the time of each reconnect.
"""

import asyncio
import json
import random
import re
import statistics
import tempfile
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import psutil

from tests.docs.blocks import load
from tests.harness.servers import HOST
from tests.harness.servers.asgi import AppServer
from tests.harness.servers.nats import NatsServer, nats_cluster, wait_until_formed
from tests.harness.waiting import eventually
from tests.rollout.fleets import PATIENCE, OneByOne, Record
from tests.rollout.flow import RECIPE
from tests.rollout.transports import Transport

from .measure import Row, unless_quick

PODS = unless_quick(12, 3)
REPLACED_AT_ONCE = 2
ROUNDS = unless_quick(2)
"""How often the servers are restarted."""
IDLE_SECONDS = unless_quick(10)
OUTAGE_SECONDS = unless_quick(3, 0)
SETTLED_SECONDS = unless_quick(8)
"""How long all processes have to stay ready until an outage is over: consumers are checked every 5 s."""
MESSAGES_PER_SECOND = 100
READINESS_PERIOD = 1.0
LIVENESS_PERIOD = 10.0
SUBJECTS = ("orders.new", "orders.paid", "orders.sent", "kept.pull", "kept.push")

_SERVICE = """
from faststream.nats import JStream, NatsBroker, PullSub

broker = NatsBroker(urls, name=f"pod-{process}", logger=None)
for subject in ("orders.new", "orders.paid", "orders.sent"):
    broker.subscriber(subject, queue="workers")(handle)
stream = JStream("kept", num_replicas=len(urls))
broker.subscriber("kept.pull", stream=stream, durable="pull", pull_sub=PullSub(batch_size=10))(handle)
broker.subscriber("kept.push", stream=stream, queue="push")(handle)
"""
SERVICE = Transport("NATS", "fleet", "nats.NatsBroker", _SERVICE, NatsServer, {})
WORDS = f"uvicorn main:app --host {HOST} --port {{port}} --no-access-log --log-level warning".split()


class Pods(OneByOne):
    """The processes."""

    size = PODS


class Kubelet:
    """Requests the probes of a process as a kubelet does: each on a new connection, with a second's time.

    Args:
        server: The process.
    """

    def __init__(self, server: AppServer) -> None:
        self._server = server
        self.ready = False
        self.changes: list[tuple[float, bool]] = []
        """When readiness has changed, on the clock of `time.monotonic`, and to what."""
        self.not_live = 0
        """How many liveness probes have failed."""

    async def run(self) -> None:
        """Probe until cancelled."""
        await asyncio.gather(
            self._every(READINESS_PERIOD, "/ready", self._on_readiness),
            self._every(LIVENESS_PERIOD, "/live", self._on_liveness),
        )

    async def _every(self, period: float, path: str, on_result: Callable[[bool], None]) -> None:
        await asyncio.sleep(random.uniform(0.0, period))  # noqa: S311 (spread)
        while True:
            due = time.monotonic() + period
            on_result(await self._probe(path))
            await asyncio.sleep(due - time.monotonic())

    async def _probe(self, path: str) -> bool:
        try:
            async with asyncio.timeout(1.0):
                reader, writer = await asyncio.open_connection(HOST, self._server.port)
                try:
                    writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
                    return b" 200 " in await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False

    def _on_readiness(self, ready: bool) -> None:  # noqa: FBT001 (a result)
        if ready != self.ready:
            self.ready = ready
            self.changes.append((time.monotonic(), ready))

    def _on_liveness(self, live: bool) -> None:  # noqa: FBT001 (a result)
        self.not_live += not live


@asynccontextmanager
async def probed(kubelets: list[Kubelet]) -> AsyncIterator[None]:
    """Probe all processes in this block, which begins when they are ready."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(kubelet.run()) for kubelet in kubelets]
        await eventually(lambda: all(kubelet.ready for kubelet in kubelets), PATIENCE)
        yield
        for task in tasks:
            task.cancel()


def cpu_seconds(servers: list[NatsServer]) -> float:
    """Return the CPU time that the servers have used."""
    return sum(sum(psutil.Process(server.pid).cpu_times()[:2]) for server in servers)


async def cpu(servers: list[NatsServer]) -> float:
    """Return the milliseconds of CPU time that the servers use per second."""
    before, began = cpu_seconds(servers), time.monotonic()
    await asyncio.sleep(IDLE_SECONDS)
    return (cpu_seconds(servers) - before) * 1e3 / (time.monotonic() - began)


async def requests(servers: list[NatsServer]) -> tuple[float, float, float]:
    """Return the PINGs, the JetStream API requests and the fetches of messages per second and process."""
    before = [len(server.output()) for server in servers]

    def traces() -> list[str]:
        return [server.output()[start:] for server, start in zip(servers, before, strict=True)]

    for server in servers:
        server.config += "\ntrace: true"
        server.reload()
    await eventually(lambda: all("Reloaded: trace = true" in trace for trace in traces()))
    await asyncio.sleep(IDLE_SECONDS)
    text = "".join(traces())
    for server in servers:
        server.config = server.config.removesuffix("\ntrace: true")
        server.reload()
    found = re.findall(r":pod-\d+\S* - <<- \[(PING|PUB \$JS\.API\.(?:CONSUMER\.MSG\.NEXT)?)", text)
    counts = [found.count(what) for what in ("PING", "PUB $JS.API.", "PUB $JS.API.CONSUMER.MSG.NEXT")]
    return tuple(count / IDLE_SECONDS / PODS for count in counts)  # type: ignore[return-value]  # three


def connected(servers: list[NatsServer]) -> dict[str, float]:
    """Return when each process has connected, by its name, as the servers report."""
    times: dict[str, float] = {}
    for server in servers:
        # Each start of a server chooses another port for its monitoring.
        address = re.findall(r"Starting http monitor on (\S+)", server.output())[-1]
        with urlopen(f"http://{address}/connz", timeout=5) as response:
            connections = json.load(response)["connections"]
        times |= {each["name"]: datetime.fromisoformat(each["start"]).timestamp() for each in connections}
    return times


class Outage:
    """A restart of some of the servers, and what it does to the processes.

    Args:
        what: Which servers.
        count: How many.
        seconds: How long they are down.
    """

    def __init__(self, what: str, count: int, seconds: float) -> None:
        self._count = count
        self._seconds = seconds
        self.reconnects = Row(f"{what}: how many reconnect", "processes")
        self.recovery = Row(f"{what}: until all processes stay ready, from the start of the server", "s")
        self.spread = Row(f"{what}: standard deviation of the times of the reconnects", "s")
        self.burst = Row(f"{what}: the most reconnects in 100 ms", "processes")
        self.unready = Row(f"{what}: the most changes of a process from ready to not ready", "times")

    async def measure(self, servers: list[NatsServer], kubelets: list[Kubelet]) -> None:
        """Restart the servers and wait until all processes stay ready."""
        before, began = await asyncio.to_thread(connected, servers), time.monotonic()
        restarted = servers[: self._count]
        await asyncio.gather(*(asyncio.to_thread(server.stop) for server in restarted))
        # The servers are down for a fixed time.
        await asyncio.sleep(self._seconds)
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in restarted))
        up = time.monotonic()

        def last_change() -> float:
            return max(up, *(kubelet.changes[-1][0] for kubelet in kubelets))

        await eventually(
            lambda: (
                all(kubelet.ready for kubelet in kubelets)
                and time.monotonic() - last_change() > SETTLED_SECONDS
            ),
            PATIENCE,
        )
        after = await asyncio.to_thread(connected, servers)
        times = sorted(after[name] for name in after if after[name] != before.get(name))
        self.reconnects.add("adapters", len(times))
        self.recovery.add("adapters", last_change() - up)
        self.spread.add("adapters", statistics.pstdev(times) if times else 0.0)
        self.burst.add(
            "adapters", max((bisect_left(times, at + 0.1) - i for i, at in enumerate(times)), default=0)
        )
        self.unready.add(
            "adapters",
            max(sum(at > began and not ready for at, ready in each.changes) for each in kubelets),
        )

    @property
    def rows(self) -> list[Row]:
        """The measurements."""
        return [self.recovery, self.unready, self.reconnects, self.spread, self.burst]


async def roll_out(pods: Pods, urls: list[str], record: Record, directory: Path) -> list[Row]:
    """Replace all processes while numbered messages flow, and return what became of the messages."""
    what = f"{PODS} processes replaced, {REPLACED_AT_ONCE} at a time: "
    published, began = 0, time.monotonic()
    until_confirmed = load(RECIPE.code, directory).publish_until_confirmed
    async with SERVICE.broker(urls) as broker, asyncio.TaskGroup() as group:

        async def publish() -> None:
            nonlocal published
            while not replaced.is_set():
                subject = SUBJECTS[published % len(SUBJECTS)]
                options = {"stream": "kept", "timeout": 2.0} if subject.startswith("kept") else {}
                await until_confirmed(partial(broker.publish, published, subject, **options))
                published += 1
                await asyncio.sleep(1 / MESSAGES_PER_SECOND)

        replaced = asyncio.Event()
        publisher = group.create_task(publish())
        for start in range(0, PODS, REPLACED_AT_ONCE):
            batch = pods.servers[start : start + REPLACED_AT_ONCE]
            await asyncio.gather(*map(pods.replace, batch))
        seconds = time.monotonic() - began
        replaced.set()
        await publisher
    # A message that has not arrived half a minute later is lost.
    with suppress(TimeoutError):
        await eventually(lambda: len(record.handled()) == published, 30.0)
    handled = record.handled()
    rows = [
        Row(f"{what}duration", "s"),
        Row(f"{what}messages", "messages"),
        Row(f"{what}messages that are lost", "messages", limit=0),
        Row(f"{what}messages that are handled again", "messages"),
    ]
    values = (seconds, published, published - len(handled), handled.total() - len(handled))
    for row, value in zip(rows, values, strict=True):
        row.add("adapters", value)
    return rows


async def measure() -> list[Row]:
    """Measure the fleet: first at rest, then while servers restart, and at last while it is replaced."""
    pings, checks, fetches, used = (
        Row("at rest, per process: PINGs", "per second"),
        Row("at rest, per process: requests about its two consumers", "per second"),
        Row("at rest, per process: fetches by its pull subscriber", "per second"),
        Row("at rest, per process: CPU of the servers, over that without processes", "ms per second"),
    )
    alone = Row("at rest, per process: PINGs, without probes", "per second")
    outages = [
        Outage("one of three servers restarted", 1, 0.0),
        Outage(f"all servers down for {OUTAGE_SECONDS} s", 3, OUTAGE_SECONDS),
    ]
    with (
        tempfile.TemporaryDirectory() as directory,
        nats_cluster(jetstream=True, config=f'http: "{HOST}:-1"') as servers,
    ):
        await wait_until_formed(servers)
        record = Record(Path(directory) / "record")
        urls = [server.url for server in servers]
        env = {
            "URLS": " ".join(urls),
            "KIND": SERVICE.kind,
            "RECORD": str(record.path),
            "DRAIN_DELAY": "0",
        }
        without = await cpu(servers)
        async with Pods(WORDS, SERVICE.source, env, record) as pods:
            alone.add("adapters", (await requests(servers))[0])
            kubelets = [Kubelet(server) for server in pods.servers]
            async with probed(kubelets):
                used.add("adapters", (await cpu(servers) - without) / PODS)
                for row, value in zip((pings, checks, fetches), await requests(servers), strict=True):
                    row.add("adapters", value)
                for outage in outages * ROUNDS:
                    await outage.measure(servers, kubelets)
            live = Row("in all outages: liveness probes that fail", "probes", limit=0)
            live.add("adapters", sum(kubelet.not_live for kubelet in kubelets))
            rollout = await roll_out(pods, urls, record, Path(directory))
            await asyncio.gather(*map(pods.stop, pods.servers))
    return [pings, alone, checks, fetches, used, *outages[0].rows, *outages[1].rows, live, *rollout]
