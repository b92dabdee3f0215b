"""A driver from another package, on a real server: what the built-in drivers promise holds for it too."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from nats.errors import Error, NoServersError

from faststream_adapters import BrokerLifespan, BrokerStartError, make_liveness_asgi, make_readiness_asgi
from faststream_adapters._lifecycle.managed import managed_broker
from tests.harness.brokers import ALL_HARNESSES
from tests.harness.clients import client, eventually_status, status
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from faststream_adapters._compat.faststream import Broker
    from tests.harness.servers.nats import NatsServer

HARNESS = ALL_HARNESSES["acme"]


def service(url: str) -> tuple[Any, list[int]]:
    """Return a broker and the numbers that its subscriber has handled."""
    broker, handled = HARNESS.broker(url), list[int]()

    async def handle(number: int) -> None:
        handled.append(number)

    HARNESS.subscribe(broker, "numbers", handle)
    return broker, handled


async def code(broker: Broker) -> str:
    """Return the code in the details of readiness."""
    async with client(make_readiness_asgi(broker, details=True)) as http:
        entries: list[dict[str, str]] = (await http.get("/")).json()["checks"]["AcmeBroker"]
        return entries[0]["code"]


async def test_readiness_fails_without_the_server_and_recovers(nats: NatsServer) -> None:
    broker, handled = service(nats.url)
    driver = managed_broker(broker).driver
    assert driver.connection_id() is None
    async with BrokerLifespan(broker):
        ready = make_readiness_asgi(broker)
        assert await status(ready) == 200
        first = driver.connection_id()
        nats.kill()
        await eventually_status(ready, 503)
        assert await code(broker) == "unreachable"
        assert driver.is_reconnecting
        assert await status(make_liveness_asgi(broker)) == 200
        nats.start()
        await eventually_status(ready, 200)
        assert driver.connection_id() != first
        await broker.publish(1, "numbers")
        await eventually(lambda: handled == [1])


async def test_readiness_fails_when_the_client_is_closed(nats: NatsServer) -> None:
    broker, _ = service(nats.url)
    async with BrokerLifespan(broker, supervise=False):
        await broker.connection.close()
        assert await code(broker) == "closed"
        assert await status(make_liveness_asgi(broker)) == 503


async def test_a_stop_ends_in_time_while_the_server_is_frozen(nats: NatsServer) -> None:
    broker, _ = service(nats.url)
    async with asyncio.timeout(15.0):
        async with BrokerLifespan(broker, shutdown_timeout=0.5):
            used = broker.connection
            nats.freeze()
    assert used.is_closed


async def test_a_broker_that_has_not_connected_fails_its_check_and_can_be_aborted() -> None:
    driver = managed_broker(HARNESS.broker("nats://127.0.0.1:1")).driver
    assert await driver.check() == "error"
    await driver.abort()


async def test_a_start_fails_if_the_connected_server_does_not_reply(shared_nats: NatsServer) -> None:
    class SilentBroker(type(HARNESS.broker(shared_nats.url))):  # type: ignore[misc]  # a class made at run time
        async def ping(self, timeout: float | None) -> bool:  # noqa: ASYNC109 (FastStream's signature)
            return False

    with pytest.raises(BrokerStartError, match="did not reply"):
        await BrokerLifespan(SilentBroker(shared_nats.url)).enter()


async def test_a_start_with_an_invalid_url_says_so() -> None:
    with pytest.raises(BrokerStartError, match="invalid connect url option"):
        await BrokerLifespan(HARNESS.broker("nats://127.0.0.1:port")).enter()


def test_errors_are_classified_by_code() -> None:
    driver = managed_broker(HARNESS.broker("nats://127.0.0.1:1")).driver
    assert driver.classify(NoServersError()) == "unreachable"
    assert driver.classify(Error("nats: 'Authorization Violation'")) == "auth_failed"
    assert driver.classify(TimeoutError()) == "timeout"


async def test_a_closed_client_is_replaced_and_the_subscriber_consumes(
    nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    broker, handled = service(nats.url)
    async with BrokerLifespan(broker):
        ready = make_readiness_asgi(broker)
        await broker.connection.close()
        await eventually(lambda: "Restarting " in caplog.text)
        await eventually_status(ready, 200)
        await broker.publish(1, "numbers")
        await eventually(lambda: handled == [1])
