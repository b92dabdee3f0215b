"""The `run` and `info` commands that Litestar and Quart share."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
from click.testing import CliRunner
from faststream import FastStream
from faststream.nats import NatsBroker

from faststream_adapters import BrokerLifespan
from faststream_adapters._hosting.commands import broker_commands, run
from faststream_adapters._hosting.overview import overview, select_subscribers
from faststream_adapters._lifecycle.run_mode import RunMode, run_as
from faststream_adapters._utils.errors import BrokerStartError
from tests.harness.servers.asgi import AppServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from tests.harness.servers.nats import NatsServer

COMMAND = """
import asyncio, logging, os, sys
from contextlib import asynccontextmanager
from faststream.nats import NatsBroker
from faststream_adapters import BrokerLifespan
from faststream_adapters._hosting.commands import broker_commands

logging.basicConfig(level="INFO", stream=sys.stdout, force=True)
broker = NatsBroker(os.environ["NATS_URL"])
lifespan = BrokerLifespan(
    broker,
    drain_delay=float(os.environ.get("DRAIN_DELAY", "0")),
    startup=os.environ.get("STARTUP", "strict"),
    startup_timeout=float(os.environ.get("STARTUP_TIMEOUT", "20")),
    consume="CONSUME" not in os.environ,
)

@broker.subscriber("orders")
async def handle(order: int) -> None:
    print("handling", order, flush=True)
    await asyncio.sleep(float(os.environ.get("WORK", "0")))
    print("handled", order, flush=True)

@asynccontextmanager
async def running():
    print("host up", flush=True)
    try:
        async with lifespan:
            await broker.publish(1, "orders")
            print("up", flush=True)
            yield
    finally:
        print("host down", flush=True)

broker_commands(running, lambda: [lifespan])(os.environ.get("COMMAND", "run").split())
"""


def commands(url: str, **environment: str) -> AppServer:
    environment = {"NATS_URL": url, **environment}
    return AppServer([sys.executable, "main.py"], app=COMMAND, env=environment, ready_path=None)


@asynccontextmanager
async def host_that_receives(number: int, log: list[str]) -> AsyncIterator[None]:
    """A host that sends this process a signal as soon as it has started."""
    log.append("up")
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)
    yield
    log.append("down")


class FailingHost(AbstractAsyncContextManager[None]):
    """A host whose start awaits a function that does not return normally."""

    def __init__(self, start: Callable[[], Awaitable[object]]) -> None:
        self.start = start

    async def __aenter__(self) -> None:
        await self.start()

    async def __aexit__(self, *_: object) -> None:
        """Do nothing, because the host has never started."""


# --- run ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_a_signal_stops_the_host_and_the_signal_handlers_are_restored(number: int) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    log: list[str] = []
    assert await run(host_that_receives(number, log)) is None
    assert log == ["up", "down"]
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


async def test_a_signal_during_the_start_cancels_it() -> None:
    log: list[str] = []

    async def stuck() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("released")

    async with asyncio.timeout(10):
        assert await run(FailingHost(stuck)) is None
    assert log == ["released"]


async def test_a_cancellation_from_outside_stops_the_host_and_propagates() -> None:
    up = asyncio.Event()
    log: list[str] = []

    @asynccontextmanager
    async def host() -> AsyncIterator[None]:
        up.set()
        try:
            yield
        finally:
            log.append("down")

    task = asyncio.create_task(run(host()))
    await up.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["down"]


async def test_a_failed_start_returns_the_reason_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    def failing(error: Exception) -> FailingHost:
        async def start() -> None:
            raise error

        return FailingHost(start)

    assert await run(failing(BrokerStartError("NatsBroker is down."))) == "NatsBroker is down."
    message = await run(failing(ValueError("redis://user:hunter2@cache is wrong")))
    assert message == "The startup failed with ValueError; see the log for the traceback."
    assert "redis://***@cache is wrong" in caplog.text
    assert "hunter2" not in caplog.text


async def test_a_failed_shutdown_returns_the_reason() -> None:
    @asynccontextmanager
    async def host() -> AsyncIterator[None]:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        yield
        raise KeyError("late")

    assert await run(host()) == "The shutdown failed with KeyError; see the log for the traceback."


# --- the commands ---


@pytest.mark.parametrize("delay", [pytest.param("0", marks=pytest.mark.full), "0.3"])
def test_the_command_consumes_and_finishes_its_messages_at_sigterm(nats: NatsServer, delay: str) -> None:
    with commands(nats.url, WORK="0.5", DRAIN_DELAY=delay) as process:
        process.wait_output("handling 1")
        process.terminate()
        assert process.wait() == 0
        output = process.output()
    assert output.index("host up") < output.index("handled 1") < output.index("host down")
    assert "Brokers: draining -> stopped" in output


@pytest.mark.full
def test_the_command_consumes_although_the_application_does_not(nats: NatsServer) -> None:
    with commands(nats.url, CONSUME="no") as process:
        process.wait_output("handled 1")
        process.terminate()
        assert process.wait() == 0


@pytest.mark.full
def test_a_second_interrupt_ends_the_command_immediately(nats: NatsServer) -> None:
    with commands(nats.url, WORK="60") as process:
        process.wait_output("handling 1")
        process.interrupt()
        process.wait_output("running -> draining")
        process.interrupt()
        assert process.wait() == 1
        assert "handled 1" not in process.output()
        assert "host down" in process.output()


def test_a_failed_start_prints_one_line_without_secrets(nats: NatsServer) -> None:
    nats.stop()
    url = f"nats://user:hunter2@127.0.0.1:{nats.port}"
    ended = commands(url, STARTUP_TIMEOUT="0.3").run_to_exit()
    assert ended.returncode == 1
    address = f"nats://127.0.0.1:{nats.port}"
    problem = f"Error: NatsBroker {address} could not be started within 0.3 s: the connection was refused."
    assert ended.output.splitlines().count(problem) == 1
    assert "Traceback" not in ended.output
    assert "hunter2" not in ended.output


@pytest.mark.full
def test_a_signal_while_connecting_ends_the_command_with_0(nats: NatsServer) -> None:
    nats.stop()
    with commands(nats.url) as process:
        process.wait_output("host up")
        process.wait_output("Brokers: stopped -> starting")
        process.terminate()
        assert process.wait() == 0
        assert "host down" in process.output()
        assert "\nup\n" not in process.output()


@pytest.mark.full
def test_a_signal_ends_the_command_during_a_start_in_the_background(nats: NatsServer) -> None:
    # Publishing at the start would need a connection, so this application does not publish.
    nats.stop()
    app = COMMAND.replace('await broker.publish(1, "orders")', "pass")
    environment = {"NATS_URL": nats.url, "STARTUP": "background"}
    with AppServer([sys.executable, "main.py"], app=app, env=environment, ready_path=None) as process:
        process.wait_output("\nup\n")
        process.terminate()
        assert process.wait() == 0


def test_the_command_serves_default_probes_at_an_address(nats: NatsServer, free_address: str) -> None:
    with commands(nats.url, COMMAND=f"run --listen {free_address}", DRAIN_DELAY="60") as process:
        process.wait_output("handled 1", 30)
        with httpx.Client(base_url=f"http://{free_address}") as http:
            for path in ("/livez", "/readyz", "/startupz"):
                assert http.get(path).text == "ok"
            process.terminate()
            process.wait_output("running -> draining")
            assert http.get("/readyz").text == "draining"
        # A second signal ends the delay.
        process.interrupt()
        assert process.wait(30) == 0


def test_an_address_in_use_is_an_error_of_one_line(free_address: str) -> None:
    host, _, port = free_address.partition(":")
    lifespan = BrokerLifespan(NatsBroker("nats://127.0.0.1:1"))
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((host, int(port)))
        other.listen()
        group = broker_commands(lifespan, lambda: [lifespan])
        result = CliRunner().invoke(group, ["run", "--listen", free_address])
    assert result.exit_code == 1
    problem = f"Error: --listen: Cannot listen on {free_address}: Address already in use.\n"
    assert result.output.endswith(problem)
    assert "Traceback" not in result.output


@pytest.mark.parametrize("address", ["8081", "localhost", "fd://3"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    group = broker_commands(lambda: pytest.fail("The host was started."), list)
    result = CliRunner().invoke(group, ["run", "--listen", address])
    assert result.exit_code == 2
    assert f"--listen must be an address to listen on, not '{address}'" in result.output


def test_an_address_needs_uvicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    group = broker_commands(lambda: pytest.fail("The host was started."), list)
    result = CliRunner().invoke(group, ["run", "--listen", ":8081"])
    assert result.exit_code == 1
    assert 'pip install "faststream-adapters[server]"' in result.output


def test_a_host_without_brokers_is_refused() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def host() -> AsyncIterator[None]:
        log.append("up")
        try:
            yield
        finally:
            log.append("down")

    result = CliRunner().invoke(broker_commands(host, list), ["run"])
    assert result.exit_code == 1
    assert result.output == "Error: This application runs no brokers, so nothing is consumed.\n"
    assert log == ["up", "down"]


# --- info ---


def test_the_table_lists_brokers_subscribers_and_publishers_without_passwords() -> None:
    orders = NatsBroker(["nats://user:hunter2@one:4222", "nats://token@two:4222"])
    audit = NatsBroker("nats://three:4222")

    @orders.subscriber("orders", queue="workers")
    @orders.publisher("done")
    async def accept(order: int) -> None:
        """Accept an order."""

    @orders.subscriber("cancelled")
    async def cancel(order: int) -> None:
        """Cancel an order."""

    @audit.subscriber("done")
    async def note(order: int) -> None:
        """Note an order."""

    lifespans = [
        BrokerLifespan(orders, consume=[accept], optional=["accept"]),
        BrokerLifespan(FastStream(audit), optional=[audit]),
        BrokerLifespan(orders, consume=["accept"], optional=[accept]),
    ]
    assert overview(lifespans).splitlines() == [
        "KIND          NAME            DESTINATION                       GROUP    STATE",
        "broker        NatsBroker 1    nats://one:4222, nats://two:4222",
        "  subscriber  accept          orders                            workers  consumes, optional",
        "  subscriber  cancel          cancelled                                  left out",
        "  publisher   done:Publisher",
        "broker        NatsBroker 2    nats://three:4222                          optional",
        "  subscriber  note            done                                       consumes",
    ]


def test_info_prints_the_table_without_starting_the_host() -> None:
    lifespan = BrokerLifespan(NatsBroker("nats://nowhere:1"))
    group = broker_commands(lambda: pytest.fail("The host was started."), lambda: [lifespan])
    result = CliRunner().invoke(group, ["info"])
    assert (result.exit_code, result.output) == (0, overview([lifespan]) + "\n")


@pytest.mark.parametrize("command", ["info", "run"])
def test_a_selector_of_the_application_that_names_no_subscriber_is_an_error(command: str) -> None:
    lifespan = BrokerLifespan(NatsBroker(), consume=["missing"], optional=["missing"])
    result = CliRunner().invoke(broker_commands(lifespan, lambda: [lifespan]), [command])
    assert result.exit_code == 1
    assert "Error: optional: 'missing' is not a subscriber of these brokers." in result.output


# --- what is consumed ---


class Shop:
    """Two brokers with two subscribers each, in two lifespans; for the web processes they consume nothing."""

    def __init__(self, url: str) -> None:
        self.brokers = [NatsBroker(url), NatsBroker(url)]
        for number, broker in enumerate(self.brokers):
            for subject in ("orders", "returns"):
                broker.subscriber(f"{subject}.{number}")(self.handler(subject))
        self.lifespans = [BrokerLifespan(broker, consume=False) for broker in self.brokers]

    @staticmethod
    def handler(name: str) -> Callable[[str], None]:
        def handle(message: str) -> None:
            """Handle a message."""

        handle.__name__ = name
        return handle

    async def consuming(self, brokers: Sequence[str], subscribers: Sequence[str]) -> set[str]:
        """Return the destinations of the subscribers that consume when these are named."""
        select = select_subscribers(self.lifespans, brokers, subscribers)
        with run_as(RunMode(consume=True, select=select)):
            async with self.lifespans[0], self.lifespans[1]:
                infos = [info for lifespan in self.lifespans for info in lifespan.subscribers]
                return {info.destination for info in infos if info.code == "ok"}


@pytest.mark.parametrize(
    ("brokers", "subscribers", "expected"),
    [
        ([], [], {"orders.0", "returns.0", "orders.1", "returns.1"}),
        (["NatsBroker 2"], [], {"orders.1", "returns.1"}),
        ([], ["orders@orders.0", "returns@returns.1"], {"orders.0", "returns.1"}),
        (["NatsBroker 1"], ["orders@orders.1"], {"orders.0", "returns.0", "orders.1"}),
    ],
)
async def test_what_is_named_is_consumed(
    brokers: Sequence[str], subscribers: Sequence[str], expected: set[str], shared_nats: NatsServer
) -> None:
    assert await Shop(shared_nats.url).consuming(brokers, subscribers) == expected


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            "--broker NatsBroker",
            "--broker: 'NatsBroker' can mean 'NatsBroker 1', 'NatsBroker 2'.",
        ),
        (
            "--broker Redis",
            "--broker: 'Redis' is not a broker of this application. Its brokers: ",
        ),
        ("--subscriber orders", "--subscriber: 'orders' can mean orders@orders.0, orders@orders.1."),
        ("--subscriber order", "Did you mean"),
    ],
)
def test_a_name_that_means_nothing_or_several_is_an_error(words: str, problem: str) -> None:
    group = broker_commands(lambda: pytest.fail("The host was started."), lambda: Shop("nats://x").lifespans)
    result = CliRunner().invoke(group, ["run", *words.split()])
    assert result.exit_code == 1
    assert result.output.startswith("Error: --")
    assert problem in result.output


def test_the_class_names_the_only_broker() -> None:
    broker = NatsBroker()
    subscriber = broker.subscriber("orders")
    select = select_subscribers([BrokerLifespan(broker)], ["NatsBroker"], [])
    assert select is not None
    assert select([broker]) == {subscriber}
    assert select([NatsBroker()]) == set()


def test_help_describes_the_commands() -> None:
    result = CliRunner().invoke(broker_commands(BrokerLifespan(NatsBroker()), list), ["--help"])
    assert "Consume messages, without a web server" in result.output
    assert "List brokers, subscribers and publishers" in result.output
