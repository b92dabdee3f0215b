"""Reconnects within a cluster: which server the client dials next, and how it logs in there."""

import math
import random
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import ParseResult

from nats.aio.client import Client, Server

from faststream_adapters._compat import nats as private

SHORT_WAIT = 0.1
"""Seconds between two attempts to reach a server that has not failed and is not the lost one."""

LONGEST_WAIT = 1.5
"""By what factor, at most, a wait is lengthened at random."""


def share_url_credentials(client: Client) -> None:
    """Log in to the servers that the cluster advertises as to the listed ones.

    nats-py takes user, password and token from the URL of each server, and advertised URLs contain none.
    """
    options = client.options
    if any(options[name] is not None for name in ("user", "password", "token")):
        return
    # Options take precedence over URLs, so they must not replace credentials that differ.
    found = {(url.username, url.password) for url in client.servers if url.username is not None}
    if len(found) != 1:
        return
    ((user, password),) = found
    options.update({"token": user} if password is None else {"user": user, "password": password})


def has_alternatives(client: Client) -> bool:
    """Return whether a client knows several servers."""
    return len(set(map(_address, client.servers))) > 1


class ServerSelection:
    """Selects the server that a client dials next after a lost connection.

    nats-py waits `reconnect_time_wait` seconds before it dials a server again, although it could dial
    another one meanwhile, and continues to dial servers that have left the cluster. This selects the server
    with the fewest failures among those that need not wait, and the lost one last.

    Args:
        client: The client.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._outage: int | None = None
        self._lost: object = None
        # When each server was last dialled, on the clock of `time.monotonic`.
        self._dialled: dict[object, float] = {}

    def __call__(self, servers: list[Server], _: Mapping[str, Any]) -> tuple[Server, float]:
        """Return one of the servers, and the seconds to wait before it is dialled."""
        if (outage := self._client.stats["reconnects"]) != self._outage:
            self._outage = outage
            self._lost = _address(private.current_url(self._client))
        now = time.monotonic()
        full_wait = self._client.options["reconnect_time_wait"]

        def key(server: Server) -> tuple[float, int, bool]:
            address = _address(server.uri)
            is_lost = address == self._lost
            # In a rolling restart, the servers that accepted the last logins are lost within seconds, too.
            wait = full_wait if server.reconnects or is_lost else min(full_wait, SHORT_WAIT)
            delay = max(self._dialled.get(address, -math.inf) + wait - now, 0.0)
            return delay, server.reconnects, is_lost

        selected = min(servers, key=key)
        # All clients of a cluster lose it together, and must not return to it together.
        delay = key(selected)[0] * random.uniform(1.0, LONGEST_WAIT)  # noqa: S311 (spreads load, guards nothing)
        self._dialled[_address(selected.uri)] = now + delay
        return selected, delay


def _address(url: ParseResult) -> object:
    # Not `netloc`: one server can be listed with credentials, and advertised without.
    return url.hostname, url.port
