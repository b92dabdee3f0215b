"""FastStream's private names that are independent of the client."""

import inspect
import json
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeGuard

from faststream._internal import _compat as libraries
from faststream._internal.application import Application, catch_startup_validation_error
from faststream._internal.broker import BrokerUsecase
from faststream._internal.constants import EMPTY
from faststream._internal.context import Context as ContextField
from faststream._internal.context.resolve import resolve_context_by_name
from faststream._internal.di import FastDependsConfig
from faststream._internal.endpoint.call_wrapper import HandlerCallWrapper
from faststream._internal.endpoint.subscriber.utils import MultiLock
from faststream._internal.utils import apply_types, to_async

if TYPE_CHECKING:
    from fast_depends.library.serializer import SerializerProto as SerializerProto
    from faststream._internal.basic_types import AnyCallable as AnyCallable
    from faststream._internal.basic_types import Lifespan as Lifespan
    from faststream._internal.basic_types import LoggerProto as LoggerProto
    from faststream._internal.basic_types import SettingField as SettingField
    from faststream._internal.endpoint.subscriber import SubscriberUsecase
    from faststream.specification.base import SpecificationFactory as SpecificationFactory

__all__ = (
    "EMPTY",
    "Application",
    "Broker",
    "BrokerUsecase",
    "ContextField",
    "FastDependsConfig",
    "Subscriber",
    "add_call_decorator",
    "after_shutdown",
    "after_startup",
    "build_handlers",
    "call_for_messages",
    "connection_settings",
    "context_value",
    "count_handlers",
    "declared_call",
    "dependencies_of",
    "forget_connection",
    "graceful_timeout",
    "guard_method",
    "guard_producers",
    "handler_name",
    "handlers_of",
    "injected",
    "injects",
    "is_connected",
    "is_in_memory",
    "is_subscriber",
    "json_dumps",
    "json_loads",
    "observe_routers",
    "on_shutdown",
    "on_startup",
    "options_of",
    "producer_of",
    "replaced_starts",
    "share_state",
    "test_broker",
    "to_async",
    "unguard_producers",
    "with_payloads",
)

Broker: TypeAlias = BrokerUsecase[Any, Any, Any]
"""Any FastStream broker."""

# Not imported at run time: without a broker it would take most of this package's import time.
Subscriber: TypeAlias = "SubscriberUsecase[Any]"
"""Any FastStream subscriber."""

_HOOKS = (
    "_on_startup_calling",
    "_after_startup_calling",
    "_on_shutdown_calling",
    "_after_shutdown_calling",
)


def _refuse_constant(name: str) -> None:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        _refuse_constant(text)
    return value


# Made once: `json.loads` with these arguments makes one for each call, which takes longer than a short text.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def _strict_loads(data: bytes) -> Any:
    return _DECODER.decode(data.decode(json.detect_encoding(data), "surrogatepass"))


# FastStream uses orjson if it is installed, which takes no such arguments and knows no NaN.
_HAS_ORJSON = libraries.orjson is not None
_loads: Callable[[bytes], Any] = libraries.json_loads if _HAS_ORJSON else _strict_loads
_STRICT_DUMPS: dict[str, Any] = {} if _HAS_ORJSON else {"allow_nan": False}


def json_loads(data: bytes) -> Any:
    """Parse JSON; NaN, Infinity and numbers that are too large for a float are a ValueError."""
    return _loads(data)


def json_dumps(data: object) -> bytes:
    """Return a value as JSON. NaN and Infinity are a ValueError, or null where orjson is installed."""
    return libraries.json_dumps(data, **_STRICT_DUMPS)


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


def options_of(app: Application) -> set[str] | None:
    """Return the options that the lifespan and the startup hooks accept; None if one accepts any option."""
    taken: set[str] = set()
    for func in (app.lifespan_context, *app._on_startup_calling):
        if (func.__module__ or "").startswith("faststream."):
            # FastStream's default lifespan, which does nothing.
            continue
        for name, parameter in inspect.signature(func).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                return None
            taken.add(name)
    return taken


async def on_startup(app: Application, options: Mapping[str, "SettingField"]) -> None:
    """Run the hooks that precede the start of the brokers.

    Raises:
        StartupValidationError: A hook requires an option that is missing or of another type.
    """
    async with catch_startup_validation_error():
        for hook in app._on_startup_calling:
            await hook(**options)


async def after_startup(app: Application) -> None:
    """Run the hooks that follow the start of the brokers."""
    for hook in app._after_startup_calling:
        await hook()


async def on_shutdown(app: Application) -> None:
    """Run the hooks that precede the stop of the brokers."""
    for hook in app._on_shutdown_calling:
        await hook()


async def after_shutdown(app: Application) -> None:
    """Run the hooks that follow the stop of the brokers."""
    for hook in app._after_shutdown_calling:
        await hook()


def share_state(source: Application, target: Application) -> None:
    """Make two apps share their brokers, hooks and context, including those that are added later.

    They are shared by reference, because adding a broker to a second app breaks injection in its subscribers.
    """
    for name in ("config", "brokers", "schema", "lifespan_context", *_HOOKS):
        setattr(target, name, getattr(source, name))
    target.config.context.set_global("app", target)


def graceful_timeout(broker: Broker, seconds: float | None) -> float | None:
    """Set how long a subscriber's `stop()` waits for its handlers, and return the previous value."""
    config = broker.config.broker_config
    previous: float | None = config.graceful_timeout
    config.graceful_timeout = seconds
    return previous


def connection_settings(broker: Broker) -> dict[str, object]:
    """Return what a broker's client is configured with, including the credentials."""
    specification = getattr(broker, "specification", None)
    return {
        "client": getattr(broker, "_connection_kwargs", None),
        "url": getattr(specification, "url", None),
        "security": getattr(specification, "security", None),
    }


def is_connected(broker: Broker) -> bool:
    """Return whether a broker was connected and not stopped since."""
    return broker._connection is not None


def is_in_memory(broker: Broker) -> bool:
    """Return whether a TestBroker replaces a broker's connection; with `with_real=True` it does not."""
    return "_connect" in vars(broker)


class _ObservedRouters(list[Any]):
    """The routers of a broker. FastStream removes one that another broker includes.

    Args:
        routers: The routers.
        observe: Called when a router was included, and before one is removed.
    """

    def __init__(self, routers: Iterable[Any], observe: Callable[[], None]) -> None:
        super().__init__(routers)
        self._observe = observe

    def append(self, router: Any) -> None:
        super().append(router)
        self._observe()

    def remove(self, router: Any) -> None:
        self._observe()
        super().remove(router)


def observe_routers(broker: Broker, observe: Callable[[], None]) -> None:
    """Call a function when a router was included in a broker, and before another broker takes one.

    Args:
        broker: The broker.
        observe: The function.
    """
    broker.routers = _ObservedRouters(broker.routers, observe)


def forget_connection(broker: Broker) -> None:
    """Remove a broker's reference to its connection, which `stop()` then ignores and `connect()` replaces."""
    broker._connection = None
    broker.running = False


def count_handlers(subscriber: Subscriber) -> None:
    """Let a subscriber that TestBroker has started know whether its handlers have finished."""
    subscriber.lock = MultiLock()


def test_broker(broker: Broker) -> AbstractAsyncContextManager[Any] | None:
    """Return FastStream's TestBroker for a broker, which only connects it; None if there is none."""
    # Not at the top: it imports `unittest.mock`.
    from faststream._internal.testing.broker import find_test_broker

    kind = find_test_broker(broker)
    return None if kind is None else kind(broker, connect_only=True)


Publish: TypeAlias = Callable[[Any], Awaitable[Any]]
"""A producer's method that sends a command to publish."""


class GuardedProducer:
    """Stands in for a producer whose broker may not be able to publish.

    Everything else, such as connecting, is the producer's own.

    Args:
        producer: FastStream's producer.
        guard: Called with the producer's method and the command to publish.
    """

    def __init__(self, producer: Any, guard: Callable[[Publish, Any], Awaitable[Any]]) -> None:
        self.producer = producer
        self._guard = guard

    def __bool__(self) -> bool:
        return bool(self.producer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.producer, name)

    async def publish(self, command: Any) -> Any:
        return await self._guard(self.producer.publish, command)

    async def publish_batch(self, command: Any) -> Any:
        return await self._guard(self.producer.publish_batch, command)

    async def request(self, command: Any) -> Any:
        return await self._guard(self.producer.request, command)


def _producer_attributes(broker: Broker) -> Iterator[tuple[Any, str]]:
    """Yield the objects that hold a producer, with the name of the attribute."""
    config = broker.config.broker_config
    yield config, "producer"
    if hasattr(config, "js_producer"):
        # NATS has another one for JetStream.
        yield config, "js_producer"
    for publisher in broker.publishers:
        if hasattr(publisher, "producer"):
            # Those of Redis have producers of their own.
            yield publisher, "producer"


def guard_producers(broker: Broker, guard: Callable[[Publish, Any], Awaitable[Any]]) -> None:
    """Pass all that a broker and its publishers publish to a function, instead of their producers.

    Args:
        broker: The broker.
        guard: Called with the producer's method and the command to publish.
    """
    for owner, name in _producer_attributes(broker):
        producer = getattr(owner, name)
        if not isinstance(producer, GuardedProducer):
            setattr(owner, name, GuardedProducer(producer, guard))


def unguard_producers(broker: Broker) -> None:
    """Let a broker and its publishers use their producers again."""
    for owner, name in _producer_attributes(broker):
        producer = getattr(owner, name)
        if isinstance(producer, GuardedProducer):
            setattr(owner, name, producer.producer)


def guard_method(
    broker: Broker, name: Literal["start", "stop"], guard: Callable[..., Awaitable[None]]
) -> None:
    """Let a function decide what `broker.start()` or `broker.stop()` does.

    Args:
        broker: The broker.
        name: The name of the method.
        guard: Called with the broker's own method, and with the arguments for it.
    """
    method = getattr(broker, name)
    if getattr(method, "func", None) != guard:
        vars(broker)[name] = partial(guard, method)


def producer_of(broker: Broker) -> Any:
    """Return FastStream's producer of a broker, guarded or not."""
    producer = broker.config.broker_config.producer
    return producer.producer if isinstance(producer, GuardedProducer) else producer


def add_call_decorator(broker: Broker, decorator: Callable[[Any], Any]) -> None:
    """Apply a decorator to the handlers of a broker, outside all others, whenever FastStream builds them."""
    config = broker.config.broker_config.fd_config
    others = (each for each in config.call_decorators if each != decorator)
    config.call_decorators = (decorator, *others)


def injects(broker: Broker) -> bool:
    """Return whether FastStream passes arguments by name, which `apply_types=False` disables."""
    return bool(broker.config.broker_config.fd_config.use_fastdepends)


def context_value(broker: Broker, field: ContextField) -> Any:
    """Return what a mark stands for while no message is handled; EMPTY if there is nothing."""
    config, context = broker.config.broker_config, broker.context
    local = (("logger", config.logger.logger.logger), *config.extra_context.items())
    with context.scopes(local):
        return resolve_context_by_name(
            name=f"{field.prefix}{field.name}", default=field.default, initial=field.initial, context=context
        )


def call_for_messages(function: Callable[..., Any], call: Callable[..., Any]) -> None:
    """Let FastStream call something else than a decorated handler for messages."""
    function._fastdepends_call_ = call  # type: ignore[attr-defined]


def declared_call(attribute: object) -> Callable[..., Any] | None:
    """Return the undecorated handler function of an attribute that is a subscriber."""
    return attribute._declared_call if isinstance(attribute, HandlerCallWrapper) else None


def is_subscriber(value: object) -> TypeGuard[Subscriber]:
    """Return whether an object is a FastStream subscriber."""
    # Not at the top: see `Subscriber`.
    from faststream._internal.endpoint.subscriber import SubscriberUsecase

    return isinstance(value, SubscriberUsecase)


@contextmanager
def replaced_starts(replacements: Mapping[Subscriber, Callable[[], Awaitable[None]]]) -> Iterator[None]:
    """Let `broker.start()` call other functions than the `start()` of some subscribers."""
    # An application may have replaced the method of an object itself.
    own = {subscriber: vars(subscriber).get("start") for subscriber in replacements}
    for subscriber, start in replacements.items():
        vars(subscriber)["start"] = start
    try:
        yield
    finally:
        for subscriber, before in own.items():
            del vars(subscriber)["start"]
            if before is not None:
                vars(subscriber)["start"] = before


def handler_name(subscriber: Subscriber) -> str:
    """Return the name of a subscriber's handler function; several handlers are joined."""
    functions = (inspect.unwrap(call.handler._declared_call) for call in subscriber.calls)
    return ",".join(getattr(each, "__name__", type(each).__name__) for each in functions)


def handlers_of(subscriber: Subscriber) -> list[Callable[..., Any]]:
    """Return the handlers of a subscriber, each as a function and as FastStream's decorator returns it."""
    handlers = [call.handler for call in subscriber.calls]
    declared = [handler._declared_call for handler in handlers]
    return [*handlers, *declared, *map(inspect.unwrap, declared)]


def dependencies_of(broker: Broker) -> Iterator[tuple[list[Any], Callable[..., Any]]]:
    """Yield the undecorated handler functions of a broker's subscribers, with their `dependencies=`."""
    for subscriber in broker.subscribers:
        for item in subscriber.calls:
            shared = subscriber._outer_config.broker_dependencies
            yield [*shared, *item.dependencies], item.handler._declared_call


def build_handlers(subscriber: Subscriber) -> None:
    """Build the models of a subscriber's handlers, which its start and its description need."""
    subscriber._build_fastdepends_model()


def with_payloads(specification: Any, payloads: list[tuple[dict[str, Any], str]]) -> Any:
    """Return a copy of a subscriber's or publisher's specification that describes these payloads.

    Args:
        specification: The specification.
        payloads: The JSON Schemas, with the names of the handlers.
    """
    original = type(specification)
    members = {"__slots__": (), "get_payloads": lambda _: payloads}
    described = copy(specification)
    described.__class__ = type(original.__name__, (original,), members)
    return described
