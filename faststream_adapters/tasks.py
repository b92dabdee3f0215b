"""How a task is ended that may not want to."""

import asyncio
import logging
from typing import Any

logger = logging.getLogger("faststream.adapters")

END_TIMEOUT = 0.5
"""Seconds that a cancelled task gets before it is cancelled once more."""


async def end(task: "asyncio.Task[Any]", timeout: float = END_TIMEOUT) -> None:  # noqa: ASYNC109 (of each try)
    """Cancel a task until it has ended: some client code swallows the first cancellation.

    Args:
        task: The task.
        timeout: Seconds that it gets before it is cancelled once more.
    """
    for _ in range(20):
        task.cancel()
        await asyncio.wait((task,), timeout=timeout)
        if task.done():
            return
    logger.error("A task does not end when it is cancelled: %r", task)
