"""The details of a probe and its status agree, whatever fails."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from faststream.nats import JStream, NatsBroker
from faststream.redis import RedisBroker

from faststream_adapters import (
    BrokerLifespan,
    make_liveness_asgi,
    make_ping_asgi,
    make_readiness_asgi,
    make_startup_asgi,
)
from faststream_adapters._lifecycle import supervisor
from tests.harness.clients import client
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    import httpx

    from tests.harness.servers.nats import NatsServer

OF_LIFESPANS = {"starting", "draining", "failed", "not_started", "no_brokers", "handler_stuck"}
"""Codes that no broker and no subscriber needs to have."""

MAKERS = {
    "ping": make_ping_asgi,
    "liveness": make_liveness_asgi,
    "readiness": make_readiness_asgi,
    "startup": make_startup_asgi,
}


@pytest.fixture(autouse=True)
def fast_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervisor, "SUBSCRIBERS_INTERVAL", 0.05)


def check_agreement(probe: str, response: httpx.Response) -> None:
    body = response.json()
    entries = [entry for entries in body["checks"].values() for entry in entries]
    failed = {entry["code"] for entry in entries if entry.get("status") == "fail"}
    succeeds = response.status_code == 200
    assert succeeds == (body["code"] == "ok"), body
    assert succeeds == (body["status"] != "fail"), body
    if succeeds:
        assert not failed, body
        warns = any(entry.get("status") == "warn" for entry in entries)
        assert (body["status"] == "warn") == warns, body
    elif body["code"] not in OF_LIFESPANS and probe in {"ping", "readiness"}:
        assert body["code"] in failed, body


class Service:
    """A lifespan with three brokers, the details of all its probes, and the last bodies by probe."""

    def __init__(self, url: str, **keywords: Any) -> None:
        self.broker = NatsBroker(url, reconnect_time_wait=0, max_reconnect_attempts=-1, logger=None)
        self.second = NatsBroker(url, reconnect_time_wait=0, max_reconnect_attempts=-1, logger=None)
        self.optional = RedisBroker("redis://127.0.0.1:1")
        self.subscriber: Any = self.broker.subscriber("jobs", stream=JStream("jobs"), queue="worker")
        self.other: Any = self.second.subscriber("others", max_workers=2)
        for subscriber in (self.subscriber, self.other, self.optional.subscriber("lost")):
            subscriber(print)
        self.lifespan = BrokerLifespan(
            self.broker, self.second, self.optional, optional=[self.optional], **keywords
        )
        self.bodies: dict[str, Any] = {}

    async def until(self, probe: str, code: str) -> None:
        """Request all probes again and again, and check each response, until a probe has this code."""
        async with AsyncExitStack() as stack:
            clients = {
                name: await stack.enter_async_context(
                    client(make(self.lifespan, details=True, ok_status=200))
                )
                for name, make in MAKERS.items()
            }
            self.bodies.clear()
            reached = False
            async with asyncio.timeout(20):
                # All probes are requested once more afterwards.
                while not reached:
                    reached = self.bodies.get(probe, {}).get("code") == code
                    for name, http in clients.items():
                        response = await http.get("/")
                        check_agreement(name, response)
                        self.bodies[name] = response.json()
                    await asyncio.sleep(0.01)

    def subscriber_codes(self, probe: str) -> dict[str, list[tuple[str, str]]]:
        """Return the statuses and codes of the subscribers of each class of broker."""
        return {
            kind: [
                (entry["status"], entry["code"])
                for entry in entries
                if entry["componentType"] == "subscriber"
            ]
            for kind, entries in self.bodies[probe]["checks"].items()
        }


@pytest.mark.parametrize("supervise", [True, False])
async def test_details_agree_with_the_status_while_parts_fail(nats_js: NatsServer, supervise: bool) -> None:
    service = Service(nats_js.url, supervise=supervise)
    await service.until("readiness", "not_started")
    async with service.lifespan:
        await service.until("readiness", "ok")
        assert service.bodies["readiness"]["status"] == "warn"
        # A consumer of the server.
        jetstream = service.broker.connection.jetstream()
        await jetstream.delete_consumer("jobs", "worker")
        await jetstream.purge_stream("jobs")
        if not supervise:
            await service.until("readiness", "consumer_missing")
            assert ("warn", "consumer_missing") in service.subscriber_codes("startup")["NatsBroker"]
            assert ("warn", "consumer_missing") in service.subscriber_codes("ping")["NatsBroker"]
            # Intended now.
            await service.subscriber.stop()
        await service.until("readiness", "ok")
        # A task.
        for task in service.other.tasks:
            task.cancel()
        if not supervise:
            await service.until("readiness", "task_failed")
            await service.until("liveness", "task_failed")
            await service.other.stop()
        await service.until("liveness", "ok")
        await service.until("readiness", "ok")
        # The server.
        nats_js.kill()
        await service.until("ping", "unreachable")
        await service.until("readiness", "unreachable")
        nats_js.restart()
        await service.until("readiness", "ok")
        # A client, which supervision replaces, possibly before the next request.
        await service.second.connection.close()
        await service.until("readiness", "ok" if supervise else "closed")
        leaving = asyncio.create_task(service.lifespan.leave())
        await service.until("readiness", "not_started")
        await leaving


async def test_intended_stops_are_no_faults(nats_js: NatsServer) -> None:
    service = Service(nats_js.url)
    async with service.lifespan:
        await service.until("readiness", "ok")
        assert sorted(service.subscriber_codes("readiness")["NatsBroker"]) == [("pass", "ok"), ("pass", "ok")]
        await service.other.stop()
        for probe in MAKERS:
            await service.until(probe, "ok" if probe != "ping" else "unreachable")
            assert service.subscriber_codes(probe)["NatsBroker"] == [("pass", "ok"), ("pass", "stopped")]
        await service.other.start()
        await service.until("readiness", "ok")
        assert service.subscriber_codes("readiness")["NatsBroker"] == [("pass", "ok"), ("pass", "ok")]


async def test_subscribers_that_are_not_consumed_are_stopped(nats_js: NatsServer) -> None:
    service = Service(nats_js.url, consume=False)
    async with service.lifespan:
        await service.until("readiness", "ok")
        assert service.subscriber_codes("readiness") == {
            "NatsBroker": [("pass", "stopped"), ("pass", "stopped")],
            "RedisBroker": [("pass", "stopped")],
        }
        # The application may start one of them.
        await service.other.start()
        await eventually(lambda: bool(service.other.running))
        await service.until("readiness", "ok")
        assert service.subscriber_codes("readiness")["NatsBroker"] == [("pass", "stopped"), ("pass", "ok")]


async def test_an_app_without_brokers_is_not_ready_until_one_is_added(nats: NatsServer) -> None:
    from faststream import FastStream

    app = FastStream()
    ready = make_readiness_asgi(app, details=True)
    broker = NatsBroker(nats.url)
    async with client(ready) as http:
        assert (await http.get("/")).json()["code"] == "no_brokers"
        app.add_broker(broker)
        async with broker:
            response = await http.get("/")
        assert (response.status_code, response.json()["code"]) == (200, "ok")
