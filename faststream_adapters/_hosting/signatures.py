"""Signatures of handlers and dependencies, with evaluated annotations."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from fast_depends.utils import collect_outer_stack_locals

AnyCallable: TypeAlias = Callable[..., Any]


def signature_of(function: AnyCallable) -> inspect.Signature:
    """Return a signature whose postponed annotations are evaluated, as far as their names are known.

    Args:
        function: Also a class or a callable instance, whose annotations belong to its `__call__`.
    """
    signature = inspect.signature(function)
    parameters = signature.parameters.values()
    annotations = [*(each.annotation for each in parameters), signature.return_annotation]
    if not any(isinstance(each, str) for each in annotations):
        return signature
    names = _globals_of(function)
    *annotations, returned = [_evaluated(each, names) for each in annotations]
    return inspect.Signature(
        [
            each.replace(annotation=annotation)
            for each, annotation in zip(parameters, annotations, strict=True)
        ],
        return_annotation=returned,
    )


def _evaluated(annotation: Any, names: dict[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    for local in ({}, collect_outer_stack_locals()):
        try:
            return eval(annotation, names, local)  # noqa: S307 (as typing.get_type_hints does)
        except Exception:  # noqa: BLE001, S112 (names that only the type checker imports)
            continue
    return annotation


def _globals_of(function: AnyCallable) -> dict[str, Any]:
    function = inspect.unwrap(without_arguments(function))
    candidates = map(inspect.unwrap, (function, *_methods_of(function)))
    return next((each.__globals__ for each in candidates if hasattr(each, "__globals__")), {})


def _methods_of(function: AnyCallable) -> tuple[AnyCallable, ...]:
    """Return the methods that a class or an instance has when it is called."""
    if inspect.isclass(function):
        return (function.__init__, function.__new__)
    return (type(function).__call__,)


def without_arguments(function: AnyCallable) -> AnyCallable:
    """Return the function inside `functools.partial`."""
    while isinstance(function, partial):
        function = function.func
    return function


def name_of(function: AnyCallable) -> str:
    """Return the name of a function, or the representation of a callable instance."""
    return getattr(inspect.unwrap(without_arguments(function)), "__name__", repr(function))
