"""Subscribers that are paused, resumed, selected and optional, with real servers of every kind."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from faststream import AckPolicy, FastStream
from faststream.exceptions import SetupError
from faststream.mqtt import MQTTBroker
from faststream.nats import JStream, NatsBroker, PullSub, TestNatsBroker
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue
from faststream.redis import ListSub, StreamSub
from nats.js.api import ConsumerConfig
from zmqtt import ReconnectConfig

from faststream_adapters import (
    BrokerLifespan,
    BrokerNotUpError,
    BrokerStartError,
    make_liveness_asgi,
    make_readiness_asgi,
)
from faststream_adapters._brokers.driver import Driver
from faststream_adapters._compat.nats import callback_task
from faststream_adapters._lifecycle import subscriber_monitor, supervisor
from faststream_adapters._lifecycle.broker_check import Result
from faststream_adapters._lifecycle.managed import managed_broker
from tests.harness.brokers import HARNESSES
from tests.harness.brokers.shared import shared_server
from tests.harness.clients import client, eventually_status, status
from tests.harness.servers.nats import NatsServer
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.harness.servers.broker import BrokerServer
    from tests.harness.servers.nats import NatsFactory

pytestmark = pytest.mark.timeout(120)

TIMEOUT = 60.0


# --- kinds of subscribers ---


def nats(channel: str) -> dict[str, Any]:
    return {"subject": channel}


def jetstream(**options: Any) -> Callable[[str], dict[str, Any]]:
    return lambda channel: {
        "subject": channel,
        "stream": JStream(channel, subjects=[channel]),
        "durable": channel,
        **options,
    }


def push_jetstream(**options: Any) -> Callable[[str], dict[str, Any]]:
    return lambda channel: {
        "subject": channel,
        "stream": JStream(channel, subjects=[channel]),
        "queue": channel,
        **options,
    }


async def publish(broker: Any, channel: str, number: int) -> None:
    await broker.publish(number, channel)


async def put_key(broker: Any, channel: str, number: int) -> None:
    bucket = await broker.key_value(channel)
    await bucket.put(channel, str(number).encode())


async def put_file(broker: Any, channel: str, number: int) -> None:
    bucket = await broker.object_storage(channel)
    await bucket.put(str(number), b"content")


async def push(broker: Any, channel: str, number: int) -> None:
    await broker.publish(number, list=channel)


async def append(broker: Any, channel: str, number: int) -> None:
    await broker.publish(number, stream=channel)


async def publish_surely(broker: Any, channel: str, number: int) -> None:
    await broker.publish(number, channel, qos=1)


def mqtt_with_session(url: str) -> MQTTBroker:
    return MQTTBroker(
        url,
        client_id=uuid.uuid4().hex,
        clean_session=False,
        session_expiry_interval=600,
        reconnect=ReconnectConfig(initial_delay=0.05, max_delay=0.05),
    )


@dataclass(frozen=True)
class Kind:
    """A kind of subscriber.

    Args:
        harness: The kind of the broker.
        options: Returns the options of `broker.subscriber()` for a channel.
        publish: Publishes a number to a channel.
        keeps: Whether the server keeps messages while nothing consumes.
        finishes: Whether everything that was delivered before the pause is handled.
        jetstream: Whether it needs JetStream.
        broker: Returns another broker than the harness, if it needs one.
        full: Whether it runs in the full run only.
    """

    harness: str
    options: Callable[[str], dict[str, Any]]
    publish: Callable[[Any, str, int], Awaitable[None]] = publish
    keeps: bool = True
    finishes: bool = True
    jetstream: bool = False
    broker: Callable[[str], Any] | None = None
    full: bool = False


KINDS = {
    "nats": Kind("nats", nats, keeps=False),
    "nats-workers": Kind("nats", lambda name: {"subject": name, "max_workers": 2}, keeps=False, full=True),
    "push": Kind("nats", push_jetstream(), jetstream=True),
    "push-workers": Kind("nats", push_jetstream(max_workers=2), jetstream=True, full=True),
    "pull": Kind("nats", jetstream(pull_sub=PullSub(batch_size=2)), jetstream=True),
    "pull-workers": Kind("nats", jetstream(pull_sub=True, max_workers=2), jetstream=True, full=True),
    "pull-batch": Kind(
        "nats", jetstream(pull_sub=PullSub(batch_size=2, timeout=0.1, batch=True)), jetstream=True, full=True
    ),
    "key-value": Kind(
        "nats",
        lambda name: {"subject": name, "kv_watch": name},
        put_key,
        keeps=False,
        finishes=False,
        jetstream=True,
    ),
    "object-store": Kind(
        "nats",
        lambda name: {"subject": name, "obj_watch": True},
        put_file,
        keeps=False,
        finishes=False,
        jetstream=True,
        full=True,
    ),
    "redis-list": Kind("redis", lambda name: {"list": ListSub(name, polling_interval=0.1)}, push),
    "redis-list-workers": Kind(
        "redis", lambda name: {"list": ListSub(name, polling_interval=0.1), "max_workers": 2}, push, full=True
    ),
    "redis-group": Kind(
        "redis",
        lambda name: {"stream": StreamSub(name, group="workers", consumer="one", polling_interval=10)},
        append,
    ),
    "redis-stream": Kind("redis", lambda name: {"stream": StreamSub(name, polling_interval=10)}, append),
    "redis-channel": Kind("redis", lambda name: {"channel": name}, keeps=False),
    "mqtt": Kind("mqtt", lambda name: {"topic": name, "qos": 1}, publish_surely, keeps=False),
    "mqtt-workers": Kind(
        "mqtt",
        lambda name: {"topic": name, "qos": 1, "max_workers": 2},
        publish_surely,
        keeps=False,
        full=True,
    ),
    "mqtt-session": Kind(
        "mqtt", lambda name: {"topic": name, "qos": 1}, publish_surely, broker=mqtt_with_session, full=True
    ),
    "kafka": Kind(
        "kafka", lambda name: {"topics": name, "group_id": name, "auto_offset_reset": "earliest"}, full=True
    ),
    "kafka-workers": Kind(
        "kafka",
        lambda name: {
            "topics": name,
            "group_id": name,
            "auto_offset_reset": "earliest",
            "max_workers": 2,
            "ack_policy": AckPolicy.ACK_FIRST,
        },
        full=True,
    ),
    "confluent": Kind(
        "confluent",
        lambda name: {"topics": name, "group_id": name, "auto_offset_reset": "earliest"},
        full=True,
    ),
    "rabbit": Kind("rabbit", lambda name: {"queue": name}, full=True),
}


def kinds(*names: str) -> list[Any]:
    selected = {name: kind for name, kind in KINDS.items() if not names or name in names}
    return [
        pytest.param(name, marks=pytest.mark.full if kind.full else []) for name, kind in selected.items()
    ]


class Service:
    """A broker with a subscriber, whose handler waits until it may go on, and another one."""

    def __init__(self, kind: Kind, url: str) -> None:
        self.kind = kind
        harness = HARNESSES[kind.harness]
        self.broker: Any = (kind.broker or harness.broker)(url)
        self.channel = f"pause-{uuid.uuid4().hex}"
        self.handled: list[int] = []
        self.others: list[int] = []
        self.started = asyncio.Event()
        self.may_finish = asyncio.Event()
        self.may_finish.set()
        self.subscriber(self.channel)(self.handle)
        self.subscriber(f"{self.channel}-other")(self.other)
        self.lifespan = BrokerLifespan(self.broker)
        self.managed = managed_broker(self.broker)
        self.driver = self.managed.driver

    def subscriber(self, channel: str) -> Any:
        options = self.kind.options(channel)
        positional = next(
            (options.pop(name) for name in ("subject", "topics", "topic", "queue") if name in options), None
        )
        return self.broker.subscriber(*([positional] if positional else []), **options)

    async def handle(self, body: Any) -> None:
        self.started.set()
        await self.may_finish.wait()
        self.handled += numbers(body)

    async def other(self, body: Any) -> None:
        self.others += numbers(body)

    async def publish(self, *messages: int) -> None:
        for number in messages:
            await self.kind.publish(self.broker, self.channel, number)

    async def publish_and_handle(self, number: int) -> None:
        await self.publish(number)
        await eventually(lambda: number in self.handled, TIMEOUT)

    async def publish_until_handled(self, number: int) -> None:
        """Publish a number again and again until it is handled: a restarted server may have lost the log."""
        async with asyncio.timeout(TIMEOUT):
            while number not in self.handled:
                await self.publish(number)
                with suppress(TimeoutError):
                    await eventually(lambda: number in self.handled, 2.0)

    async def others_are_handled(self) -> None:
        """Publish to the other subscriber, and wait until it has handled that."""
        number = len(self.others)
        async with asyncio.timeout(TIMEOUT):
            while number not in self.others:
                number += 1
                await self.kind.publish(self.broker, f"{self.channel}-other", number)
                with suppress(TimeoutError):
                    await eventually(partial(self.others.__contains__, number), 2.0)

    async def lose_client(self) -> None:
        """Close the client, and wait until supervision has restarted the broker."""
        closed = self.broker.connection
        await closed.close()
        await eventually(lambda: self.managed.up and self.broker.connection is not closed, TIMEOUT)

    @property
    def code(self) -> str:
        [code] = [info.code for info in self.lifespan.subscribers if info.name == "handle"]
        return code


def numbers(body: Any) -> list[int]:
    return [int(each) for each in (body if isinstance(body, list) else [body])]


@pytest.fixture
def fast_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.05)


@pytest.fixture
def service_of(nats_factory: NatsFactory) -> Callable[[str], Service]:
    def make(name: str) -> Service:
        kind = KINDS[name]
        server = nats_factory(jetstream=True) if kind.jetstream else shared_server(HARNESSES[kind.harness])
        return Service(kind, server.url)

    return make


@pytest.mark.parametrize("name", kinds())
async def test_what_was_delivered_is_finished_and_the_rest_waits(
    name: str, service_of: Callable[[str], Service]
) -> None:
    service = service_of(name)
    lifespan, kind = service.lifespan, service.kind
    async with lifespan:
        await service.publish_and_handle(0)
        service.may_finish.clear()
        service.started.clear()
        await service.publish(1, 2, 3)
        await service.started.wait()
        pausing = asyncio.create_task(lifespan.pause("handle"))
        await service.others_are_handled()
        assert service.code == "paused"
        assert not pausing.done()
        service.may_finish.set()
        await asyncio.wait_for(pausing, TIMEOUT)
        finished = set(service.handled)
        assert {0, 1} <= finished if kind.keeps or not kind.finishes else finished == {0, 1, 2, 3}
        await service.publish(4, 5)
        await service.others_are_handled()
        assert set(service.handled) == finished
        assert await status(make_readiness_asgi(lifespan)) == 200
        await lifespan.resume("handle")
        assert service.code == "ok"
        if kind.keeps:
            await eventually(lambda: len(service.handled) >= 6, TIMEOUT)
            assert sorted(service.handled) == [0, 1, 2, 3, 4, 5]
        await service.publish_and_handle(6)
        await service.others_are_handled()
    assert not service.broker.running


@pytest.mark.parametrize("name", kinds())
async def test_a_paused_subscriber_drains_with_its_lifespan(
    name: str, service_of: Callable[[str], Service]
) -> None:
    service = service_of(name)
    async with service.lifespan:
        await service.publish_and_handle(0)
        service.may_finish.clear()
        service.started.clear()
        await service.publish(1)
        await service.started.wait()
        pausing = asyncio.create_task(service.lifespan.pause("handle"))
        await eventually(lambda: service.code == "paused")
        asyncio.get_running_loop().call_later(0.05, service.may_finish.set)
    await asyncio.wait_for(pausing, TIMEOUT)
    assert 1 in service.handled


@pytest.fixture
def servers() -> Iterator[Callable[[Kind], BrokerServer]]:
    """Return a function that starts a server which belongs to this test alone."""
    with ExitStack() as stack:

        def start(kind: Kind) -> BrokerServer:
            harness = HARNESSES[kind.harness]
            if reason := harness.missing():  # pragma: no cover (installed where skips are forbidden)
                pytest.skip(reason)
            if kind.jetstream:
                return stack.enter_context(NatsServer(jetstream=True))
            return stack.enter_context(harness.server())

        yield start


RESTARTED = [
    "nats",
    "pull",
    "push",
    "redis-group",
    "redis-channel",
    "mqtt",
    "mqtt-session",
    "kafka",
    "confluent",
    "rabbit",
]


@pytest.mark.parametrize(
    "name",
    [pytest.param(each, marks=[] if each == "pull" else pytest.mark.full) for each in RESTARTED],
)
async def test_a_subscriber_stays_paused_when_the_server_is_killed_and_restarted(
    name: str, servers: Callable[[Kind], BrokerServer]
) -> None:
    server = servers(KINDS[name])
    service = Service(KINDS[name], server.url)
    ready = make_readiness_asgi(service.lifespan)
    async with service.lifespan:
        await service.publish_and_handle(0)
        await service.lifespan.pause("handle")
        server.kill()
        await eventually_status(ready, 503)
        server.restart()
        await eventually_status(ready, 200, TIMEOUT)
        await service.others_are_handled()
        await service.publish(1)
        await service.others_are_handled()
        assert (service.code, service.handled) == ("paused", [0])
        await service.lifespan.resume("handle")
        await service.publish_until_handled(2)


@pytest.mark.usefixtures("fast_supervision")
@pytest.mark.parametrize("name", ["nats", pytest.param("pull", marks=pytest.mark.full)])
async def test_a_subscriber_stays_paused_when_supervision_restarts_the_broker(
    name: str, service_of: Callable[[str], Service]
) -> None:
    service = service_of(name)
    async with service.lifespan:
        await service.publish_and_handle(0)
        await service.lifespan.pause("handle")
        await service.lose_client()
        await service.others_are_handled()
        assert (service.code, service.handled) == ("paused", [0])
        await service.lifespan.resume("handle")
        await service.publish_and_handle(1)


# --- order of events, with NATS ---


@pytest.fixture
def service(service_of: Callable[[str], Service]) -> Service:
    return service_of("nats")


@pytest.mark.usefixtures("fast_supervision")
async def test_a_pause_goes_on_when_the_broker_is_restarted_meanwhile(service: Service) -> None:
    service.may_finish.clear()
    async with service.lifespan:
        await service.publish(1)
        await service.started.wait()
        pausing = asyncio.create_task(service.lifespan.pause("handle"))
        await eventually(lambda: bool(service.driver.pausing))
        await service.lose_client()
        await pausing
        assert service.code == "paused"
        await service.others_are_handled()
        service.may_finish.set()


@pytest.mark.usefixtures("fast_supervision")
async def test_a_resume_goes_on_when_the_broker_is_restarted_meanwhile(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    resuming = asyncio.Event()

    async def hang(subscriber: object) -> None:
        resuming.set()
        await asyncio.Event().wait()

    async with service.lifespan:
        await service.lifespan.pause("handle")
        with monkeypatch.context() as patched:
            patched.setattr(service.driver, "resume", hang)
            waiting = asyncio.create_task(service.lifespan.resume("handle"))
            await resuming.wait()
        await service.lose_client()
        await waiting
        assert service.code == "ok"
        await service.publish_and_handle(1)


async def test_pausing_twice_and_resuming_twice_are_the_same_as_once(service: Service) -> None:
    async with service.lifespan as _:
        await asyncio.gather(*(service.lifespan.pause("handle") for _ in range(3)))
        await service.lifespan.pause("handle")
        assert service.code == "paused"
        await asyncio.gather(*(service.lifespan.resume("handle") for _ in range(3)))
        await service.lifespan.resume("handle")
        assert service.code == "ok"
        await service.publish_and_handle(1)


@pytest.mark.parametrize("name", ["nats", pytest.param("kafka", marks=pytest.mark.full)])
async def test_what_is_resumed_while_the_application_has_stopped_the_broker_starts_with_it_once(
    service_of: Callable[[str], Service], name: str
) -> None:
    service = service_of(name)
    async with service.lifespan:
        await service.broker.stop()
        await service.lifespan.pause("handle")
        assert service.code == "paused"
        await service.lifespan.resume("handle")
        assert service.code == "stopped"
        await service.broker.start()
        await eventually(lambda: service.code == "ok")
        await service.publish_and_handle(1)
        await service.publish_and_handle(2)
        assert sorted(service.handled) == sorted(set(service.handled))


@pytest.mark.parametrize("name", ["nats", pytest.param("kafka", marks=pytest.mark.full)])
async def test_what_is_resumed_while_the_application_stops_the_broker_starts_with_it_once(
    service_of: Callable[[str], Service], name: str
) -> None:
    service = service_of(name)
    async with service.lifespan:
        await service.lifespan.pause("handle")
        stopping = asyncio.create_task(service.broker.stop())
        # It begins.
        await asyncio.sleep(0)
        await service.lifespan.resume("handle")
        assert service.code == "stopped"
        await stopping
        await service.broker.start()
        await eventually(lambda: service.code == "ok")
        await service.publish_and_handle(1)
        await service.publish_and_handle(2)
        assert sorted(service.handled) == sorted(set(service.handled))


async def test_the_last_of_concurrent_calls_counts(service: Service) -> None:
    pause, resume = service.lifespan.pause, service.lifespan.resume
    service.may_finish.clear()
    async with service.lifespan:
        await service.publish(0)
        await service.started.wait()
        calls = [asyncio.create_task(pause("handle"))]
        await eventually(lambda: bool(service.driver.pausing))
        calls += [asyncio.create_task(call("handle")) for call in (resume, pause, resume)]
        await asyncio.sleep(0)
        service.may_finish.set()
        await asyncio.gather(*calls)
        assert service.code == "ok"
        await service.publish_and_handle(1)
        await asyncio.gather(*(call("handle") for call in (resume, pause, resume, pause)))
        assert service.code == "paused"


async def test_a_pause_that_is_undone_at_once_leaves_the_subscriber_alone(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    checking = asyncio.Event()
    reply: asyncio.Future[Result] = asyncio.Future()

    def check(seconds: float) -> asyncio.Future[Result]:
        checking.set()
        return reply

    async def fail(subscriber: object) -> None:
        raise AssertionError

    async with service.lifespan:
        with monkeypatch.context() as patched:
            patched.setattr(service.managed.broker_check, "check", check)
            patched.setattr(service.driver, "pause", fail)
            patched.setattr(service.driver, "resume", fail)
            pausing = asyncio.create_task(service.lifespan.pause("handle"))
            await checking.wait()
            resuming = asyncio.create_task(service.lifespan.resume("handle"))
            await asyncio.sleep(0)
            reply.set_result(Result("ok", 0.0))
            await asyncio.gather(pausing, resuming)
        await service.publish_and_handle(1)


@pytest.mark.full
@pytest.mark.parametrize("name", ["kafka", "confluent"])
async def test_a_consumer_that_is_paused_while_it_joins_its_group_does_not_block_it(
    name: str, service_of: Callable[[str], Service]
) -> None:
    service = service_of(name)
    async with service.lifespan:
        await service.publish_and_handle(0)
        for _ in range(2):
            await service.lifespan.pause("handle")
            await service.lifespan.resume("handle")
        await service.publish_and_handle(1)


async def test_logs_and_errors_use_the_unique_names_of_subscribers(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(subscriber: object) -> None:
        raise PermissionError

    caplog.set_level("INFO", "faststream.adapters")
    service.subscriber(f"{service.channel}-second")(service.handle)
    name = f"handle@{service.channel}-second"
    async with service.lifespan:
        await service.lifespan.pause(name)
        monkeypatch.setattr(service.driver, "resume", refuse)
        with pytest.raises(BrokerStartError, match=f"the subscriber {name} could not be resumed"):
            await service.lifespan.resume(name)
        paused = {info.name for info in service.lifespan.subscribers if info.code == "paused"}
    assert paused == {name}
    lines = [record for record in caplog.records if "subscriber" in vars(record)]
    assert {vars(record)["subscriber"] for record in lines} == {name}
    assert all(f"the subscriber {name} " in record.getMessage() for record in lines)
    assert len(lines) >= 2


async def test_a_cancelled_pause_goes_on(service: Service) -> None:
    service.may_finish.clear()
    async with service.lifespan:
        await service.publish(1)
        await service.started.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await service.lifespan.pause("handle")
        service.may_finish.set()
        await service.lifespan.pause("handle")
        assert service.handled == [1]
        await service.others_are_handled()
        await service.lifespan.resume("handle")
        await service.publish_and_handle(2)


async def test_a_handler_can_pause_its_own_subscriber(service: Service) -> None:
    broker: Any = service.broker

    async def own(number: int) -> None:
        await service.lifespan.pause(own)
        service.handled.append(number)

    broker.subscriber(f"{service.channel}-own")(own)
    async with service.lifespan:
        await broker.publish(1, f"{service.channel}-own")
        await eventually(lambda: service.handled == [1])
        await service.lifespan.pause(own)
        await broker.publish(2, f"{service.channel}-own")
        await service.others_are_handled()
        assert service.handled == [1]


async def test_a_handler_can_pause_another_subscriber(service: Service) -> None:
    broker: Any = service.broker

    async def command(text: str) -> None:
        await getattr(service.lifespan, text)("handle")
        service.others.append(0)

    broker.subscriber(f"{service.channel}-command")(command)
    async with service.lifespan:
        await broker.publish("pause", f"{service.channel}-command")
        await eventually(lambda: service.others == [0])
        assert service.code == "paused"
        await broker.publish("resume", f"{service.channel}-command")
        await eventually(lambda: service.others == [0, 0])
        # The subscriber does not run in the context of the message that has resumed it.
        await service.publish_and_handle(1)
        assert service.code == "ok"


async def test_a_pause_is_visible_in_every_lifespan_that_shares_the_broker(service: Service) -> None:
    other = BrokerLifespan(service.broker)
    async with other:
        async with service.lifespan:
            await other.pause("handle")
            assert service.code == "paused"
        assert [info.code for info in other.subscribers] == ["paused", "ok"]
        await service.others_are_handled()
        await other.resume("handle")
        await service.publish_and_handle(1)
        await other.pause("handle")
    async with service.lifespan:
        # The last lifespan of the broker has stopped meanwhile.
        assert service.code == "ok"


async def test_a_subscriber_that_is_paused_before_the_start_is_left_out() -> None:
    service = Service(KINDS["nats"], shared_server(HARNESSES["nats"]).url)

    async def pause() -> None:
        await lifespan.pause("handle")

    lifespan = BrokerLifespan(FastStream(service.broker, on_startup=[pause]))
    async with lifespan:
        assert [info.code for info in lifespan.subscribers] == ["paused", "ok"]
        await service.publish(1)
        await service.others_are_handled()
        assert service.handled == []
        await lifespan.resume("handle")
        await service.publish_and_handle(2)


@pytest.mark.parametrize("consume", [True, []], ids=["all", "none"])
async def test_a_subscriber_is_paused_or_resumed_while_its_broker_starts(
    service: Service, monkeypatch: pytest.MonkeyPatch, consume: Any
) -> None:
    lifespan = BrokerLifespan(service.broker, startup="background", consume=consume)
    starting, may_start = asyncio.Event(), asyncio.Event()
    start_subscribers, declare = service.driver.start_subscribers, service.driver.declare

    async def start() -> None:
        await start_subscribers()
        starting.set()
        await may_start.wait()

    async def wait() -> None:
        await declare()
        if not consume:
            starting.set()
            await may_start.wait()

    monkeypatch.setattr(service.driver, "start_subscribers", start)
    monkeypatch.setattr(service.driver, "declare", wait)
    async with lifespan:
        await starting.wait()
        change = lifespan.pause if consume else lifespan.resume
        changing = asyncio.create_task(change("handle"))
        await asyncio.wait((changing,), timeout=0.05)
        may_start.set()
        await changing
        await eventually(lambda: str(lifespan.state) == "running")
        expected = {"handle": "paused", "other": "ok"} if consume else {"handle": "ok", "other": "stopped"}
        # What was resumed before the broker was up starts after it.
        await eventually(lambda: {info.name: info.code for info in lifespan.subscribers} == expected)
        await service.publish(1)
        if consume:
            await service.others_are_handled()
            assert service.handled == []
        else:
            await eventually(lambda: service.handled == [1])


async def test_pause_and_resume_need_a_lifespan_that_runs(service: Service) -> None:
    for change, name in ((service.lifespan.pause, "pause"), (service.lifespan.resume, "resume")):
        with pytest.raises(BrokerNotUpError, match=rf"^{name}\(\) works while the lifespan runs.*'stopped'"):
            await change("handle")
        with pytest.raises(
            SetupError, match=rf"^{name}\(\): 'handel' is not a subscriber.*Did you mean 'handle'"
        ):
            await change("handel")


async def test_another_event_loop_cannot_pause(service: Service) -> None:
    async with service.lifespan:
        with pytest.raises(SetupError, match=r"pause\(\) must be called in the event loop of the lifespan"):
            await asyncio.to_thread(asyncio.run, service.lifespan.pause("handle"))
        assert service.code == "ok"


async def test_pause_during_the_drain_only_waits(service: Service) -> None:
    paused = asyncio.Event()

    async def finish() -> None:
        await service.lifespan.draining()
        await service.lifespan.pause("handle")
        await service.lifespan.resume("handle")
        paused.set()

    async with service.lifespan:
        waiting = asyncio.create_task(finish())
    await paused.wait()
    await waiting
    assert not service.broker.running


async def test_a_subscriber_that_is_being_resumed_drains_too(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    resuming, may_resume = asyncio.Event(), asyncio.Event()
    resume = service.driver.resume

    async def wait_and_resume(subscriber: Any) -> Any:
        resuming.set()
        await may_resume.wait()
        return await resume(subscriber)

    monkeypatch.setattr(service.driver, "resume", wait_and_resume)
    async with service.lifespan:
        await service.lifespan.pause("handle")
        waiting = asyncio.create_task(service.lifespan.resume("handle"))
        await resuming.wait()
        asyncio.get_running_loop().call_later(0.05, may_resume.set)
    await waiting
    assert not any(subscriber.running for subscriber in service.broker.subscribers)


async def test_a_handler_that_does_not_finish_is_cut_off_by_the_drain(service: Service) -> None:
    lifespan = BrokerLifespan(service.broker, shutdown_timeout=0.2)
    service.may_finish.clear()
    async with lifespan:
        await service.publish(1)
        await service.started.wait()
        pausing = asyncio.create_task(lifespan.pause("handle"))
        await eventually(lambda: bool(service.driver.pausing))
    await pausing
    assert not service.broker.running
    service.may_finish.set()


async def test_pausing_has_no_effect_under_a_test_broker() -> None:
    broker = NatsBroker()
    received: list[int] = []

    @broker.subscriber("orders")
    async def handle(number: int) -> None:
        received.append(number)

    lifespan = BrokerLifespan(broker)
    async with TestNatsBroker(broker, connect_only=True), lifespan:
        await lifespan.pause(handle)
        await broker.publish(1, "orders")
        assert [info.code for info in lifespan.subscribers] == ["ok"]
        await lifespan.resume(handle)
    assert received == [1]


# --- what a server refuses ---


async def test_a_subscriber_that_cannot_be_resumed_stays_paused(
    nats_js: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(KINDS["pull"], nats_js.url)
    async with service.lifespan:
        await service.lifespan.pause("handle")
        context = service.broker.connection.jetstream()
        await context.delete_consumer(service.channel, service.channel)
        other = ConsumerConfig(
            durable_name=service.channel, filter_subject=service.channel, deliver_subject="elsewhere"
        )
        await context.add_consumer(service.channel, other)
        with pytest.raises(
            BrokerStartError, match="handle could not be resumed: declared a pull consumer, found"
        ):
            await service.lifespan.resume("handle")
        assert service.code == "paused"
        assert await status(make_readiness_asgi(service.lifespan)) == 200
        assert "handle could not be resumed and stays paused: declared a pull consumer" in caplog.text
        await context.delete_consumer(service.channel, service.channel)
        await service.lifespan.resume("handle")
        await service.publish_and_handle(1)


async def test_an_error_of_a_resume_has_the_words_of_the_client(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(subscriber: object) -> None:
        raise KeyError("nats://user:secret@host")

    async with service.lifespan:
        await service.lifespan.pause("handle")
        with monkeypatch.context() as patched:
            patched.setattr(service.driver, "resume", fail)
            with pytest.raises(BrokerStartError, match="could not be resumed: KeyError") as raised:
                await service.lifespan.resume("handle")
        assert "secret" not in str(raised.value)
        await service.lifespan.resume("handle")
        await service.publish_and_handle(1)


async def test_a_subscriber_that_does_not_stop_cleanly_is_cut_off(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(subscriber: object) -> None:
        raise KeyError

    service.may_finish.clear()
    async with service.lifespan:
        await service.publish(0)
        await service.started.wait()
        with monkeypatch.context() as patched:
            patched.setattr(service.driver, "pause", fail)
            patched.setattr(service.driver, "stop_now", fail)
            pausing = asyncio.create_task(service.lifespan.pause("handle"))
            await eventually(lambda: "could not be paused" in caplog.text)
            service.may_finish.set()
            await pausing
        # The handler was not cut off.
        assert service.handled == [0]
        assert "handle could not be paused cleanly: KeyError" in caplog.text
        assert "handle could not be stopped: KeyError" in caplog.text
        assert service.code == "paused"
        await service.lifespan.resume("handle")
        await service.publish_and_handle(1)


async def test_pause_and_resume_wait_for_a_server_that_is_down(nats_factory: NatsFactory) -> None:
    server = nats_factory()
    service = Service(KINDS["nats"], server.url)
    ready = make_readiness_asgi(service.lifespan)
    async with service.lifespan:
        for change, code in ((service.lifespan.pause, "paused"), (service.lifespan.resume, "ok")):
            server.kill()
            await eventually_status(ready, 503)
            changing = asyncio.create_task(change("handle"))
            done, _ = await asyncio.wait((changing,), timeout=0.3)
            assert not done
            server.restart()
            await asyncio.wait_for(changing, TIMEOUT)
            assert service.code == code
            await eventually_status(ready, 200)
        await service.publish_and_handle(1)


async def test_a_pause_that_is_undone_while_the_server_is_down_is_logged_as_such(
    nats_factory: NatsFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "faststream.adapters")
    server = nats_factory()
    service = Service(KINDS["nats"], server.url)
    ready = make_readiness_asgi(service.lifespan)
    async with service.lifespan:
        server.kill()
        await eventually_status(ready, 503)
        pausing = asyncio.create_task(service.lifespan.pause("handle"))
        await eventually(lambda: service.code == "paused")
        await service.lifespan.resume("handle")
        changes = [
            (vars(each)["old"], vars(each)["new"]) for each in caplog.records if "subscriber" in vars(each)
        ]
        assert changes == [("ok", "paused"), ("paused", "ok")]
        await pausing


@pytest.mark.usefixtures("fast_supervision")
async def test_a_resume_that_loses_its_connection_is_tried_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose(subscriber: object) -> None:
        await service.broker.connection.close()
        raise ConnectionError

    async with service.lifespan:
        await service.lifespan.pause("handle")
        with monkeypatch.context() as patched:
            patched.setattr(service.driver, "resume", lose)
            await service.lifespan.resume("handle")
        await eventually(lambda: service.code == "ok")
        await service.publish_and_handle(1)


async def test_a_subscriber_is_not_restarted_while_it_is_paused(nats_js: NatsServer) -> None:
    service = Service(KINDS["pull"], nats_js.url)
    monitor = managed_broker(service.broker).monitor
    async with service.lifespan:
        await service.lifespan.pause("handle")
        await service.broker.connection.jetstream().delete_consumer(service.channel, service.channel)
        await monitor.poll(ask_server=True)
        await monitor.restart_failed()
        assert service.code == "paused"
        assert await status(make_readiness_asgi(service.lifespan)) == 200
        await service.lifespan.resume("handle")
        await service.publish_and_handle(1)


async def test_the_base_driver_pauses_by_public_methods(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(service.broker)
    monkeypatch.setattr(service.driver, "pause", driver.pause)
    monkeypatch.setattr(service.driver, "resume", driver.resume)
    timeout = service.broker.config.broker_config.graceful_timeout
    async with service.lifespan:
        await service.publish_and_handle(1)
        await service.lifespan.pause(["handle", "other"])
        assert service.broker.config.broker_config.graceful_timeout == timeout
        await service.lifespan.resume(["handle", "other"])
        await service.publish_and_handle(2)


async def test_a_broker_without_a_driver_is_paused_without_a_check(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(service.driver), "has_client", False)
    async with service.lifespan:
        await service.publish_and_handle(1)
        await service.lifespan.pause("handle")
        await service.lifespan.resume("handle")
        await service.publish_and_handle(2)


@pytest.mark.parametrize(
    "name", ["nats", "redis-group", "mqtt", pytest.param("rabbit", marks=pytest.mark.full)]
)
async def test_a_subscriber_without_a_handler_can_be_paused(
    name: str, service_of: Callable[[str], Service]
) -> None:
    service = service_of(name)
    subscriber = service.subscriber(f"{service.channel}-answers")
    async with service.lifespan:
        await service.lifespan.pause(subscriber)
        assert not subscriber.running
        await service.lifespan.resume(subscriber)
        assert subscriber.running
        await service.publish_and_handle(1)


async def test_a_redis_cluster_pauses_by_public_methods(service_of: Callable[[str], Service]) -> None:
    service = service_of("redis-group")
    [subscriber] = [each for each in service.broker.subscribers if "other" in each.stream_sub.name]
    # The driver of a cluster has no reader for its subscribers.
    await service.driver.pause(subscriber)
    assert not subscriber.running


@pytest.mark.parametrize("earlier", [(), (1, 2)], ids=["empty", "with-entries"])
async def test_a_stream_that_was_not_read_yet_continues_where_it_was_paused(
    service_of: Callable[[str], Service], earlier: tuple[int, ...]
) -> None:
    service = service_of("redis-stream")
    connection = await service.broker.connect()
    for number in earlier:
        await connection.xadd(service.channel, {"number": number})
    async with service.lifespan:
        await service.lifespan.pause("handle")
        await service.publish(3, 4)
        await service.lifespan.resume("handle")
        await eventually(lambda: service.handled == [3, 4])


@pytest.mark.full
async def test_a_queue_that_the_server_names_is_resumed() -> None:
    broker = RabbitBroker(shared_server(HARNESSES["rabbit"]).url)
    exchange, received = (
        RabbitExchange(uuid.uuid4().hex, ExchangeType.FANOUT, auto_delete=True),
        asyncio.Queue[int](),
    )
    broker.subscriber(RabbitQueue("", exclusive=True), exchange)(received.put)
    lifespan = BrokerLifespan(broker, consume=[])
    async with lifespan:
        for _ in range(2):
            await lifespan.resume("put")
            await broker.publish(1, exchange=exchange)
            assert await asyncio.wait_for(received.get(), 10) == 1
            await lifespan.pause("put")


# --- consume= and optional= ---


async def test_only_what_is_selected_consumes(service: Service) -> None:
    service.lifespan = BrokerLifespan(service.broker, consume=[service.other])
    async with service.lifespan:
        await service.publish(1)
        await service.others_are_handled()
        assert (service.code, service.handled) == ("stopped", [])
        assert await status(make_readiness_asgi(service.lifespan)) == 200
        await service.lifespan.resume("handle")
        assert service.code == "ok"
        await service.publish_and_handle(2)


@pytest.mark.usefixtures("fast_supervision")
@pytest.mark.parametrize("consume", [[], False, ()], ids=["list", "false", "tuple"])
async def test_nothing_consumes_until_it_is_resumed(service: Service, consume: Any) -> None:
    service.lifespan = BrokerLifespan(service.broker, consume=consume)
    async with service.lifespan:
        assert [info.code for info in service.lifespan.subscribers] == ["stopped", "stopped"]
        await service.publish(1)
        await service.lifespan.resume("other")
        await service.others_are_handled()
        # What was resumed is part of a restart, and what was left out is not.
        await service.lose_client()
        await service.others_are_handled()
        assert (service.code, service.handled) == ("stopped", [])


async def test_a_selection_concerns_all_brokers_of_a_lifespan(shared_nats: NatsServer) -> None:
    first, second = Service(KINDS["nats"], shared_nats.url), Service(KINDS["nats"], shared_nats.url)
    selector = f"handle@{second.channel}"
    async with BrokerLifespan(first.broker, second.broker, consume=selector) as _:
        await first.publish(1)
        await second.publish_and_handle(2)
        assert not any(subscriber.running for subscriber in first.broker.subscribers)
    assert first.handled == []


async def test_what_is_declared_after_the_lifespan_was_made_can_be_selected(shared_nats: NatsServer) -> None:
    broker, received = NatsBroker(shared_nats.url), asyncio.Queue[int]()
    lifespan = BrokerLifespan(broker, consume=["late"], optional=["late"])
    channel = uuid.uuid4().hex

    @broker.subscriber(channel)
    async def late(number: int) -> None:
        await received.put(number)

    async with lifespan:
        await broker.publish(1, channel)
        assert await received.get() == 1
        later = broker.subscriber(f"{channel}-later")
        later(late)
        await later.start()
        name = f"late@{channel}-later"
        await lifespan.pause(name)
        assert {info.name: info.code for info in lifespan.subscribers}[name] == "paused"
        await broker.publish(2, f"{channel}-later")
        await lifespan.resume(name)
        await broker.publish(3, f"{channel}-later")
        assert await received.get() == 3


@pytest.mark.parametrize("keyword", ["consume", "optional"])
async def test_an_unknown_selector_fails_the_start(keyword: str) -> None:
    broker = NatsBroker("nats://127.0.0.1:1")
    broker.subscriber("orders")(print)
    lifespan = BrokerLifespan(broker, **{keyword: ["prnt"]})  # type: ignore[arg-type]
    with pytest.raises(SetupError, match=f"{keyword}: 'prnt' is not a subscriber.*Did you mean 'print'"):
        await lifespan.enter()
    assert str(lifespan.state) == "failed"


async def test_lifespans_that_share_a_broker_must_select_the_same(service: Service) -> None:
    async with BrokerLifespan(service.broker, consume=["handle"]):
        async with BrokerLifespan(service.broker, consume=service.handle):
            pass
        with pytest.raises(SetupError, match="other keywords"):
            await service.lifespan.enter()


@pytest.mark.usefixtures("fast_supervision")
async def test_an_optional_subscriber_that_cannot_be_started_is_tried_again(
    nats_js: NatsServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(subscriber_monitor, "RETRY_INTERVAL", 0.05)
    service = Service(KINDS["pull"], nats_js.url)
    async with service.lifespan:
        context = service.broker.connection.jetstream()
        await context.delete_consumer(service.channel, service.channel)
        other = ConsumerConfig(
            durable_name=service.channel, filter_subject=service.channel, deliver_subject="elsewhere"
        )
        await context.add_consumer(service.channel, other)
    lifespan = service.lifespan = BrokerLifespan(service.broker, optional=["handle"])
    async with lifespan, client(make_readiness_asgi(lifespan, details=True)) as http:
        await service.others_are_handled()
        await eventually(lambda: service.code == "consumer_mismatch")
        response = await http.get("/")
        assert (response.status_code, response.json()["status"]) == (200, "warn")
        assert "handle is optional and could not be started: declared a pull consumer" in caplog.text
        await service.broker.connection.jetstream().delete_consumer(service.channel, service.channel)
        await eventually(lambda: service.code == "ok")
        await service.publish_and_handle(1)


async def test_the_start_of_an_optional_subscriber_may_raise(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(subscriber: object) -> None:
        raise KeyError

    monkeypatch.setattr(service.driver, "resume", fail)
    lifespan = service.lifespan = BrokerLifespan(service.broker, optional=["handle"], supervise=False)
    async with lifespan:
        await eventually(lambda: service.code == "error")
        await lifespan.pause("handle")
        assert service.code == "paused"
        with pytest.raises(BrokerStartError, match="could not be resumed: KeyError"):
            await lifespan.resume("handle")
        monkeypatch.undo()
        await lifespan.resume("handle")
        await service.publish_and_handle(1)
        assert service.code == "ok"


@pytest.mark.usefixtures("fast_supervision")
@pytest.mark.parametrize("name", ["nats", "redis-group", "mqtt"])
async def test_an_optional_subscriber_is_started_later_by_supervision(
    name: str, service_of: Callable[[str], Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber_monitor, "RETRY_INTERVAL", 0.05)
    service = service_of(name)
    subscriber = next(
        each for each in service.broker.subscribers if "other" not in str(each.get_log_context(None))
    )
    start, failures = subscriber.start, [KeyError(), KeyError()]

    async def fail_twice() -> None:
        if failures:
            raise failures.pop()
        await start()

    monkeypatch.setattr(subscriber, "start", fail_twice)
    service.lifespan = BrokerLifespan(service.broker, optional=["handle"])
    async with service.lifespan:
        await eventually(lambda: service.code == "ok")
        assert failures == []
        await service.publish_and_handle(1)


@pytest.mark.full
async def test_an_optional_queue_that_cannot_be_declared_disturbs_no_other_subscriber() -> None:
    service = Service(KINDS["rabbit"], shared_server(HARNESSES["rabbit"]).url)
    async with service.lifespan:
        await service.publish_and_handle(0)
    broker: Any = HARNESSES["rabbit"].broker(shared_server(HARNESSES["rabbit"]).url)
    handled: list[int] = []

    async def other(number: int) -> None:
        handled.append(number)

    async def handle(number: int) -> None: ...

    broker.subscriber(RabbitQueue(service.channel, arguments={"x-max-length": 10}))(handle)
    broker.subscriber(f"{service.channel}-other")(other)
    lifespan = BrokerLifespan(broker, optional=["handle"])
    async with lifespan:
        await eventually(lambda: lifespan.subscribers[0].code == "consumer_mismatch")
        await broker.publish(1, f"{service.channel}-other")
        await eventually(lambda: handled == [1])
        assert await status(make_readiness_asgi(lifespan)) == 200


async def test_an_optional_key_of_another_type_does_not_fail_the_start() -> None:
    service = Service(KINDS["redis-group"], shared_server(HARNESSES["redis"]).url)
    connection = await service.broker.connect()
    await connection.set(service.channel, "text")
    lifespan = service.lifespan = BrokerLifespan(service.broker, optional=[service.handle])
    async with lifespan:
        await service.others_are_handled()
        await eventually(lambda: service.code == "consumer_mismatch")
        assert await status(make_readiness_asgi(lifespan)) == 200


@pytest.mark.full
async def test_a_dead_optional_subscriber_does_not_fail_liveness(service: Service) -> None:
    lifespan = BrokerLifespan(service.broker, optional=[service.handle], supervise=False)
    live = make_liveness_asgi(lifespan)
    subscribers = {
        subscriber.get_log_context(None)["subject"]: subscriber for subscriber in service.broker.subscribers
    }
    async with lifespan:
        for channel, expected in ((service.channel, 200), (f"{service.channel}-other", 503)):
            task = callback_task(subscribers[channel].subscription)
            assert task is not None
            task.cancel()
            await eventually(lambda: "task_failed" in {info.code for info in lifespan.subscribers})
            await eventually_status(live, expected)
