"""Faults of a NATS server: the responses of the probes, and what happens to messages."""

import asyncio
import logging
import time
from typing import Any

import pytest
from faststream.nats import JStream, NatsBroker, PullSub
from nats.aio.client import Server
from nats.errors import SlowConsumerError

from faststream_adapters import BrokerLifespan, make_ping_asgi, make_readiness_asgi
from faststream_adapters._brokers.nats import slow_consumers
from faststream_adapters._brokers.nats.driver import NatsDriver
from faststream_adapters._lifecycle import supervisor
from faststream_adapters._lifecycle.managed import managed_broker
from tests.harness.clients import eventually_status, status
from tests.harness.servers.nats import NatsFactory, NatsServer
from tests.harness.waiting import eventually


def consumer(url: str, kind: str = "core", limit: int = 0) -> tuple[NatsBroker, "asyncio.Queue[str]"]:
    """Return a broker with a subscriber to `jobs`, and the queue of the messages that it received."""
    broker = NatsBroker(url, reconnect_time_wait=0)
    received: asyncio.Queue[str] = asyncio.Queue(limit)
    options: dict[str, dict[str, Any]] = {
        "core": {},
        "push": {"stream": JStream("jobs"), "queue": "workers"},
        "pull": {"stream": JStream("jobs"), "durable": "worker", "pull_sub": PullSub(timeout=0.5)},
    }

    async def handle(message: str) -> None:
        await received.put(message)

    broker.subscriber("jobs", **options[kind])(handle)

    return broker, received


async def round_trip(broker: NatsBroker, received: "asyncio.Queue[str]", message: str) -> None:
    """Publish a message and wait until it is handled."""
    await broker.publish(message, "jobs")
    async with asyncio.timeout(10):
        # JetStream redelivers messages that were not acknowledged before the server was killed.
        while await received.get() != message:
            ...


@pytest.mark.parametrize("kind", ["core", "push", "pull"])
async def test_readiness_fails_while_the_server_is_down(nats_js: NatsServer, kind: str) -> None:
    broker, received = consumer(nats_js.url, kind)
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan)
    async with lifespan:
        await round_trip(broker, received, "before")
        nats_js.kill()
        await eventually_status(ready, 503)
        nats_js.restart()
        await eventually_status(ready, 200)
        await round_trip(broker, received, "after")


async def test_the_client_works_after_checks_of_a_frozen_server_timed_out(nats: NatsServer) -> None:
    broker, received = consumer(nats.url)
    lifespan = BrokerLifespan(broker)
    ping = make_ping_asgi(lifespan, timeout=0.1)
    async with lifespan:
        for number in range(3):
            nats.freeze()
            assert await status(ping) == 500
            assert await status(ping) == 500
            nats.thaw()
            await eventually_status(ping, 204)
            await round_trip(broker, received, f"after freeze {number}")


async def test_the_client_reconnects_beyond_its_limit_of_attempts(
    nats: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = NatsBroker(nats.url, reconnect_time_wait=0, max_reconnect_attempts=1)
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan)
    async with lifespan:
        client = broker.connection
        nats.kill()
        await eventually(lambda: client.is_reconnecting)
        # With this many failures, the client would have given up.
        await eventually(lambda: all(server.reconnects > 3 for server in client._server_pool))  # noqa: SLF001 (counted nowhere else)
        nats.restart()
        await eventually_status(ready, 200)
        assert broker.connection is client


async def test_a_lost_connection_and_its_recovery_are_logged_once(
    nats: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.01)
    monkeypatch.setattr(supervisor, "CHECK_TIMEOUT", 0.05)
    broker, _ = consumer(nats.url)
    with caplog.at_level("INFO", "faststream.adapters"):
        async with BrokerLifespan(broker):
            nats.freeze()
            await eventually(lambda: "Lost connection to" in caplog.text)
            nats.thaw()
            await eventually(lambda: "Reconnected to " in caplog.text)
    assert caplog.text.count("Lost connection to") == 1
    assert caplog.text.count("Reconnected to") == 1


async def test_a_closed_client_is_restarted(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.05)
    broker, received = consumer(nats.url)
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan)
    async with lifespan:
        closed = broker.connection
        await closed.close()
        assert await status(ready) == 503
        await eventually_status(ready, 200)
        assert broker.connection is not closed
        await round_trip(broker, received, "after")


async def test_a_login_that_is_rejected_on_reconnect_is_retried(
    nats_factory: NatsFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.05)
    server = nats_factory(user="user", password="right")
    broker, received = consumer(server.url)
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan)
    async with lifespan:
        first = broker.connection
        server.password = "changed"
        server.restart()
        await eventually_status(ready, 503)
        await eventually(lambda: first.is_closed)
        server.password = "right"
        server.restart()
        await eventually_status(ready, 200)
        await round_trip(broker, received, "after")


async def test_a_client_that_stays_connected_without_replies_is_restarted(
    nats: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervisor, "CHECK_TIMEOUT", 0.1)
    monkeypatch.setattr(supervisor, "PATIENCE", 0.5)
    broker, received = consumer(nats.url)
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan)
    async with lifespan:
        frozen = broker.connection
        nats.freeze()
        await eventually(lambda: frozen.is_closed)
        assert await status(ready) == 503
        nats.thaw()
        await eventually_status(ready, 200)
        assert broker.connection is not frozen
        await round_trip(broker, received, "after")


@pytest.mark.parametrize("finish", [True, False], ids=["they finish", "they do not"])
async def test_a_restart_waits_for_handlers(
    nats: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
    *,
    finish: bool,
) -> None:
    """A restart would lose the messages in flight, but it does not wait for a handler that hangs."""
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervisor, "CHECK_TIMEOUT", 0.1)
    monkeypatch.setattr(supervisor, "PATIENCE", 0.2)
    monkeypatch.setattr(supervisor, "HANDLERS_TIMEOUT", 60.0 if finish else 0.3)
    broker = NatsBroker(nats.url)
    started, resume, handled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @broker.subscriber("jobs")
    async def handle(message: str) -> None:
        started.set()
        await resume.wait()
        handled.set()

    async with BrokerLifespan(broker, shutdown_timeout=1.0):
        await broker.publish("one", "jobs")
        await started.wait()
        lost = broker.connection
        nats.freeze()
        if finish:
            # Longer than supervision waits when no message is in flight.
            await asyncio.sleep(1.0)
            assert not lost.is_closed
            resume.set()
            await handled.wait()
        await eventually(lambda: lost.is_closed)
        assert handled.is_set() is finish
        nats.thaw()


async def test_a_shutdown_without_the_server_logs_interrupted_handlers(
    nats: NatsServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = NatsBroker(nats.url)
    started = asyncio.Event()

    @broker.subscriber("jobs")
    async def handle(message: str) -> None:
        started.set()
        await asyncio.Event().wait()

    async with BrokerLifespan(broker, shutdown_timeout=0.5):
        await broker.publish("one", "jobs")
        await started.wait()
        nats.kill()
    assert "is lost, and its handlers did not finish in time" in caplog.text


async def test_a_broker_that_the_application_stopped_is_not_restarted(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.01)
    broker, _ = consumer(nats.url)
    checks = 0

    class Counting(type(managed_broker(broker).driver)):  # type: ignore[misc]
        @property
        def has_client(self) -> bool:
            nonlocal checks
            checks += 1
            return super().has_client  # type: ignore[no-any-return]

    managed_broker(broker).driver.__class__ = Counting
    async with BrokerLifespan(broker):
        await broker.stop()
        checks = 0
        await eventually(lambda: checks > 5)
        assert not broker.running


async def test_without_supervision_a_closed_client_stays_closed(nats: NatsServer) -> None:
    broker, _ = consumer(nats.url)
    lifespan = BrokerLifespan(broker, supervise=False)
    async with lifespan:
        assert broker.connection.options["max_reconnect_attempts"] == 60
        await broker.connection.close()
        assert await status(make_readiness_asgi(lifespan)) == 503


@pytest.mark.full
async def test_repeated_startups_and_shutdowns_leave_no_tasks(nats: NatsServer) -> None:
    broker, received = consumer(nats.url)
    lifespan = BrokerLifespan(broker)
    async with lifespan:
        await round_trip(broker, received, "first")
    tasks = len(asyncio.all_tasks())
    for _ in range(50):
        async with lifespan:
            pass
        assert len(asyncio.all_tasks()) == tasks
    async with lifespan:
        await round_trip(broker, received, "last")


async def test_attempts_to_reach_a_server_are_as_far_apart_as_the_application_wants(nats: NatsServer) -> None:
    failures: list[float] = []

    async def on_error(error: Exception) -> None:
        if isinstance(error, ConnectionRefusedError):
            failures.append(time.monotonic())

    broker = NatsBroker(nats.url, reconnect_time_wait=0.2, error_cb=on_error)  # type: ignore[arg-type]  # nats-py accepts a float
    async with BrokerLifespan(broker):
        nats.kill()
        await eventually(lambda: len(failures) == 4)
        assert failures[3] - failures[0] > 0.5
        nats.restart()


async def test_a_function_of_the_application_that_selects_servers_is_kept(nats: NatsServer) -> None:
    selected: list[Server] = []

    def select(servers: list[Server], _: dict[str, Any]) -> tuple[Server, float]:
        selected.append(servers[0])
        return servers[0], 0.02

    broker = NatsBroker(nats.url, reconnect_to_server_handler=select)
    lifespan = BrokerLifespan(broker)
    async with lifespan:
        nats.restart()
        await eventually(lambda: bool(selected))
        await eventually_status(make_readiness_asgi(lifespan), 200)


async def test_each_server_is_logged_in_to_with_the_credentials_of_its_url(nats_factory: NatsFactory) -> None:
    first, second = (nats_factory(user="user", password=password) for password in ("one", "two"))
    broker = NatsBroker([first.url, second.url], dont_randomize=True)
    lifespan = BrokerLifespan(broker)
    async with lifespan:
        first.kill()
        await eventually(lambda: broker.connection.stats["reconnects"] == 1)
        await eventually_status(make_readiness_asgi(lifespan), 200)
        first.restart()
        second.kill()
        await eventually(lambda: broker.connection.stats["reconnects"] == 2)
        await eventually_status(make_readiness_asgi(lifespan), 200)


async def test_an_address_that_ends_the_clients_attempts_is_survived(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.05)
    # No host name can be that long, and the error is none that nats-py expects.
    broker = NatsBroker([nats.url, f"nats://{'x' * 64}:4222"], dont_randomize=True)
    lifespan = BrokerLifespan(broker)
    async with lifespan:
        client = broker.connection
        nats.restart()
        await eventually(lambda: not client.is_connected)
        await eventually_status(make_readiness_asgi(lifespan), 200)
        assert broker.connection is not client


async def test_a_server_that_has_failed_is_dialled_after_the_others(nats_factory: NatsFactory) -> None:
    working, frozen = nats_factory(), nats_factory()
    broker = NatsBroker([frozen.url, working.url], dont_randomize=True, connect_timeout=1)
    frozen.freeze()
    lifespan = BrokerLifespan(broker)
    async with lifespan:
        broker.connection.options["connect_timeout"] = 60
        working.restart()
        await eventually(lambda: broker.connection.stats["reconnects"] == 1)
        await eventually_status(make_readiness_asgi(lifespan), 200)


async def test_a_stop_warns_of_messages_that_the_client_has_not_sent(
    nats_js: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    # It keeps asking JetStream for messages, which are no messages of the application.
    broker, received = consumer(nats_js.url, "pull")
    lifespan = BrokerLifespan(broker, shutdown_timeout=0.5)
    async with lifespan:
        await round_trip(broker, received, "sent")
        nats_js.kill()
        await eventually(lambda: broker.connection.is_reconnecting)
        for _ in range(3):
            await broker.publish("x" * 1000, "jobs")
    [lost] = [record for record in caplog.records if "are lost" in record.message]
    assert lost.levelno == logging.WARNING
    assert "3 published messages (3" in lost.message


async def test_a_stop_without_unsent_messages_warns_of_none(
    nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    broker, received = consumer(nats.url)
    async with BrokerLifespan(broker, shutdown_timeout=0.5):
        await round_trip(broker, received, "sent")
        nats.kill()
        await eventually(lambda: broker.connection.is_reconnecting)
    assert "lost:" not in caplog.text


@pytest.mark.full
@pytest.mark.parametrize("application", [True, False], ids=["error_cb", "no error_cb"])
async def test_dropped_messages_are_counted_and_logged_once_a_minute(
    nats: NatsServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, *, application: bool
) -> None:
    errors: list[Exception] = []

    async def on_error(error: Exception) -> None:
        errors.append(error)

    async def slow(_: str) -> None:
        await resume.wait()
        handled.append(None)

    async def fast(_: str) -> None:
        fast_handled.set()

    broker = NatsBroker(nats.url, error_cb=on_error if application else None)
    of_slow, of_fast = (broker.subscriber(subject, pending_msgs_limit=50) for subject in ("slow", "fast"))
    of_slow(slow)
    of_fast(fast)
    driver = managed_broker(broker).driver
    assert isinstance(driver, NatsDriver)
    resume, fast_handled = asyncio.Event(), asyncio.Event()
    handled: list[None] = []

    def warnings() -> list[str]:
        return [record.message for record in caplog.records if "too slow" in record.message]

    async with BrokerLifespan(broker):
        for _ in range(400):
            await broker.publish("message", "slow")
        await eventually(lambda: broker.connection.stats["in_msgs"] == 400)
        assert len(warnings()) == 1
        assert "slow is too slow, and messages for it are dropped, 1 so far" in warnings()[0]
        dropped = driver.dropped(of_slow)
        await broker.publish("message", "fast")
        await fast_handled.wait()
        assert driver.dropped(of_fast) == 0
        resume.set()
        await eventually(lambda: len(handled) + dropped == 400)
        assert dropped >= 349
        monkeypatch.setattr(slow_consumers, "WARNING_INTERVAL", 0.0)
        resume.clear()
        for _ in range(60):
            await broker.publish("message", "slow")
        await eventually(lambda: broker.connection.stats["in_msgs"] == 461)
        assert f"{driver.dropped(of_slow)} so far" in warnings()[-1]
        assert len(errors) == (driver.dropped(of_slow) if application else 0)
        resume.set()
    assert "Traceback" not in caplog.text
    assert "SlowConsumerError" not in caplog.text


async def test_dropped_messages_of_the_applications_own_subscription_are_its_own_concern(
    nats: NatsServer,
) -> None:
    errors: list[Exception] = []

    async def on_error(error: Exception) -> None:
        errors.append(error)

    broker = NatsBroker(nats.url, error_cb=on_error)
    async with BrokerLifespan(broker):
        subscription = await broker.connection.subscribe("other", pending_msgs_limit=1)
        for _ in range(3):
            await broker.publish("message", "other")
        await eventually(lambda: broker.connection.stats["in_msgs"] == 3)
        assert [type(error) for error in errors] == [SlowConsumerError] * 2
        await subscription.unsubscribe()


async def test_an_idle_pull_subscriber_logs_no_error(
    nats_js: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    broker, received = consumer(nats_js.url, "pull")
    async with BrokerLifespan(broker):
        await round_trip(broker, received, "first")
        subscriber: Any
        [subscriber] = broker.subscribers
        pull = subscriber.subscription.wrapped
        fetch, raised = pull.fetch, asyncio.Event()

        async def times_out(**_: Any) -> None:
            # What nats-py itself raises now and then, if the reply arrives at the timeout.
            pull.fetch = fetch
            raised.set()
            raise TimeoutError

        pull.fetch = times_out
        await raised.wait()
        await round_trip(broker, received, "second")
    assert "ERROR" not in caplog.text


@pytest.mark.parametrize("kind", ["core", "push", "pull"])
async def test_a_stop_ends_when_the_client_is_closed_meanwhile(
    nats_js: NatsServer, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    # Its second message waits until the first one is taken from the queue, and the others wait for that.
    broker, received = consumer(nats_js.url, kind, limit=1)
    # It would wait so long for messages that nothing can handle any more.
    lifespan = BrokerLifespan(broker, shutdown_timeout=3600.0)
    await lifespan.enter()
    for _ in range(10):
        await broker.publish("", "jobs")
    await eventually(received.full)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(lifespan.leave())
        for _ in range(5):
            # When the server has replied so often, it has also replied to the drain.
            await broker.connection.flush()
        await broker.connection.close()
        await received.get()
    assert caplog.text.count("was closed before it was stopped") == 1
    assert "while draining a subscriber" not in caplog.text


async def test_a_stop_ends_when_a_client_is_closed_after_its_drain(
    nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    closed = NatsBroker(nats.url)
    busy, received = consumer(nats.url, limit=1)
    lifespan = BrokerLifespan(closed, busy)
    await lifespan.enter()
    await busy.publish("", "jobs")
    await busy.publish("", "jobs")
    await eventually(received.full)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(lifespan.leave())
        await eventually(lambda: managed_broker(closed)._drained)  # noqa: SLF001 (nothing else tells)
        await closed.connection.close()
        await received.get()
    assert caplog.text.count("was closed before it was stopped") == 1
    assert "did not stop cleanly" not in caplog.text
    assert received.full()


@pytest.mark.full
async def test_the_application_starts_a_broker_whose_client_is_closed(nats_js: NatsServer) -> None:
    broker, received = consumer(nats_js.url, "push")
    lifespan = BrokerLifespan(broker, supervise=False, consume=["handle"])
    broker.subscriber("others")(print)
    async with lifespan:
        await broker.connection.close()
        await broker.start()
        await round_trip(broker, received, "after")
        assert [subscriber.code for subscriber in lifespan.subscribers] == ["ok", "stopped"]
        assert await status(make_readiness_asgi(lifespan)) == 200
