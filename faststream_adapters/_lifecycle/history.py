"""The last changes of the state of a lifespan, and of the health of its components."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from faststream_adapters._brokers.codes import Code

from .health_change import HealthChange, Kind
from .options import State

MAX_CHANGES = 50
"""How many changes are kept."""

MAX_NAMES = 20
"""How many names of components with the same change are kept."""

ChangeKind: TypeAlias = Literal["lifespan"] | Kind


@dataclass(frozen=True, slots=True)
class Change:
    """A change that one or more components of one kind made at the same time.

    Args:
        time: When it was noticed, in UTC.
        kind: The kind of the components.
        names: Their names, sorted, at most `MAX_NAMES`; empty for the lifespan.
        count: How many there are.
        old: The state or the code before.
        new: The state or the code now.
    """

    time: datetime
    kind: ChangeKind
    names: tuple[str, ...]
    count: int
    old: State | Code
    new: State | Code


class History:
    """The last changes of a lifespan, the latest first; in all its runs."""

    def __init__(self) -> None:
        self._changes: deque[Change] = deque(maxlen=MAX_CHANGES)

    def __iter__(self) -> Iterator[Change]:
        # A copy, because the reader may be in another event loop.
        return reversed([*self._changes])

    def add_state(self, old: State, new: State) -> None:
        """Add a change of the state."""
        self._changes.append(Change(datetime.now(UTC), "lifespan", (), 1, old, new))

    def add(self, changes: Iterable[HealthChange]) -> None:
        """Add changes of the health that were noticed at the same time.

        Those that are alike count as one: a start changes every subscriber, and there may be hundreds.
        """
        alike: dict[tuple[datetime, Kind, Code, Code], list[str]] = {}
        for each in changes:
            alike.setdefault((each.time, each.kind, each.old, each.new), []).append(each.name)
        for (time, kind, old, new), names in alike.items():
            self._changes.append(Change(time, kind, tuple(sorted(names)[:MAX_NAMES]), len(names), old, new))
