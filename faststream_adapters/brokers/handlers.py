"""What FastStream's subscribers have in hand, whatever the client."""

import asyncio
from typing import Any

_LOOK_EVERY = 0.01
"""Seconds between two looks: a subscriber tells nobody that its handlers have finished."""

_HANDS = 5
"""Steps of the event loop that a message may take to the worker that will handle it."""


def waiting(subscriber: Any) -> int:
    """Return how many messages that were delivered to a subscriber wait for one of its workers."""
    if not hasattr(subscriber, "limiter"):
        return 0
    buffered: int = subscriber.receive_stream.statistics().current_buffer_used
    unserved: int = subscriber.limiter.statistics().tasks_waiting
    return buffered + unserved


async def finished(subscriber: Any) -> None:
    """Wait until everything that was delivered to a subscriber is handled; nothing new may come in."""
    if hasattr(subscriber, "limiter"):
        while not await _have_nothing(subscriber):  # noqa: ASYNC110 (see above)
            await asyncio.sleep(_LOOK_EVERY)
    while not getattr(subscriber.lock, "empty", True):  # noqa: ASYNC110 (see above)
        await asyncio.sleep(_LOOK_EVERY)


async def _have_nothing(subscriber: Any) -> bool:
    """Wait for the workers of a subscriber with max_workers > 1; return whether nothing waits for them."""
    held = 0
    try:
        # Who holds all of their places knows that none of them works, nor takes a message up.
        for _ in range(subscriber.max_workers):
            await subscriber.limiter.acquire()
            held += 1
        for _ in range(_HANDS):
            await asyncio.sleep(0)
        return not waiting(subscriber)
    finally:
        for _ in range(held):
            subscriber.limiter.release()
