from __future__ import annotations

import gc
import gzip
import hashlib
import json
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

import faststream
import httpx
import pytest
import yaml
from asyncapi_viewer import assets as viewer_assets  # type: ignore[import-untyped]  # ships no types
from asyncapi_viewer import options as viewer_options
from fastapi import FastAPI
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker, NatsRouter
from faststream.specification import AsyncAPI, Tag
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.routing import Mount

from faststream_adapters import AsgiResponse, make_liveness_asgi
from faststream_adapters._asgi.endpoint import Endpoint
from faststream_adapters._asgi.routing import Routes
from faststream_adapters._asyncapi import AsyncAPIDocs, AsyncAPIRoute, make_asyncapi_asgi
from faststream_adapters._asyncapi import assets as asyncapi_assets
from faststream_adapters._asyncapi import content as asyncapi_content
from faststream_adapters._asyncapi import docs as asyncapi
from faststream_adapters._asyncapi.docs import specification_of
from faststream_adapters._asyncapi.view import View
from faststream_adapters._lifecycle.lifespan import BrokerLifespan
from tests.harness.asgi_calls import Client, http_scope, request
from tests.harness.stalls import assert_never_blocks
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from faststream.asgi.types import ASGIApp, Message, Receive, Scope, Send

VERSIONS = ("3.0.0", "2.6.0")
MALICIOUS = (
    "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u2028& [x](javascript:alert(3))"
)
CLOSED = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PLAIN_POLICY = f"default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; {CLOSED}"
VIEWER_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; " + CLOSED
)


class Line(BaseModel):
    sku: str = Field(min_length=3, description="Which article")


class Order(BaseModel):
    model_config = {"json_schema_extra": {"examples": [{"id": 7}]}}

    id: int
    lines: list[Line] = []
    state: Literal["new", "paid"] = "new"
    note: str | None = None


def order_broker(url: str = "nats://localhost:4222", **keywords: Any) -> NatsBroker:
    broker = NatsBroker(url, **keywords)

    @broker.subscriber("orders.created", queue="workers", description="New orders")
    @broker.publisher("orders.paid", title="Paid")
    async def on_order(order: Order) -> Order:
        raise NotImplementedError

    return broker


def docs(**keywords: Any) -> AsyncAPIDocs:
    return make_asyncapi_asgi(AsyncAPI(order_broker(), title="Orders"), **keywords)


async def fetch(
    app: ASGIApp,
    path: str = "/",
    method: str = "GET",
    *,
    root_path: str = "",
    follow_redirects: bool = False,
    **headers: str,
) -> httpx.Response:
    transport = httpx.ASGITransport(app, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:
        sent = {"Accept-Encoding": "identity"} | {
            key.replace("_", "-"): text for key, text in headers.items()
        }
        return await client.request(method, path, headers=sent, follow_redirects=follow_redirects)


class Page(HTMLParser):
    """The elements and the text of an HTML page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def urls(self) -> list[str]:
        return [
            attributes[name]
            for _, attributes in self.elements
            for name in ("href", "src", "data-document")
            if name in attributes
        ]

    def files(self) -> list[str]:
        return [url for url in self.urls() if not url.startswith(("#", "http"))]

    def has_script(self) -> bool:
        """Return whether the page can run any script besides the viewer's and its own."""
        elements = [(tag, attributes) for tag, attributes in self.elements if not is_own(tag, attributes)]
        return len(self.elements) - len(elements) > 3 or any(
            tag in {"script", "iframe", "object", "img", "style"}
            or any(name.startswith("on") or name == "style" for name in attributes)
            for tag, attributes in elements
        )


def is_own(tag: str, attributes: dict[str, str]) -> bool:
    return (
        tag == "script"
        and attributes.keys() <= {"src", "defer"}
        and re.fullmatch(r"([\w.%~-]+/)?(filter|page|viewer)\.[0-9a-f]{12}\.js", attributes["src"], re.ASCII)
        is not None
    )


class StoredSpecification:
    """A specification class of the application, with a fixed document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def to_specification(self) -> StoredSpecification:
        return self

    def to_json(self) -> str:
        return json.dumps(self.document)


async def page_of(document: dict[str, Any], **keywords: Any) -> Page:
    response = await fetch(make_asyncapi_asgi(StoredSpecification(document), **keywords))
    assert response.status_code == 200, response.text
    return Page(response.text)


# --- targets ---


async def title_and_channels(app: ASGIApp) -> tuple[str, set[str]]:
    document = (await fetch(app, "/asyncapi.json")).json()
    return document["info"]["title"], set(document["channels"])


async def test_a_specification_can_be_the_target() -> None:
    assert await title_and_channels(docs()) == ("Orders", {"orders.created:OnOrder", "Paid"})


async def test_brokers_can_be_the_targets() -> None:
    other = NatsBroker()
    other.publisher("else", title="Else")
    app = make_asyncapi_asgi(order_broker(), other)
    assert await title_and_channels(app) == ("FastStream", {"orders.created:OnOrder", "Paid", "Else"})


async def test_documenting_brokers_does_not_create_an_app() -> None:
    broker = order_broker()
    context = broker.context
    await fetch(make_asyncapi_asgi(broker))
    assert broker.context is context
    assert context.get("app") is None


@pytest.mark.parametrize("wrapped", [False, True])
async def test_an_app_or_its_lifespan_can_be_the_target(wrapped: bool) -> None:
    app = faststream.FastStream(order_broker(), specification=AsyncAPI(title="App"))
    target = BrokerLifespan(app) if wrapped else app
    assert (await title_and_channels(make_asyncapi_asgi(target)))[0] == "App"
    assert specification_of([target]) is app.schema


async def test_a_lifespan_of_brokers_can_be_the_target() -> None:
    app = make_asyncapi_asgi(BrokerLifespan(order_broker(), NatsBroker()))
    assert await title_and_channels(app) == ("FastStream", {"orders.created:OnOrder", "Paid"})


@pytest.mark.parametrize("keyword", ["specification", "schema"])
async def test_brokers_are_added_to_a_given_specification(keyword: str) -> None:
    specification = AsyncAPI(title="Mine")
    keywords: dict[str, Any] = {keyword: specification}
    app = make_asyncapi_asgi(order_broker(), **keywords)
    assert await title_and_channels(app) == ("Mine", {"orders.created:OnOrder", "Paid"})


async def test_a_specification_needs_no_targets() -> None:
    specification = AsyncAPI(order_broker(), title="Mine")
    assert (await title_and_channels(AsyncAPIRoute("/docs")(schema=specification)))[0] == "Mine"


@pytest.mark.parametrize(
    "targets",
    [
        pytest.param((), id="none"),
        pytest.param((object(),), id="unknown"),
        pytest.param(("the orders",), id="str"),
        pytest.param((NatsRouter(),), id="router"),
        pytest.param((NatsBroker(), AsyncAPI()), id="mixed"),
        pytest.param((AsyncAPI(), AsyncAPI()), id="two specifications"),
        pytest.param((faststream.FastStream(), faststream.FastStream()), id="two apps"),
    ],
)
def test_other_targets_are_refused(targets: tuple[Any, ...]) -> None:
    with pytest.raises(
        SetupError, match="Pass one AsyncAPI specification, or one or more brokers, or one FastStream app"
    ):
        make_asyncapi_asgi(*targets)


def test_other_specifications_are_refused() -> None:
    with pytest.raises(SetupError, match=r"must be an object like AsyncAPI\(title=...\), not 'Orders'"):
        make_asyncapi_asgi(NatsBroker(), specification="Orders")  # type: ignore[arg-type]  # the error under test
    with pytest.raises(SetupError, match="two names of the same argument"):
        make_asyncapi_asgi(specification=AsyncAPI(), schema=AsyncAPI())


# --- the viewer ---


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Return a function that makes a library appear not installed."""
    caches = (asyncapi_assets.viewer, asyncapi_content.encoders)

    def hide(name: str) -> None:
        monkeypatch.setitem(sys.modules, name, None)
        for cached in caches:
            cached.cache_clear()

    yield hide
    for cached in caches:
        cached.cache_clear()


def viewer_element(page: Page) -> dict[str, str]:
    [attributes] = page.attributes("asyncapi-viewer")
    return attributes


async def test_the_viewer_comes_from_the_wheel() -> None:
    app = docs()
    page = Page((await fetch(app)).text)
    *own, script = page.attributes("script")
    assert [each["src"].partition(".")[0] for each in own] == ["filter", "page"]
    served = await fetch(app, f"/{script['src']}")
    assert served.headers["content-type"] == "text/javascript; charset=utf-8"
    assert served.content == viewer_assets.static_path(viewer_assets.VIEWER_IIFE).read_bytes()
    assert hashlib.sha256(served.content).hexdigest().startswith(script["src"].split(".")[1])


async def test_options_are_passed_to_the_viewer() -> None:
    shown = viewer_element(Page((await fetch(docs())).text))
    assert shown == {
        "id": "asyncapi",
        "src": "viewer/asyncapi.json",
        "sidebar": "true",
        "info": "true",
        "servers": "true",
        "operations": "true",
        "messages": "true",
        "schemas": "true",
        "errors": "true",
        "message-examples": "true",
        "publish-label": "RECEIVE",
        "subscribe-label": "SEND",
    }
    known = {each.attribute for each in viewer_options.load_specs()}
    assert shown.keys() <= known
    for option in ("sidebar", "info", "servers", "operations", "messages", "schemas", "errors"):
        assert viewer_element(Page((await fetch(docs(**{option: False}))).text))[option] == "false"
    folded = viewer_element(Page((await fetch(docs(expand_message_examples=False))).text))
    assert folded["message-examples"] == "false"


async def test_the_script_is_served_by_a_process_that_has_not_served_the_page() -> None:
    """Another worker process or a cache may have served the page."""
    scripts = Page((await fetch(docs())).text).attributes("script")
    statuses = [(await fetch(docs(), f"/{script['src']}", "HEAD")).status_code for script in scripts]
    assert statuses == [200, 200, 200]


async def test_the_page_with_the_viewer_is_complete_without_scripts(without: Callable[[str], None]) -> None:
    app = docs()
    _, _, complete = Page((await fetch(app)).text).text.rstrip().partition("Skip to the content")
    without("asyncapi_viewer")
    _, _, plain = Page((await fetch(docs())).text).text.partition("Skip to the content")
    assert plain.startswith(complete + "This is the plain page.")


async def test_the_plain_page_names_the_extra(without: Callable[[str], None]) -> None:
    without("asyncapi_viewer")
    app = docs()
    response = await fetch(app)
    page = Page(response.text)
    assert 'pip install "faststream-adapters[docs]"' in page.text
    assert response.headers["content-security-policy"] == PLAIN_POLICY
    assert not page.has_script()
    assert not page.attributes("asyncapi-viewer")
    for text in ("orders.created", "Paid", "Order", "Line", "sku"):
        assert text in page.text
    assert set(await follow_files(app, "/")) == {
        "text/css",
        "text/javascript",
        "image/svg+xml",
        "application/json",
        "application/yaml",
    }


async def test_a_wheel_without_the_viewer_counts_as_missing(
    without: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A checkout of the viewer's repository contains no viewer before it has been built."""
    without("brotli")  # clears the caches
    monkeypatch.setattr(viewer_assets, "STATIC_DIR", tmp_path)
    assert "This is the plain page" in (await fetch(docs())).text


async def test_an_operation_keeps_its_own_description() -> None:
    document = {
        "channels": {
            "a/b": {"description": "The channel", "publish": {"description": "Own"}, "subscribe": {}},
            "odd": [],
        },
        "operations": {
            "described": {"channel": {"$ref": "#/channels/a~1b"}, "description": "Mine"},
            "undescribed": {"channel": {"$ref": "#/channels/a~1b"}},
            "lost": {"channel": {"$ref": "#/channels/gone"}},
            "odd": [],
        },
    }
    app = make_asyncapi_asgi(StoredSpecification(document))
    enriched = (await fetch(app, "/viewer/asyncapi.json")).json()
    channel = enriched["channels"]["a/b"]
    assert (channel["publish"]["description"], channel["subscribe"]["description"]) == ("Own", "The channel")
    operations = enriched["operations"]
    assert operations["described"]["description"] == "Mine"
    assert operations["undescribed"]["description"] == "The channel"
    assert "description" not in operations["lost"]
    assert (await fetch(app, "/asyncapi.json")).json() == document


# --- the policy ---


@pytest.mark.parametrize("keywords", [{}, {"asyncapi_js_url": "/a.js"}])
async def test_a_custom_policy_replaces_the_built_in_one(keywords: dict[str, Any]) -> None:
    custom = "default-src 'self'; frame-ancestors https://portal.example"
    response = await fetch(docs(csp=custom, **keywords))
    assert response.headers["content-security-policy"] == custom
    route = AsyncAPIRoute("/docs", csp=custom, **keywords)
    assert (await fetch(route(order_broker()))).headers["content-security-policy"] == custom


async def test_the_policy_can_be_left_to_the_host() -> None:
    headers = (await fetch(docs(csp=None))).headers
    assert "content-security-policy" not in headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("csp", ["", " ", "a\r\nSet-Cookie: b", "a\n", "default-src \u2028", "ü"])
def test_a_policy_that_is_not_a_header_value_is_refused(csp: str) -> None:
    with pytest.raises(SetupError, match="csp must be one line of printable ASCII, or None"):
        docs(csp=csp)


# --- URLs ---


@pytest.mark.parametrize(
    ("url", "folder"), [("/", ""), ("/docs", "docs/"), ("/docs/", ""), ("/a/d%20o", "d%20o/")]
)
async def test_the_page_links_to_the_document(url: str, folder: str) -> None:
    mount = unquote(url.rstrip("/"))
    response = await fetch(docs(), url, root_path=mount)
    assert response.headers["link"] == (
        f'<{folder}asyncapi.json>; rel="service-desc"; type="application/json", '
        f'<{folder}asyncapi.yaml>; rel="service-desc"; type="application/yaml"'
    )
    target = str(response.url.join(f"{folder}asyncapi.json"))
    assert (await fetch(docs(), target, root_path=mount)).json()["asyncapi"] == "3.0.0"


async def test_the_headers_of_the_page() -> None:
    response = await fetch(docs())
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-security-policy"] == VIEWER_POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_document_as_json_and_yaml(version: str) -> None:
    specification = AsyncAPI(order_broker(), schema_version=version, description="Grüße\u2028")
    app = make_asyncapi_asgi(specification)
    expected = json.loads(specification.to_specification().to_json())
    as_json = await fetch(app, "/asyncapi.json")
    assert as_json.headers["content-type"] == "application/json"
    assert as_json.json() == expected
    as_yaml = await fetch(app, "/asyncapi.yaml")
    assert as_yaml.headers["content-type"] == "application/yaml"
    assert yaml.safe_load(as_yaml.text) == expected
    assert "Grüße" in as_json.text
    assert as_yaml.text.startswith("info:\n")
    assert (await fetch(app.json, "/any")).json() == expected
    assert (await fetch(app.yaml, "/any")).content == as_yaml.content


async def test_without_pyyaml_the_yaml_document_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    app = docs()
    assert (await fetch(app, "/asyncapi.yaml")).content == (await fetch(app, "/asyncapi.json")).content


async def test_the_document_is_sorted() -> None:
    document = {
        "channels": {"b": {}, "a": {}},
        "operations": {"d": {}, "c": {}},
        "components": {"schemas": {"f": {}, "e": {}}},
    }
    text = (await fetch(make_asyncapi_asgi(StoredSpecification(document)), "/asyncapi.json")).text
    assert re.findall(r'"(\w)"', text) == ["a", "b", "c", "d", "e", "f"]


@pytest.mark.parametrize("path", ["/nothing", "/asyncapi", "/asyncapi.json/more", "/docs.css", "/page.html"])
async def test_an_unknown_path_is_not_found(path: str) -> None:
    response = await fetch(docs(), path)
    assert (response.status_code, response.text) == (404, "Not Found")


@pytest.mark.parametrize("path", ["/", "/asyncapi.json", "/asyncapi.yaml"])
async def test_get_and_head_are_allowed(path: str) -> None:
    app = docs()
    full, head = await fetch(app, path), await fetch(app, path, "HEAD")
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers == full.headers
    refused = await fetch(app, path, "POST")
    assert refused.status_code == 405
    assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize("path", ["/", "/nothing"])
async def test_a_websocket_is_closed(path: str) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        raise NotImplementedError

    async def send(message: Message) -> None:
        sent.append(message)

    await docs()({"type": "websocket", "path": path, "headers": []}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_the_lifespan_is_accepted() -> None:
    incoming: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[Message] = []

    async def receive() -> Message:
        return incoming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await docs()({"type": "lifespan"}, receive, send)
    assert sent == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]


async def follow_files(app: ASGIApp, url: str, **keywords: Any) -> list[str]:
    """Load a page and its own files as a browser would, and return the content types of the files."""
    page = await fetch(app, url, **keywords)
    assert page.status_code == 200
    kinds = []
    for link in Page(page.text).files():
        response = await fetch(app, str(page.url.join(link)), **keywords)
        assert response.status_code == 200, link
        kinds.append(response.headers["content-type"].partition(";")[0])
    return kinds


@pytest.mark.parametrize("url", ["/docs", "/docs/", "/docs?x=/y", "/docs/?x=y"])
async def test_links_below_a_mount_of_routes(url: str) -> None:
    routes = Routes()
    routes.add("/docs", docs(), exact=False)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        match = routes.find(scope)
        assert match is not None
        await match[0](match[1], receive, send)

    kinds = await follow_files(app, url)
    assert set(kinds) == {
        "text/css",
        "text/javascript",
        "image/svg+xml",
        "application/json",
        "application/yaml",
    }


def stripping(prefix: str, app: ASGIApp) -> ASGIApp:
    """Return the app behind a proxy that strips a prefix from the path."""

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["path"].startswith(prefix)
        path = scope["path"].removeprefix(prefix)
        await app({**scope, "path": path, "raw_path": path.encode()}, receive, send)

    return proxy


@pytest.mark.parametrize("make", [Starlette, FastAPI])
@pytest.mark.parametrize("url", ["/asyncapi", "/asyncapi/"])
async def test_links_below_a_mount_of_a_host(make: Any, url: str) -> None:
    host = make()
    host.mount("/asyncapi", docs())
    assert await follow_files(host, url, follow_redirects=True)


@pytest.mark.parametrize("make", [Starlette, FastAPI])
async def test_links_behind_a_stripping_proxy(make: Any) -> None:
    host = make()
    host.mount("/asyncapi", docs())
    assert await follow_files(stripping("/svc", host), "/svc/asyncapi/")


@pytest.mark.parametrize("make", [Starlette, FastAPI])
@pytest.mark.parametrize("root_path", ["", "/svc"])
@pytest.mark.parametrize("depth", ["", "/inner"])
async def test_links_below_a_root_path(make: Any, root_path: str, depth: str) -> None:
    inner = Starlette(routes=[Mount("/asyncapi", docs())])
    host = make(routes=[Mount(depth, inner)]) if depth else make(routes=inner.routes)
    assert await follow_files(host, f"{root_path}{depth}/asyncapi/", root_path=root_path)


@pytest.mark.parametrize("make", [Starlette, FastAPI])
async def test_links_with_a_root_path_that_is_not_in_the_path(make: Any) -> None:
    """Some servers and proxies send such a scope."""
    host = make(routes=[Mount("/asyncapi", docs())])
    assert await follow_files(host, "/asyncapi/", root_path="/svc")


async def test_links_of_a_standalone_app_with_a_root_path() -> None:
    app = docs()
    assert await follow_files(app, "/")
    assert (await fetch(app, "/svc/asyncapi.json", root_path="/svc")).status_code == 200
    assert 'href="svc/asyncapi.json"' in (await fetch(app, "/svc", root_path="/svc")).text


async def test_links_with_and_without_a_trailing_slash() -> None:
    routes = Routes()
    routes.add("/docs", docs(), exact=False)

    async def page(path: str) -> str:
        scope = {"type": "http", "method": "GET", "path": path, "headers": [], "root_path": ""}
        match = routes.find(scope)
        assert match is not None
        sent: list[Message] = []

        async def receive() -> Message:
            raise NotImplementedError

        async def send(message: Message) -> None:
            sent.append(message)

        await match[0](match[1], receive, send)
        return str(sent[1]["body"].decode())

    assert 'href="docs/asyncapi.json"' in await page("/docs")
    assert 'href="asyncapi.json"' in await page("/docs/")


async def test_the_page_path_is_escaped_in_links() -> None:
    app = docs()
    for name in ("javascript:alert(1)", 'x"><img src=x>', "a b", "ü%2F"):
        path = f"/{name}"
        scope_path = httpx.URL(f"http://host{path}").raw_path.decode()
        page = Page((await fetch(app, scope_path, root_path=unquote(scope_path))).text)
        assert not page.has_script()
        folder = page.files()[0].rpartition("/")[0]
        assert re.fullmatch(r"[\w.%~-]+", folder, re.ASCII)
        assert unquote(folder) == unquote(scope_path.removeprefix("/"))


@pytest.mark.full
async def test_the_number_of_pages_that_clients_make_is_bounded() -> None:
    app = docs()

    async def responses_after(*numbers: int) -> int:
        for number in numbers:
            for coding in ("identity", "gzip", "br"):
                # The server says that the app is mounted at this path.
                page = await fetch(app, f"/t{number}", root_path=f"/t{number}", Accept_Encoding=coding)
                assert f"t{number}/docs." in page.text
        gc.collect()
        return sum(type(each) is AsgiResponse for each in gc.get_objects())

    before = await responses_after(*range(20))
    assert await responses_after(*range(20, 60)) == before


# --- HTTP ---


async def test_a_matching_etag_is_answered_with_304() -> None:
    app = docs()
    first = await fetch(app, "/asyncapi.json")
    tag = first.headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', tag)
    for header in (tag, "*", f"W/{tag}", f'"other", {tag}', f'W/"a,b" ,W/{tag}'):
        response = await fetch(app, "/asyncapi.json", If_None_Match=header)
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == tag
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["vary"] == "Accept-Encoding"
        assert "content-type" not in response.headers
        assert "content-length" not in response.headers
    for header in ('"other"', tag.strip('"'), ""):
        assert (await fetch(app, "/asyncapi.json", If_None_Match=header)).status_code == 200
    assert (await fetch(app, "/asyncapi.json", "HEAD", If_None_Match=tag)).status_code == 304
    assert (await fetch(docs(), "/asyncapi.json")).headers["etag"] == tag


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "br"),  # what browsers send
        ("br", "br"),
        ("br, GZIP;q=0.5", "br"),
        ("br;q=0.4, gzip;q=0.5", "gzip"),
        ("br;q=0, gzip", "gzip"),
        ("BR; Q=0, *", "gzip"),
        ("deflate, *;q=0.1", "br"),
        ("gzip; q=1.0", "gzip"),
        ("gzip;level=9", "gzip"),
        ("gzip;q=0.5, identity", "identity"),
        ("gzip;q=0.5, identity;q=0.5", "gzip"),
        ("gzip;q=0", "identity"),
        ("gzip;q=0, *", "br"),
        ("gzip;q=0, br;q=0.000, *", "identity"),
        ("*;q=0", "identity"),
        ("gzip;q=much", "identity"),
        ("gzip;q=nan", "identity"),
        ("identity", "identity"),
        ("zstd", "identity"),
        ("", "identity"),
    ],
)
async def test_the_content_coding_is_negotiated(accepted: str, coding: str) -> None:
    app = docs()
    plain = await fetch(app)
    response = await fetch(app, Accept_Encoding=accepted)
    assert response.content == plain.content  # httpx decompresses it
    compressed = coding != "identity"
    assert response.headers.get("content-encoding", "identity") == coding
    assert (response.headers["etag"] != plain.headers["etag"]) is compressed
    assert response.headers["vary"] == "Accept-Encoding"
    assert (int(response.headers["content-length"]) < len(plain.content)) is compressed
    again = await fetch(app, Accept_Encoding=accepted, If_None_Match=response.headers["etag"])
    assert again.status_code == 304
    assert "content-encoding" not in again.headers
    head = await fetch(app, "/", "HEAD", Accept_Encoding=accepted)
    assert (head.content, head.headers) == (b"", response.headers)


async def test_without_brotli_gzip_is_used(without: Callable[[str], None]) -> None:
    without("brotli")
    response = await fetch(docs(), Accept_Encoding="gzip, br")
    assert response.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in (await fetch(docs(), Accept_Encoding="br")).headers


async def test_a_body_is_compressed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compressed: list[int] = []
    encoders = asyncapi_content.encoders()
    compress = encoders["gzip"]

    def counted(body: bytes) -> bytes:
        compressed.append(len(body))
        return compress(body)

    monkeypatch.setitem(encoders, "gzip", counted)
    app = docs()
    await fetch(app)
    assert compressed == []
    for _ in range(3):
        await fetch(app, Accept_Encoding="gzip")
    assert len(compressed) == 1


async def test_gzip_is_the_same_in_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip.time, "time", lambda: 4e9)  # type: ignore[attr-defined]  # gzip's own import
    first = (await fetch(docs(), Accept_Encoding="gzip")).headers["etag"]
    monkeypatch.setattr(gzip.time, "time", lambda: 1e9)  # type: ignore[attr-defined]
    assert (await fetch(docs(), Accept_Encoding="gzip")).headers["etag"] == first


async def test_static_files_are_immutable() -> None:
    app = docs()
    for link in Page((await fetch(app)).text).files():
        if "asyncapi." in link:
            continue
        assert re.fullmatch(r"\w+\.[0-9a-f]{12}\.(css|svg|js)", link)
        response = await fetch(app, f"/{link}")
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert (await fetch(app, f"/{link}", If_None_Match=response.headers["etag"])).status_code == 304
        assert (await fetch(app, f"/{link}", "POST")).status_code == 405


# --- cache ---


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(asyncapi, "monotonic", clock)
    return clock


class Counted(AsyncAPI):
    broken = False

    def __init__(self, *brokers: NatsBroker) -> None:
        super().__init__(*brokers)
        # Documents are built from copies of the specification, which share this list.
        self.builds: list[str] = []

    @property
    def built(self) -> int:
        return len(self.builds)

    def to_specification(self) -> Any:
        self.builds.append("document")
        if self.broken:
            raise RuntimeError("nats://user:secret@host is wrong")
        return super().to_specification()


async def test_the_document_is_built_on_the_first_request_only(clock: Clock) -> None:
    specification = Counted(order_broker())
    app = make_asyncapi_asgi(specification)
    assert specification.built == 0
    for path in ("/", "/asyncapi.json", "/asyncapi.yaml", "/", "/asyncapi.json"):
        await fetch(app, path)
    assert specification.built == 1
    clock.now += 10
    await fetch(app)
    assert specification.built == 1


async def test_changes_are_seen_within_a_second(clock: Clock) -> None:
    broker, other = order_broker(), NatsBroker()
    specification = Counted(broker)
    app = make_asyncapi_asgi(specification)

    async def channels() -> set[str]:
        return (await title_and_channels(app))[1]

    before = await channels()
    tag = (await fetch(app)).headers["etag"]

    async def assert_seen(*added: str) -> None:
        nonlocal before
        assert await channels() == before
        clock.now += 0.9
        assert await channels() == before
        clock.now += 0.2
        assert await channels() == before | set(added)
        before |= set(added)

    @broker.subscriber("refunds")
    async def on_refund(order: Order) -> None: ...

    await assert_seen("refunds:OnRefund")
    assert (await fetch(app, If_None_Match=tag)).status_code == 200
    broker.publisher("refunded", title="Refunded")
    await assert_seen("Refunded")
    other.publisher("mailed", title="Mailed")
    specification.add_broker(other)
    await assert_seen("Mailed")
    specification.add_http_route("/health", make_liveness_asgi(broker))  # type: ignore[arg-type]  # has the same attributes
    await assert_seen("health:HttpChannel")
    assert specification.built == 5


async def test_a_replaced_broker_is_detected(clock: Clock) -> None:
    specification = Counted(NatsBroker())
    app = make_asyncapi_asgi(specification)
    await fetch(app)
    for built in range(2, 10):
        specification.brokers[0] = NatsBroker()  # often at the memory address of the previous one
        clock.now += 1.1
        await fetch(app)
        assert specification.built == built


async def test_a_failed_build_is_logged_once_and_kept_until_something_changes(
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = order_broker()
    specification = Counted(broker)
    specification.broken = True
    app = make_asyncapi_asgi(specification)
    for path in ("/", "/asyncapi.json", "/asyncapi.yaml", "/viewer/asyncapi.json", "/"):
        response = await fetch(app, path)
        assert response.status_code == 500
        assert response.text == "The AsyncAPI document could not be built. The log contains the error."
        assert response.headers["cache-control"] == "no-store"
        clock.now += 10
    assert specification.built == 1
    # asyncio may log errors about objects that an earlier test has left to the garbage collector.
    (record,) = (record for record in caplog.records if record.name == "faststream.adapters.docs")
    assert "Traceback" in record.getMessage()
    assert "is wrong" in record.getMessage()
    assert "secret" not in caplog.text
    specification.broken = False
    broker.publisher("mailed", title="Mailed")
    clock.now += 10
    assert (await fetch(app)).status_code == 200


@pytest.mark.parametrize("call", [None])
async def test_a_model_that_is_local_to_the_caller_is_found(call: None) -> None:
    class Local(BaseModel):
        local_field: int

    broker = NatsBroker()

    @broker.subscriber("calls")
    async def handle(message: Local) -> None: ...

    assert call is None  # callers may use any name

    assert "local_field" in (await fetch(make_asyncapi_asgi(broker), "/asyncapi.json")).text


async def test_a_subscriber_that_is_added_during_a_build_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = order_broker()

    class Interrupted(Counted):
        def to_specification(self) -> Any:
            if self.built:
                return super().to_specification()
            self.builds.append("interrupted")
            broker.publisher("mailed", title="Mailed")
            msg = "Set changed size during iteration"
            raise RuntimeError(msg)

    response = await fetch(make_asyncapi_asgi(Interrupted(broker)), "/asyncapi.json")
    assert "Mailed" in response.json()["channels"]
    assert not [record for record in caplog.records if record.name == "faststream.adapters.docs"]


class Blocked(AsyncAPI):
    """A document whose building blocks until the test lets it proceed."""

    def __init__(self, broker: NatsBroker, **options: Any) -> None:
        super().__init__(broker, **options)
        self.threads: list[threading.Thread] = []
        self.proceed = threading.Event()

    def to_specification(self) -> Any:
        self.threads.append(threading.current_thread())
        assert self.proceed.wait(20)
        return super().to_specification()


async def test_the_document_is_built_once_for_concurrent_requests_and_outside_the_event_loop() -> None:
    specification = Blocked(order_broker())
    app = make_asyncapi_asgi(specification)
    paths = ("/", "/asyncapi.json", "/asyncapi.yaml", "/asyncapi.json")
    clients = [Client(app, http_scope(path)) for path in paths]
    await eventually(lambda: all(client.waits for client in clients) and bool(specification.threads))
    specification.proceed.set()
    assert {await client.status for client in clients} == {200}
    [thread] = specification.threads
    assert thread is not threading.main_thread()
    assert thread.daemon


# No document can contain half of a character.
INVALID = "\ud800"


async def test_a_document_that_cannot_be_built_is_logged_once_for_concurrent_requests(
    caplog: pytest.LogCaptureFixture,
) -> None:
    specification = Blocked(order_broker(), title=INVALID)
    app = make_asyncapi_asgi(specification)
    codings = ("identity", "gzip", "br")
    scopes = [http_scope("/asyncapi.json", headers=[("accept-encoding", coding)]) for coding in codings]
    clients = [Client(app, scope) for scope in scopes]
    await eventually(lambda: all(client.waits for client in clients) and bool(specification.threads))
    specification.proceed.set()
    assert {await client.status for client in clients} == {500}
    assert len(specification.threads) == 1
    assert len([record for record in caplog.records if record.name == "faststream.adapters.docs"]) == 1


async def test_a_format_that_cannot_be_built_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    app = make_asyncapi_asgi(StoredSpecification({"asyncapi": "3.0.0", "info": {"title": INVALID}}))
    for _ in range(3):
        assert (await fetch(app, "/asyncapi.json")).status_code == 500
    assert len([record for record in caplog.records if record.name == "faststream.adapters.docs"]) == 1


async def test_a_page_whose_client_has_disconnected_is_not_built() -> None:
    specification = Blocked(order_broker())
    app = make_asyncapi_asgi(specification)
    clients = [Client(app, http_scope(f"/{number}", root_path=f"/{number}")) for number in range(50)]
    await eventually(lambda: all(client.waits for client in clients) and bool(specification.threads))
    for client in clients:
        client.disconnect()
    assert {await client.status for client in clients} == {499}
    specification.proceed.set()
    assert (await fetch(app, "/asyncapi.json")).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/", "/asyncapi.json", "/asyncapi.yaml", "/viewer/asyncapi.json"],
)
@pytest.mark.full
async def test_building_and_compressing_never_block_the_event_loop(path: str) -> None:
    broker = NatsBroker()
    for number in range(100):
        broker.subscriber(f"orders.{number}", title=f"Orders {number}")(on_any_order)

    async def first_requests() -> None:
        app = make_asyncapi_asgi(broker)
        for coding in ("br", "gzip"):
            assert (await fetch(app, path, Accept_Encoding=coding)).status_code == 200

    await assert_never_blocks(first_requests)


async def on_any_order(order: Order) -> None: ...


async def test_a_build_lets_no_garbage_collection_visit_what_exists_already() -> None:
    """A full collection stops all threads, for a time that grows with the number of objects."""

    class Collected(Counted):
        def to_specification(self) -> Any:
            visited.append(len(gc.get_objects()))
            return super().to_specification()

    visited: list[int] = []
    existing = len(gc.get_objects())
    assert (await fetch(make_asyncapi_asgi(Collected(order_broker())))).status_code == 200
    assert visited[0] < existing / 10
    assert gc.get_freeze_count() == 0
    assert len(gc.get_objects()) > existing / 2


async def test_pages_of_other_folders_do_not_keep_garbage_from_being_collected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Clients choose the folder below a parametrised mount."""
    app = make_asyncapi_asgi(order_broker())
    freezes: list[None] = []
    monkeypatch.setattr(gc, "freeze", lambda: freezes.append(None))
    for number in range(20):
        assert (await request(app, http_scope(f"/{number}", root_path=f"/{number}"))).status == 200
    assert len(freezes) == 2


# --- what the page shows ---


async def test_a_schema_can_be_nested_deeply() -> None:
    schema: dict[str, Any] = {"type": "string", "description": "The last one"}
    for number in range(300):
        schema = {"type": "object", "properties": {f"level{number}": {"type": "array", "items": schema}}}
    page = await page_of({"components": {"schemas": {"Deep": schema}}})
    assert "The last one" in page.text


SECTIONS = {
    "sidebar": "nav",
    "info": 'span class="version"',
    "servers": "Servers",
    "operations": "Operations",
    "messages": "Messages",
    "schemas": "Schemas",
}


@pytest.mark.parametrize("hidden", [None, *SECTIONS])
async def test_each_part_can_be_hidden(hidden: str | None) -> None:
    source = (await fetch(docs(**({hidden: False} if hidden else {})))).text
    for option, mark in SECTIONS.items():
        shown = (
            f"<{mark}" in source if option in {"sidebar", "info"} else f"<h2>{mark}</h2><article" in source
        )
        assert shown is (option != hidden)
    page = Page(source)
    anchors = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {unquote(url[1:]) for url in page.urls() if url.startswith("#")} <= anchors


@pytest.mark.parametrize("expanded", [True, False])
async def test_examples_can_be_collapsed(expanded: bool) -> None:
    source = (await fetch(docs(expand_message_examples=expanded))).text
    assert ("<details open><summary>Example" in source) is expanded
    assert ("<details><summary>Example" in source) is not expanded


@pytest.mark.parametrize("version", VERSIONS)
async def test_texts_of_the_application_are_escaped(version: str) -> None:
    broker = NatsBroker(description=MALICIOUS, tags=[Tag(name=MALICIOUS)])

    class Payload(BaseModel):
        model_config = {
            "title": MALICIOUS,
            "json_schema_extra": {"examples": [MALICIOUS], MALICIOUS: MALICIOUS},
            "alias_generator": MALICIOUS.__add__,
        }
        field: str = Field(MALICIOUS, description=MALICIOUS, pattern=MALICIOUS)
        choice: Literal["</script>"]

    @broker.subscriber(MALICIOUS.replace(" ", ""), title=MALICIOUS, description=MALICIOUS)
    async def handle(payload: Payload) -> None: ...

    specification = AsyncAPI(
        broker,
        title=MALICIOUS,
        version=MALICIOUS,
        description=MALICIOUS,
        schema_version=version,
        tags=[Tag(name=MALICIOUS, description=MALICIOUS)],
        license={"name": MALICIOUS},
        external_docs={"url": "https://wiki.example", "description": MALICIOUS},
    )
    specification.add_http_route(f"/{MALICIOUS}", make_liveness_asgi(NatsBroker(), description=MALICIOUS))  # type: ignore[arg-type]
    app = make_asyncapi_asgi(specification, http_routes=True)
    source = (await fetch(app)).text
    page = Page(source)
    assert not page.has_script()
    assert page.text.count(MALICIOUS) > 8
    assert not any(url.lower().startswith(("javascript:", "data:")) for url in page.urls())
    assert (await fetch(app, "/asyncapi.json")).json()["info"]["title"] == MALICIOUS
    assert yaml.safe_load((await fetch(app, "/asyncapi.yaml")).text)["info"]["title"] == MALICIOUS
    react = Page((await fetch(make_asyncapi_asgi(specification, asyncapi_js_url="/a.js"))).text)
    assert [attributes.keys() for attributes in react.attributes("script")] == [{"src"}, {"src"}]
    assert not react.attributes("img")


async def test_links_that_would_run_a_script_are_removed_from_the_document() -> None:
    """Both viewers turn URLs in the document into links."""
    run = "javascript:alert(1)"
    fine = {"url": "https://wiki.example", "description": run}
    payload = {
        "externalDocs": {"url": " \tJava\nScript:alert(1)"},
        "examples": [{"contact": {"url": run}, "tokenUrl": run}],
        "default": {"externalDocs": {"url": run}},
        "properties": {"url": {"const": run}, "tokenUrl": {"type": "string"}},
    }
    document = {
        "info": {
            "title": run,
            "termsOfService": "vbscript:x",
            "contact": {"name": "C", "url": run},
            "license": {"name": "L", "url": "DATA:text/html,x"},
            "externalDocs": fine,
            "tags": [{"name": "a", "externalDocs": {"url": run}}, {"name": "b", "externalDocs": fine}],
        },
        "components": {
            "messages": {"m": {"payload": payload, "url": run}},
            "securitySchemes": {
                "o": {"flows": {"implicit": {"authorizationUrl": run, "tokenUrl": "/token"}}}
            },
        },
    }
    app = make_asyncapi_asgi(StoredSpecification(document))
    shown = {name: value for name, value in payload.items() if name != "externalDocs"}
    for url in ("/asyncapi.json", "/viewer/asyncapi.json"):
        served = (await fetch(app, url)).json()
        # What the viewer shows as the examples of the message.
        served["components"]["messages"]["m"].pop("examples", None)
        assert served == {
            "info": {
                "title": run,
                "contact": {"name": "C"},
                "license": {"name": "L"},
                "externalDocs": fine,
                "tags": [{"name": "a"}, {"name": "b", "externalDocs": fine}],
            },
            "components": {
                "messages": {"m": {"payload": shown, "url": run}},
                "securitySchemes": {"o": {"flows": {"implicit": {"tokenUrl": "/token"}}}},
            },
        }


# --- credentials ---


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://user:s3cret@host:4222", "nats://host:4222"),
        ("nats://s3cret@host:4222/path", "nats://host:4222/path"),
        ("nats://user:s3@cret@host", "nats://host"),
        ("nats://user:s3/cret@host:1/path", "nats://host:1/path"),
        ("nats://host:4222/?token=s3cret", "nats://host:4222/"),
        ("user:s3cret@host", "nats://host"),
        ("nats://user:1234/s3@cret@host", "nats://host"),
        ("nats://[::1]:4222/team%40prod", "nats://[::1]:4222/team%40prod"),
        ("nats://host:{port}/team", "nats://host:{port}/team"),
        ("nats://one:1,two:2", "nats://one:1,two:2"),
    ],
)
async def test_credentials_in_server_urls_are_removed(version: str, url: str, shown: str) -> None:
    broker = order_broker("nats://other:pa55@host", specification_url=url)
    app = make_asyncapi_asgi(AsyncAPI(broker, schema_version=version))
    page = await fetch(app)
    assert (shown if version == "3.0.0" else shown.removeprefix("nats://")) in Page(page.text).text
    for path in ("/", "/asyncapi.json", "/asyncapi.yaml"):
        text = (await fetch(app, path)).text
        for secret in ("s3cret", "s3@", "s3/", "cret", "pa55", "user"):
            assert secret not in text


async def test_credentials_in_components_are_removed() -> None:
    app = make_asyncapi_asgi(
        StoredSpecification({"components": {"servers": {"a": {"url": "x://u:p@h"}, "b": {}}}})
    )
    document = (await fetch(app, "/asyncapi.json")).json()
    assert document["components"]["servers"] == {"a": {"url": "x://h"}, "b": {}}


# --- the React component ---


async def test_the_react_component_is_shown_instead_of_the_viewer() -> None:
    app = docs(
        asyncapi_js_url="https://cdn.example/x.js?a=1&b=2",
        asyncapi_css_url="https://css.example:8443/x.css",
        sidebar=False,
        errors=False,
        expand_message_examples=False,
    )
    response = await fetch(app)
    page = Page(response.text)
    assert "<title>Orders AsyncAPI</title>" in response.text
    sources = [attributes["src"] for attributes in page.attributes("script")]
    assert sources[0] == "https://cdn.example/x.js?a=1&b=2"
    assert re.fullmatch(r"react\.[0-9a-f]{12}\.js", sources[1])
    assert "https://css.example:8443/x.css" in page.urls()
    (root,) = (attributes for attributes in page.attributes("div") if attributes.get("id") == "asyncapi")
    assert root["data-document"] == "asyncapi.json"
    config = json.loads(root["data-config"])
    assert config["show"] == {
        "sidebar": False,
        "info": True,
        "servers": True,
        "operations": True,
        "messages": True,
        "schemas": True,
        "errors": False,
    }
    assert config["expand"] == {"messageExamples": False}
    assert "<style" not in response.text
    policy = dict(rule.split(" ", 1) for rule in response.headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self' 'unsafe-eval' https://cdn.example",
        "style-src": "'self' https://css.example:8443",
        "img-src": "'self'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert {"text/javascript", "application/json"} <= set(await follow_files(app, "/"))


async def test_the_react_component_can_be_served_by_the_host() -> None:
    response = await fetch(docs(asyncapi_js_url="/static/a.js"))
    assert "script-src 'self' 'unsafe-eval';" in response.headers["content-security-policy"]
    assert "style-src 'self';" in response.headers["content-security-policy"]
    response = await fetch(docs(asyncapi_js_url="//cdn.example/a.js", asyncapi_css_url="a.css"))
    assert "script-src 'self' 'unsafe-eval' cdn.example;" in response.headers["content-security-policy"]
    assert "style-src 'self';" in response.headers["content-security-policy"]


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "data:text/javascript,1",
        "https://u:p@cdn.example/x.js",
        "https://a; script-src *",
        "//",
    ],
)
@pytest.mark.parametrize("keyword", ["asyncapi_js_url", "asyncapi_css_url"])
def test_urls_that_a_policy_cannot_name_are_refused(url: str, keyword: str) -> None:
    with pytest.raises(SetupError, match=f"{keyword} must be a path or an http"):
        docs(**{"asyncapi_js_url": "/x.js", keyword: url})


def test_a_stylesheet_without_the_react_component_is_refused() -> None:
    with pytest.raises(SetupError, match="pass asyncapi_js_url too"):
        docs(asyncapi_css_url="https://cdn.example/x.css")


# --- AsyncAPIRoute ---


@pytest.mark.parametrize("keyword", ["try_it_out_path", "try_it_out_plugin_url"])
@pytest.mark.parametrize("make", [docs, lambda **keywords: AsyncAPIRoute("/docs", **keywords)])
def test_try_it_out_is_refused(make: Any, keyword: str) -> None:
    make(**{keyword: None})
    with pytest.raises(SetupError, match=f"{keyword} must be None: .* the live broker. Use publish_path"):
        make(**{keyword: "/try"})


def test_the_defaults_of_a_route() -> None:
    assert vars(AsyncAPIRoute("/docs")) == {
        "path": "/docs",
        "description": None,
        "tags": None,
        "unique_id": None,
        "include_in_schema": False,
        "asyncapi_json_path": "/docs.json",
        "page": {},
    }


def test_every_function_refuses_unknown_page_keywords() -> None:
    for take in (
        lambda **page: AsyncAPIRoute("/docs", **page),
        lambda **page: make_asyncapi_asgi(NatsBroker(), **page),
        View,
    ):
        with pytest.raises(TypeError, match="unknown"):
            take(unknown=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("path", "keywords", "as_json", "as_yaml"),
    [
        ("/docs", {}, "/docs.json", "/docs.yaml"),
        ("/docs/", {}, "/docs.json", "/docs.yaml"),
        ("/", {}, None, None),
        ("/docs", {"asyncapi_json_path": None}, None, None),
        ("/docs", {"asyncapi_json_path": "/schema.json"}, "/schema.json", "/schema.yaml"),
        ("/docs", {"asyncapi_json_path": "/schema"}, "/schema", "/schema.yaml"),
    ],
)
def test_the_paths_of_the_json_and_yaml_documents(
    path: str, keywords: dict[str, Any], as_json: str | None, as_yaml: str | None
) -> None:
    route = AsyncAPIRoute(path, **keywords)
    assert (route.asyncapi_json_path, route.asyncapi_yaml_path) == (as_json, as_yaml)


def test_ensure_route_accepts_a_route_or_a_path() -> None:
    route = AsyncAPIRoute("/docs")
    assert AsyncAPIRoute.ensure_route(route) is route
    assert AsyncAPIRoute.ensure_route("/a").path == "/a"

    class Own(AsyncAPIRoute): ...

    assert type(Own.ensure_route("/a")) is Own


async def test_a_route_passes_its_keywords_to_the_app() -> None:
    route = AsyncAPIRoute("/docs", "The docs", [{"name": "t"}], "docs", True, None, info=False, sidebar=False)
    app = route(order_broker())
    assert (app.description, app.tags, app.unique_id, app.include_in_schema, app.methods) == (
        "The docs",
        [{"name": "t"}],
        "docs",
        True,
        ("GET", "HEAD"),
    )
    assert (app.json.include_in_schema, app.yaml.include_in_schema) == (True, True)
    source = (await fetch(app)).text
    assert "AsyncAPI 3.0.0" not in source
    assert "<nav" not in source


def test_the_documents_are_endpoints_and_the_app_is_not() -> None:
    app = docs()
    assert not isinstance(app, Endpoint)
    assert isinstance(app.json, Endpoint)
    assert isinstance(app.yaml, Endpoint)


def test_the_import_loads_no_third_party_module_besides_faststream() -> None:
    code = (
        "import sys, faststream; before = set(sys.modules); import faststream_adapters._asyncapi;"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(new - set(sys.stdlib_module_names) - {'faststream', 'faststream_adapters'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
