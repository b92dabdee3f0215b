"""Private names of FastStream's Redis broker."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from faststream.redis import RedisBroker
from faststream.redis.configs.state import RedisSentinelConnectionState
from redis.exceptions import ResponseError


def client(broker: RedisBroker) -> object:
    """Return the client of a broker, also that of a TestBroker; None if it is not connected."""
    return broker._connection


def connection_options(broker: RedisBroker) -> Mapping[str, Any]:
    """Return the options with which a broker creates its client, including the credentials."""
    return broker.config.broker_config.connection._options


def sentinels(broker: RedisBroker) -> tuple[Sequence[tuple[str, int]], str] | None:
    """Return the addresses of the sentinels and the name of the master; None for a broker without them."""
    state = broker.config.broker_config.connection
    return (state._sentinels, state._master_name) if isinstance(state, RedisSentinelConnectionState) else None


def sentinel_settings(broker: RedisBroker) -> Mapping[str, Any]:
    """Return the settings for connections to the sentinels, including the credentials."""
    return getattr(broker.config.broker_config.connection, "_sentinel_kwargs", None) or {}


async def create_group(client: Any, subscriber: Any) -> None:
    """Create the consumer group of a stream subscriber, as its `start()` does, unless the group exists.

    From then on the group delivers the entries that are added to the stream. `start()` continues with new
    entries only if it has created the group itself: with an existing group and a `last_id` it would read only
    pending entries. So `read_id` is set here too.
    """
    stream = subscriber.stream_sub
    try:
        await client.xgroup_create(
            name=stream.name,
            id="$" if subscriber.last_id == ">" else subscriber.last_id,
            groupname=stream.group,
            mkstream=stream.declare,
        )
    except ResponseError as error:
        if "already exists" not in str(error):
            raise
    else:
        subscriber.read_id = ">"


def restore_get_msgs(subscriber: Any) -> Callable[..., Any]:
    """Remove the replacement of a subscriber's `_get_msgs`, and return FastStream's method."""
    vars(subscriber).pop("_get_msgs", None)
    get_msgs: Callable[..., Any] = subscriber._get_msgs
    return get_msgs


def replace_get_msgs(subscriber: Any, get_msgs: Callable[..., Any]) -> None:
    """Replace the method with which a subscriber's task reads and handles the next messages."""
    subscriber._get_msgs = get_msgs


def reader(subscriber: Any) -> Any:
    """Return the replacement of a subscriber's `_get_msgs`, or None."""
    return vars(subscriber).get("_get_msgs")
