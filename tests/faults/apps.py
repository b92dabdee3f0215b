"""The applications for the tests of faults in whole processes, as source text for their main module.

Environment variables configure them, so that one text serves all rows of the fault table:

    NATS_URL         the URL of the broker
    OTHER_URL        the URL of a second broker, which has no subscribers; no second broker by default
    OPTIONAL         "1" makes the second broker optional
    KIND             "core", "push" (queue and durable), "pull" (durable) or "batch" (pull, a list per call)
    BATCH            the number of messages that one pull requests
    ACK_WAIT         seconds after which JetStream redelivers a message that was not acknowledged
    MAX_WORKERS      max_workers
    WORK             seconds that the handler takes for a message
    HOOK, HOST       seconds that an on_startup hook of the FastStream app, and the host's own lifespan, take
    STARTUP, STARTUP_TIMEOUT, DRAIN_DELAY, SHUTDOWN_TIMEOUT, MAX_HANDLER_AGE      keywords of these names

A message is a number, which the handler processes and prints, or a fault: "raise", "hang" or "block".
`POST /jobs` publishes its JSON body. `/details/` is the readiness probe with details.
"""

from typing import NamedTuple

import pytest

from tests.faults import matrix

_BROKERS = """
import asyncio, os, time
from contextlib import asynccontextmanager

from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import ConsumerConfig

def seconds(name, default="0"):
    return float(os.environ.get(name, default))

broker = NatsBroker(os.environ["NATS_URL"])
brokers = [broker]
if "OTHER_URL" in os.environ:
    brokers.append(NatsBroker(os.environ["OTHER_URL"]))

kind = os.environ.get("KIND", "core")
workers = int(os.environ.get("MAX_WORKERS", "1"))
batch = int(os.environ.get("BATCH", "1"))
options = {"core": {}, "push": {"queue": "workers"}, "pull": {}, "batch": {}}[kind]
if kind != "core":
    config = ConsumerConfig(ack_wait=seconds("ACK_WAIT", "30"))
    options |= {"stream": JStream("jobs"), "durable": "workers", "config": config}
if kind in {"pull", "batch"}:
    options["pull_sub"] = PullSub(batch_size=batch, timeout=1.0, batch=kind == "batch")
if kind != "batch":
    options["max_workers"] = workers

async def work(job):
    print(f"handling {job}", flush=True)
    if job == "raise":
        raise ValueError("the handler failed")
    if job == "hang":
        await asyncio.Event().wait()
    if job == "block":
        time.sleep(2)
    await asyncio.sleep(seconds("WORK"))
    print(f"handled {job}", flush=True)

if kind == "batch":
    @broker.subscriber("jobs", **options)
    async def handle(jobs: list[int | str]) -> None:
        await asyncio.gather(*map(work, jobs))
else:
    @broker.subscriber("jobs", **options)
    async def handle(job: int | str) -> None:
        await work(job)

def on_state_change(old, new):
    print(f"state {new}", flush=True)

keywords = {
    "ping_path": "/health",
    "liveness_path": "/live",
    "readiness_path": "/ready",
    "startup_path": "/startup",
    "optional": brokers[1:] if os.environ.get("OPTIONAL") == "1" else (),
    "startup": os.environ.get("STARTUP", "strict"),
    "drain_delay": seconds("DRAIN_DELAY"),
    "shutdown_timeout": seconds("SHUTDOWN_TIMEOUT", "20"),
    "on_state_change": on_state_change,
}
for name in ("startup_timeout", "max_handler_age"):
    if name.upper() in os.environ:
        keywords[name] = seconds(name.upper())

async def hook():
    if seconds("HOOK"):
        print("the hook waits", flush=True)
        await asyncio.sleep(seconds("HOOK"))

@asynccontextmanager
async def host(app=None):
    if seconds("HOST"):
        print("the host waits", flush=True)
        await asyncio.sleep(seconds("HOST"))
    print("the host is up", flush=True)
    try:
        yield
    finally:
        print("the host is down", flush=True)
"""

_STANDALONE = (
    _BROKERS
    + """
from faststream_adapters import AsgiFastStream, JSONResponse, Request, make_readiness_asgi, post

@post
async def publish(request: Request):
    await broker.publish(await request.json(), "jobs")
    return JSONResponse({}, 202)

details = make_readiness_asgi(*brokers, details=True)
routes = [("/jobs", publish), ("/details", details)]
app = AsgiFastStream(*brokers, lifespan=host, on_startup=[hook], asgi_routes=routes, **keywords)
"""
)

_FASTAPI = (
    _BROKERS
    + """
from typing import Annotated
from fastapi import Body, FastAPI
from faststream import FastStream
from faststream_adapters import make_readiness_asgi
from faststream_adapters.fastapi import FastStreamRouter

app = FastAPI(lifespan=host)
app.include_router(FastStreamRouter(FastStream(*brokers, on_startup=[hook]), **keywords))
app.mount("/details", make_readiness_asgi(*brokers, details=True))

@app.post("/jobs", status_code=202)
async def publish(job: Annotated[int | str, Body()]):
    await broker.publish(job, "jobs")
"""
)


class App(NamedTuple):
    """An application and the place where it runs, as named in the fault table."""

    source: str
    where: str

    def __str__(self) -> str:
        """Return a short name for test ids."""
        return "standalone" if self.where == matrix.STANDALONE else "fastapi"


STANDALONE = App(_STANDALONE, matrix.STANDALONE)
FASTAPI = App(_FASTAPI, matrix.FASTAPI)

in_each_host = pytest.mark.parametrize("app", [STANDALONE, FASTAPI], ids=["standalone", "fastapi"])

standalone_first = pytest.mark.parametrize(
    "app",
    [
        pytest.param(STANDALONE, id="standalone"),
        pytest.param(FASTAPI, id="fastapi", marks=pytest.mark.full),
    ],
)
"""Runs with the standalone application always, with the FastAPI application in the full suite only."""
