"""The order service of compose.yaml. Run it here with `NATS_URL=nats://… uvicorn main:app`."""

import os

from faststream.nats import NatsBroker

from faststream_adapters import AsgiFastStream

broker = NatsBroker(os.environ["NATS_URL"])


@broker.subscriber("orders", queue="order-service")
async def process(item: str) -> None:
    print(item, flush=True)


app = AsgiFastStream(broker, liveness_path="/livez", readiness_path="/readyz")
