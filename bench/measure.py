"""Measure contenders side by side, in rounds, and compare them by the ratio of their values.

A round measures every contender once, in short succession or alternately, so that the noise of the machine
affects all of them alike.
"""

import math
import os
import statistics
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Contender = Literal["bare", "upstream", "adapters"]
"""A bare ASGI app (or the host's own route, or FastStream alone), `faststream.asgi`, and this package."""

PRECISION = 0.01
"""The relative standard error at which a ratio needs no more rounds."""

Verdict = Literal["met", "missed", "inconclusive"]
"""Inconclusive: so near to the goal that another run may decide differently."""

MARGIN = 2.5
"""Within this many standard errors of its goal, a ratio is inconclusive.

Rounds end when the estimated error happens to be small, so the true error tends to be larger.
"""

MIN_ROUNDS_WITH_GOAL = 8
"""The minimum for a ratio with a goal: with fewer rounds, its standard error is too uncertain."""

MIN_ROUNDS_NEAR_GOAL = 16
"""The minimum for a ratio that is near its goal: after 8 rounds the estimate may be half the true error.

In simulations of rounds that vary by 1 to 10 %, at most 1.2 % of the verdicts were wrong, and only for ratios
within 2 % of the goal.
"""


@dataclass(frozen=True)
class Goal:
    """A bound for the ratio of this package's value to another contender's.

    Args:
        baseline: The contender to compare with.
        at_most: The upper bound of the ratio.
        at_least: The lower bound of the ratio.
    """

    baseline: Contender
    at_most: float | None = None
    at_least: float | None = None

    def is_settled(self, row: "Row") -> bool:
        """Return whether the ratio is twice `MARGIN` away from the goal, or is known to `PRECISION`."""
        if self.verdict(row, 2 * MARGIN) != "inconclusive":
            return True
        enough = len(row.ratios(self.baseline)) >= MIN_ROUNDS_NEAR_GOAL
        return enough and row.standard_error(self.baseline) <= PRECISION

    def verdict(self, row: "Row", margin: float = MARGIN) -> Verdict:
        """Compare the row's ratio with the goal.

        Args:
            row: The measurements.
            margin: How many standard errors the ratio has to be away from the goal.
        """
        ratio, error = row.ratio(self.baseline), margin * row.standard_error(self.baseline)
        # Relative to each bound: above 1 it is violated.
        relative = [ratio / self.at_most] if self.at_most is not None else []
        relative += [self.at_least / ratio] if self.at_least is not None else []
        if any(abs(value - 1) < error for value in relative):
            return "inconclusive"
        return "met" if all(value <= 1 for value in relative) else "missed"

    def __str__(self) -> str:
        bounds = [f"at most {self.at_most:g}"] if self.at_most is not None else []
        bounds += [f"at least {self.at_least:g}"] if self.at_least is not None else []
        return f"{' and '.join(bounds)} x {self.baseline}"


@dataclass
class Row:
    """The measurements of one operation: a row of the table.

    Args:
        what: The operation.
        unit: The unit of the values.
        goals: The bounds for the ratios.
        limit: The upper bound for this package's value itself, in `unit`.
        values: The values of each contender, one per round.
        note: Further observations, shown beside the operation.
    """

    what: str
    unit: str
    goals: tuple[Goal, ...] = ()
    limit: float | None = None
    values: dict[Contender, list[float]] = field(default_factory=dict)
    note: str = ""

    def add(self, contender: Contender, value: float) -> None:
        """Add a contender's value of one round."""
        self.values.setdefault(contender, []).append(value)

    def median(self, contender: Contender) -> float:
        """Return the median over all rounds."""
        return statistics.median(self.values[contender])

    def spread(self, contender: Contender) -> float:
        """Return half the interquartile range, relative to the median."""
        return _interquartile_range(self.values[contender]) / 2 / (self.median(contender) or 1)

    def ratios(self, baseline: Contender, contender: Contender = "adapters") -> list[float]:
        """Return a contender's value as a multiple of the baseline's, for each round.

        Both values of a round were measured under the same noise.
        """
        pairs = zip(self.values[contender], self.values[baseline], strict=True)
        return [value / base for value, base in pairs]

    def ratio(self, baseline: Contender, contender: Contender = "adapters") -> float:
        """Return the median of the ratios."""
        return statistics.median(self.ratios(baseline, contender))

    def standard_error(self, baseline: Contender) -> float:
        """Return the relative standard error of this package's median ratio, infinite after one round."""
        ratios = self.ratios(baseline)
        if len(ratios) < 2:  # noqa: PLR2004 (one value has no spread)
            return math.inf
        # Derived from the interquartile range, which outliers do not affect. In a normal distribution it is
        # 1.349 standard deviations, and the standard error of the median is 1.253 times that of the mean.
        deviation = _interquartile_range(ratios) / 1.349
        return 1.253 * deviation / math.sqrt(len(ratios)) / statistics.median(ratios)

    def needs_round(self, number: int, minimum: int) -> bool:
        """Return whether to measure a round.

        Args:
            number: The number of the round; the first one is 0.
            minimum: The number of rounds to measure at least. Goals may need more.
        """
        if number < minimum or not self.goals:
            return number < minimum
        return number < MIN_ROUNDS_WITH_GOAL or not all(goal.is_settled(self) for goal in self.goals)

    @property
    def verdict(self) -> Verdict | None:
        """The worst verdict on the goals and the limit; None without any."""
        verdicts = [goal.verdict(self) for goal in self.goals]
        if self.limit is not None:
            verdicts.append("met" if self.median("adapters") <= self.limit else "missed")
        return next((verdict for verdict in _WORST_FIRST if verdict in verdicts), None)


_WORST_FIRST: tuple[Verdict, ...] = ("missed", "inconclusive", "met")


def _interquartile_range(values: list[float]) -> float:
    if len(values) < 2:  # noqa: PLR2004 (one value has no spread)
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return high - low


Round = Callable[[], Awaitable[Mapping[Contender, float]]]
"""Measures every contender once, and returns their values."""

Case = tuple[Row, Round]


def sequential(runs: Mapping[Contender, Callable[[], Awaitable[float]]]) -> Round:
    """Return a round that measures the contenders one after the other."""

    async def measure_round() -> dict[Contender, float]:
        return {contender: await run() for contender, run in runs.items()}

    return measure_round


async def measure_in_rounds(cases: Iterable[Case], minimum: int, maximum: int) -> list[Row]:
    """Measure all cases, round by round.

    Args:
        cases: The cases.
        minimum: The number of rounds to measure at least.
        maximum: The number of rounds after which a case ends even if its goals are not settled.
    """
    cases = list(cases)
    # Round -1 warms up, and is not recorded. A quick run has no warm-up.
    for number in range(unless_quick(-1, 0), maximum):
        for row, measure_round in cases:
            if row.needs_round(number, minimum):
                values = await measure_round()
                for contender, value in values.items() if number >= 0 else ():
                    row.add(contender, value)
    return [row for row, _ in cases]


def unless_quick(number: int, quick: int = 1) -> int:
    """Return `number`, or `quick` in a run that only shows that everything works (`QUICK=1`)."""
    return quick if os.environ.get("QUICK") else number
