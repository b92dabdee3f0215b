"""Each kind of broker, in every host."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from faststream_adapters import make_metrics_asgi, make_readiness_asgi
from tests.harness.brokers.shared import shared_server
from tests.harness.clients import client
from tests.harness.hosts import HostApp, serving
from tests.harness.scrapes import scrape
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from tests.harness.brokers import BrokerHarness
    from tests.harness.hosts import Host


async def test_a_message_that_a_request_publishes_is_handled(harness: BrokerHarness, host: Host) -> None:
    """The probes succeed, the details list broker and subscriber, and the broker is stopped at the end."""
    broker = harness.broker(shared_server(harness).url)
    channel = f"numbers-{uuid.uuid4().hex}"
    handled: list[int] = []

    async def handle(number: int) -> None:
        handled.append(number)

    async def publish() -> str:
        await harness.publish(broker, 7, channel)
        return "published"

    harness.subscribe(broker, channel, handle)
    app = host.build(
        broker,
        host_app=HostApp(hello=publish),
        readiness_path="/ready",
        liveness_path="/live",
        status_path="/status",
    )
    async with serving(app) as served:
        assert await served.status("/ready") == 200
        assert await served.status("/live") == 200
        async with asyncio.timeout(60.0):
            # A Kafka consumer starts at the end of the log, and may not know it at the first publish.
            while not handled:
                assert await served.text("/hello") == "published"
                with suppress(TimeoutError):
                    await eventually(lambda: bool(handled), 2.0)
        assert set(handled) == {7}
        async with client(make_readiness_asgi(broker, details=True)) as http:
            health = (await http.get("/")).json()
        assert (health["status"], health["code"], health["state"]) == ("pass", "ok", ["running"])
        [(name, checks)] = health["checks"].items()
        assert name == type(broker).__name__
        assert [check["code"] for check in checks] == ["ok", "ok"]
        assert [check["componentId"] for check in checks] == [f"{name} 1", "handle"]
        metrics = await scrape(make_metrics_asgi(CollectorRegistry(), targets=[broker]))
        assert metrics("faststream_adapters_ready") == 1
        assert metrics("faststream_adapters_subscriber_up", broker=f"{name} 1", subscriber="handle") == 1
        status = (await served.http.get("/status.json")).json()
        assert (status["status"], status["code"], status["state"]) == ("pass", "ok", ["running"])
        assert [(each["name"], each["code"]) for each in status["brokers"]] == [(f"{name} 1", "ok")]
        [subscriber] = status["subscribers"]
        assert (subscriber["name"], subscriber["code"]) == ("handle", "ok")
        assert channel in subscriber["destination"]
        assert subscriber["received"] >= 1
        assert "1 in all, 1 consume" in await served.text("/status")
    assert not broker.running
