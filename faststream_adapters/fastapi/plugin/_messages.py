"""Messages become arguments as in FastStream's plugin: by FastAPI's rules for the query and the body."""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from fast_depends import Provider
from fast_depends.core import CallModel, build_call_model
from fast_depends.dependencies import Dependant
from fast_depends.library.serializer import OptionItem
from fast_depends.pydantic import PydanticSerializer
from fastapi import params
from fastapi.exceptions import RequestValidationError
from faststream.message import StreamMessage
from pydantic import ValidationError

from faststream_adapters._compat.fastapi import is_scalar
from faststream_adapters._hosting.signatures import AnyCallable
from faststream_adapters.fastapi._injection import with_dependencies
from faststream_adapters.fastapi._message import MessageRun

_SERIALIZER = PydanticSerializer(use_fastdepends_errors=False)

_BODY = "_faststream_adapters_body"
"""The attribute of a message with the body that its dependencies see."""


def prepare(call: AnyCallable, dependencies: Sequence[Any]) -> tuple[AnyCallable, list[Dependant]]:
    """Return a handler with the `dependencies=` that are FastAPI's, and those that are FastStream's."""
    own = tuple(each for each in dependencies if isinstance(each, params.Depends))
    return (
        with_dependencies(call, own) if own else call,
        [each for each in dependencies if not isinstance(each, params.Depends)],
    )


def receive(function: AnyCallable, model: CallModel) -> Callable[[StreamMessage[Any]], Awaitable[Any]]:
    """Return what to call with a message.

    Args:
        function: The handler, which takes its arguments by name.
        model: Its model. From now on its results are not validated, as in the plugin.
    """
    fields = Fields(model.params, model.alias_arguments)
    if model.serializer is not None:
        model.serializer = _Serializer(model.serializer)  # type: ignore[assignment]

    async def on_message(message: StreamMessage[Any]) -> Any:
        body = fields.body(await message.decode())
        vars(message)[_BODY] = body
        try:
            return await function(**fields.values(body, message.path))
        except _InvalidMessageError as invalid:
            error = invalid.error
        raise RequestValidationError(fields.errors(error), body=body) from error

    return on_message


def read_parameter(parameter: inspect.Parameter) -> Callable[[MessageRun], Any]:
    """Return what reads a dependency's parameter from the message that is handled.

    Args:
        parameter: A parameter without a mark.
    """

    def function() -> None:
        raise NotImplementedError

    vars(function)["__signature__"] = inspect.Signature([parameter.replace(kind=parameter.KEYWORD_ONLY)])
    model = build_call_model(function, dependency_provider=Provider(), serializer_cls=_SERIALIZER)
    fields = Fields(model.params, model.alias_arguments)
    serializer = cast("Callable[[dict[str, Any]], dict[str, Any]]", model.serializer)

    def read(run: MessageRun) -> Any:
        message = run.context.get_local("message")
        body = vars(message)[_BODY]
        try:
            return serializer(fields.values(body, message.path))[parameter.name]
        except ValidationError as error:
            raise RequestValidationError(fields.errors(error), body=body) from error

    return read


class Fields:
    """The parameters of a handler that are fields of the message.

    Scalars are FastAPI's query: they get the values of their names, from the subject too. The others are
    FastAPI's body: a single one gets the whole message.

    Args:
        options: The parameters.
        aliases: Their names in the message.
    """

    def __init__(self, options: Sequence[OptionItem], aliases: Iterable[str]) -> None:
        names = [each.field_name for each in options]
        self._aliases = {*names, *aliases}
        self._first = names[0] if names else None
        body = [each.field_name for each in options if not is_scalar(each.field_type)]
        self._body = set(body)
        self._whole = body[0] if len(body) == 1 else None

    def body(self, decoded: Any) -> Any:
        """Return FastAPI's body: a message without names becomes the value of the first parameter."""
        if self._first is None:
            return {}
        return decoded if isinstance(decoded, Mapping | list) else {self._first: decoded}

    def values(self, body: Any, path: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments in a body and in the parts of a subject."""
        available = {**body, **path} if isinstance(body, Mapping) else path
        values = {name: value for name, value in available.items() if name in self._aliases}
        if self._whole is not None:
            values[self._whole] = body
        return values

    def errors(self, error: ValidationError) -> list[Any]:
        """Return the errors, with FastAPI's locations."""
        errors: list[Any] = list(error.errors(include_url=False))
        for each in errors:
            name, *rest = each["loc"]
            where = (name, *rest) if name != self._whole else rest
            each["loc"] = ("body" if name in self._body else "query", *where)
        return errors


class _InvalidMessageError(Exception):
    """The arguments of a handler are invalid, not something inside it."""

    def __init__(self, error: ValidationError) -> None:
        self.error = error


class _Serializer:
    """Tells invalid messages from errors of the handler, and leaves its results alone."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __call__(self, arguments: dict[str, Any]) -> Any:
        try:
            return self._inner(arguments)
        except ValidationError as error:
            raise _InvalidMessageError(error) from error

    @staticmethod
    def response(value: Any) -> Any:
        return value
