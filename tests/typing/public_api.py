"""The types of the public names: mypy checks this file, which is never run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, assert_type

import faststream
import httpx
from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi import Request as FastAPIRequest
from faststream.asgi.types import ASGIApp, Receive, Scope, Send
from faststream.confluent import KafkaBroker as ConfluentBroker
from faststream.exceptions import IncorrectState
from faststream.kafka import KafkaBroker
from faststream.nats import NatsBroker
from faststream.rabbit import RabbitBroker
from faststream.redis import RedisBroker
from faststream.specification import AsyncAPI
from litestar import Litestar
from prometheus_client import CollectorRegistry
from quart import Quart
from starlette.applications import Starlette

from faststream_adapters import (
    AsgiFastStream,
    AsgiResponse,
    AsyncAPIRoute,
    BrokerLifespan,
    BrokerNotUpError,
    BrokerStartError,
    FastStream,
    FastStreamMiddleware,
    Header,
    HealthChange,
    HealthCheck,
    HttpHandler,
    JSONResponse,
    Query,
    Request,
    SubscriberInfo,
    get,
    make_asyncapi_asgi,
    make_liveness_asgi,
    make_metrics_asgi,
    make_ping_asgi,
    make_publish_asgi,
    make_readiness_asgi,
    make_startup_asgi,
    make_status_asgi,
    post,
)
from faststream_adapters._asgi.endpoint import Endpoint
from faststream_adapters._asgi.request import AsgiRequest
from faststream_adapters._endpoints.status.endpoint import StatusEndpoint
from faststream_adapters._standalone.handlers import GetHandler, PostHandler
from faststream_adapters.fastapi import Context, FastStreamRouter, Logger, Message, provide_broker
from faststream_adapters.fastapi.plugin import confluent, kafka, nats, rabbit, redis
from faststream_adapters.litestar import FastStreamPlugin
from faststream_adapters.quart import QuartFastStream, current_broker
from faststream_adapters.testing import app_client, assert_asyncapi, in_memory

State = Literal["stopped", "starting", "running", "draining", "failed"]

broker = NatsBroker()


@get
async def bare(scope: Scope) -> AsgiResponse:
    return AsgiResponse(b"body", 200, {"X-Header": "value"})


@get()
async def called() -> JSONResponse:
    return JSONResponse({"a": 1}, status_code=201, headers={"X-Header": "value"})


@get(include_in_schema=False, description="D", tags=[{"name": "tag"}], unique_id="id")
def described(request: Request) -> AsgiResponse:
    assert_type(request, AsgiRequest)
    assert_type(request.method, str)
    assert_type(request.headers, dict[str, str])
    assert_type(request.query_params, dict[str, list[str]])
    return AsgiResponse()


@post
async def posted(
    request: Request, name: list[str] = Query("n", cast=True), agent: str = Header(default=None)
) -> AsgiResponse:
    assert_type(await request.body(), bytes)
    async for chunk in request.stream():
        assert_type(chunk, bytes)
    return JSONResponse(await request.json())


assert_type(bare, GetHandler)
assert_type(called, GetHandler)
assert_type(described, GetHandler)
assert_type(posted, PostHandler)
assert_type(get(), Callable[[Callable[..., Any]], GetHandler])
handler: HttpHandler = bare


async def publish_if_up() -> None:
    try:
        await broker.publish("hello", "greetings")
    except BrokerNotUpError as error:
        incorrect_state: IncorrectState = error
        raise BrokerStartError(str(incorrect_state)) from error


async def ping_database() -> bool:
    return True


database = HealthCheck("database", ping_database)
cache = HealthCheck("cache", lambda: None, timeout=1, ttl=5.0)
lifespan = BrokerLifespan(
    broker,
    NatsBroker(),
    startup="background",
    startup_timeout=None,
    consume=False,
    optional=[broker, cache, "handle"],
    checks=[database, cache],
    supervise=False,
    drain_delay=1,
    shutdown_timeout=5.0,
    on_state_change=lambda old, new: None,
    on_health_change=lambda change: None,
)
assert_type(lifespan.state, State)
assert_type(lifespan.subscribers, tuple[SubscriberInfo, ...])
BrokerLifespan(broker, consume=[broker.subscriber("orders"), print, "handle"], optional="handle")


async def pause() -> None:
    await lifespan.pause("handle")
    await lifespan.resume([broker.subscriber("orders"), print])


assert_type(lifespan(FastAPI()), AbstractAsyncContextManager[None])
BrokerLifespan(faststream.FastStream(broker))
FastAPI(lifespan=lifespan)
Starlette(lifespan=lifespan)


def changed(old: State, new: State) -> None: ...


BrokerLifespan(broker, on_state_change=changed)


async def reported(change: HealthChange) -> None:
    assert_type(change.kind, Literal["broker", "subscriber", "check"])
    assert_type(change.name, str)
    assert_type(change.time, datetime)
    assert change.new == "timeout" or change.old != "timeout"


BrokerLifespan(broker, on_health_change=reported)


async def entered() -> None:
    async with lifespan as nothing:
        assert_type(nothing, None)


ping = make_ping_asgi(
    broker,
    NatsBroker(),
    ok_status=200,
    fail_status=503,
    timeout=5.0,
    ttl=1,
    details=True,
    include_in_schema=False,
    description="D",
    tags=[{"name": "tag"}],
    unique_id="id",
)
assert_type(ping, Endpoint)
assert_type(make_liveness_asgi(lifespan), Endpoint)
assert_type(make_readiness_asgi(faststream.FastStream(broker)), Endpoint)
assert_type(make_startup_asgi(lifespan, timeout=None), Endpoint)
assert_type(make_metrics_asgi(CollectorRegistry(), include_in_schema=False), Endpoint)
assert_type(make_metrics_asgi(targets=[broker, lifespan], compression=False), Endpoint)
assert_type(make_status_asgi(broker, refresh=0, links={"Runbook": "https://wiki.example"}), StatusEndpoint)
assert_type(make_status_asgi(lifespan, include_in_schema=False).json, Endpoint)


async def is_operator(request: Request) -> bool:
    return request.headers["x-key"] == "1"


assert_type(make_publish_asgi(lifespan, authorize=is_operator, timeout=1), Endpoint)
assert_type(make_publish_asgi(broker, authorize=lambda request: "x-key" in request.headers), Endpoint)

apps: list[ASGIApp] = [
    bare,
    posted,
    ping,
    AsgiResponse(),
    make_asyncapi_asgi(broker),
    make_asyncapi_asgi(AsyncAPI(broker), sidebar=False),
    AsgiFastStream(),
]


async def plain(scope: Scope, receive: Receive, send: Send) -> None: ...


app = AsgiFastStream(
    broker,
    NatsBroker(),
    asgi_routes=[("/bare", bare), ("/ping", ping), ("/plain", plain)],
    logger=None,
    context=broker.context,
    specification=AsyncAPI(title="T"),
    asyncapi_path=AsyncAPIRoute("/docs", sidebar=False),
    on_startup=[lambda: None],
    ping_path="/ping2",
    liveness_path="/live",
    readiness_path=None,
    startup_path="/started",
    metrics_path="/metrics",
    status_path="/status",
    metrics_registry=CollectorRegistry(),
    publish_path="/publish",
    authorize=is_operator,
    management_bind="127.0.0.1:8081",
    probe_timeout=1,
    probe_ttl=1.0,
    probe_details=True,
    startup="strict",
    startup_timeout=5,
    drain_delay=2.0,
)
assert_type(app.broker_lifespan, BrokerLifespan)
assert_type(app.broker_lifespan.state, State)
assert_type(list(app.routes), list[tuple[str, ASGIApp]])
assert_type(FastStream(broker).as_asgi(asyncapi_path="/docs", readiness_path="/ready"), AsgiFastStream)
assert_type(AsgiFastStream.from_app(faststream.FastStream(), [("/plain", plain)], "/docs"), AsgiFastStream)
app.mount("/later", plain)
app.add_broker(broker)
application: faststream.FastStream = app


assert_type(provide_broker(NatsBroker), Callable[..., Awaitable[NatsBroker]])
assert_type(provide_broker(NatsBroker, name="orders"), Callable[..., Awaitable[NatsBroker]])
assert_type(provide_broker(NatsBroker, optional=False), Callable[..., Awaitable[NatsBroker]])
assert_type(provide_broker(NatsBroker, optional=True), Callable[..., Awaitable[NatsBroker | None]])
router = FastStreamRouter(broker, names=["orders"], message_dependencies=[Depends(plain)])


async def session(message: Message, log: Logger, limit: Annotated[int, Context("limit", default=3)]) -> str:
    assert_type(message.headers, dict[str, Any])
    log.info(limit)
    return "session"


@broker.subscriber("orders")
async def with_dependencies(  # noqa: PLR0917 (passed by name)
    item: str,
    opened: Annotated[str, Depends(session)],
    request: FastAPIRequest,
    tasks: BackgroundTasks,
    log: Logger,
    current: NatsBroker = Context("broker"),  # noqa: B008 (FastStream's other style)
) -> str:
    assert_type(opened, str)
    tasks.add_task(log.info, item)
    return item


plugin = nats.NatsRouter(
    "nats://orders", prefix="/orders", logger=logging.getLogger(), schema_url="/asyncapi"
)
assert_type(plugin.broker, NatsBroker)
assert_type(rabbit.RabbitRouter().broker, RabbitBroker)
assert_type(redis.RedisRouter().broker, RedisBroker)
assert_type(kafka.KafkaRouter().broker, KafkaBroker)
assert_type(confluent.KafkaRouter().broker, ConfluentBroker)


@plugin.subscriber("orders", dependencies=[Depends(plain)])
@plugin.publisher("bills")
async def with_plugin(item: str, message: nats.NatsMessage, log: nats.Logger, own: nats.NatsBroker) -> str:
    log.info(message.correlation_id)
    await own.publish(item, "copies")
    return item


@plugin.after_startup
async def when_up(app: FastAPI) -> dict[str, str]:
    await plugin.broker.publish(app.title, "titles")
    return {"title": app.title}


async def called_directly() -> None:
    request = FastAPIRequest({"type": "http"})
    result = await with_dependencies("tea", "session", request, BackgroundTasks(), logging.getLogger())
    assert_type(result, str)


@router.get("/which")
async def which(
    required: Annotated[NatsBroker, Depends(provide_broker(NatsBroker))],
    optional: Annotated[NatsBroker | None, Depends(provide_broker(NatsBroker, optional=True))],
) -> None:
    assert_type(current_broker(NatsBroker), NatsBroker)


async def tested() -> None:
    for each in (app, FastAPI(), Quart(__name__), Litestar([]), FastStreamMiddleware(Starlette(), broker)):
        async with app_client(each) as client:
            assert_type(client, httpx.AsyncClient)
    async with app_client(app, overrides={changed: lambda: 1}, in_memory=False):
        await lifespan.idle(5)
    with in_memory() as nothing:
        assert_type(nothing, None)
    assert_asyncapi(broker, "asyncapi.json")
    assert_asyncapi([broker, RedisBroker()], Path("asyncapi.yaml"), specification=AsyncAPI(title="T"))
    for target in (app, lifespan, router, faststream.FastStream(broker), AsyncAPI(broker)):
        assert_asyncapi(target, "asyncapi.json")
    assert_asyncapi(FastStreamPlugin(broker), "asyncapi.json")
    assert_asyncapi(QuartFastStream(broker), "asyncapi.json")
    assert_asyncapi(FastStreamMiddleware(Starlette(), broker), "asyncapi.json")


@app.on_startup
async def hook(env: str) -> None: ...


async def run() -> None:
    await app.run(log_level=20, run_extra_options={"port": 8000})
    async with app.start_lifespan_context({"env": "test"}):
        pass
    async with app as same:
        assert_type(same, AsgiFastStream)
    app.exit()


asyncio.run(run())
