"""How the benchmarks measure, and how they evaluate and report the results."""

import asyncio
import itertools
import os
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from pathlib import Path

import pytest
from faststream.asgi.types import Receive, Scope, Send

from bench.__main__ import SECTIONS
from bench.in_process import CONCURRENT, TimedCalls, bare, concurrently, requester
from bench.measure import Contender, Goal, Row, Verdict, measure_in_rounds, sequential
from bench.report import JSON, PAGE, RELEASED, Section, load, page, replace, save, table
from bench.slices import SlicedProcess, run_in_slices
from tests.harness.servers import poll


def row(*goals: Goal, limit: float | None = None) -> Row:
    row = Row("an operation", "µs", goals, limit)
    values: dict[Contender, tuple[float, ...]] = {
        "bare": (1, 2, 30),
        "upstream": (8, 9, 10),
        "adapters": (4, 4, 5),
    }
    for contender, turns in values.items():
        for value in turns:
            row.add(contender, value)
    return row


@pytest.mark.parametrize(
    ("goals", "limit", "verdict"),
    [
        ((), None, None),
        ((Goal("upstream", at_most=0.6),), None, "met"),
        ((Goal("upstream", at_most=0.4),), None, "missed"),
        ((Goal("upstream", at_least=0.4),), None, "met"),
        ((Goal("upstream", at_least=0.6),), None, "missed"),
        ((Goal("upstream", at_most=0.51),), None, "inconclusive"),
        ((Goal("upstream", at_least=0.51),), None, "inconclusive"),
        ((Goal("upstream", at_most=0.51), Goal("upstream", at_least=0.6)), None, "missed"),
        ((), 4, "met"),
        ((Goal("upstream", at_most=0.6),), 3.9, "missed"),
    ],
)
def test_a_goal_applies_to_the_median_ratio(
    goals: tuple[Goal, ...], limit: float | None, verdict: Verdict | None
) -> None:
    assert row(*goals, limit=limit).verdict == verdict


def test_one_round_is_inconclusive() -> None:
    single = Row("an operation", "µs", (Goal("bare", at_most=10),))
    single.add("bare", 1.0)
    single.add("adapters", 2.0)
    assert single.needs_round(1, 1)
    assert single.verdict == "inconclusive"
    assert (
        table([single]).splitlines()[-1]
        == "| an operation | µs | 1 ± 0% |  | 2 ± 0% | 2 |  | at most 10 x bare ~ inconclusive |  |"
    )


def test_ratio_of_upstream_to_bare() -> None:
    assert row().ratio("bare", "upstream") == 4.5


def test_the_table_shows_values_ratios_goals_and_notes() -> None:
    alone = Row("another", "s", limit=2.0, note="no baseline")
    alone.add("adapters", 3.0)
    lines = table([row(Goal("bare", at_most=2), Goal("upstream", at_least=1)), alone]).splitlines()
    goals = "at most 2 x bare; at least 1 x upstream ✗ missed"
    assert lines[2:] == [
        f"| an operation | µs | 2 ± 362% | 9 ± 6% | 4 ± 6% | 2 ± 51.4% | 0.5 ± 3.0% | {goals} |  |",
        "| another (no baseline) | s |  |  | 3 ± 0% |  |  | at most 2 s ✗ missed |  |",
    ]


def test_the_table_shows_the_ratios_of_the_last_release() -> None:
    alone = Row("another", "s", limit=2.0)
    alone.add("adapters", 3.0)
    new = Row("new", "s")
    new.add("adapters", 1.0)
    cells = [line.split(" | ")[-1] for line in table([row(), alone, new], [row(), alone]).splitlines()[2:]]
    assert cells == ["2 |", "3 |", " |"]


def test_the_page_has_every_section_with_its_last_release() -> None:
    section = Section("A section", "Measured somewhere.", [row()])
    text = page({"first": section, "second": section}, {"second": section})
    assert text.count("## A section\n\nMeasured somewhere.\n\n| Operation |") == 2
    rows = [line for line in text.splitlines() if line.startswith("| an operation")]
    assert [line.split(" | ")[-1] for line in rows] == [" |", "2 |"]


def test_a_section_ends_with_what_its_results_do_not_show() -> None:
    section = Section("Startup", "Measured somewhere.", [row()])
    text = page({"start": section, "other": section}, {})
    [paragraph] = [each for each in text.split("\n\n") if each.startswith("**Import.**")]
    assert text.index("| an operation") < text.index(paragraph) < text.rindex("## Startup")


def test_results_are_kept_as_json(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert load(path) == {}
    measured = row(Goal("upstream", at_most=0.6), limit=3.9)
    measured.note = "a note"
    sections = {"first": Section("A section", "Measured somewhere.", [measured])}
    save(sections, path)
    assert load(path) == sections


def test_one_section_is_replaced(tmp_path: Path) -> None:
    released = {"first": Section("First", "Released.", [row()])}
    save(released, tmp_path / "benchmarks-released.json")
    second = Section("Second", "Measured before.", [row()])
    save({"second": second, "removed": second}, tmp_path / "benchmarks.json")
    first = Section("First", "Measured now.", [row()])
    replace("first", first, ["first", "second", "third"], tmp_path)
    sections = load(tmp_path / "benchmarks.json")
    assert list(sections.items()) == [("first", first), ("second", second)]
    assert (tmp_path / "benchmarks.md").read_text(encoding="utf-8") == page(sections, released)


def test_the_page_has_the_results_of_every_section() -> None:
    sections = load(JSON)
    assert list(sections) == list(SECTIONS)
    assert PAGE.read_text(encoding="utf-8") == page(sections, load(RELEASED))


async def test_contenders_alternate_and_the_first_round_is_discarded() -> None:
    calls: list[str] = []

    def contender(name: str) -> object:
        async def run() -> float:
            calls.append(name)
            return float(len(calls))

        return run

    runs = {"bare": contender("bare"), "adapters": contender("adapters")}
    measure_round = sequential(runs)  # type: ignore[arg-type]  # the names are contenders
    [measured] = await measure_in_rounds([(Row("an operation", "µs"), measure_round)], 4, 4)
    assert calls == ["bare", "adapters"] * 5
    assert measured.values == {"bare": [3.0, 5.0, 7.0, 9.0], "adapters": [4.0, 6.0, 8.0, 10.0]}


@pytest.mark.parametrize(
    ("goals", "values", "rounds"),
    [
        ((Goal("bare", at_most=1.1),), [2.0, 2.04], 8),
        ((Goal("bare", at_most=1.01),), [2.0, 2.04], 16),
        ((Goal("bare", at_most=1.5),), [2.0, 3.0, 4.0], 30),
        ((), [2.0, 3.0, 4.0], 3),
    ],
)
async def test_rounds_end_when_the_goals_are_settled(
    goals: tuple[Goal, ...], values: list[float], rounds: int
) -> None:
    cycle = itertools.cycle(values)

    async def two() -> float:
        return 2.0

    async def next_one() -> float:
        return next(cycle)

    measure_round = sequential({"bare": two, "adapters": next_one})
    [measured] = await measure_in_rounds([(Row("an operation", "µs", goals), measure_round)], 3, 30)
    assert len(measured.values["adapters"]) == rounds


async def test_processes_run_alternately() -> None:
    """Only the time in which a process itself ran is counted."""
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint(time.perf_counter())"
    processes = [await create_subprocess_exec(sys.executable, "-c", code, stdout=PIPE) for _ in range(2)]
    sliced = [SlicedProcess(process) for process in processes]
    await run_in_slices(sliced)
    assert all(each.ended for each in sliced)
    for each in sliced:
        ended = float((await each.process.communicate())[0])
        # It ran for a moment before it was stopped for the first time.
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
    sliced = SlicedProcess(load, server.pid)
    assert await asyncio.to_thread(poll, lambda: stopped(load) and stopped(server), 5.0)
    running = asyncio.create_task(sliced.run_slice())
    assert await asyncio.to_thread(poll, lambda: not stopped(load) and not stopped(server), 5.0)
    await running
    assert await asyncio.to_thread(poll, lambda: stopped(load) and stopped(server), 5.0)
    assert load.stdin is not None
    load.stdin.close()
    await run_in_slices([sliced])
    assert load.returncode == 0
    sliced.close()
    assert await asyncio.to_thread(poll, lambda: not stopped(server), 5.0)
    server.kill()
    await server.wait()


async def test_close_kills_the_process() -> None:
    process = await create_subprocess_exec(sys.executable, "-c", "import signal; signal.pause()")
    SlicedProcess(process).close()
    assert await process.wait() < 0


async def test_a_call_is_timed() -> None:
    for call in (requester(bare, "/"), concurrently(requester(bare, "/"))):
        calls = TimedCalls(call)
        assert 0 < await calls() < 1e6
        assert 0 < await calls() < 1e6


async def test_many_calls_are_made_concurrently() -> None:
    started: list[None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        started.append(None)
        await asyncio.sleep(0)
        assert len(started) == CONCURRENT

    await concurrently(requester(app, "/"))()


def test_ratios_are_computed_within_each_round() -> None:
    """A machine that is ten times slower in the second round does not change the ratio."""
    goal = Goal("bare", at_most=2)
    noisy = Row("an operation", "µs", (goal,))
    for base, value in ((1.0, 2.0), (10.0, 20.0), (1.2, 2.4)):
        noisy.add("bare", base)
        noisy.add("adapters", value)
    assert noisy.ratio("bare") == pytest.approx(2)
    assert noisy.standard_error("bare") == pytest.approx(0)
    assert goal.is_settled(noisy)
    noisy.add("bare", 1.0)
    noisy.add("adapters", 4.0)
    noisy.add("bare", 1.0)
    noisy.add("adapters", 1.0)
    assert noisy.standard_error("bare") == 0
    noisy.add("bare", 1.0)
    noisy.add("adapters", 3.0)
    assert not goal.is_settled(noisy)
    # Far from the goal, the same precision is enough.
    assert Goal("bare", at_most=100).is_settled(noisy)
