"""What the benchmarks make of their measurements."""

import pytest

from bench.in_process import at_once, bare, one_after_the_other, request
from bench.measure import Contender, Goal, Row, in_turns
from bench.report import page, table


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
    ("goals", "limit", "met"),
    [
        ((), None, None),
        ((Goal("bare", most=2),), None, True),
        ((Goal("bare", most=1.9),), None, False),
        ((Goal("bare", least=2), Goal("upstream", least=0.5)), None, False),
        ((), 4, True),
        ((Goal("bare", most=2),), 3.9, False),
    ],
)
def test_a_goal_is_about_medians(goals: tuple[Goal, ...], limit: float | None, met: bool | None) -> None:
    assert row(*goals, limit=limit).met is met


def test_the_table_tells_all_of_a_row() -> None:
    of_ours = Row("another", "s", limit=2.0, note="alone")
    of_ours.add("ours", 3.0)
    lines = table([row(Goal("bare", most=2), Goal("upstream", least=1)), of_ours]).splitlines()
    goals = "at most 2 x bare; at least 1 x upstream ✗ missed"
    assert lines[2:] == [
        f"| a thing | µs | 2 ± 362% | 9 ± 6% | 4 ± 6% | 2 | 0.444 | {goals} |",
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
    [measured] = await in_turns([(Row("a thing", "µs"), runs)], 2)  # type: ignore[list-item]  # what the contenders are
    assert calls == ["bare", "ours"] * 3
    assert measured.values == {"bare": [3.0, 5.0], "ours": [4.0, 6.0]}


async def test_a_call_is_timed() -> None:
    once = request(bare, "/")
    assert 0 < await one_after_the_other(once) < 1e6
    assert 0 < await at_once(once) < 1e6
