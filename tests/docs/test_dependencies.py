"""docs/dependencies.md: its code runs and behaves as the page describes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from faststream.nats import NatsBroker

from faststream_adapters.testing import app_client
from tests.docs.blocks import at_nats, eventually, load, python_blocks, run_tests, served

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.servers.nats import NatsServer

BLOCKS = python_blocks("docs/dependencies.md")
FASTAPI = "FastAPI 1"
MARKS, MESSAGE = (f"FastStream's annotations in dependencies {number}" for number in (1, 2))
OVERRIDES = "Overrides 1"
DISHKA = "dishka 1"
FASTAPI_ROUTES, NOT_PROVIDED = (f"Brokers in FastAPI routes {number}" for number in (1, 2))
QUART_VIEWS = "Brokers in Quart views 1"
LITESTAR = "Litestar's dependencies in subscribers 1"
QUART_CONTEXT = "Quart's context in subscribers 1"

SETTINGS = """
[tool.pytest.ini_options]
asyncio_mode = "auto"
asyncio_default_fixture_loop_scope = "function"
"""


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {
        FASTAPI,
        MARKS,
        MESSAGE,
        OVERRIDES,
        DISHKA,
        FASTAPI_ROUTES,
        NOT_PROVIDED,
        LITESTAR,
        QUART_VIEWS,
        QUART_CONTEXT,
    }


async def receive(nats: NatsServer, subject: str, messages: asyncio.Queue[str]) -> NatsBroker:
    """Start a broker that collects the messages of a subject."""
    broker = NatsBroker(nats.url)

    @broker.subscriber(subject)
    async def collect(message: str) -> None:
        await messages.put(message)

    await broker.start()
    return broker


async def test_routes_and_subscribers_share_a_session(shared_nats: NatsServer, tmp_path: Path) -> None:
    module = load(at_nats(BLOCKS[FASTAPI].code, shared_nats.url), tmp_path)
    async with served(module.app) as client:
        assert (await client.post("/orders/tea")).status_code == 200
        await module.broker.publish("milk", "orders")
        await eventually(client, "/orders", ["tea", "milk"])


async def test_routes_and_subscribers_share_marks(
    shared_nats: NatsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = load(at_nats(BLOCKS[MARKS].code, shared_nats.url), tmp_path)
    caplog.set_level("INFO")
    bills: asyncio.Queue[str] = asyncio.Queue()
    module.broker.subscriber("bills")(bills.put)
    async with served(module.app) as client, asyncio.timeout(10):
        assert (await client.post("/bills/tea")).status_code == 200
        assert await bills.get() == "tea"
        await module.broker.publish("milk", "orders")
        assert await bills.get() == "milk"
    assert "A bill for tea" in caplog.text
    assert "A bill for milk" in caplog.text


async def test_a_dependency_gets_the_message_of_any_broker(tmp_path: Path) -> None:
    module = load(BLOCKS[MESSAGE].code, tmp_path)
    async with app_client(module.app):
        await module.broker.publish("tea", "orders", headers={"x-request-id": "7"})
        await module.broker.publish("milk", "orders", correlation_id="8")
    assert module.handled == [("7", "tea"), ("8", "milk")]


async def test_a_route_responds_where_its_broker_is_missing(tmp_path: Path) -> None:
    async with app_client(load(BLOCKS[NOT_PROVIDED].code, tmp_path).app) as client:
        response = await client.post("/orders", params={"item": "tea"})
    assert (response.status_code, response.json()) == (501, {"detail": "This service takes no orders."})


@pytest.mark.full
def test_overrides_apply_to_both(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    (tmp_path / "pyproject.toml").write_text(SETTINGS, encoding="utf-8")
    (tmp_path / "main.py").write_text(BLOCKS[FASTAPI].code, encoding="utf-8")
    (tmp_path / "test_main.py").write_text(BLOCKS[OVERRIDES].code, encoding="utf-8")
    assert "1 passed" in run_tests(tmp_path, pytestconfig)


async def test_dishka_injects_into_both(shared_nats: NatsServer, tmp_path: Path) -> None:
    module = load(at_nats(BLOCKS[DISHKA].code, shared_nats.url), tmp_path)
    async with served(module.app) as client:
        assert (await client.get("/price/tea")).json() == 3
        await module.broker.publish("tea", "orders")
        await eventually(client, "/bills", ["tea: 6"])


async def test_fastapi_routes_get_brokers_by_name(nats: NatsServer, tmp_path: Path) -> None:
    code = BLOCKS[FASTAPI_ROUTES].code.replace("nats://orders:4222", nats.url)
    # Nothing listens on this port.
    module = load(code.replace("nats://audit:4222", "nats://127.0.0.1:1"), tmp_path)
    messages: asyncio.Queue[str] = asyncio.Queue()
    async with await receive(nats, "orders", messages), served(module.app) as client:
        async with asyncio.timeout(20.0):
            while (response := await client.post("/orders", params={"item": "tea"})).status_code != 202:
                assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
                await asyncio.sleep(0.01)  # for the server
            assert await messages.get() == "tea"


@pytest.mark.parametrize("reachable", [True, False])
async def test_quart_views_get_the_broker(reachable: bool, nats: NatsServer, tmp_path: Path) -> None:
    url, options = (nats.url, "") if reachable else ("nats://127.0.0.1:1", ', startup="background"')
    code = BLOCKS[QUART_VIEWS].code.replace("NatsBroker()", f"NatsBroker({url!r})")
    module = load(code.replace("app=app", f"app=app{options}"), tmp_path)
    messages: asyncio.Queue[str] = asyncio.Queue()
    async with await receive(nats, "orders", messages), served(module.app) as client:
        response = await client.post("/orders/tea")
        assert response.status_code == (202 if reachable else 503)
        assert response.headers.get("Retry-After") == (None if reachable else "1")
        async with asyncio.timeout(20.0):
            assert not reachable or await messages.get() == "tea"


async def test_quart_views_and_subscribers_share_code_that_uses_g(nats: NatsServer, tmp_path: Path) -> None:
    code = at_nats(BLOCKS[QUART_CONTEXT].code, nats.url)
    module = load(code.replace("orders.db", str(tmp_path / "orders.db")), tmp_path)
    async with served(module.app) as client:
        await module.broker.publish("tea", "orders")
        await eventually(client, "/orders", ["tea"])


async def test_litestar_routes_and_subscribers_share_dependencies(nats: NatsServer, tmp_path: Path) -> None:
    code = at_nats(BLOCKS[LITESTAR].code, nats.url)
    module = load(code.replace("orders.db", str(tmp_path / "orders.db")), tmp_path)
    async with served(module.app) as client:
        assert (await client.get("/orders")).json() == []
        await module.broker.publish("tea", "orders")
        await eventually(client, "/orders", ["tea"])
