"""`publish_path` in each host: authorization, publishing, and its absence from the management server."""

from __future__ import annotations

import asyncio
import re
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.harness.brokers.shared import shared_server
from tests.harness.hosts import TOKEN, serving
from tests.harness.management import fetch
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from faststream.asgi.types import ASGIApp

    from faststream_adapters import Request
    from tests.harness.brokers import BrokerHarness
    from tests.harness.hosts import Host, Served
    from tests.harness.servers.nats import NatsServer

KEY = {"x-key": "secret"}


def has_key(request: Request) -> bool:
    return request.headers.get("x-key") == KEY["x-key"]


def _client(served: Served, **headers: str) -> httpx.AsyncClient:
    """Return a client that keeps the cookies of a browser, unlike the one of other tests."""
    transport = httpx.ASGITransport(served.app)
    return httpx.AsyncClient(transport=transport, base_url="http://test", headers={**TOKEN, **headers})


class Numbers:
    """A broker that consumes numbers, in a host."""

    def __init__(self, harness: BrokerHarness, host: Host, **keywords: Any) -> None:
        broker = harness.broker(shared_server(harness).url)
        self.channel = f"numbers-{uuid.uuid4().hex}"
        self.handled: list[int] = []

        async def handle(number: int) -> None:
            self.handled.append(number)

        harness.subscribe(broker, self.channel, handle)
        self.app: ASGIApp = host.build(broker, publish_path="/publish", authorize=has_key, **keywords)


async def test_a_message_is_published_to_the_subscriber(harness: BrokerHarness, host: Host) -> None:
    numbers = Numbers(harness, host)
    async with serving(numbers.app) as served, _client(served, **KEY) as http:
        body = {"channel": numbers.channel, "message": 7}
        if harness.name == "acme":
            response = await http.post("/publish", json=body)
            assert response.status_code == 422
            assert "does not support publishing" in response.text
            return
        for wrong in ({**body, "message": "x"}, {"channel": numbers.channel}):
            assert (await http.post("/publish", json=wrong)).status_code == 422
        checked = await http.post("/publish", json={**body, "message": 9, "validate_only": True})
        assert (checked.status_code, checked.json()["published"]) == (200, False)
        async with asyncio.timeout(60.0):
            # A Kafka consumer starts at the end of the log, and may not know it at the first publish.
            while not numbers.handled:
                published = await http.post("/publish", json=body)
                assert (published.status_code, published.json()["published"]) == (200, True)
                with suppress(TimeoutError):
                    await eventually(lambda: bool(numbers.handled), 2.0)
    assert set(numbers.handled) == {7}


@pytest.mark.slow_start
async def test_each_status_is_that_of_the_endpoint(host: Host, shared_nats: NatsServer) -> None:
    app = _nats_app(host, shared_nats)
    async with serving(app) as served, _client(served) as http:
        for method in ("GET", "HEAD", "POST"):
            assert (await http.request(method, "/publish")).status_code == 403
        http.headers.update(KEY)
        assert (await http.head("/publish")).status_code == 200
        assert (await http.put("/publish")).status_code == 405
        json = {"content-type": "application/json"}
        large = await http.post("/publish", content=b" " * (2**20 + 1), headers=json)
        assert large.status_code == 413
        chunked = await http.post("/publish", content=_chunks(b" " * 2**16, 17), headers=json)
        assert chunked.status_code == 413
        assert (await http.post("/publish", content=b"{}", headers=json)).status_code == 422
        assert (await http.post("/publish", content=b"{", headers=json)).status_code == 400
        assert (await http.post("/publish", content=b"x")).status_code == 415
        unknown = await http.post("/publish", json={"channel": "nowhere", "message": 1})
        assert unknown.status_code == 404
        foreign = {"origin": "http://evil.example"}
        body = {"channel": "numbers:Publisher", "message": 1}
        assert (await http.post("/publish", json=body, headers=foreign)).status_code == 403
        foreign = {"sec-fetch-site": "cross-site"}
        assert (await http.post("/publish", json=body, headers=foreign)).status_code == 403
        own = {"origin": "http://test", "sec-fetch-site": "same-origin"}
        assert (await http.post("/publish", json=body, headers=own)).status_code == 200
    async with _stopped_client(app) as http:
        down = await http.post("/publish", json=body)
        assert (down.status_code, down.headers["retry-after"]) == (503, "1")


@pytest.mark.slow_start
async def test_a_form_is_sent_by_its_page_only(host: Host, shared_nats: NatsServer) -> None:
    app = _nats_app(host, shared_nats)
    async with serving(app) as served, _client(served, **KEY) as http:
        page = await http.get("/publish")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "form-action 'self'" in page.headers["content-security-policy"]
        [token] = set(re.findall('name="token" value="([^"]+)"', page.text))
        form = {"token": token, "channel": "numbers:Publisher", "message": "1", "headers": "x-a: 1"}
        published = await http.post("/publish", data=form)
        assert (published.status_code, "Published." in published.text) == (200, True)
        for forged in ({**form, "token": "0"}, {**form, "token": ""}):
            assert (await http.post("/publish", data=forged)).status_code == 403
        http.cookies.clear()
        assert (await http.post("/publish", data=form)).status_code == 403


@pytest.mark.slow_start
async def test_the_management_server_never_publishes(
    host: Host, shared_nats: NatsServer, free_address: str
) -> None:
    app = _nats_app(host, shared_nats, management_bind=free_address, readiness_path="/ready")
    async with serving(app) as served, _client(served, **KEY) as http:
        ready = await fetch(free_address, "/ready")
        assert ready is not None
        assert ready.status_code == 200
        for method in ("GET", "POST"):
            missing = await fetch(free_address, "/publish", method)
            assert missing is not None
            assert missing.status_code == 404
        assert (await http.get("/publish")).status_code == 200
        body = {"channel": "numbers:Publisher", "message": 1}
        assert (await http.post("/publish", json=body)).status_code == 200


@pytest.mark.slow_start
@pytest.mark.needs("guards")
async def test_the_guards_of_the_host_apply_in_addition(host: Host, shared_nats: NatsServer) -> None:
    app = _nats_app(host, shared_nats, guarded=True)
    body = {"channel": "numbers:Publisher", "message": 1}
    async with serving(app) as served, _client(served) as http:
        assert (await http.post("/publish", json=body)).status_code == 403
        assert (await http.post("/publish", json=body, headers=KEY)).status_code == 200
        http.headers.pop("x-token")
        assert (await http.post("/publish", json=body, headers=KEY)).status_code in {401, 403}


def _nats_app(host: Host, server: NatsServer, **keywords: Any) -> ASGIApp:
    from faststream.nats import NatsBroker

    broker = NatsBroker(server.url)
    broker.publisher("numbers", schema=int)
    return host.build(broker, publish_path="/publish", authorize=has_key, **keywords)


def _stopped_client(app: ASGIApp) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://test", headers={**TOKEN, **KEY})


async def _chunks(chunk: bytes, count: int) -> Any:
    for _ in range(count):
        yield chunk
