"""`in_memory` and `app_client` with real servers, and under the plugins for pytest."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from faststream.nats import NatsBroker

from faststream_adapters import AsgiFastStream, BrokerLifespan
from faststream_adapters.testing import app_client, in_memory
from tests.docs.blocks import run_tests
from tests.harness.servers.nats import NatsServer


@pytest.fixture
def broker() -> NatsBroker:
    return NatsBroker("nats://127.0.0.1:1")


async def test_after_in_memory_lifespans_contact_servers_again(broker: NatsBroker) -> None:
    lifespan = BrokerLifespan(broker, startup="background")
    with in_memory():
        # A task has a copy of the context, which must not outlive the block.
        ended, begun = asyncio.Event(), asyncio.Event()

        async def start_later() -> bool:
            begun.set()
            await ended.wait()
            async with lifespan():
                return lifespan.state == "running"

        task = asyncio.create_task(start_later())
        await begun.wait()
    async with lifespan():
        assert lifespan.state == "starting"
    ended.set()
    assert not await task


@asynccontextmanager
async def in_another_context() -> AsyncIterator[None]:
    with in_memory():
        yield


async def test_in_memory_can_end_in_another_context_than_it_has_begun_in(broker: NatsBroker) -> None:
    context = in_another_context()
    await asyncio.create_task(context.__aenter__())
    await asyncio.create_task(context.__aexit__(None, None, None))
    lifespan = BrokerLifespan(broker, startup="background")
    async with lifespan():
        assert lifespan.state == "starting"


async def test_with_a_real_server_the_end_waits_for_messages_that_handlers_publish(
    shared_nats: NatsServer,
) -> None:
    broker, subject, handled = NatsBroker(shared_nats.url), f"orders-{uuid4().hex}", list[int]()

    @broker.subscriber(subject)
    @broker.publisher(f"{subject}.1")
    async def first(number: int) -> int:
        return number + 1

    @broker.subscriber(f"{subject}.1")
    @broker.publisher(f"{subject}.2")
    async def second(number: int) -> int:
        return number + 1

    @broker.subscriber(f"{subject}.2")
    async def third(number: int) -> None:
        handled.append(number)

    app = AsgiFastStream(broker, readiness_path="/ready", drain_delay=20.0)
    async with asyncio.timeout(15.0), app_client(app, in_memory=False) as client:
        assert (await client.get("/ready")).status_code == 200
        await broker.publish(1, subject)
    assert handled == [3]


async def test_in_memory_false_contacts_the_server_also_inside_in_memory(broker: NatsBroker) -> None:
    app = AsgiFastStream(broker, startup="background", ping_path="/ping")
    with in_memory():
        async with app_client(app, in_memory=False) as client:
            assert (await client.get("/ping")).status_code == 500


PLUGINS = """
import asyncio

import anyio
import pytest
import pytest_asyncio
from faststream.nats import NatsBroker
from faststream_adapters import AsgiFastStream
from faststream_adapters.testing import app_client, in_memory

broker = NatsBroker("nats://127.0.0.1:1")
app = AsgiFastStream(broker, readiness_path="/ready")
handled = []


@broker.subscriber("orders")
async def process(item):
    handled.append(item)


async def check(client):
    handled.clear()
    assert (await client.get("/ready")).text == "ok"
    await broker.publish("tea", "orders")
    assert handled == ["tea"]


@pytest_asyncio.fixture(loop_scope="{scope}", scope="{scope}")
async def client():
    async with app_client(app) as client:
        yield client


@pytest.mark.asyncio(loop_scope="{scope}")
async def test_one(client):
    await check(client)


@pytest.mark.asyncio(loop_scope="{scope}")
async def test_two(client):
    await check(client)


@pytest.fixture
def memory():
    with in_memory():
        yield


@pytest_asyncio.fixture(loop_scope="{scope}")
async def async_memory():
    with in_memory():
        yield


@pytest.mark.asyncio(loop_scope="{scope}")
async def test_in_memory_from_a_fixture(memory):
    other = AsgiFastStream(NatsBroker("nats://127.0.0.1:1"), startup_timeout=5)
    async with other.start_lifespan_context():
        assert other.broker_lifespan.state == "running"


@pytest.mark.asyncio(loop_scope="{scope}")
async def test_in_memory_from_an_async_fixture(async_memory):
    other = AsgiFastStream(NatsBroker("nats://127.0.0.1:1"), startup_timeout=5)
    async with other.start_lifespan_context():
        assert other.broker_lifespan.state == "running"
"""

ANYIO = """
import pytest
from faststream.nats import NatsBroker
from faststream_adapters import AsgiFastStream
from faststream_adapters.testing import app_client

pytestmark = pytest.mark.anyio
broker = NatsBroker("nats://127.0.0.1:1")
app = AsgiFastStream(broker, readiness_path="/ready")


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def client():
    async with app_client(app) as client:
        yield client


@pytest.mark.parametrize("number", [1, 2])
async def test_ready(client, number):
    assert (await client.get("/ready")).text == "ok"
"""


def write_tests(directory: Path, code: str) -> None:
    (directory / "test_app.py").write_text(code, encoding="utf-8")
    # Otherwise pytest-asyncio warns.
    settings = "[pytest]\nasyncio_default_fixture_loop_scope = function\n"
    (directory / "pytest.ini").write_text(settings, encoding="utf-8")


@pytest.mark.full
@pytest.mark.parametrize(
    "scope",
    [
        "session",
        "module",
        "function",
    ],
)
def test_every_loop_scope_of_pytest_asyncio(scope: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    write_tests(tmp_path, PLUGINS.replace("{scope}", scope))
    assert "4 passed" in run_tests(tmp_path, pytestconfig)


@pytest.mark.full
def test_the_plugin_of_anyio(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    write_tests(tmp_path, ANYIO)
    assert "2 passed" in run_tests(tmp_path, pytestconfig)
