"""Wait for conditions that can only be polled."""

import asyncio
from collections.abc import Callable


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until a condition holds, by checking it every 10 ms."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (the condition can only be polled)
            await asyncio.sleep(0.01)
