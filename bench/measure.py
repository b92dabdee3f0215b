"""How things are measured: side by side, turn by turn, and told as ratios."""

import math
import os
import statistics
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Contender = Literal["bare", "upstream", "ours"]
"""A bare ASGI app (or the host's own route, or FastStream alone), `faststream.asgi`, this package."""

PRECISION = 0.01
"""The standard error of a ratio, as a share of it, with which it is known well enough."""

Verdict = Literal["met", "missed", "open"]
"""Open is what lies so near to the goal that another run can say otherwise."""

NEAR = 2.5
"""So many standard errors are near; turns end where the error happens to be small, so that it is more."""

LEAST = 16
"""So many turns it takes at least to know a ratio that has a goal, and its error."""


@dataclass(frozen=True)
class Goal:
    """What the ratio of our value to another one's has to be.

    Args:
        than: Whose value ours is compared with.
        most: The ratio may be this at most.
        least: The ratio has to be this at least.
    """

    than: Contender
    most: float | None = None
    least: float | None = None

    def known(self, row: "Row") -> bool:
        """Return whether more turns would say the same."""
        return row.error(self.than) <= PRECISION or self.verdict(row, 2 * NEAR) != "open"

    def verdict(self, row: "Row", near: float = NEAR) -> Verdict:
        """Return whether the row's ratio is as it should be.

        Args:
            row: The row.
            near: How many times its standard error it has to be away from the goal.
        """
        ratio, error = row.ratio(self.than), near * row.error(self.than)
        limits = [ratio / self.most] if self.most is not None else []
        limits += [self.least / ratio] if self.least is not None else []
        if any(abs(limit - 1) < error for limit in limits):
            return "open"
        return "met" if all(limit <= 1 for limit in limits) else "missed"

    def __str__(self) -> str:
        limits = [f"at most {self.most:g}"] if self.most is not None else []
        limits += [f"at least {self.least:g}"] if self.least is not None else []
        return f"{' and '.join(limits)} x {self.than}"


@dataclass
class Row:
    """What was measured of one thing.

    Args:
        what: What was done.
        unit: The unit of the values.
        goals: What the ratios have to be.
        limit: What our own value may be at most, where no other is compared.
        values: The values of every contender, one for each turn.
        note: What else was seen.
    """

    what: str
    unit: str
    goals: tuple[Goal, ...] = ()
    limit: float | None = None
    values: dict[Contender, list[float]] = field(default_factory=dict)
    note: str = ""

    def add(self, contender: Contender, value: float) -> None:
        """Add the value of one turn."""
        self.values.setdefault(contender, []).append(value)

    def median(self, contender: Contender) -> float:
        """Return the median of all turns."""
        return statistics.median(self.values[contender])

    def spread(self, contender: Contender) -> float:
        """Return half of how far the middle half of the values lies apart, as a share of their median."""
        return _middle_half(self.values[contender]) / 2 / (self.median(contender) or 1)

    def ratios(self, than: Contender, of: Contender = "ours") -> list[float]:
        """Return one's value as a multiple of another one's, turn by turn: both had the same noise."""
        return [mine / theirs for mine, theirs in zip(self.values[of], self.values[than], strict=True)]

    def ratio(self, than: Contender, of: Contender = "ours") -> float:
        """Return the median of these ratios."""
        return statistics.median(self.ratios(than, of))

    def error(self, than: Contender) -> float:
        """Return the standard error of the median of our ratios, as a share of it; one turn tells nothing."""
        ratios = self.ratios(than)
        if len(ratios) < 2:  # noqa: PLR2004 (one value has no spread)
            return math.inf
        # Of values that are spread like a bell, which the middle half shows whatever the outliers are.
        deviation = _middle_half(ratios) / 1.349
        return 1.253 * deviation / math.sqrt(len(ratios)) / statistics.median(ratios)

    def wanted(self, turn: int, least: int) -> bool:
        """Return whether a turn is to be measured, where this many are the least: a goal needs more."""
        if turn < least or not self.goals:
            return turn < least
        return turn < LEAST or not all(goal.known(self) for goal in self.goals)

    @property
    def verdict(self) -> Verdict | None:
        """Whether all goals are met; None where there is none."""
        verdicts = [goal.verdict(self) for goal in self.goals]
        if self.limit is not None:
            verdicts.append("met" if self.median("ours") <= self.limit else "missed")
        return next((verdict for verdict in _WORST_FIRST if verdict in verdicts), None)


_WORST_FIRST: tuple[Verdict, ...] = ("missed", "open", "met")


def _middle_half(values: list[float]) -> float:
    """Return how far the middle half of the values lies apart."""
    if len(values) < 2:  # noqa: PLR2004 (one value has no spread)
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return high - low


Turn = Callable[[], Awaitable[Mapping[Contender, float]]]
"""Measures every contender once."""

Case = tuple[Row, Turn]


def one_by_one(runs: Mapping[Contender, Callable[[], Awaitable[float]]]) -> Turn:
    """Return what measures one contender after the other."""

    async def turn() -> dict[Contender, float]:
        return {contender: await run() for contender, run in runs.items()}

    return turn


async def in_turns(cases: Iterable[Case], least: int, most: int) -> list[Row]:
    """Measure every case again and again.

    Args:
        cases: The cases.
        least: So many turns each.
        most: No more turns, although a ratio is not known with precision yet.
    """
    cases = list(cases)
    for turn in range(many(-1, 0), most):
        for row, run in cases:
            if row.wanted(turn, least):
                values = await run()
                # The first turn only warms up.
                for contender, value in values.items() if turn >= 0 else ():
                    row.add(contender, value)
    return [row for row, _ in cases]


def many(number: int, few: int = 1) -> int:
    """Return how many there are to be: few in a run that is only to show that all works (`QUICK=1`)."""
    return few if os.environ.get("QUICK") else number
