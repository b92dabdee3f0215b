"""Consume messages in a separate process, and measure them.

Arguments: the kind of application, which is also the subject; the NATS URL; the number of messages; the port
to serve HTTP on. Prints `ready` once it consumes, and at the end the CPU time in seconds from the first to
the last message, followed by the readings of `time.perf_counter` at these two messages.

A kind is an application and its features, joined by hyphens, such as `fastapi-statistics-tracing`. The
applications are `plain` (FastStream alone), `upstream` (`faststream.asgi`), `standalone`, `fastapi`, `peer`
(faststream-fastapi), `quart`, and `wrapped`: Quart in the middleware, which handles no message in the
context of the app. The features are `depends` and `yield` (two nested dependencies of FastAPI), `statistics`
(which metrics turn on) and `tracing`.
"""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Collection
from typing import Annotated, Any

import uvicorn
import uvloop
from faststream import FastStream
from faststream.nats import NatsBroker

HOST = "127.0.0.1"


class Counter:
    """Count messages in a handler, and measure the time from the first to the last.

    Args:
        messages: The number of messages to expect.
    """

    def __init__(self, messages: int) -> None:
        self.messages = messages
        self.left = messages
        self.done = asyncio.Event()
        self.cpu = self.first = self.last = 0.0

    async def handle(self, number: int) -> None:  # noqa: ARG002 (decoding it is part of what is measured)
        """Handle a message."""
        if self.left == self.messages:
            self.cpu, self.first = time.process_time(), time.perf_counter()
        self.left -= 1
        if not self.left:
            self.cpu, self.last = time.process_time() - self.cpu, time.perf_counter()
            self.done.set()


def _with_dependencies(counter: Counter) -> Any:
    """Return a handler with two nested dependencies of FastAPI."""
    from fastapi import Depends

    async def inner() -> int:
        return 1

    async def outer(inner: Annotated[int, Depends(inner)]) -> int:
        return inner

    async def handle(number: int, value: Annotated[int, Depends(outer)]) -> None:  # noqa: ARG001 (measured)
        await counter.handle(number)

    return handle


def _with_clean_up(counter: Counter) -> Any:
    """Return a handler with two nested dependencies of FastAPI that are cleaned up."""
    from fastapi import Depends

    async def inner() -> AsyncIterator[int]:
        yield 1

    async def outer(inner: Annotated[int, Depends(inner)]) -> AsyncIterator[int]:
        yield inner

    async def handle(number: int, value: Annotated[int, Depends(outer)]) -> None:  # noqa: ARG001 (measured)
        await counter.handle(number)

    return handle


_HANDLERS = {"depends": _with_dependencies, "yield": _with_clean_up}
APPLICATIONS = {"plain", "upstream", "standalone", "fastapi", "peer", "quart", "wrapped"}
FEATURES = {*_HANDLERS, "statistics", "tracing"}


def _tracing() -> Any:
    """Return the middleware that traces messages, with spans that are exported in batches and dropped."""
    from faststream.nats.opentelemetry import NatsTelemetryMiddleware
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Dropped(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:  # noqa: ARG002 (the signature of an exporter)
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Dropped()))
    return NatsTelemetryMiddleware(tracer_provider=provider)


def _app(name: str, features: Collection[str], broker: NatsBroker) -> Any:
    if name == "upstream":
        from faststream.asgi import AsgiFastStream as UpstreamApp

        return UpstreamApp(broker, logger=None, asgi_routes=[("/livez", _no_content)])
    if name == "peer":
        from fastapi import FastAPI
        from faststream_fastapi import FastStreamAPI

        return FastStreamAPI(broker, application=FastAPI())
    paths: dict[str, Any] = {"liveness_path": "/livez"}
    if "statistics" in features:
        paths["metrics_path"] = "/metrics"
    if name == "standalone":
        from faststream_adapters import AsgiFastStream

        return AsgiFastStream(broker, logger=None, **paths)
    if name == "fastapi":
        from fastapi import FastAPI

        from faststream_adapters.fastapi import FastStreamRouter

        app = FastAPI()
        app.include_router(FastStreamRouter(broker, **paths))
        return app
    from quart import Quart

    quart_app = Quart("bench")
    if name == "quart":
        from faststream_adapters.quart import QuartFastStream

        QuartFastStream(broker, app=quart_app, **paths)
        return quart_app
    from faststream_adapters import FastStreamMiddleware

    return FastStreamMiddleware(quart_app, broker, **paths)  # type: ignore[arg-type]  # its own ASGI types


async def _no_content(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 (the ASGI signature)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def main(kind: str, url: str, messages: int, port: int) -> None:
    """Run one kind of application until it has consumed all messages."""
    logging.disable(logging.CRITICAL)
    name, *features = kind.split("-")
    if not (name in APPLICATIONS and FEATURES.issuperset(features)):
        raise ValueError(f"Unknown kind: {kind}")
    broker = NatsBroker(url, logger=None, middlewares=[_tracing()] if "tracing" in features else [])
    counter = Counter(messages)
    handle = counter.handle
    for feature in _HANDLERS.keys() & features:
        handle = _HANDLERS[feature](counter)
    broker.subscriber(kind)(handle)

    if name == "plain":
        app = FastStream(broker, logger=None)
        task = asyncio.create_task(app.run())
        stop = app.exit
    else:
        config = uvicorn.Config(
            _app(name, features, broker),
            HOST,
            port,
            loop="uvloop",
            http="httptools",
            log_config=None,
            access_log=False,
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())

        def stop() -> None:
            server.should_exit = True

    while not (broker.running or task.done()):  # noqa: ASYNC110 (no event signals it)
        await asyncio.sleep(0.01)
    # After this round trip the server has registered the subscription.
    await broker.connection.flush()
    print("ready", flush=True)
    await asyncio.wait((asyncio.create_task(counter.done.wait()), task), return_when=asyncio.FIRST_COMPLETED)
    stop()
    await task
    print(counter.cpu, counter.first, counter.last)


if __name__ == "__main__":
    kind, url, messages, port = sys.argv[1:]
    # All kinds run on the same event loop.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(kind, url, int(messages), int(port)))
