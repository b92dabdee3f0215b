"""Several worker processes: an answer of any of them is about all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import httpx
import pytest
from faststream.exceptions import SetupError
from prometheus_client import CollectorRegistry, Counter, generate_latest

from faststream_adapters import make_metrics_asgi
from faststream_adapters.metrics.workers import Workers
from tests.metrics.scrapes import Scrape, scrape
from tests.servers import poll
from tests.servers.asgi import AppServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.nats import NatsServer

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


@contextmanager
def worker(directory: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER],
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


def scraped(directory: Path) -> Scrape:
    registry = CollectorRegistry()
    registry.register(Workers(str(directory)))
    return Scrape(generate_latest(registry).decode())


def test_what_is_left_of_a_dead_worker(tmp_path: Path) -> None:
    with worker(tmp_path) as first:
        with worker(tmp_path) as second:
            found = scraped(tmp_path)
            assert (found("orders_total"), found("busy"), found("size_count")) == (4, 2, 2)
            assert found.total("faststream_received_messages_in_process") == 6
            assert found.total("kept") == 8
        found = scraped(tmp_path)
        assert (found("orders_total"), found("busy"), found("size_count")) == (4, 1, 2)
        assert found.total("faststream_received_messages_in_process") == 3
        # prometheus_client says of this mode that it is for the dead too.
        assert found.total("kept") == 8
        live = {file.name for file in tmp_path.glob("gauge_live*")}
        assert live == {f"gauge_livesum_{first.pid}.db"}
    found = scraped(tmp_path)
    assert (found("orders_total"), found("busy")) == (4, None)
    assert "in_process" not in found.text
    assert str(second.pid) in found.labels("pid")


async def test_an_endpoint_shows_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    registry = CollectorRegistry()
    # What is in the memory of this process is in the files too, where prometheus_client writes them.
    Counter("orders", "Orders.", registry=registry).inc(2)
    metrics = make_metrics_asgi(registry)
    with worker(tmp_path), worker(tmp_path):
        found = await scrape(metrics)
        assert (found("orders_total"), found("busy")) == (4, 2)
        found = await scrape(metrics, "/?name[]=orders_total")
        assert (found("orders_total"), found("busy")) == (4, None)


def test_a_directory_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "missing"))
    with pytest.raises(SetupError, match="create it, empty, before the server starts"):
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


def asked(server: AppServer) -> tuple[str, Scrape]:
    """Return the process id of one worker, and its metrics."""
    with httpx.Client(base_url=server.url, timeout=30) as http:
        # The second request goes over the same connection, so to the same worker.
        pid = http.get("/publish").text
        return pid, Scrape(http.get("/metrics").text)


def running(server: AppServer, number: int) -> bool:
    def are_up() -> bool:
        _, found = asked(server)
        return (
            found.states == {"running": number} and found.ours("last_success_timestamp_seconds") is not None
        )

    return poll(are_up, 30)


@pytest.mark.full
def test_every_worker_answers_for_all(nats: NatsServer) -> None:
    with served(nats, "--workers", "2") as server:
        assert running(server, 2)
        answered: set[str] = set()
        while len(answered) < 2:
            pid, found = asked(server)
            answered.add(pid)
            assert (found.states, found.ours("up")) == ({"running": 2}, 1)
        # Each question publishes one message: the sum goes up by one, whichever worker is asked.
        totals = [asked(server)[1].total("faststream_published_messages_total") for _ in range(10)]
        assert [after - before for before, after in pairwise(totals)] == [1] * 9

        nats.freeze()
        assert poll(lambda: metrics_of(server).ours("up") == 0, 30)
        nats.thaw()
        assert poll(lambda: metrics_of(server).ours("up") == 1, 30)


@pytest.mark.full
def test_nothing_stale_of_a_worker_that_was_killed(shared_nats: NatsServer) -> None:
    with served(shared_nats, "--workers", "2") as server:
        assert running(server, 2)
        httpx.get(f"{server.url}/hang", timeout=30)
        [pid] = poll(lambda: metrics_of(server).busy, 30)
        received = metrics_of(server).total(RECEIVED)

        # It has no time to clean up.
        os.kill(int(pid), signal.SIGKILL)
        assert poll(lambda: pid not in metrics_of(server).labels("pid"), 30)
        # uvicorn starts another one.
        assert running(server, 2)
        found = metrics_of(server)
        assert found.busy == set()
        assert found.total(RECEIVED) >= received
        assert not [*server.directory.glob(f"metrics/gauge_live*_{pid}.db")]


def metrics_of(server: AppServer) -> Scrape:
    return Scrape(httpx.get(f"{server.url}/metrics", timeout=30).text)


def test_one_worker_by_name(shared_nats: NatsServer) -> None:
    with served(shared_nats) as server:
        assert running(server, 1)
        answer = httpx.get(f"{server.url}/metrics?name[]={RECEIVED}", timeout=30).text
    assert Scrape(answer).total(RECEIVED) >= 1
    assert "faststream_adapters" not in answer


def test_files_that_cannot_be_written_stop_nothing(shared_nats: NatsServer) -> None:
    app = APP.replace("middlewares=[NatsPrometheusMiddleware(registry=registry)]", "")
    app += '\nos.rmdir(os.environ["PROMETHEUS_MULTIPROC_DIR"])\n'
    with served(shared_nats, app=app) as server:
        assert httpx.get(f"{server.url}/metrics", timeout=30).status_code == 500
        assert httpx.get(f"{server.url}/startup", timeout=30).status_code == 204
        assert server.output().count("The metrics cannot be written: FileNotFoundError.") == 1
