"""Event loops other than asyncio's default, for `pytest --event-loop NAME`."""

from __future__ import annotations

import asyncio
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]


def eager() -> asyncio.AbstractEventLoop:  # pragma: no cover (make test-loops)
    """Return asyncio's loop with eager tasks: a new task runs at once, until it waits for the first time."""
    loop = asyncio.new_event_loop()
    loop.set_task_factory(vars(asyncio)["eager_task_factory"])
    return loop


def uvloop() -> asyncio.AbstractEventLoop:  # pragma: no cover (make test-loops)
    """Return a loop of uvloop."""
    loop: asyncio.AbstractEventLoop = import_module("uvloop").new_event_loop()
    return loop


EVENT_LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"eager": eager, "uvloop": uvloop}


class EventLoopPlugin:
    """A pytest plugin that runs the tests, and the uvicorn processes that they start, in another event loop.

    Args:
        name: The name of the event loop in `EVENT_LOOPS`.
    """

    def __init__(self, name: str) -> None:  # pragma: no cover (make test-loops)
        self.name = name
        os.environ["UVICORN_LOOP"] = f"{__name__}:{name}"
        # The processes import this module.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

    def pytest_asyncio_loop_factories(
        self,
    ) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:  # pragma: no cover (make test-loops)
        """Return the event loop in which pytest-asyncio runs tests and fixtures."""
        return {self.name: EVENT_LOOPS[self.name]}
