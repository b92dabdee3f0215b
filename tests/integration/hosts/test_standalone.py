"""AsgiFastStream and FastStream on real servers: brokers, lifespans, conversions, run and exit."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import faststream
import httpx
import pytest
from fast_depends import Provider
from fast_depends.msgspec import MsgSpecSerializer
from faststream import Context, TestApp
from faststream.annotations import FastStream as InjectedApp
from faststream.exceptions import SetupError, StartupValidationError
from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI
from prometheus_client import CollectorRegistry

from faststream_adapters import (
    AsgiFastStream,
    AsgiResponse,
    BrokerLifespan,
    FastStream,
    Request,
    get,
    make_ping_asgi,
    post,
)
from tests.harness.asgi_calls import exchange, http_scope, request
from tests.harness.servers import HOST, hold_port
from tests.harness.servers.asgi import AppServer
from tests.harness.servers.nats import NatsServer
from tests.harness.standalone import BASES, Inbox, as_asgi, hello, status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


# --- routes ---


async def test_path_keywords(nats: NatsServer) -> None:
    app = AsgiFastStream(
        NatsBroker(nats.url),
        ping_path="/ping",
        liveness_path="/live",
        readiness_path="/ready",
        startup_path="/started",
        metrics_path="/metrics",
        metrics_registry=CollectorRegistry(),
    )
    probes = ("/ping", "/live", "/ready", "/started")
    async with app:
        assert [await status(app, path) for path in probes] == [204, 200, 200, 200]
        assert await status(app, "/metrics") == 200
        nats.kill()
        assert [await status(app, path) for path in probes] == [500, 200, 503, 200]
    assert [await status(app, path) for path in probes] == [500, 200, 503, 200]


# --- brokers ---


async def test_several_brokers(shared_nats: NatsServer, nats: NatsServer) -> None:
    brokers = [NatsBroker(server.url) for server in (shared_nats, nats)]
    inboxes = [Inbox(), Inbox()]
    for broker, inbox in zip(brokers, inboxes, strict=True):
        broker.subscriber("several")(inbox.put)
    app = AsgiFastStream(*brokers)
    assert app.brokers == brokers
    assert app.broker is brokers[0]
    assert app.broker_lifespan.brokers == tuple(brokers)
    async with app:
        for broker, inbox in zip(brokers, inboxes, strict=True):
            await broker.publish(repr(broker), "several")
            assert await inbox.get() == repr(broker)


@pytest.mark.parametrize("when", ["before", "in a hook"])
async def test_a_broker_that_is_added_later(shared_nats: NatsServer, when: str) -> None:
    inbox = Inbox()
    broker = NatsBroker(shared_nats.url)
    broker.subscriber(f"later.{when[:2]}")(inbox.put)
    app = AsgiFastStream()
    if when == "before":
        app.add_broker(broker)
    else:
        app.on_startup(lambda: app.add_broker(broker))
    async with app:
        await broker.publish("hello", f"later.{when[:2]}")
        assert await inbox.get() == "hello"
        assert app.broker_lifespan.brokers == (broker,)


async def test_a_message_that_is_published_through_http_is_consumed(shared_nats: NatsServer) -> None:
    inbox = Inbox()
    broker = NatsBroker(shared_nats.url)
    broker.subscriber("http.in")(inbox.put)

    @post
    async def publish(
        request: Request, publisher: Annotated[NatsBroker, Context("publisher")]
    ) -> AsgiResponse:
        await publisher.publish(await request.body(), "http.in")
        return AsgiResponse(b"", 202)

    app = AsgiFastStream(broker, asgi_routes=[("/orders", publish)])
    app.context.set_global("publisher", broker)
    async with app:
        reply = await request(app, http_scope("/orders", "POST"), b"one ", b"order")
        assert reply.status == 202
        assert await inbox.get() == b"one order"


# --- the life of the application ---


class Recorded:
    """An application that records the order of what happens, with the state of its broker."""

    def __init__(
        self, url: str, app_class: type[faststream.FastStream] = AsgiFastStream, **options: Any
    ) -> None:
        self.broker = NatsBroker(url)
        self.events: list[tuple[str, bool]] = []

        @asynccontextmanager
        async def lifespan() -> AsyncIterator[None]:
            await self.record("lifespan in")
            yield
            await self.record("lifespan out")

        self.app = app_class(
            self.broker,
            lifespan=lifespan,
            on_startup=[self.hook("on_startup")],
            after_startup=[self.hook("after_startup")],
            on_shutdown=[self.hook("on_shutdown")],
            after_shutdown=[self.hook("after_shutdown")],
            **options,
        )

    async def record(self, name: str) -> None:
        self.events.append((name, await self.broker.ping(1.0)))

    def hook(self, name: str) -> Callable[[], Any]:
        async def hook() -> None:
            await self.record(name)

        return hook

    def add_hooks(self, app: faststream.FastStream, suffix: str) -> None:
        app.on_startup(self.hook(f"on_startup {suffix}"))
        app.after_startup(self.hook(f"after_startup {suffix}"))
        app.on_shutdown(self.hook(f"on_shutdown {suffix}"))
        app.after_shutdown(self.hook(f"after_shutdown {suffix}"))


INNER = [("on_startup", False), ("after_startup", True), ("on_shutdown", True), ("after_shutdown", False)]


ALL = [("lifespan in", False), *INNER, ("lifespan out", False)]


async def test_the_order_of_hooks_under_a_server(shared_nats: NatsServer) -> None:
    recorded = Recorded(shared_nats.url)
    sent = await exchange(
        recorded.app,  # type: ignore[arg-type]
        {"type": "lifespan"},
        {"type": "lifespan.startup"},
        {"type": "lifespan.shutdown"},
    )
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert recorded.events == ALL


async def test_the_order_of_hooks_in_a_lifespan_context(shared_nats: NatsServer) -> None:
    recorded = Recorded(shared_nats.url)
    assert isinstance(recorded.app, AsgiFastStream)
    async with recorded.app.start_lifespan_context():
        assert recorded.events == ALL[:3]
    assert recorded.events == ALL


async def test_the_order_of_hooks_without_the_lifespan(shared_nats: NatsServer) -> None:
    # As upstream: start() and stop() run the hooks, and their caller runs the lifespan.
    recorded = Recorded(shared_nats.url)
    for _ in range(2):
        async with recorded.app:
            assert recorded.events == INNER[:2]
        assert recorded.events == INNER
        await recorded.app.stop()
        assert recorded.events == INNER
        recorded.events.clear()


async def test_the_order_of_hooks_in_faststreams_test_app(shared_nats: NatsServer) -> None:
    recorded = Recorded(shared_nats.url)
    async with TestApp(recorded.app):
        assert recorded.events == ALL[:3]
    assert recorded.events == ALL


def test_faststreams_test_app_in_a_thread(shared_nats: NatsServer) -> None:
    recorded = Recorded(shared_nats.url)
    with TestApp(recorded.app):
        assert recorded.events == ALL[:3]
    assert recorded.events == ALL


async def test_options_reach_the_startup_hooks_and_the_lifespan(shared_nats: NatsServer) -> None:
    seen: list[object] = []

    @asynccontextmanager
    async def lifespan(env: str, context: faststream.ContextRepo) -> AsyncIterator[None]:
        seen.append(env)
        context.set_global("env", env)
        yield

    app = AsgiFastStream(NatsBroker(shared_nats.url), lifespan=lifespan)

    @app.on_startup
    async def convert(number: int, app: InjectedApp) -> None:
        seen.extend((number, app))

    @app.after_startup
    def after(env: Annotated[str, Context()]) -> None:
        seen.append(env)

    async with app.start_lifespan_context({"env": "test", "number": "5"}):
        pass
    assert seen == ["test", 5, app, "test"]


# --- as_asgi and from_app ---


@BASES
async def test_nothing_is_lost(base_class: type[faststream.FastStream], shared_nats: NatsServer) -> None:
    subject = f"lost.{base_class.__module__}"
    broker = NatsBroker(shared_nats.url)
    inbox = Inbox()

    @broker.subscriber(subject)
    async def handle(message: str, key: Annotated[str, Context()], app: InjectedApp) -> None:
        inbox.put((message, key, app))

    @get
    async def handler(key: Annotated[str, Context()], app: InjectedApp) -> AsgiResponse:
        inbox.put((key, app))
        return AsgiResponse()

    context, provider, serializer = faststream.ContextRepo({"key": "value"}), Provider(), MsgSpecSerializer()
    logger = logging.getLogger("tests.app")
    base = base_class(
        broker,
        context=context,
        provider=provider,
        serializer=serializer,
        logger=logger,
        specification=AsyncAPI(title="Shop", version="1.2.3", description="Sells."),
    )
    app = as_asgi(base, asgi_routes=[("/handler", handler)], asyncapi_path="/docs")
    assert app.config is base.config
    assert app.config.provider is provider
    assert app.config.serializer is serializer
    assert app.schema is base.schema
    assert app.logger is logger
    assert handler.logger is logger

    document = (await request(app, http_scope("/docs.json"))).body
    assert b'"info":{"title":"Shop","version":"1.2.3","description":"Sells."}' in document
    context.set_global("key", "later")
    async with app:
        assert await status(app, "/handler") == 200
        assert await inbox.get() == ("later", app)
        await broker.publish("hello", subject)
        assert await inbox.get() == ("hello", "later", app)


@BASES
async def test_hooks_of_either_side_run_in_their_order(
    base_class: type[faststream.FastStream], shared_nats: NatsServer
) -> None:
    recorded = Recorded(shared_nats.url, base_class)
    app = as_asgi(recorded.app)
    recorded.add_hooks(recorded.app, "of the original")
    recorded.add_hooks(app, "of the new one")
    async with app.start_lifespan_context():
        pass
    steps = [
        (f"{name}{suffix}", up)
        for name, up in INNER
        for suffix in ("", " of the original", " of the new one")
    ]
    assert recorded.events == [ALL[0], *steps, ALL[-1]]


@pytest.mark.full
@BASES
async def test_brokers_of_either_side_are_run(
    base_class: type[faststream.FastStream], shared_nats: NatsServer
) -> None:
    inbox = Inbox()
    base = base_class()
    app = as_asgi(base, asyncapi_path="/docs")
    for number, side in enumerate((base, app)):
        broker = NatsBroker(shared_nats.url)
        broker.subscriber(f"sides.{base_class.__module__}.{number}")(inbox.put)
        side.add_broker(broker)
    assert base.brokers == app.brokers
    async with app:
        for number, added in enumerate(app.brokers):
            await added.publish(number, f"sides.{base_class.__module__}.{number}")
            assert await inbox.get() == number
        document = (await request(app, http_scope("/docs.json"))).body.decode()
    assert all(f'"sides.{base_class.__module__}.{number}"' in document for number in range(2))


@BASES
async def test_as_asgi_takes_the_keywords_of_a_host(
    base_class: type[faststream.FastStream], nats: NatsServer
) -> None:
    base = base_class(NatsBroker(nats.url))
    up = asyncio.Event()

    def changed(_: str, new: str) -> None:
        if new == "running":
            up.set()

    app = as_asgi(base, readiness_path="/ready", startup="background", consume=False, on_state_change=changed)
    assert (app.broker_lifespan.startup, app.broker_lifespan.consume) == ("background", False)
    async with app:
        async with asyncio.timeout(5):
            await up.wait()
        assert await status(app, "/ready") == 200


async def test_one_lifespan_for_probes_of_another_place(nats: NatsServer) -> None:
    app = AsgiFastStream(NatsBroker(nats.url))
    app.mount("/ping", make_ping_asgi(app))
    app.mount("/by-lifespan", make_ping_asgi(app.broker_lifespan))
    assert isinstance(app.broker_lifespan, BrokerLifespan)
    async with app:
        assert [await status(app, path) for path in ("/ping", "/by-lifespan")] == [204, 204]


# --- run() and exit() ---


@asynccontextmanager
async def running(app: AsgiFastStream, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Run the app by `run()`; `exit()` must end it."""
    port, held = hold_port()
    task = asyncio.create_task(app.run(run_extra_options={"host": HOST, "port": str(port), **options}))
    try:
        async with asyncio.timeout(10), httpx.AsyncClient(base_url=f"http://{HOST}:{port}") as client:
            while True:
                try:
                    await client.get("/")
                    break
                except httpx.ConnectError:
                    assert not task.done()
                    await asyncio.sleep(0.01)
            yield client
            await asyncio.wait_for(task, 5)
    finally:
        with held or nullcontext():
            task.cancel()
            await asyncio.wait((task,))


async def test_run_serves_until_exit(shared_nats: NatsServer) -> None:
    recorded = Recorded(shared_nats.url, asgi_routes=[("/hello", hello)])
    app = recorded.app
    assert isinstance(app, AsgiFastStream)
    async with running(app, access_log="false") as client:
        assert (await client.get("/hello")).text == "hello"
        assert recorded.events == ALL[:3]
        app.exit()
    assert recorded.events == ALL


async def test_run_with_a_hook_that_takes_every_option(caplog: pytest.LogCaptureFixture) -> None:
    app = AsgiFastStream(logger=None)
    seen: dict[str, Any] = {}
    app.on_startup(lambda **options: seen.update(options))
    async with running(app, rot_path="/svc") as client:
        assert (await client.get("/unknown")).status_code == 404
        app.exit()
    assert seen["rot_path"] == "/svc"
    assert "has no effect" not in caplog.text


async def test_run_names_an_option_that_nobody_takes(caplog: pytest.LogCaptureFixture) -> None:
    app = AsgiFastStream()
    app.on_startup(lambda env: None)
    async with running(app, env="test", rot_path="/svc"):
        app.exit()
    [text] = [text for text in caplog.messages if "has no effect" in text]
    assert text.startswith("--rot-path has no effect: neither uvicorn nor")
    assert text.endswith("Did you mean --root-path?")


@pytest.mark.full
async def test_exit_of_the_original_app_ends_run(shared_nats: NatsServer) -> None:
    base = FastStream(NatsBroker(shared_nats.url))

    @get
    def leave() -> AsgiResponse:
        base.exit()
        return AsgiResponse(b"left")

    app = base.as_asgi(asgi_routes=[("/exit", leave)])
    async with running(app) as client:
        assert (await client.get("/exit")).text == "left"
    assert app.broker_lifespan.state == "stopped"


async def test_run_raises_what_the_command_line_can_show(shared_nats: NatsServer) -> None:
    app = AsgiFastStream(NatsBroker(shared_nats.url))

    @app.on_startup
    def hook(env: str) -> None: ...

    with pytest.raises(StartupValidationError) as raised:
        await app.run(run_extra_options={"port": "0"})
    assert raised.value.missed_fields == ("env",)


async def test_run_ends_with_the_servers_code_when_the_start_fails(shared_nats: NatsServer) -> None:
    app = AsgiFastStream(NatsBroker(shared_nats.url), on_startup=[lambda: 1 / 0])
    with pytest.raises(SystemExit, match="3"):
        await app.run(run_extra_options={"port": "0"})


EXIT_APP = """
import os
from faststream.nats import NatsBroker
from faststream_adapters import AsgiResponse, FastStream, get

base = FastStream(NatsBroker(os.environ["NATS_URL"]))

@get
async def exit_new(scope):
    app.exit()
    return AsgiResponse(b"leaving")

@get
def exit_original(scope):  # not in the main thread
    base.exit()
    return AsgiResponse(b"leaving")

@base.after_shutdown
def stopped():
    print("stopped gracefully")

app = base.as_asgi(asgi_routes=[("/new", exit_new), ("/original", exit_original)])
"""


GRANIAN = ["-m", "granian", "--interface", "asgi", "--host", HOST, "--port", "{port}", "main:app"]


UVICORN = ["-m", "uvicorn", "--host", HOST, "--port", "{port}", "main:app"]


CLI = ["-m", "faststream", "run", "main:app", "--host", HOST, "--port", "{port}"]


@pytest.mark.full
@pytest.mark.parametrize(
    ("command", "path", "code"),
    [
        pytest.param(UVICORN, "/new", 0, id="uvicorn"),
        pytest.param(UVICORN, "/original", 0, id="uvicorn-original"),
        # Its worker has ended, and the main process did not ask for that.
        pytest.param(GRANIAN, "/new", 1, id="granian"),
        pytest.param(CLI, "/original", 0, id="cli"),
    ],
)
def test_exit_ends_the_server(command: list[str], path: str, code: int, shared_nats: NatsServer) -> None:
    server = AppServer([sys.executable, *command], app=EXIT_APP, env={"NATS_URL": shared_nats.url})
    with server:
        assert httpx.get(f"{server.url}{path}").text == "leaving"
        assert server.wait() == code
        assert "stopped gracefully" in server.output()


CLI_APP = """
import os
from faststream.nats import NatsBroker
from faststream_adapters import AsgiFastStream

broker = NatsBroker(os.environ["NATS_URL"])
app = AsgiFastStream(broker, ping_path="/ping", asyncapi_path="/docs")

@broker.subscriber("cli.in")
async def handle(message: str) -> str:
    return message * 2

@app.on_startup
def hook(env: str = "none"):
    print("env is", env)

@app.after_shutdown
def stopped():
    print("stopped gracefully")
"""


async def test_faststream_run(shared_nats: NatsServer) -> None:
    command = [sys.executable, *CLI, "--env", "test"]
    with AppServer(command, app=CLI_APP, env={"NATS_URL": shared_nats.url}) as server:
        async with httpx.AsyncClient(base_url=server.url) as client, NatsBroker(shared_nats.url) as broker:
            assert (await client.get("/ping")).status_code == 204
            assert "text/html" in (await client.get("/docs")).headers["content-type"]
            reply = await broker.request("ab", "cli.in", timeout=5)
            assert await reply.decode() == "abab"
        server.terminate()
        assert server.wait() == -signal.SIGTERM
        assert "env is test" in server.output()
        assert "stopped gracefully" in server.output()


@pytest.mark.full
def test_faststream_run_with_a_missing_option_is_a_clear_error(shared_nats: NatsServer) -> None:
    app = CLI_APP.replace('env: str = "none"', "env: str")
    server = AppServer([sys.executable, *CLI], app=app, env={"NATS_URL": shared_nats.url})
    exited = server.run_to_exit()
    assert exited.returncode == 1
    assert "--env" in exited.output
    assert "Traceback" not in exited.output


async def test_a_broker_cannot_be_added_while_running(shared_nats: NatsServer) -> None:
    app = AsgiFastStream(NatsBroker(shared_nats.url))
    late = NatsBroker(shared_nats.url)
    async with app:
        with pytest.raises(SetupError, match="add it earlier, at the latest in an on_startup hook"):
            app.add_broker(late)
    app.add_broker(late)
    async with app:
        assert late.running
