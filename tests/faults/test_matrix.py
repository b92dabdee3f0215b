"""Faults in process: each test causes a fault and measures the values of its rows in docs/faults.md."""

import asyncio
import selectors
import ssl
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

from faststream_adapters import BrokerLifespan, make_readiness_asgi
from faststream_adapters._lifecycle.managed import managed_broker
from faststream_adapters._utils.errors import BrokerStartError
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
from tests.harness.clients import client, eventually_status, status
from tests.harness.servers import HOST, hold_port
from tests.harness.servers.nats import NatsFactory, NatsServer, tls
from tests.harness.waiting import eventually

pytest_plugins = ["pytester"]

kinds = pytest.mark.parametrize(
    "kind",
    ["core", pytest.param("push", marks=pytest.mark.full), pytest.param("pull", marks=pytest.mark.full)],
)
jetstream_kinds = pytest.mark.parametrize("kind", ["push", pytest.param("pull", marks=pytest.mark.full)])


async def startup_fails(service: Service, fault: Fault, reason: str = ".+") -> None:
    """Check that a strict startup fails with an error that contains the reason and no password."""
    fault.happened()
    with pytest.raises(BrokerStartError, match=f"could not be started.*: {reason}") as raised:
        await service.lifespan.enter()
    fault.not_ready()
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is not None
    assert str(service.lifespan.state) == "failed"
    assert not service.broker.running
    assert await status(service.ready) == 503


# --- The server at startup ---


@row(
    'Server down at startup, `startup="strict"`',
    "the startup fails with an error that says why; nothing is left behind, and it can be tried again",
)
@kinds
async def test_a_strict_startup_fails_while_the_server_is_down(
    nats_js: NatsServer, fault: Fault, kind: str
) -> None:
    nats_js.stop()
    service = Service(nats_js.url, kind, startup_timeout=3.0)
    await startup_fails(service, fault, "the connection was refused")
    fault.repaired()
    nats_js.start()
    async with service.lifespan:
        await recovers(service, fault)


@row(
    'Server down at startup, `startup="background"`',
    "503 at once, liveness 200; recovers by itself when the server is up",
)
@kinds
async def test_a_background_startup_succeeds_when_the_server_comes_up(
    nats_js: NatsServer, fault: Fault, kind: str
) -> None:
    nats_js.stop()
    service = Service(nats_js.url, kind, startup="background")
    fault.happened()
    async with service.lifespan:
        assert await status(service.ready) == 503
        fault.not_ready()
        # The server comes up after the first attempt has failed.
        managed = managed_broker(service.broker)
        await eventually(lambda: managed.error is not None)
        assert await status(service.ready) == 503
        assert await status(service.live) == 200
        fault.repaired()
        nats_js.start()
        await service.works()
        fault.ready()


@row(
    'Server frozen at startup, `startup="strict"`',
    "the startup fails within `startup_timeout` (3 s here)",
)
@pytest.mark.full
async def test_a_strict_startup_fails_while_the_server_is_frozen(nats_js: NatsServer, fault: Fault) -> None:
    nats_js.freeze()
    service = Service(nats_js.url, "push", startup_timeout=3.0)
    await startup_fails(service, fault, "it did not reply in time")
    fault.repaired()
    nats_js.thaw()
    async with service.lifespan:
        await recovers(service, fault)


@row(
    'Server frozen at startup, `startup="background"`',
    "503 at once, liveness 200; recovers by itself when the server responds",
)
@pytest.mark.full
async def test_a_background_startup_succeeds_when_the_server_is_thawed(
    nats_js: NatsServer,
    fault: Fault,
    caplog: pytest.LogCaptureFixture,
) -> None:
    nats_js.freeze()
    service = Service(nats_js.url, "push", startup="background", client={"connect_timeout": 1})
    fault.happened()
    async with service.lifespan:
        assert await status(service.ready) == 503
        fault.not_ready()
        await eventually(lambda: "is not up yet" in caplog.text)
        assert await status(service.ready) == 503
        assert await status(service.live) == 200
        fault.repaired()
        nats_js.thaw()
        await service.works()
        fault.ready()


# --- The server while the service runs ---


async def becomes_unready(service: Service, fault: Fault) -> None:
    """Wait until readiness fails. Liveness succeeds, because the service can recover by itself."""
    await eventually_status(service.ready, 503, 30.0)
    fault.not_ready()
    assert await status(service.live) == 200


async def recovers(service: Service, fault: Fault) -> None:
    """Wait until readiness is 200 and a message is handled."""
    await service.works()
    fault.ready()


@row(
    "Server killed and restarted, core NATS", "503 while the server is down, liveness 200; recovers by itself"
)
async def test_readiness_fails_while_the_server_is_down(nats: NatsServer, fault: Fault) -> None:
    service = Service(nats.url)
    async with service.lifespan:
        for _ in range(3):
            await service.works()
            fault.happened()
            nats.kill()
            await becomes_unready(service, fault)
            fault.repaired()
            nats.restart()
            await recovers(service, fault)


@row(
    "Server killed and restarted, JetStream",
    "503 while the server is down, liveness 200; recovers by itself",
    counts="acknowledged publishes handled",
)
@jetstream_kinds
async def test_acknowledged_publishes_survive_a_restart_of_the_server(
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
            await becomes_unready(service, fault)
            fault.repaired()
            nats_js.restart()
            await recovers(service, fault)
    fault.counted(len(set(service.handled)), of=len(service.published))


@pytest.mark.full
@row(
    "Server frozen and thawed",
    "503 while the server does not respond, liveness 200; recovers by itself",
)
@kinds
async def test_readiness_fails_while_the_server_is_frozen(
    nats_js: NatsServer, fault: Fault, kind: str
) -> None:
    service = Service(nats_js.url, kind)
    async with service.lifespan:
        await service.works()
        for _ in range(2):
            fault.happened()
            nats_js.freeze()
            await becomes_unready(service, fault)
            fault.repaired()
            nats_js.thaw()
            await recovers(service, fault)


@row(
    "Server down for longer than the client tries to reconnect",
    "503 while the server is down, liveness 200; the client does not give up, and recovers by itself",
)
@kinds
async def test_the_client_reconnects_beyond_its_limit_of_attempts(
    nats_js: NatsServer, fault: Fault, kind: str
) -> None:
    service = Service(nats_js.url, kind, client={"max_reconnect_attempts": 1})
    async with service.lifespan:
        await service.works()
        client = service.broker.connection
        fault.happened()
        nats_js.kill()
        await becomes_unready(service, fault)
        # With more failures than this, the client would have given up.
        await eventually(lambda: all(each.reconnects > 3 for each in client._server_pool))  # noqa: SLF001 (counted nowhere else)
        fault.repaired()
        nats_js.restart()
        await recovers(service, fault)


@row(
    "Server up for a second and down for a second, 15 times",
    "503 while the server is down, liveness 200; recovers by itself",
    counts="acknowledged publishes handled",
)
@jetstream_kinds
@pytest.mark.full
@pytest.mark.timeout(240)
async def test_acknowledged_publishes_survive_a_flapping_server(
    nats_js: NatsServer, fault: Fault, kind: str
) -> None:
    service = Service(nats_js.url, kind)
    loop = asyncio.get_running_loop()
    stopping = False
    refused = 0

    async def publish() -> None:
        nonlocal refused
        while not stopping:
            try:
                await service.publish(0.5)
            except Exception:  # noqa: BLE001 (not acknowledged, so it may be lost)
                refused += 1
            # Limit the rate, because throughput is not what is tested.
            await asyncio.sleep(0.02)

    async with service.lifespan:
        await service.works()
        publisher = asyncio.create_task(publish())
        for _ in range(15):
            start = loop.time()
            fault.happened()
            nats_js.kill()
            await becomes_unready(service, fault)
            await asyncio.sleep(max(0.0, start + 1.0 - loop.time()))
            fault.repaired()
            nats_js.restart()
            before = len(service.published)
            await eventually_status(service.ready, 200, 30.0)
            await eventually(lambda before=before: len(service.published) > before, 30.0)  # type: ignore[misc]
            fault.ready()
            assert await status(service.live) == 200
            await asyncio.sleep(max(0.0, start + 2.0 - loop.time()))
        stopping = True
        await publisher
        await service.works()
    assert refused
    fault.counted(len(set(service.handled)), of=len(service.published))


# --- Credentials and TLS ---


def trusting(certificate: Path, **options: Any) -> dict[str, Any]:
    return {"security": NatsSecurity(ssl_context=ssl.create_default_context(cafile=certificate), **options)}


WRONG_PASSWORD = "Wrong password at startup"


@row(
    f'{WRONG_PASSWORD}, `startup="strict"`',
    "the startup fails with an error that says why, without the password; it can be tried again",
)
async def test_a_strict_startup_fails_while_the_password_is_wrong(
    nats_factory: NatsFactory, fault: Fault
) -> None:
    server = nats_factory(user="user", password="changed")
    server.password = "secret"
    service = Service(server.url, client={"max_reconnect_attempts": 3})
    await startup_fails(service, fault, "the credentials were rejected")
    fault.repaired()
    server.restart()
    async with service.lifespan:
        await recovers(service, fault)


@row(
    f'{WRONG_PASSWORD}, `startup="background"`',
    "503, liveness 200; recovers by itself once the password is correct",
)
@pytest.mark.full
async def test_a_background_startup_succeeds_when_the_password_is_corrected(
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
        fault.not_ready()
        await eventually(lambda: "is not up: the credentials were rejected (" in caplog.text)
        assert await status(service.live) == 200
        fault.repaired()
        server.restart()
        await recovers(service, fault)
    assert "secret" not in caplog.text


@row(
    "Password changed while the service runs, and changed back",
    "503 while the password is wrong, liveness 200; recovers by itself",
)
@pytest.mark.full
async def test_readiness_fails_while_the_password_is_wrong(nats_factory: NatsFactory, fault: Fault) -> None:
    server = nats_factory(user="user", password="secret")
    service = Service(server.url)
    async with service.lifespan:
        await service.works()
        first = service.broker.connection
        server.password = "changed"
        fault.happened()
        server.reload()
        await becomes_unready(service, fault)
        await eventually(lambda: first.is_closed, 30.0)
        assert await status(service.ready) == 503
        server.password = "secret"
        fault.repaired()
        server.reload()
        await recovers(service, fault)


@row(
    "The server requires TLS with a certificate that the client does not trust",
    "the startup fails; it can be tried again once the certificate is trusted or TLS is off",
)
@pytest.mark.parametrize("startup", ["strict", pytest.param("background", marks=pytest.mark.full)])
@pytest.mark.full
async def test_startup_fails_while_the_certificate_is_not_trusted(
    nats_factory: NatsFactory,
    fault: Fault,
    certificate: Path,
    startup: Literal["strict", "background"],
) -> None:
    server = nats_factory(config=tls(certificate))
    service = Service(server.url, startup=startup, startup_timeout=3.0 if startup == "strict" else None)
    if startup == "strict":
        await startup_fails(service, fault, r"TLS failed \(CERTIFICATE_VERIFY_FAILED\)")
    else:
        fault.happened()
        await service.lifespan.enter()
        await becomes_unready(service, fault)
    server.config = ""
    fault.repaired()
    server.restart()
    if startup == "strict":
        await service.lifespan.enter()
    await recovers(service, fault)
    await service.lifespan.leave()


@row(
    "The client requires TLS, the server has none",
    "the startup fails",
)
@pytest.mark.full
@pytest.mark.parametrize("first", [True, False], ids=["TLS first", "TLS when the server requires it"])
async def test_startup_fails_while_the_server_has_no_tls(
    nats_factory: NatsFactory,
    fault: Fault,
    certificate: Path,
    *,
    first: bool,
) -> None:
    server = nats_factory()
    client = trusting(certificate, tls_handshake_first=first)
    service = Service(server.url, client=client, startup_timeout=3.0)
    # nats-py itself would continue without TLS if the server does not require it.
    reason = ".+" if first else "the broker's options require TLS, and the server does not offer it"
    await startup_fails(service, fault, rf"TLS failed \({reason}\)")
    server.config = tls(certificate).replace("tls {", "tls { handshake_first: auto,")
    fault.repaired()
    server.restart()
    async with service.lifespan:
        await recovers(service, fault)


@pytest.mark.full
async def test_readiness_fails_after_the_client_reconnected_without_tls(
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
            # nats-py has reconnected without TLS.
            while (await http.get("/")).json()["code"] != "error":
                ...


# --- Two brokers ---


@row(
    "One of two brokers down",
    "503, liveness 200; the other broker keeps consuming",
)
async def test_a_broker_consumes_while_the_other_is_down(nats_factory: NatsFactory, fault: Fault) -> None:
    first, second = nats_factory(), nats_factory()
    service, other = Service(first.url), Service(second.url)
    service.run_by(BrokerLifespan(service.broker, other.broker))
    async with service.lifespan:
        for stopped, lost, kept in ((first, service, other), (second, other, service)):
            fault.happened()
            stopped.kill()
            await becomes_unready(service, fault)
            await kept.publish()
            await kept.handled_all()
            fault.repaired()
            stopped.restart()
            lost.ready = service.ready
            await recovers(lost, fault)


@row(
    "One of two brokers down, named in `optional=`",
    'stays 200, with `"status": "warn"` in the details; the other broker keeps consuming',
)
async def test_readiness_succeeds_while_an_optional_broker_is_down(
    nats_factory: NatsFactory, fault: Fault
) -> None:
    first, second = nats_factory(), nats_factory()
    service, other = Service(first.url), Service(second.url)
    service.run_by(BrokerLifespan(service.broker, other.broker, optional=(other.broker,)))
    details = make_readiness_asgi(service.lifespan, details=True)

    async def health() -> str:
        async with client(details) as http:
            response = await http.get("/")
        assert response.status_code == 200
        return str(response.json()["status"])

    second.stop()
    for _ in range(2):
        fault.happened()
        async with service.lifespan:
            await service.works()
            await until(health, "warn")
            fault.not_ready()
            fault.repaired()
            second.start()
            await until(health, "pass")
            await other.publish()
            await other.handled_all()
            fault.ready()
            fault.happened()
            second.kill()
            await until(health, "warn")
            fault.not_ready()
            await service.works()


async def until(get: Callable[[], Awaitable[str]], expected: str) -> None:
    async with asyncio.timeout(30):
        while await get() != expected:  # noqa: ASYNC110 (a probe can only be polled)
            await asyncio.sleep(0.02)


# --- Handlers ---


class Raising(Service):
    """A service whose handler raises twice for every fourth message."""

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
    "200; other messages are handled; with `AckPolicy.NACK_ON_ERROR` JetStream redelivers the message",
    counts="messages handled in the end",
)
@jetstream_kinds
async def test_messages_are_redelivered_to_a_handler_that_raised(
    nats_js: NatsServer, fault: Fault, kind: str
) -> None:
    service = Raising(nats_js.url, kind)
    async with service.lifespan:
        for _ in range(12):
            await service.publish()
            assert await status(service.ready) == 200
        await service.handled_all()
        assert await status(service.ready) == 200
    assert sorted(service.raised) == [0, 0, 4, 4, 8, 8]
    fault.counted(len(set(service.handled)), of=len(service.published))


class Hanging(Service):
    """A service whose handler never returns for the first message, unless `repaired` is set."""

    hanging = False
    repaired = False

    async def work(self, number: int) -> None:
        if not self.repaired and number == 0:
            self.hanging = True
            await asyncio.Event().wait()


@row(
    "Handler hangs",
    "200; the shutdown ends after `shutdown_timeout` (1 s here); JetStream redelivers the message after "
    "the next start",
    counts="messages handled in the end",
)
@jetstream_kinds
async def test_shutdown_times_out_on_a_handler_that_hangs(
    nats_js: NatsServer, fault: Fault, kind: str
) -> None:
    service = Hanging(nats_js.url, kind, shutdown_timeout=1.0)
    async with service.lifespan:
        await service.publish()
        await service.publish()
        await eventually(lambda: service.hanging)
        assert await status(service.ready) == 200
        assert await status(service.live) == 200
        start = time.monotonic()
    # nats-py's drain would have taken 30 s, and the handler never returns.
    assert time.monotonic() - start < 8
    assert str(service.lifespan.state) == "stopped"
    assert 0 not in service.handled
    service.repaired = True
    fault.repaired()
    async with service.lifespan:
        await recovers(service, fault)
    fault.counted(len(set(service.handled)), of=len(service.published))


class Blocking(Service):
    """A service whose handler blocks the event loop for longer than a probe may take."""

    async def work(self, number: int) -> None:
        if number == 0:
            threading.Event().wait(1.5)


@pytest.mark.full
@row(
    "Handler blocks the event loop for 1.5 s",
    "no probe responds meanwhile; right afterwards they do, with 200",
    counts="messages handled",
)
@kinds
async def test_probes_succeed_after_a_handler_blocked_the_event_loop(
    nats_js: NatsServer, fault: Fault, kind: str
) -> None:
    service = Blocking(nats_js.url, kind)
    async with service.lifespan:
        fault.repaired()
        for _ in range(20):
            await service.publish()
        await recovers(service, fault)
        assert await status(service.live) == 200
    fault.counted(len(set(service.handled)), of=len(service.published))


# --- Hooks ---


@row(
    "A hook of the FastStream app raises",
    "the startup or the shutdown of the host fails with the hook's error, and the brokers are stopped",
)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("hooks", ["on_startup", "after_startup", "on_shutdown", "after_shutdown"])
async def test_the_error_of_a_hook_is_raised(
    nats: NatsServer, fault: Fault, hooks: str, asynchronous: bool
) -> None:
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

    async def run() -> None:
        fault.happened()
        async with service.lifespan(host):
            connected.append(service.broker.connection)
            await service.works()
            # The fault of a shutdown hook happens from here on.
            fault.happened()

    with pytest.raises(ValueError, match="broken") as raised:
        await run()
    fault.not_ready()
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
        await recovers(service, fault)
    assert not service.broker.running


# --- Cancellation ---


NOTHING_LEFT = (
    "nothing is left behind: no task, no connection, no open lifespan of the app; the state is `stopped`, "
    "and the lifespan can be entered again"
)


class Steps(selectors.DefaultSelector):
    """A selector that counts the steps of its event loop and calls a function at one of them."""

    def __init__(self) -> None:
        super().__init__()
        self._left = 0
        self._then: Callable[[], object] = lambda: None

    def at(self, step: int, then: Callable[[], object]) -> None:
        """Call `then` at this step from now, if the event loop gets that far."""
        self._left, self._then = step, then

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(timeout)
        self._left -= 1
        if self._left == 0:
            self._then()
        return events

    async def cancel_at(self, step: int, coroutine: Coroutine[Any, Any, None]) -> bool:
        """Cancel the coroutine at this step, and return whether it was still running."""
        task = asyncio.create_task(coroutine)
        self.at(step, task.cancel)
        async with asyncio.timeout(30):
            await asyncio.wait((task,))
        self.at(0, lambda: None)
        if not task.cancelled():
            task.result()
        return task.cancelled()


class MonitoredServer:
    """A server whose monitoring endpoint reports how many clients are connected."""

    def __init__(self, factory: NatsFactory) -> None:
        self.port, self.held_port = hold_port()
        self.server = factory(jetstream=True, config=f'http: "{HOST}:{self.port}"')

    async def wait_for_no_clients(self) -> None:
        """Wait until the last connection is closed."""
        async with httpx.AsyncClient(verify=False) as http, asyncio.timeout(10):  # noqa: S501 (plain HTTP)
            url = f"http://{HOST}:{self.port}/connz"
            while (await http.get(url)).json()["num_connections"]:
                ...

    async def delete_stream(self, stream: str) -> None:
        """Delete a stream if it exists."""
        connection = await nats_py.connect(self.server.url)
        with suppress(NotFoundError):
            await connection.jetstream().delete_stream(stream)
        await connection.close()


def cancelled_at_every_step(
    service: Service,
    monitored: MonitoredServer,
    fault: Fault,
    cancel_at: Callable[[Steps, int], Coroutine[Any, Any, bool]],
) -> None:
    """Cancel at each step in turn until the coroutine completes. Each time, check that nothing is left."""
    steps = Steps()

    async def nothing_is_left() -> None:
        assert str(service.lifespan.state) == "stopped"
        assert not service.broker.running
        # A cancelled drain of nats-py may take a moment to end.
        await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})
        await monitored.wait_for_no_clients()

    async def run() -> None:
        # At the first step, the coroutine has not started.
        step = 2
        while await cancel_at(steps, step):
            await nothing_is_left()
            async with service.lifespan:
                await service.works()
            await nothing_is_left()
            step += 1
        await nothing_is_left()
        # Far fewer steps would mean that connecting was not cancelled.
        assert step > 10
        fault.counted(step - 2, of=step - 2)

    with (
        monitored.held_port or nullcontext(),
        asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(steps)) as runner,
    ):
        runner.run(run())


@pytest.mark.full
@row(
    "Startup cancelled, at every step of the event loop",
    NOTHING_LEFT,
    counts="steps after which the lifespan worked again",
)
@kinds
def test_a_cancelled_startup_leaves_nothing_behind(
    nats_factory: NatsFactory, fault: Fault, kind: str
) -> None:
    monitored = MonitoredServer(nats_factory)
    service = Service(monitored.server.url, kind)

    async def cancel_at(steps: Steps, step: int) -> bool:
        # Each startup has to create the stream, like the first one.
        await monitored.delete_stream("jobs")
        service.published.clear()
        service.handled.clear()
        if await steps.cancel_at(step, service.lifespan.enter()):
            return True
        await service.lifespan.leave()
        return False

    cancelled_at_every_step(service, monitored, fault, cancel_at)


@row(
    "Startup of a FastStream app cancelled, at every step of the event loop",
    NOTHING_LEFT,
    counts="steps after which the lifespan worked again",
)
@pytest.mark.full
def test_a_cancelled_startup_of_an_app_leaves_nothing_behind(nats_factory: NatsFactory, fault: Fault) -> None:
    monitored = MonitoredServer(nats_factory)
    service, other = Service(monitored.server.url), Service(monitored.server.url, "pull")
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

    async def cancel_at(steps: Steps, step: int) -> bool:
        cancelled = await steps.cancel_at(step, service.lifespan.enter())
        if not cancelled:
            assert opened == 1
            await service.lifespan.leave()
        assert opened == 0
        assert not other.broker.running
        return cancelled

    cancelled_at_every_step(service, monitored, fault, cancel_at)


@pytest.mark.full
@row(
    "Shutdown cancelled, at every step of the event loop",
    NOTHING_LEFT,
    counts="steps after which the lifespan worked again",
)
@kinds
def test_a_cancelled_shutdown_leaves_nothing_behind(
    nats_factory: NatsFactory, fault: Fault, kind: str
) -> None:
    monitored = MonitoredServer(nats_factory)
    service = Service(monitored.server.url, kind)

    async def cancel_at(steps: Steps, step: int) -> bool:
        await service.lifespan.enter()
        await service.works()
        if kind != "core":
            # Not handled yet. The server has acknowledged the publish, so the next startup must handle it.
            await service.publish()
        return await steps.cancel_at(step, service.lifespan.leave())

    cancelled_at_every_step(service, monitored, fault, cancel_at)


@row(
    "Shutdown cancelled during a background startup, at every step of the event loop",
    NOTHING_LEFT,
    counts="steps after which the lifespan worked again",
)
@pytest.mark.full
def test_a_shutdown_cancelled_during_a_background_startup_leaves_nothing_behind(
    nats_factory: NatsFactory, fault: Fault
) -> None:
    monitored = MonitoredServer(nats_factory)
    service = Service(monitored.server.url, "pull", startup="background")

    async def cancel_at(steps: Steps, step: int) -> bool:
        await service.lifespan.enter()
        return await steps.cancel_at(step, service.lifespan.leave())

    cancelled_at_every_step(service, monitored, fault, cancel_at)


# --- The table ---


def test_the_page_contains_the_declared_rows() -> None:
    rows = [(name, where, each.sees) for (name, where), each in lines(declared()).items()]
    assert rows_of(PAGE.read_text(encoding="utf-8")) == rows, "Run `make fault-table`, and commit the page."


ONE = Row("A fault", "what one sees", (IN_PROCESS,), "")
TWO = Row("another fault", "something else", (STANDALONE, FASTAPI), "messages")


def test_the_table_is_sorted_and_shows_the_slowest_run() -> None:
    runs = [
        Measured("another fault", STANDALONE, 0.31, None, 5, 5),
        Measured("another fault", STANDALONE, 1.0, 0.01, 15, 15),
        Measured("another fault", FASTAPI, None, None, 20, 20),
        Measured("A fault", IN_PROCESS, 0.5, 12.34, 0, 0),
    ]
    text = page([TWO, ONE, TWO], runs)
    assert text.splitlines()[-5:] == [
        "| Fault | Where | Effect | Not ready after | Ready after | Nothing lost |",
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


def test_a_row_that_was_not_measured_is_refused() -> None:
    runs = [Measured("another fault", STANDALONE, 0.31, None, 5, 5)]
    with pytest.raises(LookupError, match=r"A fault / in process, another fault / uvicorn \+ FastAPI\.$"):
        page([ONE, TWO], runs)


def test_two_different_rows_with_the_same_name_are_refused() -> None:
    with pytest.raises(AssertionError, match="Two different rows have the name 'A fault'"):
        lines([ONE, Row("A fault", "something else", (IN_PROCESS,), "")])


def test_the_slowest_time_is_kept() -> None:
    fault = Fault(TWO)
    fault.at(FASTAPI)
    never = threading.Event()
    for seconds in (0.0, 0.2, 0.0):
        fault.happened()
        fault.repaired()
        never.wait(seconds)
        fault.not_ready()
        fault.ready()
        fault.counted(5, of=5)
    measured = fault.measured()
    assert measured[:2] == ("another fault", FASTAPI)
    assert measured.time_to_unready is not None
    assert measured.time_to_ready is not None
    assert 0.2 <= measured.time_to_unready <= measured.time_to_ready
    assert measured[4:] == (15, 15)


def test_an_incomplete_measurement_is_refused() -> None:
    with pytest.raises(AssertionError, match="place of this run is not set"):
        Fault(TWO).measured()
    with pytest.raises(AssertionError, match="does not say what is counted"):
        Fault(ONE).counted(1, of=1)
    fault = Fault(ONE)
    fault.happened()
    fault.repaired()
    with pytest.raises(AssertionError, match="No time was recorded after: fault, repair"):
        fault.measured()
    fault = Fault(TWO)
    fault.at(STANDALONE)
    with pytest.raises(AssertionError, match="was not called"):
        fault.measured()


MODULE = """
from tests.faults.matrix import STANDALONE, FASTAPI, row
import pytest

def test_without_a_row():
    raise AssertionError("Only tests that declare a row run for the table.")

@row("A fault", "what one sees")
def test_in_process(fault):
    fault.happened()
    fault.not_ready()

@row("another fault", "something else", where=(STANDALONE, FASTAPI), counts="messages")
@pytest.mark.parametrize("where", [STANDALONE, FASTAPI])
def test_in_two_places(fault, where):
    fault.at(where)
    fault.counted(10, of=10)
"""


def run(pytester: pytest.Pytester, *arguments: str, module: str = MODULE) -> pytest.RunResult:
    pytester.makeconftest("from tests.faults.conftest import *")
    pytester.makepyfile(module)
    options = "-p", "no:faker", "-p", "no:rerunfailures", "-o", "asyncio_default_fixture_loop_scope=function"
    return pytester.runpytest_inprocess(*options, *arguments)


@pytest.mark.parametrize(
    "parallel",
    [
        pytest.param(("-p", "no:xdist"), id="one process"),
        pytest.param(("-n", "1"), id="xdist", marks=pytest.mark.full),
    ],
)
def test_the_option_writes_the_table(
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


def test_the_table_keeps_the_sections_after_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.faults.conftest.declared", lambda: [TWO, ONE])
    table, section = pytester.path / "table.md", "\n## Section\n\n| one | cell | here |\n"
    table.write_text(f"old\n{section}", encoding="utf-8")
    run(pytester, "-p", "no:xdist", "--fault-table", "table.md")
    text = table.read_text(encoding="utf-8")
    assert text.endswith(section)
    assert not text.startswith("old")
    assert len(rows_of(text)) == 3


def test_no_table_is_written_if_a_row_is_missing_or_a_test_fails(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.faults.conftest.declared", lambda: [TWO, ONE])
    arguments = "-p", "no:xdist", "--fault-table", "table.md"
    result = run(pytester, *arguments, "-k", "in_process")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(["table.md is not written. Not measured: another fault / *"])
    result = run(pytester, *arguments, module=MODULE.replace("fault.not_ready()", ""))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.no_fnmatch_line("table.md *")
    assert not (pytester.path / "table.md").exists()


def test_no_table_is_written_without_the_option(pytester: pytest.Pytester) -> None:
    result = run(pytester, "-p", "no:xdist", module=f"{MODULE}\ndef test_undeclared(fault):\n    pass\n")
    result.assert_outcomes(passed=3, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*Declare the row: @row*"])
    result.stdout.no_fnmatch_line("* written*")
