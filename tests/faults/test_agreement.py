"""All reports of a fault agree: readiness, its details, the metrics, `on_health_change` and the log.

Each kind of fault of a broker, a subscriber and a check is caused and repaired, with the default intervals.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import aio_pika
import nats as nats_py
import pytest
from aiokafka.admin import (  # type: ignore[import-untyped]  # aiokafka ships no types
    AIOKafkaAdminClient,
    NewTopic,
)
from faststream.confluent import KafkaBroker as ConfluentBroker
from faststream.kafka import KafkaBroker
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.rabbit import RabbitBroker, RabbitQueue
from faststream.redis import RedisBroker, StreamSub
from faststream.security import SASLPlaintext
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from faststream_adapters import (
    BrokerLifespan,
    HealthChange,
    HealthCheck,
    make_metrics_asgi,
    make_readiness_asgi,
)
from faststream_adapters._compat import kafka as kafka_private
from faststream_adapters._compat.faststream import Broker
from faststream_adapters._compat.nats import callback_task
from faststream_adapters._lifecycle.managed import managed_broker
from tests.faults.matrix import Fault, row
from tests.harness.brokers import HARNESSES
from tests.harness.brokers.mqtt import SERVER as MQTT_SERVER
from tests.harness.brokers.shared import shared_server
from tests.harness.clients import client, eventually_status
from tests.harness.scrapes import Scrape
from tests.harness.servers.kafka_login import KafkaLogin
from tests.harness.servers.mqtt import Mosquitto
from tests.harness.servers.nats import NatsServer
from tests.harness.servers.rabbit import RabbitServer
from tests.harness.servers.redis import RedisServer
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    import logging
    from collections.abc import AsyncIterator, Iterable, Iterator

    from faststream.asgi.types import ASGIApp

AGREEMENT = 2.0
"""Seconds within which all sources show the same."""

INTERVAL = 0.05
"""Seconds between two looks at each source."""

TIMEOUT = 60.0
"""Seconds that a fault, or its repair, may take until everything shows it."""

pytestmark = pytest.mark.timeout(240)

SEES = "503; all reports within 2 s of each other, and again after the repair"
COUNTS = "reports"

Change = Callable[[BrokerLifespan], object]
JetStreamChange = Callable[[JetStreamContext], Awaitable[object]]
RedisChange = Callable[[Redis], Awaitable[object]]


@dataclass
class Broken:
    """Something that can be broken and repaired, or stopped and started.

    Args:
        broker: The broker.
        cause: Causes the fault; called with the lifespan while it runs.
        repair: Ends it.
        kind: What has the fault.
        name: Its name.
        codes: The codes that the fault may have; empty for any.
        is_ready: Whether the service is ready meanwhile.
        is_intended: Whether it is no fault.
        keywords: Keywords for the lifespan.
    """

    broker: Broker
    cause: Change
    repair: Change
    kind: str = "subscriber"
    name: str = "handle"
    codes: frozenset[str] = frozenset()
    is_ready: bool = False
    is_intended: bool = False
    keywords: Mapping[str, Any] = field(default_factory=dict)


class Sources:
    """What each source shows of one component."""

    def __init__(self, broken: Broken, records: list[logging.LogRecord]) -> None:
        self._broken = broken
        self._records = records
        self._changes: list[HealthChange] = []
        self.lifespan = BrokerLifespan(
            broken.broker, on_health_change=self._changes.append, **broken.keywords
        )
        self.ready = make_readiness_asgi(self.lifespan)
        self._details = make_readiness_asgi(self.lifespan, details=True)
        self._metrics = make_metrics_asgi(CollectorRegistry(), targets=[self.lifespan])
        self._broker = f"{type(broken.broker).__name__} 1"

    async def _readiness(self) -> dict[str, str]:
        return {"readiness": await text(self.ready)}

    async def _of_details(self) -> dict[str, str]:
        checks = json.loads(await text(self._details))["checks"]
        component = self._broken.kind, self._broken.name
        [code] = [
            entry["code"]
            for entries in checks.values()
            for entry in entries
            if (entry["componentType"], entry["componentId"]) == component
        ]
        return {"details": code}

    async def _of_metrics(self) -> dict[str, str]:
        scrape, kind = Scrape(await text(self._metrics)), self._broken.kind
        labels = {"broker": self._broker} if kind == "subscriber" else {}
        up = scrape(f"faststream_adapters_{kind}_up", **{kind: self._broken.name}, **labels)
        return {"ready": gauge(scrape("faststream_adapters_ready")), "metrics": gauge(up)}

    async def _of_changes(self) -> dict[str, str]:
        component = self._broken.kind, self._broken.name
        codes = [change.new for change in self._changes if (change.kind, change.name) == component]
        return {"event": codes[-1] if codes else "not_started", "log": self._logged()}

    def _logged(self) -> str:
        """Return the code in the last line about the component; `ok` before the first one."""
        kind, name = self._broken.kind, self._broken.name
        # In the log, a broker has its address.
        shown = name.removesuffix(" 1") if kind == "broker" else name
        codes = [
            vars(record)["new"]
            for record in self._records
            if "new" in vars(record)
            and str(vars(record).get(kind, "")).startswith(shown)
            and ("subscriber" in vars(record)) == (kind == "subscriber")
        ]
        return str(codes[-1]) if codes else "ok"

    def _is_fault(self, source: str, code: str, *, broken: bool) -> bool:
        """Return whether a source shows the fault; if it begins, what precedes it does not count."""
        # A server that rejects a login was down before.
        codes = self._broken.codes if broken and source not in {"ready", "metrics"} else ()
        return code in codes if codes else code != "ok"

    async def agree(self, *, broken: bool) -> int:
        """Wait until all sources show the fault, or none does, and check how far they were apart.

        Returns:
            How many sources there are.
        """
        since: dict[str, float] = {}
        codes: dict[str, str] = {}
        starved = 0.0

        async def measure_starvation() -> None:
            nonlocal starved
            while True:
                before = monotonic()
                await asyncio.sleep(INTERVAL)
                starved += max(monotonic() - before - 2 * INTERVAL, 0.0)

        async def watch(read: Callable[[], Awaitable[dict[str, str]]]) -> None:
            while True:
                for source, code in (await read()).items():
                    codes[source] = code
                    if broken == self._is_fault(source, code, broken=broken):
                        since.setdefault(source, monotonic())
                    else:
                        # It may change more than once, such as while a broker is restarted.
                        since.pop(source, None)
                await asyncio.sleep(INTERVAL)

        reads = (self._readiness, self._of_details, self._of_metrics, self._of_changes)
        of_readiness = {"readiness", "ready"}
        expected = {"details", "metrics", "event", "log"} | (set() if self._broken.is_ready else of_readiness)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(watch(read)) for read in reads]
            tasks.append(group.create_task(measure_starvation()))
            await eventually(lambda: since.keys() >= expected, TIMEOUT)
            for task in tasks:
                task.cancel()
        if self._broken.is_ready:
            assert {codes[source] for source in of_readiness} == {"ok"}
        times = [since[source] for source in expected]
        # What a busy machine takes from this process does not count.
        assert max(times) - min(times) <= AGREEMENT + starved, since
        if broken and self._broken.codes:
            assert codes["metrics"] == ("none" if self._broken.is_intended else "fault")
        return len(expected)


async def text(app: ASGIApp) -> str:
    async with client(app) as http:
        return (await http.get("/")).text


def gauge(value: float | None) -> str:
    return "none" if value is None else "ok" if value else "fault"


async def check_agreement(broken: Broken, fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    """Cause and repair a fault, and check that all sources agree each time."""
    caplog.set_level("INFO", "faststream.adapters")
    sources = Sources(broken, caplog.records)
    async with sources.lifespan:
        await eventually_status(sources.ready, 200, TIMEOUT)
        await sources.agree(broken=False)
        for step, is_broken in ((broken.cause, True), (broken.repair, False)):
            result: Any = step(sources.lifespan)
            if result is not None:
                await result
            reports = await sources.agree(broken=is_broken)
            fault.counted(reports, of=reports)


def without_lifespan(change: Callable[..., object], *arguments: object) -> Change:
    """Return a change that does not need the lifespan."""
    return lambda _: change(*arguments)


async def handle(number: Any) -> None: ...


def in_every_run(names: Iterable[str], *fast: str) -> list[Any]:
    """Return parameters, of which only the fast ones run in every run."""
    return [pytest.param(name, marks=[] if name in fast else pytest.mark.full) for name in names]


# --- Brokers ---


@pytest.fixture(params=in_every_run(HARNESSES, "nats"))
def lost(request: pytest.FixtureRequest, how: str, fault: Fault) -> Iterator[Broken]:
    """Return a broker of each kind whose server is lost."""
    harness = HARNESSES[request.param]
    if reason := harness.missing():  # pragma: no cover (installed where skips are forbidden)
        pytest.skip(reason)
    fault.at(f"{harness.title}, in process")
    with harness.server() as server:
        broker = harness.broker(server.url)
        cause, repair = (server.kill, server.start) if how == "killed" else (server.freeze, server.thaw)
        name = f"{type(broker).__name__} 1"
        yield Broken(broker, without_lifespan(cause), without_lifespan(repair), "broker", name)


PLACES = tuple(f"{harness.title}, in process" for harness in HARNESSES.values())


@row("Agreement: any broker killed and restarted", SEES, where=PLACES, counts=COUNTS)
@pytest.mark.parametrize("how", ["killed"])
async def test_a_broker_that_is_killed(
    lost: Broken, fault: Fault, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    await check_agreement(lost, fault, caplog)


@row("Agreement: any broker frozen and thawed", SEES, where=PLACES, counts=COUNTS)
@pytest.mark.full
@pytest.mark.parametrize("how", ["frozen"])
async def test_a_broker_that_is_frozen(
    lost: Broken, fault: Fault, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    await check_agreement(lost, fault, caplog)


CLOSED: dict[str, Callable[[Any], Awaitable[object]]] = {
    "nats": lambda broker: client_of(broker).close(),
    "rabbit": lambda broker: client_of(broker).close(),
    "mqtt": lambda broker: client_of(broker).disconnect(),
    # Its other clients would connect again.
    "kafka": lambda broker: kafka_private.producer(broker).stop(),
    "confluent": lambda broker: client_of(broker).stop(),
}
"""What closes the client of each kind. That of Redis connects again for each request."""


def client_of(broker: Any) -> Any:
    return managed_broker(broker).driver.client


CLOSED_PLACES = tuple(f"{HARNESSES[kind].title}, in process" for kind in CLOSED)


@row(
    "Agreement: a client closed while consuming, without supervision, and its broker started again by the "
    "application",
    SEES,
    where=CLOSED_PLACES,
    counts=COUNTS,
)
@pytest.mark.parametrize("kind", in_every_run(CLOSED, "mqtt"))
async def test_a_client_that_is_closed(kind: str, fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    harness = HARNESSES[kind]
    fault.at(f"{harness.title}, in process")
    broker = harness.broker(shared_server(harness).url)
    harness.subscribe(broker, "closed", handle)

    async def start_again() -> None:
        # With NATS, FastStream's own stop() fails to unsubscribe, and leaves the closed client in the broker.
        with suppress(ExceptionGroup):
            await broker.stop()
        await broker.start()

    name = f"{type(broker).__name__} 1"
    changes = without_lifespan(CLOSED[kind], broker), without_lifespan(start_again)
    codes = frozenset({"closed"})
    closed = Broken(broker, *changes, "broker", name, codes, keywords={"supervise": False})
    await check_agreement(closed, fault, caplog)


Login = tuple[Broker, Change, Change]


@asynccontextmanager
async def login(kind: str) -> AsyncIterator[Login]:
    """Yield a broker, and functions that change the password which its server expects, and change it back."""
    servers: dict[str, Callable[[], Any]] = {
        "nats": lambda: NatsServer(user="user", password="right"),
        "redis": lambda: RedisServer(password="right"),
        "mqtt": lambda: MQTT_SERVER(user="user", password="right"),
    }
    with servers[kind]() as server:

        def change(password: str) -> None:
            server.password = password
            server.restart()

        yield (
            HARNESSES[kind].broker(server.url),
            without_lifespan(change, "changed"),
            without_lifespan(change, "right"),
        )


@asynccontextmanager
async def rabbit_login(_: str) -> AsyncIterator[Login]:
    with RabbitServer() as server:
        password = server.password

        def change(new: str) -> None:
            server.change_password(new)
            server.close_connections()

        broker = HARNESSES["rabbit"].broker(server.url)
        yield broker, without_lifespan(change, "changed"), without_lifespan(change, password)


@asynccontextmanager
async def kafka_login(kind: str) -> AsyncIterator[Login]:
    async with KafkaLogin("right") as server:
        security = SASLPlaintext("user", "right", use_ssl=False)
        broker = (
            KafkaBroker(server.url, security=security)
            if kind == "kafka"
            else ConfluentBroker(server.url, security=security, config={"reconnect.backoff.max.ms": 200})
        )
        yield (
            broker,
            without_lifespan(server.change_password, "changed"),
            without_lifespan(server.change_password, "right"),
        )


LOGINS = {
    "nats": login,
    "redis": login,
    "mqtt": login,
    "rabbit": rabbit_login,
    "kafka": kafka_login,
    "confluent": kafka_login,
}


@row(
    "Agreement: a login rejected and accepted again",
    SEES,
    where=tuple(f"{HARNESSES[kind].title}, in process" for kind in LOGINS),
    counts=COUNTS,
)
@pytest.mark.parametrize("kind", in_every_run(LOGINS, "nats"))
async def test_a_login_that_is_rejected(kind: str, fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    harness = HARNESSES[kind]
    if reason := harness.missing():  # pragma: no cover (installed where skips are forbidden)
        pytest.skip(reason)
    fault.at(f"{harness.title}, in process")
    async with LOGINS[kind](kind) as (broker, reject, accept):
        name, codes = f"{type(broker).__name__} 1", frozenset({"auth_failed"})
        await check_agreement(Broken(broker, reject, accept, "broker", name, codes), fault, caplog)


# --- Subscribers ---

ADDED: dict[str, Any] = {"name": "jobs", "subjects": ["jobs", "other"]}
WORKER: dict[str, Any] = {"durable_name": "worker", "filter_subject": "jobs"}


@asynccontextmanager
async def jetstream(code: str, cause: JetStreamChange, repair: JetStreamChange) -> AsyncIterator[Broken]:
    """Yield a pull subscriber to a stream, which another client changes.

    Args:
        code: The code of the fault.
        cause: Causes it.
        repair: Ends it.
    """
    with NatsServer(jetstream=True) as server:
        owner = await nats_py.connect(server.url)
        context = owner.jetstream()
        await context.add_stream(**ADDED)
        await context.add_consumer("jobs", ConsumerConfig(**WORKER))
        broker = NatsBroker(server.url)
        options: Any = {"durable": "worker", "pull_sub": PullSub(timeout=0.5)}
        broker.subscriber("jobs", stream=JStream("jobs", declare=False), **options)(handle)
        changes = without_lifespan(cause, context), without_lifespan(repair, context)
        yield Broken(broker, *changes, codes=frozenset({code}))
        await owner.close()


async def pause(context: JetStreamContext) -> None:
    await context.pause_consumer("jobs", "worker", "2999-01-01T00:00:00Z")


async def resume(context: JetStreamContext) -> None:
    await context.resume_consumer("jobs", "worker")


async def delete_stream(context: JetStreamContext) -> None:
    await context.delete_stream("jobs")


async def add_stream(context: JetStreamContext) -> None:
    await context.add_stream(**ADDED)


async def edit_consumer(context: JetStreamContext) -> None:
    await context.add_consumer("jobs", ConsumerConfig(**{**WORKER, "filter_subject": "other"}))


async def restore_consumer(context: JetStreamContext) -> None:
    await context.add_consumer("jobs", ConsumerConfig(**WORKER))


@asynccontextmanager
async def redis(
    code: str, cause: RedisChange, repair: RedisChange, **subscriber: Any
) -> AsyncIterator[Broken]:
    """Yield a subscriber of Redis, whose key or permissions another client changes.

    Args:
        code: The code of the fault.
        cause: Causes it.
        repair: Ends it.
        subscriber: The arguments of the subscriber.
    """
    with RedisServer() as server:
        admin = Redis.from_url(server.url)
        await repair(admin)
        broker = RedisBroker(server.url.replace("//", "//limited:pass@"))
        broker.subscriber(**subscriber)(handle)
        changes = without_lifespan(cause, admin), without_lifespan(repair, admin)
        yield Broken(broker, *changes, codes=frozenset({code}))
        await admin.aclose()


async def _set_rules(admin: Redis, *rules: str) -> None:
    await admin.acl_setuser(
        "limited",
        enabled=True,
        nopass=False,
        passwords="+pass",
        keys="*",
        channels="*",
        commands=["+@all", *rules],
    )


async def forbid(admin: Redis) -> None:
    await _set_rules(admin, "-blpop")


async def permit(admin: Redis) -> None:
    await _set_rules(admin)


async def replace_list(admin: Redis) -> None:
    await admin.set("jobs", "text")


async def delete_text(admin: Redis) -> None:
    await _set_rules(admin)
    await admin.delete("jobs")


async def delete_group(admin: Redis) -> None:
    await admin.delete("jobs")


async def create_group(admin: Redis) -> None:
    await _set_rules(admin)
    await admin.xgroup_create("jobs", "group", mkstream=True)


async def make_replica(admin: Redis) -> None:
    # Nothing listens on this port, so that the replica keeps its data.
    await admin.replicaof("127.0.0.1", "1")


async def make_master(admin: Redis) -> None:
    await admin.replicaof("no", "one")
    await _set_rules(admin)


GROUP = StreamSub("jobs", group="group", consumer="one", declare=False)


async def pause_writes(admin: Redis) -> None:
    await admin.client_pause(600_000, all=False)


async def resume_writes(admin: Redis) -> None:
    await admin.client_unpause()
    await _set_rules(admin)


@asynccontextmanager
async def rabbit(code: str, *, declare: bool) -> AsyncIterator[Broken]:
    """Yield a subscriber to a queue that another client deletes.

    Args:
        code: The code of the fault.
        declare: Whether the subscriber declares the queue: the other client then declares another one.
    """
    with HARNESSES["rabbit"].server() as server:
        others = await aio_pika.connect(server.url)
        channel = await others.channel()
        if not declare:
            await channel.declare_queue("jobs")
        broker = RabbitBroker(server.url)
        broker.subscriber(RabbitQueue("jobs", declare=declare, durable=False))(handle)

        async def delete() -> None:
            await channel.queue_delete("jobs")
            if declare:
                await channel.declare_queue("jobs", arguments={"x-max-length": 10})

        async def restore() -> None:
            await channel.queue_delete("jobs")
            if not declare:
                await channel.declare_queue("jobs")

        changes = without_lifespan(delete), without_lifespan(restore)
        yield Broken(broker, *changes, codes=frozenset({code}))
        await others.close()


@asynccontextmanager
async def kafka(kind: str) -> AsyncIterator[Broken]:
    """Yield a subscriber to a topic that another client deletes and creates."""
    with HARNESSES[kind].server() as server:
        admin = AIOKafkaAdminClient(bootstrap_servers=server.url)
        await admin.start()
        topic = NewTopic("jobs", 1, 1)
        await admin.create_topics([topic])
        broker: Any = HARNESSES[kind].broker(server.url)
        broker.subscriber("jobs", auto_offset_reset="earliest")(handle)
        yield Broken(
            broker,
            without_lifespan(admin.delete_topics, ["jobs"]),
            without_lifespan(admin.create_topics, [topic]),
            codes=frozenset({"consumer_mismatch"}),
        )
        await admin.close()


@asynccontextmanager
async def mqtt() -> AsyncIterator[Broken]:
    """Yield a subscriber with a QoS that the server does not offer after its restart."""
    with Mosquitto() as server:

        def restart(config: str) -> None:
            server.config = config
            server.restart()

        broker: Any = HARNESSES["mqtt"].broker(server.url)
        broker.subscriber("jobs", qos=1)(handle)
        changes = without_lifespan(restart, "max_qos 0"), without_lifespan(restart, "")
        yield Broken(broker, *changes, codes=frozenset({"consumer_mismatch"}))


@asynccontextmanager
async def ended_task(kind: str) -> AsyncIterator[Broken]:
    """Yield a subscriber whose task ends, and that the application starts again."""
    with HARNESSES[kind].server() as server:
        broker = HARNESSES[kind].broker(server.url)
        HARNESSES[kind].subscribe(broker, "jobs", handle)
        subscriber: Any
        [subscriber] = broker.subscribers

        async def start_again() -> None:
            await subscriber.stop()
            await subscriber.start()

        def end_task() -> None:
            task: Any = callback_task(subscriber.subscription) if kind == "nats" else subscriber.tasks[0]
            task.cancel()

        yield Broken(
            broker,
            without_lifespan(end_task),
            without_lifespan(start_again),
            codes=frozenset({"task_failed"}),
            keywords={"supervise": False},
        )


FAULTS: dict[str, Callable[[], AbstractAsyncContextManager[Broken]]] = {
    "JetStream consumer paused and resumed": partial(jetstream, "consumer_paused", pause, resume),
    "JetStream stream deleted and added again": partial(
        jetstream, "consumer_missing", delete_stream, add_stream
    ),
    "JetStream consumer edited and restored": partial(
        jetstream, "consumer_mismatch", edit_consumer, restore_consumer
    ),
    "Redis forbids and permits the command": partial(redis, "not_permitted", forbid, permit, list="jobs"),
    "Redis key holds something else": partial(
        redis, "consumer_mismatch", replace_list, delete_text, list="jobs"
    ),
    "Redis group deleted and created again": partial(
        redis, "consumer_missing", delete_group, create_group, stream=GROUP
    ),
    "Redis server becomes a replica and a master again": partial(
        redis, "error", make_replica, make_master, list="jobs"
    ),
    "Redis does not reply to writes for a while": partial(
        redis, "timeout", pause_writes, resume_writes, list="jobs"
    ),
    "RabbitMQ queue deleted and declared again": partial(rabbit, "task_failed", declare=False),
    "RabbitMQ queue declared with other arguments, and deleted": partial(
        rabbit, "consumer_mismatch", declare=True
    ),
    "MQTT server restarted with a lower QoS, and with the former one": mqtt,
    **{
        f"topic deleted and created again ({HARNESSES[kind].title})": partial(kafka, kind)
        for kind in ("kafka", "confluent")
    },
    **{
        f"the task of a subscriber ends, without supervision ({HARNESSES[kind].title})": partial(
            ended_task, kind
        )
        for kind in ("kafka", "confluent", "mqtt", "redis", "nats")
    },
}
FAST = "the task of a subscriber ends, without supervision (NATS)"


@row("Agreement: a fault of a subscriber", SEES, where=tuple(FAULTS), counts=COUNTS)
@pytest.mark.parametrize("name", in_every_run(FAULTS, FAST))
async def test_a_subscriber_that_does_not_consume(
    name: str, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    fault.at(name)
    async with FAULTS[name]() as broken:
        await check_agreement(broken, fault, caplog)


# --- Checks ---


class Database:
    """What a check of the application asks."""

    def __init__(self, how: str) -> None:
        self.up = True
        self._how = how

    async def ping(self) -> bool:
        if not self.up and self._how == "it hangs":
            await asyncio.sleep(TIMEOUT)
        if not self.up and self._how == "it raises":
            raise OSError("no route to the database")
        return self.up

    def set(self, *, up: bool) -> None:
        self.up = up


CHECKS = ("it returns False", "it raises", "it hangs")


def broken_check(url: str, how: str, *, optional: bool = False) -> Broken:
    database = Database(how)
    check = HealthCheck("database", database.ping)
    keywords: dict[str, Any] = {"checks": [check], "optional": [check] if optional else []}
    return Broken(
        NatsBroker(url),
        lambda _: database.set(up=False),
        lambda _: database.set(up=True),
        "check",
        "database",
        frozenset({"check_failed"}),
        is_ready=optional,
        keywords=keywords,
    )


@row("Agreement: a failing check of the application", SEES, where=CHECKS, counts=COUNTS)
@pytest.mark.parametrize("how", in_every_run(CHECKS, "it returns False"))
async def test_a_check_that_fails(
    how: str, shared_nats: NatsServer, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    fault.at(how)
    await check_agreement(broken_check(shared_nats.url, how), fault, caplog)


# --- What leaves the service ready ---


def optional_broker(nats: NatsServer) -> Broken:
    broker = NatsBroker(nats.url, reconnect_time_wait=0)
    changes = without_lifespan(nats.kill), without_lifespan(nats.restart)
    keywords = {"optional": [broker]}
    return Broken(broker, *changes, "broker", "NatsBroker 1", is_ready=True, keywords=keywords)


def optional_check(nats: NatsServer) -> Broken:
    return broken_check(nats.url, "it raises", optional=True)


@asynccontextmanager
async def optional_subscriber(_: NatsServer) -> AsyncIterator[Broken]:
    async with jetstream("consumer_paused", pause, resume) as broken:
        yield replace(broken, is_ready=True, keywords={"optional": [handle]})


def paused_subscriber(nats: NatsServer) -> Broken:
    broker = NatsBroker(nats.url)
    broker.subscriber("jobs")(handle)
    return Broken(
        broker,
        lambda lifespan: lifespan.pause(handle),
        lambda lifespan: lifespan.resume(handle),
        codes=frozenset({"paused"}),
        is_ready=True,
        is_intended=True,
    )


def stopped_subscriber(nats: NatsServer) -> Broken:
    broker = NatsBroker(nats.url)
    subscriber = broker.subscriber("jobs")
    subscriber(handle)
    changes = without_lifespan(subscriber.stop), without_lifespan(subscriber.start)
    return Broken(broker, *changes, codes=frozenset({"stopped"}), is_ready=True, is_intended=True)


READY: dict[str, Callable[[NatsServer], Broken | AbstractAsyncContextManager[Broken]]] = {
    "an optional broker is lost": optional_broker,
    "an optional check fails": optional_check,
    "an optional subscriber does not consume": optional_subscriber,
    "a subscriber is paused": paused_subscriber,
    "the application stops a subscriber": stopped_subscriber,
}


@row(
    "Agreement: a change that leaves the service ready",
    "stays 200; the other reports within 2 s of each other, and again after the repair",
    where=tuple(READY),
    counts=COUNTS,
)
@pytest.mark.parametrize("name", in_every_run(READY, "a subscriber is paused"))
async def test_what_leaves_the_service_ready(
    name: str, nats: NatsServer, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    fault.at(name)
    made = READY[name](nats)
    async with nullcontext(made) if isinstance(made, Broken) else made as broken:
        await check_agreement(broken, fault, caplog)
