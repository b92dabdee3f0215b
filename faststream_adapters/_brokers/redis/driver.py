"""The driver for Redis brokers: checks of redis-py's client, and the restart and stop of subscribers."""

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import starmap
from typing import Any
from weakref import WeakKeyDictionary

from faststream.redis import RedisBroker
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from faststream_adapters._brokers.codes import BrokerCode, SubscriberCode
from faststream_adapters._brokers.driver import PING_TIMEOUT, Driver, Mismatch
from faststream_adapters._brokers.patterns import redis_covers
from faststream_adapters._compat import redis as private
from faststream_adapters._compat.faststream import Broker

from .reader import Reader

_END_TIMEOUT = 2.0
"""Seconds that tasks and connections may take to end."""

_REPORT_TIMEOUT = 1.0
"""Seconds that the server may take to report on a group or on the type of a key."""

_SENTINEL_CLIENT = re.compile(r"<redis\.asyncio\.client\.Redis.+?>\)>\)> - ")

_AUTH = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)


class RedisDriver(Driver):
    """The driver for a Redis broker."""

    broker: RedisBroker
    load_balancing_hint = "a list, or a stream with a group"
    supports_publishing = True
    supports_patterns = True

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        # Checks have their own connection: the pool's may all be in use, and the user sets its limit.
        self._check_connection: AbstractConnection | None = None
        # Set at the next reply to a check, and then replaced.
        self._replied = asyncio.Event()
        # True also while a check is in progress.
        self._last_check_failed = False
        self._socket_timeout = math.inf
        # The last delivered id of each subscriber's group.
        self._positions: WeakKeyDictionary[object, str] = WeakKeyDictionary()

    @property
    def urls(self) -> Sequence[str]:
        if (sentinels := private.sentinels(self.broker)) is not None:
            addresses, master = sentinels
            return [f"redis-sentinel://{','.join(starmap(_joined, addresses))}/{master}"]
        options = private.connection_options(self.broker)
        security = self.broker.specification.security
        scheme = "rediss" if (security is not None and security.use_ssl) or _uses_tls(options) else "redis"
        if nodes := options.get("startup_nodes"):
            return [f"{scheme}://{_joined(node.host, node.port)}" for node in nodes]
        if path := options.get("path"):
            return [f"unix://{path}"]
        # FastStream's URL is the default one if the host and the port are given as options.
        stated, host, port = super().urls, options.get("host", "localhost"), _port(options)
        if _origin(stated[0]) == (scheme, host, port):
            return stated
        return [f"{scheme}://{_joined(host, port)}/{options.get('db') or 0}"]

    @property
    def settings(self) -> object:
        return [super().settings, private.sentinel_settings(self.broker)]

    @property
    def client(self) -> Redis | None:
        """The client; None before the broker connects, for a TestBroker and for a cluster."""
        client = private.client(self.broker)
        return client if isinstance(client, Redis) else None

    @property
    def is_reconnecting(self) -> bool:
        # redis-py reconnects at the next command, and FastStream's read loops never end.
        return self.has_client

    async def check(self) -> BrokerCode:
        client = self.client
        if client is None:
            if await self.broker.ping(PING_TIMEOUT):
                return "ok"
            if private.client(self.broker) is None:
                return "not_started"
            raise TimeoutError  # pragma: no cover (CPython 3.11 loses the trace of a cancelled ping)
        last_failed, self._last_check_failed = self._last_check_failed, True
        async with asyncio.timeout(PING_TIMEOUT):
            if self._check_connection is None:
                await client.ping()
            else:
                await _send_ping(client, self._check_connection)
            if last_failed:
                # redis-py would reuse the pool's idle connections, and a publish would fail on a lost one.
                await client.connection_pool.disconnect(inuse_connections=False)
        self._last_check_failed = False
        self._replied.set()
        self._replied = asyncio.Event()
        return "ok"

    def classify(self, error: BaseException) -> BrokerCode:
        if isinstance(error, _AUTH):
            return "auth_failed"
        if isinstance(error, exceptions.MaxConnectionsError | exceptions.BusyLoadingError):
            return "error"
        if isinstance(error, exceptions.TimeoutError):
            return "timeout"
        if isinstance(error, exceptions.RedisClusterException) and error.__cause__ is not None:
            # The cause is the error of the last node.
            return self.classify(error.__cause__)
        return "unreachable" if isinstance(error, exceptions.ConnectionError) else super().classify(error)

    def classify_subscriber(self, error: BaseException) -> SubscriberCode:
        missing = isinstance(error, ResponseError) and "NOGROUP" in str(error)
        return "consumer_missing" if missing else super().classify_subscriber(error)

    def on_started(self, subscriber: Any) -> None:
        if self.has_client and private.reader(subscriber) is None:
            get_msgs = private.restore_get_msgs(subscriber)
            timeout = self._socket_timeout if self._is_cut_off(subscriber) else math.inf
            reader = Reader(self, subscriber, get_msgs, lambda: self._replied, timeout)
            private.replace_get_msgs(subscriber, reader)

    def _is_cut_off(self, subscriber: Any) -> bool:
        """Return whether the client times out before the server ends a read without messages."""
        return math.isfinite(self._socket_timeout) and _read_timeout(subscriber) >= self._socket_timeout

    def is_idle(self, subscriber: Any) -> bool:
        limiter = getattr(subscriber, "limiter", None)
        if limiter is not None:
            # Messages that wait for a worker, or are being passed to one, have also left the server.
            stream = subscriber.receive_stream.statistics()
            passing = self.running_tasks(subscriber) > 1 and not stream.tasks_waiting_receive
            if limiter.value < subscriber.max_workers or stream.current_buffer_used > 0 or passing:
                return False
        return super().is_idle(subscriber)

    def is_load_balanced(self, subscriber: Any) -> bool | None:
        stream = subscriber.config.stream_sub
        return subscriber.config.list_sub is not None or (stream is not None and stream.group is not None)

    def group(self, subscriber: Any) -> str | None:
        stream = subscriber.config.stream_sub
        return None if stream is None else stream.group

    def publish_arguments(
        self, subscriber: Any, address: str, destination: str = ""
    ) -> Mapping[str, Any] | None:
        config = subscriber.config
        if config.list_sub is not None:
            return {"list": address}
        if config.stream_sub is not None:
            return {"stream": address, "maxlen": config.stream_sub.maxlen}
        channel = subscriber.channel
        if not channel.pattern:
            return {"channel": address}
        # Redis's asterisk covers dots, but a parameter of the path does not.
        named = channel.path_regex is None or channel.path_regex.match(destination)
        return {"channel": destination} if named and redis_covers(channel.name, destination) else None

    def supports_request(self, subscriber: Any) -> bool:  # noqa: ARG002 (each of them)
        return True

    async def check_subscriber(self, subscriber: Any) -> SubscriberCode | Mismatch:
        reader: Reader | None = private.reader(subscriber)
        if reader is not None and reader.error is not None:
            mismatch = await self._find_mismatch(subscriber) if "WRONGTYPE" in str(reader.error) else None
            return mismatch or self.classify_subscriber(reader.error)
        stream = subscriber.config.stream_sub
        if self.client is not None and stream is not None and stream.group is not None:
            await self._store_group_position(self.client, subscriber)
        return "ok"

    async def _find_mismatch(self, subscriber: Any) -> Mismatch | None:
        """Return what the key of a list or a stream holds instead; None if that is unknown or nothing."""
        client, declared = self.client, "list" if subscriber.config.list_sub is not None else "stream"
        source = getattr(subscriber, f"{declared}_sub", None)
        if client is None or source is None:
            return None
        found: Any = declared.encode()
        with suppress(RedisError, TimeoutError):
            async with asyncio.timeout(_REPORT_TIMEOUT):
                found = await client.type(source.name)
        found = found.decode()
        if found in {declared, "none"}:
            return None
        return Mismatch(f"a {declared} at the key {source.name!r}", f"a {found}")

    async def _store_group_position(self, client: Redis, subscriber: Any) -> None:
        """Store the position of a group: after it was deleted, a restart continues from there."""
        stream = subscriber.stream_sub
        with suppress(RedisError, TimeoutError):
            async with asyncio.timeout(_REPORT_TIMEOUT):
                for group in await client.xinfo_groups(stream.name):
                    if group["name"] == stream.group.encode():
                        self._positions[subscriber] = group["last-delivered-id"].decode()

    async def backlogs(self, subscribers: Sequence[Any]) -> Mapping[Any, int]:
        if (client := self.client) is None:
            return {}
        asked: list[Any] = []
        pipeline = client.pipeline(transaction=False)
        for subscriber in subscribers:
            stream, items = subscriber.config.stream_sub, subscriber.config.list_sub
            if items is not None:
                pipeline.llen(subscriber.list_sub.name)
            elif stream is not None and stream.group is not None and stream.min_idle_time is None:
                pipeline.xinfo_groups(subscriber.stream_sub.name)
            else:
                continue
            asked.append(subscriber)
        replies = await pipeline.execute(raise_on_error=False) if asked else []
        found = {each: _backlog(each, reply) for each, reply in zip(asked, replies, strict=True)}
        return {subscriber: backlog for subscriber, backlog in found.items() if backlog is not None}

    async def restart(self, subscriber: Any) -> Mismatch | None:
        if (mismatch := await self._find_mismatch(subscriber)) is not None:
            # A group cannot be created there.
            return mismatch
        position = self._positions.get(subscriber)
        if position is not None and _entry_order(position) > _entry_order(subscriber.last_id):
            subscriber.last_id = position
        await self.stop_now(subscriber)
        try:
            await subscriber.start()
        except BaseException:
            # FastStream would keep retrying in a task, without a pause.
            await self.stop_now(subscriber)
            raise
        return None

    async def stop_now(self, subscriber: Any) -> None:
        # FastStream's stop() waits for the handlers of a list, and does nothing if its timeout is 0.
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
        # start() does nothing while there is a subscription.
        subscription = getattr(subscriber, "subscription", None)
        if subscription is not None:
            subscriber.subscription = None
            with suppress(Exception):
                async with asyncio.timeout(_END_TIMEOUT):
                    await subscription.aclose()

    async def connect(self, *, consume: bool, supervise: bool) -> None:  # noqa: ARG002 (redis-py never gives up)
        self.last_error = None
        await self.broker.connect()
        if (client := self.client) is None:
            await self.check()
            await self.start_publishers()
            return
        sentinels = _sentinels(client)
        if "retry" not in private.sentinel_settings(self.broker):
            for sentinel in sentinels:
                # redis-py would try a lost sentinel for seconds before it asks the next one.
                sentinel.set_retry(Retry(NoBackoff(), 0))
        # The application may have stopped the broker itself, which closes only the pool.
        await self._close_check_connection()
        connection = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py left it untyped
        try:
            async with asyncio.timeout(PING_TIMEOUT):
                await _send_ping(client, connection)
            # The new pool has no lost connections.
            self._last_check_failed = False
        except MasterNotFoundError as error:
            if (failure := await _common_failure(sentinels)) is None:
                # The text describes the client of each sentinel at length.
                self.last_error = MasterNotFoundError(_SENTINEL_CLIENT.sub("", str(error)))
                raise
            self.last_error = _original(failure)
            raise failure from None
        except exceptions.ConnectionError as error:
            self.last_error = _original(error)
            raise
        except ResponseError as error:
            # The error text of a server older than Redis 6 contains the AUTH command that it rejects.
            raise type(error)(str(error).partition(", with args")[0]) from None
        finally:
            # Not before: if the application starts the broker again, supervision may check it meanwhile, and
            # two checks on one connection would read each other's replies.
            self._check_connection = connection
        # None means no timeout.
        self._socket_timeout = connection.socket_timeout or math.inf
        if consume:
            self._warn_about_options(client.connection_pool.max_connections)
        for subscriber in self.broker.subscribers:
            # The reader of an earlier run has been drained.
            private.restore_get_msgs(subscriber)
            self.on_started(subscriber)
        await self.start_publishers()

    async def declare(self) -> None:
        for subscriber in self.to_declare:
            stream = subscriber.config.stream_sub
            if self.client is not None and stream is not None and stream.group and stream.consumer:
                await private.create_group(self.client, subscriber)

    def _warn_about_options(self, connections: int) -> None:
        """Warn about options that cause losses or failures later.

        Args:
            connections: The maximum number of connections of the client's pool.
        """
        logger = self.loggers["brokers"]
        subscribers = list(self.broker.subscribers)
        for subscriber in filter(self._is_cut_off, subscribers):
            name = self.subscriber_name(subscriber)
            logger.warning(
                "%s: the polling_interval of the subscriber %s is not below the socket_timeout of %g s. "
                "A message that arrives when the client ends a read may be lost: increase socket_timeout.",
                self.name,
                name,
                self._socket_timeout,
                extra={"broker": self.name, "subscriber": name},
            )
        held = sum(map(holds_connection, subscribers))
        if held >= connections:
            logger.warning(
                "%s: %d connections are held by subscribers, and max_connections is %d: "
                "none is left to publish or acknowledge. Increase max_connections.",
                self.name,
                held,
                connections,
                extra={"broker": self.name},
            )

    async def drain(self) -> None:
        readers = filter(None, map(private.reader, self.to_drain))
        await asyncio.gather(*(reader.drain() for reader in readers))

    async def pause(self, subscriber: Any) -> None:
        if (reader := private.reader(subscriber)) is None:
            await super().pause(subscriber)
            return
        stream = getattr(subscriber, "stream_sub", None)
        end = None if stream is None or stream.group else await self._last_entry(stream.name)
        await reader.drain()
        await self.stop_now(subscriber)
        private.restore_get_msgs(subscriber)
        if end is not None and subscriber.last_id == "$":
            # It has read nothing yet, and continues here instead of at what is new when it is resumed.
            subscriber.last_id = end

    async def _last_entry(self, stream: str) -> str:
        """Return the id of the last entry of a stream."""
        client: Any = self.client
        entries = await client.xrevrange(stream, count=1)
        return entries[0][0].decode() if entries else "0-0"

    async def stop(self, seconds: float) -> None:
        client = self.client
        try:
            await super().stop(seconds)
        finally:
            await self._release(client)

    async def abort(self, seconds: float = 0.0) -> None:
        if not self.has_client:
            await super().abort(seconds)
            return
        await self._release(self.client)
        self.forget_connection()
        with suppress(Exception):
            async with asyncio.timeout(_END_TIMEOUT):
                await self.broker.config.disconnect()

    async def _release(self, client: Redis | None) -> None:
        """Stop the subscribers, and close the connections that FastStream does not close."""
        await asyncio.gather(*map(self.stop_now, self.broker.subscribers))
        for subscriber in self.broker.subscribers:
            # The reader refers to its task and to its last error, whose frames keep the connection alive.
            private.restore_get_msgs(subscriber)
        await self._close_check_connection()
        if client is not None:
            # FastStream does not close the connections to the sentinels.
            closing = [sentinel.aclose() for sentinel in _sentinels(client)]
            await asyncio.gather(*closing, return_exceptions=True)

    async def _close_check_connection(self) -> None:
        connection, self._check_connection = self._check_connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)


def _original(error: RedisError) -> OSError | None:
    """Return the error of the operating system, of which redis-py's contains only the text."""
    return error.__context__ if isinstance(error.__context__, OSError) else None


def _sentinels(client: Redis) -> Sequence[Redis]:
    """Return the clients of the sentinels that know a client's master; none for a client without them."""
    pool = client.connection_pool
    return pool.sentinel_manager.sentinels if isinstance(pool, SentinelConnectionPool) else ()


async def _common_failure(sentinels: Sequence[Redis]) -> RedisError | None:
    """Return why no sentinel replies; None if one of them does."""
    results: list[Any] = []
    with suppress(TimeoutError):
        # As long as the search for the master, which has failed: a host name may be slow to resolve.
        async with asyncio.timeout(PING_TIMEOUT):
            pings = (sentinel.ping() for sentinel in sentinels)
            results = await asyncio.gather(*pings, return_exceptions=True)
    failures = [result for result in results if isinstance(result, RedisError)]
    return failures[0] if failures and len(failures) == len(results) else None


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _uses_tls(options: Mapping[str, Any]) -> bool:
    return options.get("ssl") or issubclass(options.get("connection_class", Connection), SSLConnection)


def _port(options: Mapping[str, Any]) -> int:
    return int(options.get("port", 6379))


def _origin(url: str) -> tuple[str, str, int] | None:
    """Return the scheme, host and port of a URL; None for other text, which the application may set."""
    with suppress(ValueError):
        options = parse_url(url)
        return "rediss" if _uses_tls(options) else "redis", options.get("host", "localhost"), _port(options)
    return None


async def _send_ping(client: Redis, connection: AbstractConnection) -> None:
    """Send a PING on a connection outside the pool, and wait for the reply."""
    await client.connection_pool.ensure_connection(connection)
    await connection.send_command("PING")
    await connection.read_response()


def _read_timeout(subscriber: Any) -> float:
    """Return for how many seconds the server may block a read of a list or a stream."""
    stream, items = subscriber.config.stream_sub, subscriber.config.list_sub
    if not subscriber.calls:
        return 0.0
    if stream is not None and stream.min_idle_time is None:
        return float(stream.polling_interval / 1000)
    # 0 means no limit in BLPOP.
    return items.polling_interval or math.inf if items is not None and not items.batch else 0.0


def holds_connection(subscriber: Any) -> bool:
    """Return whether a subscriber holds a connection of the pool while it consumes."""
    return subscriber.config.channel_sub is not None or _read_timeout(subscriber) > 0


def _backlog(subscriber: Any, reply: Any) -> int | None:
    """Return the backlog of a list, or of a group of a stream, from the server's reply; None if unknown.

    The server does not know the lag of a group after some deletions, and before Redis 7.
    """
    if isinstance(reply, int):
        return reply
    groups = reply if isinstance(reply, list) else []
    lags = [group.get("lag") for group in groups if group["name"] == subscriber.stream_sub.group.encode()]
    return next(iter(lags), None)


def _entry_order(entry: str) -> tuple[int, ...]:
    """Return a sort key for the ids of stream entries; special ids come first."""
    return tuple(int(part) for part in entry.split("-") if part.isdigit())


driver_class = RedisDriver
