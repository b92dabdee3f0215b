"""docs/servers.md and docs/getting-started.md: commands, tables and options match the tests and the code."""

from __future__ import annotations

import asyncio
import re
import signal
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from faststream.nats import NatsBroker, PullSub

from faststream_adapters import AsgiFastStream, BrokerLifespan
from faststream_adapters._brokers.registry import driver_for
from faststream_adapters._compat.faststream import options_of
from faststream_adapters._hosting.overview import overview
from faststream_adapters._server.uvicorn import ADDRESS_OPTIONS, _settings
from tests.docs.blocks import ROOT, at_nats, code_blocks, python_blocks
from tests.harness.servers.asgi import AppServer
from tests.integration.servers.rows import behaviour_table, commands_table

if TYPE_CHECKING:
    from tests.harness.servers.nats import NatsServer

PAGE = (ROOT / "docs" / "servers.md").read_text(encoding="utf-8")
START = (ROOT / "docs" / "getting-started.md").read_text(encoding="utf-8")
BLOCKS = python_blocks("docs/servers.md")
# Options of FastStream's command line.
COMMAND_OPTIONS = {"workers", "reload", "factory", "loop", "log_level", "log_config", "app_dir"}


@pytest.mark.parametrize(
    ("text", "table"), [(START, commands_table()), (PAGE, commands_table()), (PAGE, behaviour_table())]
)
def test_the_tables_match_the_server_tests(text: str, table: list[str]) -> None:
    assert "\n".join(table) in text


def run(block: str) -> dict[str, Any]:
    names = {"__name__": "page", "broker": NatsBroker(), "app": AsgiFastStream(), "PullSub": PullSub}
    exec(compile(BLOCKS[block].code, block, "exec"), names)  # noqa: S102 (code of this repository)
    return names


@pytest.mark.parametrize(
    ("block", "shared"), [("Workers and messages 1", [False]), ("Workers and messages 2", [True, True])]
)
def test_which_documented_subscribers_are_load_balanced(block: str, shared: list[bool]) -> None:
    broker = run(block)["broker"]
    assert [driver_for(broker).is_load_balanced(subscriber) for subscriber in broker.subscribers] == shared


def test_the_documented_overview() -> None:
    broker = NatsBroker("nats://127.0.0.1:4222")

    @broker.subscriber("orders", queue="order-service")
    @broker.publisher("done")
    async def accept_order(order: str) -> str:
        return order  # pragma: no cover (no message arrives)

    @broker.subscriber("orders.done")
    async def archive(order: str) -> None:
        """Archive an order."""

    lifespan = BrokerLifespan(broker, consume=[accept_order], optional=[archive])
    (block,) = code_blocks("docs/servers.md", "text").values()
    assert block.code == f"{overview([lifespan])}\n"


async def test_the_documented_stream_ends_at_sigterm(shared_nats: NatsServer) -> None:
    code = at_nats(BLOCKS["Long-lived responses 1"].code, shared_nats.url).replace('"prices"', '"streamed"')
    with await asyncio.to_thread(AppServer.uvicorn(code, ready_path="/docs").__enter__) as server:
        async with (
            NatsBroker(shared_nats.url) as broker,
            httpx.AsyncClient(base_url=server.url, timeout=30) as client,
            client.stream("GET", "/prices") as response,
        ):
            lines = response.aiter_lines()
            first = asyncio.ensure_future(anext(lines))
            # Published again, because the stream may not be ready when the response begins.
            while not first.done():
                await broker.publish("3", "streamed")
                await asyncio.wait((first,), timeout=1.0)
            assert first.result() == "data: 3"
            server.terminate()
            assert {line async for line in lines} <= {"data: 3", ""}
            assert await asyncio.to_thread(server.wait, 30) == -signal.SIGTERM


def test_the_options_of_the_documented_hook() -> None:
    assert options_of(run("`faststream run` 1")["app"]) == {"env", "worker_id"}


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {
        "Long-lived responses 1",
        "Workers and messages 1",
        "Workers and messages 2",
        "`faststream run` 1",
    }


def test_the_page_lists_every_option() -> None:
    section = PAGE.split("\n## `faststream run`\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    named = {name.replace("-", "_") for row in rows for name in re.findall(r"`--([a-z-]+)", row)}
    named = {name.removeprefix("no_") for name in named}
    assert named >= ADDRESS_OPTIONS | COMMAND_OPTIONS
    assert named <= ADDRESS_OPTIONS | COMMAND_OPTIONS | set(_settings())
