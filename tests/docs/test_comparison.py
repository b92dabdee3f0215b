"""README.md: each row of the comparison is what a test in this module measures with a real NATS server.

faststream-fastapi and litestar-faststream have no health check, so they serve FastStream's ping.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import re
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import faststream.asgi
import httpx
import litestar
import pytest
from fastapi import FastAPI
from faststream.nats import JStream, NatsBroker

import faststream_adapters
from tests.docs.blocks import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.servers.nats import NatsServer

Build = Callable[..., Any]
"""Build an ASGI app with its best answer to "do messages flow?" at `/readyz`, and with `/asyncapi`."""

HEADING, *ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    if re.search(r"\(tests/docs/test_comparison\.py\) \|$|^\| What happens ", line)
]


def _upstream(*brokers: NatsBroker) -> Any:
    ping = faststream.asgi.make_ping_asgi(brokers[0], timeout=1.0)
    return faststream.asgi.AsgiFastStream(
        *brokers, asgi_routes=[("/readyz", ping)], asyncapi_path="/asyncapi"
    )


def _faststream_fastapi(*brokers: NatsBroker) -> Any:
    package = pytest.importorskip("faststream_fastapi")
    app = FastAPI()
    app.mount("/readyz", faststream.asgi.make_ping_asgi(brokers[0], timeout=1.0))
    return package.FastStreamAPI(*brokers, application=app, asyncapi_path="/asyncapi")


def _litestar_faststream(*brokers: NatsBroker) -> Any:
    package = pytest.importorskip("litestar_faststream")
    ping = litestar.asgi("/readyz", copy_scope=True)(faststream.asgi.make_ping_asgi(brokers[0], timeout=1.0))
    configs = [package.BrokerConfig(broker, name=f"broker{n}") for n, broker in enumerate(brokers)]
    plugin = package.FastStreamPlugin(package.FastStreamConfig(configs, asyncapi_url="/asyncapi"))
    return litestar.Litestar([ping], plugins=[plugin])


def _this_package(*brokers: NatsBroker) -> Any:
    return faststream_adapters.AsgiFastStream(*brokers, readiness_path="/readyz", asyncapi_path="/asyncapi")


class Contender(NamedTuple):
    """A package that serves brokers beside an application.

    Args:
        column: The number of its column in the README.
        distribution: What is installed, if the column's heading names its version.
        build: Builds the app.
    """

    column: int
    distribution: str
    build: Build


CONTENDERS = {
    "upstream": Contender(1, "faststream", _upstream),
    "faststream-fastapi": Contender(2, "faststream-fastapi", _faststream_fastapi),
    "litestar-faststream": Contender(3, "litestar-faststream", _litestar_faststream),
    "this package": Contender(4, "", _this_package),
}


def each_contender(test: Callable[..., Any]) -> Any:
    """Run the test with each contender, and pass it what the README says as `documented`."""
    name = test.__name__.removeprefix("test_")
    [row] = [row for row in ROWS if row[-1].startswith(f"[`{name}`]")]
    cases = [
        pytest.param(contender.build, row[contender.column].replace("`", ""), id=id_)
        for id_, contender in CONTENDERS.items()
    ]
    return pytest.mark.full(pytest.mark.parametrize(("build", "documented"), cases)(test))


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[httpx.AsyncClient | None]:
    """Run the lifespan of an ASGI app, and yield a client, or None if the startup failed."""
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    lifespan = asyncio.create_task(app(scope, inbox.get, outbox.put))
    await inbox.put({"type": "lifespan.startup"})
    started = (await outbox.get())["type"] == "lifespan.startup.complete"
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            yield client if started else None
    finally:
        await inbox.put({"type": "lifespan.shutdown"})
        await asyncio.wait((lifespan,))
        with suppress(Exception):
            lifespan.result()


class Consumer:
    """A broker with a subscriber.

    Args:
        nats: The server.
        subscription: Options of the subscriber.
    """

    def __init__(self, nats: NatsServer, **subscription: Any) -> None:
        self._url = nats.url
        self._failures = 0
        self.refused = asyncio.Event()
        """Set after two failed attempts to connect: a starting client with these options makes no other."""
        self.gave_up = asyncio.Event()
        """Set when the client has closed itself, or goes on trying when it should have."""
        self.broker = NatsBroker(
            nats.url,
            reconnect_time_wait=0,
            max_reconnect_attempts=1,
            error_cb=self._failed,
            closed_cb=self._closed,
        )
        self._handled = asyncio.Event()
        self.broker.subscriber("orders", **subscription)(self._handle)

    async def _handle(self, item: str) -> None:
        self._handled.set()

    async def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._failures >= 2:
            self.refused.set()
        if self._failures >= 10:
            self.gave_up.set()

    async def _closed(self) -> None:
        self.gave_up.set()

    async def connected(self) -> None:
        """Wait for the connection, because FastStream's ASGI app reports its startup before it has one."""
        await wait_until(lambda: self.broker.ping(1.0))

    async def handles(self, seconds: float) -> bool:
        """Publish messages until one is handled, and return whether one was handled within this time."""
        self._handled.clear()
        async with NatsBroker(self._url) as publisher:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while not self._handled.is_set():
                        await publisher.publish("tea", "orders")
                        with suppress(TimeoutError):
                            await asyncio.wait_for(self._handled.wait(), 0.05)
        return self._handled.is_set()


async def answer(client: httpx.AsyncClient) -> str:
    """Return the status and the text of the response to a probe."""
    response = await client.get("/readyz", follow_redirects=True)
    return f"{response.status_code} {response.text}".strip()


@each_contender
async def test_frozen(build: Build, documented: str, nats: NatsServer) -> None:
    consumer = Consumer(nats)
    async with serving(build(consumer.broker)) as client:
        assert client is not None
        await consumer.connected()
        nats.freeze()
        assert await answer(client) == documented
        nats.thaw()


async def outcome_of_start(client: httpx.AsyncClient | None, consumer: Consumer, nats: NatsServer) -> str:
    if client is None:
        return "the startup fails"
    await consumer.refused.wait()
    nats.start()
    assert not await consumer.handles(3.0)
    return "serves, and never consumes"


@each_contender
async def test_down_at_start(build: Build, documented: str, nats: NatsServer) -> None:
    nats.stop()
    consumer = Consumer(nats)
    async with serving(build(consumer.broker)) as client:
        assert await outcome_of_start(client, consumer, nats) == documented


@each_contender
async def test_client_gave_up(build: Build, documented: str, nats: NatsServer) -> None:
    consumer = Consumer(nats)
    async with serving(build(consumer.broker)):
        await consumer.connected()
        nats.stop()
        await consumer.gave_up.wait()
        nats.start()
        outcome = "consumes again" if await consumer.handles(3.0) else "never consumes again"
    assert outcome == documented


@each_contender
async def test_consumer_deleted(build: Build, documented: str, nats_js: NatsServer) -> None:
    consumer = Consumer(nats_js, stream=JStream("orders"), queue="service")
    async with serving(build(consumer.broker)) as client:
        assert client is not None
        assert await consumer.handles(3.0)
        async with NatsBroker(nats_js.url) as other:
            await other.connection.jetstream().delete_consumer("orders", "service")
        # This package asks the server about its consumers every 5 s.
        consumes = await consumer.handles(10.0)
        assert (
            "consumes again" if consumes else f"{await answer(client)}, and never consumes again"
        ) == documented


@each_contender
async def test_publishes_at_shutdown(build: Build, documented: str, nats: NatsServer) -> None:
    outcomes = [await _publishes_at_shutdown(build, nats, first=first) for first in (True, False)]
    words = {
        (True, True): "is published",
        (True, False): "fails if that is the first",
        (False, True): "fails if that is the last",
    }
    assert words[outcomes[0], outcomes[1]] == documented


async def _publishes_at_shutdown(build: Build, nats: NatsServer, *, first: bool) -> bool:
    """Return whether a handler can publish to another broker half a second after the shutdown has begun.

    Args:
        build: What builds the app.
        nats: The server.
        first: Whether the handler's broker is the first one of the app.
    """
    consuming, publishing = NatsBroker(nats.url), NatsBroker(nats.url)
    began, shutdown = asyncio.Event(), asyncio.Event()
    published: list[str] = []

    @consuming.subscriber("orders")
    async def process(item: str) -> None:
        began.set()
        await shutdown.wait()
        await asyncio.sleep(0.5)
        await publishing.publish(item, "done")
        published.append(item)

    async with serving(build(*((consuming, publishing) if first else (publishing, consuming)))):
        await wait_until(lambda: consuming.ping(1.0))
        await wait_until(lambda: publishing.ping(1.0))
        async with NatsBroker(nats.url) as other:
            await other.publish("tea", "orders")
            await began.wait()
        shutdown.set()
    return published == ["tea"]


@each_contender
async def test_asyncapi_page(build: Build, documented: str, nats: NatsServer) -> None:
    consumer = Consumer(nats)
    async with serving(build(consumer.broker)) as client:
        assert client is not None
        # faststream-fastapi leaves a connection open if the application ends before it is established.
        await consumer.connected()
        page = (await client.get("/asyncapi")).text
    tags = re.findall(r"<(?:script|link)\b[^>]*", page)
    hosts = {host for tag in tags for host in re.findall(r"https://([\w.-]+)", tag)}
    assert f"loads from {len(hosts) or 'no'} other hosts" == documented


def test_every_row_is_measured() -> None:
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    named = {row[-1].split("`")[1] for row in ROWS}
    assert tests - named == {"every_row_is_measured", "the_headings_name_the_measured_versions"}
    assert named <= tests


@pytest.mark.full
def test_the_headings_name_the_measured_versions() -> None:
    distributions = [contender.distribution for contender in CONTENDERS.values() if contender.distribution]
    versions = [importlib.metadata.version(distribution) for distribution in distributions]
    named = [heading.rpartition(" ")[2] for heading in HEADING[1:4]]
    assert named == [".".join(version.split(".")[:2]) for version in versions]
