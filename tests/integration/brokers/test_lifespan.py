"""BrokerLifespan on real NATS servers: startup, shared brokers, failures, hooks and shutdown."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from traceback import format_exception
from typing import Any

import pytest
from faststream import Context, ContextRepo
from faststream import FastStream as UpstreamFastStream
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker

from faststream_adapters import BrokerLifespan
from faststream_adapters._lifecycle.options import State
from faststream_adapters._utils.errors import BrokerStartError
from faststream_adapters._utils.redaction import redact
from tests.harness.consumer import consumer, round_trip
from tests.harness.servers import hold_port
from tests.harness.servers.nats import NatsFactory, NatsServer
from tests.harness.waiting import eventually


@pytest.fixture
def unreachable_url() -> Iterator[str]:
    """Return a URL with credentials and a port that refuses connections."""
    port, held = hold_port()
    with held or nullcontext():
        yield f"nats://user:secret@127.0.0.1:{port}"


async def test_strict_startup_waits_for_the_broker(nats: NatsServer) -> None:
    broker, received = consumer(nats.url)
    lifespan = BrokerLifespan(broker)
    assert str(lifespan.state) == "stopped"
    async with lifespan:
        assert str(lifespan.state) == "running"
        assert lifespan.brokers == (broker,)
        await round_trip(broker, received)
    assert str(lifespan.state) == "stopped"
    assert not broker.running


async def test_a_lifespan_called_with_a_host_provides_it_to_handlers_and_yields_none(
    nats: NatsServer,
) -> None:
    broker = NatsBroker(nats.url)
    host = object()
    hosts: asyncio.Queue[Any] = asyncio.Queue()

    @broker.subscriber("greetings")
    async def handle(message: str, app: Any = Context("host")) -> None:
        await hosts.put(app)

    async with BrokerLifespan(broker)(host) as value:
        assert value is None
        await broker.publish("hello", "greetings")
        assert await asyncio.wait_for(hosts.get(), 5) is host
    assert broker.context.get("host") is None


async def test_a_lifespan_can_be_entered_again(nats: NatsServer) -> None:
    broker, received = consumer(nats.url)
    lifespan = BrokerLifespan(broker)
    for _ in range(3):
        async with lifespan:
            await round_trip(broker, received)


def test_a_lifespan_can_be_entered_again_in_another_event_loop(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    lifespan = BrokerLifespan(broker)

    async def run() -> bool:
        async with lifespan:
            return await broker.ping(1.0)

    assert asyncio.run(run())
    assert asyncio.run(run())


async def test_concurrent_enter_calls_start_the_broker_once(nats: NatsServer) -> None:
    broker, received = consumer(nats.url)
    states: list[State] = []
    lifespan = BrokerLifespan(broker, on_state_change=lambda _, new: states.append(new))
    async with asyncio.timeout(10):
        await asyncio.gather(lifespan.enter(), lifespan.enter())
        await lifespan.leave()
        assert str(lifespan.state) == "running"
        await round_trip(broker, received)
        await lifespan.leave()
        await lifespan.leave()
    assert states == ["starting", "running", "draining", "stopped"]


async def test_every_concurrent_enter_call_raises_when_startup_fails(unreachable_url: str) -> None:
    lifespan = BrokerLifespan(NatsBroker(unreachable_url), startup_timeout=0.1)
    results = await asyncio.gather(lifespan.enter(), lifespan.enter(), return_exceptions=True)
    assert [type(result) for result in results] == [BrokerStartError, BrokerStartError]
    assert str(lifespan.state) == "failed"


async def test_the_startup_timeout_error_names_the_broker_without_its_password(unreachable_url: str) -> None:
    lifespan = BrokerLifespan(NatsBroker(unreachable_url), startup_timeout=0.2)
    with pytest.raises(BrokerStartError) as caught:
        async with lifespan:
            pytest.fail("The lifespan started without a server.")
    address = unreachable_url.partition("@")[2]
    assert str(caught.value) == (
        f"NatsBroker nats://{address} could not be started within 0.2 s: the connection was refused."
    )
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert str(lifespan.state) == "failed"


async def test_a_wrong_password_fails_startup_immediately(nats_factory: NatsFactory) -> None:
    server = nats_factory(user="user", password="right")
    broker = NatsBroker(server.url.replace("right", "wrong"))
    with pytest.raises(BrokerStartError, match="the credentials were rejected"):
        await BrokerLifespan(broker).enter()


async def test_startup_times_out_on_a_frozen_server(nats: NatsServer) -> None:
    nats.freeze()
    lifespan = BrokerLifespan(NatsBroker(nats.url), startup_timeout=0.3)
    with pytest.raises(BrokerStartError, match=r"within 0\.3 s: it did not reply in time"):
        await lifespan.enter()


async def test_the_first_broker_is_stopped_when_the_second_cannot_start(
    nats: NatsServer, unreachable_url: str
) -> None:
    first, received = consumer(nats.url)
    second = NatsBroker(unreachable_url)
    lifespan = BrokerLifespan(first, second, startup_timeout=0.3)
    with pytest.raises(BrokerStartError):
        await lifespan.enter()
    assert not first.running
    async with BrokerLifespan(first):
        await round_trip(first, received)


async def test_background_startup_does_not_wait_for_the_broker(nats: NatsServer) -> None:
    broker, received = consumer(nats.url)
    nats.stop()
    lifespan = BrokerLifespan(broker, startup="background")
    async with lifespan:
        assert str(lifespan.state) == "starting"
        nats.start()
        await eventually(lambda: lifespan.state == "running")
        await round_trip(broker, received)
    assert str(lifespan.state) == "stopped"


async def test_background_startup_can_time_out(unreachable_url: str) -> None:
    lifespan = BrokerLifespan(NatsBroker(unreachable_url), startup="background", startup_timeout=0.2)
    async with lifespan:
        await eventually(lambda: lifespan.state == "failed")
    assert str(lifespan.state) == "stopped"


async def test_leaving_cancels_background_startup(unreachable_url: str) -> None:
    lifespan = BrokerLifespan(NatsBroker(unreachable_url), startup="background")
    async with asyncio.timeout(5), lifespan:
        assert str(lifespan.state) == "starting"
    assert str(lifespan.state) == "stopped"


async def test_background_startup_retries_after_an_error(nats_factory: NatsFactory) -> None:
    server = nats_factory(user="user", password="old")
    broker, received = consumer(server.url.replace("old", "new"))
    lifespan = BrokerLifespan(broker, startup="background")
    async with lifespan:
        await eventually(lambda: broker.connection is None if lifespan.state == "running" else True)
        server.password = "new"
        server.restart()
        await eventually(lambda: lifespan.state == "running")
        await round_trip(broker, received)


async def test_startup_that_completes_while_draining_does_not_change_the_state(nats: NatsServer) -> None:
    broker, _ = consumer(nats.url, reconnect_time_wait=0)
    nats.stop()
    handled_signals: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, _: handled_signals.append(number))
    try:
        lifespan = BrokerLifespan(broker, startup="background", drain_delay=5)
        async with lifespan:
            signal.raise_signal(signal.SIGTERM)
            await eventually(lambda: lifespan.state == "draining")
            nats.start()
            await eventually(lambda: broker.running)
            await asyncio.sleep(0)
            assert str(lifespan.state) == "draining"
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert handled_signals == []


async def test_consume_false_starts_no_subscriber(nats: NatsServer) -> None:
    publisher, unused = consumer(nats.url)
    listener, received = consumer(nats.url)
    async with BrokerLifespan(listener), BrokerLifespan(publisher, consume=False):
        # The publisher uses another connection: the server must have registered the subscription first.
        await listener.connection.flush()
        assert not any(subscriber.running for subscriber in publisher.subscribers)
        await round_trip(publisher, received)
    assert unused.empty()


async def test_startup_succeeds_without_an_unreachable_optional_broker(
    nats: NatsServer, unreachable_url: str
) -> None:
    required, received = consumer(nats.url)
    optional = NatsBroker(unreachable_url)
    async with BrokerLifespan(required, optional, optional=[optional]), asyncio.timeout(5):
        await round_trip(required, received)


async def test_a_broker_shared_by_two_lifespans_stops_with_the_last_one(nats: NatsServer) -> None:
    broker, received = consumer(nats.url)
    first, second = BrokerLifespan(broker), BrokerLifespan(broker)
    await first.enter()
    await second.enter()
    await first.leave()
    await round_trip(broker, received)
    await second.leave()
    assert not broker.running


def blocking_broker(url: str) -> tuple[NatsBroker, asyncio.Event, asyncio.Event]:
    """Return a broker, the event that its handler sets first, and the event that it then waits for."""
    broker = NatsBroker(url)
    started, proceed = asyncio.Event(), asyncio.Event()

    @broker.subscriber("slow")
    async def handle(message: str) -> None:
        started.set()
        await proceed.wait()

    return broker, started, proceed


@pytest.mark.parametrize("same_lifespan", [True, False])
async def test_entering_during_shutdown_starts_the_broker_after_it_has_stopped(
    nats: NatsServer,
    same_lifespan: bool,
) -> None:
    broker, started, proceed = blocking_broker(nats.url)
    first = BrokerLifespan(broker)
    second = first if same_lifespan else BrokerLifespan(broker)
    await first.enter()
    await broker.publish("hello", "slow")
    await started.wait()
    leaving = asyncio.create_task(first.leave())
    await eventually(lambda: first.state == "draining")
    entering = asyncio.create_task(second.enter())
    await asyncio.sleep(0)
    proceed.set()
    await asyncio.wait_for(asyncio.gather(leaving, entering), 5)
    assert str(second.state) == "running"
    assert broker.running
    started.clear()
    await broker.publish("hello", "slow")
    await asyncio.wait_for(started.wait(), 5)
    await second.leave()
    assert not broker.running


async def test_an_app_cannot_run_in_two_lifespans_at_once(nats: NatsServer) -> None:
    broker, _ = consumer(nats.url)
    app = UpstreamFastStream(broker)
    calls: list[str] = []
    app.on_startup(lambda: calls.append("on_startup"))
    first = BrokerLifespan(app)
    async with first:
        with pytest.raises(SetupError, match="share one BrokerLifespan"):
            await BrokerLifespan(app).enter()
        assert calls == ["on_startup"]
    async with BrokerLifespan(app):
        assert calls == ["on_startup"] * 2


async def test_waiting_for_a_broker_is_logged(
    unreachable_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("faststream_adapters._lifecycle.broker_group._NOTICE_AFTER", 0.01)
    with pytest.raises(BrokerStartError):
        await BrokerLifespan(NatsBroker(unreachable_url), startup_timeout=0.2).enter()
    assert "is not up yet; waiting for it, for at most 0.2 s." in caplog.text
    async with BrokerLifespan(NatsBroker(unreachable_url), startup="background"):
        await eventually(lambda: "is not up yet; waiting for it." in caplog.text)
    assert "secret" not in caplog.text


async def test_the_startup_error_reports_an_unresolvable_host_name() -> None:
    broker = NatsBroker("nats://does-not-exist.invalid:4222")
    with pytest.raises(BrokerStartError, match="its host name could not be resolved"):
        await BrokerLifespan(broker, startup_timeout=0.5).enter()


@pytest.mark.parametrize("password", ["a/s3cr3t", "a#s3cr3t", "a?s3cr3t", "a@s3cr3t", "s3cr3t"])
async def test_passwords_with_url_delimiters_are_redacted(
    password: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = NatsBroker(f"nats://bob:{password}@127.0.0.1:1")
    with pytest.raises(BrokerStartError) as caught:
        await BrokerLifespan(broker, startup_timeout=0.1).enter()
    assert str(caught.value).startswith("NatsBroker nats://127.0.0.1:1 could not be started")
    assert "s3cr3t" not in "".join(format_exception(caught.value)) + caplog.text
    assert redact(f"(nats://bob:{password}@host) failed") == "(nats://***@host) failed"


async def test_lifespans_that_share_a_broker_must_have_the_same_options_and_host(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    async with BrokerLifespan(broker):
        with pytest.raises(SetupError, match="other keywords"):
            await BrokerLifespan(broker, consume=False).enter()
        async with BrokerLifespan(broker)("one"):
            with pytest.raises(SetupError, match="another host"):
                await BrokerLifespan(broker).enter(host="two")
        assert broker.running


async def test_the_lifespan_and_hooks_of_a_faststream_app_run_in_order(nats: NatsServer) -> None:
    order: list[str] = []
    broker, received = consumer(nats.url)

    @asynccontextmanager
    async def resources(context: ContextRepo) -> AsyncIterator[None]:
        order.append("lifespan in")
        context.set_global("resource", "open")
        yield
        order.append("lifespan out")

    app = UpstreamFastStream(lifespan=resources)
    app.on_startup(lambda: order.append(f"on_startup {broker.running}"))
    app.after_startup(lambda: order.append(f"after_startup {broker.running}"))
    app.on_shutdown(lambda: order.append(f"on_shutdown {broker.running}"))
    app.after_shutdown(lambda: order.append(f"after_shutdown {broker.running}"))
    lifespan = BrokerLifespan(app)
    app.add_broker(broker)
    async with lifespan:
        assert lifespan.brokers == (broker,)
        assert app.context.get("resource") == "open"
        await round_trip(broker, received)
    assert order == [
        "lifespan in",
        "on_startup False",
        "after_startup True",
        "on_shutdown True",
        "after_shutdown False",
        "lifespan out",
    ]


async def test_after_startup_hooks_wait_for_background_startup(nats: NatsServer) -> None:
    order: list[str] = []
    broker, _ = consumer(nats.url)
    nats.stop()
    app = UpstreamFastStream(broker)
    app.on_startup(lambda: order.append(f"on_startup {broker.running}"))
    app.after_startup(lambda: order.append(f"after_startup {broker.running}"))
    lifespan = BrokerLifespan(app, startup="background")
    async with lifespan:
        assert order == ["on_startup False"]
        nats.start()
        await eventually(lambda: lifespan.state == "running")
    assert order == ["on_startup False", "after_startup True"]


@pytest.mark.parametrize("startup", ["strict", "background"])
async def test_an_error_in_an_after_startup_hook_fails_startup(nats: NatsServer, startup: Any) -> None:
    broker, _ = consumer(nats.url)
    app = UpstreamFastStream(broker)

    @app.after_startup
    async def fail() -> None:
        raise KeyError("nats://user:secret@host")

    lifespan = BrokerLifespan(app, startup=startup)
    if startup == "strict":
        with pytest.raises(KeyError):
            await lifespan.enter()
        assert str(lifespan.state) == "failed"
    else:
        async with lifespan:
            await eventually(lambda: lifespan.state == "failed")
            await eventually(lambda: not broker.running)
    assert not broker.running


async def test_an_error_in_an_on_startup_hook_exits_the_lifespan_of_the_app(nats: NatsServer) -> None:
    order: list[str] = []

    @asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        order.append("in")
        try:
            yield
        finally:
            order.append("out")

    app = UpstreamFastStream(NatsBroker(nats.url), lifespan=resources)

    @app.on_startup
    async def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await BrokerLifespan(app).enter()
    assert order == ["in", "out"]


@pytest.mark.parametrize("stage", ["on_shutdown", "after_shutdown"])
async def test_an_error_in_a_shutdown_hook_does_not_prevent_shutdown(nats: NatsServer, stage: str) -> None:
    broker, _ = consumer(nats.url)
    app = UpstreamFastStream(broker)
    calls: list[str] = []

    async def fail() -> None:
        raise KeyError(stage)

    getattr(app, stage)(fail)
    app.after_shutdown(lambda: calls.append("after_shutdown"))
    lifespan = BrokerLifespan(app)
    await lifespan.enter()
    with pytest.raises(KeyError, match=stage):
        await lifespan.leave()
    assert not broker.running
    assert str(lifespan.state) == "stopped"
    assert calls == (["after_shutdown"] if stage == "on_shutdown" else [])


async def test_the_first_shutdown_error_is_raised_and_the_others_are_logged(
    nats: NatsServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = UpstreamFastStream(NatsBroker(nats.url))

    async def fail(text: str) -> None:
        raise KeyError(text)

    app.on_shutdown(partial(fail, "first"))
    app.after_shutdown(partial(fail, "second"))
    lifespan = BrokerLifespan(app)
    await lifespan.enter()
    with pytest.raises(KeyError, match="first"):
        await lifespan.leave()
    assert "Another error while stopping" in caplog.text
    assert "second" in caplog.text


async def test_a_hanging_shutdown_hook_times_out(nats: NatsServer) -> None:
    broker, _ = consumer(nats.url)
    app = UpstreamFastStream(broker)
    app.on_shutdown(asyncio.Event().wait)
    lifespan = BrokerLifespan(app, shutdown_timeout=0.2)
    await lifespan.enter()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(lifespan.leave(), 5)
    assert not broker.running


@pytest.mark.parametrize(("max_workers", "in_order"), [(None, list), (3, sorted)], ids=["one", "three"])
async def test_a_subscriber_handles_its_backlog_before_the_broker_stops(
    nats: NatsServer, max_workers: int | None, in_order: Callable[[list[int]], list[int]]
) -> None:
    broker = NatsBroker(nats.url)
    started, proceed, finished = asyncio.Event(), asyncio.Event(), list[int]()

    @broker.subscriber("work", max_workers=max_workers)
    async def handle(message: int) -> None:
        started.set()
        await proceed.wait()
        finished.append(message)

    lifespan = BrokerLifespan(broker)
    await lifespan.enter()
    for number in range(10):
        await broker.publish(number, "work")
    await started.wait()
    leaving = asyncio.create_task(lifespan.leave())
    await eventually(lambda: lifespan.state == "draining")
    proceed.set()
    await asyncio.wait_for(leaving, 5)
    assert in_order(finished) == list(range(10))


async def test_a_hanging_handler_is_cancelled_after_the_shutdown_timeout(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    started, ended = asyncio.Event(), asyncio.Event()

    @broker.subscriber("work")
    async def handle(message: str) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    lifespan = BrokerLifespan(broker, shutdown_timeout=0.3)
    await lifespan.enter()
    await broker.publish("hang", "work")
    await started.wait()
    await asyncio.wait_for(lifespan.leave(), 5)
    await asyncio.wait_for(ended.wait(), 5)
    assert not broker.running


async def test_shutdown_does_not_hang_on_a_frozen_server(nats: NatsServer) -> None:
    broker, _ = consumer(nats.url)
    lifespan = BrokerLifespan(broker, shutdown_timeout=0.5)
    await lifespan.enter()
    nats.freeze()
    await asyncio.wait_for(lifespan.leave(), 5)
    assert not broker.running


@pytest.mark.parametrize("jetstream", ["push", "pull"])
async def test_a_stream_whose_declaration_failed_is_declared_by_the_next_startup(
    nats_factory: NatsFactory,
    jetstream: str,
) -> None:
    server = nats_factory()
    broker = NatsBroker(server.url)
    received: asyncio.Queue[str] = asyncio.Queue()
    options: dict[str, Any] = {"pull_sub": True, "durable": "one"} if jetstream == "pull" else {}

    async def handle(message: str) -> None:
        await received.put(message)

    broker.subscriber("jobs", stream="jobs", **options)(handle)

    lifespan = BrokerLifespan(broker, startup_timeout=8)
    with pytest.raises(BrokerStartError) as caught:
        await lifespan.enter()
    assert caught.value.__cause__ is not None
    server.jetstream = True
    server.restart()
    async with lifespan:
        await broker.publish("job", "jobs", stream="jobs")
        assert await asyncio.wait_for(received.get(), 5) == "job"


async def test_state_changes_are_reported_although_the_callback_raises(nats: NatsServer) -> None:
    changes: list[tuple[State, State]] = []

    def record(old: State, new: State) -> None:
        changes.append((old, new))
        raise KeyError

    async with BrokerLifespan(NatsBroker(nats.url), on_state_change=record):
        pass
    assert changes == [
        ("stopped", "starting"),
        ("starting", "running"),
        ("running", "draining"),
        ("draining", "stopped"),
    ]


async def test_a_shutdown_timeout_beyond_the_usual_grace_period_logs_a_warning(
    nats: NatsServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with BrokerLifespan(NatsBroker(nats.url), drain_delay=0.0, shutdown_timeout=40):
        pass
    assert "terminationGracePeriodSeconds" in caplog.text
