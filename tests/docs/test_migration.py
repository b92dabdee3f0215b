"""docs/migration.md: its code runs before and after, and the listed differences exist."""

from __future__ import annotations

import asyncio
import logging
import pkgutil
import re
import signal
import sys
from typing import TYPE_CHECKING, Any

import faststream.asgi
import faststream.asgi.response
import httpx
import pytest
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker

import faststream_adapters
from tests.docs.blocks import ROOT, at_nats, connected, load, python_blocks, served
from tests.harness.servers.asgi import AppServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.harness.servers.nats import NatsServer

BLOCKS = python_blocks("docs/migration.md")
OLD: Any = faststream.asgi
NEW: Any = faststream_adapters
UNUSED = "nats://127.0.0.1:1"

IMPORTS = "Change the imports"
AS_ASGI = "`FastStream(...).as_asgi()`"
FASTAPI = "Inside FastAPI"

STATUSES = {
    IMPORTS: {"/liveness": 200, "/health": 204, "/docs": 200},
    AS_ASGI: {"/health": 204, "/docs": 200},
    FASTAPI: {"/health/": 204, "/asyncapi/": 200},  # a mount redirects /health to /health/
}


OWN_PROGRAM = """
import asyncio, os
from faststream.nats import NatsBroker
from faststream_adapters import AsgiFastStream, AsgiResponse, get


@get
async def leave() -> AsgiResponse:
    app.exit()
    return AsgiResponse(b"")


app = AsgiFastStream(
    NatsBroker(os.environ["NATS_URL"]),
    asgi_routes=[("/leave", leave)],
    after_shutdown=[lambda: print("> hook")],
)


async def main() -> None:
    await app.run(run_extra_options={"port": os.environ["PORT"]})
    print("> after run")
    await asyncio.sleep(0)
    print("> after the next await")


asyncio.run(main())
print("> after main")
"""


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {f"{heading} {number}" for heading in STATUSES for number in (1, 2)}


async def statuses_of(code: str, heading: str, url: str, directory: Path) -> dict[str, int]:
    module = load(at_nats(code, url), directory)
    async with served(module.app) as client:
        await connected(module.broker)
        return {path: (await client.get(path)).status_code for path in STATUSES[heading]}


@pytest.mark.full
@pytest.mark.parametrize(
    ("end", "code", "printed"),
    [
        (AppServer.terminate, -signal.SIGTERM, ["hook"]),
        (AppServer.interrupt, -signal.SIGINT, ["hook", "after run"]),
        (
            lambda server: httpx.get(f"{server.url}/leave"),
            0,
            ["hook", "after run", "after the next await", "after main"],
        ),
    ],
    ids=["SIGTERM", "Ctrl-C", "exit"],
)
def test_code_after_run_runs_after_exit_only(
    shared_nats: NatsServer, end: Callable[[AppServer], object], code: int, printed: list[str]
) -> None:
    env = {"NATS_URL": shared_nats.url, "PORT": "{port}"}
    with AppServer([sys.executable, "main.py"], app=OWN_PROGRAM, env=env) as server:
        end(server)
        assert server.wait(20.0) == code
        assert re.findall("^> (.*)$", server.output(), re.MULTILINE) == printed


@pytest.mark.parametrize("heading", STATUSES)
async def test_the_old_code_runs(heading: str, shared_nats: NatsServer, tmp_path: Path) -> None:
    code = BLOCKS[f"{heading} 1"].code
    assert "faststream.asgi" in code
    expected = STATUSES[heading]
    if heading == FASTAPI:
        expected = {**expected, "/asyncapi/": 500}
    assert await statuses_of(code, heading, shared_nats.url, tmp_path) == expected


@pytest.mark.parametrize("heading", STATUSES)
async def test_the_new_code_runs(heading: str, shared_nats: NatsServer, tmp_path: Path) -> None:
    code = BLOCKS[f"{heading} 2"].code
    assert "faststream.asgi" not in code
    assert await statuses_of(code, heading, shared_nats.url, tmp_path) == STATUSES[heading]


async def test_the_new_code_in_fastapi_runs_without_redirects(
    shared_nats: NatsServer, tmp_path: Path
) -> None:
    module = load(at_nats(BLOCKS[f"{FASTAPI} 2"].code, shared_nats.url), tmp_path)
    async with served(module.app) as client:
        for path, status in {"/health": 204, "/readyz": 200, "/asyncapi": 200}.items():
            assert (await client.get(path)).status_code == status


@pytest.mark.parametrize("heading", STATUSES)
async def test_the_old_code_runs_after_changing_the_import(
    heading: str, shared_nats: NatsServer, tmp_path: Path
) -> None:
    code = BLOCKS[f"{heading} 1"].code.replace("faststream.asgi", "faststream_adapters")
    assert await statuses_of(code, heading, shared_nats.url, tmp_path) == STATUSES[heading]


def test_every_public_name_of_faststream_asgi_exists() -> None:
    assert set(OLD.__all__) <= set(NEW.__all__)


# --- differences: the old behaviour, then the new ---


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await NEW.AsgiResponse(f"{scope.get('root_path', '')} {scope['path']}".encode())(scope, receive, send)


def app_with(package: Any, *routes: tuple[str, Any], **keywords: Any) -> Any:
    return package.AsgiFastStream(NatsBroker(UNUSED), asgi_routes=routes, **keywords)


@pytest.mark.parametrize(("package", "status"), [(OLD, 404), (NEW, 200)], ids=["old", "new"])
async def test_routes_match_with_a_trailing_slash_and_below_a_root_path(package: Any, status: int) -> None:
    async def page(scope: Any) -> Any:
        return package.AsgiResponse(b"page")

    app = app_with(package, ("/page", package.get(page)))
    async with client(app) as http:
        assert (await http.get("/page")).status_code == 200
        assert (await http.get("/page/")).status_code == status
    transport = httpx.ASGITransport(app, root_path="/svc")
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert (await http.get("/svc/page")).status_code == status


@pytest.mark.parametrize(
    ("package", "exact", "below"),
    [(OLD, " /other", None), (NEW, "/other /other", "/other /other/below")],
    ids=["old", "new"],
)
async def test_other_apps_are_mounted(package: Any, exact: str, below: str | None) -> None:
    async with client(app_with(package, ("/other", hello))) as http:
        assert (await http.get("/other")).text == exact
        response = await http.get("/other/below")
    assert (response.text if response.status_code == 200 else None) == below


@pytest.mark.parametrize("routes", [[("/page", hello), ("/page", hello)], [("page", hello)]])
def test_duplicate_and_relative_routes_are_setup_errors(routes: list[tuple[str, Any]]) -> None:
    app_with(OLD, *routes)
    with pytest.raises(SetupError):
        app_with(NEW, *routes)


async def test_an_unknown_path_gets_a_plain_404() -> None:
    for package, text in ((OLD, "Application doesn't support regular HTTP protocol."), (NEW, "Not Found")):
        async with client(app_with(package)) as http:
            response = await http.get("/nowhere")
        assert (response.status_code, response.text) == (404, text)


async def test_the_list_of_routes_can_be_changed() -> None:
    for package in (OLD, NEW):
        app = app_with(package, ("/old", hello))
        app.routes.append(("/page", hello))
        app.mount("/mounted", hello)
        app.routes = [route for route in app.routes if route[0] != "/old"]
        async with client(app) as http:
            assert (await http.get("/page")).status_code == 200
            assert (await http.get("/mounted")).status_code == 200
            assert (await http.get("/old")).status_code == 404


def test_every_module_of_the_old_package_is_in_the_table_of_imports() -> None:
    found = pkgutil.walk_packages(faststream.asgi.__path__, "faststream.asgi.")
    page = (ROOT / "docs/migration.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(faststream\.asgi[a-z_.]*)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(["faststream.asgi", *(module.name for module in found)])


async def test_a_websocket_at_an_endpoint_is_closed() -> None:
    sent: list[dict[str, Any]] = []

    receive = asyncio.Queue[dict[str, Any]]().get

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/"}
    with pytest.raises(KeyError):
        await OLD.make_ping_asgi(NatsBroker(UNUSED))(scope, receive, send)
    await NEW.make_ping_asgi(NatsBroker(UNUSED))(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_post_handlers_do_not_accept_head() -> None:
    for package, status in ((OLD, 200), (NEW, 405)):
        calls = []

        async def page(scope: Any) -> Any:
            calls.append(scope["method"])  # noqa: B023 (called within this iteration)
            return NEW.AsgiResponse()

        async with client(app_with(package, ("/page", package.post(page)))) as http:
            response = await http.head("/page")
        assert response.status_code == status
        assert calls == (["HEAD"] if package is OLD else [])
    assert response.headers["allow"] == "POST"


def page_of(package: Any) -> Any:
    query = package.Query()

    async def page(name: Any = query) -> Any:
        return package.AsgiResponse(name[0].encode())

    return app_with(package, ("/page", package.get(page)))


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        # `parse_qs` rejects such bytes in old releases of Python.
        (OLD, {(500, "Internal Server Error"), (200, "Ã¼")}),
        (NEW, {(200, "ü")}),
    ],
    ids=["old", "new"],
)
async def test_query_parameters_are_decoded_as_utf_8(package: Any, expected: set[tuple[int, str]]) -> None:
    async with client(page_of(package)) as http:
        assert (await http.get("/page?name=name")).text == "name"
        response = await http.get("/page?name=%C3%BC")
    assert (response.status_code, response.text) in expected


async def test_a_handler_without_a_response_answers_500() -> None:
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
async def test_an_invalid_request_is_logged_without_a_traceback(
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


async def test_ping_of_an_unreachable_server_times_out() -> None:
    async with client(NEW.make_ping_asgi(NatsBroker(UNUSED))) as http:
        async with asyncio.timeout(5):
            assert (await http.get("/")).status_code == 500


async def test_ping_detects_a_frozen_server(nats: NatsServer) -> None:
    for package, status in ((OLD, 204), (NEW, 500)):
        broker = NatsBroker(nats.url)
        async with broker, client(package.make_ping_asgi(broker, timeout=0.3)) as http:
            await broker.start()
            assert (await http.get("/")).status_code == 204
            nats.freeze()
            assert (await http.get("/")).status_code == status
            nats.thaw()


async def test_ping_answers_without_a_body_and_the_other_probes_with_a_word(shared_nats: NatsServer) -> None:
    broker = NatsBroker(shared_nats.url)

    async def status_and_text(probe: Any) -> tuple[int, str]:
        async with client(probe) as http:
            response = await http.get("/")
            return response.status_code, response.text

    pings = [package.make_ping_asgi(broker, timeout=5.0) for package in (OLD, NEW)]
    ready = NEW.make_readiness_asgi(broker)
    assert [await status_and_text(ping) for ping in pings] == [(500, ""), (500, "")]
    assert await status_and_text(ready) == (503, "not_started")
    async with broker:
        await broker.start()
        assert [await status_and_text(ping) for ping in pings] == [(204, ""), (204, "")]
        for make in (NEW.make_readiness_asgi, NEW.make_liveness_asgi, NEW.make_startup_asgi):
            assert await status_and_text(make(broker)) == (200, "ok")


def test_ping_timeout_is_keyword_only() -> None:
    OLD.make_ping_asgi(NatsBroker(UNUSED), 5.0)
    with pytest.raises(SetupError):
        NEW.make_ping_asgi(NatsBroker(UNUSED), 5.0)


@pytest.mark.parametrize("keyword", ["try_it_out_path", "try_it_out_plugin_url"])
def test_try_it_out_keywords_are_setup_errors(keyword: str) -> None:
    for make in (NEW.make_asyncapi_asgi, lambda broker, **keywords: NEW.AsyncAPIRoute("/docs", **keywords)):
        with pytest.raises(SetupError, match=keyword):
            make(NatsBroker(UNUSED), **{keyword: "/docs/try"})


async def test_the_asyncapi_page_loads_nothing_from_other_origins() -> None:
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


async def test_the_asyncapi_document_contains_no_credentials() -> None:
    for package, secret in ((OLD, True), (NEW, False)):
        broker = NatsBroker(UNUSED, specification_url="nats://user:secret@nats.example.com:4222")
        async with client(package.AsgiFastStream(broker, asyncapi_path="/docs")) as http:
            assert ("secret" in (await http.get("/docs.json")).text) == secret


def test_asyncapi_description_is_keyword_only() -> None:
    with pytest.raises(SetupError):
        NEW.make_asyncapi_asgi(NatsBroker(UNUSED), "description")
    NEW.make_asyncapi_asgi(NatsBroker(UNUSED), description="description")
