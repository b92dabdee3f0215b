"""Starts and stops that are cancelled at any turn of the event loop leave nothing behind.

A cancel scope of anyio cancels again at each turn until its block has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import uuid
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import anyio
import pytest
from faststream import AckPolicy, FastStream
from faststream.nats import JStream, PullSub
from faststream.redis import StreamSub

from faststream_adapters import BrokerLifespan, make_liveness_asgi
from faststream_adapters._hosting.management import management_of
from tests.harness import leftovers
from tests.harness.brokers import HARNESSES
from tests.harness.brokers.kafka import KafkaHarness
from tests.harness.brokers.nats import NatsHarness
from tests.harness.brokers.redis import RedisHarness
from tests.harness.brokers.shared import shared_server
from tests.harness.leftovers import Held
from tests.harness.servers.nats import NatsServer
from tests.harness.turns import Turns
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from faststream_adapters._compat.faststream import Broker

Startup = Literal["strict", "background"]
Stage = Literal["start", "stop", "drain"]
Manner = Literal["once", "twice", "always", "scope"]

pytestmark = [
    pytest.mark.skipif(
        not leftovers.THREADS.exists(), reason="Only /proc lists the threads and connections of a process."
    ),
    pytest.mark.usefixtures("no_log"),
]

END_TIMEOUT = 3.0
"""Seconds that tasks, threads and sockets may take to end."""

STAGE_TIMEOUT = 20.0
"""Seconds that a start or a stop may take on a busy machine."""


class JetStreamHarness(NatsHarness):
    """NATS with a push and a pull consumer of a stream."""

    def server(self) -> NatsServer:
        return NatsServer(jetstream=True)

    def subscribe(self, broker: Broker, channel: str, handler: Callable[[int], Awaitable[None]]) -> None:
        subscribed: Any = broker
        stream = JStream(channel)
        subscribed.subscriber(f"{channel}.push", stream=stream)(handler)
        subscribed.subscriber(channel, stream=stream, durable="pull", pull_sub=PullSub())(handler)


class RedisWithAllHarness(RedisHarness):
    """Redis with a channel, a list and the group of a stream."""

    def subscribe(self, broker: Broker, channel: str, handler: Callable[[int], Awaitable[None]]) -> None:
        subscribed: Any = broker
        subscribed.subscriber(channel)(handler)
        subscribed.subscriber(list=f"{channel}-list")(handler)
        subscribed.subscriber(stream=StreamSub(f"{channel}-stream", group="group", consumer="one"))(handler)


class KafkaWorkersHarness(KafkaHarness):
    """Kafka with one subscriber that has several consumers, which start concurrently."""

    def subscribe(self, broker: Broker, channel: str, handler: Callable[[int], Awaitable[None]]) -> None:
        subscribed: Any = broker
        # Without a group, which takes seconds to join.
        subscribed.subscriber(channel, max_workers=3, ack_policy=AckPolicy.ACK)(handler)


KINDS = {
    **HARNESSES,
    "jetstream": JetStreamHarness(),
    "kafka-workers": KafkaWorkersHarness(),
    "redis": RedisWithAllHarness(),
}


@pytest.fixture
def turns() -> Iterator[Turns]:
    """Return the turns of the event loop in `runner`."""
    with contextlib.closing(Turns()) as turns:
        yield turns


@pytest.fixture
def runner(turns: Turns) -> Iterator[asyncio.Runner]:
    """Return what runs a coroutine in an event loop whose turns are counted."""
    with asyncio.Runner(loop_factory=turns.new_loop) as runner:
        yield runner


class Service:
    """A lifespan of one or more brokers, entered and left again and again.

    Args:
        kinds: The names of the brokers' kinds.
        startup: How they start.
        in_app: Whether a FastStream app runs the broker, with a task group in its lifespan.
    """

    def __init__(self, kinds: str, startup: Startup, *, in_app: bool = False) -> None:
        self.up, self.leave = asyncio.Event(), asyncio.Event()
        self.scope: anyio.CancelScope
        self.app_tasks: list[asyncio.Task[Any] | None] = []
        self._harnesses = [KINDS[kind] for kind in kinds.split("+")]
        self._servers = [shared_server(harness) for harness in self._harnesses]
        self._channel, self._handled = f"c{uuid.uuid4().hex}", asyncio.Event()
        self._brokers: list[Any] = []
        for harness, server in zip(self._harnesses, self._servers, strict=True):
            self._brokers.append(harness.broker(server.url))
            harness.subscribe(self._brokers[-1], self._channel, self._handle)
        targets = [FastStream(*self._brokers, lifespan=self._app_lifespan)] if in_app else self._brokers
        self.lifespan = BrokerLifespan(*targets, startup=startup, on_state_change=self._on_change)

    async def _handle(self, number: int) -> None:
        assert number == 1
        self._handled.set()

    def _on_change(self, _: str, new: str) -> None:
        if new == "running":
            self.up.set()

    @asynccontextmanager
    async def _app_lifespan(self) -> AsyncIterator[None]:
        entered = asyncio.current_task()
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            try:
                yield
            finally:
                self.app_tasks += [entered, asyncio.current_task()]
                group.cancel_scope.cancel()

    async def run(self) -> bool:
        """Enter the lifespan until `leave` is set; return whether it ended without a cancellation."""
        with self.scope:
            async with self.lifespan:
                await self.leave.wait()
            return True
        return False

    def begin(self) -> asyncio.Task[bool]:
        """Run it in a task."""
        self.up.clear()
        self.leave.clear()
        self.scope = anyio.CancelScope()
        return asyncio.create_task(self.run())

    async def works(self) -> None:
        """Enter the lifespan, handle a message of each broker, and check that it closes all connections."""
        task = self.begin()
        await self.up.wait()
        for harness, broker in zip(self._harnesses, self._brokers, strict=True):
            self._handled.clear()
            async with asyncio.timeout(STAGE_TIMEOUT):
                # Repeatedly, because a Kafka consumer may have no position yet.
                while not self._handled.is_set():
                    await harness.publish(broker, 1, self._channel)
                    with suppress(TimeoutError):
                        await eventually(self._handled.is_set, 0.5)
        self.leave.set()
        assert await task
        await eventually(lambda: not any(leftovers.connections(server.port) for server in self._servers))


async def ended(task: asyncio.Task[bool]) -> bool:
    """Wait until the lifespan has ended; return whether it ended without a cancellation."""
    done, _ = await asyncio.wait((task,), timeout=STAGE_TIMEOUT)
    assert done
    return not task.cancelled() and task.result()


class Cancelled:
    """Cancels one start or stop after the other, each at a later turn of the event loop.

    Args:
        turns: The turns of the event loop.
        service: What is started and stopped.
        manner: How it is cancelled.
    """

    def __init__(self, turns: Turns, service: Service, manner: Manner) -> None:
        self._turns = turns
        self._service = service
        self._manner = manner
        self.left: dict[int, str] = {}
        """What was left behind, by the turn of the cancellation."""

    async def sweep(self, stage: Stage, step: int) -> int:
        """Cancel at every turn of a stage, or at each `step`-th, of which each manner takes others.

        Returns:
            The number of cancellations.
        """
        cancel_one = {"start": self._cancel_start, "stop": self._cancel_stop, "drain": self._cancel_drain}[
            stage
        ]
        for at in itertools.count(get_args(Manner).index(self._manner) % step, step):
            tasks, held = asyncio.all_tasks(), Held.now()
            complete = await cancel_one(at)
            self._turns.plan(None)
            if left := await self._left_since(tasks, held):  # pragma: no cover (only when the test fails)
                self.left[at] = left
            if complete:
                return at // step
        raise AssertionError  # pragma: no cover (the count is infinite)

    def _cancel(self, task: asyncio.Task[bool], at: int) -> None:
        call = self._service.scope.cancel if self._manner == "scope" else task.cancel
        self._turns.plan(call, at, {"twice": 2, "always": math.inf}.get(self._manner, 1))

    async def _cancel_start(self, at: int) -> bool:
        task = self._service.begin()
        self._cancel(task, at)
        up = asyncio.create_task(self._service.up.wait())
        await asyncio.wait((task, up), return_when=asyncio.FIRST_COMPLETED)
        # The start was faster: nothing is cancelled any more.
        if self._service.up.is_set() and not task.done() and self._turns.passed <= at:
            self._turns.plan(None)
            self._service.leave.set()
        up.cancel()
        return await ended(task)

    async def _cancel_stop(self, at: int) -> bool:
        task = self._service.begin()
        await self._service.up.wait()
        self._cancel(task, at)
        self._service.leave.set()
        return await ended(task)

    async def _cancel_drain(self, at: int) -> bool:
        task = self._service.begin()
        await self._service.up.wait()
        self._cancel(task, at)
        # As after a SIGTERM: the drain has begun when the server stops the lifespan.
        self._service.lifespan.drain(self._service.leave.set)
        return await ended(task)

    async def _left_since(self, tasks: set[asyncio.Task[Any]], before: Held) -> str:
        def held() -> Held:
            return Held.now().without(before).without(leftovers.pools())

        running = await leftovers.tasks_since(tasks)
        with suppress(TimeoutError):
            await eventually(lambda: not held(), END_TIMEOUT)
        state = self._service.lifespan.state
        return " ".join([*map(repr, running), str(held()), "" if state == "stopped" else state]).strip()


class Cell(NamedTuple):
    """A cell of the grid."""

    kinds: str
    startup: Startup
    stage: Stage
    manner: Manner
    step: int = 1


STAGES: tuple[tuple[Startup, Stage], ...] = (
    ("strict", "start"),
    ("background", "start"),
    ("strict", "stop"),
    ("strict", "drain"),
)
"""A stop after a start in the background is the same as after a strict one."""

STEPS = {"kafka": 5, "kafka-workers": 7, "confluent": 3, "redis": 5}
"""The steps of the kinds whose starts and stops take most turns."""

REPRESENTATIVE = [
    Cell("nats", "strict", "start", "always", 3),
    Cell("nats", "strict", "stop", "always", 3),
    Cell("nats", "strict", "drain", "always", 3),
    Cell("jetstream", "strict", "start", "once", 5),
    Cell("jetstream", "strict", "stop", "once", 5),
    Cell("kafka-workers", "strict", "start", "once", 3),
    Cell("redis+nats", "background", "start", "always", 11),
]

FULL = [
    *(
        Cell(kind, *stage, manner, STEPS.get(kind, 1))
        for kind, stage, manner in itertools.product(KINDS, STAGES, get_args(Manner))
        # A drain cancels nothing else than a stop: one kind of broker shows that it is ended too.
        if (stage[1] != "drain" or kind == "nats")
        # A consumer of confluent-kafka whose stop is cancelled stays in its group, and the test server gives
        # the next one no partitions for up to a minute.
        and (kind, stage[1]) != ("confluent", "stop")
    ),
    *(
        Cell(kinds, *stage, "always", 5)
        for kinds, stage in itertools.product(("redis+nats", "kafka+rabbit", "nats+mqtt"), STAGES[:3])
    ),
]


def cells() -> list[Any]:
    """Return the cells as parameters."""
    full = [pytest.param(cell, id="-".join(cell[:4]), marks=pytest.mark.full) for cell in FULL]
    return [*(pytest.param(cell, id="-".join(map(str, cell))) for cell in REPRESENTATIVE), *full]


@pytest.mark.parametrize("cell", cells())
def test_a_cancellation_leaves_nothing_connected(turns: Turns, runner: asyncio.Runner, cell: Cell) -> None:
    service = Service(cell.kinds, cell.startup)
    cancelled = Cancelled(turns, service, cell.manner)
    count = runner.run(cancelled.sweep(cell.stage, cell.step))
    assert cancelled.left == {}
    assert count > 3
    runner.run(service.works())


@pytest.mark.parametrize(
    "manner", ["scope", *(pytest.param(each, marks=pytest.mark.full) for each in ("once", "twice", "always"))]
)
@pytest.mark.parametrize("stage", get_args(Stage))
def test_the_lifespan_of_an_app_may_hold_a_task_group(
    turns: Turns, runner: asyncio.Runner, stage: Stage, manner: Manner
) -> None:
    """It is entered and left in the task that enters and leaves the brokers' lifespan."""
    service = Service("nats", "strict", in_app=True)
    cancelled = Cancelled(turns, service, manner)
    # One line: Python 3.11 does not trace this frame any more when a cancelled task group has ended.
    assert_left_where_entered(runner.run(cancelled.sweep(stage, 4)), runner, cancelled, service)


def assert_left_where_entered(
    count: int, runner: asyncio.Runner, cancelled: Cancelled, service: Service
) -> None:
    assert count > 1
    assert cancelled.left == {}
    pairs = list(zip(service.app_tasks[::2], service.app_tasks[1::2], strict=True))
    assert pairs == [(entered, entered) for entered, _ in pairs]
    assert None not in service.app_tasks
    runner.run(service.works())


@pytest.mark.parametrize(
    "cell",
    [
        Cell("nats", "strict", "start", "always", 3),
        *(
            pytest.param(Cell("nats", "strict", stage, manner), marks=pytest.mark.full)
            for stage, manner in itertools.product(get_args(Stage)[:2], get_args(Manner))
        ),
    ],
    ids=lambda cell: "-".join(map(str, cell[2:])),
)
def test_a_cancellation_leaves_no_management_server(
    turns: Turns, runner: asyncio.Runner, cell: Cell, free_address: str
) -> None:
    service = Service(cell.kinds, cell.startup)
    management_of(service.lifespan).add(free_address, [("/livez", make_liveness_asgi(service.lifespan))])
    cancelled = Cancelled(turns, service, cell.manner)
    assert runner.run(cancelled.sweep(cell.stage, cell.step)) > 3
    assert cancelled.left == {}
    runner.run(service.works())
