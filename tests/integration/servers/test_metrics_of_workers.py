"""Metrics of several worker processes: each of them reports the metrics of all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Self

import httpx
import pytest
from faststream.exceptions import SetupError
from prometheus_client import CollectorRegistry, Counter, generate_latest

from faststream_adapters import make_metrics_asgi
from faststream_adapters._endpoints.metrics.workers import WorkerCollector
from tests.harness.scrapes import Scrape, scrape
from tests.harness.servers import poll
from tests.harness.servers.asgi import AppServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.servers.nats import NatsServer

PREFIX = "faststream_adapters_"

WORKER = """
import sys
from prometheus_client import Counter, Gauge, Histogram
Counter("orders", "Orders.").inc(2)
Histogram("size", "Size.", buckets=[1.0]).observe(0.5)
Gauge("busy", "Busy.", multiprocess_mode="livesum").set(1)
Gauge("faststream_received_messages_in_process", "In process.").set(3)
Gauge("kept", "Kept.").set(4)
print("written", flush=True)
sys.stdin.read()
"""


SNAPSHOT = """
import sys
from math import nan
from faststream_adapters._endpoints.metrics.snapshot import FAMILIES, SnapshotFiles
from faststream_adapters._endpoints.metrics import snapshot
files = SnapshotFiles()
for line in sys.stdin:
    readings = {family: {} for family in FAMILIES}
    for name, values in eval(line).items():
        readings[getattr(snapshot, name)].update(values)
    files.write(readings)
    print("written", flush=True)
"""


class SnapshotWorker:
    """A worker process that writes the readings that it receives.

    Args:
        directory: The directory of the files.
    """

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SNAPSHOT],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # It ends at the end of its input.
        with self._process:
            pass

    def write(self, **readings: dict[tuple[str, ...], float]) -> None:
        """Write the values of metrics, by the names of their families."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{readings}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "written\n"


@pytest.mark.full
def test_the_snapshots_of_workers_are_merged(tmp_path: Path) -> None:
    subscriber = ("B 1", "s")
    labels = {"broker": "B 1", "subscriber": "s"}
    shared, own = (*subscriber, "true"), ("B 1", "k", "false")
    with SnapshotWorker(tmp_path) as first, SnapshotWorker(tmp_path) as second:
        first.write(
            READY={(): 1.0},
            UP={subscriber: 1.0},
            OLDEST={subscriber: 0.5},
            BACKLOG={shared: 7.0, own: 1.0},
            RESTARTS={("B 1",): 1.0},
            DROPPED={subscriber: 4.0},
            CHECK_UP={("database",): 1.0},
        )
        second.write(
            READY={(): 0.0},
            UP={subscriber: 0.0},
            OLDEST={subscriber: 2.5},
            BACKLOG={shared: 9.0, own: 2.0},
            RESTARTS={("B 1",): 2.0},
            DROPPED={subscriber: 5.0},
            CHECK_UP={("database",): 0.0},
        )
        metrics = collect(tmp_path)
        # The worst worker, or the sum.
        assert metrics(f"{PREFIX}ready") == 0
        assert metrics(f"{PREFIX}check_up", check="database") == 0
        assert metrics(f"{PREFIX}subscriber_up", **labels) == 0
        assert metrics(f"{PREFIX}subscriber_oldest_message_seconds", **labels) == 2.5
        assert metrics(f"{PREFIX}subscriber_backlog", **labels, shared="true") == 9
        assert metrics(f"{PREFIX}subscriber_backlog", broker="B 1", subscriber="k", shared="false") == 3
        assert metrics(f"{PREFIX}broker_restarts_total", broker="B 1") == 3
        assert metrics(f"{PREFIX}subscriber_dropped_total", **labels) == 9
        # The subscriber of the second worker is paused.
        second.write(READY={(): 1.0}, RESTARTS={("B 1",): 4.0}, DROPPED={subscriber: 5.0})
        metrics = collect(tmp_path)
        assert metrics(f"{PREFIX}ready") == 1
        assert metrics(f"{PREFIX}subscriber_up", **labels) == 1
        assert metrics(f"{PREFIX}subscriber_backlog", **labels, shared="true") == 7
        assert metrics(f"{PREFIX}broker_restarts_total", broker="B 1") == 5
        first.write(READY={(): 1.0}, RESTARTS={("B 1",): 1.0}, DROPPED={subscriber: 4.0})
        # It is paused in the other worker too.
        metrics = collect(tmp_path)
        assert metrics(f"{PREFIX}subscriber_up", **labels) is None
        assert metrics(f"{PREFIX}subscriber_dropped_total", **labels) == 9
        # A subscriber of the same name takes its place, and begins to count at 0.
        first.write(READY={(): 1.0}, UP={subscriber: 1.0}, DROPPED={subscriber: 1.0})
        metrics = collect(tmp_path)
        assert metrics(f"{PREFIX}subscriber_up", **labels) == 1
        assert metrics(f"{PREFIX}subscriber_dropped_total", **labels) == 10
    assert collect(tmp_path)(f"{PREFIX}ready") is None


COLLECTOR = """
import sys
from prometheus_client import CollectorRegistry, generate_latest
from faststream_adapters._endpoints.metrics.workers import WorkerCollector
registry = CollectorRegistry()
registry.register(WorkerCollector(sys.argv[1], print))
print(generate_latest(registry).decode())
"""

OTHER_NAMESPACE = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
"""Runs a command with process ids of its own, as in another container."""


@contextmanager
def worker(directory: Path, *prefix: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", WORKER],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        yield process
        process.kill()


def collect(directory: Path) -> Scrape:
    registry = CollectorRegistry()
    registry.register(WorkerCollector(str(directory), print))
    return Scrape(generate_latest(registry).decode())


def test_live_gauges_of_dead_workers_are_removed(tmp_path: Path) -> None:
    with worker(tmp_path) as first:
        with worker(tmp_path) as second:
            metrics = collect(tmp_path)
            assert (metrics("orders_total"), metrics("busy"), metrics("size_count")) == (4, 2, 2)
            assert metrics.total("faststream_received_messages_in_process") == 6
            assert metrics.total("kept") == 8
        metrics = collect(tmp_path)
        assert (metrics("orders_total"), metrics("busy"), metrics("size_count")) == (4, 1, 2)
        assert metrics.total("faststream_received_messages_in_process") == 3
        # By prometheus_client's rules, this mode includes dead workers.
        assert metrics.total("kept") == 8
        live = {file.name for file in tmp_path.glob("gauge_live*")}
        assert live == {f"gauge_livesum_{first.pid}.db"}
    metrics = collect(tmp_path)
    assert (metrics("orders_total"), metrics("busy")) == (4, None)
    assert "in_process" not in metrics.text
    assert str(second.pid) in metrics.labels("pid")


def test_live_gauges_of_a_dead_worker_are_removed_although_its_process_id_is_in_use(tmp_path: Path) -> None:
    with worker(tmp_path) as process:
        pass
    gauge = tmp_path / f"gauge_livesum_{process.pid}.db"
    gauge.rename(tmp_path / f"gauge_livesum_{os.getpid()}.db")
    assert collect(tmp_path)("busy") is None
    assert not [*tmp_path.glob("gauge_live*")]


@pytest.mark.full
def test_files_of_workers_in_another_container_are_kept_until_these_have_ended(tmp_path: Path) -> None:
    with worker(tmp_path), worker(tmp_path, *OTHER_NAMESPACE):
        files = {file.name for file in tmp_path.iterdir()}
        command = [*OTHER_NAMESPACE, sys.executable, "-c", COLLECTOR, str(tmp_path)]
        there = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        for metrics in (Scrape(there), collect(tmp_path)):
            assert metrics("busy") == 2
            assert metrics.total("faststream_received_messages_in_process") == 6
        assert {file.name for file in tmp_path.iterdir()} == files
    assert poll(lambda: collect(tmp_path)("busy") is None, 30)


def broken_file(directory: Path, kind: str) -> Path:
    """Add a file that prometheus_client cannot read to those of a worker."""
    path = directory / "counter_7.db"
    [counters] = directory.glob("counter_*.db")
    match kind:
        case "bad type":
            path = directory / "orders_7.db"
            path.write_bytes(counters.read_bytes())
        case "bad name":
            path = directory / "gauge.db"
            path.write_bytes(counters.read_bytes())
        case "empty":
            path.touch()
        case "junk":
            path.write_bytes(b"junk" * 100)
        case "directory":
            path.mkdir()
        case "named pipe":
            os.mkfifo(path)
        case "dangling link":
            path.symlink_to(directory / "missing")
        case unreadable:
            assert unreadable == "unreadable"
            path.symlink_to("/proc/self/mem")
    return path


@pytest.mark.full
@pytest.mark.parametrize(
    "kind",
    ["bad type", "bad name", "empty", "junk", "directory", "named pipe", "dangling link", "unreadable"],
)
async def test_a_broken_file_is_left_out_and_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    endpoint = make_metrics_asgi(CollectorRegistry())
    with worker(tmp_path):
        broken = broken_file(tmp_path, kind)
        for _ in range(3):
            metrics = await scrape(endpoint)
            assert (metrics("orders_total"), metrics("busy")) == (2, 1)
        [record] = caplog.records
        assert f"{broken.name!r} in the directory PROMETHEUS_MULTIPROC_DIR is left out" in record.getMessage()


async def test_a_removed_directory_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "metrics"))
    (tmp_path / "metrics").mkdir()
    endpoint = make_metrics_asgi(CollectorRegistry())
    (tmp_path / "metrics").rmdir()
    for _ in range(3):
        assert (await scrape(endpoint)).text == ""
    [record] = caplog.records
    assert "PROMETHEUS_MULTIPROC_DIR is left out" in record.getMessage()


def test_a_file_that_another_worker_removes_meanwhile_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with worker(tmp_path):
        files = [*tmp_path.iterdir(), tmp_path / "counter_7.db", tmp_path / "gauge_livesum_7.db"]
        monkeypatch.setattr(type(tmp_path), "iterdir", lambda _: iter(files))
        metrics = collect(tmp_path)
        assert (metrics("orders_total"), metrics("busy")) == (2, 1)
    assert not caplog.records


async def test_the_endpoint_reads_the_files_of_all_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    registry = CollectorRegistry()
    # This counter is ignored. Had the variable been set from the start, it would be in a file too.
    Counter("orders", "Orders.", registry=registry).inc(2)
    endpoint = make_metrics_asgi(registry)
    with worker(tmp_path), worker(tmp_path):
        metrics = await scrape(endpoint)
        assert (metrics("orders_total"), metrics("busy")) == (4, 2)
        metrics = await scrape(endpoint, "/?name[]=orders_total")
        assert (metrics("orders_total"), metrics("busy")) == (4, None)


def test_a_missing_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "missing"))
    with pytest.raises(SetupError, match="create an empty one before the server starts"):
        make_metrics_asgi(CollectorRegistry())


APP = """
import asyncio, os
from faststream.nats import NatsBroker
from faststream.nats.prometheus import NatsPrometheusMiddleware
from prometheus_client import CollectorRegistry

from faststream_adapters import AsgiFastStream, AsgiResponse, get

registry = CollectorRegistry()
broker = NatsBroker(os.environ["NATS_URL"], middlewares=[NatsPrometheusMiddleware(registry=registry)])


@broker.subscriber("several.orders", queue="workers")
async def handle(order: str) -> None:
    if order == "hang":
        await asyncio.Event().wait()


@get
async def publish(order: str = "tea") -> AsgiResponse:
    await broker.publish(order, "several.orders")
    return AsgiResponse(str(os.getpid()).encode())


@get
async def hang() -> AsgiResponse:
    await broker.publish("hang", "several.orders")
    return AsgiResponse(str(os.getpid()).encode())


app = AsgiFastStream(
    broker,
    asgi_routes=[("/publish", publish), ("/hang", hang)],
    metrics_path="/metrics",
    metrics_registry=registry,
    startup_path="/startup",
)
"""

RECEIVED = "faststream_received_messages_total"


@contextmanager
def served(nats: NatsServer, *arguments: str, app: str = APP) -> Iterator[AppServer]:
    env = {"NATS_URL": nats.url, "PROMETHEUS_MULTIPROC_DIR": "{directory}/metrics"}
    server = AppServer.uvicorn(app, *arguments, env=env, ready_path="/startup")
    (server.directory / "metrics").mkdir()
    with server:
        yield server
        server.terminate()
        server.wait(30)


def scrape_one_worker(server: AppServer) -> tuple[str, Scrape]:
    """Return the process id of one worker, and its metrics."""
    with httpx.Client(base_url=server.url, timeout=30) as http:
        # Both requests use one connection, so they reach the same worker.
        pid = http.get("/publish").text
        return pid, Scrape(http.get("/metrics").text)


def wait_for_workers(server: AppServer, number: int) -> bool:
    """Return whether this number of workers is running within 30 s."""

    def are_up() -> bool:
        _, metrics = scrape_one_worker(server)
        return (
            metrics.states == {"running": number}
            and metrics.broker_metric("last_success_timestamp_seconds") is not None
        )

    return poll(are_up, 30)


@pytest.mark.full
def test_every_worker_reports_the_metrics_of_all(nats: NatsServer) -> None:
    with served(nats, "--workers", "2") as server:
        assert wait_for_workers(server, 2)
        pids: set[str] = set()
        while len(pids) < 2:
            pid, metrics = scrape_one_worker(server)
            pids.add(pid)
            assert (metrics.states, metrics.broker_metric("up")) == ({"running": 2}, 1)
            assert metrics(f"{PREFIX}ready") == 1
            assert metrics(f"{PREFIX}subscriber_up", broker="NatsBroker 1", subscriber="handle") == 1
        # Each call publishes one message, so the sum grows by one, whichever worker responds.
        totals = [
            scrape_one_worker(server)[1].total("faststream_published_messages_total") for _ in range(10)
        ]
        assert [after - before for before, after in pairwise(totals)] == [1] * 9

        nats.freeze()
        assert poll(lambda: scrape_any_worker(server).broker_metric("up") == 0, 30)
        nats.thaw()
        assert poll(lambda: scrape_any_worker(server).broker_metric("up") == 1, 30)


@pytest.mark.full
def test_live_gauges_of_a_killed_worker_disappear(shared_nats: NatsServer) -> None:
    with served(shared_nats, "--workers", "2") as server:
        assert wait_for_workers(server, 2)
        httpx.get(f"{server.url}/hang", timeout=30)
        [pid] = poll(lambda: scrape_any_worker(server).busy, 30)
        received = scrape_any_worker(server).total(RECEIVED)

        # The worker cannot clean up.
        os.kill(int(pid), signal.SIGKILL)
        assert poll(lambda: pid not in scrape_any_worker(server).labels("pid"), 30)
        # uvicorn starts another worker.
        assert wait_for_workers(server, 2)
        metrics = scrape_any_worker(server)
        assert metrics.busy == set()
        assert metrics.total(RECEIVED) >= received
        assert not [*server.directory.glob(f"metrics/gauge_live*_{pid}.db")]


def scrape_any_worker(server: AppServer) -> Scrape:
    return Scrape(httpx.get(f"{server.url}/metrics", timeout=30).text)


@pytest.mark.full
def test_metrics_of_a_worker_can_be_selected_by_name(shared_nats: NatsServer) -> None:
    with served(shared_nats) as server:
        assert wait_for_workers(server, 1)
        text = httpx.get(f"{server.url}/metrics?name[]={RECEIVED}", timeout=30).text
    assert Scrape(text).total(RECEIVED) >= 1
    assert "faststream_adapters" not in text


def test_the_brokers_run_if_the_files_cannot_be_written(shared_nats: NatsServer) -> None:
    app = APP.replace("middlewares=[NatsPrometheusMiddleware(registry=registry)]", "")
    app += '\nos.rmdir(os.environ["PROMETHEUS_MULTIPROC_DIR"])\n'
    with served(shared_nats, app=app) as server:
        assert httpx.get(f"{server.url}/metrics", timeout=30).text == ""
        assert httpx.get(f"{server.url}/startup", timeout=30).status_code == 200
        assert server.output().count("The metrics cannot be written: FileNotFoundError.") == 1
