"""Redis: checks, consumers and delivery under faults, on a real server."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import closing, nullcontext, suppress
from traceback import format_exception
from typing import Any

import pytest
from faststream.redis import (
    ListSub,
    PubSub,
    RedisBroker,
    RedisClusterBroker,
    RedisSentinelBroker,
    StreamSub,
    TestRedisBroker,
)
from redis import Redis, exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from faststream_adapters import (
    BrokerLifespan,
    make_liveness_asgi,
    make_ping_asgi,
    make_readiness_asgi,
)
from faststream_adapters._brokers.codes import Code
from faststream_adapters._brokers.driver import Mismatch
from faststream_adapters._brokers.redis import driver as redis_driver
from faststream_adapters._brokers.redis import reader as redis_reading
from faststream_adapters._brokers.redis.driver import RedisDriver
from faststream_adapters._brokers.registry import driver_for
from faststream_adapters._compat import redis as private
from faststream_adapters._lifecycle import subscriber_monitor, supervisor
from faststream_adapters._lifecycle.managed import managed_broker
from faststream_adapters._utils.errors import BrokerStartError
from faststream_adapters._utils.tasks import cancel_and_wait
from tests.docs.blocks import python_blocks
from tests.harness.clients import client, eventually_status, status
from tests.harness.servers.redis import RedisSentinel, RedisServer
from tests.harness.waiting import eventually

Handler = Callable[[int], Awaitable[None]]

KINDS: dict[str, dict[str, Any]] = {
    "channel": {"channel": "jobs"},
    "channel with workers": {"channel": "jobs", "max_workers": 3},
    "pattern": {"channel": PubSub("job?", pattern=True)},
    "list": {"list": "jobs"},
    "list in batches": {"list": ListSub("jobs", batch=True, max_records=3)},
    "list with workers": {"list": "jobs", "max_workers": 3},
    "stream": {"stream": StreamSub("jobs", last_id="0")},
    "stream in batches": {"stream": StreamSub("jobs", last_id="0", batch=True)},
    "stream with workers": {"stream": StreamSub("jobs", last_id="0"), "max_workers": 3},
    "group": {"stream": StreamSub("jobs", group="group", consumer="one")},
    "group in batches": {"stream": StreamSub("jobs", group="group", consumer="one", batch=True)},
    "group with workers": {"stream": StreamSub("jobs", group="group", consumer="one"), "max_workers": 3},
}
GROUPS = [kind for kind in KINDS if kind.startswith("group")]


def parametrize_kinds(kinds: Iterable[str], *default: str) -> pytest.MarkDecorator:
    """Parametrize a test by kind; only the kinds in `default` run outside the full run."""
    marked = [pytest.param(kind, marks=[] if kind in default else pytest.mark.full) for kind in kinds]
    return pytest.mark.parametrize("kind", marked)


each_source = parametrize_kinds(KINDS, "channel", "list in batches", "stream", "group with workers")
"""One kind for each data structure of Redis; one of them reads batches and one has workers."""


class Service:
    """A broker with one subscriber of a given kind, its lifespan and its readiness probe."""

    def __init__(
        self,
        server: str | RedisBroker,
        kind: str,
        handler: Handler | None = None,
        **options: Any,
    ) -> None:
        self.broker = RedisBroker(server, **options) if isinstance(server, str) else server
        self.lifespan = BrokerLifespan(self.broker, shutdown_timeout=10.0)
        self.ready = make_readiness_asgi(self.broker, details=True)
        self.received: list[int] = []
        self._handler = handler
        self._target = next(iter(KINDS[kind]))
        self.subscriber: Any = self.broker.subscriber(**KINDS[kind])
        self.subscriber(self._batch if "batches" in kind else self.one)

    async def one(self, number: int) -> None:
        await self._batch([number])

    async def _batch(self, numbers: list[int]) -> None:
        if self._handler is not None:
            await self._handler(numbers[0])
        self.received += numbers

    @property
    def driver(self) -> RedisDriver:
        driver = managed_broker(self.broker).driver
        assert isinstance(driver, RedisDriver)
        return driver

    async def publish(self, *numbers: int) -> None:
        for number in numbers:
            await self.broker.publish(number, **{self._target: "jobs"})  # type: ignore[call-overload]

    async def publish_until_received(self, number: int) -> None:
        """Publish a number, repeatedly if necessary, until the subscriber has received it."""
        async with asyncio.timeout(20.0):
            while number not in self.received:
                # redis-py raises once for each pooled connection that the server has closed.
                with suppress(exceptions.ConnectionError):
                    await self.publish(number)
                with suppress(TimeoutError):
                    await eventually(lambda: number in self.received, 0.1)

    async def code(self) -> Code:
        async with client(self.ready) as http:
            code: Code = (await http.get("/")).json()["code"]
        return code

    async def eventually_code(self, code: Code, seconds: float = 20.0) -> None:
        """Wait until the details of readiness contain this code."""
        async with asyncio.timeout(seconds):
            while await self.code() != code:  # noqa: ASYNC110 (the change happens in the server)
                await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def fast_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervisor, "SUBSCRIBERS_INTERVAL", 0.05)
    monkeypatch.setattr(subscriber_monitor, "RETRY_INTERVAL", 0.05)
    # FastStream's read loops wait this long after an error.
    monkeypatch.setattr("faststream.redis.subscriber.usecases.basic.CONSUME_ERROR_BACKOFF_SECONDS", 0.2)
    monkeypatch.setattr(
        "faststream.redis.subscriber.usecases.stream_subscriber.CONSUME_ERROR_BACKOFF_SECONDS", 0.2
    )


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Return a running server that belongs to this test alone."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def admin(server: RedisServer) -> Iterator[Redis]:
    with server.client() as admin:
        yield admin


def allow(admin: Redis, rules: str) -> None:
    """Create the user `limited` with a password, or change its permissions."""
    admin.execute_command(f"ACL SETUSER limited on >pass ~* {rules}")  # type: ignore[no-untyped-call]


def calls(admin: Redis, command: str) -> int:
    """Return how many times the server has executed a command."""
    stats: dict[str, dict[str, int]] = admin.info("commandstats")
    return sum(stats[name]["calls"] for name in stats if name.startswith(f"cmdstat_{command}"))


async def test_the_application_starts_a_broker_again_while_supervision_checks_it(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.0)
    service = Service(server.url, "list")
    async with service.lifespan:
        for number in range(5):
            await service.broker.stop()
            await service.broker.start()
            await service.publish_until_received(number)
        await service.eventually_code("ok")


async def test_a_driver_may_count_the_tasks_of_a_subscriber_otherwise(server: RedisServer) -> None:
    alive = True

    class Counting(RedisDriver):
        def running_tasks(self, subscriber: Any) -> int:
            return super().running_tasks(subscriber) if alive else 0

    service = Service(server.url, "list")
    service.driver.__class__ = Counting
    async with service.lifespan:
        await eventually(lambda: managed_broker(service.broker).monitor.last_server_check > 0.0)
        alive = False
        await service.eventually_code("task_failed")
        alive = True
        await service.eventually_code("ok")


@each_source
async def test_a_subscriber_whose_task_ended_is_restarted(
    server: RedisServer,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Service(server.url, kind)
    async with service.lifespan:
        await service.publish_until_received(1)
        with caplog.at_level(logging.INFO, "faststream.adapters"):
            # Repeatedly, because asyncio.wait_for() may swallow a cancellation before Python 3.12.
            await asyncio.gather(*map(cancel_and_wait, service.subscriber.tasks))
            await eventually(lambda: "consumes again." in caplog.text)
        await service.publish_until_received(2)
    assert "does not consume: its task has ended." in caplog.text
    assert service.subscriber.tasks == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stop_handles_delivered_messages(server: RedisServer, kind: str) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def wait(_: int) -> None:
        started.set()
        await release.wait()

    numbers = list(range(20))
    service = Service(server.url, kind, wait)
    await service.lifespan.enter()
    await service.publish(*numbers)
    async with asyncio.timeout(10.0):
        await started.wait()
    leaving = asyncio.create_task(service.lifespan.leave())
    await eventually(lambda: service.lifespan.state == "draining")
    release.set()
    await leaving
    before = len(service.received)
    if service.subscriber.config.channel_sub is not None:
        # Pub/sub stores nothing: all messages were delivered before the stop.
        assert before == len(numbers)
    assert before > 0
    async with service.lifespan:
        await eventually(lambda: len(service.received) >= len(numbers))
    # Each number exactly once: a stream without a group is read on from its last position.
    assert sorted(service.received) == numbers


@pytest.mark.parametrize("options", [{"channel": "later"}, {"channel": "later", "max_workers": 2}])
async def test_a_stop_handles_messages_of_a_subscriber_added_after_the_start(
    server: RedisServer,
    options: dict[str, Any],
) -> None:
    started, release = asyncio.Event(), asyncio.Event()
    received: list[int] = []
    service = Service(server.url, "list")
    await service.lifespan.enter()
    later: Any = service.broker.subscriber(**options)

    async def handle(number: int) -> None:
        started.set()
        await release.wait()
        received.append(number)

    later(handle)
    await later.start()
    for number in range(5):
        await service.broker.publish(number, "later")
    async with asyncio.timeout(10.0):
        await started.wait()
    leaving = asyncio.create_task(service.lifespan.leave())
    # It is drained like the others, although supervision has not found it yet.
    await eventually(lambda: private.reader(later) is not None)
    release.set()
    await leaving
    assert sorted(received) == list(range(5))


async def test_readiness_fails_while_the_server_is_frozen_and_recovers(server: RedisServer) -> None:
    service = Service(server.url, "group")
    channel = Service(server.url, "channel")
    async with service.lifespan, channel.lifespan:
        await service.publish_until_received(1)
        server.freeze()
        # A check of the supervision may be in flight, whose reply was sent before.
        await service.eventually_code("timeout")
        loop = asyncio.get_running_loop()
        start = loop.time()
        assert await service.code() == "timeout"
        assert loop.time() - start < 5.0
        # The next probe joins the pending check and times out as well.
        assert await service.code() == "timeout"
        assert await status(make_liveness_asgi(service.broker)) == 200
        server.thaw()
        await service.eventually_code("ok")
        await service.publish_until_received(2)
        await channel.publish_until_received(1)


@pytest.mark.full
async def test_readiness_fails_while_the_server_pauses_its_clients(server: RedisServer, admin: Redis) -> None:
    service = Service(server.url, "list")
    async with service.lifespan:
        # The pause applies to the administrator too, who cannot end it early.
        admin.client_pause(1_500)
        await service.eventually_code("timeout")
        await service.eventually_code("ok")
        await service.publish_until_received(1)


async def test_reads_blocked_by_the_server_are_reported_as_timeout(
    server: RedisServer,
    admin: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_reading, "PATIENCE", 0.5)
    service = Service(server.url, "list", socket_timeout=0.3)
    async with service.lifespan:
        admin.client_pause(60_000, all=False)
        await service.eventually_code("timeout")
        admin.client_unpause()
        await service.eventually_code("ok")
        await service.publish_until_received(1)


LONG_READS: dict[str, dict[str, Any]] = {
    "list": {"list": ListSub("jobs", polling_interval=1.0)},
    "list without a limit": {"list": ListSub("jobs", polling_interval=0)},
    "stream": {"stream": StreamSub("jobs", last_id="0", polling_interval=1_000)},
    "group": {"stream": StreamSub("jobs", group="group", consumer="one", polling_interval=1_000)},
}
"""Subscribers whose reads redis-py aborts after its socket_timeout when there is nothing to read."""


@parametrize_kinds(LONG_READS, "list")
async def test_reads_longer_than_the_socket_timeout_are_not_faults(
    server: RedisServer,
    admin: Redis,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(redis_reading, "PATIENCE", 0.2)
    monkeypatch.setitem(KINDS, kind, LONG_READS[kind])
    service = Service(server.url, kind, socket_timeout=0.3)
    command = {"list": "blpop", "stream": "xread", "group": "xreadgroup"}[kind.partition(" ")[0]]
    async with service.lifespan:
        assert "is not below the socket_timeout of 0.3 s" in caplog.text
        # At least three reads have ended.
        await eventually(lambda: calls(admin, command) > 3)
        assert await service.code() == "ok"
        assert "could not read" not in caplog.text
        await service.publish_until_received(1)


@pytest.mark.parametrize("interval", [0, 0.1])
@pytest.mark.parametrize("options", [{}, {"socket_timeout": None}])
async def test_only_reads_without_a_limit_warn_about_the_default_socket_timeout(
    server: RedisServer,
    interval: float,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(KINDS, "list", {"list": ListSub("jobs", polling_interval=interval)})
    service = Service(server.url, "list", **options)
    # The last read may wait without a limit.
    service.lifespan.shutdown_timeout = 0.5
    async with service.lifespan:
        await service.publish_until_received(1)
    assert ("socket_timeout" in caplog.text) is (not interval and not options)


async def test_concurrent_checks_share_one_ping(server: RedisServer, admin: Redis) -> None:
    service = Service(server.url, "channel")
    async with service.lifespan:
        managed = managed_broker(service.broker)
        before = calls(admin, "ping")
        await asyncio.gather(*(managed.check(5.0) for _ in range(100)))
        # Supervision may have sent a PING too.
        assert 0 < calls(admin, "ping") - before < 10


@pytest.mark.full
async def test_a_thousand_probes_leak_no_tasks_or_connections(server: RedisServer, admin: Redis) -> None:
    service = Service(server.url, "list")
    async with service.lifespan:
        await service.publish_until_received(1)
        # One connection for the list subscriber, one for its start and for publishing, one for the checks.
        connections = admin.info("clients")["connected_clients"]
        tasks = len(asyncio.all_tasks())
        for _ in range(1000):
            assert await status(service.ready) == 200
        assert admin.info("clients")["connected_clients"] <= connections
        # Supervision may be checking at this moment.
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
    await eventually(lambda: admin.info("clients")["connected_clients"] == 1)


async def test_ping_checks_a_broker_started_without_its_lifespan(server: RedisServer, admin: Redis) -> None:
    broker = RedisBroker(server.url)
    ping = make_ping_asgi(broker, details=True, ttl=0.0)
    assert await status(ping) == 500
    await broker.start()
    assert await status(ping) == 200
    server.kill()
    assert await status(ping) == 500
    server.start()
    await eventually_status(ping, 200)
    await broker.stop()
    assert await status(ping) == 500
    await eventually(lambda: admin.info("clients")["connected_clients"] == 1)


@each_source
async def test_a_subscriber_survives_the_loss_of_all_connections(
    server: RedisServer,
    admin: Redis,
    kind: str,
) -> None:
    service = Service(server.url, kind)
    async with service.lifespan:
        await service.publish_until_received(1)
        for connection in admin.client_list():
            if connection["id"] != str(admin.client_id()):
                admin.client_kill_filter(_id=connection["id"])
        await service.eventually_code("ok")
        await service.publish_until_received(2)
        # FastStream's task has recovered without a restart.
        assert managed_broker(service.broker).monitor.fault is None


async def test_publishing_succeeds_as_soon_as_readiness_recovers(server: RedisServer) -> None:
    service = Service(server.url, "list")
    async with service.lifespan:
        # Opens up to 20 connections, all of which are lost with the server.
        await asyncio.gather(*(service.publish(number) for number in range(20)))
        server.kill()
        await service.eventually_code("unreachable")
        server.start()
        await service.eventually_code("ok")
        await asyncio.gather(*(service.publish(number) for number in range(20)))


@pytest.mark.parametrize("url", ["redis://:wrong-secret@{}", "redis://unknown:wrong-secret@{}"])
async def test_a_wrong_password_fails_the_start(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer(password="the-secret") as server:
        service = Service(url.format(f"127.0.0.1:{server.port}"), "list")
        with pytest.raises(BrokerStartError, match="the credentials were rejected") as raised:
            await service.lifespan.enter()
        right = Service(server.url, "list")
        async with right.lifespan:
            await right.publish_until_received(1)
    assert "-secret" not in "".join(format_exception(raised.value)) + caplog.text


async def test_the_password_is_not_logged_when_the_server_rejects_the_hello_command(
    server: RedisServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.config = 'rename-command HELLO ""'
    server.restart()
    service = Service(f"redis://:the-secret@127.0.0.1:{server.port}", "list")
    with pytest.raises(BrokerStartError, match="ResponseError") as raised:
        await service.lifespan.enter()
    assert "the-secret" not in "".join(format_exception(raised.value)) + caplog.text


async def test_a_changed_password_is_reported_once_connections_are_reestablished(
    server: RedisServer,
    admin: Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Service(server.url, "channel")
    async with service.lifespan:
        await service.publish_until_received(1)
        admin.config_set("requirepass", "the-secret")
        # Open connections stay authenticated.
        assert await service.code() == "ok"
        await service.publish_until_received(2)
        server.password = "the-secret"
        with server.client() as other:
            other.client_kill_filter(_type="pubsub")
            other.client_kill_filter(_type="normal", skipme=True)
            await service.eventually_code("auth_failed")
            assert await status(make_liveness_asgi(service.broker)) == 200
            other.config_set("requirepass", "")
        await service.eventually_code("ok")
        await service.publish_until_received(3)
    assert "the-secret" not in caplog.text


async def test_a_password_of_an_acl_user_is_replaced_without_an_outage(
    server: RedisServer, admin: Redis
) -> None:
    def change(rule: str) -> None:
        admin.execute_command(f"ACL SETUSER limited {rule}")  # type: ignore[no-untyped-call]

    def service(password: str) -> Service:
        return Service(server.url.replace("redis://", f"redis://limited:{password}@"), "channel")

    allow(admin, "&* +@all")
    old, new = service("pass"), service("new")
    async with old.lifespan:
        change(">new")
        async with new.lifespan:
            change("<pass")
            assert await old.code() == await new.code() == "ok"
            admin.client_kill_filter(user="limited")
            await old.eventually_code("auth_failed")
            await new.eventually_code("ok")
            change(">pass")
            await old.eventually_code("ok")


async def test_an_unreachable_or_frozen_server_fails_the_start_in_time(
    server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_driver, "PING_TIMEOUT", 0.5)
    service = Service(server.url, "channel")
    server.freeze()
    with pytest.raises(BrokerStartError, match="it did not reply in time"):
        await service.lifespan.enter()
    server.kill()
    with pytest.raises(BrokerStartError, match="the connection was refused"):
        await service.lifespan.enter()
    server.start()
    async with service.lifespan:
        await service.publish_until_received(1)


async def test_an_unreachable_cluster_fails_the_start() -> None:
    service = Service(RedisClusterBroker("redis://127.0.0.1:1"), "list")
    assert await driver_for(service.broker).check() == "not_started"
    with pytest.raises(BrokerStartError, match="the connection was refused"):
        await service.lifespan.enter()


async def test_a_frozen_cluster_fails_the_start_in_time(
    server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_driver, "PING_TIMEOUT", 0.3)
    service = Service(RedisClusterBroker(server.url), "list")
    server.freeze()
    with pytest.raises(BrokerStartError, match="it did not reply in time"):
        await service.lifespan.enter()


async def test_an_unknown_host_fails_the_start() -> None:
    service = Service("redis://there-is-no-such-host.invalid", "channel")
    with pytest.raises(BrokerStartError, match="its host name could not be resolved"):
        await service.lifespan.enter()


@pytest.mark.full
@parametrize_kinds(["channel", "list", "group with workers"], "channel", "group with workers")
async def test_a_lifespan_stops_in_time_and_starts_again_after_the_server_freezes_or_ends(
    server: RedisServer, kind: str
) -> None:
    service = Service(server.url, kind)
    loop = asyncio.get_running_loop()
    async with service.lifespan:
        await service.publish_until_received(1)
        server.freeze()
        await service.eventually_code("timeout")
        start = loop.time()
    assert loop.time() - start < 10.0
    server.thaw()
    async with service.lifespan:
        await service.publish_until_received(2)
        server.kill()
        await service.eventually_code("unreachable")
    assert service.subscriber.tasks == []
    server.start()
    async with service.lifespan:
        await service.publish_until_received(3)


async def test_abort_clears_a_subscription_that_a_failed_stop_left_behind(
    server: RedisServer,
) -> None:
    service = Service(server.url, "channel")
    await service.broker.start()
    server.kill()
    connection = service.subscriber.subscription.connection
    await eventually(lambda: not connection.is_connected)
    with pytest.raises(ExceptionGroup, match="Failed to stop subscribers"):
        await service.broker.stop()
    server.start()
    # FastStream keeps the old subscription, with which a new start would not subscribe.
    assert service.subscriber.subscription is not None
    await driver_for(service.broker).abort()
    async with service.lifespan:
        await service.publish_until_received(1)


async def test_consume_false_connects_and_publishes_without_consuming(
    server: RedisServer, admin: Redis
) -> None:
    service = Service(server.url, "list")
    lifespan = BrokerLifespan(service.broker, consume=False)
    async with lifespan:
        assert await status(make_readiness_asgi(lifespan)) == 200
        await service.publish(1)
        assert admin.llen("jobs") == 1
        assert not service.subscriber.running


@parametrize_kinds(["stream", "group", "group in batches"], "stream", "group in batches")
async def test_a_rejected_read_is_reported_and_retried_slowly(
    server: RedisServer,
    admin: Redis,
    kind: str,
) -> None:
    service = Service(server.url, kind)
    async with service.lifespan:
        await service.publish_until_received(1)
        admin.rename("jobs", "kept")
        admin.set("jobs", "not a stream")
        await service.eventually_code("consumer_mismatch")
        assert await status(make_liveness_asgi(service.broker)) == 200
        tasks = len(service.subscriber.tasks)
        before = admin.info("stats")["total_commands_processed"]
        # The rate of retries can only be measured over some time.
        await asyncio.sleep(0.5)
        assert len(service.subscriber.tasks) == tasks == 1
        assert admin.info("stats")["total_commands_processed"] - before < 200
        admin.rename("kept", "jobs")
        await service.eventually_code("ok")
        await service.publish_until_received(2)


async def test_a_master_that_becomes_a_replica_is_reported_as_an_error(
    server: RedisServer, admin: Redis
) -> None:
    service = Service(server.url, "list")
    async with service.lifespan:
        await service.publish_until_received(1)
        # Nothing listens on this port, so the replica never synchronizes and keeps its data.
        admin.replicaof("127.0.0.1", "1")
        await service.eventually_code("error")
        admin.replicaof("no", "one")
        await service.eventually_code("ok")
        await service.publish_until_received(2)


@parametrize_kinds(["channel", "pattern", "list", "group"], "channel", "list", "group")
async def test_missing_permissions_are_reported_until_they_are_granted(
    server: RedisServer,
    admin: Redis,
    kind: str,
) -> None:
    allow(admin, "+@all resetchannels -blpop -xreadgroup")
    service = Service(server.url.replace("//", "//limited:pass@"), kind)
    async with service.lifespan:
        await service.eventually_code("not_permitted")
        assert await status(make_liveness_asgi(service.broker)) == 200
        allow(admin, "allchannels +@all")
        await service.eventually_code("ok")
        await service.publish_until_received(1)


async def test_a_group_is_assumed_to_exist_without_permission_for_xinfo(
    server: RedisServer,
    admin: Redis,
) -> None:
    allow(admin, "+@all -xinfo")
    service = Service(server.url.replace("//", "//limited:pass@"), "group")
    async with service.lifespan:
        await service.publish_until_received(1)
        assert await service.code() == "ok"


@parametrize_kinds(GROUPS, "group with workers")
@pytest.mark.parametrize("read", [True, False])
async def test_a_destroyed_group_is_created_again_at_its_last_position(
    server: RedisServer,
    admin: Redis,
    kind: str,
    read: bool,
) -> None:
    # An entry older than the group must not be delivered, neither to it nor to the new group.
    admin.xadd("jobs", {"before": "the group"})
    admin.xgroup_create("jobs", "another group")
    exits: list[None] = []
    service = Service(server.url, kind)
    # FastStream calls this to end the application when a group disappears.
    service.broker.context.set_global("app", type("App", (), {"exit": lambda _: exits.append(None)})())
    async with service.lifespan:
        if read:
            await service.publish_until_received(0)
        # Wait until the driver has read the position of the group.
        await eventually(lambda: calls(admin, "xinfo") > 1)
        admin.xgroup_destroy("jobs", "group")
        await service.publish(1, 2, 3)
        await eventually(lambda: service.received[-3:] == [1, 2, 3])
        await service.eventually_code("ok")
    assert exits == []
    assert service.received.count(1) == 1


@parametrize_kinds(GROUPS, "group in batches")
async def test_a_deleted_stream_is_created_again(
    server: RedisServer,
    admin: Redis,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Service(server.url, kind)
    async with service.lifespan:
        await service.publish_until_received(0)
        with caplog.at_level(logging.INFO, "faststream.adapters"):
            admin.flushall()
            await eventually(lambda: "consumes again." in caplog.text)
        await service.publish_until_received(1)
        await service.eventually_code("ok")
    reason = "the server no longer has its consumer, group, stream or queue."
    assert reason in caplog.text


@parametrize_kinds([kind for kind in KINDS if kind.startswith(("list", "stream", "group"))], "list", "group")
async def test_a_key_that_holds_something_else_is_reported(
    server: RedisServer,
    admin: Redis,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    service = Service(server.url, kind)
    declared = "list" if "list" in kind else "stream"
    warning = f"declared a {declared} at the key 'jobs', found a"
    async with service.lifespan:
        await service.publish_until_received(1)
        admin.set("string", "text")
        admin.hset("hash", "field", "text")
        for found in ("string", "hash"):
            admin.rename(found, "jobs")
            await eventually(lambda text=f"{warning} {found}.": text in caplog.text)  # type: ignore[misc]
            assert await service.code() == "consumer_mismatch"
        admin.delete("jobs")
        await service.eventually_code("ok")
        await service.publish_until_received(2)
    assert caplog.text.count(warning) == 2


async def test_a_group_is_not_created_at_a_key_that_holds_something_else(
    server: RedisServer,
    admin: Redis,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = Service(server.url, "group")
    restart, refused = service.driver.restart, 0

    async def replace_first(subscriber: Any) -> Mismatch | None:
        """Replace the stream between the check and the restart."""
        nonlocal refused
        if not refused:
            admin.set("jobs", "text")
        mismatch = await restart(subscriber)
        refused += mismatch is not None
        return mismatch

    monkeypatch.setattr(service.driver, "restart", replace_first)
    async with service.lifespan:
        await service.publish_until_received(1)
        admin.delete("jobs")
        await eventually(lambda: refused > 1)
        assert await service.code() == "consumer_mismatch"
        admin.delete("jobs")
        await service.eventually_code("ok")
        await service.publish_until_received(2)
    assert caplog.text.count("declared a stream at the key 'jobs', found a string.") == 1


async def test_a_start_fails_if_the_stream_of_a_group_is_something_else(
    server: RedisServer, admin: Redis
) -> None:
    admin.set("jobs", "not a stream")
    with pytest.raises(BrokerStartError, match="WRONGTYPE"):
        await Service(server.url, "group").lifespan.enter()


async def test_a_stream_with_declare_false_is_reported_until_it_exists_again(
    server: RedisServer,
    admin: Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream = StreamSub("jobs", group="group", consumer="one", declare=False)
    monkeypatch.setitem(KINDS, "not declared", {"stream": stream})
    admin.xgroup_create("jobs", "group", mkstream=True)
    service = Service(server.url, "not declared")
    async with service.lifespan:
        admin.delete("jobs")
        await service.eventually_code("consumer_missing")
        await eventually(lambda: "could not be restarted" in caplog.text)
        admin.xgroup_create("jobs", "group", mkstream=True)
        await service.eventually_code("ok")
        await service.publish_until_received(1)


@pytest.mark.full  # FastStream waits for the task for 3 s
async def test_a_failed_restart_leaves_no_task(server: RedisServer, admin: Redis) -> None:
    allow(admin, "+@all")
    service = Service(server.url.replace("//", "//limited:pass@"), "list")
    async with service.lifespan:
        await service.publish_until_received(1)
        # FastStream's list subscriber sends a PING before it reads and retries at once if that fails.
        allow(admin, "-ping")
        await service.driver.stop_now(service.subscriber)
        with pytest.raises(TimeoutError):
            await service.driver.restart(service.subscriber)
        assert service.subscriber.tasks == []
        allow(admin, "+ping")


async def test_an_exhausted_pool_is_a_fault_of_the_subscribers_but_not_of_the_broker(
    server: RedisServer,
) -> None:
    service = Service(server.url, "list", max_connections=1)
    for name in ("more", "and more"):
        service.broker.subscriber(list=name)(service.one)
    async with service.lifespan:
        await service.eventually_code("error")
        assert (await managed_broker(service.broker).check(5.0)).code == "ok"


@pytest.mark.parametrize(("connections", "exhausted"), [(2, True), (3, False)])
async def test_a_pool_without_a_connection_left_for_publishing_is_logged(
    server: RedisServer,
    connections: int,
    exhausted: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Service(server.url, "channel", max_connections=connections)
    service.broker.subscriber(**KINDS["pattern"])(service.one)
    async with BrokerLifespan(service.broker, consume=False):
        assert "max_connections" not in caplog.text
    async with service.lifespan:
        assert ("2 connections are held by subscribers" in caplog.text) is exhausted
        with pytest.raises(exceptions.MaxConnectionsError) if exhausted else nullcontext():
            await service.publish(1)


CLAIMING = StreamSub("jobs", group="group", consumer="one", min_idle_time=60_000)


@pytest.mark.parametrize("kind", [*KINDS, "claiming"])
def test_which_subscribers_hold_a_connection(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "claiming", {"stream": CLAIMING})
    service = Service("redis://127.0.0.1", kind)
    # These poll and return their connection to the pool in between.
    assert redis_driver.holds_connection(service.subscriber) is (kind not in {"list in batches", "claiming"})
    # Without a handler, a list or a stream is read only on get_one() or iteration.
    alone = service.broker.subscriber(**KINDS[kind])
    assert redis_driver.holds_connection(alone) is kind.startswith(("channel", "pattern"))


async def test_a_subscriber_is_not_idle_while_a_message_waits_for_a_worker(
    server: RedisServer,
) -> None:
    service = Service(server.url, "list with workers")
    async with service.lifespan:
        await eventually(lambda: service.driver.is_idle(service.subscriber))
        await service.publish(1)
        message = {"type": "list", "channel": "jobs", "data": b"2"}
        await eventually(lambda: service.received == [1])
        await eventually(lambda: service.driver.is_idle(service.subscriber))
        await service.subscriber.consume_one(message)
        while 2 not in service.received:
            assert not service.driver.is_idle(service.subscriber)
            # One step of the event loop at a time.
            await asyncio.sleep(0)
        await eventually(lambda: service.driver.is_idle(service.subscriber))


async def test_a_subscriber_with_workers_is_idle_when_no_handler_runs(server: RedisServer) -> None:
    release = asyncio.Event()

    async def wait(_: int) -> None:
        await release.wait()

    service = Service(server.url, "list with workers", wait)
    async with service.lifespan:
        # At this point the task of the workers may not have started yet.
        await eventually(lambda: service.driver.is_idle(service.subscriber))
        await service.publish(*range(10))
        await eventually(lambda: not service.driver.is_idle(service.subscriber))
        release.set()
        await eventually(lambda: len(service.received) == 10)
        await eventually(lambda: service.driver.is_idle(service.subscriber))


@pytest.mark.parametrize("kind", KINDS)
def test_only_lists_and_groups_are_load_balanced(kind: str) -> None:
    service = Service("redis://127.0.0.1", kind)
    assert service.driver.is_load_balanced(service.subscriber) is kind.startswith(("list", "group"))


def cluster_error(cause: Exception) -> Exception:
    """Return the error that a cluster client raises when it cannot reach any node."""
    error = exceptions.RedisClusterException()
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (exceptions.AuthenticationError(), "auth_failed"),
        (exceptions.NoPermissionError(), "auth_failed"),
        (exceptions.TimeoutError(), "timeout"),
        (TimeoutError(), "timeout"),
        (exceptions.BusyLoadingError(), "error"),
        (exceptions.MaxConnectionsError(), "error"),
        (exceptions.ReadOnlyError(), "error"),
        (exceptions.ConnectionError(), "unreachable"),
        (ConnectionRefusedError(), "unreachable"),
        (KeyError(), "error"),
        (cluster_error(exceptions.ConnectionError()), "unreachable"),
        (cluster_error(exceptions.TimeoutError()), "timeout"),
        (cluster_error(exceptions.AuthenticationError()), "auth_failed"),
        (exceptions.RedisClusterException(), "error"),
    ],
)
def test_errors_are_classified_by_code(error: Exception, code: str) -> None:
    assert driver_for(RedisBroker()).classify(error) == code


def test_subscriber_errors_are_classified_by_code() -> None:
    driver = driver_for(RedisBroker())
    assert driver.classify_subscriber(exceptions.ResponseError("NOGROUP No such key")) == "consumer_missing"
    assert driver.classify_subscriber(exceptions.NoPermissionError()) == "not_permitted"
    assert driver.classify_subscriber(exceptions.TimeoutError()) == "timeout"
    assert driver.classify_subscriber(exceptions.ConnectionError()) == "error"


async def test_a_test_broker_never_connects() -> None:
    service = Service("redis://127.0.0.1:1", "list")
    async with TestRedisBroker(service.broker):
        async with service.lifespan:
            assert not service.driver.has_client
            assert await service.code() == "ok"
            await service.publish(1)
        assert service.received == [1]
        # Abort, as after a failed start, accepts a TestBroker too.
        await service.driver.abort()


async def test_a_drain_ends_when_the_connection_of_a_channel_is_lost(
    server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_reading, "UNSUBSCRIBE_INTERVAL", 0.02)
    started, release = asyncio.Event(), asyncio.Event()

    async def wait(_: int) -> None:
        started.set()
        await release.wait()

    service = Service(server.url, "channel", wait)
    await service.lifespan.enter()
    await service.publish(1)
    async with asyncio.timeout(10.0):
        await started.wait()
    server.kill()
    drain = asyncio.create_task(service.driver.drain())
    # The first UNSUBSCRIBE can still be sent, and makes the operating system notice the loss.
    await eventually(lambda: not service.subscriber.subscription.connection.is_connected)
    release.set()
    async with asyncio.timeout(10.0):
        await drain
    assert service.received == [1]
    await service.lifespan.leave()


async def test_a_drain_blocked_by_a_frozen_server_ends_when_the_server_is_killed(server: RedisServer) -> None:
    service = Service(server.url, "channel")
    await service.lifespan.enter()
    server.freeze()
    drain = asyncio.create_task(service.driver.drain())
    await eventually(lambda: bool(service.subscriber.subscription.pending_unsubscribe_channels))
    assert not drain.done()
    server.kill()
    async with asyncio.timeout(10.0):
        await drain
    await service.lifespan.leave()


@pytest.mark.parametrize("kind", ["channel", "pattern"])
@pytest.mark.parametrize("connected", [True, False])
async def test_a_stop_unsubscribes_even_right_after_a_reconnect(
    server: RedisServer,
    admin: Redis,
    kind: str,
    connected: bool,
) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def wait(_: int) -> None:
        started.set()
        await release.wait()

    service = Service(server.url, kind, wait)
    await service.lifespan.enter()
    await service.publish(1)
    async with asyncio.timeout(10.0):
        await started.wait()
    subscription = service.subscriber.subscription
    await subscription.connection.disconnect()
    if connected:
        # The client has sent SUBSCRIBE again, but has not read the confirmation.
        await subscription.connect()
    leaving = asyncio.create_task(service.lifespan.leave())
    await eventually(lambda: service.lifespan.state == "draining")
    release.set()
    await leaving
    assert service.received == [1]
    assert admin.pubsub_numsub("jobs") == [(b"jobs", 0)]
    assert admin.pubsub_numpat() == 0


@parametrize_kinds(["channel", "pattern", "list", "group with workers"], "channel", "group with workers")
async def test_shutdown_timeout_applies_when_the_server_freezes_before_the_drain(
    server: RedisServer,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def wait(_: int) -> None:
        started.set()
        await release.wait()

    service = Service(server.url, kind, wait)
    service.lifespan.shutdown_timeout = 0.5
    drain = RedisDriver.drain

    async def drain_frozen(self: RedisDriver) -> None:
        # Freeze only now, right after the server has replied to the last check.
        server.freeze()
        release.set()
        await drain(self)

    monkeypatch.setattr(RedisDriver, "drain", drain_frozen)
    await service.lifespan.enter()
    await service.publish(1)
    async with asyncio.timeout(10.0):
        await started.wait()
        await service.lifespan.leave()
    assert service.received == [1]
    assert service.subscriber.tasks == []


async def test_a_handler_that_exceeds_the_shutdown_timeout_is_cancelled(
    server: RedisServer, admin: Redis
) -> None:
    started = asyncio.Event()

    async def wait(_: int) -> None:
        started.set()
        await asyncio.Event().wait()

    service = Service(server.url, "group", wait)
    service.lifespan.shutdown_timeout = 0.5
    async with service.lifespan:
        await service.publish(1)
        async with asyncio.timeout(10.0):
            await started.wait()
    # The entry stays pending in Redis, where StreamSub(min_idle_time=...) can claim it.
    assert admin.xpending("jobs", "group")["pending"] == 1


def accepts_failover(sentinel: Redis, master: str) -> bool:
    """Ask the sentinel for a failover. It refuses until it has discovered the replica and seen it in sync."""
    accepted = []
    with suppress(exceptions.ResponseError):
        accepted.append(sentinel.sentinel_failover(master))
    return accepted == [True]


@pytest.mark.full
@pytest.mark.parametrize("kind", ["channel", "list", "group"])
async def test_a_sentinel_broker_follows_the_failover_to_a_new_master(server: RedisServer, kind: str) -> None:
    with (
        RedisServer(config=f"replicaof 127.0.0.1 {server.port}") as replica,
        RedisSentinel(server) as sentinel,
        sentinel.client() as sentinel_client,
    ):
        broker = RedisSentinelBroker(
            sentinels=[("127.0.0.1", sentinel.port)], sentinel_master_name=sentinel.MASTER
        )
        service = Service(broker, kind)
        async with service.lifespan:
            await service.publish_until_received(1)
            await eventually(lambda: accepts_failover(sentinel_client, sentinel.MASTER), 30.0)
            with replica.client() as replica_client:
                await eventually(lambda: replica_client.role()[0] == b"master", 30.0)
            server.kill()
            await service.publish_until_received(2)
            await service.eventually_code("ok")


@pytest.mark.parametrize(
    "options", [{}, {"sentinel_kwargs": {"retry": Retry(NoBackoff(), 1)}}], ids=["default", "own retry"]
)
async def test_a_sentinel_that_is_lost_does_not_delay_the_start(
    server: RedisServer, options: dict[str, Any]
) -> None:
    with closing(RedisServer()) as lost, RedisSentinel(server) as sentinel:
        broker = RedisSentinelBroker(
            sentinels=[*[("127.0.0.1", lost.port)] * 3, ("127.0.0.1", sentinel.port)],
            sentinel_master_name=sentinel.MASTER,
            **options,
        )
        async with BrokerLifespan(broker):
            assert await broker.ping(5.0)


@pytest.mark.full
async def test_the_failed_start_of_a_sentinel_broker_names_the_sentinels_and_the_master(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.kill()
    broker = RedisSentinelBroker(
        sentinels=[("127.0.0.1", server.port)],
        sentinel_master_name="main",
        sentinel_kwargs={"password": "hunter2"},
    )
    name = f"RedisSentinelBroker redis-sentinel://127.0.0.1:{server.port}/main"
    with pytest.raises(BrokerStartError, match=f"^{name} could not be started: ") as raised:
        await BrokerLifespan(broker).enter()
    async with BrokerLifespan(broker, startup="background"):
        await eventually(lambda: f"{name} is not up: " in caplog.text)
    assert "hunter2" not in f"{raised.value}{caplog.text}"


@pytest.mark.full
@pytest.mark.parametrize("kind", ["channel", "list", "group"])
async def test_a_cluster_is_checked_with_ping(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with RedisServer(config="cluster-enabled yes") as server:
        service = Service(RedisClusterBroker(server.url), kind)
        with server.client() as admin:
            # No slots are assigned yet.
            with pytest.raises(BrokerStartError):
                await service.lifespan.enter()
            admin.cluster("addslots", *range(16384))
            await eventually(lambda: admin.cluster("info")["cluster_state"] == "ok")
        async with service.lifespan:
            assert not service.driver.has_client
            assert await service.code() == "ok"
            await service.publish_until_received(1)
            server.freeze()
            monkeypatch.setattr(redis_driver, "PING_TIMEOUT", 0.5)
            with pytest.raises(TimeoutError):
                await service.driver.check()
            server.thaw()
            await service.eventually_code("ok")
            server.kill()
            await service.eventually_code("unreachable")
            server.start()
            await service.eventually_code("ok")
        assert service.subscriber.tasks == []


async def test_a_subscriber_stopped_by_the_application_stays_stopped(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "faststream.adapters")
    service = Service(server.url, "list with workers")
    async with service.lifespan:
        await service.publish_until_received(1)
        await service.subscriber.stop()
        await eventually(lambda: "was stopped by the application" in caplog.text)
        assert await service.code() == "ok"
        await service.publish(2)
    assert 2 not in service.received


async def test_the_example_of_the_documentation_runs(server: RedisServer) -> None:
    [block] = python_blocks("docs/brokers/redis.md").values()
    assert "redis://localhost:6379" in block.code
    names: dict[str, Any] = {}
    exec(block.code.replace("redis://localhost:6379", server.url), names)  # noqa: S102 (our own page)
    app = names["app"]
    async with app.router.lifespan_context(app), client(app) as http:
        assert (await http.get("/readyz")).status_code == 200
        assert (await http.post("/orders", params={"number": 7})).status_code == 202
        await eventually(lambda: names["handled"] == [7])
