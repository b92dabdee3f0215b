"""Run a service with many subscribers in a separate process, measure it, and print the results as JSON.

Arguments: the kind of application, `plain` (`FastStream.start()`), `peer` (faststream-fastapi, which has one
broker) or `adapters` (this package with every endpoint and statistics); the transport, `core` or `jetstream`;
the URL of the NATS server; the number of subscribers of each broker; the number of brokers.

It measures in three steps: starts and stops, the idle application, and responses. Before each step it prints
a line and waits for one, so that of several processes only one at a time measures what takes CPU time.
"""

import asyncio
import gc
import json
import logging
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import psutil
import uvloop
from faststream import FastStream
from faststream.nats import JStream, NatsBroker
from pydantic import BaseModel

from .measure import unless_quick

IDLE_SECONDS = unless_quick(5, 1)
SETTLE_SECONDS = unless_quick(2)
"""Until the first checks after the start are over."""
STARTS = unless_quick(5)
TICK = 0.001


class Order(BaseModel):
    """What each subscriber receives."""

    number: int
    customer: str
    comment: str | None = None


def brokers(transport: str, url: str, subscribers: int, count: int) -> list[NatsBroker]:
    """Return brokers, each with a number of subscribers."""
    made = [NatsBroker(url, logger=None) for _ in range(count)]
    for index, broker in enumerate(made):
        stream = JStream(f"orders-{index}", subjects=[f"orders.{index}.*"])
        for number in range(subscribers):

            async def handle(order: Order) -> None:
                pass

            subject = f"orders.{index}.{number}"
            if transport == "jetstream":
                broker.subscriber(subject, stream=stream, queue=f"service-{number}")(handle)
            else:
                broker.subscriber(subject)(handle)
    return made


@asynccontextmanager
async def _plain(app: FastStream) -> AsyncIterator[None]:
    await app.start()
    try:
        yield
    finally:
        await app.stop()


def wait_for_turn() -> None:
    """Report that the last step is done, and wait for the turn of this process."""
    print(flush=True)
    sys.stdin.readline()


async def worst_stall(ended: asyncio.Event) -> float:
    """Return the longest time, in milliseconds, for which the event loop was blocked until an event."""
    worst, last = 0.0, time.perf_counter()
    while not ended.is_set():
        await asyncio.sleep(TICK)
        now = time.perf_counter()
        worst, last = max(worst, now - last - TICK), now
    return worst * 1e3


async def measure(kind: str, transport: str, url: str, subscribers: int, count: int) -> dict[str, float]:
    """Start the application, measure it, and stop it."""
    wait_for_turn()
    made = brokers(transport, url, subscribers, count)
    run: Callable[[], AbstractAsyncContextManager[Any]]
    if kind == "plain":
        run = partial(_plain, FastStream(*made, logger=None))
    elif kind == "peer":
        from asgi_lifespan import LifespanManager
        from fastapi import FastAPI
        from faststream_fastapi import FastStreamAPI

        peer = FastStreamAPI(made[0], application=FastAPI())
        run = partial(LifespanManager, peer, startup_timeout=None, shutdown_timeout=None)
    else:
        from prometheus_client import CollectorRegistry

        from faststream_adapters import AsgiFastStream, make_readiness_asgi

        app = AsgiFastStream(
            *made,
            logger=None,
            liveness_path="/livez",
            readiness_path="/readyz",
            asyncapi_path="/docs",
            metrics_path="/metrics",
            metrics_registry=CollectorRegistry(),
        )
        app.mount("/readyz-ttl", make_readiness_asgi(app, ttl=600.0))
        app.mount("/readyz-details", make_readiness_asgi(app, details=True))
        run = app.start_lifespan_context
    starts, stops = [], []
    for _ in range(STARTS):
        gc.collect()
        begin = time.perf_counter()
        async with run():
            starts.append((time.perf_counter() - begin) * 1e3)
            # Until the server has subscribed it to everything.
            await asyncio.gather(*(broker.connection.flush(timeout=10) for broker in made))
            begin = time.perf_counter()
        stops.append((time.perf_counter() - begin) * 1e3)
    results = {"start": statistics.median(starts), "stop": statistics.median(stops)}
    wait_for_turn()
    async with run():
        await asyncio.sleep(SETTLE_SECONDS)
        cpu, idle = time.process_time(), time.perf_counter()
        await asyncio.sleep(IDLE_SECONDS)
        results["idle"] = (time.process_time() - cpu) * 1e3 / (time.perf_counter() - idle)
        results["memory"] = psutil.Process().memory_info().rss / 2**20
        # In a thread, because the application is running.
        await asyncio.to_thread(wait_for_turn)
        if kind == "adapters":
            # Only now, because the module needs memory, too.
            from .in_process import TimedCalls, requester

            for name in ("readyz-ttl", "readyz-details"):
                results[name] = await TimedCalls(requester(app, f"/{name}"))()
            for name in ("metrics", "docs"):
                ended = asyncio.Event()
                stall = asyncio.create_task(worst_stall(ended))
                await asyncio.sleep(10 * TICK)
                begin = time.perf_counter()
                await requester(app, f"/{name}")()
                results[name] = (time.perf_counter() - begin) * 1e3
                ended.set()
                results[f"{name}-stall"] = await stall
    return results


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    arguments = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(measure(*arguments[:3], *map(int, arguments[3:])))  # type: ignore[arg-type]  # three strings
    print(json.dumps(found))
