"""DrainSignals: chained before the server's signal handlers, and restored afterwards."""

import asyncio
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from faststream_adapters._lifecycle.signals import DrainSignals, handler_behind_ours
from tests.harness.waiting import eventually

Seen = list[int]


@pytest.fixture
def server() -> Iterator[Seen]:
    """Install a server's signal handlers, and return the list of the signals they have received."""
    seen: Seen = []

    def handle(number: int, frame: FrameType | None) -> None:
        seen.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


async def test_the_servers_handler_runs_after_the_delay(server: Seen) -> None:
    started: Seen = []
    signals = DrainSignals(0.2, lambda: started.append(len(server)))
    signals.install()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    await eventually(lambda: bool(started))
    assert (started, server) == ([0], [])
    await eventually(lambda: bool(server))
    assert server == [signal.SIGTERM]
    signals.restore()


async def test_a_second_interrupt_is_passed_on_immediately(server: Seen) -> None:
    signals = DrainSignals(60, lambda: None)
    signals.install()
    signal.raise_signal(signal.SIGINT)
    await asyncio.sleep(0)
    assert server == []
    signal.raise_signal(signal.SIGINT)
    assert server == [signal.SIGINT]
    signals.restore()


async def test_without_a_delay_every_signal_reaches_the_server_immediately(server: Seen) -> None:
    started: Seen = []
    signals = DrainSignals(0, lambda: started.append(0))
    signals.install()
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        signal.raise_signal(number)
    assert (started, server) == ([], [signal.SIGTERM, signal.SIGTERM, signal.SIGINT])
    await eventually(lambda: bool(started))
    assert started == [0]
    signals.restore()


async def test_after_the_delay_every_signal_reaches_the_server(server: Seen) -> None:
    signals = DrainSignals(0.01, lambda: None)
    signals.install()
    signal.raise_signal(signal.SIGTERM)
    await eventually(lambda: bool(server))
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert server == [signal.SIGTERM, signal.SIGTERM, signal.SIGINT]
    signals.restore()


async def test_an_interrupt_that_ends_the_delay_reaches_the_server_once(server: Seen) -> None:
    signals = DrainSignals(0.05, lambda: None)
    signals.install()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    # Its end is scheduled after that of the delay.
    await asyncio.sleep(0)
    ended = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, ended.set)
    await ended.wait()
    assert server == [signal.SIGINT]
    signals.restore()


async def test_restore_restores_the_servers_handlers(server: Seen) -> None:
    before = signal.getsignal(signal.SIGTERM)
    signals = DrainSignals(60, lambda: None)
    signals.install()
    assert signal.getsignal(signal.SIGTERM) != before
    signals.restore()
    assert signal.getsignal(signal.SIGTERM) is before


async def test_a_handler_installed_later_is_not_replaced(server: Seen) -> None:
    def later(number: int, frame: FrameType | None) -> None: ...

    signals = DrainSignals(60, lambda: None)
    signals.install()
    signal.signal(signal.SIGTERM, later)
    signals.restore()
    assert signal.getsignal(signal.SIGTERM) is later


async def test_it_can_be_installed_again(server: Seen) -> None:
    signals = DrainSignals(0.01, lambda: None)
    for number in range(3):
        signals.install()
        signal.raise_signal(signal.SIGTERM)
        await eventually(lambda number=number: len(server) == number + 1)  # type: ignore[misc]
        signals.restore()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_several_can_be_installed_at_once(server: Seen, order: tuple[int, int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    started: Seen = []
    drains = [DrainSignals(delay, lambda: started.append(0)) for delay in (0.05, 60)]
    for drain in drains:
        drain.install()
    drains[order[0]].restore()
    signal.raise_signal(signal.SIGTERM)
    await eventually(lambda: bool(started))
    assert started == [0]
    drains[order[1]].restore()
    drains[order[1]].restore()
    assert signal.getsignal(signal.SIGTERM) is before


async def test_after_restore_signals_reach_the_server(server: Seen) -> None:
    signals = DrainSignals(60, lambda: None)
    signals.install()
    signal.raise_signal(signal.SIGTERM)
    signals.restore()
    await asyncio.sleep(0)
    signal.raise_signal(signal.SIGTERM)
    assert server == [signal.SIGTERM]


async def test_default_handlers_are_not_replaced() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        signals = DrainSignals(60, lambda: None)
        signals.install()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        signals.restore()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("delay", [0.0, 60.0])
async def test_a_function_of_the_event_loop_is_called_immediately(delay: float) -> None:
    # asyncio calls the server's function even if another handler replaces asyncio's own.
    calls: list[str] = []
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, calls.append, "server")
    handler = signal.getsignal(signal.SIGTERM)
    signals = DrainSignals(delay, lambda: calls.append("drain"))
    signals.install()
    try:
        signal.raise_signal(signal.SIGTERM)
        await eventually(lambda: len(calls) == 2)
        assert sorted(calls) == ["drain", "server"]
    finally:
        signals.restore()
        assert signal.getsignal(signal.SIGTERM) is handler
        loop.remove_signal_handler(signal.SIGTERM)


async def test_the_handler_behind_ours(server: Seen) -> None:
    before = signal.getsignal(signal.SIGINT)
    signals = DrainSignals(0, lambda: None)
    assert handler_behind_ours(signal.SIGINT) is before
    signals.install()
    assert signal.getsignal(signal.SIGINT) is not before
    assert handler_behind_ours(signal.SIGINT) is before
    signals.restore()


def test_signals_reach_the_server_after_an_event_loop_that_has_left_no_lifespan(server: Seen) -> None:
    started: Seen = []
    signals = DrainSignals(60, lambda: started.append(0))

    async def install() -> None:
        signals.install()

    async def drain_again() -> None:
        again = DrainSignals(0, lambda: started.append(1))
        again.install()
        signal.raise_signal(signal.SIGINT)
        await eventually(lambda: bool(started))
        again.restore()

    asyncio.run(install())
    signal.raise_signal(signal.SIGTERM)
    assert server == [signal.SIGTERM]
    asyncio.run(drain_again())
    assert (started, server) == ([1], [signal.SIGTERM, signal.SIGINT])


async def test_outside_the_main_thread_no_handler_is_replaced(server: Seen) -> None:
    before = signal.getsignal(signal.SIGTERM)
    await asyncio.to_thread(DrainSignals(60, lambda: None).install)
    assert signal.getsignal(signal.SIGTERM) is before
