"""The applications of the matrix: the same service in each host that has an adapter, and others."""

from tests.harness.hosts import HOSTS

_SERVICE = """
import asyncio, itertools, os, time
from functools import cache
from faststream.nats import NatsBroker
from tests.harness.hosts import HOSTS, HostApp

broker = NatsBroker(os.environ["NATS_URL"])
numbers = itertools.count()


@broker.subscriber("orders.new", queue=os.environ.get("QUEUE", "orders"))
async def handle(order: str) -> None:
    await asyncio.sleep(float(os.environ.get("WORK", "0")))
    await broker.publish(order, "orders.done")


def report(old: str, new: str) -> None:
    # One call, so that the lines of several workers are not interleaved.
    os.write(1, f"state {new} {time.monotonic()}\\n".encode())


# Once in each process.
@cache
def report_request() -> None:
    report("", "requested")


async def place_order() -> str:
    report_request()
    order = f"order {os.getpid()}.{next(numbers)}"
    await broker.publish(order, "orders.new")
    return order


app = HOSTS["{host}"].build(
    broker,
    host_app=HostApp(hello=place_order),
    readiness_path="/ready",
    management_bind=os.environ.get("MANAGEMENT_BIND"),
    asyncapi_path="/asyncapi",
    startup_timeout=float(os.environ.get("STARTUP_TIMEOUT", "20")),
    drain_delay=float(os.environ.get("DRAIN_DELAY", "0")),
    on_state_change=report,
)
"""

_RAISING_HOOK = """
import os
from faststream import FastStream
from faststream.nats import NatsBroker
from tests.harness.hosts import HOSTS


def connect():
    raise ValueError("no database") from OSError("no route to postgres://user:hunter2@db/shop")


service = FastStream(NatsBroker(os.environ["NATS_URL"]), **{os.environ["HOOK"]: [connect]})
app = HOSTS["{host}"].build(service, readiness_path="/ready")
"""


def _in_each_host(source: str) -> dict[str, str]:
    return {name: source.replace("{host}", name) for name, host in HOSTS.items() if host.has_adapter}


APPS = _in_each_host(_SERVICE)
"""A service whose route `/hello` publishes an order, and responds with it."""

RAISING = _in_each_host(_RAISING_HOOK)
"""Applications with a hook, named in the environment, that raises an error with a password in its cause."""

STREAMING = """
import asyncio, os, time
from faststream.nats import NatsBroker
from faststream_adapters import AsgiFastStream

broker = NatsBroker(os.environ["NATS_URL"])


@broker.subscriber("orders.new", queue="orders")
async def handle(order: str) -> None:
    # The test replies when the order may go on.
    await broker.request(order, "gate", timeout=60)
    await broker.publish(order, "orders.done")


async def events(scope, receive, send) -> None:
    await receive()
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"data: open\\n\\n", "more_body": True})
    if scope["path"] == "/ending":
        await app.broker_lifespan.draining()
    else:
        # The test replies when the response may end.
        await broker.request("", "response", timeout=60)
    await broker.publish("the response", "orders.done")
    await send({"type": "http.response.body", "body": b"data: end\\n\\n"})


def report(old: str, new: str) -> None:
    os.write(1, f"state {new} {time.monotonic()}\\n".encode())


app = AsgiFastStream(
    broker,
    asgi_routes=[("/events", events), ("/ending", events)],
    readiness_path="/ready",
    drain_delay=float(os.environ.get("DRAIN_DELAY", "0")),
    on_state_change=report,
)
"""
"""An application with two event streams: `/events` ends when told to, `/ending` when the drain begins."""
