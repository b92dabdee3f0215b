"""docs/publishing.md: its applications authorize as described, and publish to a real server."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.docs.blocks import ROOT, at_nats, code_blocks, curl, load, python_blocks, served

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.servers.nats import NatsServer

BLOCKS = python_blocks("docs/publishing.md")
KEY = "Publish messages over HTTP 1"
HOSTS = {"fastapi": "FastAPI 1", "litestar": "Litestar 1", "quart": "Quart 1"}


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {KEY, *HOSTS.values()}


def test_every_status_is_explained() -> None:
    text = (ROOT / "docs" / "publishing.md").read_text(encoding="utf-8")
    explained = {int(status) for status in re.findall(r"^\| (\d{3}) \|", text, re.MULTILINE)}
    assert explained == {200, 400, 403, 404, 405, 413, 415, 422, 502, 503, 504}


async def test_a_program_with_the_key_publishes(
    shared_nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPERATOR_KEY", "secret")
    app = load(at_nats(BLOCKS[KEY].code, shared_nats.url), tmp_path).app
    [console] = code_blocks("docs/publishing.md", "console").values()
    *lines, shown = console.code.splitlines()
    command = "\n".join(lines).removeprefix("$ ")
    body = {"channel": "orders", "message": {"id": 7, "quantity": 2}}
    async with served(app) as client:
        for headers in ({}, {"X-Operator-Key": "wrong"}):
            assert (await client.post("/publish", json=body, headers=headers)).status_code == 403
        response, _ = await curl(client, command.replace("$OPERATOR_KEY", "secret"))
    result = response.json()
    assert result.pop("correlation_id")
    assert {**result, "correlation_id": "…"} == json.loads(shown)


def _log_in_to_fastapi(app: Any) -> None:
    from starlette.requests import Request
    from starlette.responses import Response

    async def log_in(request: Request) -> Response:
        request.session["role"] = request.path_params["role"]
        return Response()

    app.add_route("/login/{role}", log_in)


def _log_in_to_litestar(app: Any) -> None:
    from litestar import Request, get

    @get("/login/{role:str}")
    async def log_in(request: Request[Any, Any, Any]) -> None:
        request.session["role"] = request.path_params["role"]

    app.register(log_in)


def _log_in_to_quart(app: Any) -> None:
    from quart import session

    async def log_in(role: str) -> str:
        session["role"] = role
        return ""

    app.add_url_rule("/login/<role>", view_func=log_in)


LOG_IN = {"fastapi": _log_in_to_fastapi, "litestar": _log_in_to_litestar, "quart": _log_in_to_quart}


@pytest.mark.parametrize("host", HOSTS)
async def test_a_user_with_the_role_opens_the_page_and_publishes(
    host: str, shared_nats: NatsServer, tmp_path: Path
) -> None:
    app = load(at_nats(BLOCKS[HOSTS[host]].code, shared_nats.url), tmp_path).app
    LOG_IN[host](app)
    async with served(app) as client:
        assert (await client.get("/publish")).status_code == 403
        await client.get("/login/guest")
        assert (await client.get("/publish")).status_code == 403
        await client.get("/login/operator")
        page = await client.get("/publish")
        assert page.status_code == 200
        [token] = set(re.findall('name="token" value="([^"]+)"', page.text))
        form = {"token": token, "channel": "orders:Publisher", "message": "7", "headers": ""}
        sent = await client.post("/publish", data=form)
        assert (sent.status_code, "Published." in sent.text) == (200, True)
        assert (await client.post("/publish", data={**form, "token": "forged"})).status_code == 403
