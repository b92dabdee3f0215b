"""The parameters of handlers and of FastAPI dependencies: where their values come from."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, get_origin

from fast_depends.dependencies import Dependant
from fast_depends.library import CustomField
from fastapi import BackgroundTasks, Request, Response, UploadFile, WebSocket, params
from fastapi.requests import HTTPConnection
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from faststream.exceptions import SetupError
from starlette.background import BackgroundTasks as StarletteBackgroundTasks
from starlette.datastructures import UploadFile as StarletteUploadFile
from starlette.responses import Response as StarletteResponse
from typing_extensions import TypeAliasType

from faststream_adapters._hosting.signatures import AnyCallable, without_arguments

_HTTP_MARKS = (params.Param, params.Body)
"""The classes of `Path`, `Query`, `Header` and `Cookie`, and those of `Body`, `Form` and `File`."""

_HTTP_TYPES: Mapping[type, type] = {
    WebSocket: WebSocket,
    StarletteResponse: Response,
    StarletteUploadFile: UploadFile,
}
_INJECTED_TYPES: Mapping[type, type] = {
    Request: Request,
    HTTPConnection: HTTPConnection,
    StarletteBackgroundTasks: BackgroundTasks,
    SecurityScopes: SecurityScopes,
}

_IN_FASTSTREAM = {"Path", "Header"}
"""The names that FastStream has too."""


def class_of(parameter: inspect.Parameter) -> Any:
    """Return the annotation without its marks."""
    annotation = _without_alias(parameter.annotation)
    return annotation.__origin__ if get_origin(annotation) is Annotated else annotation


def _without_alias(annotation: Any) -> Any:
    return annotation.__value__ if isinstance(annotation, TypeAliasType) else annotation


def marks_of(parameter: inspect.Parameter) -> tuple[Any, ...]:
    """Return the default and the marks in the annotation. The first one of a kind has an effect."""
    metadata = getattr(_without_alias(parameter.annotation), "__metadata__", ())
    return parameter.default, *reversed(metadata)


def faststream_mark(parameter: inspect.Parameter) -> Dependant | CustomField | None:
    """Return FastStream's mark of a parameter: `Depends`, `Context`, `Header` or `Path`."""
    mark: Dependant | CustomField | None = _first(marks_of(parameter), (Dependant, CustomField))
    return mark


def context_mark(parameter: inspect.Parameter) -> CustomField | None:
    """Return FastStream's mark of a parameter, unless it is `Depends`."""
    mark: CustomField | None = _first(marks_of(parameter), CustomField)
    return mark


def fastapi_mark(parameter: inspect.Parameter) -> params.Depends | type | None:
    """Return `fastapi.Depends`, or the class whose instance FastAPI passes to the parameter."""
    mark = _first(marks_of(parameter), (params.Depends, *_HTTP_MARKS))
    if isinstance(mark, params.Depends):
        return mark
    return _listed_class(parameter, _INJECTED_TYPES) if mark is None else None


def has_fastapi_mark(parameter: inspect.Parameter) -> bool:
    """Return whether the parameter of a handler is passed by FastAPI; FastStream's marks take precedence."""
    return (
        faststream_mark(parameter) is None
        and fastapi_mark(parameter) is not None
        and _listed_class(parameter, _HTTP_TYPES) is None
    )


def check_http(parameter: inspect.Parameter, owner: str) -> None:
    """Refuse a parameter that only an HTTP request has.

    Args:
        parameter: The parameter.
        owner: What the parameter belongs to, in words.

    Raises:
        SetupError: The parameter is one of those.
    """
    mark = _first(marks_of(parameter), (params.Depends, *_HTTP_MARKS))
    if isinstance(mark, params.Depends):
        return
    kind = _listed_class(parameter, _HTTP_TYPES) if mark is None else type(mark)
    if kind is None:
        return
    name = kind.__name__
    advice = (
        f"use {name} of FastStream (from faststream import {name})"
        if name in _IN_FASTSTREAM
        else "remove it, or replace the dependency in app.dependency_overrides"
    )
    msg = (
        f"The parameter {parameter.name!r} of the {owner} is a fastapi.{name}, which only HTTP requests "
        f"have: {advice}."
    )
    raise SetupError(msg)


def check_security(dependency: AnyCallable, parameter: str, owner: str) -> None:
    """Refuse a security scheme, which reads an HTTP request.

    Raises:
        SetupError: The dependency is a security scheme.
    """
    scheme = inspect.unwrap(without_arguments(dependency))
    if isinstance(scheme, SecurityBase):
        msg = (
            f"The parameter {parameter!r} of the {owner} is a {type(scheme).__name__}, which only HTTP "
            "requests have: remove it, or replace the dependency in app.dependency_overrides."
        )
        raise SetupError(msg)


def _listed_class(parameter: inspect.Parameter, classes: Mapping[type, type]) -> type | None:
    annotation = class_of(parameter)
    if not inspect.isclass(annotation):
        return None
    return next((name for each, name in classes.items() if issubclass(annotation, each)), None)


def _first(marks: Iterable[Any], kinds: Any) -> Any:
    return next((each for each in marks if isinstance(each, kinds)), None)
