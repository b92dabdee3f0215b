"""The status of brokers that are lost, refuse, or have messages waiting."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from faststream.nats import JStream, NatsBroker, PullSub

from faststream_adapters import BrokerLifespan, make_status_asgi
from faststream_adapters._lifecycle import health_observer, supervisor
from tests.faults.test_subscribers import consumer, jetstream
from tests.harness.asgi_calls import http_scope, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from faststream.asgi.types import ASGIApp

    from tests.harness.servers.nats import NatsFactory, NatsServer


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervisor, "SUBSCRIBERS_INTERVAL", 0.1)
    monkeypatch.setattr(health_observer, "HISTORY_INTERVAL", 0.05)


class Status:
    """The document and the page of one moment."""

    def __init__(self, document: Any, page: str) -> None:
        self.document = document
        self.page = page

    @property
    def code(self) -> str:
        return str(self.document["code"])

    @property
    def changes(self) -> list[tuple[str, str]]:
        """The changes of the broker, the first one first."""
        changes = [each for each in self.document["changes"] if each["kind"] == "broker"]
        return [(each["old"], each["new"]) for each in reversed(changes)]


async def status_until(app: ASGIApp, condition: Callable[[Status], bool]) -> Status:
    """Request the status until it meets the condition, and return it."""
    async with asyncio.timeout(30):
        while True:
            document = json.loads((await request(app, http_scope(query="format=json"))).body)
            page = (await request(app, http_scope())).body.decode()
            if condition(status := Status(document, page)):
                return status
            await asyncio.sleep(0.02)


@pytest.mark.full
async def test_a_server_that_is_frozen_and_thawed_is_in_the_last_changes(nats_js: NatsServer) -> None:
    lifespan = BrokerLifespan(NatsBroker(nats_js.url))
    app = make_status_asgi(lifespan)
    async with lifespan:
        up = await status_until(app, lambda status: status.document["brokers"][0]["last_reply"] is not None)
        assert up.document["brokers"][0]["round_trip_ms"] > 0
        nats_js.freeze()
        frozen = await status_until(app, lambda status: status.code == "timeout" and len(status.changes) == 2)
        [broker] = frozen.document["brokers"]
        assert (broker["status"], broker["round_trip_ms"]) == ("fail", None)
        assert broker["last_reply"] >= up.document["brokers"][0]["last_reply"]
        assert "is not available: it did not reply in time." in frozen.page
        nats_js.thaw()
        thawed = await status_until(app, lambda status: status.code == "ok" and len(status.changes) == 3)
        assert thawed.changes == [("not_started", "ok"), ("ok", "timeout"), ("timeout", "ok")]
        assert "What is wrong" not in thawed.page


async def test_rejected_credentials_are_reported_without_them(nats_factory: NatsFactory) -> None:
    server = nats_factory(user="ann", password="right-password-1")
    broker = NatsBroker(server.url.replace("right-password-1", "wrong-password-2"))
    lifespan = BrokerLifespan(broker, startup="background")
    app = make_status_asgi(lifespan)
    async with lifespan:
        status = await status_until(
            app, lambda status: status.document["brokers"][0]["code"] == "auth_failed"
        )
    assert status.document["state"] == ["starting"]
    assert "the credentials were rejected. Check the user" in status.page
    assert server.safe_url in status.page
    assert "wrong-password" not in status.page + json.dumps(status.document)


async def test_a_server_that_a_client_cannot_reach_is_reported_while_it_keeps_trying() -> None:
    lifespan = BrokerLifespan(NatsBroker("nats://127.0.0.1:1"), startup="background")
    app = make_status_asgi(lifespan)
    async with lifespan:
        status = await status_until(app, lambda status: status.changes == [("not_started", "unreachable")])
    assert status.document["state"] == ["starting"]
    assert "the connection was refused. Check that the server runs" in status.page


async def test_a_start_that_fails_in_the_background_has_a_status() -> None:
    broker = NatsBroker("nats://127.0.0.1:1", connect_timeout=1, allow_reconnect=False)
    lifespan = BrokerLifespan(broker, startup="background", startup_timeout=0.2)
    app = make_status_asgi(lifespan)
    async with lifespan:
        status = await status_until(app, lambda status: status.document["state"] == ["failed"])
    assert status.code == "failed"
    assert "The start failed, and nothing is consumed." in status.page


async def test_messages_that_wait_on_the_server_are_counted(nats_js: NatsServer) -> None:
    free = asyncio.Event()
    broker = NatsBroker(nats_js.url)

    @broker.subscriber("jobs", stream=JStream("jobs"), durable="worker", pull_sub=PullSub(batch_size=1))
    async def handle(message: str) -> None:
        await free.wait()

    lifespan = BrokerLifespan(broker)
    app = make_status_asgi(lifespan)
    async with lifespan:
        for _ in range(7):
            await broker.publish("work", "jobs")
        status = await status_until(app, lambda status: bool(status.document["subscribers"][0]["backlog"]))
        [subscriber] = status.document["subscribers"]
        assert (subscriber["group"], subscriber["backlog_shared"]) == ("worker", True)
        assert (subscriber["in_flight"], subscriber["received"]) == (1, 1)
        assert subscriber["oldest_seconds"] > 0
        free.set()
        await status_until(app, lambda status: status.document["subscribers"][0]["received"] == 7)


@pytest.mark.full
async def test_a_consumer_that_is_paused_on_the_server_is_explained(nats_js: NatsServer) -> None:
    broker, _ = consumer(nats_js.url, "pull")
    lifespan = BrokerLifespan(broker)
    app = make_status_asgi(lifespan)
    async with lifespan:
        await jetstream(broker).pause_consumer("jobs", "worker", "2999-01-01T00:00:00Z")
        status = await status_until(app, lambda status: status.code == "consumer_paused")
    assert "does not consume: its consumer is paused on the server. Resume it on the server." in status.page
    assert status.document["subscribers"][0]["status"] == "fail"
