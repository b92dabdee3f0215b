"""One trace from an HTTP request through NATS to the subscribers: run `uvicorn examples.tracing:app`."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from faststream.nats import NatsBroker
from faststream.nats.opentelemetry import NatsTelemetryMiddleware
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from faststream_adapters.fastapi import FastStreamRouter

provider = TracerProvider(resource=Resource.create({"service.name": "order-service"}))
# In production, use an exporter of your own, usually OTLPSpanExporter.
provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))

broker = NatsBroker(
    os.environ.get("NATS_URL", "nats://127.0.0.1:4222"),
    middlewares=[NatsTelemetryMiddleware(tracer_provider=provider)],
)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    yield
    # The brokers have stopped by now, so this exports the spans of the last handlers too.
    await asyncio.to_thread(provider.shutdown)


app = FastAPI(title="Order service", version="1.0.0", lifespan=lifespan)
app.include_router(FastStreamRouter(broker, liveness_path="/livez", readiness_path="/readyz"))
app.add_middleware(
    OpenTelemetryMiddleware,
    tracer_provider=provider,
    # Regular expressions for the paths of the probes, whose spans are of no use.
    excluded_urls=r"/livez/?(\?|$),/readyz/?(\?|$)",
    # Otherwise each ASGI message has a span, too.
    exclude_spans=["receive", "send"],
)


@broker.subscriber("orders.new", queue="order-service")
@broker.publisher("orders.done")
async def process(item: str) -> str:
    return f"{item} ordered"


@broker.subscriber("orders.done")
async def print_result(result: str) -> None:
    print(result)


@app.post("/orders/{item}", status_code=202)
async def place_order(item: str) -> None:
    await broker.publish(item, "orders.new")
