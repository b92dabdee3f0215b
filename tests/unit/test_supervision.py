"""One broker kept up: delays, and what happens to errors while stopping."""

import asyncio
import itertools
import logging
from traceback import format_exception
from typing import Any

import pytest
from faststream.nats import NatsBroker

from faststream_adapters import BrokerLifespan, supervision
from faststream_adapters.lifespan import BrokerStartError
from faststream_adapters.supervision import BrokerRun, Settings, backoff, run_of
from faststream_adapters.tasks import end
from tests.servers.nats import NatsServer
from tests.support import eventually

SETTINGS = Settings(retry=False, consume=True, supervise=False, optional=False)


def test_delays_double_up_to_half_a_minute_and_are_spread() -> None:
    delays = list(itertools.islice(backoff(), 12))
    for delay, limit in zip(delays, [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30], strict=True):
        assert limit / 2 <= delay <= limit
    assert len(set(delays)) == 12


async def test_a_task_that_swallows_a_cancellation_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await end(task)
    assert task.done()


async def test_a_task_that_cannot_be_ended_is_named(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("faststream_adapters.tasks.END_TIMEOUT", 0.001)
    give_up = False

    async def immortal() -> None:
        while not give_up:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    task = asyncio.create_task(immortal())
    await asyncio.sleep(0)
    await end(task)
    assert "does not end when it is cancelled" in caplog.text
    give_up = True
    task.cancel()
    await asyncio.wait((task,))


async def test_releasing_what_is_not_held_does_nothing(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    run = run_of(broker)
    run.acquire("holder", SETTINGS)
    await run.wait_up()
    await run.release("somebody else", 0.0)
    assert broker.connection.is_connected
    await run.release("holder", 0.0)


async def test_a_broker_that_does_not_stop_cleanly_is_let_go(
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


async def test_a_start_that_fails_is_tried_again(
    nats: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(supervision, "backoff", lambda: itertools.repeat(0.001))
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
    assert "is not up: KeyError. Next try in 0.0 s." in caplog.text
    assert "secret" not in caplog.text


async def test_a_start_in_the_background_that_fails_says_why_in_one_line(
    nats: NatsServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    nats.stop()
    lifespan = BrokerLifespan(NatsBroker(nats.url), startup="background", startup_timeout=0.1)
    async with lifespan:
        await eventually(lambda: lifespan.state == "failed")
    assert f"The start in the background failed: NatsBroker {nats.url} could not be started" in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_cause_that_holds_a_password_is_replaced(nats: NatsServer) -> None:
    class Broken(NatsBroker):
        async def start(self) -> None:
            raise KeyError("nats://user:secret@host")

    with pytest.raises(BrokerStartError) as caught:
        await BrokerLifespan(Broken(nats.url)).enter()
    text = "".join(format_exception(caught.value))
    assert "nats://***@host" in text
    assert "secret@" not in text


async def test_a_run_belongs_to_its_broker() -> None:
    broker = NatsBroker()
    assert run_of(broker) is run_of(broker)
    assert isinstance(run_of(broker), BrokerRun)
    assert run_of(NatsBroker()) is not run_of(broker)
