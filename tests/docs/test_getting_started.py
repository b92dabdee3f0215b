"""docs/getting-started.md: every Python block runs with a real NATS server and behaves as described."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

import pytest

from tests.docs.blocks import (
    ROOT,
    at_nats,
    eventually,
    load,
    needs_recent_litestar,
    python_blocks,
    served,
)

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from tests.harness.servers.nats import NatsServer

TEXT = (ROOT / "docs" / "getting-started.md").read_text(encoding="utf-8")
BLOCKS = python_blocks("docs/getting-started.md")

STANDALONE = "Without a web framework 1"
MIDDLEWARE = "Any other ASGI application 1"
ORDER_PATHS = {
    "FastAPI 1": "/orders/{}",
    "Litestar 1": "/orders/{}",
    "Quart 1": "/orders/{}",
    STANDALONE: "/orders/new?item={}",
}


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {*ORDER_PATHS, MIDDLEWARE}


def application(name: str, nats: NatsServer, directory: Path) -> ModuleType:
    needs_recent_litestar(BLOCKS[name].code)
    return load(at_nats(BLOCKS[name].code, nats.url), directory)


@pytest.mark.parametrize("name", BLOCKS)
async def test_each_block_serves_the_endpoints(name: str, shared_nats: NatsServer, tmp_path: Path) -> None:
    module = application(name, shared_nats, tmp_path)
    expected = {
        **dict.fromkeys(("/livez", "/readyz", "/readyz/"), 200),
        **dict.fromkeys(("/asyncapi", "/asyncapi/", "/asyncapi.json", "/asyncapi.yaml"), 200),
        "/elsewhere": 404,
    }
    async with served(module.app) as client:
        assert {path: (await client.get(path)).status_code for path in expected} == expected


@pytest.mark.parametrize("name", ORDER_PATHS)
async def test_each_block_handles_an_order(name: str, shared_nats: NatsServer, tmp_path: Path) -> None:
    module = application(name, shared_nats, tmp_path)
    async with served(module.app) as client:
        assert (await client.post(ORDER_PATHS[name].format("tea"))).status_code == 202
        await eventually(client, "/orders", ["tea"])


async def test_the_middleware_block_handles_a_message(
    shared_nats: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = application(MIDDLEWARE, shared_nats, tmp_path)
    async with served(module.app):
        await module.broker.publish("tea", "orders")
    # The shutdown handles messages that were delivered before it.
    assert "tea" in capsys.readouterr().out.splitlines()


def test_the_page_and_the_extra_all_name_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    [everything] = extras.pop("all")
    assert re.findall(r"\w+", everything.partition("[")[2]) == list(extras)
    assert [name for name in extras if f"`{name}`" not in TEXT] == []
