"""Shared broker checks: one request in flight, and a timeout for each caller."""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from faststream.nats import NatsBroker

from faststream_adapters._brokers.codes import BrokerCode
from faststream_adapters._brokers.driver import Driver
from faststream_adapters._lifecycle.broker_check import SLOW, BrokerCheck, Result
from tests.harness.waiting import eventually


class Gated(Driver):
    """A driver whose check completes when `replied` is set."""

    def __init__(self) -> None:
        super().__init__(NatsBroker())
        self.requested = 0
        self.polled = 0
        self.request: asyncio.Task[object] | None = None
        self.replied = asyncio.Event()

    def local_status(self) -> BrokerCode | None:
        self.polled += 1
        return None

    async def check(self) -> BrokerCode:
        self.requested += 1
        self.request = asyncio.current_task()
        await self.replied.wait()
        return "ok"


class Ready(Driver):
    """A driver whose check succeeds at once."""

    def __init__(self) -> None:
        super().__init__(NatsBroker())

    async def check(self) -> BrokerCode:
        return "ok"


async def check(checks: BrokerCheck, seconds: float) -> Result:
    return await checks.check(seconds)


async def test_a_check_can_be_abandoned_before_the_first_one() -> None:
    await BrokerCheck(Ready()).abandon()


@asynccontextmanager
async def checking(driver: Driver) -> AsyncIterator[BrokerCheck]:
    checks = BrokerCheck(driver)
    yield checks
    await checks.abandon()


async def test_the_timeout_of_one_caller_does_not_affect_others() -> None:
    driver = Gated()
    async with checking(driver) as checks:
        waiting = checks.check(60.0)
        assert (await checks.check(0.02)).code == "timeout"
        assert checks.last is None
        driver.replied.set()
        assert (await waiting).code == "ok"
        assert driver.requested == 1


async def test_a_task_is_used_if_the_check_cannot_be_started_without_one() -> None:
    class Raising(Gated):
        def start_check(self) -> asyncio.Future[None] | None:
            raise AttributeError

    driver = Raising()
    driver.replied.set()
    async with checking(driver) as checks:
        assert (await checks.check(60.0)).code == "ok"
        assert driver.requested == 1


class Sending(Driver):
    """A driver that starts checks without a task. The test completes them."""

    def __init__(self) -> None:
        super().__init__(NatsBroker())
        self.sent: list[asyncio.Future[None]] = []

    def start_check(self) -> asyncio.Future[None]:
        self.sent.append(asyncio.get_running_loop().create_future())
        return self.sent[-1]


async def test_a_reply_that_arrives_while_the_client_is_polled_counts() -> None:
    class RepliesWhenPolled(Sending):
        def local_status(self) -> BrokerCode | None:
            if self.sent and not self.sent[0].done():
                # Its callbacks run in the next iteration of the event loop.
                self.sent[0].set_result(None)
            return None

    driver = RepliesWhenPolled()
    async with checking(driver) as checks:
        assert (await checks.check(60.0)).code == "ok"
        assert len(driver.sent) == 1


async def test_callers_time_out_if_a_completed_check_is_abandoned() -> None:
    driver = Sending()
    checks = BrokerCheck(driver)
    result = checks.check(60.0)
    driver.sent[0].set_result(None)
    await checks.abandon()
    assert (await result).code == "timeout"


async def test_a_request_that_is_cancelled_is_sent_again() -> None:
    driver = Sending()
    async with checking(driver) as checks:
        result = checks.check(60.0)
        driver.sent[0].set_exception(ConnectionResetError())
        assert (await result).code == "unreachable"
        result = checks.check(60.0)
        driver.sent[1].cancel()
        await eventually(lambda: len(driver.sent) == 3)
        driver.sent[2].set_result(None)
        assert (await result).code == "ok"


async def test_a_long_wait_without_a_reply_is_recorded_as_a_timeout() -> None:
    async with checking(Gated()) as checks:
        assert (await checks.check(SLOW)).code == "timeout"
        assert checks.last is not None
        assert checks.last.code == "timeout"


async def test_the_result_of_an_abandoned_check_is_ignored() -> None:
    class Stubborn(Gated):
        async def check(self) -> BrokerCode:
            try:
                return await super().check()
            except asyncio.CancelledError:
                return "ok"

    driver = Stubborn()
    checks = BrokerCheck(driver)
    waiting = checks.check(60.0)
    await eventually(lambda: driver.requested == 1)
    await checks.abandon()
    assert (await waiting).code == "timeout"
    assert checks.last is None
    assert checks.last_ok == 0


async def test_without_callers_there_is_no_new_request_and_no_timer() -> None:
    """At its end, an event loop cancels all tasks but no timers."""
    driver = Gated()
    async with checking(driver) as checks:
        assert (await checks.check(0.01)).code == "timeout"
        assert driver.request is not None
        assert not driver.request.done()
        polled = driver.polled
        driver.request.cancel()
        await asyncio.wait((driver.request,))
        await asyncio.sleep(0.05)  # five times the interval of the timer
        assert (driver.requested, driver.polled) == (1, polled)
        # The next caller starts a new request.
        driver.replied.set()
        assert (await checks.check(60.0)).code == "ok"
        assert driver.requested == 2


async def test_a_broker_can_be_checked_from_one_event_loop_after_another() -> None:
    checks = BrokerCheck(Ready())
    for _ in range(2):
        assert (await asyncio.to_thread(asyncio.run, check(checks, 5.0))).code == "ok"
    assert (await checks.check(5.0)).code == "ok"


async def test_a_check_succeeds_if_the_event_loop_of_the_client_ends_meanwhile() -> None:
    checks = BrokerCheck(Ready())
    running = threading.Event()
    home = asyncio.new_event_loop()

    def run() -> None:
        checks.attach(home)
        home.call_soon(running.set)
        home.run_forever()
        home.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert await asyncio.to_thread(running.wait, 10.0)
    # Tasks that are not eager: the request is sent after the other event loop has ended.
    asyncio.get_running_loop().set_task_factory(None)
    # A caller that is cancelled before the request is sent leaves nothing behind.
    checks.check(5.0).cancel()
    result = checks.check(5.0)
    home.call_soon_threadsafe(home.stop)
    thread.join()
    assert (await result).code == "ok"


async def test_a_result_from_the_previous_event_loop_of_the_client_is_ignored() -> None:
    driver = Gated()
    checks = BrokerCheck(driver)
    waiting = checks.check(0.2)
    await eventually(lambda: driver.requested == 1)
    other = asyncio.new_event_loop()
    checks.attach(other)
    other.close()
    driver.replied.set()
    assert (await waiting).code == "timeout"
    assert checks.last is None


async def test_callers_time_out_even_if_the_poll_of_the_client_raises() -> None:
    raised: list[object] = []

    class Raising(Gated):
        def local_status(self) -> BrokerCode | None:
            if self.requested and not raised:
                raised.append(None)
                raise RuntimeError
            return None

    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["exception"]))
    async with checking(Raising()) as checks:
        for _ in range(2):
            async with asyncio.timeout(5):
                assert (await checks.check(0.1)).code == "timeout"
    assert [type(error) for error in errors] == [RuntimeError]


async def test_at_most_50_callers_are_resolved_per_iteration() -> None:
    driver = Gated()
    resolved: list[int] = []
    async with checking(driver) as checks:
        waiting = [checks.check(60.0) for _ in range(120)]
        await eventually(lambda: driver.requested == 1)
        driver.replied.set()
        while not all(task.done() for task in waiting):
            await asyncio.sleep(0)
            resolved.append(sum(task.done() for task in waiting))
    steps = {later - earlier for earlier, later in itertools.pairwise([0, *resolved])} - {0}
    assert steps == {50, 20}
    assert {task.result().code for task in waiting} == {"ok"}


@pytest.mark.parametrize("blocked", [0.03, 0.1])
async def test_a_check_times_out_in_an_event_loop_that_is_always_late(blocked: float) -> None:
    async with checking(Gated()) as checks:
        iterations = 0
        result = checks.check(0.05)
        while not result.done():
            time.sleep(blocked)  # noqa: ASYNC251 (that is the fault)
            # Timers that are due run now, once.
            await asyncio.sleep(0)
            iterations += 1
        assert (await result).code == "timeout"
    # One iteration starts the request, one may be late, and one resolves the caller.
    assert iterations <= 6


async def test_no_caller_times_out_early() -> None:
    waited: list[float] = []

    async def time_out(checks: BrokerCheck) -> None:
        start = time.monotonic()
        assert (await checks.check(0.05)).code == "timeout"
        waited.append(time.monotonic() - start)

    async with checking(Gated()) as checks, asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(time_out(checks))
            await asyncio.sleep(0.001)
    assert min(waited) >= 0.05
