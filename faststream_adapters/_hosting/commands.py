"""`faststream run` and `faststream info` for the command line of a host: brokers without a web server."""

import asyncio
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from faststream.asgi.types import Message

from .brokers import driver_for
from .lifespan import BrokerLifespan, serve_lifespan

if TYPE_CHECKING:
    from click import Group


def broker_commands(
    running: Callable[[], AbstractAsyncContextManager[None]],
    lifespans: Callable[[], Iterable[BrokerLifespan]],
) -> "Group":
    """Make the command group `faststream` with `run` and `info`; needs click, which the hosts bring along.

    Args:
        running: Called inside a command: returns the host's own lifespan with the brokers in it.
        lifespans: Called inside a command: returns the lifespans whose brokers are listed.

    Returns:
        The group, to be added to the host's own commands.
    """
    import click

    group = click.Group("faststream", help="FastStream's brokers of this application.")

    @group.command("run")
    @click.pass_context
    def run_command(context: click.Context) -> None:
        """Consume messages, without a web server, until SIGTERM or Ctrl-C."""
        failure = asyncio.run(run(running()))
        if failure is not None:
            # Not a ClickException: rich-click draws a box around that, and breaks its lines.
            click.echo(f"Error: {failure}", err=True)
            context.exit(1)

    @group.command("info")
    def info_command() -> None:
        """List brokers, subscribers and publishers."""
        click.echo(overview(lifespans()))

    return group


async def run(context: AbstractAsyncContextManager[None]) -> str | None:
    """Enter a context and leave it in good order at SIGTERM or SIGINT; a second SIGINT ends it at once.

    Args:
        context: A host's lifespan with the brokers in it.

    Returns:
        What went wrong at the start or the end, for whoever operates the process; None if nothing did.
    """
    task: asyncio.Task[None] = asyncio.current_task()  # type: ignore[assignment]  # a coroutine has one
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
            # Nobody waits for the signal yet: the start is given up.
            task.cancel()
        stopped.set()

    try:
        with _stop_signals(stop):
            await serve_lifespan(context, receive, send)
    except asyncio.CancelledError:
        if sent or not stopped.is_set():
            raise
        task.uncancel()
        return None
    return sent[-1].get("message")


@contextmanager
def _stop_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Have `stop` called in the event loop at SIGTERM and SIGINT."""
    loop = asyncio.get_running_loop()

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (Python's signature)
        # From now on Ctrl-C does what it did before: it ends the process.
        signal.signal(signal.SIGINT, previous[signal.SIGINT])
        loop.call_soon_threadsafe(stop)

    # Not `loop.add_signal_handler`: a lifespan with a drain delay puts its handler in front of this one.
    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def overview(lifespans: Iterable[BrokerLifespan]) -> str:
    """Return a table of brokers, subscribers and publishers, without credentials.

    Args:
        lifespans: The lifespans that run the brokers; a broker of several is listed once.
    """
    rows = [("KIND", "NAME", "HANDLER")]
    for broker in dict.fromkeys(broker for lifespan in lifespans for broker in lifespan.brokers):
        kind, _, addresses = driver_for(broker).name.partition(" ")
        rows.append((kind, addresses, ""))
        # FastStream keeps them in no order.
        subscribers = (subscriber.specification for subscriber in broker.subscribers)
        rows += sorted(("  subscriber", spec.name, spec.call_name) for spec in subscribers)
        rows += sorted(("  publisher", publisher.specification.name, "") for publisher in broker.publishers)
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)
