"""The watch that finds what blocks an event loop."""

import asyncio
import threading
import time

import pytest

from tests.harness import stalls
from tests.harness.stalls import assert_never_blocks


@pytest.mark.full
async def test_a_blocked_event_loop_is_reported_with_the_call_that_blocks_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # On a busy machine the threads wait for a processor for most of a short stall, and that is excused.
    monkeypatch.setattr(stalls, "_ATTEMPTS", 1)

    async def block() -> None:
        # The first tick of the watch.
        await asyncio.sleep(0.02)
        time.sleep(1.0)  # noqa: ASYNC251 (what the watch must find)
        await asyncio.sleep(0.02)

    with pytest.raises(AssertionError, match=r"blocked for \d\.\d+ s in\n(.|\n)*time\.sleep\(1\.0\)"):
        await assert_never_blocks(block)


@pytest.mark.full
async def test_an_event_loop_that_waits_is_not_blocked() -> None:
    async def wait() -> None:
        await asyncio.sleep(0.2)

    await assert_never_blocks(wait)


@pytest.mark.full
async def test_a_stall_that_does_not_recur_is_no_failure() -> None:
    runs = 0

    async def block_once() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            time.sleep(1.0)  # noqa: ASYNC251 (what the watch must find)
        await asyncio.sleep(0.02)

    await assert_never_blocks(block_once)
    assert runs == 2


def test_the_waits_of_a_thread_count_after_its_end() -> None:
    waits = stalls.ProcessorWaits()
    started, end = threading.Event(), threading.Event()

    def wait() -> None:
        for _ in range(100):
            time.sleep(0)
        started.set()
        end.wait()

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    started.wait()
    before = waits.total()
    end.set()
    for thread in threads:
        thread.join()
    assert waits.total() >= before
