"""Fixtures for tests of servers."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.integration.servers.processes import MonitoredNats

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def monitored_nats() -> Iterator[MonitoredNats]:
    with MonitoredNats() as server:
        yield server


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Let the servers receive SIGINT, which a shell makes its background processes ignore."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)
