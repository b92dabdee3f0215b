"""What a lifespan does at SIGTERM, while the server has not yet stopped it."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import uuid
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from faststream import FastStream
from faststream.nats import NatsBroker

from faststream_adapters import BrokerLifespan, BrokerStartError
from tests.harness.brokers import ALL_HARNESSES
from tests.harness.brokers.shared import shared_server
from tests.harness.servers import hold_port
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from faststream_adapters._compat.faststream import Broker
    from tests.harness.servers.nats import NatsServer

NOT_TAKEN_AFTER = 1.0
"""Seconds after which a message that was not handled was not taken."""


@pytest.fixture(autouse=True)
def received() -> Iterator[list[int]]:
    """Install a server's handler of SIGTERM, and return the list of the signals it has received."""
    signals: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    yield signals
    signal.signal(signal.SIGTERM, previous)


class Consumer:
    """A broker whose handler forwards each number to another broker, when the test lets it."""

    def __init__(self, kind: str, target: str) -> None:
        self.harness, self.target_harness = ALL_HARNESSES[kind], ALL_HARNESSES[target]
        self.broker = self.harness.broker(shared_server(self.harness).url)
        self.target = self.target_harness.broker(shared_server(self.target_harness).url)
        self.channel, self.out = f"in-{uuid.uuid4().hex}", f"out-{uuid.uuid4().hex}"
        self.started: list[int] = []
        self.done: list[int] = []
        self.proceed = asyncio.Event()
        self.harness.subscribe(self.broker, self.channel, self.handle)

    async def handle(self, number: int) -> None:
        self.started.append(number)
        await self.proceed.wait()
        await self.target_harness.publish(self.target, number, self.out)
        self.done.append(number)

    async def takes(self, number: int) -> bool:
        """Publish a number, and return whether its handler starts soon."""
        await self.harness.publish(self.broker, number, self.channel)
        # In a task of its own: Python 3.11 does not trace a frame any more in which a timeout was raised.
        started = asyncio.create_task(eventually(lambda: number in self.started, NOT_TAKEN_AFTER))
        await asyncio.wait((started,))
        return started.exception() is None

    async def start_one(self) -> None:
        """Publish until a handler starts: a Kafka consumer may have no position yet."""
        taken = False
        async with asyncio.timeout(60):
            while not taken:
                taken = await self.takes(0)

    async def first_not_taken(self, number: int) -> int:
        """Publish numbers from this one on, and return the first whose handler does not start."""
        taken = True
        async with asyncio.timeout(30):
            while taken:
                taken = await self.takes(number)
                number += 1
        return number - 1


def kinds() -> list[Any]:
    return [pytest.param(kind, marks=[] if kind == "nats" else pytest.mark.full) for kind in ALL_HARNESSES]


@pytest.mark.parametrize("kind", kinds())
async def test_consumers_stop_at_the_signal_while_the_connections_stay_open(
    kind: str, received: list[int]
) -> None:
    consumer = Consumer(kind, "redis" if kind == "nats" else "nats")
    lifespan = BrokerLifespan(consumer.broker, consumer.target)
    async with lifespan:
        await consumer.start_one()
        signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGTERM]
        await asyncio.wait_for(lifespan.draining(), 5)
        assert str(lifespan.state) == "draining"
        # The handler in progress can publish to the other broker.
        assert consumer.done == []
        consumer.proceed.set()
        await eventually(lambda: 0 in consumer.done, 20.0)
        # Messages that the server sent before it knew of the drain are handled too.
        number = await consumer.first_not_taken(1)
        assert str(lifespan.state) == "draining"
    assert str(lifespan.state) == "stopped"
    assert consumer.done == consumer.started
    assert number not in consumer.started


def is_drain(task: asyncio.Task[Any]) -> bool:
    """Return whether a task is the drain that a signal has begun."""
    return getattr(task.get_coro(), "__qualname__", "") == "BrokerLifespan._drain_and_leave_groups"


@pytest.mark.full
@pytest.mark.parametrize("kind", ["kafka", "confluent"])
async def test_other_consumers_of_a_kafka_group_take_over_while_the_connections_stay_open(kind: str) -> None:
    harness = ALL_HARNESSES[kind]
    url = shared_server(harness).url
    topic = f"group-{uuid.uuid4().hex}"
    handled: dict[str, list[int]] = {"leaving": [], "staying": []}

    def consumer_of(name: str) -> Broker:
        async def handle(number: int) -> None:
            handled[name].append(number)

        broker = harness.broker(url)
        subscribed: Any = broker
        subscribed.subscriber(topic, group_id=topic, auto_offset_reset="earliest")(handle)
        return broker

    publishing: Any = harness.broker(url)
    async with BrokerLifespan(publishing, consume=False):
        # The server creates the topic with four partitions.
        await publishing.publish(0, topic, partition=0)
        leaving = consumer_of("leaving")
        [subscriber] = leaving.subscribers
        async with BrokerLifespan(leaving):
            await eventually(lambda: handled["leaving"] == [0], 60.0)
            signal.raise_signal(signal.SIGTERM)
            await eventually(lambda: not subscriber.running, 20.0)
            # The test server gives nothing to a consumer that joins a group while another one leaves it.
            await eventually(lambda: not any(map(is_drain, asyncio.all_tasks())), 20.0)
            async with BrokerLifespan(consumer_of("staying")):
                for partition in range(4):
                    await publishing.publish(partition, topic, partition=partition)
                await eventually(lambda: sorted(handled["staying"]) == [0, 1, 2, 3], 40.0)
    assert handled["leaving"] == [0]


async def test_a_signal_drains_after_the_delay(nats: NatsServer, received: list[int]) -> None:
    consumer = Consumer("nats", "redis")
    consumer.proceed.set()
    loop = asyncio.get_running_loop()
    async with BrokerLifespan(consumer.broker, consumer.target, drain_delay=2.0) as _:
        await consumer.start_one()
        start = loop.time()
        signal.raise_signal(signal.SIGTERM)
        assert await consumer.takes(1)
        assert received == []
        await consumer.first_not_taken(2)
        assert loop.time() - start > 2.0
        assert received == [signal.SIGTERM]


async def test_the_end_of_the_lifespan_cuts_the_delay_short(nats: NatsServer) -> None:
    async with asyncio.timeout(10):
        async with BrokerLifespan(NatsBroker(nats.url), drain_delay=60.0) as _:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0)


async def test_any_number_of_tasks_can_wait_for_the_drain(nats: NatsServer) -> None:
    lifespan = BrokerLifespan(NatsBroker(nats.url), drain_delay=60.0)
    # It is stopped.
    await asyncio.wait_for(lifespan.draining(), 5)
    for _ in range(2):
        async with lifespan:
            waiting = [asyncio.create_task(lifespan.draining()) for _ in range(100)]
            cancelled = waiting.pop()
            await asyncio.sleep(0)
            cancelled.cancel()
            assert not any(task.done() for task in waiting)
            signal.raise_signal(signal.SIGTERM)
            await asyncio.wait_for(asyncio.gather(*waiting), 5)
            assert str(lifespan.state) == "draining"
            await asyncio.wait_for(lifespan.draining(), 5)
        await asyncio.wait_for(lifespan.draining(), 5)


async def test_who_waits_for_the_drain_is_woken_by_the_end_of_the_lifespan(nats: NatsServer) -> None:
    lifespan = BrokerLifespan(NatsBroker(nats.url))
    async with lifespan:
        waiting = asyncio.create_task(lifespan.draining())
        await asyncio.sleep(0)
    await asyncio.wait_for(waiting, 5)


async def test_who_waits_for_the_drain_is_woken_when_the_background_start_fails() -> None:
    port, held = hold_port()
    with held or nullcontext():
        lifespan = BrokerLifespan(
            NatsBroker(f"nats://127.0.0.1:{port}"), startup="background", startup_timeout=0.2
        )
        async with lifespan:
            await asyncio.wait_for(lifespan.draining(), 10)
            assert str(lifespan.state) == "failed"
            # There is nothing to drain.
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0)
            assert str(lifespan.state) == "failed"


async def test_a_signal_during_a_background_start_drains(received: list[int]) -> None:
    port, held = hold_port()
    hooks: list[str] = []
    app = FastStream(
        NatsBroker(f"nats://127.0.0.1:{port}"), on_shutdown=[lambda: hooks.append("on_shutdown")]
    )
    with held or nullcontext():
        lifespan = BrokerLifespan(app, startup="background")
        async with lifespan:
            signal.raise_signal(signal.SIGTERM)
            await eventually(lambda: bool(hooks))
            assert str(lifespan.state) == "draining"
    assert (hooks, received) == (["on_shutdown"], [signal.SIGTERM])


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


@pytest.mark.parametrize("signalled", [True, False])
async def test_hooks_run_once_in_their_order_and_in_the_context_of_the_lifespan(
    nats: NatsServer, signalled: bool
) -> None:
    calls: list[str] = []

    async def set_variable() -> None:
        VARIABLE.set("set")

    def hook(name: str) -> Callable[[], Awaitable[None]]:
        async def call() -> None:
            calls.append(f"{name} {lifespan.state} {VARIABLE.get()}")

        return call

    app = FastStream(
        NatsBroker(nats.url),
        on_startup=[set_variable],
        on_shutdown=[hook("on_shutdown")],
        after_shutdown=[hook("after_shutdown")],
    )
    lifespan = BrokerLifespan(app)
    async with lifespan:
        if signalled:
            signal.raise_signal(signal.SIGTERM)
            await eventually(lambda: bool(calls))
            assert calls == ["on_shutdown draining set"]
        else:
            assert calls == []
    assert calls == ["on_shutdown draining set", "after_shutdown draining set"]


async def test_the_error_of_a_hook_after_a_signal_is_raised_at_the_end(nats: NatsServer) -> None:
    called = asyncio.Event()

    def fail() -> None:
        called.set()
        raise KeyError

    lifespan = BrokerLifespan(FastStream(NatsBroker(nats.url), on_shutdown=[fail]))
    await lifespan.enter()
    signal.raise_signal(signal.SIGTERM)
    await asyncio.wait_for(called.wait(), 5)
    with pytest.raises(KeyError):
        await lifespan.leave()
    assert str(lifespan.state) == "stopped"
    # The next run has no error.
    await lifespan.enter()
    called.clear()
    with pytest.raises(KeyError):
        await lifespan.leave()


async def test_the_shutdown_timeout_bounds_the_drain_from_its_own_beginning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    consumer = Consumer("nats", "redis")
    loop = asyncio.get_running_loop()
    async with BrokerLifespan(consumer.broker, consumer.target, shutdown_timeout=1.0) as _:
        await consumer.start_one()
        start = loop.time()
        signal.raise_signal(signal.SIGTERM)
        # The handler never ends, and the lifespan goes on.
        await eventually(lambda: "its handlers are cut off" in caplog.text)
        assert 0.8 < loop.time() - start < 3.0
        start = loop.time()
    assert loop.time() - start < 3.0
    assert consumer.done == []


async def test_a_lifespan_that_ends_long_after_its_drain_closes_its_connections_regularly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    consumer = Consumer("nats", "redis")
    consumer.proceed.set()
    async with BrokerLifespan(consumer.broker, consumer.target, shutdown_timeout=0.5) as _:
        await consumer.start_one()
        signal.raise_signal(signal.SIGTERM)
        # Longer than the timeout of the drain.
        await consumer.first_not_taken(1)
    assert "did not stop" not in caplog.text


async def test_cancelling_the_end_of_the_lifespan_ends_a_drain_that_a_signal_has_begun(
    nats: NatsServer,
) -> None:
    consumer = Consumer("nats", "redis")
    lifespan = BrokerLifespan(consumer.broker, consumer.target)
    await lifespan.enter()
    await consumer.start_one()
    signal.raise_signal(signal.SIGTERM)
    await asyncio.wait_for(lifespan.draining(), 5)
    leaving = asyncio.create_task(lifespan.leave())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait((leaving,), timeout=10)
    assert leaving.cancelled()
    assert str(lifespan.state) == "stopped"
    assert not consumer.broker.running
    assert consumer.done == []


async def test_lifespans_that_share_a_broker_drain_it_together(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    first, second = BrokerLifespan(broker), BrokerLifespan(broker)
    async with first, second:
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(asyncio.gather(first.draining(), second.draining()), 5)
    assert not broker.running


async def test_a_drain_that_a_hook_of_the_start_begins_follows_the_start(nats: NatsServer) -> None:
    calls: list[str] = []

    def leave() -> None:
        lifespan.drain(lambda: calls.append("stop the server"))

    def note() -> None:
        calls.append(f"on_shutdown {lifespan.state}")

    app = FastStream(NatsBroker(nats.url), after_startup=[leave], on_shutdown=[note])
    lifespan = BrokerLifespan(app)
    async with lifespan:
        await eventually(lambda: bool(calls))
        assert calls == ["stop the server"]
        assert str(lifespan.state) == "draining"
    assert calls == ["stop the server", "on_shutdown draining"]


async def test_handlers_of_signals_are_restored_after_a_failed_start() -> None:
    before = signal.getsignal(signal.SIGTERM)
    port, held = hold_port()
    with held or nullcontext(), pytest.raises(BrokerStartError):
        await BrokerLifespan(NatsBroker(f"nats://127.0.0.1:{port}"), startup_timeout=0.1).enter()
    assert signal.getsignal(signal.SIGTERM) is before
