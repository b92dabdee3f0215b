"""Repeated operations do not leak tasks, threads, descriptors or objects."""

import asyncio
import contextlib
import gc
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from contextvars import Context
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from faststream.asgi.types import ASGIApp
from faststream.nats import JStream, NatsBroker, PullSub

from faststream_adapters import (
    BrokerLifespan,
    make_liveness_asgi,
    make_ping_asgi,
    make_readiness_asgi,
)
from faststream_adapters._lifecycle.history import MAX_CHANGES
from faststream_adapters._utils.errors import BrokerStartError
from tests.faults.matrix import Fault, row
from tests.harness.clients import eventually_status
from tests.harness.servers import HOST, hold_port
from tests.harness.servers.nats import NatsServer
from tests.harness.waiting import eventually

pytestmark = pytest.mark.usefixtures("no_log")

TOLERANCE = 3
"""How many additional tasks, threads and descriptors are not a leak, because their numbers vary."""

OBJECTS_TOLERANCE = 10
"""How many additional objects of one type are not a leak. One left behind each time would be many more."""


class Footprint(NamedTuple):
    """The numbers of tasks, threads, descriptors and objects in this process."""

    tasks: int
    threads: int
    descriptors: int
    objects: Counter[str]

    @classmethod
    def now(cls) -> "Footprint":
        """Return the numbers after a garbage collection."""
        gc.collect()
        objects = gc.get_objects()
        # asyncio keeps up to a hundred cancelled timers, with their contexts, until they are due.
        timers = [each for each in objects if isinstance(each, asyncio.TimerHandle) and each.cancelled()]
        ignored = {id(each) for each in gc.get_referents(*timers) if isinstance(each, Context)}
        ignored |= set(map(id, timers))
        return cls(
            len(asyncio.all_tasks()),
            threading.active_count(),
            len([*Path("/dev/fd").iterdir()]),
            Counter(
                f"{type(each).__module__}.{type(each).__qualname__}"
                for each in objects
                if id(each) not in ignored
            ),
        )

    def above(self, before: "Footprint") -> dict[str, int]:
        """Return the numbers that have grown since an earlier footprint, and by how much."""
        more = {
            "tasks": self.tasks - before.tasks,
            "threads": self.threads - before.threads,
            "descriptors": self.descriptors - before.descriptors,
        }
        grown = {name: count for name, count in more.items() if count > TOLERANCE}
        objects = self.objects - before.objects
        return grown | {name: count for name, count in objects.items() if count > OBJECTS_TOLERANCE}


async def repeat(times: int, operation: Callable[[], Coroutine[Any, Any, None]], warm_up: int) -> None:
    """Repeat an operation, and check that the footprint does not grow after the warm-up."""
    for _ in range(warm_up):
        await operation()
    # The first call of now() itself leaves objects behind.
    Footprint.now()
    before = Footprint.now()
    for _ in range(times):
        await operation()
    grown: dict[str, int] = {}

    def has_not_grown() -> bool:
        nonlocal grown
        grown = Footprint.now().above(before)
        return not grown

    with contextlib.suppress(TimeoutError):
        await eventually(has_not_grown, 20.0)
    assert grown == {}


def consumer(url: str) -> NatsBroker:
    """Return a broker with a subscriber of each kind."""
    broker = NatsBroker(url)

    async def handle(message: str) -> None:
        raise AssertionError

    broker.subscriber("core")(handle)
    broker.subscriber("workers", max_workers=4)(handle)
    broker.subscriber("push", stream=JStream("push"), queue="workers")(handle)
    broker.subscriber("pull", stream=JStream("pull"), durable="worker", pull_sub=PullSub(timeout=0.5))(handle)
    return broker


@pytest.mark.full
@row(
    "A lifespan started and stopped 200 times",
    "the numbers of tasks, threads, descriptors and objects do not grow",
)
@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.full)])
async def test_repeated_startups_and_shutdowns_do_not_leak(
    nats_js: NatsServer, fault: Fault, times: int
) -> None:
    lifespan = BrokerLifespan(consumer(nats_js.url))

    async def start_and_stop() -> None:
        async with lifespan:
            ...

    await repeat(times, start_and_stop, 20)


@row(
    "A strict startup that fails, 20 times",
    "the numbers of tasks, threads, descriptors and objects do not grow",
)
@pytest.mark.full
async def test_repeated_failed_startups_do_not_leak(fault: Fault) -> None:
    port, held = hold_port()
    with held or contextlib.nullcontext():
        lifespan = BrokerLifespan(consumer(f"nats://{HOST}:{port}"), startup_timeout=0.2)

        async def fail() -> None:
            with pytest.raises(BrokerStartError):
                await lifespan.__aenter__()

        # Until the history, which is bounded, has as many changes as it keeps: two of each start.
        await repeat(20, fail, MAX_CHANGES // 2)


SCOPE = {"type": "http", "method": "GET", "path": "/", "root_path": "", "headers": [], "query_string": b""}


async def probe(app: ASGIApp) -> int:
    """Return the status of the response of an ASGI app, without an HTTP client."""
    statuses: list[int] = []

    async def receive() -> Any:
        raise AssertionError

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(dict(SCOPE), receive, send)
    return statuses[0]


CONCURRENT = 500


@pytest.mark.full
@row(
    "100,000 probes of a server that is up, 100,000 of one that is frozen, 100,000 of one that is down",
    "each one gets a response; the numbers of tasks, threads, descriptors and objects do not grow",
    counts="correct responses",
)
@pytest.mark.parametrize(
    "times", [500, pytest.param(33_500, marks=[pytest.mark.full, pytest.mark.timeout(300)])]
)
@pytest.mark.parametrize(
    "state", ["up", *(pytest.param(state, marks=pytest.mark.full) for state in ("frozen", "down"))]
)
async def test_repeated_probes_do_not_leak(nats_js: NatsServer, fault: Fault, state: str, times: int) -> None:
    lifespan = BrokerLifespan(consumer(nats_js.url))
    # Each probe of a frozen server waits for the whole timeout.
    timeout = 0.05 if state == "frozen" else 5.0
    ready = make_readiness_asgi(lifespan, timeout=timeout, ttl=0, details=True)
    ping = make_ping_asgi(lifespan, timeout=timeout, ttl=0)
    live = make_liveness_asgi(lifespan)
    expected = {ready: 200, ping: 204, live: 200} if state == "up" else {ready: 503, ping: 500, live: 200}
    correct: Counter[bool] = Counter()

    async def probe_all() -> None:
        for app, status in expected.items():
            statuses = await asyncio.gather(*(probe(app) for _ in range(CONCURRENT)))
            correct.update(each == status for each in statuses)

    async with lifespan:
        if state == "frozen":
            nats_js.freeze()
        elif state == "down":
            nats_js.kill()
            await eventually_status(ping, 500)
        await repeat(times // CONCURRENT, probe_all, 3)
        if state == "frozen":
            nats_js.thaw()
    assert set(correct) == {True}
    assert correct[True] >= len(expected) * times
    fault.counted(correct[True], of=correct[True])
