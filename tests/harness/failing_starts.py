"""Brokers that cannot start, for each reason."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

from tests.harness.brokers.shared import shared_server
from tests.harness.certificates import self_signed
from tests.harness.servers import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from faststream_adapters._compat.faststream import Broker
    from tests.harness.brokers import BrokerHarness

PASSWORD = "hunter2"
"""The password that is rejected."""

FAILURES = {
    "unknown host": "its host name could not be resolved",
    "refused": "the connection was refused",
    "blackhole": "it did not reply in time",
    "frozen": "it did not reply in time",
    "wrong password": r"the credentials were rejected \(\w+: .+\)",
    "untrusted certificate": r"TLS failed \(.+\)",
    # Some servers wait for more bytes, or close the connection.
    "no TLS": r"TLS failed \(.+\)|it did not reply in time|the connection was refused \(\w+: .+\)",
}
"""Why a start fails, and a pattern of the reason that is reported."""


@contextmanager
def failing_broker(harness: BrokerHarness, failure: str, directory: Path) -> Iterator[Broker]:
    """Yield a broker whose start fails.

    Args:
        harness: The kind of broker.
        failure: One of `FAILURES`.
        directory: An empty directory for a certificate.
    """
    with ExitStack() as stack:
        yield _broker(harness, failure, directory, stack)


def _broker(harness: BrokerHarness, failure: str, directory: Path, stack: ExitStack) -> Broker:
    if failure == "wrong password":
        return stack.enter_context(harness.broker_with_wrong_password(PASSWORD))
    if failure == "no TLS":
        return harness.broker_over_tls(shared_server(harness).url)
    if failure == "untrusted certificate":
        url = stack.enter_context(harness.untrusted_url(self_signed(directory)))
        return harness.broker_over_tls(url)
    if failure in {"unknown host", "refused"}:
        url = stack.enter_context(closing(harness.server())).url
        return harness.broker(url if failure == "refused" else url.replace(HOST, "unknown.invalid"))
    listener = stack.enter_context(socket.create_server((HOST, 0), backlog=0))
    if failure == "blackhole":
        # It fills the queue of connections, and the system ignores further ones.
        stack.enter_context(socket.create_connection(listener.getsockname()))
    else:
        listener.listen(100)
    return harness.broker(harness.url_at(listener.getsockname()[1]))
