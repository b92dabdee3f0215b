"""The cost of a scrape of the metrics of many subscribers."""

import time

from faststream.nats import NatsBroker
from prometheus_client import CollectorRegistry

from faststream_adapters import AsgiFastStream
from tests.harness.servers.nats import NatsServer

from .in_process import requester
from .measure import Row, unless_quick

SUBSCRIBERS = 1_000
ROUNDS = unless_quick(30)


async def _handle(message: str) -> None:
    pass


async def measure() -> list[Row]:
    """Measure the CPU time of a scrape, in its thread and in the event loop."""
    what = f"a scrape of {SUBSCRIBERS:,} subscribers"
    in_thread = Row(f"{what}, in a thread", "ms of CPU", limit=50)
    in_event_loop = Row(f"{what}, in the event loop", "ms of CPU", limit=5)
    with NatsServer() as server:
        broker = NatsBroker(server.url, logger=None)
        for number in range(SUBSCRIBERS):
            broker.subscriber(f"orders.{number}")(_handle)
        app = AsgiFastStream(
            broker, logger=None, metrics_path="/metrics", metrics_registry=CollectorRegistry()
        )
        scrape = requester(app, "/metrics", (b"accept-encoding", b"gzip"))
        async with app.start_lifespan_context():
            for _ in range(ROUNDS):
                process, thread = time.process_time(), time.thread_time()
                await scrape()
                loop = time.thread_time() - thread
                in_event_loop.add("adapters", loop * 1e3)
                in_thread.add("adapters", (time.process_time() - process - loop) * 1e3)
    return [in_thread, in_event_loop]
