"""The argument of `on_health_change`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from faststream_adapters._brokers.codes import Code

Kind = Literal["broker", "subscriber", "check"]
"""The kinds of components that have a code."""


@dataclass(frozen=True, slots=True)
class HealthChange:
    """A change of the health of a broker, a subscriber or a check.

    Args:
        kind: `broker`, `subscriber` or `check`.
        name: The name in the details of the probes.
        old: The code that was reported before; `not_started` if this is the first change since the start.
        new: The code now.
        time: When the change was noticed, in UTC.
    """

    kind: Kind
    name: str
    old: Code
    new: Code
    time: datetime
