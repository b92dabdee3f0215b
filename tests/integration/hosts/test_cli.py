"""What the commands of Litestar and Quart have in common: run until a signal, list what there is."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from faststream import FastStream
from faststream.nats import NatsBroker

from faststream_adapters import BrokerLifespan
from faststream_adapters.cli import broker_commands, overview, run
from faststream_adapters.lifespan import BrokerStartError
from tests.servers.asgi import AppServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.servers.nats import NatsServer

COMMAND = """
import asyncio, logging, os, sys
from contextlib import asynccontextmanager
from faststream.nats import NatsBroker
from faststream_adapters import BrokerLifespan
from faststream_adapters.cli import broker_commands

logging.basicConfig(level="INFO", stream=sys.stdout, force=True)
broker = NatsBroker(os.environ["NATS_URL"])
lifespan = BrokerLifespan(
    broker,
    drain_delay=float(os.environ.get("DRAIN_DELAY", "0")),
    startup=os.environ.get("STARTUP", "strict"),
    startup_timeout=float(os.environ.get("STARTUP_TIMEOUT", "20")),
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

broker_commands(running, lambda: [lifespan])([os.environ.get("COMMAND", "run")])
"""


def commands(url: str, **environment: str) -> AppServer:
    environment = {"NATS_URL": url, **environment}
    return AppServer([sys.executable, "main.py"], app=COMMAND, env=environment, ready_path=None)


@asynccontextmanager
async def signalled(number: int, log: list[str]) -> AsyncIterator[None]:
    """Be a host that this process is told to end as soon as it is up."""
    log.append("up")
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)
    yield
    log.append("down")


class Starting(AbstractAsyncContextManager[None]):
    """A host whose start does this, and does not get further."""

    def __init__(self, start: Callable[[], Awaitable[object]]) -> None:
        self.start = start

    async def __aenter__(self) -> None:
        await self.start()

    async def __aexit__(self, *_: object) -> None:
        """Have nothing to stop."""


# --- run ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_a_signal_ends_it_in_good_order_and_its_handlers_are_taken_back(number: int) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    log: list[str] = []
    assert await run(signalled(number, log)) is None
    assert log == ["up", "down"]
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


async def test_a_signal_during_the_start_gives_it_up() -> None:
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
        assert await run(Starting(stuck)) is None
    assert log == ["released"]


async def test_a_cancellation_from_elsewhere_is_one() -> None:
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


async def test_it_tells_why_the_start_failed_but_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    def failing(error: Exception) -> Starting:
        async def start() -> None:
            raise error

        return Starting(start)

    assert await run(failing(BrokerStartError("NatsBroker is down."))) == "NatsBroker is down."
    told = await run(failing(ValueError("redis://user:hunter2@cache is wrong")))
    assert told == "The startup failed with ValueError; the log has the traceback."
    assert "redis://***@cache is wrong" in caplog.text
    assert "hunter2" not in caplog.text


async def test_it_tells_that_the_end_failed() -> None:
    @asynccontextmanager
    async def host() -> AsyncIterator[None]:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        yield
        raise KeyError("late")

    assert await run(host()) == "The shutdown failed with KeyError; the log has the traceback."


# --- the commands ---


@pytest.mark.parametrize("delay", ["0", "0.3"])
def test_the_command_consumes_and_finishes_its_messages_at_sigterm(nats: NatsServer, delay: str) -> None:
    with commands(nats.url, WORK="1", DRAIN_DELAY=delay) as process:
        process.wait_output("handling 1")
        process.terminate()
        assert process.wait() == 0
        output = process.output()
    assert output.index("host up") < output.index("handled 1") < output.index("host down")
    assert "Brokers: draining -> stopped" in output


def test_a_second_interrupt_ends_it_at_once(nats: NatsServer) -> None:
    with commands(nats.url, WORK="60") as process:
        process.wait_output("handling 1")
        process.interrupt()
        process.wait_output("running -> draining")
        process.interrupt()
        assert process.wait() == 1
        assert "handled 1" not in process.output()
        assert "host down" in process.output()


def test_the_command_that_cannot_start_says_so_in_one_line(nats: NatsServer) -> None:
    nats.stop()
    url = f"nats://user:hunter2@127.0.0.1:{nats.port}"
    ended = commands(url, STARTUP_TIMEOUT="0.3").run_to_exit()
    assert ended.returncode == 1
    address = f"nats://127.0.0.1:{nats.port}"
    problem = f"Error: NatsBroker {address} could not be started within 0.3 s: the connection was refused."
    assert ended.output.splitlines().count(problem) == 1
    assert "Traceback" not in ended.output
    assert "hunter2" not in ended.output


def test_a_signal_while_connecting_ends_the_command_with_0(nats: NatsServer) -> None:
    nats.stop()
    with commands(nats.url) as process:
        process.wait_output("host up")
        process.wait_output("Brokers: stopped -> starting")
        process.terminate()
        assert process.wait() == 0
        assert "host down" in process.output()
        assert "\nup\n" not in process.output()


def test_a_start_in_the_background_ends_at_a_signal_too(nats: NatsServer) -> None:
    # Publishing at the start needs a connection, so this one only waits for it.
    nats.stop()
    app = COMMAND.replace('await broker.publish(1, "orders")', "pass")
    environment = {"NATS_URL": nats.url, "STARTUP": "background"}
    with AppServer([sys.executable, "main.py"], app=app, env=environment, ready_path=None) as process:
        process.wait_output("\nup\n")
        process.terminate()
        assert process.wait() == 0


# --- info ---


def test_the_table_lists_everything_and_no_password() -> None:
    orders = NatsBroker(["nats://user:hunter2@one:4222", "nats://token@two:4222"])
    audit = NatsBroker("nats://three:4222")

    @orders.subscriber("orders")
    @orders.publisher("done")
    async def accept(order: int) -> None:
        """Take it."""

    @orders.subscriber("cancelled", title="Cancellations")
    async def cancel(order: int) -> None:
        """Take it back."""

    lifespans = [BrokerLifespan(orders), BrokerLifespan(FastStream(audit)), BrokerLifespan(orders)]
    assert overview(lifespans).splitlines() == [
        "KIND          NAME                              HANDLER",
        "NatsBroker    nats://one:4222, nats://two:4222",
        "  subscriber  Cancellations                     Cancel",
        "  subscriber  orders:Accept                     Accept",
        "  publisher   done:Publisher",
        "NatsBroker    nats://three:4222",
    ]


def test_the_command_prints_the_table_and_connects_to_nothing() -> None:
    lifespan = BrokerLifespan(NatsBroker("nats://nowhere:1"))
    group = broker_commands(lambda: pytest.fail("It was started."), lambda: [lifespan])
    result = CliRunner().invoke(group, ["info"])
    assert (result.exit_code, result.output) == (0, overview([lifespan]) + "\n")


def test_the_commands_tell_what_they_do() -> None:
    result = CliRunner().invoke(broker_commands(BrokerLifespan(NatsBroker()), list), ["--help"])
    assert "Consume messages, without a web server" in result.output
    assert "List brokers, subscribers and publishers" in result.output
