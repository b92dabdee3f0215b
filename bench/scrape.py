"""The cost of a scrape of the metrics, and of the status page, of many subscribers."""

import time
from typing import NamedTuple

from faststream.nats import NatsBroker
from prometheus_client import CollectorRegistry

from faststream_adapters import AsgiFastStream
from tests.harness.servers.nats import NatsServer

from .in_process import requester
from .measure import Row, unless_quick

ROUNDS = unless_quick(30)


class Case(NamedTuple):
    """A response that is made in a thread.

    Args:
        what: What it is.
        path: Its path.
        subscribers: How many subscribers it shows.
        in_thread: The upper bound in the thread, in milliseconds of CPU.
        in_event_loop: The upper bound in the event loop.
    """

    what: str
    path: str
    subscribers: int
    in_thread: float
    in_event_loop: float


CASES = (
    Case("a scrape of 1,000 subscribers", "/metrics", 1_000, 50, 5),
    Case("a status page with 400 subscribers", "/status", 400, 30, 5),
)


async def _handle(message: str) -> None:
    pass


async def measure() -> list[Row]:
    """Measure the CPU time of each response, in its thread and in the event loop."""
    return [row for case in CASES for row in await _measure(case)]


async def _measure(case: Case) -> list[Row]:
    in_thread = Row(f"{case.what}, in a thread", "ms of CPU", limit=case.in_thread)
    in_event_loop = Row(f"{case.what}, in the event loop", "ms of CPU", limit=case.in_event_loop)
    with NatsServer() as server:
        broker = NatsBroker(server.url, logger=None)
        for number in range(case.subscribers):
            broker.subscriber(f"orders.{number}")(_handle)
        app = AsgiFastStream(
            broker,
            logger=None,
            metrics_path="/metrics",
            metrics_registry=CollectorRegistry(),
            status_path="/status",
        )
        request = requester(app, case.path, (b"accept-encoding", b"gzip"))
        async with app.start_lifespan_context():
            for _ in range(ROUNDS):
                process, thread = time.process_time(), time.thread_time()
                await request()
                loop = time.thread_time() - thread
                in_event_loop.add("adapters", loop * 1e3)
                in_thread.add("adapters", (time.process_time() - process - loop) * 1e3)
    return [in_thread, in_event_loop]
