"""`make_publish_asgi` with real servers: what subscribers get, replies, and brokers that are down."""

from __future__ import annotations

import asyncio
import html
import re
import uuid
from contextlib import asynccontextmanager, closing, suppress
from typing import TYPE_CHECKING, Any

import pytest
from faststream import Context
from faststream.confluent import TopicPartition as ConfluentPartition
from faststream.kafka import TopicPartition
from faststream.mqtt import MQTTBroker, QoS
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.rabbit import ExchangeType, QueueType, RabbitExchange, RabbitQueue
from faststream.redis import ListSub, StreamSub
from nats.js.api import DiscardPolicy

from faststream_adapters import BrokerLifespan, make_publish_asgi
from faststream_adapters._brokers.patterns import redis_covers
from tests.harness.brokers import HARNESSES
from tests.harness.brokers.shared import shared_server
from tests.harness.clients import client
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    import httpx

    from tests.harness.servers.nats import NatsServer

Options = tuple[tuple[Any, ...], dict[str, Any]]


def _broker(name: str) -> Any:
    return HARNESSES[name].broker(shared_server(HARNESSES[name]).url)


@asynccontextmanager
async def _running(broker: Any, **keywords: Any) -> AsyncIterator[httpx.AsyncClient]:
    lifespan = BrokerLifespan(broker)
    async with lifespan, client(make_publish_asgi(lifespan, authorize=lambda _: True, **keywords)) as http:
        yield http


CASES = [
    ("nats", lambda name: ((name,), {})),
    ("nats", lambda name: ((name, "workers"), {})),
    ("redis", lambda name: ((name,), {})),
    ("redis", lambda name: ((), {"list": ListSub(name)})),
    ("redis", lambda name: ((), {"stream": StreamSub(name, last_id="0")})),
    ("redis", lambda name: ((), {"stream": StreamSub(name, group="g", consumer="c", last_id="0")})),
    ("rabbit", lambda name: ((name,), {})),
    (
        "rabbit",
        lambda name: ((RabbitQueue(name, routing_key="orders.new"), RabbitExchange(f"x-{name}")), {}),
    ),
    (
        "rabbit",
        lambda name: (
            (RabbitQueue(name, routing_key="a.b"), RabbitExchange(f"x-{name}", type=ExchangeType.TOPIC)),
            {},
        ),
    ),
    ("rabbit", lambda name: ((name, RabbitExchange(f"x-{name}", type=ExchangeType.FANOUT)), {})),
    ("rabbit", lambda name: ((RabbitQueue(name, queue_type=QueueType.QUORUM, durable=True),), {})),
    ("mqtt", lambda name: ((f"shop/{name}",), {})),
    ("mqtt", lambda name: ((name,), {"shared": "workers", "qos": QoS.AT_LEAST_ONCE})),
    ("kafka", lambda name: ((name,), {"auto_offset_reset": "earliest", "group_id": name})),
    ("kafka", lambda name: ((), {"partitions": [TopicPartition(name, 0)]})),
    ("confluent", lambda name: ((name,), {"auto_offset_reset": "earliest", "group_id": name})),
    ("confluent", lambda name: ((), {"partitions": [ConfluentPartition(name, 0)], "group_id": name})),
]


def _cases() -> Iterator[Any]:
    """Yield the cases. Each run has one of each broker whose server starts fast."""
    seen = {"rabbit", "kafka", "confluent"}
    for number, (name, options) in enumerate(CASES):
        marks = [pytest.mark.full] if name in seen else []
        seen.add(name)
        yield pytest.param(name, options, id=f"{name}-{number}", marks=marks)


@pytest.mark.parametrize(("name", "options"), list(_cases()))
async def test_a_subscriber_gets_the_message_and_its_headers(
    name: str, options: Callable[[str], Options]
) -> None:
    broker = _broker(name)
    handled: list[tuple[Any, Any]] = []
    arguments, keywords = options(f"orders-{uuid.uuid4().hex}")

    async def handle(order: dict[str, int], message: Any = Context()) -> None:
        handled.append((order, message))

    broker.subscriber(*arguments, **keywords)(handle)
    ids: list[str] = []
    async with _running(broker) as http:
        [channel] = _names((await http.get("/")).text)
        body = {"channel": channel, "message": {"id": 7}, "headers": {"x-request-id": "r-1"}}
        async with asyncio.timeout(60.0):
            # A Kafka consumer of a partition starts at the end of the log.
            while not handled:
                response = await http.post("/", json=body)
                assert (response.status_code, response.json()["published"]) == (200, True)
                ids.append(response.json()["correlation_id"])
                with suppress(TimeoutError):
                    await eventually(lambda: bool(handled), 2.0)
    order, message = handled[0]
    assert order == {"id": 7}
    assert message.headers["x-request-id"] == "r-1"
    assert message.correlation_id in ids


PATTERNS = [
    pytest.param("nats", lambda name: ((f"{name}.*.new",), {}), "{}.7.new", id="nats"),
    pytest.param("nats", lambda name: ((f"{name}.{{id}}.new",), {}), "{}.7.new", id="nats-parameter"),
    pytest.param("redis", lambda name: ((f"{name}.*",), {}), "{}.7.new", id="redis"),
    pytest.param("mqtt", lambda name: ((f"{name}/#",), {"shared": "workers"}), "{}/7/new", id="mqtt"),
    pytest.param(
        "rabbit",
        lambda name: (
            (RabbitQueue(name, routing_key="a.#"), RabbitExchange(name, type=ExchangeType.TOPIC)),
            {},
        ),
        "a.7.new",
        id="rabbit",
        marks=pytest.mark.full,
    ),
]


@pytest.mark.parametrize(("name", "options", "destination"), PATTERNS)
async def test_a_subscriber_of_a_pattern_gets_what_is_sent_to_a_destination_that_it_covers(
    name: str, options: Callable[[str], Options], destination: str
) -> None:
    broker = _broker(name)
    unique = f"orders-{uuid.uuid4().hex}"
    arguments, keywords = options(unique)

    async def double(number: int) -> int:
        return 2 * number

    broker.subscriber(*arguments, **keywords)(double)
    async with _running(broker) as http:
        [channel] = _names((await http.get("/")).text)
        body = {"channel": channel, "message": 21, "destination": destination.format(unique)}
        response = await http.post("/", json=body)
        assert (response.status_code, response.json()["reply"]) == (200, 42)
        refused = await http.post("/", json={**body, "destination": "bills"})
        assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["destination"])


@pytest.mark.parametrize(
    "pattern",
    [
        "{}.*",
        "{}.?",
        "{}.??",
        "{}.[ab]",
        "{}.[^ab]",
        "{}.[a-c]",
        "{}.[c-a]",
        "{}.[^]",
        "{}.[]",
        "{}.[a",
        "{}.[\\]]",
        "{}.[.+(]",
        "{}.\\*",
        "{}.\\",
        "{}.**",
        "{}.(a|b)",
        "*{}.b",
    ],
)
async def test_redis_and_the_endpoint_agree_on_what_a_pattern_covers(pattern: str) -> None:
    unique = uuid.uuid4().hex
    pattern = pattern.format(unique)
    async with _broker("redis") as broker:
        redis = await broker.connect()
        async with redis.pubsub() as subscription:
            await subscription.psubscribe(pattern)
            await subscription.get_message(timeout=30.0)
            ends = ("", "a", "b", "c", "d", "ab", "é", "]", "\\", "[a", "(a|b)", "+", "^", "-", "a\n", "?x")
            channels = [f"{unique}.{end}" for end in ends]
            covered = {each: bool(await redis.publish(each, "")) for each in channels}
    assert {each: redis_covers(pattern, each) for each in channels} == covered


async def test_a_jetstream_subscriber_gets_the_message_through_its_stream(nats_js: NatsServer) -> None:
    broker = NatsBroker(nats_js.url)
    handled = asyncio.Event()
    name = uuid.uuid4().hex

    @broker.subscriber(name, stream=JStream(name, subjects=[name]), durable=name, pull_sub=PullSub())
    async def handle(order: int) -> None:
        handled.set()

    async with _running(broker) as http:
        response = await http.post("/", json={"channel": name, "message": 7})
        assert response.status_code == 200
        async with asyncio.timeout(10.0):
            await handled.wait()
        state = (await (await broker.connect()).jetstream().stream_info(name)).state
        assert state.messages == 1


async def test_the_confirmation_of_a_stream_is_not_taken_for_the_reply(nats_js: NatsServer) -> None:
    broker = NatsBroker(nats_js.url)
    handled: list[int] = []
    name = uuid.uuid4().hex

    @broker.subscriber(name)
    async def double(number: int) -> int:
        handled.append(number)
        return 2 * number

    async with _running(broker) as http:
        jetstream = (await broker.connect()).jetstream()
        await jetstream.add_stream(name=name, subjects=[name], max_msgs=1, discard=DiscardPolicy.NEW)
        # The stream stores the first message, and refuses the second one.
        for number in (1, 2):
            response = await http.post("/", json={"channel": name, "message": number})
            result = response.json()
            assert (response.status_code, result["published"], result["reply"]) == (200, True, None)
            assert "confirmation came instead of the subscriber's reply" in result["detail"]
        await eventually(lambda: handled == [1, 2])
        await jetstream.delete_stream(name)
        response = await http.post("/", json={"channel": name, "message": 3})
        assert response.json()["reply"] == 6


async def test_a_stream_that_is_gone_is_502(nats_js: NatsServer) -> None:
    broker = NatsBroker(nats_js.url)
    name = uuid.uuid4().hex

    @broker.subscriber(name, stream=JStream(name, subjects=[name]), durable=name, pull_sub=PullSub())
    async def handle(order: int) -> None:
        raise NotImplementedError

    async with _running(broker) as http:
        await (await broker.connect()).jetstream().delete_stream(name)
        response = await http.post("/", json={"channel": name, "message": 7})
        assert response.status_code in {502, 504}


@pytest.mark.full
async def test_a_message_that_no_queue_receives_is_502() -> None:
    broker = _broker("rabbit")
    broker.publisher(name := uuid.uuid4().hex, schema=int)
    async with _running(broker) as http:
        response = await http.post("/", json={"channel": name, "message": 1})
        assert (response.status_code, response.json()["published"]) == (502, False)
        assert "no queue receives it" in response.json()["detail"]


def _redis_list(name: str) -> Options:
    return (), {"list": ListSub(name)}


def _redis_stream(name: str) -> Options:
    return (), {"stream": StreamSub(name)}


def _subject(name: str) -> Options:
    return (name,), {}


REPLIES = [
    pytest.param("nats", _subject, id="nats"),
    pytest.param("redis", _subject, id="redis-channel"),
    pytest.param("redis", _redis_list, id="redis-list", marks=pytest.mark.full),
    pytest.param("redis", _redis_stream, id="redis-stream", marks=pytest.mark.full),
    pytest.param("rabbit", _subject, id="rabbit", marks=pytest.mark.full),
    pytest.param("mqtt", _subject, id="mqtt"),
]


@pytest.mark.parametrize(("name", "options"), REPLIES)
async def test_the_reply_is_returned(name: str, options: Callable[[str], Options]) -> None:
    broker = _broker(name)
    arguments, keywords = options(f"sums-{uuid.uuid4().hex}")

    async def add(numbers: list[int]) -> dict[str, int]:
        return {"sum": sum(numbers)}

    broker.subscriber(*arguments, **keywords)(add)
    async with _running(broker) as http:
        [channel] = _names((await http.get("/")).text)
        response = await http.post("/", json={"channel": channel, "message": [1, 2, 3]})
        assert response.status_code == 200
        assert response.json()["reply"] == {"sum": 6}


@pytest.mark.parametrize(("name", "options"), REPLIES)
async def test_a_handler_that_fails_is_504(name: str, options: Callable[[str], Options]) -> None:
    broker = _broker(name)
    arguments, keywords = options(f"fails-{uuid.uuid4().hex}")
    called = asyncio.Event()

    async def fail(number: int) -> int:
        called.set()
        msg = "the handler fails"
        raise RuntimeError(msg)

    broker.subscriber(*arguments, **keywords)(fail)
    async with _running(broker, timeout=1.0) as http:
        [channel] = _names((await http.get("/")).text)
        response = await http.post("/", json={"channel": channel, "message": 1})
        assert (response.status_code, called.is_set()) == (504, True)
        assert response.json()["detail"] == "No reply within 1 s. The message may have been published."


async def test_messages_of_mqtt_3_have_no_reply() -> None:
    server = shared_server(HARNESSES["mqtt"])
    broker = MQTTBroker("127.0.0.1", port=server.port, version="3.1.1")
    handled = asyncio.Event()

    @broker.subscriber(name := uuid.uuid4().hex)
    async def double(number: int) -> int:
        handled.set()
        return 2 * number

    async with _running(broker) as http:
        response = await http.post("/", json={"channel": name, "message": 1})
        assert (response.status_code, "reply" in response.json()) == (200, False)
        async with asyncio.timeout(10.0):
            await handled.wait()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.full if harness.starts_slowly or name != "redis" else [])
        for name, harness in HARNESSES.items()
    ],
)
async def test_a_frozen_server_is_504_and_publishing_works_again_after_it(name: str) -> None:
    harness = HARNESSES[name]
    if reason := harness.missing():  # pragma: no cover (installed where skips are forbidden)
        pytest.skip(reason)
    with closing(harness.server()) as server:
        server.start()
        broker: Any = harness.broker(server.url)

        async def handle(order: int) -> None:
            """Do nothing."""

        # RabbitMQ returns what no queue receives.
        broker.subscriber("orders")(handle)
        body = {"channel": "orders", "message": 1}
        async with _running(broker, timeout=1.0) as http:
            assert (await http.post("/", json=body)).status_code == 200
            server.freeze()
            # Some clients write to the socket and wait for nothing.
            frozen = await http.post("/", json=body)
            assert frozen.status_code == 504 or name in {"nats", "mqtt"}
            server.thaw()
            async with asyncio.timeout(60.0):
                # Each attempt takes up to a second: some clients need a few.
                while (await http.post("/", json=body)).status_code != 200:  # pragma: no branch (as above)
                    pass  # pragma: no cover (as above)


async def test_a_broker_that_has_not_started_is_503() -> None:
    broker: Any = HARNESSES["nats"].broker(HARNESSES["nats"].unreachable_url())
    broker.publisher("orders", schema=int)
    lifespan = BrokerLifespan(broker, startup="background")
    async with lifespan, client(make_publish_asgi(lifespan, authorize=lambda _: True)) as http:
        response = await http.post("/", json={"channel": "orders", "message": 1})
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")


def _names(page: str) -> list[str]:
    return [html.unescape(each) for each in re.findall('name="channel" value="([^"]*)"', page)]
