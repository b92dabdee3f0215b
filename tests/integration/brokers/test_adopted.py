"""Brokers that the application starts itself, before the lifespan or after it."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from faststream_adapters import BrokerLifespan
from tests.harness.brokers import ALL_HARNESSES
from tests.harness.brokers.shared import shared_server
from tests.harness.waiting import eventually


@pytest.mark.parametrize(
    ("kind", "startup"),
    [
        *(
            pytest.param(kind, "strict", marks=[] if kind == "kafka" else pytest.mark.full)
            for kind in ALL_HARNESSES
        ),
        pytest.param("nats", "background", marks=pytest.mark.full),
    ],
)
async def test_a_started_broker_is_adopted_and_handles_each_message_once(
    kind: str, startup: Any, caplog: pytest.LogCaptureFixture
) -> None:
    harness = ALL_HARNESSES[kind]
    broker = harness.broker(shared_server(harness).url)
    channel = f"numbers-{uuid.uuid4().hex}"
    handled: Counter[int] = Counter()
    sent = 0

    async def handle(number: int) -> None:
        handled[number] += 1

    async def send(count: int) -> None:
        """Publish numbers until so many were handled: a Kafka consumer may have no position yet."""
        nonlocal sent
        async with asyncio.timeout(60.0):
            for target in range(len(handled) + 1, len(handled) + count + 1):
                while len(handled) < target:
                    sent += 1
                    await harness.publish(broker, sent, channel)
                    with suppress(TimeoutError):
                        await eventually(partial(handled.__contains__, sent), 2.0)

    harness.subscribe(broker, channel, handle)
    lifespan = BrokerLifespan(broker, startup=startup)
    for run in range(1, 3):
        if run == 1:
            await broker.start()
        async with lifespan:
            await eventually(lambda: lifespan.state == "running")
            if run == 2:
                # As in a hook or a route.
                await broker.start()
            await send(5)
        assert not broker.running
        assert caplog.text.count("is started already: remove your own start()") == run
    async with lifespan:
        await eventually(lambda: lifespan.state == "running")
        await send(5)
    assert set(handled.values()) == {1}
    assert caplog.text.count("is started already") == run
