"""The metrics endpoint: registries, formats, encodings and arguments."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics import exposition as openmetrics

from faststream_adapters import make_metrics_asgi
from tests.harness.asgi_calls import COMPLETE, Client, Reply, exchange, http_scope, request
from tests.harness.scrapes import BlockedCollector
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faststream.asgi.types import ASGIApp, Message

OPENMETRICS = "application/openmetrics-text"


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("orders", "Orders.", ["kind"], registry=registry).labels('a "quoted" é').inc(3)
    Gauge("depth", "Depth.", registry=registry).set(1.5)
    return registry


async def test_the_metrics_of_a_registry_are_exposed_as_text(registry: CollectorRegistry) -> None:
    reply = await request(make_metrics_asgi(registry), http_scope())
    assert reply.status == 200
    assert reply.body == generate_latest(registry)
    assert b'orders_total{kind="a \\"quoted\\" \xc3\xa9"} 3.0\n' in reply.body
    assert reply.headers["content-type"].startswith("text/plain; version=")
    assert reply.headers["content-length"] == str(len(reply.body))


async def test_openmetrics_is_used_if_the_client_accepts_it(registry: CollectorRegistry) -> None:
    scope = http_scope(headers=[("Accept", f"{OPENMETRICS}; version=1.0.0"), ("Accept", "text/plain;q=0.1")])
    reply = await request(make_metrics_asgi(registry), scope)
    assert reply.body == openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
    assert reply.body.endswith(b"# EOF\n")
    assert reply.headers["content-type"].startswith(f"{OPENMETRICS}; version=1.0.0")


@pytest.mark.parametrize("accept", ["*/*", "text/html", ""])
async def test_other_clients_receive_text(registry: CollectorRegistry, accept: str) -> None:
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
async def test_the_format_follows_the_rules_of_prometheus_client(
    registry: CollectorRegistry, accept: str
) -> None:
    encode, content_type = choose_encoder(accept)
    reply = await request(make_metrics_asgi(registry), http_scope(headers=[("accept", accept)]))
    assert (reply.body, reply.headers["content-type"]) == (encode(registry), content_type)


async def test_a_version_that_is_not_numeric_is_ignored(registry: CollectorRegistry) -> None:
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
async def test_gzip_is_used_if_the_client_accepts_it(
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


@pytest.fixture
def blocked() -> Iterator[BlockedCollector]:
    with BlockedCollector() as blocked:
        yield blocked


@pytest.fixture
def endpoint(blocked: BlockedCollector) -> ASGIApp:
    return make_metrics_asgi(blocked.registry)


def scrape(endpoint: ASGIApp, **scope: Any) -> asyncio.Task[Reply]:
    return asyncio.create_task(request(endpoint, http_scope(**scope)))


async def test_a_scrape_does_not_block_the_event_loop(blocked: BlockedCollector, endpoint: ASGIApp) -> None:
    scraping = scrape(endpoint)
    await blocked.has_begun()
    blocked.proceed.set()
    assert b"waited 1.0" in (await scraping).body


async def test_concurrent_scrapes_share_one_collection_whatever_their_format(
    blocked: BlockedCollector, endpoint: ASGIApp
) -> None:
    accepted = [
        ("accept", OPENMETRICS),
        ("accept", "text/plain; version=1.0.0"),
        ("accept-encoding", "gzip"),
        ("accept-encoding", "identity"),
    ]
    clients = [Client(endpoint, http_scope(headers=[header])) for header in accepted]
    clients += [Client(endpoint, http_scope()), Client(endpoint, http_scope(method="HEAD"))]
    await eventually(lambda: all(client.waits for client in clients))
    blocked.proceed.set()
    assert {await client.status for client in clients} == {200}
    assert blocked.collections == 1
    types = [dict(client.sent[0]["headers"])[b"content-type"].split(b";")[0] for client in clients]
    assert types == [OPENMETRICS.encode(), *[b"text/plain"] * 5]


async def test_a_scrape_leaves_the_default_executor_alone(
    blocked: BlockedCollector, endpoint: ASGIApp
) -> None:
    with ThreadPoolExecutor(1) as executor:
        asyncio.get_running_loop().set_default_executor(executor)
        scraping = scrape(endpoint)
        await blocked.has_begun()
        assert await asyncio.to_thread(int, "7") == 7
        blocked.proceed.set()
        assert (await scraping).status == 200


async def test_a_scrape_whose_client_has_disconnected_is_dropped(
    blocked: BlockedCollector, endpoint: ASGIApp
) -> None:
    running = Client(endpoint, http_scope())
    await blocked.has_begun()
    scopes = [http_scope(query=f"name[]=waited&name[]=other{number}") for number in range(300)]
    clients = [running, *(Client(endpoint, scope) for scope in scopes)]
    await eventually(lambda: all(client.waits for client in clients))
    for client in clients:
        client.disconnect()
    # None of them waits for the collection that is in progress.
    assert {await client.status for client in clients} == {499}
    last = scrape(endpoint, query="name[]=waited")
    blocked.proceed.set()
    assert b"waited 1.0" in (await last).body
    assert blocked.collections == 2


async def test_a_cancelled_scrape_is_dropped(blocked: BlockedCollector, endpoint: ASGIApp) -> None:
    # Some hosts cancel the application when the client disconnects.
    running, waiting = scrape(endpoint), scrape(endpoint, query="name[]=waited&name[]=other")
    await blocked.has_begun()
    for task in (running, waiting):
        task.cancel()
    await asyncio.wait((running, waiting))
    last = scrape(endpoint, query="name[]=waited")
    blocked.proceed.set()
    assert b"waited 1.0" in (await last).body
    assert blocked.collections == 2


CHUNK: Message = {"type": "http.request", "body": b"x", "more_body": True}


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([CHUNK, CHUNK, COMPLETE], id="a body"),
        pytest.param([COMPLETE, COMPLETE], id="a host that repeats the body"),
    ],
)
async def test_a_client_that_stays_gets_its_response(
    blocked: BlockedCollector, endpoint: ASGIApp, messages: list[Message]
) -> None:
    client = Client(endpoint, http_scope(), *messages)
    await eventually(lambda: client.waits)
    blocked.proceed.set()
    assert await client.status == 200


class BrokenCollector:
    """A collector that fails until it is repaired."""

    broken = True

    def describe(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("repaired", "Works again.")

    def collect(self) -> Iterator[Metric]:
        if self.broken:
            msg = "cannot connect to postgres://user:secret@database"
            raise ConnectionError(msg)
        yield GaugeMetricFamily("repaired", "Works again.", 1.0)


async def test_a_collection_that_fails_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    registry, collector = CollectorRegistry(), BrokenCollector()
    registry.register(collector)
    endpoint = make_metrics_asgi(registry)
    for _ in range(2):
        caplog.clear()
        replies = [await request(endpoint, http_scope(query=query)) for query in ("", "", "name[]=repaired")]
        assert {(reply.status, reply.body) for reply in replies} == {
            (500, b"The metrics could not be collected. The log contains the error.")
        }
        [record] = [record for record in caplog.records if record.name == "faststream.adapters.metrics"]
        assert "cannot connect to postgres://***@database" in record.getMessage()
        collector.broken = False
        assert b"repaired 1.0" in (await request(endpoint, http_scope())).body
        collector.broken = True


async def test_metrics_can_be_selected_by_name(registry: CollectorRegistry) -> None:
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


async def test_each_scrape_returns_the_current_values() -> None:
    registry = CollectorRegistry()
    gauge = Gauge("depth", "Depth.", registry=registry)
    endpoint = make_metrics_asgi(registry)
    for value in (1.0, 2.0):
        gauge.set(value)
        assert f"depth {value}".encode() in (await request(endpoint, http_scope())).body


async def test_head_is_allowed_and_other_methods_are_not(registry: CollectorRegistry) -> None:
    endpoint = make_metrics_asgi(registry)
    get = await request(endpoint, http_scope())
    assert await request(endpoint, http_scope(method="HEAD")) == (200, get.raw_headers, b"")
    post = await request(endpoint, http_scope(method="POST"))
    assert (post.status, post.headers["allow"]) == (405, "GET, HEAD")
    sent = await exchange(endpoint, {"type": "websocket", "path": "/"}, {"type": "websocket.connect"})
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_the_default_registry_is_the_one_of_prometheus_client() -> None:
    counter = Counter("faststream_adapters_test_default", "Of this test.")
    try:
        counter.inc()
        reply = await request(
            make_metrics_asgi(), http_scope(query="name[]=faststream_adapters_test_default_total")
        )
        assert b"faststream_adapters_test_default_total 1.0" in reply.body
    finally:
        REGISTRY.unregister(counter)


def test_schema_keywords_are_accepted() -> None:
    endpoint = make_metrics_asgi(
        CollectorRegistry(), include_in_schema=False, description="D", tags=[{"name": "t"}], unique_id="id"
    )
    assert not endpoint.include_in_schema
    assert (endpoint.description, endpoint.tags, endpoint.unique_id) == ("D", [{"name": "t"}], "id")


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


def test_a_broker_as_registry_or_as_bare_target_is_refused() -> None:
    broker: Any = NatsBroker()
    with pytest.raises(SetupError, match=r"not NatsBroker\. Pass brokers as targets=\["):
        make_metrics_asgi(broker)
    with pytest.raises(SetupError, match=r"targets must be a list, not NatsBroker: pass targets=\["):
        make_metrics_asgi(targets=broker)
