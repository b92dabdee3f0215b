"""OpenTelemetry: one trace from an HTTP request through the broker to the subscribers."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from faststream import Context
from faststream.nats import NatsBroker
from faststream.nats.opentelemetry import NatsTelemetryMiddleware
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind

from faststream_adapters import (
    AsgiFastStream,
    AsgiResponse,
    FastStreamMiddleware,
    HttpHandler,
    get,
)
from tests.harness.brokers import HARNESSES
from tests.harness.brokers.shared import shared_server
from tests.harness.hosts import HOSTS, HostApp, serving
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from faststream.asgi.types import ASGIApp

    from tests.harness.brokers import BrokerHarness
    from tests.harness.hosts import Host
    from tests.harness.servers.nats import NatsServer

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PROBES: dict[str, Any] = {
    f"{probe}_path": f"/{probe}" for probe in ("ping", "liveness", "readiness", "startup")
}


def context_of(span: ReadableSpan) -> SpanContext:
    """Return the ids of a span."""
    context = span.get_span_context()
    assert context is not None
    return context


class Traces:
    """Collects spans in memory."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def instrument(self, app: ASGIApp) -> ASGIApp:
        """Wrap an application in OpenTelemetry's ASGI middleware."""
        traced: ASGIApp = OpenTelemetryMiddleware(
            app,
            tracer_provider=self.provider,
            excluded_urls=",".join(f"{path}$" for path in PROBES.values()),
            exclude_spans=["receive", "send"],
        )
        return traced

    def clear(self) -> None:
        """Discard the collected spans."""
        self._exporter.clear()

    async def spans(self, *suffixes: str) -> dict[str, ReadableSpan]:
        """Wait for spans whose names have these suffixes, and return all spans by their unique name."""

        def by_name() -> dict[str, ReadableSpan]:
            return {span.name: span for span in self._exporter.get_finished_spans()}

        await eventually(lambda: all(any(name.endswith(end) for name in by_name()) for end in suffixes), 5.0)
        assert len(by_name()) == len(self._exporter.get_finished_spans())
        return by_name()

    async def parents(self, last: str) -> dict[str, str]:
        """Return the name of each span's parent, or "" for the root, and check that all are in one trace."""
        spans = await self.spans(last, "GET /hello")
        assert len({context_of(span).trace_id for span in spans.values()}) == 1
        by_id = {context_of(span).span_id: name for name, span in spans.items()}
        return {name: by_id[span.parent.span_id] if span.parent else "" for name, span in spans.items()}


class Service:
    """Two subscribers, the first of which publishes to the second."""

    def __init__(self, url: str) -> None:
        self.traces = Traces()
        telemetry = NatsTelemetryMiddleware(tracer_provider=self.traces.provider)
        self.broker = NatsBroker(url, middlewares=[telemetry])
        self.subject = f"orders.{uuid.uuid4().hex}"
        self.done = f"{self.subject}.done"

        @self.broker.subscriber(self.subject)
        @self.broker.publisher(self.done)
        async def process(item: str) -> str:
            return f"{item} ordered"

        @self.broker.subscriber(self.done)
        async def receive(result: str) -> None:
            pass

    async def place(self) -> str:
        await self.broker.publish("tea", self.subject)
        return "placed"

    @property
    def host_app(self) -> HostApp:
        """The routes of the host application: one that publishes."""
        return HostApp(hello=self.place)

    @property
    def last(self) -> str:
        """The name of the span that ends last."""
        return f"{self.done} process"

    async def check(self) -> None:
        """Check that all spans are in one trace with the expected parents."""
        created = f"{self.subject} create"
        assert await self.traces.parents(self.last) == {
            "GET /hello": "",
            created: "GET /hello",
            f"{self.subject} publish": created,
            f"{self.subject} process": created,
            f"{self.done} publish": f"{self.subject} process",
            # FastStream gives a reply the parent of the message that it replies to.
            self.last: created,
        }


@pytest.fixture
def service(shared_nats: NatsServer) -> Service:
    """Return a service on the shared NATS server."""
    return Service(shared_nats.url)


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
async def test_a_request_and_its_messages_are_one_trace(host: Host, service: Service) -> None:
    app = host.build(service.broker, host_app=service.host_app, **PROBES)
    async with serving(service.traces.instrument(app)) as served:
        for path in PROBES.values():
            assert await served.status(path) == (204 if path == "/ping" else 200)
        assert await served.text("/hello") == "placed"
        await service.check()
    spans = await service.traces.spans(service.last)
    assert spans["GET /hello"].kind is SpanKind.SERVER
    assert spans[f"{service.subject} publish"].kind is SpanKind.PRODUCER
    assert spans[f"{service.subject} process"].kind is SpanKind.CONSUMER


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
async def test_a_request_and_its_messages_are_one_trace_inside_the_middleware(
    host: Host, service: Service
) -> None:
    app = FastStreamMiddleware(
        service.traces.instrument(host.plain(service.host_app)), service.broker, **PROBES
    )
    async with serving(app) as served:
        for path in PROBES.values():
            assert await served.status(path) == (204 if path == "/ping" else 200)
        assert await served.text("/hello") == "placed"
        await service.check()


async def test_the_trace_of_the_caller_continues(service: Service) -> None:
    app = service.traces.instrument(HOSTS["fastapi"].build(service.broker, host_app=service.host_app))
    async with serving(app) as served:
        assert await served.status("/hello", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"}) == 200
        spans = await service.traces.spans(service.last)
    assert {f"{context_of(span).trace_id:032x}" for span in spans.values()} == {TRACE}
    assert (parent := spans["GET /hello"].parent) is not None
    assert f"{parent.span_id:016x}" == PARENT


@get
def _in_a_thread(tracer: Any = Context()) -> AsgiResponse:
    with tracer.start_as_current_span("handler"):
        return AsgiResponse(trace.format_trace_id(_trace_id()).encode())


@get
async def _without_injection() -> AsgiResponse:
    return AsgiResponse(trace.format_trace_id(_trace_id()).encode())


def _trace_id() -> int:
    return trace.get_current_span().get_span_context().trace_id


@pytest.mark.parametrize(
    "handler", [_in_a_thread, _without_injection], ids=["in a thread", "called directly"]
)
async def test_an_http_handler_is_in_the_trace(handler: HttpHandler, service: Service) -> None:
    app = AsgiFastStream(service.broker, asgi_routes=[("/handler", handler)])
    app.context.set_global("tracer", service.traces.provider.get_tracer("application"))
    async with serving(service.traces.instrument(app)) as served:
        response = await served.http.get("/handler", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert response.text == TRACE


async def test_a_message_without_a_trace_starts_one(service: Service) -> None:
    """It does not join the trace of another operation that is active at the same time."""
    app = service.traces.instrument(
        HOSTS["fastapi"].build(service.broker, host_app=service.host_app, readiness_path="/not-excluded")
    )
    async with serving(app) as served:
        assert await served.status("/not-excluded") == 200
        with service.traces.provider.get_tracer("application").start_as_current_span("other work"):
            await service.broker.connection.publish(service.subject, b"milk")
        spans = await service.traces.spans(service.last)
    traces = {name: context_of(span).trace_id for name, span in spans.items()}
    message_spans = {
        name for name, trace_id in traces.items() if trace_id == traces[f"{service.subject} create"]
    }
    assert spans[f"{service.subject} create"].parent is None
    assert set(traces) - message_spans == {"GET /not-excluded", "other work"}


@pytest.mark.parametrize(
    "harness",
    [
        pytest.param(harness, id=name, marks=[] if name == "redis" else pytest.mark.full)
        for name, harness in HARNESSES.items()
    ],
)
async def test_every_kind_of_broker_continues_the_trace_of_the_request(harness: BrokerHarness) -> None:
    traces = Traces()
    telemetry = import_module(f"faststream.{harness.name}.opentelemetry")
    [name] = telemetry.__all__
    broker = harness.broker(shared_server(harness).url)
    broker.add_middleware(getattr(telemetry, name)(tracer_provider=traces.provider))
    channel = f"traced-{uuid.uuid4().hex}"

    async def handle(number: int) -> None:
        pass

    async def publish() -> str:
        await harness.publish(broker, 7, channel)
        return "published"

    harness.subscribe(broker, channel, handle)
    parents: dict[str, str] = {}
    app = traces.instrument(HOSTS["fastapi"].build(broker, host_app=HostApp(hello=publish)))
    async with serving(app) as served, asyncio.timeout(60.0):
        # A Kafka consumer that starts at the end of its topic may miss the first messages.
        while not parents:
            traces.clear()
            assert await served.text("/hello") == "published"
            with suppress(TimeoutError):
                parents = await traces.parents(f"{channel} process")
    # The span names of RabbitMQ contain the exchange too.
    created = next(name for name in parents if name.endswith(f"{channel} create"))
    prefix = created.removesuffix("create")
    assert parents == {
        "GET /hello": "",
        created: "GET /hello",
        f"{prefix}publish": created,
        f"{prefix}process": created,
    }
