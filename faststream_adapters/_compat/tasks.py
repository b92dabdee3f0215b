"""Tasks that a client starts without keeping a reference to them."""

import asyncio
from collections.abc import Iterator
from typing import Any


def tasks_in(method: str) -> Iterator[tuple[asyncio.Task[Any], Any]]:
    """Yield the tasks that run a method, each with the object that the method belongs to.

    Args:
        method: The qualified name of the method, as in `Class.method`.
    """
    for task in asyncio.all_tasks():
        coroutine: Any = task.get_coro()
        # The coroutines of aiormq have no name.
        if getattr(coroutine, "__qualname__", None) == method:
            yield task, coroutine.cr_frame.f_locals["self"]
