"""Subscribers that do not consume although the broker answers: seen by readiness, and brought back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import nats as nats_py
import pytest
from faststream.nats import JStream, KvWatch, NatsBroker, PullSub
from nats.js import JetStreamContext

from faststream_adapters import (
    BrokerLifespan,
    consumers,
    make_liveness_asgi,
    make_readiness_asgi,
    supervision,
)
from faststream_adapters.brokers import Code
from faststream_adapters.brokers import nats as nats_driver
from faststream_adapters.supervision import run_of
from tests.conftest import NatsFactory
from tests.servers.nats import NatsServer
from tests.support import client, eventually, eventually_status, status

Handler = Callable[[str], Awaitable[None]]

KINDS: dict[str, dict[str, Any]] = {
    "push": {"queue": "worker"},
    "push without a queue": {},
    "push with workers": {"queue": "worker", "max_workers": 3},
    "pull": {"durable": "worker", "pull_sub": PullSub(timeout=0.5)},
    "pull with workers": {"durable": "worker", "pull_sub": PullSub(timeout=0.5), "max_workers": 3},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervision, "CONSUMERS_INTERVAL", 0.1)
    monkeypatch.setattr(consumers, "RETRY_INTERVAL", 0.1)


def consumer(
    url: str,
    kind: str,
    *,
    declare: bool = True,
    handler: Handler | None = None,
) -> tuple[NatsBroker, "asyncio.Queue[str]"]:
    """Return a broker with a JetStream subscriber to `jobs`, and what it received."""
    broker = NatsBroker(url, logger=None)
    received: asyncio.Queue[str] = asyncio.Queue()

    async def handle(message: str) -> None:
        if handler is not None:
            await handler(message)
        await received.put(message)

    broker.subscriber("jobs", stream=JStream("jobs", declare=declare), **KINDS[kind])(handle)
    return broker, received


async def arrives(received: "asyncio.Queue[str]", message: str, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while await received.get() != message:
            ...


def jetstream(broker: NatsBroker) -> JetStreamContext:
    return broker.connection.jetstream()


async def the_consumer(broker: NatsBroker) -> str:
    [info] = await jetstream(broker).consumers_info("jobs")
    return info.name


async def code_of(app: Any) -> str:
    async with client(app) as http:
        return str((await http.get("/")).json()["code"])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_deleted_consumer_is_made_again(nats_js: NatsServer, kind: str) -> None:
    broker, received = consumer(nats_js.url, kind)
    lifespan = BrokerLifespan(broker)
    async with lifespan:
        await broker.publish("before", "jobs")
        await arrives(received, "before")
        name = await the_consumer(broker)
        await jetstream(broker).delete_consumer("jobs", name)
        await broker.publish("meanwhile", "jobs")
        await arrives(received, "meanwhile")
        await eventually_status(make_readiness_asgi(lifespan), 204)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_deleted_stream_that_the_application_declares_is_made_again(
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
        await eventually_status(ready, 204)
        await broker.publish("after", "jobs")
        await arrives(received, "after")
    reason = "the server does not have its consumer or its stream any more."
    assert caplog.text.count(f"the subscriber Handle does not consume: {reason}") == 1
    assert caplog.text.count("the subscriber Handle consumes again.") == 1


@pytest.mark.parametrize("kind", ["push", "pull"])
async def test_a_stream_that_the_application_does_not_declare_is_waited_for(
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
        assert await code_of(ready) == "deleted"
        assert await status(make_liveness_asgi(lifespan)) == 204
        # Until it can consume again it does not ask in vain: FastStream would do that without a pause.
        [subscriber] = broker.subscribers
        await eventually(lambda: not subscriber.running)
        await owner.jetstream().add_stream(name="jobs", subjects=["jobs"])
        await eventually_status(ready, 200)
        await broker.publish("after", "jobs")
        await arrives(received, "after")
    await owner.close()


async def test_what_is_in_a_handler_is_finished_before_its_subscriber_starts_again(
    nats_js: NatsServer,
) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(message: str) -> None:
        entered.set()
        await go_on.wait()

    broker, received = consumer(nats_js.url, "push", handler=slow)
    lifespan = BrokerLifespan(broker)
    async with lifespan:
        await broker.publish("slow", "jobs")
        await entered.wait()
        await jetstream(broker).delete_stream("jobs")
        await eventually(lambda: run_of(broker).not_consuming() == "deleted")
        await eventually_status(make_readiness_asgi(lifespan), 503)
        assert received.empty()
        go_on.set()
        await arrives(received, "slow")
        await eventually_status(make_readiness_asgi(lifespan), 204)


async def test_a_handler_that_hangs_is_not_waited_for_forever(
    nats_js: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(consumers, "HANDLERS_TIMEOUT", 0.2)

    entered = asyncio.Event()

    async def hang(message: str) -> None:
        if message == "hang":
            entered.set()
            await asyncio.Event().wait()

    broker, received = consumer(nats_js.url, "push", handler=hang)
    lifespan = BrokerLifespan(broker)
    async with lifespan:
        await broker.publish("hang", "jobs")
        await entered.wait()
        await jetstream(broker).delete_stream("jobs")
        await eventually_status(make_readiness_asgi(lifespan), 503)
        await eventually_status(make_readiness_asgi(lifespan), 204)
        await broker.publish("after", "jobs")
        await arrives(received, "after")


async def test_a_consumer_that_is_paused_on_the_server_is_not_ready(nats_js: NatsServer) -> None:
    broker, received = consumer(nats_js.url, "pull")
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan, details=True)
    async with lifespan:
        await jetstream(broker).pause_consumer("jobs", "worker", "2999-01-01T00:00:00Z")
        await eventually_status(ready, 503)
        assert await code_of(ready) == "paused"
        await jetstream(broker).resume_consumer("jobs", "worker")
        await eventually_status(ready, 200)
        await broker.publish("after", "jobs")
        await arrives(received, "after")


async def test_a_subscriber_that_its_user_stops_is_left_alone(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url, logger=None)
    subscriber = broker.subscriber("jobs")
    subscriber(print)
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan, details=True)
    async with lifespan:
        await subscriber.stop()
        await eventually_status(ready, 503)
        async with client(ready) as http:
            body = (await http.get("/")).json()
        assert body["code"] == "paused"
        assert body["checks"]["NatsBroker"][0]["status"] == "pass"
        assert body["checks"]["NatsBroker"][1] == {
            "componentType": "subscriber",
            "componentId": "Print",
            "status": "fail",
            "code": "paused",
        }
        looks = 0

        class Counting(type(run_of(broker).driver)):  # type: ignore[misc]
            def alive(self, subscriber: Any) -> int:
                raise AssertionError

            @property
            def real(self) -> bool:
                nonlocal looks
                looks += 1
                return super().real  # type: ignore[no-any-return]

        run_of(broker).driver.__class__ = Counting
        await eventually(lambda: looks > 3)
        run_of(broker).driver.__class__ = nats_driver.NatsDriver
        assert not subscriber.running
        await subscriber.start()
        await eventually_status(ready, 200)


async def test_a_subscriber_added_later_is_watched_while_it_runs(nats_js: NatsServer) -> None:
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
        await eventually(lambda: subscriber in run_of(broker).consumers._tasks)  # noqa: SLF001 (nobody else can tell)
        await jetstream(broker).delete_consumer("jobs", "worker")
        await broker.publish("after", "jobs")
        await arrives(received, "after")
        await eventually_status(ready, 200)
        # Unlike one that was there at the start, it may be stopped.
        await subscriber.stop()
        await eventually(lambda: subscriber not in run_of(broker).consumers._tasks)  # noqa: SLF001
        assert (await report())["code"] == "ok"


async def test_of_an_optional_broker_it_is_a_warning(nats_js: NatsServer) -> None:
    broker, _ = consumer(nats_js.url, "push")
    lifespan = BrokerLifespan(broker, optional=(broker,), supervise=False)
    ready = make_readiness_asgi(lifespan, details=True)
    async with lifespan:
        await eventually_status(ready, 200)
        await eventually(lambda: run_of(broker).up)
        await jetstream(broker).delete_stream("jobs")
        await eventually(lambda: run_of(broker).not_consuming() == "deleted")
        async with client(ready) as http:
            answer = await http.get("/")
        assert answer.status_code == 200
        assert answer.json()["status"] == "warn"
        assert answer.json()["checks"]["NatsBroker"][1]["status"] == "warn"


async def cancel_itself(message: str) -> None:
    """Do what a handler does that awaits a task which somebody has cancelled."""
    if message == "cancel":
        raise asyncio.CancelledError


@pytest.mark.parametrize("kind", ["core", "push", "batch"])
async def test_a_task_that_a_handler_has_ended_is_replaced(nats_js: NatsServer, kind: str) -> None:
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
        # Those that were waiting for their turn are not lost with the task.
        for number in range(3):
            await arrives(received, f"after {number}")
        await eventually_status(make_readiness_asgi(lifespan), 204)


async def test_without_supervision_only_a_restart_of_the_process_replaces_a_task(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url, logger=None)
    broker.subscriber("jobs")(cancel_itself)
    lifespan = BrokerLifespan(broker, supervise=False)
    async with lifespan:
        await broker.publish("fine", "jobs")
        await broker.publish("cancel", "jobs")
        await eventually_status(make_readiness_asgi(lifespan), 503)
        assert await status(make_liveness_asgi(lifespan)) == 503
        ready = make_readiness_asgi(lifespan, details=True)
        assert await code_of(ready) == "closed"


async def test_who_may_not_ask_about_consumers_is_not_unwell(nats_factory: NatsFactory) -> None:
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
    broker = NatsBroker(server.url.replace("//", "//app:pw@"), logger=None)
    received: asyncio.Queue[str] = asyncio.Queue()

    # A named consumer would be looked up, which is forbidden here.
    @broker.subscriber("jobs", stream=JStream("jobs", declare=False))
    async def handle(message: str) -> None:
        await received.put(message)

    lifespan = BrokerLifespan(broker)
    async with lifespan:
        await eventually(lambda: bool(run_of(broker).consumers._answers))  # noqa: SLF001 (nobody else can tell)
        assert await status(make_readiness_asgi(lifespan)) == 204
        # The server is not asked in vain again.
        [subscriber] = broker.subscribers
        async with asyncio.timeout(1):
            assert await run_of(broker).driver.ask_consumer(subscriber) == "ok"
        await owner.jetstream().publish("jobs", b"hello")
        await arrives(received, "hello")
    await owner.close()


@pytest.mark.parametrize("kind", ["ordered", "key-value"])
async def test_a_consumer_that_the_client_makes_again_itself_gets_its_time(
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
        await arrives(received, "before")
        run = run_of(broker)
        answers = 0
        ask = run.driver.ask_consumer

        async def counting(subscriber: Any) -> Any:
            nonlocal answers
            answers += 1
            return await ask(subscriber)

        monkeypatch.setattr(run.driver, "ask_consumer", counting)
        await jetstream(broker).delete_stream(stream)
        await eventually(lambda: answers > 3)
        assert await status(ready) == 204
        monkeypatch.setattr(nats_driver, "ORDERED_TIMEOUT", 0.0)
        with caplog.at_level("INFO", "faststream.adapters"):
            await eventually(lambda: "consumes again." in caplog.text)
        await eventually_status(ready, 204)
        await publish("after")
        await arrives(received, "after")


async def test_a_client_that_was_closed_does_not_make_its_pull_subscribers_block_the_process(
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
        await eventually_status(make_readiness_asgi(lifespan), 204)
        await broker.publish("after", "jobs")
        await arrives(received, "after")


async def test_a_stream_that_two_services_share_is_made_again_for_both(nats_js: NatsServer) -> None:
    services = []
    for subject in ("first", "second"):
        broker = NatsBroker(nats_js.url, logger=None)
        received: asyncio.Queue[str] = asyncio.Queue()
        broker.subscriber(subject, stream=JStream("shared"), queue=subject)(received.put)
        services.append((broker, received, BrokerLifespan(broker)))
    (first, _, first_lifespan), (second, _, second_lifespan) = services
    async with first_lifespan, second_lifespan:
        await jetstream(first).delete_stream("shared")
        for lifespan, broker in ((first_lifespan, first), (second_lifespan, second)):
            await eventually(lambda broker=broker: bool(run_of(broker).consumers._answers))  # type: ignore[misc]  # noqa: SLF001
            await eventually_status(make_readiness_asgi(lifespan), 204)
        info = await jetstream(second).stream_info("shared")
        await eventually(lambda: not run_of(first).not_consuming() and not run_of(second).not_consuming())
        info = await jetstream(second).stream_info("shared")
        assert sorted(info.config.subjects or []) == ["first", "second"]


async def test_an_error_while_watching_does_not_end_the_watch(
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

    monkeypatch.setattr(run_of(broker).driver, "ask_consumer", fail)
    async with BrokerLifespan(broker):
        await eventually(lambda: errors < 0)
    assert caplog.text.count("KeyError while watching it.") == 1
    assert "secret" not in caplog.text


async def test_a_restart_of_the_broker_leaves_stopped_what_its_user_has_stopped(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url, logger=None)
    stopped, running = broker.subscriber("stopped"), broker.subscriber("running")
    stopped(print)
    running(print)
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan, details=True)
    async with lifespan:
        await stopped.stop()
        await eventually_status(ready, 503)
        closed = broker.connection
        await closed.close()
        await eventually(lambda: run_of(broker).up and broker.connection is not closed)
        await eventually(lambda: running.running and not stopped.running)
        await eventually_status(ready, 503)
        assert await code_of(ready) == "paused"
        await stopped.start()
        await eventually_status(ready, 200)


async def test_a_subscription_that_the_server_refuses_is_not_ready(nats_factory: NatsFactory) -> None:
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
        assert await code_of(ready) == "auth"


async def test_a_subscription_that_was_ended_is_not_taken_for_one_that_only_lost_its_task(
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
        await arrives(received, "after")


async def test_what_is_forgotten_while_it_is_revived_stays_forgotten(
    nats_js: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker, _ = consumer(nats_js.url, "push")
    run = run_of(broker)
    forgotten = asyncio.Event()

    async def revive(subscriber: object) -> None:
        run.consumers.forget()
        forgotten.set()

    monkeypatch.setattr(run.driver, "revive", revive)
    lifespan = BrokerLifespan(broker)
    async with lifespan:
        await jetstream(broker).delete_stream("jobs")
        await asyncio.wait_for(forgotten.wait(), 10)
        assert await status(make_readiness_asgi(lifespan)) == 204


async def test_readiness_does_not_wait_for_an_optional_broker(nats_factory: NatsFactory) -> None:
    needed, frozen = nats_factory(), nats_factory()
    optional = NatsBroker(frozen.url, logger=None)
    lifespan = BrokerLifespan(NatsBroker(needed.url, logger=None), optional, optional=(optional,))
    ready = make_readiness_asgi(lifespan, timeout=3600.0, details=True)
    async with lifespan:
        await eventually(lambda: run_of(optional).up)
        frozen.freeze()
        async with asyncio.timeout(10), client(ready) as http:
            while (await http.get("/")).json()["status"] != "warn":
                ...
            assert (await http.get("/")).status_code == 200
        frozen.thaw()


async def test_an_optional_broker_that_never_came_up_is_a_warning(nats_factory: NatsFactory) -> None:
    refusing = nats_factory(user="user", password="right")
    optional = NatsBroker(refusing.url.replace(":right@", ":wrong@"), logger=None, max_reconnect_attempts=0)
    needed = NatsBroker(nats_factory().url, logger=None)
    lifespan = BrokerLifespan(needed, optional, optional=(optional,))
    async with lifespan, client(make_readiness_asgi(lifespan, details=True)) as http:
        await eventually(lambda: run_of(optional).error is not None, 30.0)
        body = (await http.get("/")).json()
    assert (body["code"], body["status"]) == ("ok", "warn")
    assert [entry["code"] for entry in body["checks"]["NatsBroker"]] == ["ok", "auth"]


async def test_a_server_that_does_not_tell_about_its_consumer_is_not_trusted(nats_js: NatsServer) -> None:
    broker, _ = consumer(nats_js.url, "push")
    [subscriber] = broker.subscribers
    async with BrokerLifespan(broker, supervise=False):
        nats_js.freeze()
        assert await run_of(broker).driver.ask_consumer(subscriber) == "timeout"
        nats_js.thaw()
