"""Redis: what `redis-py`'s client can be asked, and how FastStream's subscribers are stopped and revived."""

import asyncio
import logging
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from faststream.redis import RedisBroker
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import RedisError, ResponseError

from faststream_adapters._compat import (
    Broker,
    redis_client,
    redis_forget_connection,
    redis_read,
    redis_read_by,
    redis_reader,
)

from . import PING_TIMEOUT, Code, Driver
from .redis_reading import Reader

logger = logging.getLogger("faststream.adapters")

_END_TIMEOUT = 2.0
"""Seconds that tasks and connections get to end."""

_ASK_TIMEOUT = 1.0
"""Seconds that the server gets to tell about a group."""

_AUTH = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)


class RedisDriver(Driver):
    """A Redis broker's client."""

    broker: RedisBroker
    sharing = "a list, or a stream with a group"

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._connection: AbstractConnection | None = None
        self._answered = asyncio.Event()
        self._lost = False
        self._positions: WeakKeyDictionary[object, str] = WeakKeyDictionary()

    @property
    def client(self) -> Redis | None:
        """The client, if it is a real one, and not one of a cluster."""
        client = redis_client(self.broker)
        return client if isinstance(client, Redis) else None

    @property
    def real(self) -> bool:
        return self.client is not None

    @property
    def reconnecting(self) -> bool:
        # redis-py connects anew for each command, and FastStream's loops never end.
        return self.real

    def epoch(self) -> object:
        return self.client

    async def check(self) -> Code:
        client = self.client
        if client is None:
            return "ok" if await self.broker.ping(PING_TIMEOUT) else "not_started"
        lost, self._lost = self._lost, True
        async with asyncio.timeout(PING_TIMEOUT):
            if self._connection is None:
                await client.ping()
            else:
                await _ping(client, self._connection)
            if lost:
                # redis-py would hand them out as they are: the next to publish would meet the end of one.
                await client.connection_pool.disconnect(inuse_connections=False)
        self._lost = False
        self._answered.set()
        self._answered = asyncio.Event()
        return "ok"

    def code(self, error: BaseException) -> Code:
        if isinstance(error, _AUTH):
            return "auth"
        if isinstance(error, exceptions.MaxConnectionsError | exceptions.BusyLoadingError):
            return "error"
        if isinstance(error, exceptions.TimeoutError):
            return "timeout"
        if isinstance(error, ResponseError) and "NOGROUP" in str(error):
            return "deleted"
        return "refused" if isinstance(error, exceptions.ConnectionError) else super().code(error)

    def adopt(self, subscriber: Any) -> None:
        if self.real and redis_reader(subscriber) is None:
            reader = Reader(subscriber, redis_read(subscriber), lambda: self._answered)
            redis_read_by(subscriber, reader)

    def idle(self, subscriber: Any) -> bool:
        limiter = getattr(subscriber, "limiter", None)
        # Those that wait for a worker have been taken from the server too.
        busy = limiter is not None and (
            limiter.value < subscriber.max_workers
            or subscriber.receive_stream.statistics().current_buffer_used > 0
        )
        return not busy and super().idle(subscriber)

    def shared(self, subscriber: Any) -> bool | None:
        stream = subscriber.config.stream_sub
        return subscriber.config.list_sub is not None or (stream is not None and stream.group is not None)

    async def ask_consumer(self, subscriber: Any) -> Code:
        reader: Reader | None = redis_reader(subscriber)
        if reader is not None and reader.error is not None:
            return self.code(reader.error)
        stream = subscriber.config.stream_sub
        if self.client is not None and stream is not None and stream.group is not None:
            await self._note_position(self.client, subscriber)
        return "ok"

    async def _note_position(self, client: Redis, subscriber: Any) -> None:
        """Remember how far a group has come: if it is deleted, it goes on from there."""
        stream = subscriber.stream_sub
        with suppress(RedisError, TimeoutError):
            async with asyncio.timeout(_ASK_TIMEOUT):
                for group in await client.xinfo_groups(stream.name):
                    if group["name"] == stream.group.encode():
                        self._positions[subscriber] = group["last-delivered-id"].decode()

    async def revive(self, subscriber: Any) -> None:
        position = self._positions.get(subscriber)
        if position is not None and _order(position) > _order(subscriber.last_id):
            subscriber.last_id = position
        await self.halt(subscriber)
        try:
            await subscriber.start()
        except BaseException:
            # FastStream goes on trying in a task, as fast as it can.
            await self.halt(subscriber)
            raise

    async def halt(self, subscriber: Any) -> None:
        # FastStream's own waits for the handler of a list; without time for that it does nothing at all.
        subscriber.running = False
        tasks = [*subscriber.tasks]
        subscriber.tasks.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_END_TIMEOUT)
        if hasattr(subscriber, "send_stream"):
            subscriber.send_stream.close()
            subscriber.receive_stream.close()
        # With a subscription, start() would do nothing.
        subscription = getattr(subscriber, "subscription", None)
        if subscription is not None:
            subscriber.subscription = None
            with suppress(Exception):
                async with asyncio.timeout(_END_TIMEOUT):
                    await subscription.aclose()

    async def start(self, *, consume: bool, supervise: bool) -> None:
        self.last_error = None
        await self.broker.connect()
        if (client := self.client) is None:
            await super().start(consume=consume, supervise=supervise)
            return
        self._connection = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py left it untyped
        try:
            await self.check()
        except exceptions.ConnectionError as error:
            # The text is all that redis-py leaves of it.
            self.last_error = error.__context__ if isinstance(error.__context__, OSError) else None
            raise
        except ResponseError as error:
            # A server older than Redis 6 repeats the login that it does not understand.
            raise type(error)(str(error).partition(", with args")[0]) from None
        for subscriber in self.broker.subscribers:
            # What read for it in an earlier run has been drained.
            redis_read(subscriber)
            self.adopt(subscriber)
        await self.start_endpoints(consume=consume)

    async def drain(self) -> None:
        readers = filter(None, map(redis_reader, self.broker.subscribers))
        await asyncio.gather(*(reader.drain() for reader in readers))

    async def stop(self, seconds: float) -> None:
        client = self.client
        try:
            await super().stop(seconds)
        finally:
            await self._let_go(client)

    async def abort(self, seconds: float = 0.0) -> None:
        if not self.real:
            await super().abort(seconds)
            return
        await self._let_go(self.client)
        redis_forget_connection(self.broker)
        with suppress(Exception):
            async with asyncio.timeout(_END_TIMEOUT):
                await self.broker.config.disconnect()

    async def _let_go(self, client: Redis | None) -> None:
        """End what must not outlive the broker's run."""
        await asyncio.gather(*map(self.halt, self.broker.subscribers))
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
        if client is not None and isinstance(client.connection_pool, SentinelConnectionPool):
            # FastStream leaves the connections to the sentinels open.
            sentinels = client.connection_pool.sentinel_manager.sentinels
            await asyncio.gather(*(sentinel.aclose() for sentinel in sentinels), return_exceptions=True)


async def _ping(client: Redis, connection: AbstractConnection) -> None:
    """Ask on a connection of our own: those of the pool may all be in use, and its limit is the user's."""
    await client.connection_pool.ensure_connection(connection)
    await connection.send_command("PING")
    await connection.read_response()


def _order(entry: str) -> tuple[int, ...]:
    """Return what puts the ids of a stream's entries in order; the special ones come first."""
    return tuple(int(part) for part in entry.split("-") if part.isdigit())


driver = RedisDriver
