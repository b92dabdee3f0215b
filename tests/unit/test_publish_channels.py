"""The declared channels: their names and addresses, and how each broker sends to them."""

from __future__ import annotations

from typing import Any

import pytest
from faststream.confluent import KafkaBroker as ConfluentBroker
from faststream.confluent import TopicPartition as ConfluentPartition
from faststream.kafka import KafkaBroker, TopicPartition
from faststream.mqtt import MQTTBroker, MQTTRouter, QoS
from faststream.nats import JStream, NatsBroker, NatsRouter, PullSub
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue, RabbitRouter
from faststream.redis import ListSub, PubSub, RedisBroker, RedisRouter, StreamSub
from nats.js.api import ConsumerConfig

from faststream_adapters._asyncapi.publish.channels import AmbiguousChannelError, Channels
from faststream_adapters._lifecycle.targets import TargetView
from tests.harness.brokers import ALL_HARNESSES


async def handle(message: int) -> None:
    raise NotImplementedError


async def answer(message: int) -> int:
    raise NotImplementedError


def _channels(*brokers: Any) -> Channels:
    return Channels(TargetView(brokers))


@pytest.mark.parametrize(
    ("broker", "arguments", "options", "expected"),
    [
        (NatsBroker(), ("orders",), {}, {"orders": {"subject": "orders"}}),
        (NatsBroker(), ("orders", "workers"), {}, {"orders": {"subject": "orders"}}),
        (NatsBroker(), ("orders.*",), {}, {"orders.*": None}),
        (NatsBroker(), ("orders.>",), {}, {"orders.>": None}),
        (NatsBroker(), ("orders.{id}",), {}, {"orders.{id}": None}),
        (
            NatsBroker(),
            ("orders",),
            {"stream": JStream("shop"), "pull_sub": PullSub()},
            {"orders": {"subject": "orders", "stream": "shop", "timeout": 5.0}},
        ),
        (
            NatsBroker(),
            (),
            {
                "stream": JStream("shop"),
                "config": ConsumerConfig(filter_subjects=["orders", "bills.*"]),
            },
            {"orders": {"subject": "orders", "stream": "shop", "timeout": 5.0}, "bills.*": None},
        ),
        (KafkaBroker(), ("orders",), {}, {"orders": {"topic": "orders"}}),
        (
            KafkaBroker(),
            ("orders", "bills"),
            {"group_id": "shop"},
            {"orders": {"topic": "orders"}, "bills": {"topic": "bills"}},
        ),
        (KafkaBroker(), (), {"pattern": "orders.*"}, {"orders.*": None}),
        (
            KafkaBroker(),
            (),
            {"partitions": [TopicPartition("orders", 2)]},
            {"orders": {"topic": "orders", "partition": 2}},
        ),
        (ConfluentBroker(), ("orders",), {"batch": True}, {"orders": {"topic": "orders"}}),
        (
            ConfluentBroker(),
            (),
            {"partitions": [ConfluentPartition("orders", 1)]},
            {"orders": {"topic": "orders", "partition": 1}},
        ),
        (RedisBroker(), ("orders",), {}, {"orders": {"channel": "orders"}}),
        (RedisBroker(), ("orders.*",), {}, {"orders.*": None}),
        (RedisBroker(), (PubSub("orders.*", pattern=True),), {}, {"orders.*": None}),
        (RedisBroker(), ("orders.{id}",), {}, {"orders.{id}": None}),
        (RedisBroker(), (), {"list": ListSub("orders", batch=True)}, {"orders": {"list": "orders"}}),
        (
            RedisBroker(),
            (),
            {"stream": StreamSub("orders", maxlen=9)},
            {"orders": {"stream": "orders", "maxlen": 9}},
        ),
        (MQTTBroker(), ("shop/orders",), {}, {"shop/orders": {"topic": "shop/orders", "qos": 0}}),
        (
            MQTTBroker(),
            ("orders",),
            {"shared": "workers", "qos": QoS.AT_LEAST_ONCE},
            {"orders": {"topic": "orders", "qos": 1}},
        ),
        (MQTTBroker(), ("shop/+",), {}, {"shop/+": None}),
        (MQTTBroker(), ("shop/#",), {}, {"shop/#": None}),
        (MQTTBroker(), ("shop/{id}",), {}, {"shop/{id}": None}),
    ],
)
def test_a_subscriber_consumes_what_is_sent_to_its_addresses(
    broker: Any, arguments: Any, options: Any, expected: dict[str, Any]
) -> None:
    subscriber = broker.subscriber(*arguments, **options)
    subscriber(handle)
    channels = _channels(broker)
    assert {each.address for each in channels.all()} == set(expected)
    for each in channels.all():
        found = each.managed.driver.publish_arguments(subscriber, each.address)
        assert found == expected[each.address]
        assert each.is_pattern is (found is None)
        # A consumer of Kafka may miss the first message of a topic that is new to it.
        assert bool(each.reason) is (each.is_pattern and isinstance(broker, KafkaBroker))
        assert channels.find(each.name) is channels.find(each.address) is each


@pytest.mark.parametrize(
    ("broker", "arguments", "options", "destinations"),
    [
        (
            NatsBroker(),
            ("orders.{id}",),
            {},
            {
                "orders.7": {"subject": "orders.7"},
                "orders.7.new": None,
                "orders.{id}": {"subject": "orders.{id}"},
            },
        ),
        (
            NatsBroker(),
            ("orders.>",),
            {"stream": JStream("shop"), "pull_sub": PullSub()},
            {"orders.7.new": {"subject": "orders.7.new", "stream": "shop", "timeout": 5.0}, "bills": None},
        ),
        (RedisBroker(), ("orders.*",), {}, {"orders.7.new": {"channel": "orders.7.new"}, "bills": None}),
        # A parameter of the path stands for one part.
        (RedisBroker(), ("orders.{id}",), {}, {"orders.7": {"channel": "orders.7"}, "orders.7.new": None}),
        (
            MQTTBroker(),
            ("shop/+",),
            {"shared": "workers", "qos": QoS.AT_LEAST_ONCE},
            {"shop/orders": {"topic": "shop/orders", "qos": 1}, "shop/a/b": None},
        ),
        (KafkaBroker(), (), {"pattern": "orders.*"}, {"orders.new": None}),
    ],
)
def test_a_pattern_covers_some_destinations(
    broker: Any, arguments: Any, options: Any, destinations: dict[str, Any]
) -> None:
    broker.subscriber(*arguments, **options)(handle)
    [channel] = _channels(broker).all()
    assert {each: channel.arguments(each) for each in destinations} == destinations


@pytest.mark.parametrize(
    ("broker", "router", "address"),
    [
        (NatsBroker(), NatsRouter("eu."), "orders.{id}"),
        (RedisBroker(), RedisRouter("eu."), "orders.{id}"),
        (MQTTBroker(), MQTTRouter("eu."), "orders/{id}"),
    ],
)
def test_a_pattern_of_a_router_covers_what_begins_with_its_prefix(
    broker: Any, router: Any, address: str
) -> None:
    router.subscriber(address)(handle)
    broker.include_router(router)
    [channel] = _channels(broker).all()
    destination = address.replace("{id}", "7")
    assert channel.address == f"eu.{address}"
    assert f"eu.{destination}" in (channel.arguments(f"eu.{destination}") or {}).values()
    assert channel.arguments(destination) is None


@pytest.mark.parametrize(
    ("queue", "exchange", "expected"),
    [
        ("orders", None, ("orders", "")),
        (RabbitQueue("q", routing_key="orders"), RabbitExchange("shop"), ("orders", "shop")),
        (
            RabbitQueue("q", routing_key="orders.*"),
            RabbitExchange("shop", type=ExchangeType.TOPIC),
            None,
        ),
        (
            RabbitQueue("q", routing_key="orders.new"),
            RabbitExchange("shop", type=ExchangeType.TOPIC),
            ("orders.new", "shop"),
        ),
        ("q", RabbitExchange("shop", type=ExchangeType.FANOUT), ("q", "shop")),
        ("orders.*", None, ("orders.*", "")),
    ],
)
def test_rabbitmq_routes_to_the_queue_of_a_subscriber(queue: Any, exchange: Any, expected: Any) -> None:
    broker = RabbitBroker()
    router = RabbitRouter("eu.")
    subscriber = router.subscriber(queue, exchange)
    subscriber(handle)
    broker.include_router(router)
    [channel] = _channels(broker).all()
    assert channel.is_pattern is (expected is None)
    arguments = channel.managed.driver.publish_arguments(subscriber, channel.address)
    found = arguments and (arguments["routing_key"], arguments["exchange"].name)
    assert found == (expected and (f"eu.{expected[0]}", expected[1]))


def test_rabbitmq_routes_what_a_pattern_covers_to_the_queue_of_a_subscriber() -> None:
    broker = RabbitBroker()
    queue = RabbitQueue("q", routing_key="orders.#")
    broker.subscriber(queue, RabbitExchange("shop", type=ExchangeType.TOPIC))(handle)
    [channel] = _channels(broker).all()
    arguments = channel.arguments("orders.eu.7")
    assert arguments is not None
    assert (arguments["routing_key"], arguments["exchange"].name) == ("orders.eu.7", "shop")
    assert channel.arguments("bills") is None


@pytest.mark.parametrize(
    ("broker", "replies"),
    [
        (NatsBroker(), True),
        (RedisBroker(), True),
        (RabbitBroker(), True),
        (MQTTBroker(version="5.0"), True),
        (MQTTBroker(version="3.1.1"), False),
        (KafkaBroker(), False),
        (ConfluentBroker(), False),
    ],
)
def test_a_handler_that_declares_a_result_replies_where_the_broker_has_requests(
    broker: Any, replies: bool
) -> None:
    broker.subscriber("answers")(answer)
    broker.subscriber("silent")(handle)
    broker.subscriber("quiet", no_reply=True)(answer)
    broker.subscriber("forwards")(broker.publisher("next")(answer))
    found = {each.address: each.replies for each in _channels(broker).all()}
    assert found == {"answers": replies, "silent": False, "quiet": False, "forwards": False, "next": False}


def test_names_are_those_of_the_document_made_unique() -> None:
    first, second, other = NatsBroker(), NatsBroker(), RedisBroker()
    for broker in (first, second, other):
        broker.subscriber("orders")(handle)
    first.subscriber("orders")(handle)
    first.publisher("orders")
    first.subscriber("bills", title="Bills")(handle)
    first.subscriber("hidden", include_in_schema=False)(handle)
    first.subscriber("read by the application itself")
    channels = _channels(first, second, other)
    assert [each.name for each in channels.all()] == [
        "Bills",
        "orders:Handle@NatsBroker 1#1",
        "orders:Handle@NatsBroker 1#2",
        "orders:Handle@NatsBroker 2",
        "orders:Handle@RedisBroker 1",
        "orders:Publisher",
    ]
    assert channels.find("Bills") is channels.find("bills")
    assert channels.find("hidden") is None
    with pytest.raises(AmbiguousChannelError, match="NatsBroker 2, orders:Handle@RedisBroker 1, orders:Pub"):
        channels.find("orders")


def test_channels_that_are_declared_later_are_found() -> None:
    broker = NatsBroker()
    channels = _channels(broker)
    assert channels.all() == []
    late: Any = broker.subscriber("late")
    assert channels.find("late") is None
    late(handle)
    found = channels.find("late")
    assert found is channels.find("late")
    broker.publisher("later")
    assert [each.address for each in channels.all()] == ["late", "later"]


@pytest.mark.parametrize(
    ("broker", "address"),
    [
        (NatsBroker(), "orders"),
        (RedisBroker(), "orders"),
        (RabbitBroker(), "orders"),
        (MQTTBroker(), "orders"),
        (KafkaBroker(), "orders"),
        (ConfluentBroker(), "orders"),
    ],
)
def test_a_publisher_has_the_address_that_it_sends_to(broker: Any, address: str) -> None:
    broker.publisher("orders", schema=int)
    [channel] = _channels(broker).all()
    assert (channel.address, channel.is_consumed, channel.reason) == (address, False, "")


def test_a_driver_of_another_package_does_not_support_publishing() -> None:
    broker: Any = ALL_HARNESSES["acme"].broker("nats://127.0.0.1:1")
    broker.subscriber("orders")(handle)
    broker.publisher("bills")
    assert {each.reason for each in _channels(broker).all()} == {
        "The driver of this broker does not support publishing."
    }
    [subscriber] = broker.subscribers
    driver = _channels(broker).all()[0].managed.driver
    assert driver.publish_arguments(subscriber, "orders") is None
    assert not driver.supports_request(subscriber)


@pytest.mark.parametrize(
    ("broker", "reserved"),
    [
        (NatsBroker(), {"nats-rollup", "nats-msg-id"}),
        (RabbitBroker(), {"cc", "bcc"}),
        (RedisBroker(), set()),
        (KafkaBroker(), set()),
    ],
)
def test_headers_with_which_a_message_could_go_elsewhere_are_reserved(
    broker: Any, reserved: set[str]
) -> None:
    broker.publisher("orders")
    [channel] = _channels(broker).all()
    common = {"content-type", "correlation_id", "message_id", "reply_to"}
    names = {*common, "nats-rollup", "nats-msg-id", "cc", "bcc", "x-request-id"}
    assert set(filter(channel.managed.driver.is_reserved_header, names)) == common | reserved
