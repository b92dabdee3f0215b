"""What the middleware counts of the messages of each subscriber."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from faststream import BaseMiddleware, ExceptionMiddleware
from faststream.exceptions import AckMessage, NackMessage, RejectMessage, SkipMessage, StopConsume
from faststream.nats import NatsBroker, NatsMessage, TestNatsBroker

from faststream_adapters import make_metrics_asgi
from faststream_adapters._lifecycle import statistics as statistics_module
from faststream_adapters._lifecycle.managed import managed_broker
from faststream_adapters._lifecycle.statistics import Collected, Counts, Statistics
from faststream_adapters._lifecycle.targets import TargetView

if TYPE_CHECKING:
    from collections.abc import Callable


def collecting(broker: NatsBroker) -> Statistics:
    """Collect the statistics of a broker, and return them."""
    TargetView([broker]).collect(Collected.MESSAGES)
    statistics = managed_broker(broker).statistics
    assert statistics is not None
    return statistics


def numbers(counts: Counts) -> tuple[int, int, int]:
    return counts.received, counts.failed, counts.in_flight


async def test_messages_are_counted_for_each_subscriber() -> None:
    broker = NatsBroker()
    statistics = collecting(broker)
    first, second = broker.subscriber("first"), broker.subscriber("second")
    for subscriber in (first, second):
        subscriber(print)
    before = time.time()
    async with TestNatsBroker(broker):
        for _ in range(3):
            await broker.publish("tea", "first")
    assert numbers(statistics[first]) == (3, 0, 0)
    assert before <= (statistics[first].last_message_at or 0) <= time.time()
    assert numbers(statistics[second]) == (0, 0, 0)
    assert statistics[second].last_message_at is None


async def test_a_message_is_in_flight_while_its_handler_runs() -> None:
    started, finish = asyncio.Event(), asyncio.Event()
    broker = NatsBroker()
    statistics = collecting(broker)
    subscriber = broker.subscriber("jobs")

    @subscriber
    async def handle(message: str) -> None:
        started.set()
        await finish.wait()

    async with TestNatsBroker(broker):
        assert statistics[subscriber].oldest == statistics.oldest_of(broker.subscribers) == 0
        publishing = asyncio.create_task(broker.publish("work", "jobs"))
        await started.wait()
        begun = statistics[subscriber].oldest
        assert numbers(statistics[subscriber]) == (1, 0, 1)
        another = asyncio.create_task(broker.publish("work", "jobs"))
        await asyncio.sleep(0.01)
        # The first message is still the oldest.
        assert 0 < begun < statistics[subscriber].oldest <= statistics.oldest_of(broker.subscribers)
        assert numbers(statistics[subscriber]) == (2, 0, 2)
        finish.set()
        await asyncio.gather(publishing, another)
    assert numbers(statistics[subscriber]) == (2, 0, 0)
    assert statistics[subscriber].oldest == statistics.oldest_of(broker.subscribers) == 0


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        (ValueError(), 1),
        (asyncio.CancelledError(), 1),
        # Instructions to FastStream.
        (AckMessage(), 0),
        (NackMessage(), 0),
        (RejectMessage(), 0),
        (SkipMessage(), 0),
        (StopConsume(), 0),
    ],
)
async def test_a_handler_that_raises_has_failed(error: BaseException, failed: int) -> None:
    broker = NatsBroker(logger=None)
    statistics = collecting(broker)
    subscriber = broker.subscriber("jobs")

    @subscriber
    async def handle(message: str) -> None:
        raise error

    async with TestNatsBroker(broker):
        await asyncio.gather(broker.publish("work", "jobs"), return_exceptions=True)
    assert numbers(statistics[subscriber]) == (1, failed, 0)


async def test_an_error_that_a_middleware_handles_is_no_failure() -> None:
    def ignore(error: ValueError) -> None: ...

    broker = NatsBroker(middlewares=[ExceptionMiddleware(handlers={ValueError: ignore})])
    statistics = collecting(broker)
    subscriber = broker.subscriber("jobs")

    @subscriber
    async def handle(message: str) -> None:
        raise ValueError

    async with TestNatsBroker(broker):
        await broker.publish("work", "jobs")
    assert numbers(statistics[subscriber]) == (1, 0, 0)


async def test_a_message_that_cannot_be_parsed_has_failed() -> None:
    async def parse(message: Any) -> NatsMessage:
        msg = "no message"
        raise ValueError(msg)

    broker = NatsBroker(logger=None)
    statistics = collecting(broker)
    subscriber = broker.subscriber("jobs", parser=parse)
    subscriber(print)
    async with TestNatsBroker(broker):
        with pytest.raises(ValueError, match="no message"):
            await broker.publish("work", "jobs")
    assert numbers(statistics[subscriber]) == (1, 1, 0)
    assert statistics[subscriber].last_message_at is not None


async def test_replies_to_requests_are_not_messages_of_the_subscriber() -> None:
    broker = NatsBroker()
    statistics = collecting(broker)
    asking, answering = broker.subscriber("asking"), broker.subscriber("answering")
    in_flight = []

    @asking
    async def ask(message: str) -> None:
        await broker.request("how many?", "answering")
        in_flight.append(statistics[asking].in_flight)

    @answering
    async def answer(message: str) -> int:
        return 3

    async with TestNatsBroker(broker):
        await broker.publish("go", "asking")
        await broker.request("how many?", "answering")
    assert in_flight == [1]
    assert numbers(statistics[asking]) == (1, 0, 0)
    assert numbers(statistics[answering]) == (2, 0, 0)
    assert statistics.oldest_of(broker.subscribers) == 0


async def test_a_handler_that_publishes_to_itself_counts_twice() -> None:
    broker = NatsBroker()
    statistics = collecting(broker)
    subscriber = broker.subscriber("jobs")

    @subscriber
    async def handle(left: int) -> None:
        if left:
            await broker.publish(left - 1, "jobs")

    async with TestNatsBroker(broker):
        await broker.publish(2, "jobs")
    assert numbers(statistics[subscriber]) == (3, 0, 0)


async def test_publishing_goes_on_through_the_other_middlewares() -> None:
    published = []

    class Recording(BaseMiddleware[Any, Any]):
        async def publish_scope(self, call_next: Callable[..., Any], cmd: Any) -> Any:
            published.append(cmd.body)
            return await call_next(cmd)

    broker = NatsBroker(middlewares=[Recording])
    collecting(broker)

    @broker.subscriber("in")
    @broker.publisher("out")
    async def handle(message: str) -> str:
        return message.upper()

    async with TestNatsBroker(broker):
        await broker.publish("tea", "in")
    assert published == ["tea", "TEA"]


async def test_a_message_that_a_middleware_handles_again_counts_once() -> None:
    class Repeating(BaseMiddleware[Any, Any]):
        async def consume_scope(self, call_next: Callable[..., Any], msg: Any) -> Any:
            await call_next(msg)
            return await call_next(msg)

    broker = NatsBroker()
    statistics = collecting(broker)
    broker.insert_middleware(Repeating)
    asking, answering = broker.subscriber("asking"), broker.subscriber("answering")

    @asking
    async def ask(message: str) -> None:
        await broker.request("how many?", "answering")

    @answering
    async def answer(message: str) -> int:
        return 3

    async with TestNatsBroker(broker):
        await broker.publish("go", "asking")
    assert numbers(statistics[asking]) == (1, 0, 0)
    assert numbers(statistics[answering]) == (2, 0, 0)


def test_statistics_are_collected_only_if_an_endpoint_shows_them() -> None:
    broker = NatsBroker()
    assert managed_broker(broker).statistics is None
    make_metrics_asgi(targets=[broker])
    statistics = managed_broker(broker).statistics
    assert statistics is not None
    make_metrics_asgi(targets=[broker])
    assert managed_broker(broker).statistics is statistics


class Clock:
    """A clock that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(statistics_module, "monotonic", lambda: self.now)


async def test_the_rate_is_that_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, broker = Clock(monkeypatch), NatsBroker()
    statistics = collecting(broker)
    subscriber = broker.subscriber("jobs")
    subscriber(print)
    rates: list[float | None] = []
    async with TestNatsBroker(broker):
        for messages in (0, 5, 10, 20, 40, 80):
            for _ in range(messages):
                await broker.publish("tea", "jobs")
            clock.now += 15.0
            managed_broker(broker).mark_rates()
            rates.append(statistics.rate(subscriber))
    # A period of 30 s begins with the first mark; a rate is that of the last one to two.
    assert rates == [None, 5 / 15, 15 / 30, 35 / 45, 60 / 30, 140 / 45]


async def test_there_is_no_rate_before_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, broker = Clock(monkeypatch), NatsBroker()
    statistics = collecting(broker)
    subscriber = broker.subscriber("jobs")
    assert statistics.rate(subscriber) is None
    managed_broker(broker).mark_rates()
    clock.now += 4.9
    assert statistics.rate(subscriber) is None
    clock.now += 0.1
    assert statistics.rate(subscriber) == 0


async def test_the_rate_begins_anew_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, broker = Clock(monkeypatch), NatsBroker()
    statistics = collecting(broker)
    subscriber = broker.subscriber("jobs")
    subscriber(print)
    managed = managed_broker(broker)
    managed.mark_rates()
    async with TestNatsBroker(broker):
        await broker.publish("tea", "jobs")
        clock.now += 600.0
        managed.mark_rates()
        clock.now += 10.0
        assert statistics.rate(subscriber) == 0


def test_without_statistics_no_rate_is_prepared() -> None:
    managed = managed_broker(NatsBroker())
    managed.mark_rates()
    assert managed.statistics is None
