"""Redis: what `redis-py`'s client can be asked, and how FastStream's subscribers are stopped and revived."""

import asyncio
import logging
import math
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
        self._socket_timeout = math.inf
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
            if await self.broker.ping(PING_TIMEOUT):
                return "ok"
            if redis_client(self.broker) is None:
                return "not_started"
            raise TimeoutError  # pragma: no cover (CPython 3.11 loses the trace of a cancelled ping)
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
        if isinstance(error, exceptions.RedisClusterException) and error.__cause__ is not None:
            # What its last node has met.
            return self.code(error.__cause__)
        return "refused" if isinstance(error, exceptions.ConnectionError) else super().code(error)

    def adopt(self, subscriber: Any) -> None:
        if self.real and redis_reader(subscriber) is None:
            patience = self._socket_timeout if self._cut_off(subscriber) else math.inf
            reader = Reader(subscriber, redis_read(subscriber), lambda: self._answered, patience)
            redis_read_by(subscriber, reader)

    def _cut_off(self, subscriber: Any) -> bool:
        """Return whether the client ends reads that the server would let wait for longer."""
        return math.isfinite(self._socket_timeout) and _wait(subscriber) >= self._socket_timeout

    def idle(self, subscriber: Any) -> bool:
        limiter = getattr(subscriber, "limiter", None)
        if limiter is not None:
            # Those that wait for a worker, or are on their way to one, have been taken from the server too.
            waiting = subscriber.receive_stream.statistics()
            handing = self.alive(subscriber) > 1 and not waiting.tasks_waiting_receive
            if limiter.value < subscriber.max_workers or waiting.current_buffer_used > 0 or handing:
                return False
        return super().idle(subscriber)

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

    async def start(self, *, consume: bool, supervise: bool) -> None:  # noqa: ARG002 (redis-py never gives up)
        self.last_error = None
        await self.broker.connect()
        if (client := self.client) is None:
            # Before the subscribers, which without a server would start again and again, without a pause.
            await self.check()
            await self.start_endpoints(consume=consume)
            return
        connection = self._connection = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py left it untyped
        try:
            await self.check()
        except exceptions.ConnectionError as error:
            # The text is all that redis-py leaves of it.
            self.last_error = error.__context__ if isinstance(error.__context__, OSError) else None
            raise
        except ResponseError as error:
            # A server older than Redis 6 repeats the login that it does not understand.
            raise type(error)(str(error).partition(", with args")[0]) from None
        # None is for as long as it takes.
        self._socket_timeout = connection.socket_timeout or math.inf
        if consume:
            self._warn(client.connection_pool.max_connections)
        for subscriber in self.broker.subscribers:
            # What read for it in an earlier run has been drained.
            redis_read(subscriber)
            self.adopt(subscriber)
        await self.start_endpoints(consume=consume)

    def _warn(self, connections: int) -> None:
        """Log which of the broker's options do not go together, while all is well."""
        subscribers = list(self.broker.subscribers)
        for subscriber in filter(self._cut_off, subscribers):
            logger.warning(
                "%s: the polling_interval of the subscriber %s is not below the socket_timeout of %g s. "
                "What the server sends as the client ends a read may be lost: make socket_timeout longer.",
                self.name,
                subscriber.specification.call_name,
                self._socket_timeout,
            )
        held = sum(map(holds, subscribers))
        if held >= connections:
            logger.warning(
                "%s: %d connections are held by subscribers, and max_connections is %d: "
                "none is left to publish or acknowledge.",
                self.name,
                held,
                connections,
            )

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


def _wait(subscriber: Any) -> float:
    """Return for how many seconds the server may keep a read of a list or a stream waiting."""
    stream, items = subscriber.config.stream_sub, subscriber.config.list_sub
    if not subscriber.calls:
        return 0.0
    if stream is not None and stream.min_idle_time is None:
        return float(stream.polling_interval / 1000)
    # BLPOP takes 0 for no limit.
    return items.polling_interval or math.inf if items is not None and not items.batch else 0.0


def holds(subscriber: Any) -> bool:
    """Return whether a subscriber holds a connection of the pool for as long as it consumes."""
    return subscriber.config.channel_sub is not None or _wait(subscriber) > 0


def _order(entry: str) -> tuple[int, ...]:
    """Return what puts the ids of a stream's entries in order; the special ones come first."""
    return tuple(int(part) for part in entry.split("-") if part.isdigit())


driver = RedisDriver
