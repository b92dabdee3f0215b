"""The commands `faststream run` and `faststream info` of a host, which need no web server."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from faststream.asgi.types import Message
from faststream.exceptions import SetupError

from faststream_adapters._asgi.lifespan_protocol import serve_lifespan
from faststream_adapters._lifecycle.lifespan import BrokerLifespan
from faststream_adapters._lifecycle.run_mode import RunMode, run_as
from faststream_adapters._utils.loggers import DEFAULT, Loggers

from .management import WorkerServer
from .options import address
from .overview import overview, select_subscribers

if TYPE_CHECKING:
    from click import Context, Group, Parameter


def broker_commands(
    host_lifespan: Callable[[], AbstractAsyncContextManager[None]],
    lifespans: Callable[[], Iterable[BrokerLifespan]],
) -> "Group":
    """Return the command group `faststream` with the commands `run` and `info`.

    It requires click, which is a dependency of the hosts that have a command line.

    Args:
        host_lifespan: Returns the host's lifespan, which includes the brokers; called by `run`.
        lifespans: Returns the lifespans of the brokers, which `info` lists and `run` makes consume.
    """
    import click

    group = click.Group("faststream", help="Run or list the FastStream brokers of this application.")

    @group.command("run")
    @click.option(
        "--listen",
        metavar="HOST:PORT",
        callback=_checked_address,
        help="Serve the probes and metrics at this address only.",
    )
    @click.option(
        "--broker",
        "brokers",
        metavar="NAME",
        multiple=True,
        help="A broker to consume from, instead of everything; can be repeated.",
    )
    @click.option(
        "--subscriber",
        "subscribers",
        metavar="NAME",
        multiple=True,
        help="A subscriber to consume with, instead of everything; can be repeated.",
    )
    def run_command(listen: str | None, brokers: Sequence[str], subscribers: Sequence[str]) -> None:
        """Consume messages, without a web server, until SIGTERM or Ctrl-C."""
        found = list(lifespans())
        with _one_line_errors():
            # The application may say `consume=False` for its web processes.
            mode = RunMode(
                consume=True,
                select=select_subscribers(found, brokers, subscribers),
                services=None if listen is None else (WorkerServer(listen, found),),
            )
        loggers = found[-1].loggers if found else DEFAULT
        with run_as(mode):
            failure = asyncio.run(run(_with_brokers(host_lifespan(), mode), loggers))
        if failure is not None:
            _exit(failure)

    @group.command("info")
    def info_command() -> None:
        """List brokers, subscribers and publishers."""
        with _one_line_errors():
            text = overview(lifespans())
        click.echo(text)

    return group


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except (ImportError, SetupError) as error:
        _exit(str(error))


def _exit(failure: str) -> NoReturn:
    import click

    # Not a ClickException, which rich-click prints in a box with broken lines.
    click.echo(f"Error: {failure}", err=True)
    click.get_current_context().exit(1)


def _checked_address(context: "Context", parameter: "Parameter", value: str | None) -> str | None:  # noqa: ARG001 (the signature of a callback)
    import click

    if (message := address("--listen", value)) is not None:
        raise click.BadParameter(message)
    return value


@asynccontextmanager
async def _with_brokers(context: AbstractAsyncContextManager[Any], mode: RunMode) -> AsyncIterator[None]:
    """Run a host's lifespan, and refuse one that runs no brokers."""
    async with context:
        if not mode.lifespans:
            msg = "This application runs no brokers, so nothing is consumed."
            raise SetupError(msg)
        yield


async def run(context: AbstractAsyncContextManager[None], loggers: Loggers = DEFAULT) -> str | None:
    """Run a lifespan until SIGTERM or SIGINT, then shut it down; a second SIGINT ends the process at once.

    Args:
        context: The lifespan of a host, which includes the brokers.
        loggers: Where the traceback of an error is logged.

    Returns:
        Why the startup or the shutdown failed, as a message for the operator; None if both succeeded.
    """
    task: asyncio.Task[None] = asyncio.current_task()  # type: ignore[assignment]  # never None in a coroutine
    stopped = asyncio.Event()
    sent: list[Message] = []

    async def receive() -> Message:
        if sent:
            await stopped.wait()
        return {}

    async def send(message: Message) -> None:
        sent.append(message)

    def stop() -> None:
        if not sent and not stopped.is_set():
            # The lifespan is still starting: cancel that.
            task.cancel()
        stopped.set()

    try:
        # The error was sent before it was raised.
        with _stop_signals(stop), suppress(Exception):
            await serve_lifespan(context, receive, send, loggers)
    except asyncio.CancelledError:
        if sent or not stopped.is_set():
            raise
        task.uncancel()
        return None
    return sent[-1].get("message")


@contextmanager
def _stop_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` in the event loop at SIGTERM and SIGINT."""
    loop = asyncio.get_running_loop()

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (the signature of a signal handler)
        # A second Ctrl-C has its usual effect: it ends the process.
        signal.signal(signal.SIGINT, previous[signal.SIGINT])
        loop.call_soon_threadsafe(stop)

    # Not `loop.add_signal_handler`: a lifespan with a drain delay puts its handler in front of this one.
    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
