"""Litestar's dependencies and controllers in the subscribers of a broker."""

import inspect
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from difflib import get_close_matches
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

from fast_depends.dependencies import Dependant
from faststream.exceptions import SetupError
from litestar import Controller, Litestar, Router
from litestar.connection import ASGIConnection
from litestar.constants import RESERVED_KWARGS
from litestar.datastructures import ImmutableState
from litestar.di import Dependency, Provide
from litestar.handlers import HTTPRouteHandler
from litestar.params import BodyKwarg, ParameterKwarg
from litestar.routes import HTTPRoute
from litestar.utils.helpers import unwrap_partial

from faststream_adapters._compat.faststream import (
    Broker,
    add_call_decorator,
    declared_call,
    dependencies_of,
)
from faststream_adapters._hosting.clean_up import CleanUpStack, MessageScope
from faststream_adapters._hosting.handlers import Bind, HostHandler
from faststream_adapters._hosting.signatures import AnyCallable, name_of, signature_of

_ATTRIBUTE = "_faststream_adapters_litestar"
_STATE = "state"


class _Step(NamedTuple):
    """One dependency of a subscriber, which is resolved once per message.

    Args:
        name: Its name.
        provide: Its provider.
        needs: The names of the dependencies that it takes, which are resolved before it.
        state: The type of the application's state, if it takes that.
    """

    name: str
    provide: Provide
    needs: Sequence[str]
    state: type[Any] | None


class _Plan(NamedTuple):
    """What a subscriber gets from an application.

    Args:
        values: The parameters of the subscriber that are the same for each message, with their values.
        steps: The dependencies in the order in which they are resolved.
        names: The parameters of the subscriber that are dependencies.
        states: The parameters of the subscriber that are the application's state, with their types.
    """

    values: Mapping[str, Any]
    steps: Sequence[_Step]
    names: Sequence[str]
    states: Mapping[str, type[Any]]

    @property
    def has_clean_up(self) -> bool:
        """Whether a generator has to end after the handler."""
        return any(_is_generator(step.provide) for step in self.steps)


class _MessageRun(MessageScope):
    """The dependencies of one message.

    Args:
        plan: The plan of the handler.
        app: The application.
    """

    def __init__(self, plan: _Plan, app: Litestar) -> None:
        super().__init__()
        self._plan = plan
        self._app = app
        self.arguments: dict[str, Any] = {}
        """The handler's arguments that Litestar passes."""

    async def handle(self, invoke: Callable[[], Awaitable[Any]]) -> Any:
        """Return what the handler returns.

        Args:
            invoke: Calls the handler.
        """
        if self._plan.has_clean_up:
            return await self.run(partial(self._handle, invoke))
        return await self._handle(invoke)

    async def _handle(self, invoke: Callable[[], Awaitable[Any]]) -> Any:
        async with CleanUpStack(self) as stack:
            await self._resolve(stack)
            return await invoke()

    async def _resolve(self, stack: AsyncExitStack) -> None:
        plan, state = self._plan, self._app.state
        values: dict[str, Any] = {}
        for step in plan.steps:
            arguments = {name: values[name] for name in step.needs}
            if step.state is not None:
                arguments[_STATE] = step.state(state, deep_copy=False)
            value = await step.provide(**arguments)
            if step.provide.has_async_generator_dependency:
                value = await stack.enter_async_context(asynccontextmanager(partial(_same, value))())
            elif step.provide.has_sync_generator_dependency:
                value = stack.enter_context(contextmanager(partial(_same, value))())
            values[step.name] = value
        states = {name: kind(state, deep_copy=False) for name, kind in plan.states.items()}
        self.arguments = {**plan.values, **{name: values[name] for name in plan.names}, **states}


def _is_generator(provide: Provide) -> bool:
    return provide.has_async_generator_dependency or provide.has_sync_generator_dependency


def _same(value: Any) -> Any:
    return value


class BrokerInjection:
    """Passes Litestar's dependencies, its state and instances of controllers to the handlers of a broker.

    FastStream applies `decorate` to each handler, late ones included, before it reads the signature. It sees
    the parameters that are its own, so that they alone are fields of the message.

    Invariant: `providers` belongs to the application that the broker runs in, or ran in last.

    Args:
        broker: The broker.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.providers: AppProviders | None = None

    def decorate(self, call: AnyCallable) -> AnyCallable:
        """Return a handler without the parameters that Litestar passes."""
        handler = _Handler(self, call)
        if self.running is not None:
            # It was added to a running broker, so that `check` has not seen it.
            handler.plan(self.running)
        return handler.decorated()

    def check(self, providers: "AppProviders") -> None:
        """Refuse what could only fail for each message, before the broker starts.

        Args:
            providers: The dependencies of the application in which it starts.

        Raises:
            SetupError: A parameter of a subscriber, or of one of its dependencies, cannot be passed.
        """
        self.providers = providers
        for dependencies, call in dependencies_of(self.broker):
            handler = _Handler(self, call)
            for dependant in dependencies:
                _check_faststream(dependant, handler.owner)
            handler.plan(providers)

    def check_unused(self) -> None:
        """Refuse subscribers that need a Litestar application.

        Raises:
            SetupError: There is one.
        """
        self.providers = None
        for _, call in dependencies_of(self.broker):
            handler = _Handler(self, call)
            if handler.needs_app:
                raise handler.no_app_error()

    @property
    def running(self) -> "AppProviders | None":
        """The dependencies of the application that runs the broker."""
        providers = self.providers
        if providers is None or self.broker.context.get("host") is not providers.app:
            return None
        return providers


def inject_into(brokers: Iterable[Broker]) -> list[BrokerInjection]:
    """Pass what Litestar has to the handlers of brokers; can be called again, for brokers that were added."""
    injections = []
    for broker in brokers:
        injection = vars(broker).setdefault(_ATTRIBUTE, BrokerInjection(broker))
        add_call_decorator(broker, injection.decorate)
        injections.append(injection)
    return injections


class AppProviders:
    """The dependencies and the controllers of an application.

    Args:
        app: The application.
        registered: What is registered in it.
    """

    def __init__(self, app: Litestar, registered: Iterable[Any]) -> None:
        self.app = app
        self._registered = [each for each in registered if inspect.isclass(each)]
        self._built: dict[type[Controller], Controller] = {}

    def controller(self, method_class: type[Any]) -> tuple[Controller, Router]:
        """Return the first instance that is registered, and the router of its routes.

        Args:
            method_class: The class that defines the method, or inherits it.
        """
        for controller, router in self._routed():
            if isinstance(controller, method_class):
                return controller, router
        classes = (*self._registered, *_subclasses(Controller))
        kind = next(
            each for each in classes if issubclass(each, Controller) and issubclass(each, method_class)
        )
        if kind not in self._built:
            self._built[kind] = kind(owner=self.app)
        return self._built[kind], self._built[kind].as_router()

    def without_routes(self, controller: Controller | None) -> str:
        """Return the name of a controller that has no routes; an empty text for another one."""
        return type(controller).__name__ if controller in self._built.values() else ""

    def _routed(self) -> Iterator[tuple[Controller, Router]]:
        for route in self.app.routes:
            handlers = route.route_handlers if isinstance(route, HTTPRoute) else (route.route_handler,)
            # Litestar keeps the handlers of one route in no defined order.
            for handler in sorted(handlers, key=attrgetter("handler_id")):
                controller = getattr(unwrap_partial(handler.fn), "__self__", None)
                if isinstance(controller, Controller) and isinstance(handler.owner, Router):
                    yield controller, handler.owner

    def dependencies(self, owner: Router) -> Mapping[str, Provide]:
        """Return the dependencies of a router and of the layers around it, by name."""
        handler = HTTPRouteHandler("/", http_method="GET")(_no_route)
        handler.owner = owner
        return handler.resolve_dependencies()


async def _no_route() -> None: ...


class _Handler(HostHandler):
    """A handler of a broker.

    Args:
        injection: The injection of the broker.
        call: The function, or the method of a controller's class.
    """

    host = "Litestar"

    def __init__(self, injection: BrokerInjection, call: AnyCallable) -> None:
        self._class = _class_of_method(call)
        self._self = next(iter(signature_of(call).parameters)) if self._class is not None else None
        super().__init__(injection.broker, call)
        self._injection = injection
        self._cached: tuple[AppProviders, _Plan] | None = None

    def is_passed(self, parameter: inspect.Parameter) -> bool:
        return parameter.name == self._self or _is_injected(parameter)

    def plan(self, providers: AppProviders) -> _Plan:
        """Return what the handler gets from an application.

        Raises:
            SetupError: A parameter cannot be passed.
        """
        if self._cached is None or self._cached[0] is not providers:
            self._cached = providers, self._make_plan(providers, self.signature.parameters)
        return self._cached[1]

    def _make_plan(self, providers: AppProviders, parameters: Collection[str]) -> _Plan:
        """Make the plan for some of the parameters."""
        controller: Controller | None = None
        router: Router = providers.app
        if self._class is not None:
            controller, router = providers.controller(self._class)
        known = providers.dependencies(router)
        steps: dict[str, _Step] = {}
        values: dict[str, Any] = {}
        states: dict[str, type[Any]] = {}
        names: list[str] = []
        for name in parameters:
            parameter = self.signature.parameters[name]
            if name == self._self:
                values[name] = controller
            elif (state := _state_type(parameter.annotation)) is not None:
                states[name] = state
            elif not _is_injected(parameter):
                _check_own(parameter, self.owner)
            elif name in known:
                _add_steps(name, known, steps, self.owner)
                names.append(name)
            elif parameter.default is parameter.empty:
                raise _unknown_dependency(name, known, self.owner, providers.without_routes(controller))
        return _Plan(values, list(steps.values()), names, states)

    def given(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._class is None or (args and isinstance(args[0], self._class)):
            return super().given(args, kwargs)
        # The instance of the controller is left out.
        parameters = [each for name, each in self.signature.parameters.items() if name != self._self]
        return inspect.Signature(parameters).bind_partial(*args, **kwargs).arguments

    async def handle(self, bind: Bind, names: Collection[str] | None) -> Any:
        providers = self._injection.running
        if providers is None:
            raise self.no_app_error()
        plan = self.plan(providers) if names is None else self._make_plan(providers, names)
        run = _MessageRun(plan, providers.app)
        return await run.handle(lambda: self._invoke(run, bind))

    async def _invoke(self, run: "_MessageRun", bind: Bind) -> Any:
        call = bind(run.arguments)
        return await (call() if self.is_async else run.in_thread(call))


def _add_steps(
    name: str, known: Mapping[str, Provide], steps: dict[str, _Step], owner: str, path: tuple[str, ...] = ()
) -> None:
    """Add the steps for a dependency and for those that it takes.

    Raises:
        SetupError: One of them needs a request, or a value that nothing provides.
    """
    if name in steps:
        return
    owner = f"dependency {name!r} of the {owner}"
    if name in path:
        msg = f"The {owner} depends on itself."
        raise SetupError(msg)
    provide, needs, state = known[name], [], None
    for field in provide.parsed_fn_signature.parameters.values():
        if field.name in known:
            _add_steps(field.name, known, steps, owner, (*path, name))
            needs.append(field.name)
        elif field.name == _STATE:
            state = _state_type(field.annotation)
        elif (
            field.name in RESERVED_KWARGS
            or isinstance(field.kwarg_definition, ParameterKwarg | BodyKwarg)
            or _is_connection(field.annotation)
        ):
            raise _request_error(field.name, owner)
        elif not field.has_default:
            raise _unknown_dependency(field.name, known, owner)
    steps[name] = _Step(name, provide, needs, state)


def _check_own(parameter: inspect.Parameter, owner: str) -> None:
    """Refuse a parameter that Litestar passes to routes only.

    Raises:
        SetupError: It is one, or a dependency of FastStream that needs something of Litestar.
    """
    marks = _marks(parameter)
    if any(isinstance(mark, ParameterKwarg | BodyKwarg) for mark in marks) or _is_connection(
        parameter.annotation
    ):
        raise _request_error(parameter.name, owner)
    for mark in marks:
        if isinstance(mark, Dependant):
            _check_faststream(mark, owner)


def _check_faststream(dependant: Dependant, owner: str) -> None:
    """Refuse a dependency of FastStream that needs something of Litestar.

    Raises:
        SetupError: It does.
    """
    owner = f"dependency {name_of(dependant.dependency)!r} of the {owner}"
    for parameter in signature_of(dependant.dependency).parameters.values():
        if _is_injected(parameter):
            msg = (
                f"The parameter {parameter.name!r} of the {owner} is Litestar's, but FastStream calls this "
                "dependency: let the application provide it, or take the parameter in the subscriber."
            )
            raise SetupError(msg)
        _check_own(parameter, owner)


def _request_error(name: str, owner: str) -> SetupError:
    return SetupError(
        f"The parameter {name!r} of the {owner} needs a request, and a message is none. The headers and the "
        "subject of a message are faststream.Header and faststream.Path, in the subscriber itself."
    )


def _unknown_dependency(name: str, known: Iterable[str], owner: str, without_routes: str = "") -> SetupError:
    close = get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    if without_routes:
        hint += (
            f" {without_routes!r} has no routes, and then Litestar does not know the routers around it: list "
            f"what they provide in the `dependencies` of {without_routes!r}."
        )
    return SetupError(
        f"The parameter {name!r} of the {owner} is no dependency of the application, or of the router or "
        f"controller around it.{hint}"
    )


def _marks(parameter: inspect.Parameter) -> Sequence[Any]:
    return parameter.default, *getattr(parameter.annotation, "__metadata__", ())


def _is_injected(parameter: inspect.Parameter) -> bool:
    """Return whether Litestar passes a parameter of a subscriber."""
    return (
        any(isinstance(mark, Dependency) for mark in _marks(parameter))
        or _state_type(parameter.annotation) is not None
    )


def _plain(annotation: Any) -> Any:
    """Return an annotation without `Annotated` and type arguments."""
    while not isinstance(annotation, type) and hasattr(annotation, "__origin__"):
        annotation = annotation.__origin__
    return annotation


def _state_type(annotation: Any) -> type[Any] | None:
    kind = _plain(annotation)
    return kind if isinstance(kind, type) and issubclass(kind, ImmutableState) else None


def _is_connection(annotation: Any) -> bool:
    kind = _plain(annotation)
    return isinstance(kind, type) and issubclass(kind, ASGIConnection)


def _class_of_method(call: AnyCallable) -> type[Any] | None:
    """Return the class with the handler among its methods, if it is a controller or a base class of one."""
    for controller in _subclasses(Controller):
        for each in controller.__mro__:
            if any(declared_call(attribute) is call for attribute in vars(each).values()):
                return each
    return None


def _subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
