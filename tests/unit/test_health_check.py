"""The application's own health checks, with brokers in memory."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker

from faststream_adapters import (
    BrokerLifespan,
    HealthCheck,
    make_liveness_asgi,
    make_ping_asgi,
    make_readiness_asgi,
    make_startup_asgi,
)
from faststream_adapters.testing import in_memory
from tests.harness.clients import client
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator

    from faststream.asgi.types import ASGIApp

PROBE_TIMEOUT = 0.3
ENOUGH = 5.0
"""Seconds within which a probe has to respond on a busy machine: below all that hangs in these tests."""

LONG = 30.0


@asynccontextmanager
async def running(*checks: HealthCheck, **keywords: Any) -> AsyncIterator[BrokerLifespan]:
    """Run a lifespan with these checks, whose broker is healthy."""
    lifespan = BrokerLifespan(NatsBroker(), checks=checks, **keywords)
    with in_memory():
        async with lifespan:
            yield lifespan


async def body(app: ASGIApp) -> str:
    async with client(app) as http:
        return (await http.get("/")).text


async def report(app: ASGIApp) -> Any:
    async with client(app) as http:
        return (await http.get("/")).json()


async def readiness(lifespan: BrokerLifespan, seconds: float = PROBE_TIMEOUT) -> str:
    """Return the word of a readiness probe, which must come in time."""
    started = monotonic()
    word = await body(make_readiness_asgi(lifespan, timeout=seconds))
    assert monotonic() - started < ENOUGH
    return word


class Blocked:
    """Functions that do not end before they are released."""

    def __init__(self) -> None:
        self.calls = 0
        self.cancelled = 0
        self._released = threading.Event()

    def in_thread(self) -> None:
        self.calls += 1
        self._released.wait(LONG)

    async def hangs(self) -> None:
        self.calls += 1
        while not self._released.is_set():  # noqa: ASYNC110 (another thread may set it)
            await asyncio.sleep(0.005)

    async def swallows_cancellation(self) -> None:
        self.calls += 1
        while not self._released.is_set():
            try:
                await asyncio.sleep(0.005)
            except asyncio.CancelledError:
                self.cancelled += 1

    def then_hangs(self) -> Awaitable[None]:
        return self.hangs()

    def blocks_then_hangs(self) -> Awaitable[None]:
        self.in_thread()
        return asyncio.sleep(LONG)

    def release(self) -> None:
        self._released.set()


class BrokenError(Exception):
    def __str__(self) -> str:
        raise SystemExit(1)


class Nonsense:
    """What no function should return."""

    def __bool__(self) -> bool:
        raise AssertionError

    __eq__ = __hash__ = __bool__  # type: ignore[assignment]


class BadAwaitable:
    def __await__(self) -> Generator[str, None, None]:
        yield "nonsense"


def raises(error: BaseException) -> None:
    raise error


async def raises_later(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def returns(value: object) -> object:
    return value


class Callable_:  # noqa: N801 (an object that can be called)
    async def __call__(self) -> bool:
        return False


ERRORS = [
    ValueError("no"),
    BrokenError(),
    ExceptionGroup("both", [ValueError("no")]),
    SystemExit(1),
    KeyboardInterrupt(),
    GeneratorExit(),
    asyncio.CancelledError(),
    StopIteration(),
    TimeoutError(),
]


@pytest.mark.parametrize(
    "call",
    [
        *(partial(raises, error) for error in ERRORS),
        *(partial(raises_later, error) for error in ERRORS),
        lambda: False,
        partial(returns, False),
        Callable_(),
        BadAwaitable,
    ],
)
async def test_a_check_that_fails_fails_readiness(call: Callable[[], object]) -> None:
    async with running(HealthCheck("database", call)) as lifespan:
        assert await readiness(lifespan) == "check_failed"
        assert await readiness(lifespan) == "check_failed"


@pytest.mark.parametrize(
    "call",
    [
        lambda: None,
        lambda: True,
        lambda: 0,
        Nonsense,
        dict,
        partial(returns, None),
        partial(returns, "PONG"),
        partial(returns, Nonsense()),
        # As the ping of redis.asyncio: a plain function that returns an awaitable.
        lambda: returns(True),
    ],
)
async def test_a_check_that_returns_anything_else_passes(call: Callable[[], object]) -> None:
    async with running(HealthCheck("database", call)) as lifespan:
        assert await readiness(lifespan) == "ok"


HANGING = [
    "in_thread",
    "hangs",
    "swallows_cancellation",
    *(pytest.param(how, marks=pytest.mark.full) for how in ("then_hangs", "blocks_then_hangs")),
]


@pytest.mark.parametrize("how", HANGING)
@pytest.mark.parametrize("limit", [0.05, LONG])
async def test_a_check_that_hangs_does_not_move_the_deadline_of_a_probe(how: str, limit: float) -> None:
    blocked = Blocked()
    check = HealthCheck("database", getattr(blocked, how), timeout=limit)
    async with running(check, HealthCheck("healthy", lambda: None)) as lifespan:
        try:
            words = await asyncio.gather(*(readiness(lifespan, 0.1) for _ in range(5)))
            assert set(words) == {"check_failed"}
            assert blocked.calls == 1
        finally:
            blocked.release()


@pytest.mark.parametrize("how", ["in_thread", "swallows_cancellation", "blocks_then_hangs"])
async def test_a_call_that_cannot_be_cancelled_is_the_only_one_until_it_ends(how: str) -> None:
    blocked = Blocked()
    async with running(HealthCheck("database", getattr(blocked, how), timeout=0.2)) as lifespan:
        assert await readiness(lifespan, LONG) == "check_failed"
        # All others fail at once, instead of waiting for the timeout too.
        started = monotonic()
        for _ in range(20):
            assert await readiness(lifespan, LONG) == "check_failed"
        assert monotonic() - started < 20 * 0.2 / 2
        assert blocked.calls == 1
        assert blocked.cancelled <= 1
        blocked.release()
        async with asyncio.timeout(LONG):
            while blocked.calls == 1:
                await readiness(lifespan)


async def test_a_check_that_works_again_passes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    results: list[Any] = [
        OSError("no route to postgres://app:hunter2@db/shop"),
        OSError("another text"),
        ValueError("no"),
        False,
        True,
        True,
        False,
    ]

    def call() -> bool:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return bool(result)

    async with running(HealthCheck("database", call)) as lifespan:
        words = [await readiness(lifespan) for _ in range(len(results))]
    assert words == [*4 * ["check_failed"], "ok", "ok", "check_failed"]
    lines = [(each.levelno, each.message) for each in caplog.records if each.name.endswith(".health")]
    assert lines == [
        (logging.WARNING, "The health check 'database' fails: OSError: no route to postgres://***@db/shop."),
        (logging.WARNING, "The health check 'database' fails: ValueError: no."),
        (logging.WARNING, "The health check 'database' fails: it returned False."),
        (logging.INFO, "The health check 'database' passes again."),
        (logging.WARNING, "The health check 'database' fails: it returned False."),
    ]
    assert {(vars(each).get("check"), vars(each).get("new")) for each in caplog.records} >= {
        ("database", "check_failed"),
        ("database", "ok"),
    }


async def test_a_timeout_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    blocked = Blocked()
    async with running(HealthCheck("database", blocked.hangs, timeout=0.01)) as lifespan:
        assert await readiness(lifespan) == "check_failed"
    assert "The health check 'database' fails: it took longer than 0.01 s." in caplog.text


async def test_concurrent_probes_share_a_call() -> None:
    calls = 0

    async def call() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.02)

    async with running(HealthCheck("database", call)) as lifespan:
        probe = make_readiness_asgi(lifespan)
        assert await asyncio.gather(*(body(probe) for _ in range(10))) == ["ok"] * 10
        assert calls == 1
        assert await body(probe) == "ok"
        assert calls == 2


@pytest.mark.parametrize(("own", "of_probe", "expected"), [(0.0, 0.0, 3), (60.0, 0.0, 1), (0.0, 60.0, 1)])
async def test_a_result_is_reused_within_the_ttl(own: float, of_probe: float, expected: int) -> None:
    calls: list[None] = []
    check = HealthCheck("database", lambda: calls.append(None), ttl=own)
    async with running(check) as lifespan:
        probe = make_readiness_asgi(lifespan, ttl=of_probe)
        for _ in range(3):
            assert await body(probe) == "ok"
        assert len(calls) == expected


async def test_a_call_goes_on_when_a_probe_gives_up() -> None:
    proceed, ended = asyncio.Event(), asyncio.Event()

    async def call() -> None:
        await proceed.wait()
        ended.set()

    async with running(HealthCheck("database", call, timeout=LONG, ttl=LONG)) as lifespan:
        assert await readiness(lifespan, 0.01) == "check_failed"
        proceed.set()
        await ended.wait()
        assert await readiness(lifespan) == "ok"


async def test_an_event_loop_that_was_blocked_fails_no_check() -> None:
    async def call() -> None:
        # Somebody else blocks the event loop meanwhile, and then the reply takes some turns.
        asyncio.get_running_loop().call_soon(threading.Event().wait, 0.2)
        for _ in range(3):
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)

    async with running(HealthCheck("database", call, timeout=0.05)) as lifespan:
        assert await readiness(lifespan, 0.1) == "ok"


async def test_only_readiness_depends_on_checks() -> None:
    calls: list[None] = []

    def call() -> bool:
        calls.append(None)
        return False

    async with running(HealthCheck("database", call), supervise=False) as lifespan:
        # The start did not need it either.
        assert lifespan.state == "running"
        for make in (make_liveness_asgi, make_startup_asgi, make_ping_asgi):
            details = await report(make(lifespan, details=True))
            assert (details["status"], set(details["checks"])) == ("pass", {"NatsBroker"})
            assert await body(make(lifespan)) in {"ok", ""}
        assert not calls
        assert await readiness(lifespan) == "check_failed"
        # A probe of the broker alone finds its lifespan.
        assert await body(make_readiness_asgi(*lifespan.brokers)) == "check_failed"


async def test_the_details_list_the_checks() -> None:
    passing, failing, optional = (
        HealthCheck("database", lambda: True),
        HealthCheck("search", lambda: False),
        HealthCheck("mail", partial(raises, ValueError("no route to postgres://app:hunter2@db/shop"))),
    )
    async with running(passing, failing, optional, optional=[optional]) as lifespan:
        details = await report(make_readiness_asgi(lifespan, details=True))
    assert (details["status"], details["code"]) == ("fail", "check_failed")
    checks = details["checks"]["HealthCheck"]
    assert [(each["componentId"], each["status"], each["code"]) for each in checks] == [
        ("database", "pass", "ok"),
        ("search", "fail", "check_failed"),
        ("mail", "warn", "check_failed"),
    ]
    for each in checks:
        assert each["componentType"] == "check"
        assert each["observedUnit"] == "ms"
        assert 0 <= each["observedValue"] < 1000
        assert 0 <= each["age"] < 1
    assert "hunter2" not in str(details)


async def test_an_optional_check_fails_no_readiness() -> None:
    calls: list[None] = []

    def call() -> bool:
        calls.append(None)
        return False

    check = HealthCheck("mail", call)
    async with running(check, optional=[check]) as lifespan:
        assert await readiness(lifespan) == "ok"
        # Without details nobody would see its result.
        assert not calls
        details = await report(make_readiness_asgi(lifespan, details=True))
    assert (details["status"], details["code"]) == ("warn", "ok")
    assert len(calls) == 1


async def test_two_brokers_of_a_lifespan_list_its_checks_once() -> None:
    brokers = NatsBroker(), NatsBroker()
    lifespan = BrokerLifespan(*brokers, checks=[HealthCheck("database", lambda: None)])
    with in_memory():
        async with lifespan:
            details = await report(make_readiness_asgi(*brokers, details=True))
    assert len(details["checks"]["HealthCheck"]) == 1


@pytest.mark.parametrize("how", HANGING)
async def test_the_end_of_the_lifespan_cancels_what_can_be_cancelled(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = Blocked()
    before = asyncio.all_tasks()
    async with running(HealthCheck("database", getattr(blocked, how), timeout=LONG)) as lifespan:
        assert await readiness(lifespan, 0.05) == "check_failed"
        waiting = asyncio.create_task(body(make_readiness_asgi(lifespan, timeout=LONG)))
        await asyncio.sleep(0)
        started = monotonic()
    assert monotonic() - started < ENOUGH
    blocked.release()
    assert await waiting in {"draining", "not_started"}
    await eventually(lambda: asyncio.all_tasks() == before)
    # What the check uses may have been closed, which is no failure.
    assert "health check" not in caplog.text


@pytest.mark.parametrize("how", HANGING)
async def test_a_probe_that_waits_for_a_check_responds_when_the_drain_begins(how: str) -> None:
    blocked = Blocked()
    async with running(HealthCheck("database", getattr(blocked, how), timeout=LONG)) as lifespan:
        waiting = asyncio.create_task(readiness(lifespan, LONG))
        await eventually(lambda: blocked.calls == 1)
        lifespan.drain(lambda: None)
        assert await waiting == "draining"
        blocked.release()


async def test_a_lifespan_can_be_entered_again_while_a_call_hangs() -> None:
    blocked = Blocked()
    check = HealthCheck("database", blocked.in_thread, timeout=LONG)
    lifespan = BrokerLifespan(NatsBroker(), checks=[check])
    with in_memory():
        async with lifespan:
            assert await readiness(lifespan, 0.01) == "check_failed"
        async with lifespan:
            assert await readiness(lifespan, 0.01) == "check_failed"
            blocked.release()
            assert await readiness(lifespan, LONG) == "ok"
    assert blocked.calls == 2


async def test_a_call_sees_no_context_of_the_request_that_asks() -> None:
    seen: list[str] = []
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")

    async def call() -> None:
        seen.append(request.get())

    async with running(HealthCheck("database", call)) as lifespan:
        request.set("probe")
        assert await readiness(lifespan) == "ok"
    assert seen == ["none"]


async def test_a_probe_in_another_event_loop_uses_the_one_of_the_lifespan() -> None:
    loops: list[object] = []

    async def call() -> None:
        loops.append(asyncio.get_running_loop())

    async with running(HealthCheck("database", call)) as lifespan:
        probe = make_readiness_asgi(lifespan, timeout=10.0)
        assert await asyncio.to_thread(asyncio.run, body(probe)) == "ok"
        assert loops == [asyncio.get_running_loop()]


def test_a_probe_after_the_event_loop_was_closed_fails() -> None:
    check = HealthCheck("database", lambda: None)
    lifespan = BrokerLifespan(NatsBroker(), checks=[check])

    async def enter() -> None:
        with in_memory():
            await lifespan.enter()

    asyncio.run(enter())
    assert lifespan.state == "running"
    assert asyncio.run(body(make_readiness_asgi(lifespan, timeout=0.1))) != "ok"


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        (("", print), {}, "The name of a HealthCheck must be a text that is not empty, not ''"),
        ((print, "database"), {}, "The name of a HealthCheck must be a text"),
        (("database", None), {}, "HealthCheck 'database': call must be a function, not NoneType"),
        (("database", returns), {}, "call is called without arguments .*functools.partial"),
        (
            ("database", print),
            {"timeout": 0},
            "timeout must be a number of seconds above 0",
        ),
        (("database", print), {"ttl": -1}, "HealthCheck 'database': ttl must be a number of seconds from 0"),
    ],
)
def test_invalid_arguments_are_refused(arguments: Any, keywords: Any, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        HealthCheck(*arguments, **keywords)


async def _session() -> AsyncIterator[None]:
    yield  # pragma: no cover (never iterated)


class _Session:
    def __call__(self) -> Generator[None, None, None]:
        yield  # pragma: no cover (never iterated)


@pytest.mark.parametrize("call", [_session, _Session()])
def test_a_generator_function_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(SetupError, match="call must not be a generator function"):
        HealthCheck("database", call)


def test_a_function_without_a_signature_is_accepted() -> None:
    check = HealthCheck("database", dict)
    assert (repr(check), check.timeout, check.ttl) == ("HealthCheck('database')", 0.5, 0.0)
