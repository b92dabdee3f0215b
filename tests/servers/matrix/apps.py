"""The applications of the matrix: the same service, on its own and in each framework."""

_START = """
import os, time
from faststream.nats import NatsBroker

broker = NatsBroker(os.environ["NATS_URL"])


@broker.subscriber("orders.new", queue=os.environ.get("QUEUE", "orders"))
async def handle(order: str) -> None:
    await broker.publish(order, "orders.done")


def tell(old: str, new: str) -> None:
    # One call, so that the lines of several workers do not mix.
    os.write(1, f"state {new} {time.monotonic()}\\n".encode())


keywords = {
    "readiness_path": "/ready",
    "asyncapi_path": "/docs",
    "startup_timeout": float(os.environ.get("STARTUP_TIMEOUT", "20")),
    "drain_delay": float(os.environ.get("DRAIN_DELAY", "0")),
    "on_state_change": tell,
}
"""

APPS = {
    "standalone": _START
    + """
from faststream_adapters import AsgiFastStream, AsgiResponse, Request, post


@post
async def place(request: Request) -> AsgiResponse:
    await broker.publish((await request.body()).decode(), "orders.new")
    return AsgiResponse(b"", 202)


app = AsgiFastStream(broker, asgi_routes=[("/orders", place)], **keywords)
""",
    "fastapi": _START
    + """
from fastapi import FastAPI, Request
from faststream_adapters.fastapi import FastStreamRouter

# FastAPI has a page of its own at /docs.
app = FastAPI(docs_url=None)
app.include_router(FastStreamRouter(broker, **keywords))


@app.post("/orders", status_code=202)
async def place(request: Request) -> None:
    await broker.publish((await request.body()).decode(), "orders.new")
""",
    "litestar": _START
    + """
from litestar import Litestar, Request, post
from faststream_adapters.litestar import FastStreamPlugin


@post("/orders", status_code=202)
async def place(request: Request) -> None:
    await broker.publish((await request.body()).decode(), "orders.new")


app = Litestar([place], plugins=[FastStreamPlugin(broker, **keywords)])
""",
    "quart": _START
    + """
from quart import Quart, request
from faststream_adapters.quart import QuartFastStream

app = Quart("main")
QuartFastStream(broker, app=app, **keywords)


@app.post("/orders")
async def place() -> tuple[str, int]:
    await broker.publish((await request.get_data()).decode(), "orders.new")
    return "", 202
""",
}
