"""Managed brokers on real NATS servers: ownership, retries, and startup and shutdown errors."""

import asyncio
import itertools
import logging
from traceback import format_exception
from typing import Any

import pytest
from faststream.exceptions import IncorrectState
from faststream.nats import NatsBroker

from faststream_adapters import BrokerLifespan
from faststream_adapters._lifecycle import managed
from faststream_adapters._lifecycle.managed import Settings, managed_broker
from faststream_adapters._utils.errors import BrokerStartError
from tests.harness.servers.nats import NatsServer
from tests.harness.waiting import eventually

SETTINGS = Settings(retry=False, consume=True, supervise=False, optional=False)


async def test_drain_and_close_do_nothing_without_ownership(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    managed_nats = managed_broker(broker)
    owner, another = BrokerLifespan(broker), BrokerLifespan(broker)
    may_consume = asyncio.Event()
    managed_nats.acquire(owner, SETTINGS, may_consume)
    await managed_nats.wait_declared()
    may_consume.set()
    await managed_nats.wait_up()
    await managed_nats.drain(another, 0.0)
    await managed_nats.close(another, 0.0)
    assert broker.connection.is_connected
    await managed_nats.drain(owner, 0.0)
    await managed_nats.close(owner, 0.0)
    with pytest.raises(IncorrectState):
        _ = broker.connection


async def test_an_error_in_stop_is_logged_and_does_not_fail_shutdown(
    nats: NatsServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(NatsBroker):
        async def stop(self, *args: Any, **kwargs: Any) -> None:
            await super().stop(*args, **kwargs)
            raise KeyError("nats://user:secret@host")

    broker = Broken(nats.url)
    with caplog.at_level(logging.DEBUG, "faststream.adapters"):
        async with BrokerLifespan(broker):
            pass
    assert f"NatsBroker {nats.url} did not stop cleanly: KeyError." in caplog.text.replace(
        "Broken", "NatsBroker"
    )
    assert "secret" not in caplog.text


async def test_a_failed_start_is_retried(
    nats: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(managed, "backoff", lambda: itertools.repeat(0.001))
    failures = 3

    class Broken(NatsBroker):
        async def start(self) -> None:
            nonlocal failures
            if failures:
                failures -= 1
                raise KeyError("nats://user:secret@host")
            await super().start()

    lifespan = BrokerLifespan(Broken(nats.url), startup="background")
    async with lifespan:
        await eventually(lambda: lifespan.state == "running")
    assert failures == 0
    assert "is not up: KeyError: 'nats://***@host'. Next attempt in 0.0 s." in caplog.text
    assert "secret" not in caplog.text


async def test_a_failed_background_startup_logs_the_reason_without_a_traceback(
    nats: NatsServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    nats.stop()
    lifespan = BrokerLifespan(NatsBroker(nats.url), startup="background", startup_timeout=0.1)
    async with lifespan:
        await eventually(lambda: lifespan.state == "failed")
    assert f"The start in the background failed: NatsBroker {nats.url} could not be started" in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_password_in_the_cause_of_a_startup_error_is_redacted(nats: NatsServer) -> None:
    class Broken(NatsBroker):
        async def start(self) -> None:
            raise KeyError("nats://user:secret@host")

    with pytest.raises(BrokerStartError) as caught:
        await BrokerLifespan(Broken(nats.url)).enter()
    text = "".join(format_exception(caught.value))
    assert "nats://***@host" in text
    assert "secret@" not in text
