"""docs/health.md: each recipe, with a real server that is lost and comes back."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from faststream_adapters import HealthCheck
from faststream_adapters._lifecycle.health_hook import CALL_TIMEOUT, END_TIMEOUT
from faststream_adapters._lifecycle.supervisor import CHECK_INTERVAL, SUBSCRIBERS_INTERVAL
from tests.docs.blocks import ROOT, at_nats, load, python_blocks, served, wait_until
from tests.harness import waiting
from tests.harness.servers import HOST
from tests.harness.servers.postgres import PostgresServer
from tests.harness.servers.redis import RedisServer

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from tests.harness.servers.nats import NatsServer

PAGE = "docs/health.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
BLOCKS = python_blocks(PAGE)
DATABASE, REDIS, UPSTREAM = "A database 1", "Redis 1", "An upstream HTTP API 1"
CHANGES = "Changes of the health 1"


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {DATABASE, REDIS, UPSTREAM, CHANGES}


def test_the_defaults_of_the_page_match() -> None:
    check = HealthCheck("database", print)
    assert f"| `timeout` | {check.timeout} |" in TEXT
    assert f"| `ttl` | {check.ttl} |" in TEXT


def app_of(name: str, nats_url: str, directory: Path, old: str, new: str) -> Any:
    code = at_nats(BLOCKS[name].code, nats_url)
    assert code.count(old) == 1
    return load(code.replace(old, new), directory).app


async def eventually(client: httpx.AsyncClient, status: int, text: str) -> None:
    async def matches() -> bool:
        response = await client.get("/readyz")
        return (response.status_code, response.text) == (status, text)

    await wait_until(matches)


@pytest.mark.full
async def test_a_database_that_is_lost_fails_readiness(shared_nats: NatsServer, tmp_path: Path) -> None:
    with PostgresServer() as postgres:
        app = app_of(DATABASE, shared_nats.url, tmp_path, "app@127.0.0.1:5432/shop", postgres.url)
        async with served(app) as client:
            await eventually(client, 200, "ok")
            postgres.stop()
            await eventually(client, 503, "check_failed")
            postgres.start()
            await eventually(client, 200, "ok")


async def test_a_cache_that_is_frozen_or_lost_fails_readiness(
    shared_nats: NatsServer, tmp_path: Path
) -> None:
    with RedisServer() as redis:
        app = app_of(REDIS, shared_nats.url, tmp_path, "redis://127.0.0.1:6379", redis.url)
        async with served(app) as client:
            await eventually(client, 200, "ok")
            redis.freeze()
            await eventually(client, 503, "check_failed")
            redis.thaw()
            await eventually(client, 200, "ok")
            redis.kill()
            await eventually(client, 503, "check_failed")
            redis.restart()
            await eventually(client, 200, "ok")


class Payments(BaseHTTPRequestHandler):
    """Responds with the status that the server has."""

    def do_GET(self) -> None:
        self.send_response(vars(self.server)["status"])
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


async def test_an_optional_upstream_that_fails_is_a_warning(shared_nats: NatsServer, tmp_path: Path) -> None:
    with HTTPServer((HOST, 0), Payments) as server:
        vars(server)["status"] = 200
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            code = BLOCKS[UPSTREAM].code.replace(", ttl=10.0", "")
            assert code != BLOCKS[UPSTREAM].code
            code = at_nats(code, shared_nats.url)
            app = load(code.replace("127.0.0.1:9000", f"{HOST}:{server.server_port}"), tmp_path).app
            async with served(app) as client:
                for status, expected in [(200, "pass"), (503, "warn"), (200, "pass")]:
                    vars(server)["status"] = status
                    await eventually_reported(client, expected)
        finally:
            server.shutdown()
            thread.join()


async def eventually_reported(client: httpx.AsyncClient, expected: str) -> None:
    """Wait until the check has this status, and readiness too, which succeeds."""

    async def matches() -> bool:
        response = await client.get("/readyz")
        (check,) = response.json()["checks"]["HealthCheck"]
        assert response.status_code == 200
        return bool(check["status"] == response.json()["status"] == expected)

    await wait_until(matches)


class Alerts(BaseHTTPRequestHandler):
    """Keeps the texts that are posted."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        vars(self.server)["texts"].append(body["text"])
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.mark.full
async def test_a_broker_that_is_lost_and_back_is_two_alerts(nats: NatsServer, tmp_path: Path) -> None:
    with HTTPServer((HOST, 0), Alerts) as server:
        texts = vars(server)["texts"] = []
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            code = at_nats(BLOCKS[CHANGES].code, nats.url)
            app = load(code.replace("127.0.0.1:9000", f"{HOST}:{server.server_port}"), tmp_path).app
            async with served(app) as client:
                await eventually(client, 200, "ok")
                nats.freeze()
                await waiting.eventually(lambda: len(texts) == 1)
                nats.thaw()
                await waiting.eventually(lambda: len(texts) == 2)
        finally:
            server.shutdown()
            thread.join()
    assert texts == ["broker NatsBroker 1: ok -> timeout", "broker NatsBroker 1: timeout -> ok"]


def test_the_numbers_of_the_page_match() -> None:
    assert (CALL_TIMEOUT, END_TIMEOUT, CHECK_INTERVAL, SUBSCRIBERS_INTERVAL) == (5.0, 0.5, 1.0, 5.0)
    text = " ".join(TEXT.split())
    assert "takes longer than 5 seconds" in text
    assert "at most half a second" in text
    assert "once a second, and asks the server about its consumers every 5 seconds" in text
