"""One server of each kind for a whole test process, for tests that do it no harm."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.kits import Kit
    from tests.servers.broker import BrokerServer


def shared_server(kit: Kit) -> BrokerServer:
    """Return the server of this process, or skip the test where it cannot be started."""
    if reason := kit.missing():  # pragma: no cover (where nothing may be skipped, nothing is missing)
        pytest.skip(reason)
    return _started(kit)


@functools.cache
def _started(kit: Kit) -> BrokerServer:
    server = kit.server()
    # Every server ends with the process that has started it.
    server.start()
    return server
