"""One server of each kind per test process, for tests that do not disturb it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest

from tests.harness.leftovers import lasting

if TYPE_CHECKING:
    from tests.harness.brokers import BrokerHarness
    from tests.harness.servers.broker import BrokerServer


def shared_server(harness: BrokerHarness) -> BrokerServer:
    """Return the server of this process, or skip the test if it cannot be started."""
    if reason := harness.missing():  # pragma: no cover (installed where skips are forbidden)
        pytest.skip(reason)
    return _started(harness)


@functools.cache
def _started(harness: BrokerHarness) -> BrokerServer:
    # All servers end with the process that started them.
    with lasting():
        server = harness.server()
        server.start()
    return server
