"""docs/asyncapi.md: its code runs and does what the page says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pytest

from tests.docs.blocks import ROOT, at_nats, load, python_blocks, served

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from tests.harness.servers.nats import NatsServer


TEXT = (ROOT / "docs/asyncapi.md").read_text(encoding="utf-8")


BLOCKS = python_blocks("docs/asyncapi.md")


SERVE, ROUTE, MOUNTED = "Serve them 1", "Keywords 1", "Keywords 2"


EMBEDDED, REACT, GUARDED = "What the page may do 1", "AsyncAPI's React component 1", "Access 1"


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
async def test_the_paths_on_the_page_are_served(app: Any) -> None:
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
async def test_a_route_with_keywords(app: Any) -> None:
    async with served(app) as http:
        assert await statuses(http, "/internal/docs", "/asyncapi.json", "/asyncapi.yaml") == [200] * 3
        assert await statuses(http, "/internal/docs.json") == [404]
        page = (await http.get("/internal/docs")).text
    assert 'servers="false"' in page
    assert 'message-examples="false"' in page


@in_block(MOUNTED)
async def test_the_docs_in_a_mount(app: Any) -> None:
    async with served(app) as http:
        paths = ("/docs/events/", "/docs/events/asyncapi.json", "/docs/events/asyncapi.yaml")
        assert await statuses(http, *paths) == [200] * 3
        assert await statuses(http, "/docs/events.json") == [404]
        assert 'sidebar="false"' in (await http.get("/docs/events/")).text


@in_block(EMBEDDED)
async def test_a_custom_policy(app: Any) -> None:
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
async def test_a_guard_protects_the_page_and_its_files(app: Any) -> None:
    async with served(app) as http:
        page = await http.get("/asyncapi", auth=("reader", "secret"))
        files = [urljoin("/asyncapi", url) for url in re.findall(r'(?:href|src)="([^#"]+)"', page.text)]
        assert len(files) > 5
        for url in ("/asyncapi", "/asyncapi.json", *files):
            refused = await http.get(url)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Basic"), url
            assert (await http.get(url, auth=("reader", "wrong"))).status_code == 401, url
            assert (await http.get(url, auth=("reader", "secret"))).status_code == 200, url
