"""Every Python block of the README runs, against a real NATS server, and does what the text says."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

import pytest

from faststream_adapters import BrokerLifespan
from faststream_adapters.endpoints import ProbeKeywords
from faststream_adapters.hosting import AdapterKeywords, EndpointKeywords
from tests.examples.blocks import (
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

    from tests.servers.nats import NatsServer

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = python_blocks("README.md")

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
async def test_endpoints(name: str, shared_nats: NatsServer, tmp_path: Path) -> None:
    module = application(name, shared_nats, tmp_path)
    expected = {
        **dict.fromkeys(("/livez", "/readyz", "/readyz/"), 204),
        **dict.fromkeys(("/asyncapi", "/asyncapi/", "/asyncapi.json", "/asyncapi.yaml"), 200),
        "/elsewhere": 404,
    }
    async with served(module.app) as client:
        assert {path: (await client.get(path)).status_code for path in expected} == expected


@pytest.mark.parametrize("name", ORDER_PATHS)
async def test_an_order(name: str, shared_nats: NatsServer, tmp_path: Path) -> None:
    module = application(name, shared_nats, tmp_path)
    async with served(module.app) as client:
        assert (await client.post(ORDER_PATHS[name].format("tea"))).status_code == 202
        await eventually(client, "/orders", ["tea"])


async def test_middleware_message(
    shared_nats: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = application(MIDDLEWARE, shared_nats, tmp_path)
    async with served(module.app):
        await module.broker.publish("tea", "orders")
    # What was delivered before the end is handled before the end.
    assert "tea" in capsys.readouterr().out.splitlines()


def test_links() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        text = page.read_text(encoding="utf-8")
        linked = [page.parent / path for path in re.findall(r"\]\(([\w/.-]+)\)", text)]
        named = [ROOT / path for path in re.findall(r"`(examples/[\w.]*)`", text)]
        assert [path for path in (*linked, *named) if not path.exists()] == []


def test_every_page_of_the_documentation_is_linked() -> None:
    assert all(f"](docs/{page.name})" in TEXT for page in (ROOT / "docs").glob("*.md"))


def _table(heading: str) -> dict[str, list[str]]:
    """Return the other cells of the tables' rows under a heading, by each of the names in the first cell."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows: dict[str, list[str]] = {}
    for line in section.splitlines():
        if line.startswith("| `"):
            first, *others = (cell.strip() for cell in line.strip("|").split(" | "))
            rows |= dict.fromkeys(re.findall(r"`(\w+)`", first), others)
    return rows


def test_lifespan_keywords() -> None:
    rows = _table("The lifespan")
    parameters = inspect.signature(BrokerLifespan).parameters
    keywords = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert list(rows) == list(keywords)
    for name, default in keywords.items():
        if name != "startup_timeout":
            assert rows[name][0].strip("`") == str(default).replace("strict", '"strict"')


def test_probe_keywords() -> None:
    rows = _table("Endpoints")
    schema = {"include_in_schema", "description", "tags", "unique_id"}
    alone = {name for cells in rows.values() for name in re.findall(r"^`(\w+)`$", cells[0])}
    alone = {name for name in alone if not name.startswith("make_")} | {"ok_status", "fail_status"}
    assert alone == set(ProbeKeywords.__annotations__) - schema


def test_endpoint_keywords() -> None:
    paths = {name for name in AdapterKeywords.__annotations__ if name.endswith("_path")}
    probes = {name for name in EndpointKeywords.__annotations__ if name.startswith("probe_")}
    assert set(_table("Endpoints")) == paths | probes | {"max_handler_age"}
    assert {name for name in AdapterKeywords.__annotations__ if f"`{name}" not in TEXT} == set()
