"""FastAPI dependencies in the subscribers of a broker."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    call_for_messages,
    dependencies_of,
    injects,
)
from faststream_adapters._lifecycle.lifespan import BrokerLifespan

from ._message import MessageRun
from ._parameters import (
    AnyCallable,
    check_http,
    fastapi_mark,
    faststream_mark,
    has_fastapi_mark,
    name_of,
    signature_of,
)
from ._plan import Overrides, Plan, make_plan

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


class _Handler:
    """A handler and its plans."""

    def __init__(self, injection: BrokerInjection, call: AnyCallable) -> None:
        self._injection = injection
        self._call = call
        self._owner = f"subscriber {name_of(call)!r}"
        self._signature = signature_of(call)
        parameters = self._signature.parameters
        self._injected = {name: each for name, each in parameters.items() if has_fastapi_mark(each)}
        self._positional = [
            each.name
            for each in parameters.values()
            if each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}
        ]
        self._is_async = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call).__call__)
        self._own: tuple[params.Depends, ...] = getattr(call, _ATTRIBUTE, ())
        self._plan: Plan | None = None

    def check(self, dependencies: Sequence[Any], overrides: Overrides) -> None:
        for each in dependencies:
            if isinstance(each, params.Depends):
                if self._injection.default_app is not None:
                    self._own += (each,)
                    continue
                msg = (
                    f"The dependencies of the {self._owner} contain fastapi.Depends: use faststream.Depends "
                    "there, or message_dependencies of the FastStreamRouter."
                )
                raise SetupError(msg)
            _check_faststream(each, self._owner)
        for parameter in self._signature.parameters.values():
            if isinstance(mark := faststream_mark(parameter), Dependant):
                _check_faststream(mark, self._owner)
            elif mark is None:
                check_http(parameter, self._owner)
        self._make_plan(overrides)

    def decorated(self) -> AnyCallable:
        if not self._injected and not self._own and not self._injection.needs_app:
            if inspect.signature(self._call) == self._signature or inspect.isroutine(self._call):
                return self._call
            # FastStream could not evaluate the annotations of an instance's `__call__`.
            return self._with_signature(self._direct_call())
        function = self._with_signature(self._direct_call())
        for_messages = self._with_signature(self._on_message)
        if not injects(self._injection.broker):
            return for_messages
        call_for_messages(function, for_messages)
        return function

    def _with_signature(self, function: AnyCallable) -> AnyCallable:
        if inspect.ismethod(function):
            method = function

            async def function(*args: Any, **kwargs: Any) -> Any:
                return await method(*args, **kwargs)

        update_wrapper(function, self._call, updated=())
        signature = self._signature.replace(
            parameters=[
                each for each in self._signature.parameters.values() if each.name not in self._injected
            ]
        )
        vars(function)["__signature__"] = signature
        function.__annotations__ = {
            each.name: each.annotation
            for each in signature.parameters.values()
            if each.annotation is not each.empty
        }
        if signature.return_annotation is not signature.empty:
            function.__annotations__["return"] = signature.return_annotation
        return function

    def _direct_call(self) -> AnyCallable:
        """Return what a direct call of the handler calls: values that are given take precedence."""
        call = self._call

        if not self._is_async:

            def call_sync(*args: Any, **kwargs: Any) -> Any:
                if missing := self._missing(args, kwargs):
                    msg = (
                        f"A direct call of the {self._owner} needs values for {', '.join(missing)}: only a "
                        "handler that is an async function gets them from FastAPI in a direct call."
                    )
                    raise TypeError(msg)
                return call(*args, **kwargs)

            return call_sync

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            if not (missing := self._missing(args, kwargs)):
                return await call(*args, **kwargs)
            app = self._running_app()
            parameters = [self._injected[name] for name in missing]
            plan = make_plan(self._owner, parameters, (), app.dependency_overrides)
            run = MessageRun(plan, app, self._injection.broker)
            return await run.handle(lambda run: call(*args, **kwargs, **run.arguments))

        return call_async

    def _missing(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
        given = {*self._positional[: len(args)], *kwargs}
        return [name for name in self._injected if name not in given]

    async def _on_message(self, *args: Any, **kwargs: Any) -> Any:
        app = self._running_app()
        overrides = app.dependency_overrides
        plan = self._plan
        if plan is None or not plan.is_valid(self._injection.message_dependencies, overrides):
            plan = self._plan = self._make_plan(overrides)

        def invoke(run: MessageRun) -> Any:
            positional, named = self._bind(args, {**kwargs, **run.arguments})
            if self._is_async:
                return self._call(*positional, **named)
            return run.in_thread(partial(self._call, *positional, **named))

        return await MessageRun(plan, app, self._injection.broker).handle(invoke)

    def _make_plan(self, overrides: Overrides) -> Plan:
        return make_plan(
            self._owner, self._injected.values(), self._injection.message_dependencies, overrides, self._own
        )

    def _bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        """Return the arguments of the handler.

        Args:
            args: Arguments without those that FastAPI passes.
            kwargs: Arguments by name, with all that FastAPI passes.
        """
        if not args:
            return args, kwargs
        left, positional = list(args), []
        for name in self._positional:
            if name in kwargs:
                positional.append(kwargs.pop(name))
            elif left:
                positional.append(left.pop(0))
            else:
                break
        return (*positional, *left), kwargs

    def _running_app(self) -> FastAPI:
        app = self._injection.app
        if app is None:
            msg = (
                f"The {self._owner} has FastAPI dependencies, but no FastAPI application runs its broker: "
                "run the application's lifespan. In tests, app_client of faststream_adapters.testing does."
            )
            raise SetupError(msg)
        return app


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
