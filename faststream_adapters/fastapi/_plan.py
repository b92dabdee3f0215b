"""Plans: the steps that call the FastAPI dependencies of one handler.

A plan is made once, and again when `app.dependency_overrides` has other entries for its dependencies. It
decides what does not depend on the message: the order, what is shared, and what cannot work.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from copy import deepcopy
from enum import Enum, auto
from operator import attrgetter
from typing import Any, NamedTuple

from fast_depends.dependencies import Dependant
from fast_depends.library import CustomField
from fastapi import BackgroundTasks, params
from fastapi.security import SecurityScopes
from faststream.exceptions import SetupError
from pydantic import ConfigDict, PydanticUserError, TypeAdapter
from pydantic.fields import FieldInfo

from faststream_adapters._compat.fastapi import read_declaration
from faststream_adapters._hosting.signatures import AnyCallable, name_of, signature_of, without_arguments

from ._parameters import (
    check_http,
    check_security,
    class_of,
    context_mark,
    fastapi_mark,
    faststream_mark,
    marks_of,
)

Overrides = Mapping[AnyCallable, AnyCallable]
ReadParameter = Callable[[inspect.Parameter], Callable[[Any], Any]]


class Kind(Enum):
    """How a step gets its value."""

    COROUTINE = auto()
    THREAD = auto()
    ASYNC_GENERATOR = auto()
    GENERATOR = auto()
    VALUE = auto()


GENERATORS = {Kind.ASYNC_GENERATOR, Kind.GENERATOR}


class Step(NamedTuple):
    """One value that the handler or a later step needs.

    Args:
        kind: How to get the value.
        call: The dependency, or a factory of its context manager. For other values, a function of
            the `MessageRun`.
        inputs: Names of arguments, with the steps that have their values.
        limit: Returns the semaphore to hold during the call, until after the clean-up; None without one.
        in_function_scope: Whether the clean-up precedes background tasks.
    """

    kind: Kind
    call: AnyCallable
    inputs: tuple[tuple[str, int], ...] = ()
    limit: Callable[[], AbstractAsyncContextManager[Any]] | None = None
    in_function_scope: bool = False


class Plan(NamedTuple):
    """How to get all values that FastAPI passes to a handler.

    Args:
        steps: The steps, each after those that it needs.
        inputs: The handler's parameters, with the steps that have their values.
        before: The dependencies that come first.
        overrides: The dependencies, with what replaces each of them, or the dependency itself.
        has_overrides: Whether something is replaced.
        has_clean_up: Whether something has to be cleaned up after the handler.
    """

    steps: tuple[Step, ...]
    inputs: tuple[tuple[str, int], ...]
    before: tuple[params.Depends, ...]
    overrides: tuple[tuple[AnyCallable, AnyCallable], ...]
    has_overrides: bool
    has_clean_up: bool

    def is_valid(self, before: tuple[params.Depends, ...], overrides: Overrides) -> bool:
        """Return whether the plan follows from these dependencies and overrides."""
        if before is not self.before:
            return False
        if not overrides:
            return not self.has_overrides
        return all(overrides.get(original, original) is call for original, call in self.overrides)


class ContextValue:
    """A value from FastStream's context.

    Args:
        mark: FastStream's mark.
        parameter: The parameter.
    """

    def __init__(self, mark: CustomField, parameter: inspect.Parameter) -> None:
        self._field = deepcopy(mark).set_param_name(parameter.name)
        self._name = parameter.name
        self._default = parameter.default
        if isinstance(parameter.default, CustomField):
            self._default = inspect.Parameter.empty
        self._cast = _caster(class_of(parameter)) if mark.cast else None

    def __call__(self, run: Any) -> Any:
        """Return the value for a `MessageRun`.

        Raises:
            KeyError: The context has no such value.
        """
        values = self._field.use(context__=run.context)
        if self._name not in values:
            if self._default is not inspect.Parameter.empty:
                return self._default
            msg = f"The context has no value for the parameter {self._name!r}."
            raise KeyError(msg)
        value = values[self._name]
        return value if self._cast is None else self._cast(value)


def _caster(annotation: Any) -> Callable[[Any], Any]:
    if annotation is inspect.Parameter.empty:
        annotation = Any
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True)).validate_python
    except PydanticUserError:
        # Models have a configuration of their own.
        return TypeAdapter(annotation).validate_python


def make_plan(
    owner: str,
    parameters: Iterable[inspect.Parameter],
    before: tuple[params.Depends, ...],
    overrides: Overrides,
    *,
    own: tuple[params.Depends, ...] = (),
    read: ReadParameter | None = None,
) -> Plan:
    """Make the plan of a handler.

    Args:
        owner: The subscriber, in words.
        parameters: The parameters that FastAPI passes.
        before: Dependencies that come first, and whose values are not passed.
        overrides: The overrides of the application.
        own: The same for this handler only; they follow `before`.
        read: Returns what reads a dependency's parameter without a mark from the message; None refuses it.

    Raises:
        SetupError: A dependency cannot work outside HTTP requests.
    """
    planner = _Planner(overrides, read)
    for mark in before:
        planner.add_dependency(mark, _anonymous(mark), "message_dependencies of the router", ())
    for mark in own:
        planner.add_dependency(mark, _anonymous(mark), f"dependencies of the {owner}", ())
    inputs = planner.add_parameters(parameters, owner, ())
    steps = tuple(planner.steps)
    replaced = tuple(planner.overrides.items())
    return Plan(
        steps,
        inputs,
        before,
        replaced,
        has_overrides=any(original is not call for original, call in replaced),
        has_clean_up=any(step.kind in GENERATORS for step in steps),
    )


def _anonymous(mark: params.Depends) -> inspect.Parameter:
    name = name_of(mark.dependency) if mark.dependency else "Depends()"
    return inspect.Parameter(name if name.isidentifier() else "dependency", inspect.Parameter.KEYWORD_ONLY)


class _Planner:
    """Collects the steps of a plan, depth first, as FastAPI resolves dependencies."""

    def __init__(self, overrides: Overrides, read: ReadParameter | None) -> None:
        self._read = read
        self.steps: list[Step] = []
        self.overrides: dict[AnyCallable, AnyCallable] = {}
        self._available = overrides
        self._shared: dict[object, int] = {}

    def _add(self, step: Step) -> int:
        self.steps.append(step)
        return len(self.steps) - 1

    def _add_value(self, get: Callable[[Any], Any]) -> int:
        return self._add(Step(Kind.VALUE, get))

    def add_parameters(
        self,
        parameters: Iterable[inspect.Parameter],
        owner: str,
        scopes: tuple[str, ...],
        *,
        until_request_ends: bool = False,
    ) -> tuple[tuple[str, int], ...]:
        """Add the steps for parameters, and return the parameters that get a value, with their steps.

        Args:
            parameters: The parameters.
            owner: What they belong to, in words.
            scopes: The OAuth2 scopes declared on the way.
            until_request_ends: Whether the owner is cleaned up after everything in the function scope.
        """
        steps = [
            (each.name, self._add_parameter(each, owner, scopes, until_request_ends)) for each in parameters
        ]
        return tuple((name, step) for name, step in steps if step is not None)

    def _add_parameter(
        self,
        parameter: inspect.Parameter,
        owner: str,
        scopes: tuple[str, ...],
        until_request_ends: bool,  # noqa: FBT001 (private)
    ) -> int | None:
        if (field := context_mark(parameter)) is not None:
            return self._add_value(ContextValue(field, parameter))
        check_http(parameter, owner)
        mark = fastapi_mark(parameter)
        if isinstance(mark, params.Depends):
            if until_request_ends and read_declaration(mark).scope == "function":
                msg = (
                    f'The parameter {parameter.name!r} of the {owner} has the scope "function": what is '
                    "cleaned up later cannot depend on it."
                )
                raise SetupError(msg)
            return self.add_dependency(mark, parameter, owner, scopes)
        if mark is BackgroundTasks:
            return self._add_value(attrgetter("tasks"))
        if mark is SecurityScopes:
            return self._add_value(lambda _: SecurityScopes(list(scopes)))
        if mark is not None:
            return self._add_value(attrgetter("request"))
        return self._add_plain(parameter, owner)

    def _add_plain(self, parameter: inspect.Parameter, owner: str) -> int | None:
        if isinstance(faststream_mark(parameter), Dependant):
            msg = (
                f"The parameter {parameter.name!r} of the {owner} uses faststream.Depends, but FastAPI calls "
                f"the {owner.partition(' ')[0]}: use fastapi.Depends."
            )
            raise SetupError(msg)
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            return None
        if self._read is not None:
            return self._add_value(self._read(parameter))
        default: Any = parameter.default
        if default is parameter.empty:
            default = next((each for each in marks_of(parameter) if isinstance(each, FieldInfo)), default)
        if isinstance(default, FieldInfo) and not default.is_required():
            return self._add_value(lambda _: default.get_default(call_default_factory=True))
        if default is not parameter.empty and not isinstance(default, FieldInfo):
            return None
        msg = (
            f"The parameter {parameter.name!r} of the {owner} has no value outside HTTP requests: give it a "
            "default, or mark it with Depends or with Context of faststream_adapters.fastapi."
        )
        raise SetupError(msg)

    def add_dependency(
        self,
        mark: params.Depends,
        parameter: inspect.Parameter,
        owner: str,
        scopes: tuple[str, ...],
    ) -> int:
        """Add the steps for a dependency, unless its value is shared, and return the step with its value."""
        declared = read_declaration(mark)
        original = declared.call or class_of(parameter)
        call = self._available.get(original, original) if self._available else original
        self.overrides[original] = call
        check_security(call, parameter.name, owner)
        scopes = (*scopes, *(each for each in declared.scopes if each not in scopes))
        kept_until = declared.scope or ("request" if _kind_of(original) in GENERATORS else None)
        relevant = sorted(scopes) if self._uses_scopes(call, declared.scopes) else ()
        key = (original, tuple(relevant), kept_until)
        if declared.use_cache and key in self._shared:
            return self._shared[key]
        kind = _kind_of(call)
        factories: dict[Kind, AnyCallable] = {
            Kind.ASYNC_GENERATOR: asynccontextmanager,
            Kind.GENERATOR: contextmanager,
        }
        inputs = self.add_parameters(
            signature_of(call).parameters.values(),
            f"dependency {name_of(call)!r} of the {owner}",
            scopes,
            until_request_ends=kind in GENERATORS and declared.scope != "function",
        )
        step = self._add(
            Step(
                kind,
                factories[kind](call) if kind in factories else call,
                inputs,
                declared.limit,
                in_function_scope=declared.scope == "function",
            )
        )
        self._shared.setdefault(key, step)
        return step

    def _uses_scopes(self, call: AnyCallable, own: tuple[str, ...]) -> bool:
        """Return whether the value depends on the OAuth2 scopes, so that others cannot share it."""
        if own:
            return True
        for parameter in signature_of(call).parameters.values():
            mark = None if context_mark(parameter) else fastapi_mark(parameter)
            if mark is SecurityScopes:
                return True
            if isinstance(mark, params.Depends):
                declared = read_declaration(mark)
                inner = declared.call or class_of(parameter)
                if self._uses_scopes(
                    self._available.get(inner, inner) if self._available else inner, declared.scopes
                ):
                    return True
        return False


def _kind_of(call: AnyCallable) -> Kind:
    """Return how FastAPI calls a dependency."""
    plain = without_arguments(call)
    unwrapped = inspect.unwrap(plain)
    functions: list[Any] = [plain, unwrapped]
    if not inspect.isclass(unwrapped):
        methods = [type(each).__call__ for each in functions]
        functions += [*methods, *map(inspect.unwrap, methods)]
    for check, kind in (
        (inspect.isgeneratorfunction, Kind.GENERATOR),
        (inspect.isasyncgenfunction, Kind.ASYNC_GENERATOR),
        (inspect.iscoroutinefunction, Kind.COROUTINE),
    ):
        if any(map(check, functions)):
            return kind
    return Kind.THREAD
