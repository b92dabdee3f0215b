"""Numbered messages that flow while the processes that handle them are replaced."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from faststream_adapters import BrokerLifespan
from tests.docs.blocks import load, python_blocks
from tests.harness.servers.nats import wait_until_formed
from tests.harness.waiting import eventually
from tests.rollout.fleets import PATIENCE, Command, Record
from tests.rollout.transports import Transport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

RECIPE = python_blocks("docs/delivery.md")["Publish until it is confirmed 1"]

_BATCH = 20
"""How many messages are published at once."""

_WINDOW = 1_000
"""How many messages may wait for the handlers, so that a process can handle its share while it stops."""


class Fault(NamedTuple):
    """What happens to the server while a process is replaced.

    Args:
        name: The name in the table.
        cause: Causes the fault and repairs it, given the servers and the broker that publishes.
    """

    name: str
    cause: Callable[[list[Any], Any], Awaitable[None]]


async def _nothing(servers: list[Any], broker: Any) -> None:
    pass


async def _kill(servers: list[Any], broker: Any) -> None:
    await asyncio.to_thread(servers[0].kill)
    # The fault lasts for a fixed time.
    await asyncio.sleep(1.0)
    await asyncio.to_thread(servers[0].start)


async def _freeze(servers: list[Any], broker: Any) -> None:
    await asyncio.to_thread(servers[0].freeze)
    # The fault lasts for a fixed time.
    await asyncio.sleep(3.0)
    servers[0].thaw()


async def _replace_node(servers: list[Any], broker: Any) -> None:
    """Kill the node that the publisher is connected to, and start one in its place without its storage."""
    port = broker.connection.connected_url.port
    node = next(server for server in servers if server.port == port)
    await asyncio.to_thread(node.kill)
    shutil.rmtree(node.directory / "jetstream", ignore_errors=True)
    await asyncio.to_thread(node.start)


NONE = Fault("-", _nothing)
KILLED = Fault("server killed, up again after 1 s", _kill)
FROZEN = Fault("server frozen for 3 s", _freeze)
NODE_REPLACED = Fault("one of three nodes replaced by an empty one", _replace_node)


class Row(NamedTuple):
    """A row of the table.

    Args:
        transport: How messages are delivered.
        command: How the service is served.
        fault: What happens to the server meanwhile.
        representative: Whether `make test-all` runs it.
    """

    transport: Transport
    command: Command
    fault: Fault = NONE
    representative: bool = False

    @property
    def names(self) -> tuple[str, str, str]:
        """The cells that name the row."""
        return self.transport.name, self.command.name, self.fault.name


class Outcome(NamedTuple):
    """What became of the messages: plain values, because workers send them to the main process."""

    names: tuple[str, str, str]
    published: int
    lost: int
    repeated: int


class Publisher:
    """Publishes numbers until it is stopped, and at least a minimum.

    Args:
        row: The row of the table.
        broker: The broker to publish with.
        record: What the service has handled.
        until_confirmed: The recipe of the documentation.
    """

    def __init__(self, row: Row, broker: Any, record: Record, until_confirmed: Callable[..., Any]) -> None:
        self.published = 0
        self.may_end = asyncio.Event()
        self._row = row
        self._broker = broker
        self._record = record
        self._until_confirmed = until_confirmed

    async def run(self, count: int, rate: float) -> None:
        """Publish at least `count` messages, at most `rate` of them per second."""
        while self.published < count or not self.may_end.is_set():
            await asyncio.gather(
                asyncio.sleep(_BATCH / rate),
                *map(self._publish, range(self.published, self.published + _BATCH)),
            )
            self.published += _BATCH
            await eventually(lambda: self.published - len(self._record.handled()) < _WINDOW, PATIENCE)

    async def reach(self, number: int) -> None:
        """Wait until so many messages are published."""
        await eventually(lambda: self.published >= number, PATIENCE)

    async def _publish(self, number: int) -> None:
        transport = self._row.transport
        await self._until_confirmed(lambda: self._broker.publish(number, **transport.publish))


async def roll_out(row: Row, directory: Path, count: int, rate: float) -> Outcome:
    """Replace the processes of a service while at least `count` messages flow, and count what was handled."""
    transport, command = row.transport, row.command
    until_confirmed = load(RECIPE.code, directory).publish_until_confirmed
    with transport.servers(cluster=row.fault is NODE_REPLACED) as servers:
        if row.fault is NODE_REPLACED and transport.keeps:
            await wait_until_formed(servers)
        record = Record(directory / "record")
        urls = [server.url for server in servers]
        env = {
            "URLS": " ".join(urls),
            "KIND": transport.kind,
            "RECORD": str(record.path),
            "DRAIN_DELAY": str(command.drain_delay),
        }
        async with command.fleet(command.words, transport.source, env, record) as fleet:
            broker = transport.broker(urls)
            async with BrokerLifespan(broker):
                publisher = Publisher(row, broker, record, until_confirmed)
                async with asyncio.TaskGroup() as group:
                    group.create_task(publisher.run(count, rate))
                    last = len(fleet.servers) - 1
                    for step, server in enumerate(fleet.servers):
                        await publisher.reach(count * (step + 1) // (last + 3))
                        # The fault happens while the last but one is replaced, or the only one.
                        fault = row.fault if step == max(0, last - 1) else NONE
                        await asyncio.gather(fault.cause(servers, broker), fleet.replace(server))
                    publisher.may_end.set()
                numbers = range(publisher.published)
                # What is lost for good never arrives.
                patience = PATIENCE if transport.keeps else 0.0
                with contextlib.suppress(TimeoutError):
                    await eventually(lambda: len(record.handled()) == len(numbers), patience)
            # They handle what was delivered to them.
            await asyncio.gather(*map(fleet.stop, fleet.servers))
    handled = record.handled()
    assert handled.keys() <= {*numbers}
    return Outcome(row.names, len(numbers), len(numbers) - len(handled), handled.total() - len(handled))
