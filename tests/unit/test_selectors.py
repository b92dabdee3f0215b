"""The names of subscribers, and how an application selects some of them."""

from functools import partial
from typing import Any

import pytest
from faststream.confluent import KafkaBroker as ConfluentBroker
from faststream.exceptions import SetupError
from faststream.kafka import KafkaBroker, TopicPartition
from faststream.mqtt import MQTTBroker
from faststream.nats import KvWatch, NatsBroker, NatsRouter, PullSub, TestNatsBroker
from faststream.rabbit import RabbitBroker, RabbitQueue, RabbitRouter
from faststream.redis import ListSub, PubSub, RedisBroker, StreamSub

from faststream_adapters import BrokerLifespan, SubscriberInfo, make_metrics_asgi, make_readiness_asgi
from faststream_adapters._lifecycle.managed import managed_broker
from faststream_adapters._lifecycle.selectors import SubscriberNames
from tests.harness.clients import client


async def accept(order: int) -> None: ...


async def reject(order: int) -> None: ...


def names_in(lifespan: BrokerLifespan) -> list[str]:
    return [info.name for info in lifespan.subscribers]


def names(*brokers: Any) -> list[str]:
    return names_in(BrokerLifespan(*brokers))


def select(*brokers: Any, which: Any) -> list[Any]:
    managed = [managed_broker(broker) for broker in brokers]
    return [subscriber for _, subscriber in SubscriberNames().select(managed, which, "consume")]


def test_a_name_is_that_of_the_handler() -> None:
    broker = NatsBroker()
    broker.subscriber("orders")(accept)
    broker.subscriber("others")(reject)
    # It has no handler, and so it does not consume.
    broker.subscriber("answers")
    assert names(broker) == ["accept", "reject"]


def test_a_name_has_the_destination_and_the_broker_only_where_needed() -> None:
    first, second, other = NatsBroker(), NatsBroker(), RedisBroker()
    first.subscriber("orders")(accept)
    first.subscriber("returns")(accept)
    second.subscriber("orders")(accept)
    other.subscriber("orders")(accept)
    other.subscriber("others")(reject)
    assert names(first, second, other) == [
        "accept@orders@NatsBroker 1",
        "accept@orders@NatsBroker 2",
        "accept@orders@RedisBroker 1",
        "accept@returns",
        "reject",
    ]


def test_names_are_unique_although_handler_destination_and_broker_are_the_same() -> None:
    broker = KafkaBroker()
    for group in ("one", "two"):
        broker.subscriber("orders", group_id=group)(accept)
    found = BrokerLifespan(broker).subscribers
    assert [(info.name, info.group) for info in found] == [
        ("accept@orders@KafkaBroker 1#1", "one"),
        ("accept@orders@KafkaBroker 1#2", "two"),
    ]


def test_names_follow_the_subscribers() -> None:
    broker, router = NatsBroker(), NatsRouter(prefix="eu.")
    lifespan = BrokerLifespan(broker)
    assert names_in(lifespan) == []
    broker.subscriber("orders")(accept)
    assert names_in(lifespan) == ["accept"]
    router.subscriber("orders")(accept)
    broker.include_router(router)
    assert names_in(lifespan) == ["accept@eu.orders", "accept@orders"]


class Callable:
    async def __call__(self, order: int) -> None: ...


@pytest.mark.parametrize(
    ("handler", "name"),
    [(print, "print"), (Callable(), "Callable"), (partial(print, "order"), "partial")],
    ids=["function", "instance", "partial"],
)
def test_a_handler_without_a_name_is_named_like_its_class(handler: Any, name: str) -> None:
    broker = NatsBroker(apply_types=False)
    broker.subscriber("orders")(handler)
    assert names(broker) == [name]


def test_several_handlers_of_one_subscriber_are_joined() -> None:
    broker = NatsBroker()
    subscriber = broker.subscriber("orders")
    subscriber(accept, filter=lambda _: True)
    subscriber(reject)
    assert names(broker) == ["accept,reject"]
    assert select(broker, which=[reject]) == [subscriber]


NATS, KAFKA, RABBIT, REDIS = NatsBroker(), KafkaBroker(), RabbitBroker(), RedisBroker()
CONFLUENT, MQTT = ConfluentBroker(), MQTTBroker()

DESTINATIONS: list[tuple[Any, str, str | None]] = [
    (NATS.subscriber("orders.{id}"), "orders.{id}", None),
    (NATS.subscriber("orders", queue="workers"), "orders", "workers"),
    (NATS.subscriber("orders", durable="workers", pull_sub=PullSub(), stream="shop"), "orders", "workers"),
    (NATS.subscriber("orders", kv_watch=KvWatch("shop")), "shop/orders", None),
    (NATS.subscriber("files", obj_watch=True), "files", None),
    (KAFKA.subscriber("orders", "returns", group_id="workers"), "orders,returns", "workers"),
    (KAFKA.subscriber(partitions=[TopicPartition("orders", 3)]), "orders-3", None),
    (CONFLUENT.subscriber("orders", group_id="workers"), "orders", "workers"),
    (RABBIT.subscriber("orders"), "orders", None),
    (RABBIT.subscriber(RabbitQueue("", exclusive=True), "events"), "events", None),
    (REDIS.subscriber(PubSub("orders.*", pattern=True)), "orders.*", None),
    (REDIS.subscriber(list=ListSub("orders")), "orders", None),
    (REDIS.subscriber(stream=StreamSub("orders", group="workers", consumer="one")), "orders", "workers"),
    (MQTT.subscriber("orders/{id}"), "orders/{id}", None),
    (MQTT.subscriber("orders", shared="workers"), "orders", "workers"),
]


@pytest.mark.parametrize(("subscriber", "destination", "group"), DESTINATIONS)
def test_destination_and_group_of_each_kind_of_subscriber(
    subscriber: Any, destination: str, group: str | None
) -> None:
    brokers = (NATS, KAFKA, RABBIT, REDIS, CONFLUENT, MQTT)
    [broker] = [each for each in brokers if subscriber in each.subscribers]
    driver = managed_broker(broker).driver
    assert (driver.destination(subscriber), driver.group(subscriber)) == (destination, group)


def test_a_prefix_is_part_of_the_destination() -> None:
    broker, prefixed = RabbitBroker(), RabbitRouter(prefix="eu.")
    prefixed.subscriber("orders")(accept)
    broker.include_router(prefixed)
    assert BrokerLifespan(broker).subscribers[0].destination == "eu.orders"


def test_a_selector_is_a_subscriber_a_function_or_a_name() -> None:
    broker = NatsBroker()
    orders, others = broker.subscriber("orders"), broker.subscriber("others")
    decorated = orders(accept)
    others(reject)
    for selector in (orders, accept, decorated, "accept", "accept@orders", "accept@orders@NatsBroker 1"):
        assert select(broker, which=selector) == [orders]
    assert select(broker, which=("reject", accept, "accept")) == [others, orders]
    assert select(broker, which=iter([others])) == [others]
    assert select(broker, which=()) == []


def test_a_subscriber_without_a_handler_can_be_selected() -> None:
    broker = NatsBroker()
    subscriber = broker.subscriber("answers")
    assert select(broker, which=subscriber) == [subscriber]


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        (
            "accept",
            r"consume: 'accept' can mean accept@orders, accept@returns\. Name one of these\.",
        ),
        (accept, "consume: the function 'accept' can mean accept@orders, accept@returns"),
        (
            "rejct",
            r"consume: 'rejct' is not a subscriber of these brokers\. Did you mean 'reject'\? Their",
        ),
        ("accept@order", "Did you mean 'accept@orders'"),
        (
            print,
            r"the function 'print' is not a subscriber of these brokers\. Their subscribers: accept@orders",
        ),
        (NatsBroker().subscriber("orders"), "the subscriber '' is not a subscriber of these brokers"),
        (partial(print), "the function 'partial' is not a subscriber"),
        (7, "consume takes subscribers, their handler functions or their names, not int"),
    ],
)
def test_an_ambiguous_or_unknown_selector_is_an_error(selector: Any, message: str) -> None:
    broker = NatsBroker()
    broker.subscriber("orders")(accept)
    broker.subscriber("returns")(accept)
    broker.subscriber("others")(reject)
    with pytest.raises(SetupError, match=message):
        select(broker, which=selector)


def test_an_error_lists_a_few_of_many_subscribers() -> None:
    broker = NatsBroker()
    for number in range(25):
        broker.subscriber(f"orders.{number:02}")(accept)
    with pytest.raises(SetupError, match=r"accept@orders\.19, and 5 more\. Name one"):
        select(broker, which=accept)
    with pytest.raises(SetupError, match="Their subscribers: none"):
        select(NatsBroker(), which="accept")


async def test_what_is_counted_is_none_unless_it_is_collected() -> None:
    broker = NatsBroker()
    subscriber = broker.subscriber("orders", queue="workers")
    subscriber(accept)
    lifespan = BrokerLifespan(broker)
    info = SubscriberInfo("accept", "NatsBroker 1", "orders", "workers", "not_started")
    assert lifespan.subscribers == (info,)
    assert {info.in_flight, info.oldest_seconds, info.received, info.failed} == {None}
    make_metrics_asgi(targets=[lifespan])
    async with TestNatsBroker(broker), lifespan:
        await broker.publish(1, "orders")
        [info] = lifespan.subscribers
    counted = (info.in_flight, info.oldest_seconds, info.received, info.failed)
    assert (counted, info.backlog) == ((0, 0, 1, 0), None)
    assert info.last_message_at is not None


async def test_details_use_the_unique_names() -> None:
    broker = NatsBroker()
    broker.subscriber("orders")(accept)
    broker.subscriber("returns")(accept)
    async with client(make_readiness_asgi(broker, details=True)) as http:
        entries = (await http.get("/")).json()["checks"]["NatsBroker"]
    assert [entry["componentId"] for entry in entries] == ["NatsBroker 1", "accept@orders", "accept@returns"]
