"""Code that a type checker must reject, line by line: mypy checks this file, which is never run."""

from faststream.asgi.types import Scope
from faststream.nats import NatsBroker

from faststream_adapters import (
    AsgiFastStream,
    AsgiResponse,
    BrokerLifespan,
    FastStream,
    JSONResponse,
    get,
    make_metrics_asgi,
    make_ping_asgi,
    make_publish_asgi,
    make_status_asgi,
)
from faststream_adapters.testing import assert_asyncapi

broker = NatsBroker()


@get(methods=["GET"])  # type: ignore[call-overload, untyped-decorator]
async def unknown_argument(scope: Scope) -> AsgiResponse:
    return AsgiResponse("text")  # type: ignore[arg-type]


get("not a function")  # type: ignore[call-overload]
JSONResponse({}, status_code="200")  # type: ignore[arg-type]

lifespan = BrokerLifespan(broker)
if lifespan.state == "up":  # type: ignore[comparison-overlap]
    raise RuntimeError
lifespan.state = "running"  # type: ignore[misc]
BrokerLifespan(broker, startup="lazy")  # type: ignore[arg-type]
BrokerLifespan("nats://localhost")  # type: ignore[arg-type]
BrokerLifespan(broker, timeout=1)  # type: ignore[call-arg]

make_ping_asgi(broker, timeout="1")  # type: ignore[arg-type]
make_ping_asgi(broker, status=200)  # type: ignore[call-arg]
make_ping_asgi("nats://localhost")  # type: ignore[arg-type]
make_publish_asgi(broker, authorize=True)  # type: ignore[arg-type]
make_publish_asgi(broker, authorize=lambda request: request.user)  # type: ignore[attr-defined]
make_metrics_asgi(path="/metrics")  # type: ignore[call-arg]
make_status_asgi(broker, refresh="5")  # type: ignore[arg-type]

AsgiFastStream(broker, health_path="/health")  # type: ignore[call-arg]
AsgiFastStream(broker, ping_path=1)  # type: ignore[arg-type]
AsgiFastStream(broker, startup="lazy")  # type: ignore[arg-type]
AsgiFastStream(broker, asgi_routes=["/health"])  # type: ignore[list-item]
FastStream(broker).as_asgi(health_path="/health")  # type: ignore[call-arg]
AsgiFastStream(broker).mount("/health", "not an app")  # type: ignore[arg-type]

assert_asyncapi(broker)  # type: ignore[call-arg]
assert_asyncapi(3, "asyncapi.json")  # type: ignore[arg-type]
assert_asyncapi(broker, "asyncapi.json", specification="3.0.0")  # type: ignore[arg-type]
assert_asyncapi(broker, "asyncapi.json", update=True)  # type: ignore[call-arg]
