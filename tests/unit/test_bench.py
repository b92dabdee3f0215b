"""What the benchmarks make of their measurements."""

import asyncio
import itertools
import os
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec

import pytest
from faststream.asgi.types import Receive, Scope, Send

from bench.in_process import AT_ONCE, Calls, at_once, bare, request
from bench.measure import Contender, Goal, Row, Verdict, in_turns, one_by_one
from bench.report import page, table
from bench.slices import Slices, in_slices
from tests.servers import poll


def row(*goals: Goal, limit: float | None = None) -> Row:
    row = Row("a thing", "µs", goals, limit)
    values: dict[Contender, tuple[float, ...]] = {
        "bare": (1, 2, 30),
        "upstream": (8, 9, 10),
        "ours": (4, 4, 5),
    }
    for contender, turns in values.items():
        for value in turns:
            row.add(contender, value)
    return row


@pytest.mark.parametrize(
    ("goals", "limit", "verdict"),
    [
        ((), None, None),
        ((Goal("upstream", most=0.6),), None, "met"),
        ((Goal("upstream", most=0.4),), None, "missed"),
        ((Goal("upstream", least=0.4),), None, "met"),
        ((Goal("upstream", least=0.6),), None, "missed"),
        ((Goal("upstream", most=0.51),), None, "open"),
        ((Goal("upstream", least=0.51),), None, "open"),
        ((Goal("upstream", most=0.51), Goal("upstream", least=0.6)), None, "missed"),
        ((), 4, "met"),
        ((Goal("upstream", most=0.6),), 3.9, "missed"),
    ],
)
def test_a_goal_is_about_the_median_of_the_ratios(
    goals: tuple[Goal, ...], limit: float | None, verdict: Verdict | None
) -> None:
    assert row(*goals, limit=limit).verdict == verdict


def test_one_turn_tells_nothing() -> None:
    once = Row("a thing", "µs", (Goal("bare", most=10),))
    once.add("bare", 1.0)
    once.add("ours", 2.0)
    assert once.wanted(1, 1)
    assert once.verdict == "open"
    assert (
        table([once]).splitlines()[-1]
        == "| a thing | µs | 1 ± 0% |  | 2 ± 0% | 2 |  | at most 10 x bare ~ open |"
    )


def test_upstream_too_has_a_ratio() -> None:
    assert row().ratio("bare", of="upstream") == 4.5


def test_the_table_tells_all_of_a_row() -> None:
    of_ours = Row("another", "s", limit=2.0, note="alone")
    of_ours.add("ours", 3.0)
    lines = table([row(Goal("bare", most=2), Goal("upstream", least=1)), of_ours]).splitlines()
    goals = "at most 2 x bare; at least 1 x upstream ✗ missed"
    assert lines[2:] == [
        f"| a thing | µs | 2 ± 362% | 9 ± 6% | 4 ± 6% | 2 ± 51.4% | 0.5 ± 3.0% | {goals} |",
        "| another (alone) | s |  |  | 3 ± 0% |  |  | at most 2 s ✗ missed |",
    ]
    assert page({"A section": [row()]}, "Measured somewhere.").count("| a thing |") == 1


async def test_contenders_take_turns_and_the_first_turn_warms_up() -> None:
    calls: list[str] = []

    def contender(name: str) -> object:
        async def run() -> float:
            calls.append(name)
            return float(len(calls))

        return run

    runs = {"bare": contender("bare"), "ours": contender("ours")}
    turn = one_by_one(runs)  # type: ignore[arg-type]  # what the contenders are
    [measured] = await in_turns([(Row("a thing", "µs"), turn)], 4, 4)
    assert calls == ["bare", "ours"] * 5
    assert measured.values == {"bare": [3.0, 5.0, 7.0, 9.0], "ours": [4.0, 6.0, 8.0, 10.0]}


@pytest.mark.parametrize(
    ("goals", "values", "turns"),
    [
        ((Goal("bare", most=1),), [2.0], 16),
        ((Goal("bare", most=1.5),), [2.0, 3.0, 4.0], 30),
        ((), [2.0, 3.0, 4.0], 3),
    ],
)
async def test_turns_end_when_what_has_a_goal_is_known(
    goals: tuple[Goal, ...], values: list[float], turns: int
) -> None:
    ours = itertools.cycle(values)

    async def two() -> float:
        return 2.0

    async def next_one() -> float:
        return next(ours)

    runs = one_by_one({"bare": two, "ours": next_one})
    [measured] = await in_turns([(Row("a thing", "µs", goals), runs)], 3, 30)
    assert len(measured.values["ours"]) == turns


async def test_processes_run_in_turn() -> None:
    """Only the time in which a process itself ran counts as its own."""
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint(time.perf_counter())"
    slices = [Slices(await create_subprocess_exec(sys.executable, "-c", code, stdout=PIPE)) for _ in range(2)]
    await in_slices(slices)
    assert all(each.ended for each in slices)
    for each in slices:
        ended = float((await each.process.communicate())[0])
        # Some of it was before it was stopped for the first time.
        assert 0.2 < each.seconds(until=ended) <= each.seconds()
        assert each.seconds(since=ended + 60.0) == 0
        each.close()


def stopped(process: Process) -> bool:
    return os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT | os.WNOHANG) is not None


async def test_a_server_runs_only_while_its_load_does() -> None:
    server = await create_subprocess_exec(
        sys.executable, "-c", "import signal; signal.pause()", start_new_session=True
    )
    code = "import sys; sys.stdin.read()"
    load = await create_subprocess_exec(sys.executable, "-c", code, stdin=PIPE)
    slices = Slices(load, server.pid)
    assert await asyncio.to_thread(poll, lambda: stopped(load) and stopped(server), 5.0)
    running = asyncio.create_task(slices.run())
    assert await asyncio.to_thread(poll, lambda: not stopped(load) and not stopped(server), 5.0)
    await running
    assert await asyncio.to_thread(poll, lambda: stopped(load) and stopped(server), 5.0)
    assert load.stdin is not None
    load.stdin.close()
    await in_slices([slices])
    assert load.returncode == 0
    slices.close()
    assert await asyncio.to_thread(poll, lambda: not stopped(server), 5.0)
    server.kill()
    await server.wait()


async def test_a_process_that_is_not_needed_any_more_is_killed() -> None:
    slices = Slices(await create_subprocess_exec(sys.executable, "-c", "import signal; signal.pause()"))
    slices.close()
    assert await slices.process.wait() < 0


async def test_a_call_is_timed() -> None:
    for once in (request(bare, "/"), at_once(request(bare, "/"))):
        calls = Calls(once)
        assert 0 < await calls() < 1e6
        assert 0 < await calls() < 1e6


async def test_many_calls_are_made_at_once() -> None:
    begun: list[None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.append(None)
        await asyncio.sleep(0)
        assert len(begun) == AT_ONCE

    await at_once(request(app, "/"))()


def test_a_ratio_is_that_of_one_turn() -> None:
    """The machine was ten times as slow in the second one, and the contenders were alike in none."""
    goal = Goal("bare", most=2)
    noisy = Row("a thing", "µs", (goal,))
    for theirs, ours in ((1.0, 2.0), (10.0, 20.0), (1.2, 2.4)):
        noisy.add("bare", theirs)
        noisy.add("ours", ours)
    assert noisy.ratio("bare") == pytest.approx(2)
    assert noisy.error("bare") == pytest.approx(0)
    assert goal.known(noisy)
    noisy.add("bare", 1.0)
    noisy.add("ours", 4.0)
    noisy.add("bare", 1.0)
    noisy.add("ours", 1.0)
    assert noisy.error("bare") == 0
    noisy.add("bare", 1.0)
    noisy.add("ours", 3.0)
    assert not goal.known(noisy)
    # Far from the goal it need not be known that well.
    assert Goal("bare", most=100).known(noisy)
