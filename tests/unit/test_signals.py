"""DrainSignals: in front of the server's handlers, and out of the way again."""

import asyncio
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from faststream_adapters.signals import DrainSignals
from tests.support import eventually

Seen = list[int]


@pytest.fixture
def server() -> Iterator[Seen]:
    """Return the signals that a server, with handlers of its own, has got."""
    seen: Seen = []

    def handle(number: int, frame: FrameType | None) -> None:
        seen.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


async def test_the_server_hears_of_the_signal_after_the_delay(server: Seen) -> None:
    began: Seen = []
    signals = DrainSignals(0.2, lambda: began.append(len(server)))
    signals.install()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    await eventually(lambda: bool(began))
    assert (began, server) == ([0], [])
    await eventually(lambda: bool(server))
    assert server == [signal.SIGTERM]
    signals.restore()


async def test_a_second_interrupt_goes_through_at_once(server: Seen) -> None:
    signals = DrainSignals(60, lambda: None)
    signals.install()
    signal.raise_signal(signal.SIGINT)
    await asyncio.sleep(0)
    assert server == []
    signal.raise_signal(signal.SIGINT)
    assert server == [signal.SIGINT]
    signals.restore()


async def test_afterwards_the_servers_handlers_are_back(server: Seen) -> None:
    before = signal.getsignal(signal.SIGTERM)
    signals = DrainSignals(60, lambda: None)
    signals.install()
    assert signal.getsignal(signal.SIGTERM) != before
    signals.restore()
    assert signal.getsignal(signal.SIGTERM) is before


async def test_a_handler_that_came_later_is_left_alone(server: Seen) -> None:
    def later(number: int, frame: FrameType | None) -> None: ...

    signals = DrainSignals(60, lambda: None)
    signals.install()
    signal.signal(signal.SIGTERM, later)
    signals.restore()
    assert signal.getsignal(signal.SIGTERM) is later


async def test_it_can_be_used_again(server: Seen) -> None:
    signals = DrainSignals(0.01, lambda: None)
    for number in range(3):
        signals.install()
        signal.raise_signal(signal.SIGTERM)
        await eventually(lambda number=number: len(server) == number + 1)  # type: ignore[misc]
        signals.restore()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_several_drain_side_by_side(server: Seen, order: tuple[int, int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    began: Seen = []
    drains = [DrainSignals(delay, lambda: began.append(0)) for delay in (0.05, 60)]
    for drain in drains:
        drain.install()
    drains[order[0]].restore()
    signal.raise_signal(signal.SIGTERM)
    await eventually(lambda: bool(began))
    assert began == [0]
    drains[order[1]].restore()
    drains[order[1]].restore()
    assert signal.getsignal(signal.SIGTERM) is before


async def test_a_signal_that_comes_too_late_is_the_servers(server: Seen) -> None:
    signals = DrainSignals(60, lambda: None)
    signals.install()
    signal.raise_signal(signal.SIGTERM)
    signals.restore()
    await asyncio.sleep(0)
    signal.raise_signal(signal.SIGTERM)
    assert server == [signal.SIGTERM]


async def test_without_a_server_nothing_is_touched() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        signals = DrainSignals(60, lambda: None)
        signals.install()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        signals.restore()
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_a_server_that_has_asyncio_listen_is_not_delayed() -> None:
    # asyncio calls the server's function whatever handler stands in front of its own.
    heard = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, heard.set)
    handler = signal.getsignal(signal.SIGTERM)
    signals = DrainSignals(60.0, pytest.fail)
    signals.install()
    try:
        assert signal.getsignal(signal.SIGTERM) is handler
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(heard.wait(), 5)
    finally:
        signals.restore()
        loop.remove_signal_handler(signal.SIGTERM)


async def test_outside_the_main_thread_nothing_is_touched(server: Seen) -> None:
    before = signal.getsignal(signal.SIGTERM)
    await asyncio.to_thread(DrainSignals(60, lambda: None).install)
    assert signal.getsignal(signal.SIGTERM) is before
