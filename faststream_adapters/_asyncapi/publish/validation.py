"""Validate messages as the subscriber that gets them does.

FastStream reads the handler's signature for this, and calls the result for each message. A validator calls
the same for the payload alone, so that everything counts that the application declares: the conversions of
pydantic, its validators, the structs of msgspec. A JSON schema knows less: it has no custom validators,
rejects what pydantic converts, and libraries skip its formats by default.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from fast_depends.exceptions import ValidationError as ArgumentError
from pydantic import ValidationError

from faststream_adapters._compat.channels import Declared
from faststream_adapters._utils.redaction import redact

__all__ = ("FieldError", "Validator")


class FieldError(TypedDict):
    """What is wrong with one field of a message. It contains nothing of the message itself.

    Args:
        loc: The path of the field: keys and indexes.
        msg: What is wrong.
        type: The kind of error, as pydantic names it.
    """

    loc: list[str | int]
    msg: str
    type: str


class Validator:
    """Validates messages for the handlers of a subscriber or for a publisher.

    Args:
        declared: What they declare. A message is valid if one of them accepts it.
    """

    def __init__(self, declared: Sequence[Declared]) -> None:
        self._declared = declared

    def errors(self, message: object) -> list[FieldError]:
        """Return what is wrong with a message; nothing if it is valid."""
        found: list[FieldError] = []
        for declared in self._declared:
            errors = _errors(declared, message)
            if not errors:
                return []
            prefix = [declared.handler] if len(self._declared) > 1 else []
            found += [{**error, "loc": [*prefix, *error["loc"]]} for error in errors]
        return found


def _errors(declared: Declared, message: object) -> list[FieldError]:
    if declared.validate is None:
        return []
    # A single message is a batch of one.
    message = [message] if declared.items else message
    arguments = _arguments(declared, message)
    if arguments is None:
        text = "Input should be an object with the handler's parameters, or an array of them"
        return [{"loc": [], "msg": text, "type": "arguments_type"}]
    try:
        declared.validate(arguments)
    except Exception as error:  # noqa: BLE001 (validators of the application can raise anything)
        cause = error.original_error if isinstance(error, ArgumentError) else error
        skipped = 0 if declared.unpacked else 1 + declared.items
        return _described(cause, skipped)
    return []


def _arguments(declared: Declared, message: object) -> dict[str, Any] | None:
    """Return the arguments that FastStream would call the handler with, or None if it could not."""
    validate = declared.validate
    names = validate.get_aliases() if validate is not None else ()
    if not declared.unpacked:
        return {names[0]: message}
    if isinstance(message, Mapping):
        return dict(message)
    if not isinstance(message, Sequence) or isinstance(message, str):
        return None
    arguments: dict[str, Any] = {}
    rest = list(message)
    for name, parameter in zip(names, declared.parameters, strict=True):
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            arguments[name], rest = tuple(rest), []
        elif rest:
            arguments[name] = rest.pop(0)
    return arguments


def _described(error: Exception, skipped: int) -> list[FieldError]:
    """Return the field errors of an error.

    Args:
        error: The error.
        skipped: How many parts of each path belong to the parameter and not to the message.
    """
    if isinstance(error, ValidationError):
        details = error.errors(include_url=False, include_context=False, include_input=False)
        return [
            {"loc": list(each["loc"][skipped:]), "msg": redact(each["msg"]), "type": each["type"]}
            for each in details
        ]
    if type(error).__module__.partition(".")[0] == "msgspec":
        text, _, path = str(error).partition(" - at ")
        parts = [part for part in path.strip("`$").replace("[", ".[").split(".") if part]
        return [{"loc": [*map(_part, parts[skipped:])], "msg": redact(text), "type": "validation"}]
    text = f"The validation of the message raised {type(error).__name__}"
    return [{"loc": [], "msg": text, "type": "validation"}]


def _part(part: str) -> str | int:
    index = part.strip("[]")
    return int(index) if part.startswith("[") and index.isdigit() else part
