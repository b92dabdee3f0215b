"""The only place that imports FastStream's private names or touches private attributes of its objects."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from faststream import FastStream
from faststream._internal._compat import json_dumps, json_loads
from faststream._internal.application import catch_startup_validation_error
from faststream._internal.broker import BrokerUsecase
from faststream._internal.constants import EMPTY
from faststream._internal.context import Context as ContextField
from faststream._internal.di import FastDependsConfig
from faststream._internal.endpoint.subscriber import SubscriberUsecase
from faststream._internal.utils import apply_types, to_async

if TYPE_CHECKING:
    from fast_depends.library.serializer import SerializerProto as SerializerProto
    from faststream._internal.basic_types import AnyCallable as AnyCallable
    from faststream._internal.basic_types import Lifespan as Lifespan
    from faststream._internal.basic_types import LoggerProto as LoggerProto
    from faststream._internal.basic_types import SettingField as SettingField
    from faststream.nats import JStream, NatsBroker
    from faststream.specification.base import SpecificationFactory as SpecificationFactory

__all__ = (
    "EMPTY",
    "Broker",
    "BrokerUsecase",
    "ContextField",
    "FastDependsConfig",
    "Subscriber",
    "after_shutdown",
    "after_startup",
    "graceful_timeout",
    "handlers_of",
    "injected",
    "json_dumps",
    "json_loads",
    "nats_forget_buckets",
    "nats_forget_connection",
    "nats_streams",
    "on_shutdown",
    "on_startup",
    "options_of",
    "share_state",
    "to_async",
)

Broker: TypeAlias = BrokerUsecase[Any, Any, Any]
"""Any FastStream broker."""

Subscriber: TypeAlias = SubscriberUsecase[Any]
"""Any FastStream subscriber."""

_HOOKS = (
    "_on_startup_calling",
    "_after_startup_calling",
    "_on_shutdown_calling",
    "_after_shutdown_calling",
)


def injected(func: Callable[..., Any], config: FastDependsConfig) -> Callable[..., Any]:
    """Return `func` with its parameters injected from this configuration."""
    serializer: dict[str, Any] = {} if config.serializer is EMPTY else {"serializer_cls": config.serializer}
    return apply_types(
        func,
        cast_result=False,
        dependency_provider=config.provider,
        context__=config.context,
        **serializer,
    )


def options_of(app: FastStream) -> set[str] | None:
    """Return which options the lifespan and the startup hooks take; None if one takes whatever there is."""
    taken: set[str] = set()
    for func in (app.lifespan_context, *app._on_startup_calling):
        if (func.__module__ or "").startswith("faststream."):
            # FastStream's own lifespan, which stands for none.
            continue
        for name, parameter in inspect.signature(func).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                return None
            taken.add(name)
    return taken


async def on_startup(app: FastStream, options: Mapping[str, "SettingField"]) -> None:
    """Run the hooks that go before the brokers.

    Raises:
        StartupValidationError: A hook asks for an option that is missing or of another type.
    """
    async with catch_startup_validation_error():
        for hook in app._on_startup_calling:
            await hook(**options)


async def after_startup(app: FastStream) -> None:
    """Run the hooks that come after the brokers are up."""
    for hook in app._after_startup_calling:
        await hook()


async def on_shutdown(app: FastStream) -> None:
    """Run the hooks that go before the brokers' end."""
    for hook in app._on_shutdown_calling:
        await hook()


async def after_shutdown(app: FastStream) -> None:
    """Run the hooks that come after the brokers are down."""
    for hook in app._after_shutdown_calling:
        await hook()


def share_state(source: FastStream, target: FastStream) -> None:
    """Make `target` another face of `source`: what is added to one later reaches the other.

    Sharing is by reference, because adding a broker to a second app breaks injection in its subscribers.
    """
    for name in ("config", "brokers", "schema", "lifespan_context", *_HOOKS):
        setattr(target, name, getattr(source, name))
    target.config.context.set_global("app", target)


def graceful_timeout(broker: Broker, seconds: float | None) -> float | None:
    """Set how long a subscriber's `stop()` waits for its handlers, and return what it was."""
    config = broker.config.broker_config
    previous: float | None = config.graceful_timeout
    config.graceful_timeout = seconds
    return previous


def handlers_of(broker: Broker) -> Iterator[Callable[..., Any]]:
    """Return the functions behind a broker's subscribers, as they were written."""
    for subscriber in broker.subscribers:
        for item in subscriber.calls:
            yield item.handler._declared_call


def nats_streams(broker: "NatsBroker") -> "list[tuple[JStream, list[str]]]":
    """Return the JetStream streams that `start()` declares, with their subjects."""
    streams = broker._stream_builder.objects.values()
    return [(stream, list(subjects)) for stream, subjects in streams if stream.declare]


def nats_forget_buckets(broker: "NatsBroker") -> None:
    """Let go of key-value and object stores of an earlier connection."""
    broker.config.kv_declarer.buckets.clear()
    broker.config.os_declarer.buckets.clear()


def nats_forget_connection(broker: "NatsBroker") -> None:
    """Let go of a connection that `stop()` would try to drain."""
    subscriber: Any
    for subscriber in broker.subscribers:
        subscriber.subscription = subscriber._fetch_sub = None
    broker._connection = None
    broker.config.disconnect()
    broker.running = False
