"""Marks for dependencies that routes and subscribers share: `Context`, `Logger` and `Message`."""

import logging
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

from fastapi import params
from fastapi.requests import HTTPConnection
from faststream.exceptions import SetupError
from faststream.message import StreamMessage

from faststream_adapters._compat.faststream import EMPTY, ContextField, context_value
from faststream_adapters._hosting.providing import BrokerNotProvidedError

from ._provide import running_brokers


class _SharedContext(ContextField, params.Depends):
    """FastStream's mark, which is a dependency for FastAPI."""

    def __init__(self, name: str, **options: Any) -> None:
        ContextField.__init__(self, name, **options)
        params.Depends.__init__(self, self._resolve_in_route)

    async def _resolve_in_route(self, connection: HTTPConnection) -> Any:
        """Return the value for a route, which has no message.

        Raises:
            SetupError: The value exists only for messages, or differs between the application's brokers.
        """
        first = self.name.partition(".")[0]
        if first in {"", "message"}:
            problem = "only subscribers have a message" if first else "a route needs a name for it"
            msg = f"A route uses Context({self.name!r}) of faststream_adapters.fastapi, but {problem}."
            raise SetupError(msg)
        brokers = list(dict.fromkeys(running_brokers(connection.scope)))
        if not brokers:
            msg = (
                f"A route uses Context({self.name!r}), but this application runs no broker: include a "
                "FastStreamRouter that has one, and let the application's lifespan run."
            )
            raise BrokerNotProvidedError(msg)
        values = [context_value(broker, self) for broker in brokers]
        value = next((each for each in values if each is not EMPTY), EMPTY)
        if value is EMPTY:
            msg = f"A route uses Context({self.name!r}), but the context has no such value outside messages."
            raise SetupError(msg)
        # The loggers of the brokers differ in their names only.
        if first != "logger" and any(each is not value for each in values):
            msg = f"A route uses Context({self.name!r}), which differs between the application's brokers."
            raise BrokerNotProvidedError(msg)
        return value


def Context(  # noqa: N802 (named like FastStream's)
    name: str = "",
    *,
    cast: bool = False,
    default: Any = EMPTY,
    initial: Callable[..., Any] | None = None,
) -> Any:
    """Mark a parameter for a value of FastStream's context, in subscribers, dependencies and routes.

    A route gets the broker and the logger of its application, and whatever the context has for every message.

    Args:
        name: The name in the context, such as `broker`; attributes follow after dots. The default, which
            routes do not have, is the name of the parameter.
        cast: Whether to validate and convert the value for the annotation; not in routes.
        default: The value if the context has none.
        initial: Returns the value if the context has none, and the context keeps it.
    """
    return _SharedContext(name, cast=cast, default=default, initial=initial)


Logger: TypeAlias = Annotated[logging.Logger, Context("logger")]
"""The logger of the broker."""

Message: TypeAlias = Annotated[StreamMessage[Any], Context("message")]
"""The message that is handled; an error in routes, which have none."""
