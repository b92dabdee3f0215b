"""What drivers share at a stop: wait for the handlers, and warn about messages that are given up."""

import asyncio
from typing import Any

from faststream_adapters._utils.loggers import Loggers

_POLL_INTERVAL = 0.01
"""Seconds between two polls: a subscriber has no event that its handlers have finished."""

_HANDOVER_STEPS = 5
"""Event-loop iterations that a message may take to reach the worker that will handle it."""


def waiting_for_worker(subscriber: Any) -> int:
    """Return how many received messages wait for one of a subscriber's workers."""
    if not hasattr(subscriber, "limiter"):
        return 0
    buffered: int = subscriber.receive_stream.statistics().current_buffer_used
    unserved: int = subscriber.limiter.statistics().tasks_waiting
    return buffered + unserved


async def wait_handled(subscriber: Any) -> None:
    """Wait until a subscriber, which must receive no more messages, has handled those it has received."""
    if hasattr(subscriber, "limiter"):
        while not await _workers_are_done(subscriber):  # noqa: ASYNC110 (see _POLL_INTERVAL)
            await asyncio.sleep(_POLL_INTERVAL)
    while not getattr(subscriber.lock, "empty", True):  # noqa: ASYNC110 (see _POLL_INTERVAL)
        await asyncio.sleep(_POLL_INTERVAL)


async def _workers_are_done(subscriber: Any) -> bool:
    """Wait for the busy workers of a subscriber with max_workers > 1; return whether no message is left."""
    held = 0
    try:
        # While all slots are held here, no worker handles or takes a message.
        for _ in range(subscriber.max_workers):
            await subscriber.limiter.acquire()
            held += 1
        for _ in range(_HANDOVER_STEPS):
            await asyncio.sleep(0)
        return not waiting_for_worker(subscriber)
    finally:
        for _ in range(held):
            subscriber.limiter.release()


def warn_unsent(broker_name: str, count: int, loggers: Loggers) -> None:
    """Log how many published messages a client gives up: a publisher may not wait for the confirmation."""
    if count:
        loggers["brokers"].warning(
            "%s: %d published messages were given up, because the server had not confirmed them.",
            broker_name,
            count,
            extra={"broker": broker_name, "count": count},
        )
