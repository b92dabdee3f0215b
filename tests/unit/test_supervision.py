"""Supervision: delays between restarts, and tasks that swallow their cancellation."""

import asyncio
import itertools

import pytest
from faststream.nats import NatsBroker

from faststream_adapters._lifecycle.managed import ManagedBroker, backoff, managed_broker
from faststream_adapters._utils.tasks import cancel_and_wait


def test_delays_double_up_to_30_seconds_with_jitter() -> None:
    delays = list(itertools.islice(backoff(), 12))
    for delay, limit in zip(delays, [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30], strict=True):
        assert limit / 2 <= delay <= limit
    assert len(set(delays)) == 12


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    swallowed = 0

    async def swallow_cancellation() -> None:
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1

    task = asyncio.create_task(swallow_cancellation())
    await asyncio.sleep(0)
    await cancel_and_wait(task, timeout=0.01)
    assert task.done()


async def test_a_task_that_cannot_be_cancelled_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    stopping = False

    async def swallow_all_cancellations() -> None:
        while not stopping:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    task = asyncio.create_task(swallow_all_cancellations())
    await asyncio.sleep(0)
    await cancel_and_wait(task, timeout=0.001)
    assert "still running after 20 cancellations" in caplog.text
    stopping = True
    task.cancel()
    await asyncio.wait((task,))


async def test_each_broker_has_one_managed_broker() -> None:
    broker = NatsBroker()
    assert managed_broker(broker) is managed_broker(broker)
    assert isinstance(managed_broker(broker), ManagedBroker)
    assert managed_broker(NatsBroker()) is not managed_broker(broker)
