"""FastAPI dependencies in the subscribers of a broker."""

import inspect
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial, update_wrapper
from typing import Any, ForwardRef, TypeVar
from weakref import WeakSet

from fast_depends.dependencies import Dependant
from fast_depends.utils import get_typed_signature
from fastapi import FastAPI, params
from faststream.exceptions import SetupError

from faststream_adapters._compat.faststream import (
    Broker,
    add_call_decorator,
    dependencies_of,
)
from faststream_adapters._hosting.handlers import Bind, HostHandler
from faststream_adapters._hosting.signatures import AnyCallable, name_of
from faststream_adapters._lifecycle.lifespan import BrokerLifespan

from ._message import MessageRun
from ._parameters import check_http, fastapi_mark, faststream_mark, has_fastapi_mark
from ._plan import Overrides, Plan, ReadParameter, make_plan

T = TypeVar("T")

_ATTRIBUTE = "_faststream_adapters_fastapi"


class LifespanInjection:
    """Passes FastAPI dependencies to the handlers of every broker in a lifespan.

    Args:
        lifespan: The lifespan, which may get more brokers until it starts.
    """

    def __init__(self, lifespan: BrokerLifespan) -> None:
        self.lifespan = lifespan
        self.message_dependencies: list[params.Depends] = []
        """Dependencies that run for each message, before those of the handler."""
        lifespan.preparations.append(self._prepare)

    def install(self) -> None:
        """Prepare the brokers that the lifespan has now."""
        for broker in self.lifespan.brokers:
            injection_of(broker).lifespans.add(self)

    def _prepare(self, app: object) -> None:
        """Refuse what could only fail for each message, before the brokers start in an application.

        Raises:
            SetupError: A parameter or a dependency of a subscriber cannot work.
        """
        self.install()
        for broker in self.lifespan.brokers:
            injection = injection_of(broker)
            injection.refresh()
            injection.check(getattr(app, "dependency_overrides", {}))


class BrokerInjection:
    """Passes FastAPI dependencies to the handlers of a broker.

    FastStream applies `decorate` to each handler, late ones included, before it reads the signature. It sees
    the parameters that are its own, so that the AsyncAPI document and the message's fields stay the same.

    Args:
        broker: The broker.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.lifespans: WeakSet[LifespanInjection] = WeakSet()
        """Those that may run the broker."""
        self.message_dependencies: tuple[params.Depends, ...] = ()
        """The dependencies that those that run it declare for each message."""
        self.default_app: FastAPI | None = None
        """Stands in while no application runs the broker; None refuses messages that need one."""
        self.read_parameter: ReadParameter | None = None
        """Returns what reads a dependency's parameter without a mark from the message; None refuses it."""
        self.refresh()

    @property
    def needs_app(self) -> bool:
        """Whether each message has dependencies, whatever its handler declares."""
        return any(each.message_dependencies for each in self.lifespans)

    def refresh(self) -> None:
        """Find out which lifespans run, and decorate outside other decorators, which may be new."""
        add_call_decorator(self.broker, self.decorate)
        running = [
            each
            for each in self.lifespans
            if self.default_app is not None or each.lifespan.state not in {"stopped", "failed"}
        ]
        self.message_dependencies = tuple(mark for each in running for mark in each.message_dependencies)

    def check(self, overrides: Overrides) -> None:
        """Refuse what could only fail for each message.

        Raises:
            SetupError: A parameter or a dependency of a subscriber cannot work.
        """
        for dependencies, handler in dependencies_of(self.broker):
            _Handler(self, handler).check(dependencies, overrides)

    def decorate(self, handler: AnyCallable) -> AnyCallable:
        """Return a handler without the parameters that FastAPI passes."""
        return _Handler(self, handler).decorated()

    @property
    def app(self) -> FastAPI | None:
        """The application that runs the broker."""
        host = self.broker.context.get("host")
        return host if isinstance(host, FastAPI) else self.default_app


def _stored(owner: object, create: Callable[[], T]) -> T:
    """Return the injection that is stored on a broker or a lifespan, so that it has only one."""
    attributes = vars(owner)
    if _ATTRIBUTE not in attributes:
        attributes[_ATTRIBUTE] = create()
    stored: T = attributes[_ATTRIBUTE]
    return stored


def injection_of(broker: Broker) -> BrokerInjection:
    """Return the injection of a broker."""
    return _stored(broker, partial(BrokerInjection, broker))


def with_dependencies(call: AnyCallable, dependencies: tuple[params.Depends, ...]) -> AnyCallable:
    """Return a handler whose messages have dependencies that are called before its own."""
    function = update_wrapper(partial(call), call)
    vars(function)[_ATTRIBUTE] = dependencies
    return function


def inject_into(lifespan: BrokerLifespan, message_dependencies: Iterable[params.Depends]) -> None:
    """Pass FastAPI dependencies to the handlers of a lifespan's brokers.

    Args:
        lifespan: The lifespan.
        message_dependencies: Dependencies that run for each message.
    """
    injection = _stored(lifespan, partial(LifespanInjection, lifespan))
    injection.message_dependencies += message_dependencies
    injection.install()


class _Handler(HostHandler):
    """A handler and its plan.

    Args:
        injection: The injection of the broker.
        call: The handler.
    """

    host = "FastAPI"

    def __init__(self, injection: BrokerInjection, call: AnyCallable) -> None:
        super().__init__(injection.broker, call)
        self._injection = injection
        self._own: tuple[params.Depends, ...] = getattr(call, _ATTRIBUTE, ())
        self._plan: Plan | None = None

    def is_passed(self, parameter: inspect.Parameter) -> bool:
        return has_fastapi_mark(parameter)

    @property
    def needs_app(self) -> bool:
        return super().needs_app or bool(self._own) or self._injection.needs_app

    def check(self, dependencies: Sequence[Any], overrides: Overrides) -> None:
        for each in dependencies:
            if isinstance(each, params.Depends):
                if self._injection.default_app is not None:
                    self._own += (each,)
                    continue
                msg = (
                    f"The dependencies of the {self.owner} contain fastapi.Depends: use faststream.Depends "
                    "there, or message_dependencies of the FastStreamRouter."
                )
                raise SetupError(msg)
            _check_faststream(each, self.owner)
        for parameter in self.signature.parameters.values():
            if isinstance(mark := faststream_mark(parameter), Dependant):
                _check_faststream(mark, self.owner)
            elif mark is None:
                check_http(parameter, self.owner)
        self._plan_for_messages(overrides)

    async def handle(self, bind: Bind, names: Collection[str] | None) -> Any:
        app = self._injection.app
        if app is None:
            raise self.no_app_error()
        overrides = app.dependency_overrides
        if names is not None:
            plan = make_plan(self.owner, [self.passed[name] for name in names], (), overrides)
        elif self._plan and self._plan.is_valid(self._injection.message_dependencies, overrides):
            plan = self._plan
        else:
            plan = self._plan_for_messages(overrides)
        run = MessageRun(plan, app, self._injection.broker)

        def invoke(run: MessageRun) -> Any:
            call = bind(run.arguments)
            return call() if self.is_async else run.in_thread(call)

        return await run.handle(invoke)

    def _plan_for_messages(self, overrides: Overrides) -> Plan:
        before, read = self._injection.message_dependencies, self._injection.read_parameter
        self._plan = make_plan(self.owner, self.passed.values(), before, overrides, own=self._own, read=read)
        return self._plan


def _check_faststream(dependant: Dependant, owner: str) -> None:
    """Refuse a dependency of FastStream that FastStream cannot call.

    Raises:
        SetupError: It, or one of its own dependencies, uses `fastapi.Depends`, or has unknown annotations.
    """
    function = dependant.dependency
    owner = f"dependency {name_of(function)!r} of the {owner}"
    for name, parameter in get_typed_signature(function)[0].parameters.items():
        mark = faststream_mark(parameter)
        if isinstance(mark, Dependant):
            _check_faststream(mark, owner)
        elif mark is None:
            check_http(parameter, owner)
            if (wanted := fastapi_mark(parameter)) is not None:
                used = "Depends" if isinstance(wanted, params.Depends) else wanted.__name__
                msg = (
                    f"The parameter {name!r} of the {owner} uses fastapi.{used}, but FastStream calls this "
                    "dependency: declare the dependency with fastapi.Depends, or use faststream.Depends here."
                )
                raise SetupError(msg)
            if isinstance(parameter.annotation, str | ForwardRef) and not hasattr(function, "__name__"):
                msg = (
                    f"FastStream cannot evaluate the annotation of the parameter {name!r} of the {owner}, "
                    "because it is a callable instance: use fastapi.Depends or a function, or remove "
                    "`from __future__ import annotations`."
                )
                raise SetupError(msg)
