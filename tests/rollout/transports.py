"""The transports of the rollout tests: the service, its server, and how a message is published.

The service is the same for all: it records each message when its handler has finished. Environment variables
configure it:

    URLS           the URLs of the broker
    KIND           the kind of the transport
    RECORD         the file to which each process appends what happens, a line for each event
    DRAIN_DELAY    drain_delay
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.servers.kafka import KafkaServer
from tests.harness.servers.nats import NatsServer, nats_cluster
from tests.harness.servers.rabbit import RabbitServer, missing
from tests.harness.servers.redis import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from faststream_adapters._compat.faststream import Broker
    from tests.harness.servers.broker import BrokerServer

CLUSTER_SIZE = 3
PROCESSES = 4

_START = """
import asyncio, os
from faststream import AckPolicy
from faststream_adapters import AsgiFastStream

kind, urls, process = os.environ["KIND"], os.environ["URLS"].split(), os.getpid()
output = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def record(event: str, value: object) -> None:
    # One unbuffered write: the lines of several processes do not mix, and none is lost with its process.
    os.write(output, f"{process} {event} {value}\\n".encode())


async def handle(number: int) -> None:
    # So that each process has messages in its handlers when it is ended.
    await asyncio.sleep(0.002)
    record("handled", number)

"""

_END = """

app = AsgiFastStream(
    broker,
    readiness_path="/ready",
    liveness_path="/live",
    # Processes that are started while the server is away wait for it.
    startup="background",
    drain_delay=float(os.environ["DRAIN_DELAY"]),
    on_state_change=lambda old, new: record("state", new),
)
"""

_NATS = """
from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import ConsumerConfig

broker = NatsBroker(urls)
options = {}
if kind != "core":
    # What a process had and did not acknowledge is delivered again after ack_wait seconds.
    config = ConsumerConfig(ack_wait=20, max_ack_pending=200)
    options = {"stream": JStream("shop", num_replicas=len(urls)), "config": config}
if kind == "pull":
    options |= {"durable": "workers", "pull_sub": PullSub(batch_size=10)}
else:
    options["queue"] = "workers"
broker.subscriber("orders", **options)(handle)
"""

_RABBIT = """
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

broker = RabbitBroker(urls[0], reconnect_interval=0.5, default_channel=Channel(prefetch_count=20))
queue = RabbitQueue("orders", queue_type=QueueType(kind), durable=True)
broker.subscriber(queue, ack_policy=AckPolicy.NACK_ON_ERROR)(handle)
"""

_REDIS = """
from faststream.redis import RedisBroker, StreamSub

broker = RedisBroker(urls[0])


def stream(consumer: str, **options: int) -> StreamSub:
    return StreamSub("orders", group="workers", consumer=f"{process} {consumer}", **options)


broker.subscriber(stream=stream("new", max_records=10))(handle)
# What another process has read and did not acknowledge.
broker.subscriber(stream=stream("left behind", min_idle_time=10_000))(handle)
"""

_KAFKA = """
from faststream.kafka import KafkaBroker

broker = KafkaBroker(urls[0])
options = {"auto_offset_reset": "earliest", "ack_policy": AckPolicy.ACK}
broker.subscriber("orders", group_id="workers", **options)(handle)
"""


class _RabbitServer(RabbitServer):
    """A server that may take its time to start: it needs seconds of CPU time, and so do the processes."""

    def start(self, timeout: float = 300.0) -> None:
        if reason := missing():  # pragma: no cover (installed where skips are forbidden)
            pytest.skip(reason)
        super().start(timeout)


class _KafkaServer(KafkaServer):
    """A server with a partition for each process."""

    def start(self, timeout: float = 10.0) -> None:
        super().start(timeout)
        self.create_topic("orders", PROCESSES)


@dataclass(frozen=True)
class Transport:
    """A way to deliver messages.

    Args:
        name: The name in the table.
        kind: What tells it apart for the service.
        broker_class: The class of the broker, below `faststream`.
        service: The source text that makes the broker and its subscriber.
        server: Returns a new server, which has not been started.
        publish: The options of `broker.publish()`.
        options: More options of the broker that publishes.
        keeps: Whether the server keeps a message until it is acknowledged.
    """

    name: str
    kind: str
    broker_class: str
    service: str
    server: Callable[[], BrokerServer]
    publish: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    keeps: bool = True

    @property
    def source(self) -> str:
        """The service, as source text."""
        return _START + self.service + _END

    def broker(self, urls: list[str]) -> Broker:
        """Return a broker to publish with."""
        module, _, name = self.broker_class.rpartition(".")
        broker: Broker = getattr(import_module(f"faststream.{module}"), name)(
            urls if module == "nats" else urls[0], **self.options
        )
        return broker

    def servers(self, *, cluster: bool) -> contextlib.AbstractContextManager[list[Any]]:
        """Start the server, or the servers of a cluster, and close them at the end."""
        if cluster:
            return nats_cluster(CLUSTER_SIZE, jetstream=self.keeps)
        return _started(self.server())


@contextlib.contextmanager
def _started(server: BrokerServer) -> Any:
    with server:
        yield [server]


def _jetstream(kind: str) -> Transport:
    publish = {"subject": "orders", "stream": "shop", "timeout": 2.0}
    return Transport(
        f"JetStream, {kind}", kind, "nats.NatsBroker", _NATS, lambda: NatsServer(jetstream=True), publish
    )


def _rabbit(kind: str) -> Transport:
    publish, options = {"queue": "orders", "persist": True}, {"reconnect_interval": 0.5}
    return Transport(
        f"RabbitMQ, {kind} queue", kind, "rabbit.RabbitBroker", _RABBIT, _RabbitServer, publish, options
    )


CORE = Transport(
    "core NATS, queue group", "core", "nats.NatsBroker", _NATS, NatsServer, {"subject": "orders"}, keeps=False
)
PUSH, PULL = _jetstream("push"), _jetstream("pull")
CLASSIC, QUORUM = _rabbit("classic"), _rabbit("quorum")
REDIS = Transport(
    "Redis stream, group", "group", "redis.RedisBroker", _REDIS, RedisServer, {"stream": "orders"}
)
KAFKA = Transport("Kafka, group", "group", "kafka.KafkaBroker", _KAFKA, _KafkaServer, {"topic": "orders"})
