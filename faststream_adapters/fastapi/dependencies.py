"""Brokers as dependencies of FastAPI's routes, and FastAPI's dependencies kept out of subscribers."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from inspect import unwrap
from typing import Any, TypeVar

from fast_depends.dependencies import Dependant
from fast_depends.utils import get_typed_signature
from fastapi import FastAPI, params
from fastapi.requests import HTTPConnection
from faststream.asgi.types import Scope
from faststream.exceptions import SetupError

from faststream_adapters._compat import Broker, handlers_of
from faststream_adapters.lifespan import BrokerLifespan

TBroker = TypeVar("TBroker", bound=Broker)

_running: list[tuple[FastAPI, BrokerLifespan]] = []
_providers: dict[type[Broker], Callable[[HTTPConnection], Awaitable[Any]]] = {}


class BrokerNotProvidedError(SetupError):
    """The application that answers a request runs no such broker, or more than one."""


@contextmanager
def provided(app: FastAPI, lifespan: BrokerLifespan) -> Iterator[None]:
    """Let `provide_broker` find a lifespan's brokers.

    Args:
        app: The application that the lifespan runs in.
        lifespan: The lifespan.
    """
    entry = app, lifespan
    _running.append(entry)
    try:
        yield
    finally:
        _running.remove(entry)


def provide_broker(kind: type[TBroker]) -> Callable[[HTTPConnection], Awaitable[TBroker]]:
    """Return the dependency that gives a broker to a route: `Depends(provide_broker(NatsBroker))`.

    Args:
        kind: The class of the broker, or a base class of it.

    Returns:
        The same function each time, so that it is a key for `app.dependency_overrides`. It raises
        BrokerNotProvidedError when the application does not run exactly one such broker.
    """

    async def provide(connection: HTTPConnection) -> TBroker:
        return _find(connection.scope, kind)

    return _providers.setdefault(kind, provide)


def _find(scope: Scope, kind: type[TBroker]) -> TBroker:
    # In a mounted application, `app` is that one and `router` the outermost's, whose lifespan has run.
    lifespans = [
        lifespan for app, lifespan in tuple(_running) if app is scope["app"] or app.router is scope["router"]
    ]
    brokers = {broker for lifespan in lifespans for broker in lifespan.brokers if isinstance(broker, kind)}
    if not brokers:
        msg = (
            f"This application runs no {kind.__name__}: include a FastStreamRouter that has one, "
            "and let the application's lifespan run (enter a test client by `with`)."
        )
        raise BrokerNotProvidedError(msg)
    if len(brokers) > 1:
        msg = (
            f"This application runs {len(brokers)} brokers that are a {kind.__name__}: "
            "give the one you want a class of its own, derived from that, and ask for it."
        )
        raise BrokerNotProvidedError(msg)
    return brokers.pop()


def check_subscribers(lifespan: BrokerLifespan) -> None:
    """Refuse FastAPI's dependencies, which FastStream would hand to a subscriber instead of calling them.

    Args:
        lifespan: The lifespan of the brokers.

    Raises:
        SetupError: A parameter of a subscriber, or of what it depends on, carries one.
    """
    for broker in lifespan.brokers:
        for handler in handlers_of(broker):
            _check(handler, f"subscriber {_name(handler)!r}")


def _check(function: Callable[..., Any], owner: str) -> None:
    for name, parameter in get_typed_signature(function)[0].parameters.items():
        for mark in (parameter.default, *getattr(parameter.annotation, "__metadata__", ())):
            if isinstance(mark, params.Depends):
                msg = (
                    f"The parameter {name!r} of the {owner} has fastapi.Depends, which works in routes only: "
                    "use faststream.Depends."
                )
                raise SetupError(msg)
            if isinstance(mark, Dependant):
                _check(mark.dependency, f"dependency {_name(mark.dependency)!r} of the {owner}")


def _name(function: Callable[..., Any]) -> str:
    return getattr(unwrap(function), "__name__", repr(function))
