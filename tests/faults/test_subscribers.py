"""Subscribers that do not consume while the broker is up: readiness fails, and they are restarted."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import nats as nats_py
import pytest
from faststream.nats import JStream, KvWatch, NatsBroker, PullSub
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from faststream_adapters import (
    BrokerLifespan,
    make_liveness_asgi,
    make_readiness_asgi,
)
from faststream_adapters._brokers.codes import Code
from faststream_adapters._brokers.nats import driver as nats_driver
from faststream_adapters._lifecycle import subscriber_monitor, supervisor
from faststream_adapters._lifecycle.managed import managed_broker
from faststream_adapters._utils.tasks import uninterrupted
from tests.harness.clients import client, eventually_status, status
from tests.harness.servers.nats import NatsFactory, NatsServer
from tests.harness.waiting import eventually

Handler = Callable[[str], Awaitable[None]]

KINDS: dict[str, dict[str, Any]] = {
    "push": {"queue": "worker"},
    "push without a queue": {},
    "push with workers": {"queue": "worker", "max_workers": 3},
    "pull": {"durable": "worker", "pull_sub": PullSub(timeout=0.5)},
    "pull with workers": {"durable": "worker", "pull_sub": PullSub(timeout=0.5), "max_workers": 3},
}


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervisor, "SUBSCRIBERS_INTERVAL", 0.1)
    monkeypatch.setattr(subscriber_monitor, "RETRY_INTERVAL", 0.1)


def consumer(
    url: str,
    kind: str,
    *,
    declare: bool = True,
    handler: Handler | None = None,
    **options: Any,
) -> tuple[NatsBroker, "asyncio.Queue[str]"]:
    """Return a broker with a JetStream subscriber to `jobs`, and the queue of the messages it received."""
    broker = NatsBroker(url, logger=None, **options)
    received: asyncio.Queue[str] = asyncio.Queue()

    async def handle(message: str) -> None:
        if handler is not None:
            await handler(message)
        await received.put(message)

    broker.subscriber("jobs", stream=JStream("jobs", declare=declare), **KINDS[kind])(handle)
    return broker, received


async def wait_for_message(received: "asyncio.Queue[str]", message: str, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while await received.get() != message:
            ...


def jetstream(broker: NatsBroker) -> JetStreamContext:
    return broker.connection.jetstream()


async def consumer_name(broker: NatsBroker) -> str:
    [info] = await jetstream(broker).consumers_info("jobs")
    return info.name


async def code_of(app: Any) -> str:
    async with client(app) as http:
        return str((await http.get("/")).json()["code"])


async def subscriber_codes(app: Any) -> set[str]:
    async with client(app) as http:
        entries = (await http.get("/")).json()["checks"]["NatsBroker"]
    return {entry["code"] for entry in entries if entry["componentType"] == "subscriber"}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_deleted_consumer_is_created_again(nats_js: NatsServer, kind: str) -> None:
    broker, received = consumer(nats_js.url, kind)
    lifespan = BrokerLifespan(broker)
    async with lifespan:
        await broker.publish("before", "jobs")
        await wait_for_message(received, "before")
        name = await consumer_name(broker)
        await jetstream(broker).delete_consumer("jobs", name)
        await broker.publish("meanwhile", "jobs")
        await wait_for_message(received, "meanwhile")
        await eventually_status(make_readiness_asgi(lifespan), 200)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_deleted_stream_that_the_application_declares_is_declared_again(
    nats_js: NatsServer,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker, received = consumer(nats_js.url, kind)
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan)
    async with lifespan:
        with caplog.at_level("INFO", "faststream.adapters"):
            await jetstream(broker).delete_stream("jobs")
            await eventually(lambda: "consumes again." in caplog.text)
        await eventually_status(ready, 200)
        await broker.publish("after", "jobs")
        await wait_for_message(received, "after")
    reason = "the server no longer has its consumer, group, stream or queue."
    assert caplog.text.count(f"the subscriber handle does not consume: {reason}") == 1
    assert caplog.text.count("the subscriber handle consumes again.") == 1


@pytest.mark.parametrize("kind", ["push", "pull"])
async def test_readiness_fails_until_a_stream_that_is_not_declared_exists_again(
    nats_js: NatsServer,
    kind: str,
) -> None:
    broker, received = consumer(nats_js.url, kind, declare=False)
    owner = await nats_py.connect(nats_js.url)
    await owner.jetstream().add_stream(name="jobs", subjects=["jobs"])
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan, details=True)
    async with lifespan:
        await owner.jetstream().delete_stream("jobs")
        await eventually_status(ready, 503)
        assert await code_of(ready) == "consumer_missing"
        assert await status(make_liveness_asgi(lifespan)) == 200
        # It stays stopped until then, because FastStream would retry without a pause.
        [subscriber] = broker.subscribers
        await eventually(lambda: not subscriber.running)
        await owner.jetstream().add_stream(name="jobs", subjects=["jobs"])
        await eventually_status(ready, 200)
        await broker.publish("after", "jobs")
        await wait_for_message(received, "after")
    await owner.close()


async def test_a_subscriber_is_restarted_after_its_handlers_have_finished(
    nats_js: NatsServer,
) -> None:
    started, resume = asyncio.Event(), asyncio.Event()

    async def slow(message: str) -> None:
        started.set()
        await resume.wait()

    broker, received = consumer(nats_js.url, "push", handler=slow)
    lifespan = BrokerLifespan(broker)
    async with lifespan:
        await broker.publish("slow", "jobs")
        await started.wait()
        await jetstream(broker).delete_stream("jobs")
        await eventually(lambda: managed_broker(broker).subscriber_fault() == "consumer_missing")
        await eventually_status(make_readiness_asgi(lifespan), 503)
        assert received.empty()
        resume.set()
        await wait_for_message(received, "slow")
        await eventually_status(make_readiness_asgi(lifespan), 200)


async def test_a_subscriber_is_restarted_while_a_handler_hangs(
    nats_js: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscriber_monitor, "HANDLERS_TIMEOUT", 0.2)

    started = asyncio.Event()

    async def hang(message: str) -> None:
        if message == "hang":
            started.set()
            await asyncio.Event().wait()

    broker, received = consumer(nats_js.url, "push", handler=hang)
    lifespan = BrokerLifespan(broker)
    async with lifespan:
        await broker.publish("hang", "jobs")
        await started.wait()
        await jetstream(broker).delete_stream("jobs")
        await eventually_status(make_readiness_asgi(lifespan), 503)
        await eventually_status(make_readiness_asgi(lifespan), 200)
        await broker.publish("after", "jobs")
        await wait_for_message(received, "after")


async def test_readiness_fails_while_the_consumer_is_paused_on_the_server(nats_js: NatsServer) -> None:
    broker, received = consumer(nats_js.url, "pull")
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan, details=True)
    async with lifespan:
        await jetstream(broker).pause_consumer("jobs", "worker", "2999-01-01T00:00:00Z")
        await eventually_status(ready, 503)
        assert await code_of(ready) == "consumer_paused"
        await jetstream(broker).resume_consumer("jobs", "worker")
        await eventually_status(ready, 200)
        await broker.publish("after", "jobs")
        await wait_for_message(received, "after")


async def test_a_subscriber_that_the_application_stopped_is_not_restarted(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url, logger=None)
    subscriber = broker.subscriber("jobs")
    subscriber(print)
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan, details=True)
    async with lifespan:
        await subscriber.stop()
        async with client(ready) as http:
            response = await http.get("/")
        assert response.status_code == 200
        body = response.json()
        assert (body["status"], body["code"]) == ("pass", "ok")
        assert body["checks"]["NatsBroker"][0]["status"] == "pass"
        assert body["checks"]["NatsBroker"][1] == {
            "componentType": "subscriber",
            "componentId": "print",
            "status": "pass",
            "code": "stopped",
        }
        checks = 0

        class Counting(type(managed_broker(broker).driver)):  # type: ignore[misc]
            def running_tasks(self, subscriber: Any) -> int:
                raise AssertionError

            @property
            def has_client(self) -> bool:
                nonlocal checks
                checks += 1
                return super().has_client  # type: ignore[no-any-return]

        managed_broker(broker).driver.__class__ = Counting
        await eventually(lambda: checks > 3)
        managed_broker(broker).driver.__class__ = nats_driver.NatsDriver
        assert not subscriber.running
        await subscriber.start()
        await eventually_status(ready, 200)


class Supervised:
    """Counts the supervision's steps, and its looks at the tasks of subscribers.

    Args:
        broker: The broker, which is up.
    """

    def __init__(self, broker: NatsBroker) -> None:
        self.steps = self.looks = 0
        counts = self

        class Counting(nats_driver.NatsDriver):
            def running_tasks(self, subscriber: Any) -> int:
                counts.looks += 1
                return super().running_tasks(subscriber)

            @property
            def has_client(self) -> bool:
                counts.steps += 1
                return super().has_client

        managed_broker(broker).driver.__class__ = Counting

    async def step(self, steps: int) -> None:
        """Wait for some steps of the supervision."""
        end = self.steps + steps
        await eventually(lambda: self.steps >= end)


@pytest.mark.parametrize("kind", [None, *KINDS])
async def test_a_subscriber_that_consumes_is_not_polled(nats_js: NatsServer, kind: str | None) -> None:
    if kind is None:
        broker = NatsBroker(nats_js.url, logger=None)
        broker.subscriber("jobs")(print)
    else:
        broker, _ = consumer(nats_js.url, kind)
    async with BrokerLifespan(broker):
        supervised = Supervised(broker)
        await supervised.step(3)
        supervised.looks = 0
        await supervised.step(5)
        assert supervised.looks == 0


@pytest.mark.parametrize("kind", ["core", "push"])
async def test_a_subscriber_that_the_application_restarted_is_supervised(
    nats_js: NatsServer, kind: str
) -> None:
    broker = NatsBroker(nats_js.url, logger=None)
    options: dict[str, Any] = {} if kind == "core" else {"stream": JStream("jobs"), "queue": "worker"}
    subscriber = broker.subscriber("jobs", **options)
    subscriber(cancel_itself)
    lifespan = BrokerLifespan(broker, supervise=False)
    async with lifespan:
        supervised = Supervised(broker)
        await supervised.step(3)
        await subscriber.stop()
        await subscriber.start()
        await supervised.step(3)
        await broker.publish("cancel", "jobs")
        await eventually(lambda: managed_broker(broker).subscriber_fault() == "task_failed")


async def test_a_restarted_subscriber_is_supervised_while_an_old_handler_has_not_ended(
    nats: NatsServer,
) -> None:
    broker = NatsBroker(nats.url, logger=None)
    started, release = asyncio.Event(), asyncio.Event()

    async def handle(message: str) -> None:
        await cancel_itself(message)
        started.set()
        # Like a handler that runs in a thread, which is not cancelled.
        await uninterrupted(release.wait())

    subscriber = broker.subscriber("jobs")
    subscriber(handle)
    async with BrokerLifespan(broker, supervise=False):
        supervised = Supervised(broker)
        await supervised.step(3)
        await broker.publish("slow", "jobs")
        await started.wait()
        await subscriber.stop()
        await subscriber.start()
        await supervised.step(3)
        try:
            await broker.publish("cancel", "jobs")
            await eventually(lambda: managed_broker(broker).subscriber_fault() == "task_failed")
        finally:
            release.set()


async def test_each_subscriber_that_needs_a_shared_task_is_faulty_after_its_end(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url, logger=None)
    for subject in ("jobs", "news"):
        broker.subscriber(subject)(print)
    shared = asyncio.create_task(asyncio.Event().wait())

    class Shared(nats_driver.NatsDriver):
        def consuming_tasks(self, subscriber: Any) -> list[asyncio.Task[Any]]:
            return [*super().consuming_tasks(subscriber), shared]

    managed = managed_broker(broker)
    managed.driver.__class__ = Shared
    async with BrokerLifespan(broker, supervise=False):
        await eventually(lambda: managed.monitor.last_server_check > 0.0)
        shared.cancel()
        await eventually(lambda: set(managed.monitor.faults) == set(broker.subscribers))


async def test_a_subscriber_that_is_added_later_is_monitored_while_it_runs(nats_js: NatsServer) -> None:
    broker = NatsBroker(nats_js.url, logger=None)
    received: asyncio.Queue[str] = asyncio.Queue()

    async def handle(message: str) -> None:
        await received.put(message)

    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan, details=True)

    async def report() -> dict[str, Any]:
        async with client(ready) as http:
            return (await http.get("/")).json()  # type: ignore[no-any-return]

    async with lifespan:
        subscriber = broker.subscriber("jobs", stream=JStream("jobs"), queue="worker")
        subscriber(handle)
        body = await report()
        assert (body["code"], body["status"]) == ("ok", "warn")
        assert body["checks"]["NatsBroker"][1]["code"] == "not_started"
        assert body["checks"]["NatsBroker"][1]["status"] == "warn"
        await jetstream(broker).add_stream(name="jobs", subjects=["jobs"])
        await subscriber.start()
        await eventually(lambda: subscriber in managed_broker(broker).monitor)
        await jetstream(broker).delete_consumer("jobs", "worker")
        await broker.publish("after", "jobs")
        await wait_for_message(received, "after")
        await eventually_status(ready, 200)
        # Unlike a subscriber that existed at the startup, it may be stopped.
        await subscriber.stop()
        await eventually(lambda: subscriber not in managed_broker(broker).monitor)
        assert (await report())["code"] == "ok"


async def test_a_faulty_subscriber_of_an_optional_broker_is_a_warning(nats_js: NatsServer) -> None:
    broker, _ = consumer(nats_js.url, "push")
    lifespan = BrokerLifespan(broker, optional=(broker,), supervise=False)
    ready = make_readiness_asgi(lifespan, details=True)
    async with lifespan:
        await eventually_status(ready, 200)
        await eventually(lambda: managed_broker(broker).up)
        await jetstream(broker).delete_stream("jobs")
        await eventually(lambda: managed_broker(broker).subscriber_fault() == "consumer_missing")
        async with client(ready) as http:
            response = await http.get("/")
        assert response.status_code == 200
        assert response.json()["status"] == "warn"
        assert response.json()["checks"]["NatsBroker"][1]["status"] == "warn"


async def cancel_itself(message: str) -> None:
    """Behave like a handler that awaits a cancelled task."""
    if message == "cancel":
        raise asyncio.CancelledError


@pytest.mark.parametrize("kind", ["core", "push", "batch"])
async def test_a_task_that_a_handler_cancelled_is_replaced(nats_js: NatsServer, kind: str) -> None:
    options: dict[str, Any] = {
        "core": {},
        "push": {"stream": JStream("jobs"), "queue": "worker"},
        "batch": {
            "stream": JStream("jobs"),
            "durable": "worker",
            "pull_sub": PullSub(1, timeout=0.5, batch=True),
        },
    }[kind]
    broker = NatsBroker(nats_js.url, logger=None)
    received: asyncio.Queue[str] = asyncio.Queue()

    async def handle(message: list[str] | str) -> None:
        [text] = message if isinstance(message, list) else [message]
        await cancel_itself(text)
        await received.put(text)

    broker.subscriber("jobs", **options)(handle)
    lifespan = BrokerLifespan(broker)
    async with lifespan:
        await broker.publish("cancel", "jobs")
        for number in range(3):
            await broker.publish(f"after {number}", "jobs")
        # The messages that were waiting are not lost with the task.
        for number in range(3):
            await wait_for_message(received, f"after {number}")
        await eventually_status(make_readiness_asgi(lifespan), 200)


async def test_liveness_fails_after_a_task_was_cancelled_without_supervision(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url, logger=None)
    broker.subscriber("jobs")(cancel_itself)
    lifespan = BrokerLifespan(broker, supervise=False)
    async with lifespan:
        await broker.publish("fine", "jobs")
        await broker.publish("cancel", "jobs")
        await eventually_status(make_readiness_asgi(lifespan), 503)
        assert await status(make_liveness_asgi(lifespan)) == 503
        ready = make_readiness_asgi(lifespan, details=True)
        assert await code_of(ready) == "task_failed"


async def test_readiness_succeeds_without_permission_to_check_consumers(nats_factory: NatsFactory) -> None:
    server = nats_factory(
        jetstream=True,
        config="""
        accounts { A {
            jetstream: enabled
            users: [
                { user: "owner", password: "pw" }
                {
                    user: "app", password: "pw"
                    permissions: { publish: { deny: "$JS.API.CONSUMER.INFO.>" } }
                }
            ]
        } }
        """,
    )
    owner = await nats_py.connect(server.url, user="owner", password="pw")
    await owner.jetstream().add_stream(name="jobs", subjects=["jobs"])
    # The server does not reply to a forbidden request, so a check takes this timeout.
    broker = NatsBroker(server.url.replace("//", "//app:pw@"), logger=None, js_options={"timeout": 0.5})
    received: asyncio.Queue[str] = asyncio.Queue()

    # A named consumer would require a lookup, which is forbidden here.
    @broker.subscriber("jobs", stream=JStream("jobs", declare=False))
    async def handle(message: str) -> None:
        await received.put(message)

    lifespan = BrokerLifespan(broker)
    async with lifespan:
        await eventually(lambda: managed_broker(broker).monitor.last_server_check > 0)
        assert await status(make_readiness_asgi(lifespan)) == 200
        # The forbidden request is not repeated.
        [subscriber] = broker.subscribers
        async with asyncio.timeout(1):
            assert await managed_broker(broker).driver.check_subscriber(subscriber) == "ok"
        await owner.jetstream().publish("jobs", b"hello")
        await wait_for_message(received, "hello")
    await owner.close()


@pytest.mark.parametrize("kind", ["ordered", "key-value"])
async def test_a_consumer_that_the_client_recreates_is_not_restarted_at_once(
    nats_js: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    broker = NatsBroker(nats_js.url, logger=None)
    received: asyncio.Queue[str] = asyncio.Queue()
    if kind == "ordered":
        subscriber = broker.subscriber("jobs", stream=JStream("jobs"), ordered_consumer=True)
        stream = "jobs"
    else:
        subscriber = broker.subscriber("jobs", kv_watch=KvWatch("bucket"))  # type: ignore[assignment]
        stream = "KV_bucket"

    @subscriber
    async def handle(message: str) -> None:
        await received.put(message)

    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan)

    async def publish(message: str) -> None:
        if kind == "ordered":
            await broker.publish(message, "jobs")
        else:
            await (await broker.key_value("bucket")).put("jobs", message.encode())

    async with lifespan:
        await publish("before")
        await wait_for_message(received, "before")
        driver = managed_broker(broker).driver
        checks = 0
        check = driver.check_subscriber

        async def counting(subscriber: Any) -> Any:
            nonlocal checks
            checks += 1
            return await check(subscriber)

        monkeypatch.setattr(driver, "check_subscriber", counting)
        await jetstream(broker).delete_stream(stream)
        await eventually(lambda: checks > 3)
        assert await status(ready) == 200
        monkeypatch.setattr(nats_driver, "ORDERED_TIMEOUT", 0.0)
        with caplog.at_level("INFO", "faststream.adapters"):
            await eventually(lambda: "consumes again." in caplog.text)
        await eventually_status(ready, 200)
        await publish("after")
        await wait_for_message(received, "after")


async def test_the_server_is_asked_about_a_limited_number_of_consumers_at_once(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service with many subscribers sends no burst of requests, and asks about all of them."""
    broker = NatsBroker(nats.url, logger=None)

    async def handle(message: str) -> None: ...

    for number in range(2 * subscriber_monitor.CONCURRENT_CHECKS + 1):
        broker.subscriber(f"jobs.{number}")(handle)
    driver = managed_broker(broker).driver
    asked: dict[Any, int] = {}
    current = most = 0

    async def counting(subscriber: Any) -> str:
        nonlocal current, most
        asked[subscriber] = asked.get(subscriber, 0) + 1
        current += 1
        most = max(most, current)
        await asyncio.sleep(0)
        current -= 1
        return "ok"

    monkeypatch.setattr(driver, "check_subscriber", counting)
    async with BrokerLifespan(broker):
        await eventually(lambda: len(asked) == 2 * subscriber_monitor.CONCURRENT_CHECKS + 1)
    assert most == subscriber_monitor.CONCURRENT_CHECKS


async def test_pull_subscribers_of_a_closed_client_do_not_block_the_process(
    nats_js: NatsServer,
) -> None:
    broker = NatsBroker(nats_js.url, logger=None)
    received: asyncio.Queue[str] = asyncio.Queue()

    async def handle(message: str) -> None:
        await received.put(message)

    broker.subscriber("jobs", stream=JStream("jobs"), durable="worker", pull_sub=PullSub())(handle)
    lifespan = BrokerLifespan(broker)
    async with lifespan:
        await broker.connection.close()
        await eventually_status(make_readiness_asgi(lifespan), 503)
        await eventually_status(make_readiness_asgi(lifespan), 200)
        await broker.publish("after", "jobs")
        await wait_for_message(received, "after")


async def test_a_stream_that_two_services_share_is_declared_again_for_both(nats_js: NatsServer) -> None:
    services = []
    for subject in ("first", "second"):
        broker = NatsBroker(nats_js.url, logger=None)
        received: asyncio.Queue[str] = asyncio.Queue()
        broker.subscriber(subject, stream=JStream("shared"), queue=subject)(received.put)
        services.append((broker, received, BrokerLifespan(broker)))
    (first, _, first_lifespan), (second, _, second_lifespan) = services

    async def subjects() -> list[str]:
        try:
            info = await jetstream(second).stream_info("shared")
        except NotFoundError:
            return []
        return sorted(info.config.subjects or [])

    async with first_lifespan, second_lifespan:
        await jetstream(first).delete_stream("shared")
        # Each service declares its own subject when it notices that its consumer is gone.
        async with asyncio.timeout(10.0):
            while await subjects() != ["first", "second"]:  # noqa: ASYNC110 (the server can only be polled)
                await asyncio.sleep(0.01)
        for lifespan in (first_lifespan, second_lifespan):
            await eventually_status(make_readiness_asgi(lifespan), 200)


async def test_an_error_of_a_check_does_not_end_supervision(
    nats: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = NatsBroker(nats.url, logger=None)
    broker.subscriber("jobs")(print)
    errors = 3

    async def fail(subscriber: object) -> Code:
        nonlocal errors
        errors -= 1
        if errors >= 0:
            raise KeyError("nats://user:secret@host")
        return "ok"

    monkeypatch.setattr(managed_broker(broker).driver, "check_subscriber", fail)
    async with BrokerLifespan(broker):
        await eventually(lambda: errors < 0)
    assert caplog.text.count("supervision failed with KeyError.") == 1
    assert "secret" not in caplog.text


async def test_a_stopped_subscriber_stays_stopped_when_the_broker_is_restarted(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url, logger=None)
    stopped, running = broker.subscriber("stopped"), broker.subscriber("running")
    stopped(print)
    running(print)
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan, details=True)
    async with lifespan:
        await stopped.stop()
        assert await subscriber_codes(ready) == {"ok", "stopped"}
        closed = broker.connection
        await closed.close()
        await eventually(lambda: managed_broker(broker).up and broker.connection is not closed)
        await eventually(lambda: running.running and not stopped.running)
        await eventually_status(ready, 200)
        assert await subscriber_codes(ready) == {"ok", "stopped"}
        await stopped.start()
        await eventually_status(ready, 200)
        assert await subscriber_codes(ready) == {"ok"}


async def test_readiness_fails_for_a_subscription_that_the_server_refuses(nats_factory: NatsFactory) -> None:
    server = nats_factory(
        config="""
        authorization { users: [
            { user: "app", password: "pw", permissions: { subscribe: { deny: "secrets" } } }
        ] }
        """
    )
    broker = NatsBroker(server.url.replace("//", "//app:pw@"), logger=None)
    broker.subscriber("secrets")(print)
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan, details=True)
    async with lifespan:
        await eventually_status(ready, 503)
        assert await code_of(ready) == "not_permitted"


async def test_a_subscriber_is_restarted_after_its_subscription_has_ended(
    nats: NatsServer,
) -> None:
    broker = NatsBroker(nats.url, logger=None)
    received: asyncio.Queue[str] = asyncio.Queue()
    subscriber: Any = broker.subscriber("jobs")
    subscriber(received.put)
    async with BrokerLifespan(broker):
        await subscriber.subscription.unsubscribe()
        ended = subscriber.subscription
        await eventually(lambda: subscriber.subscription not in {None, ended})
        await broker.publish("after", "jobs")
        await wait_for_message(received, "after")


async def test_a_subscriber_that_is_removed_during_its_restart_stays_removed(
    nats_js: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker, _ = consumer(nats_js.url, "push")
    managed = managed_broker(broker)
    removed = asyncio.Event()

    async def restart(subscriber: object) -> None:
        managed.monitor.clear()
        removed.set()

    monkeypatch.setattr(managed.driver, "restart", restart)
    lifespan = BrokerLifespan(broker)
    async with lifespan:
        await jetstream(broker).delete_stream("jobs")
        await asyncio.wait_for(removed.wait(), 10)
        assert await status(make_readiness_asgi(lifespan)) == 200


async def test_readiness_does_not_wait_for_an_optional_broker(nats_factory: NatsFactory) -> None:
    needed, frozen = nats_factory(), nats_factory()
    optional = NatsBroker(frozen.url, logger=None)
    lifespan = BrokerLifespan(NatsBroker(needed.url, logger=None), optional, optional=(optional,))
    ready = make_readiness_asgi(lifespan, timeout=3600.0, details=True)
    async with lifespan:
        await eventually(lambda: managed_broker(optional).up)
        frozen.freeze()
        async with asyncio.timeout(10), client(ready) as http:
            while (await http.get("/")).json()["status"] != "warn":
                ...
            assert (await http.get("/")).status_code == 200
        frozen.thaw()


async def test_details_say_why_an_optional_broker_was_never_up(nats_factory: NatsFactory) -> None:
    refusing = nats_factory(user="user", password="right")
    optional = NatsBroker(refusing.url.replace(":right@", ":wrong@"), logger=None, max_reconnect_attempts=0)
    needed = NatsBroker(nats_factory().url, logger=None)
    lifespan = BrokerLifespan(needed, optional, optional=(optional,))
    async with lifespan, client(make_readiness_asgi(lifespan, details=True)) as http:
        await eventually(lambda: managed_broker(optional).error is not None, 30.0)
        body = (await http.get("/")).json()
    assert [entry["code"] for entry in body["checks"]["NatsBroker"]] == ["ok", "auth_failed"]


async def test_a_check_of_a_frozen_server_times_out(nats_js: NatsServer) -> None:
    broker, _ = consumer(nats_js.url, "push", js_options={"timeout": 0.5})
    [subscriber] = broker.subscribers
    async with BrokerLifespan(broker, supervise=False):
        nats_js.freeze()
        assert await managed_broker(broker).driver.check_subscriber(subscriber) == "timeout"
        nats_js.thaw()


async def test_processes_that_connect_together_do_not_check_their_consumers_together_for_ever(
    nats_js: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "SUBSCRIBERS_INTERVAL", 1_000.0)
    # The share of the interval until the second check.
    monkeypatch.setattr(random, "random", lambda: 0.0)
    broker, _ = consumer(nats_js.url, "pull")
    requests: list[object] = []

    async def on_request(message: object) -> None:
        requests.append(message)

    observer = await nats_py.connect(nats_js.url)
    await observer.subscribe("$JS.API.CONSUMER.INFO.>", cb=on_request)
    await observer.flush()
    async with BrokerLifespan(broker):
        await eventually(lambda: len(requests) == 3)  # one by the start
    await observer.close()
