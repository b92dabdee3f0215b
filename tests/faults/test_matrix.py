"""The fault matrix in one process: each test brings about a fault, and measures what docs/faults.md tells."""

import asyncio
import selectors
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import httpx
import nats as nats_py
import pytest
from faststream import FastStream
from faststream.nats.security import NatsSecurity
from nats.js.errors import NotFoundError

from faststream_adapters import BrokerLifespan, make_readiness_asgi, supervision
from faststream_adapters.lifespan import BrokerStartError
from tests.conftest import NatsFactory
from tests.faults.matrix import (
    FASTAPI,
    IN_PROCESS,
    PAGE,
    STANDALONE,
    Fault,
    Measured,
    Row,
    Service,
    declared,
    lines,
    page,
    row,
    rows_of,
)
from tests.servers import HOST, hold_port
from tests.servers.nats import NatsServer
from tests.support import client, eventually, eventually_status, status

pytest_plugins = ["pytester"]

kinds = pytest.mark.parametrize(
    "kind",
    ["core", pytest.param("push", marks=pytest.mark.full), pytest.param("pull", marks=pytest.mark.full)],
)
jetstream_kinds = pytest.mark.parametrize("kind", ["push", pytest.param("pull", marks=pytest.mark.full)])


async def fails_to_start(service: Service, fault: Fault, why: str = ".+") -> None:
    """Start strictly, and see the error that names the reason and no password."""
    fault.happened()
    with pytest.raises(BrokerStartError, match=f"could not be started.*: {why}\\.$") as raised:
        await service.lifespan.enter()
    fault.told()
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is not None
    assert str(service.lifespan.state) == "failed"
    assert not service.broker.running
    assert await status(service.ready) == 503


# --- The server at the start ---


@row(
    'Server down at the start, `startup="strict"`',
    "the start fails with an error that says so; nothing is left behind, and it can be tried again",
)
@kinds
async def test_down_at_the_start(nats_js: NatsServer, fault: Fault, kind: str) -> None:
    nats_js.stop()
    service = Service(nats_js.url, kind, startup_timeout=3.0)
    await fails_to_start(service, fault, "the connection was refused")
    fault.repaired()
    nats_js.start()
    async with service.lifespan:
        await is_back(service, fault)


@row(
    'Server down at the start, `startup="background"`',
    "503 from the first moment, liveness 204; comes up by itself when the server does",
)
@kinds
async def test_up_late(nats_js: NatsServer, fault: Fault, kind: str) -> None:
    nats_js.stop()
    service = Service(nats_js.url, kind, startup="background")
    fault.happened()
    async with service.lifespan:
        assert await status(service.ready) == 503
        fault.told()
        # As late as it takes for a first try to fail.
        run = supervision.run_of(service.broker)
        await eventually(lambda: run.error is not None)
        assert await status(service.ready) == 503
        assert await status(service.live) == 204
        fault.repaired()
        nats_js.start()
        await service.works()
        fault.back()


@row(
    'Server frozen at the start, `startup="strict"`',
    "the start fails within `startup_timeout` (3 s here)",
)
@pytest.mark.full
async def test_frozen_at_the_start(nats_js: NatsServer, fault: Fault) -> None:
    nats_js.freeze()
    service = Service(nats_js.url, "push", startup_timeout=3.0)
    await fails_to_start(service, fault, "it did not answer in time")
    fault.repaired()
    nats_js.thaw()
    async with service.lifespan:
        await is_back(service, fault)


@row(
    'Server frozen at the start, `startup="background"`',
    "503 from the first moment, liveness 204; comes up by itself when the server answers",
)
@pytest.mark.full
async def test_frozen_at_the_start_in_the_background(
    nats_js: NatsServer,
    fault: Fault,
    caplog: pytest.LogCaptureFixture,
) -> None:
    nats_js.freeze()
    service = Service(nats_js.url, "push", startup="background", client={"connect_timeout": 1})
    fault.happened()
    async with service.lifespan:
        assert await status(service.ready) == 503
        fault.told()
        await eventually(lambda: "is not up yet" in caplog.text)
        assert await status(service.ready) == 503
        assert await status(service.live) == 204
        fault.repaired()
        nats_js.thaw()
        await service.works()
        fault.back()


# --- The server while the service runs ---


async def is_seen(service: Service, fault: Fault) -> None:
    """Wait until readiness tells of the fault; liveness does not, for the service can recover by itself."""
    await eventually_status(service.ready, 503, 30.0)
    fault.told()
    assert await status(service.live) == 204


async def is_back(service: Service, fault: Fault) -> None:
    await service.works()
    fault.back()


@row("Server killed and restarted, core NATS", "503 while it is away, liveness 204; consumes again by itself")
async def test_killed_and_restarted(nats: NatsServer, fault: Fault) -> None:
    service = Service(nats.url)
    async with service.lifespan:
        for _ in range(3):
            await service.works()
            fault.happened()
            nats.kill()
            await is_seen(service, fault)
            fault.repaired()
            nats.restart()
            await is_back(service, fault)


@row(
    "Server killed and restarted, JetStream",
    "503 while it is away, liveness 204; consumes again by itself",
    counts="acknowledged publishes handled",
)
@jetstream_kinds
async def test_killed_and_restarted_with_messages_on_their_way(
    nats_js: NatsServer,
    fault: Fault,
    kind: str,
) -> None:
    service = Service(nats_js.url, kind)
    async with service.lifespan:
        await service.works()
        for _ in range(2):
            for _ in range(20):
                await service.publish()
            fault.happened()
            nats_js.kill()
            await is_seen(service, fault)
            fault.repaired()
            nats_js.restart()
            await is_back(service, fault)
    fault.counted(len(set(service.handled)), of=len(service.published))


@row(
    "Server frozen and thawed",
    "503 while it does not answer, liveness 204; consumes again by itself",
)
@kinds
async def test_frozen_and_thawed(nats_js: NatsServer, fault: Fault, kind: str) -> None:
    service = Service(nats_js.url, kind)
    async with service.lifespan:
        await service.works()
        for _ in range(2):
            fault.happened()
            nats_js.freeze()
            await is_seen(service, fault)
            fault.repaired()
            nats_js.thaw()
            await is_back(service, fault)


@row(
    "Server down for longer than the client tries to reconnect",
    "503 while it is away, liveness 204; the client does not give up, and consumes again by itself",
)
@kinds
async def test_down_longer_than_the_client_reconnects(nats_js: NatsServer, fault: Fault, kind: str) -> None:
    service = Service(nats_js.url, kind, client={"max_reconnect_attempts": 1})
    async with service.lifespan:
        await service.works()
        client = service.broker.connection
        fault.happened()
        nats_js.kill()
        await is_seen(service, fault)
        # More failures than would have made the client give up for good.
        await eventually(lambda: all(each.reconnects > 3 for each in client._server_pool))  # noqa: SLF001 (counted nowhere else)
        fault.repaired()
        nats_js.restart()
        await is_back(service, fault)


@row(
    "Server up for a second and down for a second, 15 times",
    "503 while it is away, liveness 204; consumes again by itself",
    counts="acknowledged publishes handled",
)
@jetstream_kinds
@pytest.mark.full
@pytest.mark.timeout(240)
async def test_flapping(nats_js: NatsServer, fault: Fault, kind: str) -> None:
    service = Service(nats_js.url, kind)
    loop = asyncio.get_running_loop()
    over = False
    refused = 0

    async def publish() -> None:
        nonlocal refused
        while not over:
            try:
                await service.publish(0.5)
            except Exception:  # noqa: BLE001 (not acknowledged, so not promised)
                refused += 1
            # A rate, so that the test does not turn into one of throughput.
            await asyncio.sleep(0.02)

    async with service.lifespan:
        await service.works()
        publisher = asyncio.create_task(publish())
        for _ in range(15):
            start = loop.time()
            fault.happened()
            nats_js.kill()
            await is_seen(service, fault)
            await asyncio.sleep(max(0.0, start + 1.0 - loop.time()))
            fault.repaired()
            nats_js.restart()
            before = len(service.published)
            await eventually_status(service.ready, 204, 30.0)
            await eventually(lambda before=before: len(service.published) > before, 30.0)  # type: ignore[misc]
            fault.back()
            assert await status(service.live) == 204
            await asyncio.sleep(max(0.0, start + 2.0 - loop.time()))
        over = True
        await publisher
        await service.works()
    assert refused
    fault.counted(len(set(service.handled)), of=len(service.published))


# --- Credentials and TLS ---


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Return a self-signed certificate for this host; its key lies beside it."""
    path = tmp_path / "certificate.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=test"
    )
    names = ["-addext", f"subjectAltName=IP:{HOST}"]
    files = ["-out", str(path), "-keyout", str(path.with_suffix(".key"))]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    return path


def tls(certificate: Path) -> str:
    return f'tls {{ cert_file: "{certificate}", key_file: "{certificate.with_suffix(".key")}" }}'


def trusting(certificate: Path, **options: Any) -> dict[str, Any]:
    return {"security": NatsSecurity(ssl_context=ssl.create_default_context(cafile=certificate), **options)}


WRONG_PASSWORD = "Wrong password at the start"


@row(
    f'{WRONG_PASSWORD}, `startup="strict"`',
    "the start fails with an error that says so and hides the password; it can be tried again",
)
async def test_wrong_password(nats_factory: NatsFactory, fault: Fault) -> None:
    server = nats_factory(user="user", password="changed")
    server.password = "secret"
    service = Service(server.url, client={"max_reconnect_attempts": 3})
    await fails_to_start(service, fault, "the credentials were rejected")
    fault.repaired()
    server.restart()
    async with service.lifespan:
        await is_back(service, fault)


@row(
    f'{WRONG_PASSWORD}, `startup="background"`',
    "503, liveness 204; comes up by itself once the password is right",
)
@pytest.mark.full
async def test_wrong_password_in_the_background(
    nats_factory: NatsFactory,
    fault: Fault,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = nats_factory(user="user", password="changed")
    server.password = "secret"
    service = Service(server.url, startup="background", client={"max_reconnect_attempts": 3})
    fault.happened()
    async with service.lifespan:
        assert await status(service.ready) == 503
        fault.told()
        await eventually(lambda: "is not up: the credentials were rejected." in caplog.text)
        assert await status(service.live) == 204
        fault.repaired()
        server.restart()
        await is_back(service, fault)
    assert "secret" not in caplog.text


@row(
    "Password changed while the service runs, and changed back",
    "503 as long as it is wrong, liveness 204; consumes again by itself",
)
@pytest.mark.full
async def test_password_changed(nats_factory: NatsFactory, fault: Fault) -> None:
    server = nats_factory(user="user", password="secret")
    service = Service(server.url)
    async with service.lifespan:
        await service.works()
        first = service.broker.connection
        server.password = "changed"
        fault.happened()
        server.reload()
        await is_seen(service, fault)
        await eventually(lambda: first.is_closed, 30.0)
        assert await status(service.ready) == 503
        server.password = "secret"
        fault.repaired()
        server.reload()
        await is_back(service, fault)


@row(
    "The server requires TLS with a certificate that the client does not trust",
    "the start fails; once the certificate is trusted or TLS is off, it can be tried again",
)
@pytest.mark.parametrize("startup", ["strict", pytest.param("background", marks=pytest.mark.full)])
async def test_tls_on_the_server_only(
    nats_factory: NatsFactory,
    fault: Fault,
    certificate: Path,
    startup: Literal["strict", "background"],
) -> None:
    server = nats_factory(config=tls(certificate))
    service = Service(server.url, startup=startup, startup_timeout=3.0 if startup == "strict" else None)
    if startup == "strict":
        await fails_to_start(service, fault, r"TLS failed \(CERTIFICATE_VERIFY_FAILED\)")
    else:
        fault.happened()
        await service.lifespan.enter()
        await is_seen(service, fault)
    server.config = ""
    fault.repaired()
    server.restart()
    if startup == "strict":
        await service.lifespan.enter()
    await is_back(service, fault)
    await service.lifespan.leave()


@row(
    "The client wants TLS, the server has none",
    "the start fails",
)
@pytest.mark.full
@pytest.mark.parametrize("first", [True, False], ids=["TLS first", "TLS when the server asks for it"])
async def test_tls_on_the_client_only(
    nats_factory: NatsFactory,
    fault: Fault,
    certificate: Path,
    *,
    first: bool,
) -> None:
    server = nats_factory()
    client = trusting(certificate, tls_handshake_first=first)
    service = Service(server.url, client=client, startup_timeout=3.0)
    # nats-py itself would go on without TLS when the server does not ask for it.
    reason = ".+" if first else "TLS was asked for, and the server offers none"
    await fails_to_start(service, fault, rf"TLS failed \({reason}\)")
    server.config = tls(certificate).replace("tls {", "tls { handshake_first: auto,")
    fault.repaired()
    server.restart()
    async with service.lifespan:
        await is_back(service, fault)


@pytest.mark.full
async def test_a_server_that_has_lost_its_tls_is_not_trusted(
    nats_factory: NatsFactory,
    certificate: Path,
) -> None:
    server = nats_factory(config=tls(certificate))
    service = Service(server.url, client=trusting(certificate))
    ready = make_readiness_asgi(service.lifespan, details=True)
    async with service.lifespan, client(ready) as http:
        await eventually_status(ready, 200)
        server.config = ""
        server.restart()
        async with asyncio.timeout(30):
            # nats-py has come back without TLS.
            while (await http.get("/")).json()["code"] != "error":
                ...


# --- Two brokers ---


@row(
    "One of two brokers down",
    "503, liveness 204; the other broker goes on consuming",
)
async def test_one_of_two_brokers_down(nats_factory: NatsFactory, fault: Fault) -> None:
    first, second = nats_factory(), nats_factory()
    service, other = Service(first.url), Service(second.url)
    service.run_by(BrokerLifespan(service.broker, other.broker))
    async with service.lifespan:
        for stopped, lost, kept in ((first, service, other), (second, other, service)):
            fault.happened()
            stopped.kill()
            await is_seen(service, fault)
            await kept.publish()
            await kept.handled_all()
            fault.repaired()
            stopped.restart()
            lost.ready = service.ready
            await is_back(lost, fault)


@row(
    "One of two brokers down, and it is named in `optional=`",
    '204 all the time, `"status": "warn"` in the details; the other broker goes on consuming',
)
async def test_an_optional_broker_down(nats_factory: NatsFactory, fault: Fault) -> None:
    first, second = nats_factory(), nats_factory()
    service, other = Service(first.url), Service(second.url)
    service.run_by(BrokerLifespan(service.broker, other.broker, optional=(other.broker,)))
    details = make_readiness_asgi(service.lifespan, details=True)

    async def told() -> str:
        async with client(details) as http:
            answer = await http.get("/")
        assert answer.status_code == 200
        return str(answer.json()["status"])

    second.stop()
    for _ in range(2):
        fault.happened()
        async with service.lifespan:
            await service.works()
            await until(told, "warn")
            fault.told()
            fault.repaired()
            second.start()
            await until(told, "pass")
            await other.publish()
            await other.handled_all()
            fault.back()
            fault.happened()
            second.kill()
            await until(told, "warn")
            fault.told()
            await service.works()


async def until(ask: Callable[[], Awaitable[str]], expected: str) -> None:
    async with asyncio.timeout(30):
        while await ask() != expected:  # noqa: ASYNC110 (it tells nobody)
            await asyncio.sleep(0.02)


# --- Handlers ---


class Raising(Service):
    """The handler raises twice at each fourth message."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.raised: list[int] = []

    async def work(self, number: int) -> None:
        if number % 4 == 0 and self.raised.count(number) < 2:
            self.raised.append(number)
            msg = "This message cannot be handled."
            raise ValueError(msg)


@row(
    "Handler raises",
    "204: other messages are handled; with `AckPolicy.NACK_ON_ERROR` JetStream delivers the message again",
    counts="messages handled in the end",
)
@jetstream_kinds
async def test_a_handler_that_raises(nats_js: NatsServer, fault: Fault, kind: str) -> None:
    service = Raising(nats_js.url, kind)
    async with service.lifespan:
        for _ in range(12):
            await service.publish()
            assert await status(service.ready) == 204
        await service.handled_all()
        assert await status(service.ready) == 204
    assert sorted(service.raised) == [0, 0, 4, 4, 8, 8]
    fault.counted(len(set(service.handled)), of=len(service.published))


class Hanging(Service):
    """The handler never comes to an end with the first message that it gets, until it is told to work."""

    hanging: asyncio.Event | None = None
    repaired = False

    async def work(self, number: int) -> None:
        if not self.repaired and number == 0:
            self.hanging = asyncio.Event()
            self.hanging.set()
            await asyncio.Event().wait()


@row(
    "Handler hangs",
    "204: the probes answer; the shutdown ends after `shutdown_timeout` (1 s here); "
    "JetStream delivers the message again after the next start",
    counts="messages handled in the end",
)
@jetstream_kinds
async def test_a_handler_that_hangs(nats_js: NatsServer, fault: Fault, kind: str) -> None:
    service = Hanging(nats_js.url, kind, shutdown_timeout=1.0)
    async with service.lifespan:
        await service.publish()
        await service.publish()
        await eventually(lambda: service.hanging is not None)
        assert await status(service.ready) == 204
        assert await status(service.live) == 204
        start = time.monotonic()
    # The drain alone would have taken nats-py's 30 s, and the handler all the time there is.
    assert time.monotonic() - start < 8
    assert str(service.lifespan.state) == "stopped"
    assert 0 not in service.handled
    service.repaired = True
    fault.repaired()
    async with service.lifespan:
        await is_back(service, fault)
    fault.counted(len(set(service.handled)), of=len(service.published))


class Blocking(Service):
    """The handler blocks the event loop for longer than a probe may take."""

    async def work(self, number: int) -> None:
        if number == 0:
            threading.Event().wait(1.5)


@row(
    "Handler blocks the event loop for 1.5 s",
    "no probe is answered meanwhile; right after it they are, with 204",
    counts="messages handled",
)
@kinds
async def test_a_handler_that_blocks_the_loop(nats_js: NatsServer, fault: Fault, kind: str) -> None:
    service = Blocking(nats_js.url, kind)
    async with service.lifespan:
        fault.repaired()
        for _ in range(20):
            await service.publish()
        await is_back(service, fault)
        assert await status(service.live) == 204
    fault.counted(len(set(service.handled)), of=len(service.published))


# --- Hooks ---


@row(
    "A hook of the FastStream app raises",
    "the host's start, or its shutdown, fails with the hook's own error, and the brokers are stopped",
)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("hooks", ["on_startup", "after_startup", "on_shutdown", "after_shutdown"])
async def test_a_hook_that_raises(nats: NatsServer, fault: Fault, hooks: str, asynchronous: bool) -> None:
    service = Service(nats.url)
    app = FastStream(service.broker)
    service.run_by(BrokerLifespan(app))
    error = ValueError("broken")
    broken = True

    def fails() -> None:
        if broken:
            raise error from KeyError("cause")

    async def fails_later() -> None:
        fails()

    getattr(app, hooks)(fails_later if asynchronous else fails)
    host = object()
    connected = []

    async def live() -> None:
        fault.happened()
        async with service.lifespan(host):
            connected.append(service.broker.connection)
            await service.works()
            # It has not happened yet.
            fault.happened()

    with pytest.raises(ValueError, match="broken") as raised:
        await live()
    fault.told()
    assert raised.value is error
    assert isinstance(raised.value.__cause__, KeyError)
    assert bool(connected) == hooks.endswith("shutdown")
    assert all(each.is_closed for each in connected)
    assert not service.broker.running
    assert str(service.lifespan.state) == ("stopped" if connected else "failed")
    assert await status(service.ready) == 503
    broken = False
    fault.repaired()
    async with service.lifespan(host):
        await is_back(service, fault)
    assert not service.broker.running


# --- Cancellation ---


NOTHING_LEFT = (
    "nothing is left: no task, no connection, no open lifespan of the app; the state is `stopped`, and the "
    "lifespan can be entered again"
)


class Steps(selectors.DefaultSelector):
    """A selector that counts the steps of its event loop, and does something at one of them."""

    def __init__(self) -> None:
        super().__init__()
        self._left = 0
        self._then: Callable[[], object] = int

    def at(self, step: int, then: Callable[[], object]) -> None:
        """Call something at this step from now; a step that does not come any more is forgotten."""
        self._left, self._then = step, then

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(timeout)
        self._left -= 1
        if self._left == 0:
            self._then()
        return events

    async def cancels(self, step: int, coroutine: Coroutine[Any, Any, None]) -> bool:
        """Cancel the coroutine at this step; return False when it had ended before."""
        task = asyncio.create_task(coroutine)
        self.at(step, task.cancel)
        async with asyncio.timeout(30):
            await asyncio.wait((task,))
        self.at(0, int)
        if not task.cancelled():
            task.result()
        return task.cancelled()


class Watched:
    """A server that can be asked how many clients it has."""

    def __init__(self, factory: NatsFactory) -> None:
        self.port, self.held = hold_port()
        self.server = factory(jetstream=True, config=f'http: "{HOST}:{self.port}"')

    async def has_no_clients(self) -> None:
        """Wait until the last connection is closed."""
        async with httpx.AsyncClient(verify=False) as http, asyncio.timeout(10):  # noqa: S501 (plain HTTP)
            url = f"http://{HOST}:{self.port}/connz"
            while (await http.get(url)).json()["num_connections"]:
                ...

    async def forget(self, stream: str) -> None:
        """Delete a stream, if it is there."""
        connection = await nats_py.connect(self.server.url)
        with suppress(NotFoundError):
            await connection.jetstream().delete_stream(stream)
        await connection.close()


def cancelled_at_every_step(
    service: Service,
    watched: Watched,
    fault: Fault,
    cancelled: Callable[[Steps, int], Coroutine[Any, Any, bool]],
) -> None:
    """Cancel at one step after the other until there are no more; each time nothing may be left."""
    steps = Steps()

    async def nothing_is_left() -> None:
        assert str(service.lifespan.state) == "stopped"
        assert not service.broker.running
        # A drain of nats-py's that was cut off may take a moment to notice it.
        await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})
        await watched.has_no_clients()

    async def run() -> None:
        # At the first step nothing has begun.
        step = 2
        while await cancelled(steps, step):
            await nothing_is_left()
            async with service.lifespan:
                await service.works()
            await nothing_is_left()
            step += 1
        await nothing_is_left()
        # Far fewer would mean that the connection was not what was cancelled.
        assert step > 10
        fault.counted(step - 2, of=step - 2)

    with (
        watched.held or nullcontext(),
        asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(steps)) as runner,
    ):
        runner.run(run())


@row(
    "Start cancelled, at every step of the event loop",
    NOTHING_LEFT,
    counts="steps after which it worked again",
)
@kinds
def test_start_cancelled(nats_factory: NatsFactory, fault: Fault, kind: str) -> None:
    watched = Watched(nats_factory)
    service = Service(watched.server.url, kind)

    async def cancelled(steps: Steps, step: int) -> bool:
        # Each start has everything to do that a first one has.
        await watched.forget("jobs")
        service.published.clear()
        service.handled.clear()
        if await steps.cancels(step, service.lifespan.enter()):
            return True
        await service.lifespan.leave()
        return False

    cancelled_at_every_step(service, watched, fault, cancelled)


@row(
    "Start of a FastStream app cancelled, at every step of the event loop",
    NOTHING_LEFT,
    counts="steps after which it worked again",
)
@pytest.mark.full
def test_start_of_an_app_cancelled(nats_factory: NatsFactory, fault: Fault) -> None:
    watched = Watched(nats_factory)
    service, other = Service(watched.server.url), Service(watched.server.url, "pull")
    opened = 0

    @asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        nonlocal opened
        opened += 1
        try:
            await asyncio.sleep(0)
            yield
        finally:
            await asyncio.sleep(0)
            opened -= 1

    app = FastStream(service.broker, lifespan=resources)
    app.add_broker(other.broker)
    app.on_startup(partial(asyncio.sleep, 0))
    app.after_startup(partial(asyncio.sleep, 0))
    service.run_by(BrokerLifespan(app))

    async def cancelled(steps: Steps, step: int) -> bool:
        was = await steps.cancels(step, service.lifespan.enter())
        if not was:
            assert opened == 1
            await service.lifespan.leave()
        assert opened == 0
        assert not other.broker.running
        return was

    cancelled_at_every_step(service, watched, fault, cancelled)


@row(
    "Shutdown cancelled, at every step of the event loop",
    NOTHING_LEFT,
    counts="steps after which it worked again",
)
@kinds
def test_shutdown_cancelled(nats_factory: NatsFactory, fault: Fault, kind: str) -> None:
    watched = Watched(nats_factory)
    service = Service(watched.server.url, kind)

    async def cancelled(steps: Steps, step: int) -> bool:
        await service.lifespan.enter()
        await service.works()
        if kind != "core":
            # On its way to the handler. The server has acknowledged it, so the next start must handle it.
            await service.publish()
        return await steps.cancels(step, service.lifespan.leave())

    cancelled_at_every_step(service, watched, fault, cancelled)


@row(
    "Shutdown cancelled while a start in the background is under way, at every step of the event loop",
    NOTHING_LEFT,
    counts="steps after which it worked again",
)
@pytest.mark.full
def test_shutdown_cancelled_while_starting(nats_factory: NatsFactory, fault: Fault) -> None:
    watched = Watched(nats_factory)
    service = Service(watched.server.url, "pull", startup="background")

    async def cancelled(steps: Steps, step: int) -> bool:
        await service.lifespan.enter()
        return await steps.cancels(step, service.lifespan.leave())

    cancelled_at_every_step(service, watched, fault, cancelled)


# --- The table ---


def test_the_page_has_the_rows_that_the_tests_declare() -> None:
    rows = [(name, where, each.sees) for (name, where), each in lines(declared()).items()]
    assert rows_of(PAGE.read_text(encoding="utf-8")) == rows, "Run `make fault-table`, and commit the page."


ONE = Row("A fault", "what one sees", (IN_PROCESS,), "")
TWO = Row("another fault", "something else", (STANDALONE, FASTAPI), "messages")


def test_the_table_is_sorted_and_tells_the_slowest_run() -> None:
    runs = [
        Measured("another fault", STANDALONE, 0.31, None, 5, 5),
        Measured("another fault", STANDALONE, 1.0, 0.01, 15, 15),
        Measured("another fault", FASTAPI, None, None, 20, 20),
        Measured("A fault", IN_PROCESS, 0.5, 12.34, 0, 0),
    ]
    text = page([TWO, ONE, TWO], runs)
    assert text.splitlines()[-5:] == [
        "| Fault | Where | What a user sees | Told after | Back after | Nothing lost |",
        "| --- | --- | --- | --- | --- | --- |",
        "| A fault | in process | what one sees | 0.5 s | 12.4 s | - |",
        "| another fault | uvicorn + FastAPI | something else | - | - | 20 of 20 messages |",
        "| another fault | uvicorn standalone | something else | 1.0 s | 0.1 s | 20 of 20 messages |",
    ]
    assert rows_of(text) == [
        ("A fault", IN_PROCESS, "what one sees"),
        ("another fault", FASTAPI, "something else"),
        ("another fault", STANDALONE, "something else"),
    ]


def test_a_table_with_a_row_that_nobody_measured_is_refused() -> None:
    runs = [Measured("another fault", STANDALONE, 0.31, None, 5, 5)]
    with pytest.raises(LookupError, match=r"A fault / in process, another fault / uvicorn \+ FastAPI\.$"):
        page([ONE, TWO], runs)


def test_two_rows_of_one_name_are_refused() -> None:
    with pytest.raises(AssertionError, match="Two different rows: A fault"):
        lines([ONE, Row("A fault", "something else", (IN_PROCESS,), "")])


def test_a_stopwatch_keeps_the_slower_time() -> None:
    fault = Fault(TWO)
    fault.at(FASTAPI)
    waits = threading.Event()
    for seconds in (0.0, 0.2, 0.0):
        fault.happened()
        fault.repaired()
        waits.wait(seconds)
        fault.told()
        fault.back()
        fault.counted(5, of=5)
    measured = fault.measured()
    assert measured[:2] == ("another fault", FASTAPI)
    assert measured.told is not None
    assert measured.back is not None
    assert 0.2 <= measured.told <= measured.back
    assert measured[4:] == (15, 15)


def test_a_stopwatch_that_is_not_used_as_it_must_be_says_so() -> None:
    with pytest.raises(AssertionError, match="Say where"):
        Fault(TWO).measured()
    with pytest.raises(AssertionError, match="in the row what is counted"):
        Fault(ONE).counted(1, of=1)
    fault = Fault(ONE)
    fault.happened()
    fault.repaired()
    with pytest.raises(AssertionError, match="the clock of the fault and repair"):
        fault.measured()
    fault = Fault(TWO)
    fault.at(STANDALONE)
    with pytest.raises(AssertionError, match="was not counted"):
        fault.measured()


MODULE = """
from tests.faults.matrix import STANDALONE, FASTAPI, row
import pytest

def test_without_a_row():
    raise AssertionError("It measures nothing, so it does not run for the table.")

@row("A fault", "what one sees")
def test_in_process(fault):
    fault.happened()
    fault.told()

@row("another fault", "something else", where=(STANDALONE, FASTAPI), counts="messages")
@pytest.mark.parametrize("where", [STANDALONE, FASTAPI])
def test_in_two_places(fault, where):
    fault.at(where)
    fault.counted(10, of=10)
"""


def run(pytester: pytest.Pytester, *arguments: str, module: str = MODULE) -> pytest.RunResult:
    pytester.makeconftest("from tests.faults.conftest import *")
    pytester.makepyfile(module)
    return pytester.runpytest_inprocess("-o", "asyncio_default_fixture_loop_scope=function", *arguments)


@pytest.mark.parametrize(
    "parallel",
    [
        pytest.param(("-p", "no:xdist"), id="one process"),
        pytest.param(("-n", "1"), id="xdist", marks=pytest.mark.full),
    ],
)
def test_the_table_is_written_when_it_is_asked_for(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    parallel: tuple[str, ...],
) -> None:
    monkeypatch.setattr("tests.faults.conftest.declared", lambda: [TWO, ONE])
    result = run(pytester, *parallel, "--fault-table", "table.md")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["table.md is written."])
    text = (pytester.path / "table.md").read_text(encoding="utf-8")
    assert "| A fault | in process | what one sees | 0.1 s | - | - |" in text
    assert [where for _, where, _ in rows_of(text)] == [IN_PROCESS, FASTAPI, STANDALONE]
    assert text.count("10 of 10 messages") == 2


def test_no_table_is_written_when_a_row_is_missing_or_a_test_fails(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.faults.conftest.declared", lambda: [TWO, ONE])
    arguments = "-p", "no:xdist", "--fault-table", "table.md"
    result = run(pytester, *arguments, "-k", "in_process")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(["table.md is not written. Not measured: another fault / *"])
    result = run(pytester, *arguments, module=MODULE.replace("fault.told()", ""))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.no_fnmatch_line("table.md *")
    assert not (pytester.path / "table.md").exists()


def test_without_the_option_nothing_is_written(pytester: pytest.Pytester) -> None:
    result = run(pytester, "-p", "no:xdist", module=f"{MODULE}\ndef test_undeclared(fault):\n    pass\n")
    result.assert_outcomes(passed=3, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*Declare the row: @row*"])
    result.stdout.no_fnmatch_line("* written*")
