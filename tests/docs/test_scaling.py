"""The subscribers in docs/scaling.md share their messages, and its delays differ between processes."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import ConsumerConfig

from faststream_adapters import BrokerLifespan, make_readiness_asgi
from faststream_adapters._compat import mqtt
from faststream_adapters._lifecycle.managed import managed_broker
from tests.docs.blocks import load, python_blocks
from tests.harness.clients import status
from tests.harness.servers.nats import NatsFactory
from tests.harness.waiting import eventually

BLOCKS = python_blocks("docs/scaling.md")


def test_each_message_goes_to_one_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTNAME", "order-service-1")
    example = load(BLOCKS["Share the messages 1"].code, tmp_path)
    drivers = [
        managed_broker(broker).driver
        for broker in (example.nats, example.kafka, example.rabbit, example.redis, example.mqtt)
    ]
    shared = [driver.is_load_balanced(each) for driver in drivers for each in driver.broker.subscribers]
    assert shared == [True] * 6


def test_each_process_has_delays_of_its_own(tmp_path: Path) -> None:
    processes = [load(BLOCKS["When servers restart 1"].code, tmp_path) for _ in range(2)]
    first, second = (mqtt.settings(process.mqtt)["reconnect"].initial_delay for process in processes)
    assert first != second


async def test_the_server_refuses_the_fetches_of_more_pods_than_max_waiting(
    nats_factory: NatsFactory,
) -> None:
    server = nats_factory(jetstream=True, config="trace: true")

    async def handle(number: int) -> None:
        raise NotImplementedError

    async with AsyncExitStack() as stack:
        lifespans: list[BrokerLifespan] = []
        for _ in range(3):
            broker = NatsBroker(server.url)
            broker.subscriber(
                "kept",
                stream=JStream("shop"),
                durable="shop",
                pull_sub=PullSub(batch_size=10),
                config=ConsumerConfig(max_waiting=1),
            )(handle)
            lifespans.append(BrokerLifespan(broker))
            await stack.enter_async_context(lifespans[-1])
        await eventually(lambda: "409 Exceeded MaxWaiting" in server.output())
        for lifespan in lifespans:
            assert await status(make_readiness_asgi(lifespan)) == 200
