"""The page about the AsyncAPI docs: its code runs, and does what the page says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pytest

from faststream_adapters import AsyncAPIRoute
from faststream_adapters.asyncapi.assets import viewer
from faststream_adapters.asyncapi.view import PageKeywords, View
from tests.examples.blocks import ROOT, at_nats, load, python_blocks, served

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from tests.servers.nats import NatsServer

TEXT = (ROOT / "docs/asyncapi.md").read_text(encoding="utf-8")
BLOCKS = python_blocks("docs/asyncapi.md")
SERVE, ROUTE, MOUNTED = "Serve them 1", "Keywords 1", "Keywords 2"
EMBEDDED, REACT, GUARDED = "What the page may do 1", "AsyncAPI's React component 1", "Who may read them 1"


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {SERVE, ROUTE, MOUNTED, EMBEDDED, REACT, GUARDED}


@pytest.fixture
def app(request: pytest.FixtureRequest, shared_nats: NatsServer, tmp_path: Path) -> Any:
    """Return the application in the block whose name is the parameter."""
    return load(at_nats(BLOCKS[request.param].code, shared_nats.url), tmp_path).app


def in_block(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("app", [name], indirect=True)


async def statuses(http: httpx.AsyncClient, *paths: str) -> list[int]:
    return [(await http.get(path)).status_code for path in paths]


def policy(response: httpx.Response) -> str:
    return response.headers["content-security-policy"]


@in_block(SERVE)
async def test_what_is_served(app: Any) -> None:
    paths = re.findall(r"`(/asyncapi[^`]*)`", TEXT.partition("## The viewer")[0])
    paths.remove("/asyncapi/")
    assert len(paths) == 5
    async with served(app) as http:
        assert await statuses(http, *paths) == [200] * 5
        page = await http.get("/asyncapi")
        assert "Order one item." in page.text
        assert 'rel="service-desc"' in page.headers["link"]
        written = " ".join(re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)[0].split())
        assert policy(page) == written
        for url in re.findall(r'(?:href|src)="([^#"]+)"', page.text):
            assert urljoin("/asyncapi", url).startswith("/asyncapi/"), url


@in_block(ROUTE)
async def test_a_route(app: Any) -> None:
    async with served(app) as http:
        assert await statuses(http, "/internal/docs", "/asyncapi.json", "/asyncapi.yaml") == [200] * 3
        assert await statuses(http, "/internal/docs.json") == [404]
        page = (await http.get("/internal/docs")).text
    assert 'servers="false"' in page
    assert 'message-examples="false"' in page


@in_block(MOUNTED)
async def test_a_mount(app: Any) -> None:
    async with served(app) as http:
        found = await statuses(
            http, "/docs/events/", "/docs/events/asyncapi.json", "/docs/events/asyncapi.yaml"
        )
        assert found == [200] * 3
        assert await statuses(http, "/docs/events.json") == [404]
        assert 'sidebar="false"' in (await http.get("/docs/events/")).text


@in_block(EMBEDDED)
async def test_an_own_policy(app: Any) -> None:
    async with served(app) as http:
        page = await http.get("/asyncapi")
    assert policy(page) == "default-src 'self'; frame-ancestors https://portal.example.com"


@in_block(REACT)
async def test_the_react_component(app: Any) -> None:
    async with served(app) as http:
        page = await http.get("/asyncapi")
    assert '<script src="https://unpkg.com/@asyncapi/react-component@3.1.5/browser/' in page.text
    assert "script-src 'self' 'unsafe-eval' https://unpkg.com;" in policy(page)
    assert "style-src 'self' https://unpkg.com;" in policy(page)


@in_block(GUARDED)
async def test_a_guard(app: Any) -> None:
    async with served(app) as http:
        page = await http.get("/asyncapi", auth=("reader", "secret"))
        files = [urljoin("/asyncapi", url) for url in re.findall(r'(?:href|src)="([^#"]+)"', page.text)]
        assert len(files) > 5
        for url in ("/asyncapi", "/asyncapi.json", *files):
            refused = await http.get(url)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Basic"), url
            assert (await http.get(url, auth=("reader", "wrong"))).status_code == 401, url
            assert (await http.get(url, auth=("reader", "secret"))).status_code == 200, url


def test_all_keywords_are_listed() -> None:
    table = TEXT.partition("| Keyword |")[2].partition("\n\n")[0]
    listed = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split(" | ")[0])}
    refused = {"try_it_out_path", "try_it_out_plugin_url"}
    own = {"description", "tags", "unique_id", "include_in_schema", "asyncapi_json_path"}
    assert listed - {"Keyword"} == own | PageKeywords.__annotations__.keys() - refused
    route, view = AsyncAPIRoute("/"), View()
    for name, said in {
        "include_in_schema": False,
        "description": None,
        "tags": None,
        "unique_id": None,
    }.items():
        assert getattr(route, name) is said
    for name in ("sidebar", "info", "servers", "operations", "messages", "schemas", "errors"):
        assert getattr(view, name) is True


def test_sizes() -> None:
    script = viewer()
    assert script is not None
    scope = {"type": "http", "headers": [(b"accept-encoding", b"br")]}
    identity = {"type": "http", "headers": []}
    assert "The viewer has 350 kB, and travels as 110 kB" in TEXT
    assert 300_000 < len(script.content.answer(identity).body) < 400_000
    assert len(script.content.answer(scope).body) < 115_000
