"""How lifespans run: against the real servers, or as a test wants it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from .selectors import Selection

if TYPE_CHECKING:
    from faststream_adapters._compat.faststream import Broker, Subscriber

    from .lifespan import BrokerLifespan


Service: TypeAlias = "Callable[[BrokerLifespan, str | None], AbstractAsyncContextManager[None]]"
"""Returns what runs beside a lifespan. Called with it and the setting that starts several workers, if any."""


@dataclass(eq=False, slots=True)
class RunMode:
    """How the lifespans run that start in a context.

    Args:
        in_memory: Whether their brokers run in FastStream's TestBrokers.
        drain_delay: Whether they wait for `drain_delay` when they stop.
        consume: What they consume, whatever their own `consume` says; None: as that says.
        select: Returns which subscribers of some brokers to start; None: as `consume` says.
        services: What runs beside them instead of their own services; None: these.
    """

    in_memory: bool = False
    drain_delay: bool = True
    consume: bool | Selection | None = None
    select: "Callable[[Iterable[Broker]], frozenset[Subscriber]] | None" = None
    services: Sequence[Service] | None = None
    lifespans: "list[BrokerLifespan]" = field(default_factory=list)
    """The lifespans that have started in this mode."""
    ended: bool = False
    """Whether the context has ended. Copies of it, such as those of tasks, still refer to the mode then."""


_current: ContextVar[RunMode | None] = ContextVar("faststream_adapters_run_mode", default=None)


def current_mode() -> RunMode:
    """Return the mode of this context."""
    mode = _current.get()
    return RunMode() if mode is None or mode.ended else mode


@contextmanager
def run_as(mode: RunMode) -> Iterator[RunMode]:
    """Run in a mode what starts in this context.

    Args:
        mode: The mode.
    """
    previous = _current.get()
    _current.set(mode)
    try:
        yield mode
    finally:
        mode.ended = True
        # Not `reset`: a fixture may end in another context than it has begun in.
        _current.set(previous)
