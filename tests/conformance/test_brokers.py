"""Each kind of broker, in every host."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

from faststream_adapters import make_readiness_asgi
from tests.hosts import Own, serving
from tests.kits.shared import shared_server
from tests.support import client, eventually

if TYPE_CHECKING:
    from tests.hosts import Host
    from tests.kits import Kit


async def test_a_request_publishes_and_the_message_is_handled(kit: Kit, host: Host) -> None:
    """It is ready while it serves, says so of each of its parts, and leaves nothing running."""
    broker = kit.broker(shared_server(kit).url)
    channel = f"numbers-{uuid.uuid4().hex}"
    handled: list[int] = []

    async def handle(number: int) -> None:
        handled.append(number)

    async def publish() -> str:
        await kit.publish(broker, 7, channel)
        return "published"

    kit.subscribe(broker, channel, handle)
    app = host.build(broker, own=Own(hello=publish), readiness_path="/ready", liveness_path="/live")
    async with serving(app) as served:
        assert await served.status("/ready") == 204
        assert await served.status("/live") == 204
        async with asyncio.timeout(60.0):
            # One that reads a log from its end, as with Kafka, may not have found the end at the first try.
            while not handled:
                assert await served.text("/hello") == "published"
                with suppress(TimeoutError):
                    await eventually(lambda: bool(handled), 2.0)
        assert set(handled) == {7}
        async with client(make_readiness_asgi(broker, details=True)) as http:
            health = (await http.get("/")).json()
        assert (health["status"], health["code"], health["state"]) == ("pass", "ok", ["running"])
        [(name, parts)] = health["checks"].items()
        assert name == type(broker).__name__
        assert [part["code"] for part in parts] == ["ok", "ok"]
        assert [part["componentId"] for part in parts] == [f"{name} 1", "Handle"]
    assert not broker.running
