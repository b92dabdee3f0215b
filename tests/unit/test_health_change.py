"""`on_health_change`, with brokers in memory."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from faststream import FastStream
from faststream.nats import NatsBroker

from faststream_adapters import BrokerLifespan, HealthChange, HealthCheck, make_readiness_asgi
from faststream_adapters._brokers.codes import Code
from faststream_adapters._lifecycle import health_check, health_hook, health_observer
from faststream_adapters._lifecycle.managed import managed_broker
from faststream_adapters.testing import in_memory
from tests.harness.clients import status
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

ENOUGH = 5.0
"""Seconds within which something happens on a busy machine: below all that hangs in these tests."""

LONG = 30.0

STARTED = [
    ("broker", "NatsBroker 1", "not_started", "ok"),
    ("subscriber", "handle", "not_started", "ok"),
    ("check", "database", "not_started", "ok"),
]
"""The changes of a start."""


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_observer, "POLL_INTERVAL", 0.01)
    monkeypatch.setattr(health_check, "_MIN_POLL_INTERVAL", 0.01)


class Database:
    """What a check of the application asks."""

    def __init__(self) -> None:
        self.up = True
        self.calls = 0

    async def ping(self) -> bool:
        self.calls += 1
        return self.up


class Changes:
    """Changes as they were reported, in words."""

    def __init__(self) -> None:
        self.words: list[tuple[str, str, str, str]] = []
        self.times: list[datetime] = []
        self.threads: set[threading.Thread] = set()

    def add(self, change: HealthChange) -> None:
        self.words.append((change.kind, change.name, change.old, change.new))
        self.times.append(change.time)
        self.threads.add(threading.current_thread())

    async def add_later(self, change: HealthChange) -> None:
        await asyncio.sleep(0)
        self.add(change)

    def of(self, kind: str) -> list[tuple[str, str]]:
        return [(old, new) for each, _, old, new in self.words if each == kind]


async def handle(message: str) -> None: ...


def consumer() -> NatsBroker:
    broker = NatsBroker(logger=None)
    broker.subscriber("jobs")(handle)
    return broker


@asynccontextmanager
async def running(
    hook: Callable[[HealthChange], object], database: Database, **keywords: Any
) -> AsyncIterator[BrokerLifespan]:
    """Run a lifespan with one broker in memory, one subscriber and one check."""
    check = HealthCheck("database", database.ping, **keywords)
    lifespan = BrokerLifespan(consumer(), checks=[check], on_health_change=hook)
    with in_memory():
        async with lifespan:
            yield lifespan


class Callable_:  # noqa: N801 (an object that can be called)
    def __init__(self, changes: Changes) -> None:
        self.changes = changes

    async def __call__(self, change: HealthChange) -> None:
        await self.changes.add_later(change)


def partly_async(changes: Changes, change: HealthChange) -> Awaitable[None]:
    return changes.add_later(change)


HOOKS: dict[str, Callable[[Changes], Callable[[HealthChange], object]]] = {
    "async": lambda changes: changes.add_later,
    "sync": lambda changes: changes.add,
    "object": Callable_,
    # A plain function that returns an awaitable.
    "partly": lambda changes: partial(partly_async, changes),
}


@pytest.mark.parametrize("hook", HOOKS)
async def test_changes_are_reported_once_and_in_order(hook: str) -> None:
    changes, database = Changes(), Database()
    before = datetime.now(UTC)
    async with running(HOOKS[hook](changes), database):
        await eventually(lambda: len(changes.words) == 3)
        for up in (False, True, False):
            database.up = up
            calls = database.calls
            await eventually(lambda calls=calls: database.calls > calls + 3)  # type: ignore[misc]
    assert changes.words[:3] == STARTED
    assert changes.of("check") == [
        ("not_started", "ok"),
        ("ok", "check_failed"),
        ("check_failed", "ok"),
        ("ok", "check_failed"),
    ]
    assert len(changes.words) == 6
    assert [before, *changes.times] == sorted([before, *changes.times])
    in_loop = threading.current_thread() in changes.threads
    assert in_loop == (hook != "sync")


async def test_a_plain_function_sees_the_context_of_the_start() -> None:
    seen: list[str] = []
    tenant: ContextVar[str] = ContextVar("tenant", default="none")
    tenant.set("shop")
    async with running(lambda _: seen.append(tenant.get()), Database()):
        await eventually(lambda: len(seen) == 3)
    assert set(seen) == {"shop"}


async def test_nothing_is_reported_from_the_drain_on_and_a_new_start_begins_again() -> None:
    changes, database = Changes(), Database()
    check = HealthCheck("database", database.ping)
    lifespan = BrokerLifespan(consumer(), checks=[check], on_health_change=changes.add)
    with in_memory():
        for run in range(2):
            async with lifespan:
                await eventually(lambda run=run: len(changes.words) == 4 * run + 3)  # type: ignore[misc]
                database.up = False
                await eventually(lambda run=run: len(changes.words) == 4 * run + 4)  # type: ignore[misc]
                lifespan.drain(lambda: None)
                await lifespan.draining()
            database.up = True
    assert changes.words == [*STARTED, ("check", "database", "ok", "check_failed")] * 2


async def test_each_of_two_lifespans_that_share_a_broker_reports() -> None:
    one, two, broker = Changes(), Changes(), consumer()
    lifespans = (BrokerLifespan(broker, on_health_change=each.add) for each in (one, two))
    first, second = lifespans
    with in_memory():
        async with first:
            await eventually(lambda: len(one.words) == 2)
            async with second:
                await eventually(lambda: len(two.words) == 2)
            # The broker goes on for the first one.
            assert managed_broker(broker).up
    assert one.words == two.words == STARTED[:2]


async def test_a_subscriber_that_the_application_stops_is_reported() -> None:
    changes, broker = Changes(), consumer()
    [subscriber] = broker.subscribers
    with in_memory():
        async with BrokerLifespan(broker, on_health_change=changes.add):
            await eventually(lambda: len(changes.words) == 2)
            await subscriber.stop()
            await eventually(lambda: len(changes.words) == 3)
    assert changes.of("subscriber") == [("not_started", "ok"), ("ok", "not_started")]


async def test_subscribers_that_are_left_out_are_reported_as_stopped() -> None:
    changes = Changes()
    with in_memory():
        async with BrokerLifespan(consumer(), consume=False, on_health_change=changes.add):
            await eventually(lambda: len(changes.words) == 2)
    assert changes.of("subscriber") == [("not_started", "stopped")]


ERRORS = [ValueError("no route to postgres://app:hunter2@db/shop"), SystemExit(1), asyncio.CancelledError()]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("in_thread", [True, False])
async def test_an_error_is_logged_and_harmless(
    error: BaseException, in_thread: bool, caplog: pytest.LogCaptureFixture
) -> None:
    changes = Changes()

    def fail(change: HealthChange) -> None:
        changes.add(change)
        raise error

    async def fail_later(change: HealthChange) -> None:
        fail(change)

    async with running(fail if in_thread else fail_later, Database()) as lifespan:
        await eventually(lambda: changes.words == STARTED)
        assert await status(make_readiness_asgi(lifespan)) == 200
    # Once, although each call has raised it.
    assert caplog.text.count("on_health_change raised.") == 1
    assert type(error).__name__ in caplog.text
    assert "hunter2" not in caplog.text


async def test_an_error_after_a_success_is_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(change: HealthChange) -> None:
        if change.kind != "subscriber":
            raise ValueError

    async with running(fail, Database()):
        await eventually(lambda: caplog.text.count("on_health_change raised.") == 2)


class Blocked:
    """Functions that do not end before they are released."""

    def __init__(self) -> None:
        self.changes = Changes()
        self.cancelled = 0
        self._released = threading.Event()

    def in_thread(self, change: HealthChange) -> None:
        self.changes.add(change)
        self._released.wait(LONG)

    async def hangs(self, change: HealthChange) -> None:
        self.changes.add(change)
        while not self._released.is_set():  # noqa: ASYNC110 (another thread may set it)
            await asyncio.sleep(0.005)

    async def swallows_cancellation(self, change: HealthChange) -> None:
        self.changes.add(change)
        while not self._released.is_set():
            try:
                await asyncio.sleep(0.005)
            except asyncio.CancelledError:
                self.cancelled += 1

    def blocks_then_hangs(self, change: HealthChange) -> Awaitable[None]:
        self.in_thread(change)
        return asyncio.sleep(LONG)

    def release(self) -> None:
        self._released.set()


HANGING = ["in_thread", "hangs", "swallows_cancellation", "blocks_then_hangs"]


@pytest.mark.parametrize("how", HANGING)
async def test_a_function_that_hangs_delays_neither_a_probe_nor_the_stop(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_hook, "END_TIMEOUT", 0.05)
    blocked, before = Blocked(), asyncio.all_tasks()
    try:
        async with running(getattr(blocked, how), Database()) as lifespan:
            await eventually(lambda: len(blocked.changes.words) == 1)
            assert await status(make_readiness_asgi(lifespan)) == 200
            started = monotonic()
        assert monotonic() - started < ENOUGH
        # One call at a time.
        assert blocked.changes.words == STARTED[:1]
    finally:
        blocked.release()
    await eventually(lambda: asyncio.all_tasks() == before)


@pytest.mark.parametrize("how", ["in_thread", "hangs"])
async def test_changes_that_wait_are_merged(how: str) -> None:
    blocked, database = Blocked(), Database()
    async with running(getattr(blocked, how), database):
        await eventually(lambda: len(blocked.changes.words) == 1)
        for up in (False, True, False):
            database.up = up
            calls = database.calls
            await eventually(lambda calls=calls: database.calls > calls + 3)  # type: ignore[misc]
        blocked.release()
        await eventually(lambda: len(blocked.changes.words) == 3)
    assert blocked.changes.words == [
        *STARTED[:2],
        ("check", "database", "not_started", "check_failed"),
    ]


async def test_a_change_that_is_undone_while_it_waits_is_not_reported() -> None:
    changes, hook_blocked = Changes(), threading.Event()

    def hook(change: HealthChange) -> None:
        changes.add(change)
        if change.new == "check_failed" and change.name == "first":
            hook_blocked.wait(LONG)

    first, second = Database(), Database()
    checks = [HealthCheck("first", first.ping), HealthCheck("second", second.ping)]
    with in_memory():
        async with BrokerLifespan(consumer(), checks=checks, on_health_change=hook):
            await eventually(lambda: len(changes.words) == 4)
            first.up = False
            await eventually(lambda: len(changes.words) == 5)
            for up in (False, True):
                second.up = up
                calls = second.calls
                await eventually(lambda calls=calls: second.calls > calls + 3)  # type: ignore[misc]
            hook_blocked.set()
            first.up = True
            await eventually(lambda: len(changes.words) == 6)
    assert [each[1] for each in changes.words[4:]] == ["first", "first"]


@pytest.mark.parametrize("how", HANGING)
async def test_a_call_that_takes_too_long_is_cancelled_if_possible(
    how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(health_hook, "CALL_TIMEOUT", 0.05)
    blocked = Blocked()
    try:
        async with running(getattr(blocked, how), Database()):
            await eventually(lambda: "A call of on_health_change takes longer than 0.05 s" in caplog.text)
            if how == "hangs":
                await eventually(lambda: blocked.changes.words == STARTED)
            else:
                assert len(blocked.changes.words) == 1
                blocked.release()
                await eventually(lambda: blocked.changes.words == STARTED)
    finally:
        blocked.release()


async def test_a_function_that_hangs_does_not_keep_the_lifespan_from_starting_again() -> None:
    blocked = Blocked()
    lifespan = BrokerLifespan(consumer(), on_health_change=blocked.in_thread)
    with in_memory():
        async with lifespan:
            await eventually(lambda: len(blocked.changes.words) == 1)
        async with lifespan:
            blocked.release()
            await eventually(lambda: blocked.changes.words == [STARTED[0], *STARTED[:2]])


async def test_checks_are_called_regularly_only_if_something_shows_their_result() -> None:
    database, plain = Database(), Database()
    with in_memory():
        async with BrokerLifespan(consumer(), checks=[HealthCheck("database", plain.ping)]):
            async with running(lambda _: None, database):
                await eventually(lambda: database.calls > 3)
            calls = database.calls
    assert plain.calls == 0
    # It has ended with the lifespan.
    assert database.calls == calls


async def test_a_check_is_not_called_again_within_its_ttl() -> None:
    changes, database = Changes(), Database()
    async with running(changes.add, database, ttl=LONG) as lifespan:
        await eventually(lambda: len(changes.words) == 3)
        for _ in range(5):
            assert await status(make_readiness_asgi(lifespan)) == 200
    assert database.calls == 1


async def test_a_check_that_hangs_longer_than_probes_wait_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_check, "SLOW", 0.05)
    changes, hang = Changes(), asyncio.Event()

    async def ping() -> None:
        if hang.is_set():
            await asyncio.sleep(LONG)

    check = HealthCheck("database", ping, timeout=LONG)
    with in_memory():
        async with BrokerLifespan(consumer(), checks=[check], on_health_change=changes.add):
            await eventually(lambda: changes.of("check") == [("not_started", "ok")])
            hang.set()
            await eventually(lambda: changes.of("check")[1:] == [("ok", "check_failed")])


async def test_a_driver_that_raises_is_logged_and_delays_changes_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    changes, database, broker = Changes(), Database(), consumer()
    managed, broken = managed_broker(broker), threading.Event()
    check = HealthCheck("database", database.ping)
    healthy = managed.subscriber_code

    def code(subscriber: Any) -> Code:
        if broken.is_set():
            raise ValueError
        return healthy(subscriber)

    monkeypatch.setattr(managed, "subscriber_code", code)
    with in_memory():
        async with BrokerLifespan(broker, checks=[check], on_health_change=changes.add):
            await eventually(lambda: changes.words == STARTED)
            broken.set()
            database.up = False
            await eventually(lambda: "The health could not be read: ValueError." in caplog.text)
            calls = database.calls
            await eventually(lambda: database.calls > calls + 3)
            broken.clear()
            await eventually(lambda: len(changes.words) == 4)
    assert caplog.text.count("The health could not be read") == 1


async def test_a_start_that_is_cancelled_reports_no_end() -> None:
    changes, release = Changes(), asyncio.Event()

    async def hook(change: HealthChange) -> None:
        changes.add(change)
        release.set()

    async def after_startup() -> None:
        await asyncio.sleep(LONG)

    app = FastStream(consumer(), after_startup=[after_startup])
    with in_memory():
        start = asyncio.create_task(BrokerLifespan(app, on_health_change=hook).enter())
        await asyncio.wait_for(release.wait(), ENOUGH)
        start.cancel()
        with suppress(asyncio.CancelledError):
            await start
    assert changes.words == STARTED[:2]


def test_a_change_can_be_compared_and_shown() -> None:
    now = datetime.now(UTC)
    make = partial(HealthChange, "broker", "NatsBroker 1", "ok", "timeout")
    assert make(now) == make(now)
    assert "old='ok', new='timeout'" in repr(make(now))


async def test_an_application_without_components_reports_nothing() -> None:
    changes = Changes()
    async with BrokerLifespan(FastStream(logger=None), on_health_change=changes.add):
        pass
    assert changes.words == []


async def test_a_broker_that_a_hook_adds_is_reported() -> None:
    changes, app = Changes(), FastStream(logger=None)
    app.on_startup(lambda: app.add_broker(consumer()))
    with in_memory():
        async with BrokerLifespan(app, on_health_change=changes.add):
            await eventually(lambda: changes.words == STARTED[:2])
