"""Blocking calls in threads of their own: one at a time, shared, and dropped when nothing waits for them."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from faststream_adapters._utils.threads import DaemonThreadExecutor, SingleFlight
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT = 20.0


class Calls:
    """Makes blocking calls, which last until the test releases them."""

    def __init__(self) -> None:
        self.flight = SingleFlight()
        self.begun: list[str] = []
        self.proceed = threading.Event()
        self.threads: set[threading.Thread] = set()

    def call(self, key: str) -> str:
        self.begun.append(key)
        self.threads.add(threading.current_thread())
        assert self.proceed.wait(TIMEOUT)
        return f"{key} {len(self.begun)}"

    def start(self, key: str) -> asyncio.Task[str]:
        return asyncio.create_task(self.flight.run(key, lambda: self.call(key)))

    async def has_begun(self, *keys: str) -> None:
        await eventually(lambda: self.begun == [*keys])


@pytest.fixture
def calls() -> Iterator[Calls]:
    calls = Calls()
    yield calls
    calls.proceed.set()


async def test_concurrent_calls_with_one_key_are_one_call(calls: Calls) -> None:
    tasks = [calls.start("a") for _ in range(3)]
    await calls.has_begun("a")
    tasks.append(calls.start("a"))
    await asyncio.sleep(0)
    calls.proceed.set()
    assert await asyncio.gather(*tasks) == ["a 1"] * 4


async def test_consecutive_calls_with_one_key_are_several_calls(calls: Calls) -> None:
    calls.proceed.set()
    assert [await calls.start("a"), await calls.start("a")] == ["a 1", "a 2"]


async def test_calls_with_different_keys_are_made_one_after_the_other(calls: Calls) -> None:
    tasks = [calls.start(key) for key in "abcb"]
    await calls.has_begun("a")
    # The second one would have begun at the same time in a pool of threads.
    assert calls.begun == ["a"]
    calls.proceed.set()
    assert await asyncio.gather(*tasks) == ["a 1", "b 2", "c 3", "b 2"]


async def test_a_waiting_call_is_dropped_when_all_its_callers_are_cancelled(calls: Calls) -> None:
    first = calls.start("a")
    await calls.has_begun("a")
    abandoned = [calls.start("b") for _ in range(3)]
    last = calls.start("c")
    await asyncio.sleep(0)
    for task in abandoned:
        task.cancel()
    await asyncio.wait(abandoned)
    calls.proceed.set()
    assert [await first, await last] == ["a 1", "c 2"]


async def test_a_call_goes_on_for_its_other_callers_when_one_is_cancelled(calls: Calls) -> None:
    first = calls.start("a")
    await calls.has_begun("a")
    cancelled, waiting = calls.start("b"), calls.start("b")
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait((cancelled,))
    calls.proceed.set()
    assert [await first, await waiting] == ["a 1", "b 2"]


async def test_a_running_call_can_be_joined_after_its_caller_was_cancelled(calls: Calls) -> None:
    first = calls.start("a")
    await calls.has_begun("a")
    first.cancel()
    await asyncio.wait((first,))
    second = calls.start("a")
    await asyncio.sleep(0)
    calls.proceed.set()
    assert await second == "a 1"


async def test_all_callers_get_the_error_of_the_call() -> None:
    flight = SingleFlight()
    error = ValueError("wrong")

    def fail() -> None:
        raise error

    tasks = [flight.run("a", fail), flight.run("a", fail)]
    assert await asyncio.gather(*tasks, return_exceptions=True) == [error, error]


async def test_the_thread_is_a_daemon_that_ends_after_the_last_call(calls: Calls) -> None:
    tasks = [calls.start("a"), calls.start("b")]
    calls.proceed.set()
    await asyncio.gather(*tasks)
    [thread] = calls.threads
    assert thread.daemon
    await eventually(lambda: not thread.is_alive())
    # Another thread makes the next call.
    assert await calls.start("c") == "c 3"
    assert len(calls.threads) == 2


def test_a_call_outlives_its_event_loop_and_can_be_joined_from_another(calls: Calls) -> None:
    async def abandon() -> None:
        calls.start("a")
        await calls.has_begun("a")

    async def join() -> str:
        task = calls.start("a")
        await asyncio.sleep(0)
        calls.proceed.set()
        return await task

    asyncio.run(abandon())
    assert asyncio.run(join()) == "a 1"


def test_an_executor_refuses_calls_after_it_was_shut_down() -> None:
    executor = DaemonThreadExecutor()
    result = executor.submit(int, "7")
    executor.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(int)
    assert result.result(TIMEOUT) == 7
