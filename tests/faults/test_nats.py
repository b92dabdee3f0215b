"""Faults of a NATS server, seen through the probes and by what happens to messages."""

import asyncio
from typing import Any

import pytest
from faststream.nats import JStream, NatsBroker, PullSub

from faststream_adapters import BrokerLifespan, make_ping_asgi, make_readiness_asgi, supervision
from tests.conftest import NatsFactory
from tests.servers.nats import NatsServer
from tests.support import eventually, eventually_status, status


def consumer(url: str, kind: str = "core") -> tuple[NatsBroker, "asyncio.Queue[str]"]:
    """Return a broker and what its subscriber received; it listens to the subject `jobs`."""
    broker = NatsBroker(url, reconnect_time_wait=0)
    received: asyncio.Queue[str] = asyncio.Queue()
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
    await broker.publish(message, "jobs")
    async with asyncio.timeout(10):
        # JetStream delivers again what was not acknowledged before the server died.
        while await received.get() != message:
            ...


@pytest.mark.parametrize("kind", ["core", "push", "pull"])
async def test_killed_and_restarted(nats_js: NatsServer, kind: str) -> None:
    broker, received = consumer(nats_js.url, kind)
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan)
    async with lifespan:
        await round_trip(broker, received, "before")
        nats_js.kill()
        await eventually_status(ready, 503)
        nats_js.restart()
        await eventually_status(ready, 204)
        await round_trip(broker, received, "after")


async def test_frozen_past_the_deadline_and_thawed_messages_still_arrive(nats: NatsServer) -> None:
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


async def test_down_longer_than_the_client_reconnects(
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
        # As many failures as would have made the client give up for good.
        await eventually(lambda: all(server.reconnects > 3 for server in client._server_pool))  # noqa: SLF001 (counted nowhere else)
        nats.restart()
        await eventually_status(ready, 204)
        assert broker.connection is client


async def test_a_broker_that_is_lost_and_found_is_logged_once_each(
    nats: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(supervision, "CHECK_INTERVAL", 0.01)
    monkeypatch.setattr(supervision, "CHECK_TIMEOUT", 0.05)
    broker, _ = consumer(nats.url)
    with caplog.at_level("INFO", "faststream.adapters"):
        async with BrokerLifespan(broker):
            nats.freeze()
            await eventually(lambda: "is lost: it did not answer in time." in caplog.text)
            nats.thaw()
            await eventually(lambda: "answers again." in caplog.text)
    assert caplog.text.count("is lost") == 1
    assert caplog.text.count("answers again") == 1


async def test_a_client_that_was_closed_is_restarted(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "CHECK_INTERVAL", 0.05)
    broker, received = consumer(nats.url)
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan)
    async with lifespan:
        closed = broker.connection
        await closed.close()
        assert await status(ready) == 503
        await eventually_status(ready, 204)
        assert broker.connection is not closed
        await round_trip(broker, received, "after")


async def test_a_login_that_is_rejected_on_reconnect_is_tried_again(
    nats_factory: NatsFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervision, "CHECK_INTERVAL", 0.05)
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
        await eventually_status(ready, 204)
        await round_trip(broker, received, "after")


async def test_a_client_that_only_claims_to_be_connected_is_restarted(
    nats: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervision, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervision, "CHECK_TIMEOUT", 0.1)
    monkeypatch.setattr(supervision, "PATIENCE", 0.5)
    broker, received = consumer(nats.url)
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan)
    async with lifespan:
        frozen = broker.connection
        nats.freeze()
        await eventually(lambda: frozen.is_closed)
        assert await status(ready) == 503
        nats.thaw()
        await eventually_status(ready, 204)
        assert broker.connection is not frozen
        await round_trip(broker, received, "after")


@pytest.mark.parametrize("patient", [True, False], ids=["they finish", "they do not"])
async def test_a_restart_waits_for_handlers(
    nats: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
    *,
    patient: bool,
) -> None:
    """What was delivered would be lost with them; but not for ever."""
    monkeypatch.setattr(supervision, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervision, "CHECK_TIMEOUT", 0.1)
    monkeypatch.setattr(supervision, "PATIENCE", 0.2)
    monkeypatch.setattr(supervision, "HANDLERS_TIMEOUT", 60.0 if patient else 0.3)
    broker = NatsBroker(nats.url)
    begun, go_on, handled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @broker.subscriber("jobs")
    async def handle(message: str) -> None:
        begun.set()
        await go_on.wait()
        handled.set()

    async with BrokerLifespan(broker, shutdown_timeout=1.0):
        await broker.publish("one", "jobs")
        await begun.wait()
        lost = broker.connection
        nats.freeze()
        if patient:
            # Longer than supervision waits where nothing is handled.
            await asyncio.sleep(1.0)
            assert not lost.is_closed
            go_on.set()
            await handled.wait()
        await eventually(lambda: lost.is_closed)
        assert handled.is_set() is patient
        nats.thaw()


async def test_a_stop_without_the_server_says_whom_it_cuts_off(
    nats: NatsServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = NatsBroker(nats.url)
    begun = asyncio.Event()

    @broker.subscriber("jobs")
    async def handle(message: str) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with BrokerLifespan(broker, shutdown_timeout=0.5):
        await broker.publish("one", "jobs")
        await begun.wait()
        nats.kill()
    assert "is lost, and its handlers did not finish in time" in caplog.text


async def test_the_users_own_stop_is_not_fought(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "CHECK_INTERVAL", 0.01)
    broker, _ = consumer(nats.url)
    looks = 0

    class Counting(type(supervision.run_of(broker).driver)):  # type: ignore[misc]
        @property
        def real(self) -> bool:
            nonlocal looks
            looks += 1
            return super().real  # type: ignore[no-any-return]

    supervision.run_of(broker).driver.__class__ = Counting
    async with BrokerLifespan(broker):
        await broker.stop()
        looks = 0
        await eventually(lambda: looks > 5)
        assert not broker.running


async def test_without_supervision_a_closed_client_stays_closed(nats: NatsServer) -> None:
    broker, _ = consumer(nats.url)
    lifespan = BrokerLifespan(broker, supervise=False)
    async with lifespan:
        assert broker.connection.options["max_reconnect_attempts"] == 60
        await broker.connection.close()
        assert await status(make_readiness_asgi(lifespan)) == 503


async def test_starting_and_stopping_often_leaves_nothing(nats: NatsServer) -> None:
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
