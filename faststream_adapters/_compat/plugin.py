"""FastStream's private names behind the stand-in for its deprecated FastAPI plugin."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from fast_depends.core import CallModel
from fast_depends.dependencies import Dependant
from faststream._internal.broker import BrokerRouter as BrokerRouter
from faststream._internal.context import ContextRepo as ContextRepo
from faststream._internal.di.config import BuiltDependant, FastDependsConfig
from faststream._internal.utils import apply_types, to_async

from .faststream import Broker

AnyCallable: TypeAlias = Callable[..., Any]
Receive: TypeAlias = Callable[[Any], Awaitable[Any]]


@dataclass(kw_only=True, slots=True)
class PluginConfig(FastDependsConfig):
    """Builds handlers that take messages as FastStream's FastAPI plugin does.

    Args:
        prepare: Returns what to call instead of a handler, and which of its `dependencies=` FastStream calls.
        receive: Returns what to call with a message, for a handler that takes arguments, and its model.
    """

    prepare: Callable[[AnyCallable, Sequence[Any]], tuple[AnyCallable, Sequence[Dependant]]]
    receive: Callable[[AnyCallable, CallModel], Receive]

    def __ror__(self, value: FastDependsConfig) -> "PluginConfig":
        """Merge the configuration of a FastStream app that takes the broker."""
        merged = FastDependsConfig.__or__(value, self)
        return PluginConfig(**_values(merged), prepare=self.prepare, receive=self.receive)

    def build_call(
        self, call: AnyCallable, *, dependencies: Sequence[Any] = (), call_decorators: Any = ()
    ) -> BuiltDependant:
        """Build a handler: FastStream's own, except for what becomes of the message."""
        call, dependencies = self.prepare(call, dependencies)
        built = FastDependsConfig.build_call(
            self, call, dependencies=dependencies, call_decorators=call_decorators
        )
        function = to_async(built.original_call)
        function = apply_types(None, context__=self.context)(func=function, model=built.dependent)
        built.wrapped_call = self.receive(function, built.dependent)
        return built


def _values(config: FastDependsConfig) -> dict[str, Any]:
    return {each.name: getattr(config, each.name) for each in fields(FastDependsConfig)}


def configure(broker: Broker, prepare: Any, receive: Any) -> None:
    """Let a broker build its handlers with a `PluginConfig` of these functions."""
    config = broker.config.broker_config
    config.fd_config = PluginConfig(**_values(config.fd_config), prepare=prepare, receive=receive)
