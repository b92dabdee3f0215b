"""What is done over and over leaves nothing behind: no task, thread, descriptor or object."""

import asyncio
import contextlib
import gc
import logging
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
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
from faststream_adapters.lifespan import BrokerStartError
from tests.faults.matrix import Fault, row
from tests.servers import HOST, hold_port
from tests.servers.nats import NatsServer
from tests.support import eventually, eventually_status

pytestmark = pytest.mark.usefixtures("no_log")

FEW = 3
"""How many more tasks, threads and descriptors are not noticed: what runs all the time comes and goes."""

SOME = 10
"""How many more objects of one type are not noticed; what is left behind each time is many more."""


@pytest.fixture
def no_log() -> Iterator[None]:
    """Log nothing: pytest keeps every record."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


class Footprint(NamedTuple):
    """What this process holds."""

    tasks: int
    threads: int
    descriptors: int
    objects: Counter[str]

    @classmethod
    def now(cls) -> "Footprint":
        """Return it as it is when all garbage is gone."""
        gc.collect()
        return cls(
            len(asyncio.all_tasks()),
            threading.active_count(),
            len([*Path("/dev/fd").iterdir()]),
            Counter(
                f"{type(each).__module__}.{type(each).__qualname__}"
                for each in gc.get_objects()
                # Up to a hundred timers that were cancelled are kept by asyncio until they are due.
                if not (isinstance(each, asyncio.TimerHandle) and each.cancelled())
            ),
        )

    def above(self, before: "Footprint") -> dict[str, int]:
        """Return of what there is more than before, and how much."""
        more = {
            "tasks": self.tasks - before.tasks,
            "threads": self.threads - before.threads,
            "descriptors": self.descriptors - before.descriptors,
        }
        found = {name: count for name, count in more.items() if count > FEW}
        objects = self.objects - before.objects
        return found | {name: count for name, count in objects.items() if count > SOME}


async def repeat(times: int, what: Callable[[], Coroutine[Any, Any, None]], warm_up: int) -> None:
    """Do something often, and compare what is held after the first times and after the last."""
    for _ in range(warm_up):
        await what()
    # The first one leaves something behind itself.
    Footprint.now()
    before = Footprint.now()
    for _ in range(times):
        await what()
    more: dict[str, int] = {}

    def is_gone() -> bool:
        nonlocal more
        more = Footprint.now().above(before)
        return not more

    with contextlib.suppress(TimeoutError):
        await eventually(is_gone, 20.0)
    assert more == {}


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


@row(
    "A lifespan started and stopped 200 times",
    "tasks, threads, descriptors and objects stay as many",
)
@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.full)])
async def test_starts_and_stops(nats_js: NatsServer, fault: Fault, times: int) -> None:
    lifespan = BrokerLifespan(consumer(nats_js.url))

    async def start_and_stop() -> None:
        async with lifespan:
            ...

    await repeat(times, start_and_stop, 20)


@row(
    "A strict start that fails, 20 times",
    "tasks, threads, descriptors and objects stay as many",
)
@pytest.mark.parametrize("times", [5, pytest.param(20, marks=pytest.mark.full)])
async def test_starts_that_fail(fault: Fault, times: int) -> None:
    port, held = hold_port()
    with held or contextlib.nullcontext():
        lifespan = BrokerLifespan(consumer(f"nats://{HOST}:{port}"), startup_timeout=0.2)

        async def fail() -> None:
            with pytest.raises(BrokerStartError):
                await lifespan.__aenter__()

        await repeat(times, fail, 5)


SCOPE = {"type": "http", "method": "GET", "path": "/", "root_path": "", "headers": [], "query_string": b""}


async def probe(app: ASGIApp) -> int:
    """Return the status that an ASGI app answers with, at the least cost."""
    statuses: list[int] = []

    async def receive() -> Any:
        raise AssertionError

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(dict(SCOPE), receive, send)
    return statuses[0]


TOGETHER = 500


@row(
    "100,000 probes of a server that is up, 100,000 of one that is frozen, 100,000 of one that is down",
    "each is answered; tasks, threads, descriptors and objects stay as many",
    counts="right answers",
)
@pytest.mark.parametrize("times", [2_000, pytest.param(33_500, marks=pytest.mark.full)])
@pytest.mark.parametrize("state", ["up", "frozen", "down"])
async def test_probes(nats_js: NatsServer, fault: Fault, state: str, times: int) -> None:
    lifespan = BrokerLifespan(consumer(nats_js.url))
    # Those who ask a frozen server all wait for as long as this.
    timeout = 0.05 if state == "frozen" else 5.0
    ready = make_readiness_asgi(lifespan, timeout=timeout, ttl=0, details=True)
    ping = make_ping_asgi(lifespan, timeout=timeout, ttl=0)
    live = make_liveness_asgi(lifespan)
    expected = {ready: 200, ping: 204, live: 204} if state == "up" else {ready: 503, ping: 500, live: 204}
    answers: Counter[bool] = Counter()

    async def ask() -> None:
        for app, status in expected.items():
            found = await asyncio.gather(*(probe(app) for _ in range(TOGETHER)))
            answers.update(each == status for each in found)

    async with lifespan:
        if state == "frozen":
            nats_js.freeze()
        elif state == "down":
            nats_js.kill()
            await eventually_status(ping, 500)
        await repeat(times // TOGETHER, ask, 3)
        if state == "frozen":
            nats_js.thaw()
    assert set(answers) == {True}
    assert answers[True] >= len(expected) * times
    fault.counted(answers[True], of=answers[True])
