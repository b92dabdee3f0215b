"""How things are measured: side by side, in turns, and told as ratios of medians."""

import gc
import statistics
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Contender = Literal["bare", "upstream", "ours"]
"""A bare ASGI app (or the host's own route, or FastStream alone), `faststream.asgi`, this package."""


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

    def met(self, row: "Row") -> bool:
        """Return whether the row's medians are as they should be."""
        ratio = row.ratio(self.than)
        return (self.most is None or ratio <= self.most) and (self.least is None or ratio >= self.least)

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

    def ratio(self, than: Contender) -> float:
        """Return our median as a multiple of another one's."""
        return self.median("ours") / self.median(than)

    def spread(self, contender: Contender) -> float:
        """Return how far the middle half of the values lies apart, as a share of their median."""
        values = self.values[contender]
        if len(values) < 2:  # noqa: PLR2004 (one value has no spread)
            return 0.0
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return (high - low) / self.median(contender)

    @property
    def met(self) -> bool | None:
        """Whether all goals are met; None where there is none."""
        if self.limit is None and not self.goals:
            return None
        within = self.limit is None or self.median("ours") <= self.limit
        return within and all(goal.met(self) for goal in self.goals)


Case = tuple[Row, Mapping[Contender, Callable[[], Awaitable[float]]]]
"""A row, and what each contender does in one turn; it returns the value of that turn."""


async def in_turns(cases: Iterable[Case], turns: int) -> list[Row]:
    """Measure every case again and again, each contender in turn, so that noise meets them all alike."""
    cases = list(cases)
    for turn in range(-1, turns):
        for row, contenders in cases:
            for contender, run in contenders.items():
                gc.collect()
                value = await run()
                # The first turn only warms up.
                if turn >= 0:
                    row.add(contender, value)
    return [row for row, _ in cases]
