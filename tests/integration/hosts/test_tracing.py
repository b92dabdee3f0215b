"""One trace from an HTTP request through the broker to the subscribers, by the instrumentation of others."""

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
from tests.hosts import HOSTS, Own, serving
from tests.kits import KITS
from tests.kits.shared import shared_server
from tests.support import eventually

if TYPE_CHECKING:
    from faststream.asgi.types import ASGIApp

    from tests.hosts import Host
    from tests.kits import Kit
    from tests.servers.nats import NatsServer

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
    """Where all spans go."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def of(self, app: ASGIApp) -> ASGIApp:
        """Return an application with the instrumentation for ASGI around it."""
        traced: ASGIApp = OpenTelemetryMiddleware(
            app,
            tracer_provider=self.provider,
            excluded_urls=",".join(f"{path}$" for path in PROBES.values()),
            exclude_spans=["receive", "send"],
        )
        return traced

    def forget(self) -> None:
        """Begin anew."""
        self._exporter.clear()

    async def spans(self, *last: str) -> dict[str, ReadableSpan]:
        """Return the spans by name, each of another one, once those have ended whose names end so."""

        def named() -> dict[str, ReadableSpan]:
            return {span.name: span for span in self._exporter.get_finished_spans()}

        await eventually(lambda: all(any(name.endswith(end) for name in named()) for end in last), 5.0)
        assert len(named()) == len(self._exporter.get_finished_spans())
        return named()

    async def parents(self, last: str) -> dict[str, str]:
        """Return each span's parent, all in one trace; the outermost has none."""
        spans = await self.spans(last, "GET /hello")
        assert len({context_of(span).trace_id for span in spans.values()}) == 1
        by_id = {context_of(span).span_id: name for name, span in spans.items()}
        return {name: by_id[span.parent.span_id] if span.parent else "" for name, span in spans.items()}


class Service:
    """Two subscribers, one after the other."""

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
        async def tell(result: str) -> None:
            pass

    async def place(self) -> str:
        await self.broker.publish("tea", self.subject)
        return "placed"

    @property
    def own(self) -> Own:
        """A host application whose route publishes."""
        return Own(hello=self.place)

    @property
    def last(self) -> str:
        """The span that ends last."""
        return f"{self.done} process"

    async def check(self) -> None:
        """See that everything is in one trace, in the right order."""
        created = f"{self.subject} create"
        assert await self.traces.parents(self.last) == {
            "GET /hello": "",
            created: "GET /hello",
            f"{self.subject} publish": created,
            f"{self.subject} process": created,
            f"{self.done} publish": f"{self.subject} process",
            # FastStream gives what comes of a message the message's own parent.
            self.last: created,
        }


@pytest.fixture
def service(shared_nats: NatsServer) -> Service:
    """Return a service on the server of this worker."""
    return Service(shared_nats.url)


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
async def test_a_request_and_its_messages_are_one_trace(host: Host, service: Service) -> None:
    app = host.build(service.broker, own=service.own, **PROBES)
    async with serving(service.traces.of(app)) as served:
        for path in PROBES.values():
            assert await served.status(path) == 204
        assert await served.text("/hello") == "placed"
        await service.check()
    spans = await service.traces.spans(service.last)
    assert spans["GET /hello"].kind is SpanKind.SERVER
    assert spans[f"{service.subject} publish"].kind is SpanKind.PRODUCER
    assert spans[f"{service.subject} process"].kind is SpanKind.CONSUMER


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
async def test_so_they_are_with_ours_around_the_instrumentation(host: Host, service: Service) -> None:
    app = FastStreamMiddleware(service.traces.of(host.plain(service.own)), service.broker, **PROBES)
    async with serving(app) as served:
        for path in PROBES.values():
            assert await served.status(path) == 204
        assert await served.text("/hello") == "placed"
        await service.check()


async def test_the_trace_of_the_caller_goes_on(service: Service) -> None:
    app = service.traces.of(HOSTS["fastapi"].build(service.broker, own=service.own))
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
async def test_a_handler_of_the_users_own_is_in_the_trace(handler: HttpHandler, service: Service) -> None:
    app = AsgiFastStream(service.broker, asgi_routes=[("/handler", handler)])
    app.context.set_global("tracer", service.traces.provider.get_tracer("the user's own"))
    async with serving(service.traces.of(app)) as served:
        answer = await served.http.get("/handler", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert answer.text == TRACE


async def test_a_message_without_a_trace_begins_one(service: Service) -> None:
    """It does not join that of a request or of a probe which happens to be under way."""
    app = service.traces.of(
        HOSTS["fastapi"].build(service.broker, own=service.own, readiness_path="/not-excluded")
    )
    async with serving(app) as served:
        assert await served.status("/not-excluded") == 204
        with service.traces.provider.get_tracer("the user's own").start_as_current_span("other work"):
            await service.broker.connection.publish(service.subject, b"milk")
        spans = await service.traces.spans(service.last)
    traces = {name: context_of(span).trace_id for name, span in spans.items()}
    of_the_message = {
        name for name, trace_id in traces.items() if trace_id == traces[f"{service.subject} create"]
    }
    assert spans[f"{service.subject} create"].parent is None
    assert set(traces) - of_the_message == {"GET /not-excluded", "other work"}


@pytest.mark.parametrize(
    "kit",
    [
        pytest.param(kit, id=name, marks=[] if name == "redis" else pytest.mark.full)
        for name, kit in KITS.items()
    ],
)
async def test_so_it_is_with_every_kind_of_broker(kit: Kit) -> None:
    traces = Traces()
    telemetry = import_module(f"faststream.{kit.name}.opentelemetry")
    [name] = telemetry.__all__
    broker = kit.broker(shared_server(kit).url)
    broker.add_middleware(getattr(telemetry, name)(tracer_provider=traces.provider))
    channel = f"traced-{uuid.uuid4().hex}"

    async def handle(number: int) -> None:
        pass

    async def publish() -> str:
        await kit.publish(broker, 7, channel)
        return "published"

    kit.subscribe(broker, channel, handle)
    parents: dict[str, str] = {}
    app = traces.of(HOSTS["fastapi"].build(broker, own=Own(hello=publish)))
    async with serving(app) as served, asyncio.timeout(60.0):
        # One that reads a log from its end, as with Kafka, may not have found the end at the first try.
        while not parents:
            traces.forget()
            assert await served.text("/hello") == "published"
            with suppress(TimeoutError):
                parents = await traces.parents(f"{channel} process")
    # RabbitMQ's have the exchange in their names too.
    created = next(name for name in parents if name.endswith(f"{channel} create"))
    prefix = created.removesuffix("create")
    assert parents == {
        "GET /hello": "",
        created: "GET /hello",
        f"{prefix}publish": created,
        f"{prefix}process": created,
    }
