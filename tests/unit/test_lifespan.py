"""BrokerLifespan on real NATS servers: starting, sharing, failing, stopping."""

import asyncio
import math
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from traceback import format_exception
from typing import Any

import pytest
from faststream import Context, ContextRepo
from faststream import FastStream as UpstreamFastStream
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker, TestNatsBroker

from faststream_adapters import BrokerLifespan
from faststream_adapters.lifespan import BrokerStartError, LifespanKeywords, State
from faststream_adapters.redaction import redact
from tests.conftest import NatsFactory
from tests.servers import hold_port
from tests.servers.nats import NatsServer
from tests.support import eventually


@pytest.fixture
def nowhere() -> Iterator[str]:
    """Return the URL of a port that refuses connections."""
    port, held = hold_port()
    with held or nullcontext():
        yield f"nats://user:secret@127.0.0.1:{port}"


def consumer(url: str) -> tuple[NatsBroker, "asyncio.Queue[Any]"]:
    broker = NatsBroker(url)
    received: asyncio.Queue[Any] = asyncio.Queue()

    @broker.subscriber("greetings")
    async def handle(message: str) -> None:
        await received.put(message)

    return broker, received


async def round_trip(broker: NatsBroker, received: "asyncio.Queue[Any]", message: str = "hello") -> None:
    await broker.publish(message, "greetings")
    assert await asyncio.wait_for(received.get(), 5) == message


async def test_a_strict_start_waits_for_the_broker(nats: NatsServer) -> None:
    broker, received = consumer(nats.url)
    lifespan = BrokerLifespan(broker)
    assert str(lifespan.state) == "stopped"
    async with lifespan:
        assert str(lifespan.state) == "running"
        assert lifespan.brokers == (broker,)
        await round_trip(broker, received)
    assert str(lifespan.state) == "stopped"
    assert not broker.running


async def test_it_can_be_called_with_a_host_and_yields_none(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    host = object()
    seen: asyncio.Queue[Any] = asyncio.Queue()

    @broker.subscriber("greetings")
    async def handle(message: str, app: Any = Context("host")) -> None:
        await seen.put(app)

    async with BrokerLifespan(broker)(host) as nothing:
        assert nothing is None
        await broker.publish("hello", "greetings")
        assert await asyncio.wait_for(seen.get(), 5) is host
    assert broker.context.get("host") is None


async def test_it_can_be_entered_again(nats: NatsServer) -> None:
    broker, received = consumer(nats.url)
    lifespan = BrokerLifespan(broker)
    for _ in range(3):
        async with lifespan:
            await round_trip(broker, received)


def test_it_can_be_entered_again_in_another_event_loop(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    lifespan = BrokerLifespan(broker)

    async def run() -> bool:
        async with lifespan:
            return await broker.ping(1.0)

    assert asyncio.run(run())
    assert asyncio.run(run())


async def test_entered_twice_at_once_it_starts_once(nats: NatsServer) -> None:
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


async def test_who_joins_a_start_that_fails_is_told(nowhere: str) -> None:
    lifespan = BrokerLifespan(NatsBroker(nowhere), startup_timeout=0.1)
    results = await asyncio.gather(lifespan.enter(), lifespan.enter(), return_exceptions=True)
    assert [type(result) for result in results] == [BrokerStartError, BrokerStartError]
    assert str(lifespan.state) == "failed"


async def test_a_strict_start_fails_in_time_and_names_the_broker_without_its_password(nowhere: str) -> None:
    lifespan = BrokerLifespan(NatsBroker(nowhere), startup_timeout=0.2)
    with pytest.raises(BrokerStartError) as caught:
        async with lifespan:
            pytest.fail("It started without a server.")
    address = nowhere.partition("@")[2]
    assert str(caught.value) == (
        f"NatsBroker nats://{address} could not be started within 0.2 s: the connection was refused."
    )
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert str(lifespan.state) == "failed"


async def test_a_wrong_password_fails_the_start_at_once(nats_factory: NatsFactory) -> None:
    server = nats_factory(user="user", password="right")
    broker = NatsBroker(server.url.replace("right", "wrong"))
    with pytest.raises(BrokerStartError, match="the credentials were rejected"):
        await BrokerLifespan(broker).enter()


async def test_a_frozen_server_fails_the_start_in_time(nats: NatsServer) -> None:
    nats.freeze()
    lifespan = BrokerLifespan(NatsBroker(nats.url), startup_timeout=0.3)
    with pytest.raises(BrokerStartError, match=r"within 0\.3 s: it did not answer in time"):
        await lifespan.enter()


async def test_if_the_second_broker_fails_the_first_is_stopped(nats: NatsServer, nowhere: str) -> None:
    first, received = consumer(nats.url)
    second = NatsBroker(nowhere)
    lifespan = BrokerLifespan(first, second, startup_timeout=0.3)
    with pytest.raises(BrokerStartError):
        await lifespan.enter()
    assert not first.running
    async with BrokerLifespan(first):
        await round_trip(first, received)


async def test_in_the_background_the_host_starts_at_once(nats: NatsServer) -> None:
    broker, received = consumer(nats.url)
    nats.stop()
    lifespan = BrokerLifespan(broker, startup="background")
    async with lifespan:
        assert str(lifespan.state) == "starting"
        nats.start()
        await eventually(lambda: lifespan.state == "running")
        await round_trip(broker, received)
    assert str(lifespan.state) == "stopped"


async def test_in_the_background_a_start_can_run_out_of_time(nowhere: str) -> None:
    lifespan = BrokerLifespan(NatsBroker(nowhere), startup="background", startup_timeout=0.2)
    async with lifespan:
        await eventually(lambda: lifespan.state == "failed")
    assert str(lifespan.state) == "stopped"


async def test_leaving_ends_a_start_in_the_background(nowhere: str) -> None:
    lifespan = BrokerLifespan(NatsBroker(nowhere), startup="background")
    async with asyncio.timeout(5), lifespan:
        assert str(lifespan.state) == "starting"
    assert str(lifespan.state) == "stopped"


async def test_the_background_goes_on_after_an_error(nats_factory: NatsFactory) -> None:
    server = nats_factory(user="user", password="old")
    broker, received = consumer(server.url.replace("old", "new"))
    lifespan = BrokerLifespan(broker, startup="background")
    async with lifespan:
        await eventually(lambda: broker.connection is None if lifespan.state == "running" else True)
        server.password = "new"
        server.restart()
        await eventually(lambda: lifespan.state == "running")
        await round_trip(broker, received)


async def test_a_start_that_ends_while_draining_does_not_make_it_ready(nats: NatsServer) -> None:
    broker, _ = consumer(nats.url)
    nats.stop()
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
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
        signal.signal(signal.SIGTERM, before)
    assert told == []


async def test_publish_only_starts_no_subscriber(nats: NatsServer) -> None:
    publisher, unused = consumer(nats.url)
    listener, received = consumer(nats.url)
    async with BrokerLifespan(listener), BrokerLifespan(publisher, consume=False):
        # The publisher has another connection: the server must know of the subscription first.
        await listener.connection.flush()
        assert not any(subscriber.running for subscriber in publisher.subscribers)
        await round_trip(publisher, received)
    assert unused.empty()


async def test_an_optional_broker_fails_nothing(nats: NatsServer, nowhere: str) -> None:
    needed, received = consumer(nats.url)
    extra = NatsBroker(nowhere)
    async with BrokerLifespan(needed, extra, optional=[extra]) as _, asyncio.timeout(5):
        await round_trip(needed, received)


async def test_two_lifespans_share_a_broker(nats: NatsServer) -> None:
    broker, received = consumer(nats.url)
    first, second = BrokerLifespan(broker), BrokerLifespan(broker)
    await first.enter()
    await second.enter()
    await first.leave()
    await round_trip(broker, received)
    await second.leave()
    assert not broker.running


def slow(url: str) -> tuple[NatsBroker, asyncio.Event, asyncio.Event]:
    """Return a broker whose handler, once begun, waits to be let go."""
    broker = NatsBroker(url)
    began, go_on = asyncio.Event(), asyncio.Event()

    @broker.subscriber("slow")
    async def handle(message: str) -> None:
        began.set()
        await go_on.wait()

    return broker, began, go_on


@pytest.mark.parametrize("same", [True, False])
async def test_entered_while_the_last_stop_is_under_way_it_starts_after_that(
    nats: NatsServer,
    same: bool,
) -> None:
    broker, began, go_on = slow(nats.url)
    first = BrokerLifespan(broker)
    second = first if same else BrokerLifespan(broker)
    await first.enter()
    await broker.publish("hello", "slow")
    await began.wait()
    leaving = asyncio.create_task(first.leave())
    await eventually(lambda: first.state == "draining")
    entering = asyncio.create_task(second.enter())
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.wait_for(asyncio.gather(leaving, entering), 5)
    assert str(second.state) == "running"
    assert broker.running
    began.clear()
    await broker.publish("hello", "slow")
    await asyncio.wait_for(began.wait(), 5)
    await second.leave()
    assert not broker.running


async def test_one_app_in_two_lifespans_runs_its_hooks_once_or_not_at_all(nats: NatsServer) -> None:
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


async def test_waiting_for_a_broker_is_said(
    nowhere: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("faststream_adapters.lifespan._NOTICE_AFTER", 0.01)
    with pytest.raises(BrokerStartError):
        await BrokerLifespan(NatsBroker(nowhere), startup_timeout=0.2).enter()
    assert "is not up yet; waiting for it, for 0.2 s at most." in caplog.text
    async with BrokerLifespan(NatsBroker(nowhere), startup="background"):
        await eventually(lambda: "is not up yet; waiting for it." in caplog.text)
    assert "secret" not in caplog.text


async def test_a_host_name_that_does_not_exist_is_said() -> None:
    broker = NatsBroker("nats://does-not-exist.invalid:4222")
    with pytest.raises(BrokerStartError, match="its host name could not be resolved"):
        await BrokerLifespan(broker, startup_timeout=0.5).enter()


@pytest.mark.parametrize("password", ["a/s3cr3t", "a#s3cr3t", "a?s3cr3t", "a@s3cr3t", "s3cr3t"])
async def test_no_password_is_shown_whatever_is_in_it(
    password: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = NatsBroker(f"nats://bob:{password}@127.0.0.1:1")
    with pytest.raises(BrokerStartError) as caught:
        await BrokerLifespan(broker, startup_timeout=0.1).enter()
    assert str(caught.value).startswith("NatsBroker nats://127.0.0.1:1 could not be started")
    assert "s3cr3t" not in "".join(format_exception(caught.value)) + caplog.text
    assert redact(f"(nats://bob:{password}@host) failed") == "(nats://***@host) failed"


async def test_draining_before_it_ever_ran_is_no_wait() -> None:
    called: list[str] = []
    BrokerLifespan(NatsBroker(), drain_delay=60).drain(lambda: called.append("stop"))
    assert called == ["stop"]


async def test_two_lifespans_must_agree(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    async with BrokerLifespan(broker):
        with pytest.raises(SetupError, match="other keywords"):
            await BrokerLifespan(broker, consume=False).enter()
        async with BrokerLifespan(broker)("one"):
            with pytest.raises(SetupError, match="another host"):
                await BrokerLifespan(broker).enter(host="two")
        assert broker.running


async def test_a_faststream_app_runs_with_all_its_hooks(nats: NatsServer) -> None:
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


async def test_in_the_background_the_hooks_follow_the_broker(nats: NatsServer) -> None:
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
async def test_a_hook_that_raises_after_the_start_fails_it(nats: NatsServer, startup: Any) -> None:
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


async def test_a_hook_that_raises_before_the_start_releases_the_lifespan(nats: NatsServer) -> None:
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
async def test_a_shutdown_hook_that_raises_keeps_nothing_up(nats: NatsServer, stage: str) -> None:
    broker, _ = consumer(nats.url)
    app = UpstreamFastStream(broker)
    ended: list[str] = []

    async def fail() -> None:
        raise KeyError(stage)

    getattr(app, stage)(fail)
    app.after_shutdown(lambda: ended.append("after_shutdown"))
    lifespan = BrokerLifespan(app)
    await lifespan.enter()
    with pytest.raises(KeyError, match=stage):
        await lifespan.leave()
    assert not broker.running
    assert str(lifespan.state) == "stopped"
    assert ended == (["after_shutdown"] if stage == "on_shutdown" else [])


async def test_of_several_shutdown_errors_the_first_is_raised_and_the_others_are_logged(
    nats: NatsServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = UpstreamFastStream(NatsBroker(nats.url))

    async def fail(word: str) -> None:
        raise KeyError(word)

    app.on_shutdown(partial(fail, "first"))
    app.after_shutdown(partial(fail, "second"))
    lifespan = BrokerLifespan(app)
    await lifespan.enter()
    with pytest.raises(KeyError, match="first"):
        await lifespan.leave()
    assert "One more error while stopping" in caplog.text
    assert "second" in caplog.text


async def test_a_shutdown_hook_that_hangs_is_cut_off(nats: NatsServer) -> None:
    broker, _ = consumer(nats.url)
    app = UpstreamFastStream(broker)
    app.on_shutdown(asyncio.Event().wait)
    lifespan = BrokerLifespan(app, shutdown_timeout=0.2)
    await lifespan.enter()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(lifespan.leave(), 5)
    assert not broker.running


async def test_in_memory_it_enters_and_leaves_cleanly() -> None:
    broker, received = consumer("nats://127.0.0.1:1")
    lifespan = BrokerLifespan(broker)
    async with TestNatsBroker(broker, connect_only=False), lifespan():
        assert str(lifespan.state) == "running"
        await round_trip(broker, received)


async def test_a_handler_finishes_before_the_broker_stops(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    began, go_on, finished = asyncio.Event(), asyncio.Event(), []

    @broker.subscriber("work")
    async def handle(message: int) -> None:
        began.set()
        await go_on.wait()
        finished.append(message)

    lifespan = BrokerLifespan(broker)
    await lifespan.enter()
    for number in range(10):
        await broker.publish(number, "work")
    await began.wait()
    leaving = asyncio.create_task(lifespan.leave())
    await eventually(lambda: lifespan.state == "draining")
    go_on.set()
    await asyncio.wait_for(leaving, 5)
    assert finished == list(range(10))


async def test_handlers_of_a_concurrent_subscriber_finish_too(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    began, go_on, finished = asyncio.Event(), asyncio.Event(), []

    @broker.subscriber("work", max_workers=3)
    async def handle(message: int) -> None:
        began.set()
        await go_on.wait()
        finished.append(message)

    lifespan = BrokerLifespan(broker)
    await lifespan.enter()
    for number in range(10):
        await broker.publish(number, "work")
    await began.wait()
    leaving = asyncio.create_task(lifespan.leave())
    await eventually(lambda: lifespan.state == "draining")
    go_on.set()
    await asyncio.wait_for(leaving, 5)
    assert sorted(finished) == list(range(10))


async def test_a_handler_that_hangs_is_cut_off(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    began, ended = asyncio.Event(), asyncio.Event()

    @broker.subscriber("work")
    async def handle(message: str) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    lifespan = BrokerLifespan(broker, shutdown_timeout=0.3)
    await lifespan.enter()
    await broker.publish("hang", "work")
    await began.wait()
    await asyncio.wait_for(lifespan.leave(), 5)
    await asyncio.wait_for(ended.wait(), 5)
    assert not broker.running


async def test_stopping_on_a_frozen_server_takes_no_longer_than_allowed(nats: NatsServer) -> None:
    broker, _ = consumer(nats.url)
    lifespan = BrokerLifespan(broker, shutdown_timeout=0.5)
    await lifespan.enter()
    nats.freeze()
    await asyncio.wait_for(lifespan.leave(), 5)
    assert not broker.running


@pytest.mark.parametrize("jetstream", ["push", "pull"])
async def test_a_stream_that_could_not_be_declared_is_declared_later(
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


async def test_cancelled_at_any_point_of_the_start_nothing_is_left(nats_js: NatsServer) -> None:
    broker, received = consumer(nats_js.url)

    @broker.subscriber("jobs", stream="jobs")
    async def handle(message: str) -> None:
        """Do nothing: declaring the stream adds points at which the start can be cancelled."""

    lifespan = BrokerLifespan(broker)
    for steps in range(1000):
        before = asyncio.all_tasks()
        starting = asyncio.create_task(lifespan.enter())
        for _ in range(steps):
            await asyncio.sleep(0)
        if starting.done():
            await lifespan.leave()
            break
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert str(lifespan.state) == "stopped"
        assert not broker.running
        assert broker.config.connection_state._connection is None  # noqa: SLF001 (that none is left is the point)
        await eventually(lambda before=before: asyncio.all_tasks() <= before)  # type: ignore[misc]
    else:
        pytest.fail("The start never finished.")
    assert steps > 10
    async with lifespan:
        await round_trip(broker, received)


async def test_cancelled_at_any_point_of_the_stop_nothing_is_left(nats: NatsServer) -> None:
    broker, received = consumer(nats.url)
    lifespan = BrokerLifespan(broker)
    for steps in range(1000):
        await lifespan.enter()
        before = asyncio.all_tasks()
        stopping = asyncio.create_task(lifespan.leave())
        for _ in range(steps):
            await asyncio.sleep(0)
        if stopping.done():
            break
        stopping.cancel()
        await asyncio.wait((stopping,), timeout=5)
        assert stopping.done()
        if steps == 0:
            # Cancelled before its first step, leave() has not begun.
            await lifespan.leave()
        assert str(lifespan.state) == "stopped"
        assert not broker.running
        await eventually(lambda before=before: asyncio.all_tasks() <= before)  # type: ignore[misc]
    else:
        pytest.fail("The stop never finished.")
    assert steps > 10
    async with lifespan:
        await round_trip(broker, received)


async def test_state_changes_are_told_and_an_observer_that_raises_does_no_harm(nats: NatsServer) -> None:
    changes: list[tuple[State, State]] = []

    def observe(old: State, new: State) -> None:
        changes.append((old, new))
        raise KeyError

    async with BrokerLifespan(NatsBroker(nats.url), on_state_change=observe):
        pass
    assert changes == [
        ("stopped", "starting"),
        ("starting", "running"),
        ("running", "draining"),
        ("draining", "stopped"),
    ]


async def test_a_budget_beyond_the_usual_limits_is_warned_about(
    nats: NatsServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with BrokerLifespan(NatsBroker(nats.url), drain_delay=0.0, shutdown_timeout=40):
        pass
    assert "terminationGracePeriodSeconds" in caplog.text


async def _coroutine(old: State, new: State) -> None: ...


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"startup": "later"}, "startup must be"),
        ({"startup_timeout": -1}, "startup_timeout must be"),
        (
            {"startup_timeout": "5"},
            "startup_timeout must be a number of seconds that is not negative, not '5'",
        ),
        ({"consume": "no"}, "consume must be True or False, not 'no'"),
        ({"supervise": 1}, "supervise must be True or False"),
        ({"drain_delay": math.nan}, "drain_delay must be"),
        ({"shutdown_timeout": -0.5}, "shutdown_timeout must be"),
        ({"on_state_change": _coroutine}, "plain function"),
        ({"optional": [NatsBroker()]}, "optional names a broker"),
        ({"optional": NatsBroker()}, r"optional must be a list of brokers: optional=\[broker\]"),
    ],
)
def test_bad_keywords_are_refused_when_built(keywords: Any, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        BrokerLifespan(NatsBroker(), **keywords)


def test_bad_targets_are_refused_when_built() -> None:
    broker = NatsBroker()
    with pytest.raises(SetupError, match="not nothing"):
        BrokerLifespan()
    with pytest.raises(SetupError, match="not NatsBroker, str"):
        BrokerLifespan(broker, "nats://localhost")  # type: ignore[arg-type]
    with pytest.raises(SetupError, match="twice"):
        BrokerLifespan(broker, broker)
    with pytest.raises(TypeError, match="unknown"):
        BrokerLifespan(broker, unknown=1)  # type: ignore[call-arg]


def test_the_keywords_that_are_passed_on_are_those_it_takes() -> None:
    taken = [name for name in BrokerLifespan.__init__.__annotations__ if name not in {"targets", "return"}]
    assert taken == list(LifespanKeywords.__annotations__)
