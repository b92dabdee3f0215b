"""Inject the application's brokers into its routes."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal, overload

from fastapi import FastAPI, HTTPException, Security, WebSocketException
from fastapi.requests import HTTPConnection
from fastapi.security import SecurityScopes
from faststream.asgi.types import Scope
from starlette.status import WS_1013_TRY_AGAIN_LATER

from faststream_adapters._asgi.responses import RETRY_AFTER
from faststream_adapters._compat.faststream import Broker
from faststream_adapters._hosting.providing import Advice, TBroker, check_names, find_broker
from faststream_adapters._lifecycle.lifespan import BrokerLifespan
from faststream_adapters._lifecycle.managed import managed_broker

_RUNNING = "_faststream_adapters_running"
"""The attribute of an application's router that lists the lifespans in it, and the names of their brokers.

An attribute of `app.state` would not be found in a mounted application: there, `scope["app"]` is the mounted
application, but `scope["router"]` is the router of the outermost one, whose lifespan has run.
"""

_OPTIONAL = "faststream_adapters:optional"
"""The security scope of an optional broker.

FastAPI caches a dependency for each set of scopes, but overrides it for all of them: so `optional=True` and
`optional=False` have results of their own, and one key in `app.dependency_overrides`.
"""

_ADVICE = Advice(
    none="include a FastStreamRouter that has one, and let the application's lifespan run "
    "(use a test client in a `with` statement)",
    several="name the brokers with FastStreamRouter(..., names=(...)), and pass the name of the one you need "
    "to provide_broker as name=",
)


@contextmanager
def registered(app: FastAPI, lifespan: BrokerLifespan, names: Sequence[str] | None) -> Iterator[None]:
    """Make a running lifespan's brokers available to `provide_broker` while the context is entered.

    Args:
        app: The application in which it runs.
        lifespan: The lifespan.
        names: The names of its brokers.

    Raises:
        SetupError: The names do not match the brokers.
    """
    if names is not None:
        check_names(names, len(lifespan.brokers))
    running: list[tuple[BrokerLifespan, Sequence[str] | None]]
    running = vars(app.router).setdefault(_RUNNING, [])
    entry = lifespan, names
    running.append(entry)
    try:
        yield
    finally:
        running.remove(entry)


@overload
def provide_broker(
    kind: type[TBroker], *, optional: Literal[False] = False, name: str | None = None
) -> Callable[..., Awaitable[TBroker]]: ...


@overload
def provide_broker(
    kind: type[TBroker], *, optional: bool, name: str | None = None
) -> Callable[..., Awaitable[TBroker | None]]: ...


def provide_broker(
    kind: type[TBroker], *, optional: bool = False, name: str | None = None
) -> Callable[..., Awaitable[Any]]:
    """Return a dependency that injects a running broker into a route: `Depends(provide_broker(NatsBroker))`.

    Args:
        kind: The class of the broker, or one of its base classes.
        optional: Whether to inject None while the broker is not up, instead of responding with 503.
        name: The broker's name in `FastStreamRouter(..., names=...)`, if there are several of this class.

    Returns:
        The dependency. Calls with the same arguments return the same function. The one without `optional` is
        the key for `app.dependency_overrides`, which overrides both. It raises BrokerNotProvidedError if the
        application does not run exactly one broker of this class and name, and while the broker is not up an
        HTTPException with status 503 and Retry-After; a websocket is closed with code 1013 if the server
        cannot refuse it with a response.
    """
    key = kind, name
    required = _required.setdefault(key, _provide(kind, name))
    return _optional.setdefault(key, _provide_or_none(required)) if optional else required


_required: dict[tuple[type[Broker], str | None], Callable[..., Awaitable[Any]]] = {}
_optional: dict[tuple[type[Broker], str | None], Callable[..., Awaitable[Any]]] = {}


def _provide(kind: type[Broker], name: str | None) -> Callable[..., Awaitable[Any]]:
    async def provide(connection: HTTPConnection, scopes: SecurityScopes) -> Any:
        broker = find_broker(kind, running_brokers(connection.scope, name), _ADVICE, name)
        managed = managed_broker(broker)
        if managed.can_publish:
            return broker
        if _OPTIONAL in scopes.scopes:
            return None
        detail = f"The {type(broker).__name__} is not up."
        raise _unavailable(connection.scope, detail) from managed.not_up_error()

    return provide


def _provide_or_none(required: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def provide(broker: Annotated[Any, Security(required, scopes=[_OPTIONAL])]) -> Any:
        return broker

    return provide


def running_brokers(scope: Scope, name: str | None = None) -> Iterator[Broker]:
    """Yield the brokers that run in the application of a request, or those of them that have a name."""
    for router in (scope["app"].router, scope.get("router")):
        for lifespan, names in getattr(router, _RUNNING, ()):
            if name is None:
                yield from lifespan.brokers
            elif names is not None:
                yield from (
                    broker for broker, own in zip(lifespan.brokers, names, strict=True) if own == name
                )


def _unavailable(scope: Scope, detail: str) -> Exception:
    if scope["type"] == "websocket" and "websocket.http.response" not in (scope.get("extensions") or {}):
        return WebSocketException(WS_1013_TRY_AGAIN_LATER, detail)
    return HTTPException(503, detail, RETRY_AFTER)
