"""The driver. It uses only the public contract and the public names of the client."""

import asyncio
from contextlib import suppress
from typing import Any

from faststream.exceptions import IncorrectState
from nats.aio.client import Client
from nats.errors import AuthorizationError, NoServersError

from faststream_adapters.drivers import BrokerCode, Driver, find_in_traceback

_NEVER = 365 * 24 * 60 * 60


class AcmeDriver(Driver):
    """The driver for AcmeBroker."""

    load_balancing_hint = "a queue group (queue=...)"

    def __init__(self, broker: Any) -> None:
        super().__init__(broker)
        self._round_trips: set[asyncio.Task[float]] = set()

    @property
    def client(self) -> Client | None:
        """The client; None before the broker connects and for a TestBroker."""
        try:
            connection: object = self.broker.connection  # type: ignore[attr-defined]  # an AcmeBroker
        except IncorrectState:
            return None
        return connection if isinstance(connection, Client) else None

    @property
    def is_reconnecting(self) -> bool:
        return self.client is not None and self.client.is_reconnecting

    @property
    def is_closed(self) -> bool:
        return self.client is not None and self.client.is_closed

    def connection_id(self) -> object:
        return self.client and (self.client, self.client.stats["reconnects"])

    def local_status(self) -> BrokerCode | None:
        client = self.client
        if client is None or client.is_connected:
            return None
        return "closed" if client.is_closed else "unreachable"

    async def connect(self, *, consume: bool, supervise: bool) -> None:
        try:
            await super().connect(consume=consume, supervise=supervise)
        except BaseException as error:
            # The broker refers to its client only once that has connected.
            if (client := find_in_traceback(error, Client)) is not None:
                await _close(client)
            raise

    async def check(self) -> BrokerCode:
        if (client := self.client) is None:
            return await super().check()
        # A task without a timeout: a reply that nothing awaits any more stops the client.
        round_trip = asyncio.create_task(client.rtt(_NEVER))
        self._round_trips.add(round_trip)
        round_trip.add_done_callback(self._round_trips.discard)
        await asyncio.shield(round_trip)
        return "ok"

    def classify(self, error: BaseException) -> BrokerCode:
        # nats-py raises the server's words as they are if the first connection is rejected.
        if isinstance(error, AuthorizationError) or "Authorization Violation" in str(error):
            return "auth_failed"
        return "unreachable" if isinstance(error, NoServersError) else super().classify(error)

    async def stop(self, seconds: float) -> None:
        try:
            await super().stop(seconds)
        finally:
            # The client is closed, or abort() closes it next.
            for round_trip in self._round_trips:
                round_trip.cancel()

    async def abort(self, seconds: float = 0.0) -> None:
        client = self.client
        self.forget_connection()
        subscriber: Any
        for subscriber in self.broker.subscribers:
            # Otherwise `stop()` fails if the client is closed, and `start()` keeps this subscription.
            subscriber.subscription = None
        try:
            await super().abort(seconds)
        finally:
            if client is not None:
                await _close(client)


async def _close(client: Client) -> None:
    """Close a client in any state: it may be connecting, or have refused its options."""
    # nats-py 2.16 may swallow the cancellation of its attempts to connect; this ends them after the next one.
    client.options["max_reconnect_attempts"] = 1
    with suppress(Exception):
        await client.close()
