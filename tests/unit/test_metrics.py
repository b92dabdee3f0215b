"""The metrics endpoint answers what prometheus_client writes."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker
from faststream.nats.prometheus import NatsPrometheusMiddleware
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics import exposition as openmetrics

from faststream_adapters import AsgiFastStream, make_metrics_asgi
from tests.asgi_calls import exchange, http_scope, request
from tests.servers.nats import NatsServer
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

OPENMETRICS = "application/openmetrics-text"


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("orders", "Orders.", ["kind"], registry=registry).labels('a "quoted" é').inc(3)
    Gauge("depth", "Depth.", registry=registry).set(1.5)
    return registry


async def test_the_text_of_a_private_registry(registry: CollectorRegistry) -> None:
    reply = await request(make_metrics_asgi(registry), http_scope())
    assert reply.status == 200
    assert reply.body == generate_latest(registry)
    assert b'orders_total{kind="a \\"quoted\\" \xc3\xa9"} 3.0\n' in reply.body
    assert reply.headers["content-type"].startswith("text/plain; version=")
    assert reply.headers["content-length"] == str(len(reply.body))


async def test_openmetrics_when_it_is_asked_for(registry: CollectorRegistry) -> None:
    scope = http_scope(headers=[("Accept", f"{OPENMETRICS}; version=1.0.0"), ("Accept", "text/plain;q=0.1")])
    reply = await request(make_metrics_asgi(registry), scope)
    assert reply.body == openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
    assert reply.body.endswith(b"# EOF\n")
    assert reply.headers["content-type"].startswith(f"{OPENMETRICS}; version=1.0.0")


@pytest.mark.parametrize("accept", ["*/*", "text/html", ""])
async def test_text_for_everybody_else(registry: CollectorRegistry, accept: str) -> None:
    reply = await request(make_metrics_asgi(registry), http_scope(headers=[("accept", accept)]))
    assert reply.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    "accept",
    [
        "text/plain; version=1.0.0; escaping=allow-utf-8",
        "text/plain; version=1.0.0; escaping=values",
        "text/plain; version=1.0.0; escaping=dots",
        f"{OPENMETRICS}; version=1.0.0; escaping=allow-utf-8, text/plain;version=0.0.4;q=0.5",
        f"{OPENMETRICS}; version=0.0.1, text/plain;q=0.5",
    ],
)
async def test_what_prometheus_clients_own_encoder_says(registry: CollectorRegistry, accept: str) -> None:
    encode, content_type = choose_encoder(accept)
    reply = await request(make_metrics_asgi(registry), http_scope(headers=[("accept", accept)]))
    assert (reply.body, reply.headers["content-type"]) == (encode(registry), content_type)


async def test_a_version_that_is_none(registry: CollectorRegistry) -> None:
    scope = http_scope(headers=[("accept", "text/plain; version=latest")])
    reply = await request(make_metrics_asgi(registry), scope)
    assert reply.body == generate_latest(registry)


@pytest.mark.parametrize(
    ("accepted", "compression", "coding"),
    [
        ("gzip", True, "gzip"),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", True, "gzip"),
        ("gzip;q=0", True, None),
        ("identity", True, None),
        ("", True, None),
        ("gzip", False, None),
    ],
)
async def test_gzip_for_who_can_read_it(
    registry: CollectorRegistry, accepted: str, compression: bool, coding: str | None
) -> None:
    endpoint = make_metrics_asgi(registry, compression=compression)
    scope = http_scope(headers=[("accept-encoding", accepted)])
    reply = await request(endpoint, scope)
    assert reply.headers.get("content-encoding") == coding
    assert reply.headers["vary"] == "Accept, Accept-Encoding"
    assert reply.headers["content-length"] == str(len(reply.body))
    body = gzip.decompress(reply.body) if coding else reply.body
    assert body == generate_latest(registry)


class Patient:
    """A collector that goes on when the event loop has."""

    def __init__(self) -> None:
        self.collecting = threading.Event()
        self.proceed = threading.Event()

    def collect(self) -> Iterator[Metric]:
        self.collecting.set()
        assert self.proceed.wait(20)
        yield GaugeMetricFamily("waited", "For the event loop.", 1.0)


async def test_a_scrape_does_not_block_the_event_loop() -> None:
    registry, patient = CollectorRegistry(), Patient()
    registry.register(patient)
    scraping = asyncio.create_task(request(make_metrics_asgi(registry), http_scope()))
    await eventually(patient.collecting.is_set)
    patient.proceed.set()
    assert b"waited 1.0" in (await scraping).body


async def test_only_the_named_metrics(registry: CollectorRegistry) -> None:
    reply = await request(make_metrics_asgi(registry), http_scope(query="name[]=depth&other=orders_total"))
    assert b"depth 1.5" in reply.body
    assert b"orders" not in reply.body
    both = await request(
        make_metrics_asgi(registry), http_scope(query="name%5B%5D=depth&name[]=orders_total")
    )
    assert b"depth 1.5" in both.body
    assert b"orders_total" in both.body
    none = await request(make_metrics_asgi(registry), http_scope(query="name[]=unknown"))
    assert (none.status, none.body) == (200, b"")


async def test_the_values_are_those_of_the_moment() -> None:
    registry = CollectorRegistry()
    gauge = Gauge("depth", "Depth.", registry=registry)
    endpoint = make_metrics_asgi(registry)
    for value in (1.0, 2.0):
        gauge.set(value)
        assert f"depth {value}".encode() in (await request(endpoint, http_scope())).body


async def test_head_and_other_methods(registry: CollectorRegistry) -> None:
    endpoint = make_metrics_asgi(registry)
    get = await request(endpoint, http_scope())
    assert await request(endpoint, http_scope(method="HEAD")) == (200, get.raw_headers, b"")
    post = await request(endpoint, http_scope(method="POST"))
    assert (post.status, post.headers["allow"]) == (405, "GET, HEAD")
    sent = await exchange(endpoint, {"type": "websocket", "path": "/"}, {"type": "websocket.connect"})
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_the_default_registry_is_prometheus_clients() -> None:
    counter = Counter("faststream_adapters_test_default", "Of this test.")
    try:
        counter.inc()
        reply = await request(
            make_metrics_asgi(), http_scope(query="name[]=faststream_adapters_test_default_total")
        )
        assert b"faststream_adapters_test_default_total 1.0" in reply.body
    finally:
        REGISTRY.unregister(counter)


def test_schema_keywords() -> None:
    endpoint = make_metrics_asgi(
        CollectorRegistry(), include_in_schema=False, description="D", tags=[{"name": "t"}], unique_id="id"
    )
    assert not endpoint.include_in_schema
    assert (endpoint.description, endpoint.tags, endpoint.unique_id) == ("D", [{"name": "t"}], "id")


async def test_faststreams_own_metrics_of_a_real_message(shared_nats: NatsServer) -> None:
    registry = CollectorRegistry()
    broker = NatsBroker(shared_nats.url, middlewares=[NatsPrometheusMiddleware(registry=registry)])

    @broker.subscriber("metrics.in")
    async def handle(message: str) -> str:
        return message

    app = AsgiFastStream(broker, metrics_path="/metrics", metrics_registry=registry)
    async with app:
        await broker.request("hello", "metrics.in", timeout=5)
        reply = await request(app, http_scope("/metrics/"))
    assert reply.body.startswith(generate_latest(registry))
    assert b'handler="metrics.in"' in reply.body


def test_without_prometheus_client_the_error_names_the_extra() -> None:
    code = """
import sys
sys.modules["prometheus_client"] = None
import faststream_adapters
try:
    faststream_adapters.make_metrics_asgi()
except ImportError as error:
    print(error)
try:
    faststream_adapters.AsgiFastStream(metrics_path="/metrics")
except ImportError as error:
    print(error)
faststream_adapters.AsgiFastStream(metrics_path=None)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == (
        'This needs prometheus_client: install it with pip install "faststream-adapters[metrics]".\n' * 2
    )


def test_brokers_are_named_as_targets() -> None:
    broker: Any = NatsBroker()
    with pytest.raises(SetupError, match=r"must be a CollectorRegistry, not NatsBroker: name .* targets=\["):
        make_metrics_asgi(broker)
    with pytest.raises(SetupError, match=r"targets must be a list, not NatsBroker: targets=\["):
        make_metrics_asgi(targets=broker)
