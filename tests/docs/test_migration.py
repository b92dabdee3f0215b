"""The migration guide: its code runs before and after, and what it says has changed has."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import faststream.asgi
import faststream.asgi.response
import httpx
import pytest
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker

import faststream_adapters
from tests.examples.blocks import at_nats, connected, load, python_blocks, served

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.nats import NatsServer

BLOCKS = python_blocks("docs/migration.md")
OLD: Any = faststream.asgi
NEW: Any = faststream_adapters
UNUSED = "nats://127.0.0.1:1"

IMPORTS = "Change the imports"
AS_ASGI = "`FastStream(...).as_asgi()`"
FASTAPI = "Inside FastAPI"

ANSWERS = {
    IMPORTS: {"/liveness": 200, "/health": 204, "/docs": 200},
    AS_ASGI: {"/health": 204, "/docs": 200},
    FASTAPI: {"/health/": 204, "/asyncapi/": 200},  # a mount redirects /health to /health/
}


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {f"{heading} {number}" for heading in ANSWERS for number in (1, 2)}


async def answers(code: str, heading: str, url: str, directory: Path) -> dict[str, int]:
    module = load(at_nats(code, url), directory)
    async with served(module.app) as client:
        await connected(module.broker)
        return {path: (await client.get(path)).status_code for path in ANSWERS[heading]}


@pytest.mark.parametrize("heading", ANSWERS)
async def test_before(heading: str, shared_nats: NatsServer, tmp_path: Path) -> None:
    code = BLOCKS[f"{heading} 1"].code
    assert "faststream.asgi" in code
    expected = ANSWERS[heading]
    if heading == FASTAPI:
        expected = {**expected, "/asyncapi/": 500}
    assert await answers(code, heading, shared_nats.url, tmp_path) == expected


@pytest.mark.parametrize("heading", ANSWERS)
async def test_after(heading: str, shared_nats: NatsServer, tmp_path: Path) -> None:
    code = BLOCKS[f"{heading} 2"].code
    assert "faststream.asgi" not in code
    assert await answers(code, heading, shared_nats.url, tmp_path) == ANSWERS[heading]


async def test_after_in_fastapi_without_redirect(shared_nats: NatsServer, tmp_path: Path) -> None:
    module = load(at_nats(BLOCKS[f"{FASTAPI} 2"].code, shared_nats.url), tmp_path)
    async with served(module.app) as client:
        for path, status in {"/health": 204, "/readyz": 204, "/asyncapi": 200}.items():
            assert (await client.get(path)).status_code == status


@pytest.mark.parametrize("heading", ANSWERS)
async def test_before_with_the_import_changed(heading: str, shared_nats: NatsServer, tmp_path: Path) -> None:
    code = BLOCKS[f"{heading} 1"].code.replace("faststream.asgi", "faststream_adapters")
    assert await answers(code, heading, shared_nats.url, tmp_path) == ANSWERS[heading]


def test_the_guide_lists_the_names_that_do_not_change() -> None:
    assert set(OLD.__all__) <= set(NEW.__all__)


# --- what differs: the old behaviour, then the new ---


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await NEW.AsgiResponse(f"{scope.get('root_path', '')} {scope['path']}".encode())(scope, receive, send)


def app_with(package: Any, *routes: tuple[str, Any], **keywords: Any) -> Any:
    return package.AsgiFastStream(NatsBroker(UNUSED), asgi_routes=routes, **keywords)


@pytest.mark.parametrize(("package", "status"), [(OLD, 404), (NEW, 200)], ids=["old", "new"])
async def test_trailing_slash_and_root_path(package: Any, status: int) -> None:
    async def page(scope: Any) -> Any:
        return package.AsgiResponse(b"page")

    app = app_with(package, ("/page", package.get(page)))
    async with client(app) as http:
        assert (await http.get("/page")).status_code == 200
        assert (await http.get("/page/")).status_code == status
    behind = httpx.ASGITransport(app, root_path="/svc")
    async with httpx.AsyncClient(transport=behind, base_url="http://test") as http:
        assert (await http.get("/svc/page")).status_code == status


@pytest.mark.parametrize(
    ("package", "at", "below"),
    [(OLD, " /other", None), (NEW, "/other /other", "/other /other/below")],
    ids=["old", "new"],
)
async def test_other_apps_are_mounted(package: Any, at: str, below: str | None) -> None:
    async with client(app_with(package, ("/other", hello))) as http:
        assert (await http.get("/other")).text == at
        answer = await http.get("/other/below")
    assert (answer.text if answer.status_code == 200 else None) == below


@pytest.mark.parametrize("routes", [[("/page", hello), ("/page", hello)], [("page", hello)]])
def test_routes_that_cannot_work(routes: list[tuple[str, Any]]) -> None:
    app_with(OLD, *routes)
    with pytest.raises(SetupError):
        app_with(NEW, *routes)


async def test_unknown_path() -> None:
    for package, text in ((OLD, "Application doesn't support regular HTTP protocol."), (NEW, "Not Found")):
        async with client(app_with(package)) as http:
            answer = await http.get("/nowhere")
        assert (answer.status_code, answer.text) == (404, text)


async def test_routes_are_added_with_mount() -> None:
    for package, status in ((OLD, 200), (NEW, 404)):
        app = app_with(package)
        app.routes.append(("/page", hello))
        app.mount("/mounted", hello)
        async with client(app) as http:
            assert (await http.get("/page")).status_code == status
            assert (await http.get("/mounted")).status_code == 200


async def test_websocket_at_an_endpoint() -> None:
    sent: list[dict[str, Any]] = []

    receive = asyncio.Queue[dict[str, Any]]().get

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/"}
    with pytest.raises(KeyError):
        await OLD.make_ping_asgi(NatsBroker(UNUSED))(scope, receive, send)
    await NEW.make_ping_asgi(NatsBroker(UNUSED))(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_head_at_post_handlers() -> None:
    for package, status in ((OLD, 200), (NEW, 405)):
        calls = []

        async def page(scope: Any) -> Any:
            calls.append(scope["method"])  # noqa: B023 (called in this round of the loop)
            return NEW.AsgiResponse()

        async with client(app_with(package, ("/page", package.post(page)))) as http:
            answer = await http.head("/page")
        assert answer.status_code == status
        assert calls == (["HEAD"] if package is OLD else [])
    assert answer.headers["allow"] == "POST"


def page_of(package: Any) -> Any:
    query = package.Query()

    async def page(name: Any = query) -> Any:
        return package.AsgiResponse(name[0].encode())

    return app_with(package, ("/page", package.get(page)))


@pytest.mark.parametrize(
    ("package", "answer"),
    [(OLD, (500, "Internal Server Error")), (NEW, (200, "ü"))],
    ids=["old", "new"],
)
async def test_query_parameters(package: Any, answer: tuple[int, str]) -> None:
    async with client(page_of(package)) as http:
        assert (await http.get("/page?name=name")).text == "name"
        response = await http.get("/page?name=%C3%BC")
    assert (response.status_code, response.text) == answer


async def test_handler_without_a_response() -> None:
    async def page(scope: Any) -> str:
        return "page"

    async with client(app_with(OLD, ("/page", OLD.get(page)))) as http:
        with pytest.raises(TypeError):
            await http.get("/page")
    async with client(app_with(NEW, ("/page", NEW.get(page)))) as http:
        assert (await http.get("/page")).status_code == 500


@pytest.mark.parametrize(
    ("package", "level", "traceback"),
    [(OLD, logging.ERROR, True), (NEW, logging.INFO, False)],
    ids=["old", "new"],
)
async def test_log_of_an_invalid_request(
    package: Any, level: int, traceback: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "faststream"):
        async with client(page_of(package)) as http:
            assert (await http.get("/page")).status_code == 422
    (record,) = [record for record in caplog.records if record.name.startswith("faststream")]
    assert (record.levelno, bool(record.exc_info)) == (level, traceback)


def test_json_response_is_a_class() -> None:
    assert not isinstance(faststream.asgi.response.JSONResponse, type)
    assert issubclass(NEW.JSONResponse, NEW.AsgiResponse)


async def test_ping_has_a_deadline() -> None:
    async with client(NEW.make_ping_asgi(NatsBroker(UNUSED))) as http:
        async with asyncio.timeout(5):
            assert (await http.get("/")).status_code == 500


async def test_ping_of_a_frozen_server(nats: NatsServer) -> None:
    for package, status in ((OLD, 204), (NEW, 500)):
        broker = NatsBroker(nats.url)
        async with broker, client(package.make_ping_asgi(broker, timeout=0.3)) as http:
            await broker.start()
            assert (await http.get("/")).status_code == 204
            nats.freeze()
            assert (await http.get("/")).status_code == status
            nats.thaw()


def test_ping_timeout_by_name_only() -> None:
    OLD.make_ping_asgi(NatsBroker(UNUSED), 5.0)
    with pytest.raises(SetupError):
        NEW.make_ping_asgi(NatsBroker(UNUSED), 5.0)


@pytest.mark.parametrize("keyword", ["try_it_out_path", "try_it_out_plugin_url"])
def test_try_it_out_is_refused(keyword: str) -> None:
    for make in (NEW.make_asyncapi_asgi, lambda broker, **keywords: NEW.AsyncAPIRoute("/docs", **keywords)):
        with pytest.raises(SetupError, match=keyword):
            make(NatsBroker(UNUSED), **{keyword: "/docs/try"})


async def test_asyncapi_page() -> None:
    async with client(app_with(OLD, asyncapi_path="/docs")) as http:
        assert "https://" in (await http.get("/docs")).text
        assert (await http.post("/docs/try")).status_code == 400
    async with client(app_with(NEW, asyncapi_path="/docs")) as http:
        page = await http.get("/docs")
        assert "https://" not in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "script-src 'self';" in page.headers["content-security-policy"]
        assert (await http.post("/docs/try")).status_code == 404
        for path in ("/docs.json", "/docs.yaml", "/docs/asyncapi.json", "/docs/asyncapi.yaml"):
            assert (await http.get(path)).status_code == 200
    component = "https://example.com/component.js"
    async with client(NEW.make_asyncapi_asgi(NatsBroker(UNUSED), asyncapi_js_url=component)) as http:
        assert component in (await http.get("/")).text


async def test_asyncapi_servers_have_no_credentials() -> None:
    for package, secret in ((OLD, True), (NEW, False)):
        broker = NatsBroker(UNUSED, specification_url="nats://user:secret@nats.example.com:4222")
        async with client(package.AsgiFastStream(broker, asyncapi_path="/docs")) as http:
            assert ("secret" in (await http.get("/docs.json")).text) == secret


def test_asyncapi_description_by_name_only() -> None:
    with pytest.raises(SetupError):
        NEW.make_asyncapi_asgi(NatsBroker(UNUSED), "description")
    NEW.make_asyncapi_asgi(NatsBroker(UNUSED), description="description")
