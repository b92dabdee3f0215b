"""The body of a request to publish: JSON for programs, a form for people. Both are read strictly.

What one reader accepts and another one reads differently could pass a check and arrive as something else:
duplicate keys, NaN, numbers that no other program can hold, text that is no UTF-8.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

__all__ = (
    "FORM",
    "JSON",
    "Body",
    "InvalidBodyError",
    "InvalidFieldError",
    "form_body",
    "parse_form",
    "parse_json",
)

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

MAX_DEPTH = 100
"""How deep arrays and objects may be nested."""

MAX_HEADERS = 50

MAX_DESTINATION = 255
"""The longest routing key that RabbitMQ accepts, in bytes. No other broker has a lower limit."""

_INTEGERS = range(-(2**63), 2**64)
"""The integers that fit into 64 bits, signed or not."""

_MAX_DIGITS = 20

_FORM_FIELDS = frozenset({"token", "channel", "message", "headers", "validate_only", "destination"})
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_HEADER_VALUE = re.compile(r"[^\x00-\x1f\x7f]{0,4096}")


class InvalidBodyError(ValueError):
    """The body cannot be read. The text says why, without the body."""


class InvalidFieldError(ValueError):
    """A field of the body cannot be used.

    Args:
        text: What is wrong.
        loc: The path of the field.
    """

    def __init__(self, text: str, loc: list[str | int]) -> None:
        super().__init__(text)
        self.loc = loc


class Body(NamedTuple):
    """What a request asks for.

    Args:
        channel: The name or the address of the channel.
        message: The message.
        headers: The headers of the message.
        validate_only: Whether to publish nothing.
        destination: One destination of a channel that is a pattern; an empty string for none.
    """

    channel: str
    message: Any
    headers: Mapping[str, str]
    validate_only: bool
    destination: str


def parse_json(data: bytes) -> Body:
    """Read a JSON body.

    Raises:
        InvalidBodyError: It is not JSON, or no object.
        InvalidFieldError: A field is missing, unknown, or of the wrong type.
    """
    body = loads(_text(data))
    if not isinstance(body, dict):
        msg = "The body must be a JSON object."
        raise InvalidBodyError(msg)
    for name in body.keys() - {"channel", "message", "headers", "validate_only", "destination"}:
        raise InvalidFieldError("Unknown field", [name])
    for name in ("channel", "message"):
        if name not in body:
            raise InvalidFieldError("Field required", [name])
    if not isinstance(body["channel"], str):
        raise InvalidFieldError("Input should be a string", ["channel"])
    validate_only = body.get("validate_only", False)
    if not isinstance(validate_only, bool):
        raise InvalidFieldError("Input should be true or false", ["validate_only"])
    destination = _destination(body.get("destination"))
    return Body(body["channel"], body["message"], _headers(body.get("headers")), validate_only, destination)


def parse_form(data: bytes) -> dict[str, str]:
    """Read the fields of a form.

    Raises:
        InvalidBodyError: It is not a form of this page.
    """
    try:
        pairs = parse_qsl(
            _text(data),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=len(_FORM_FIELDS),
        )
    except ValueError:
        msg = "The body is not a form in UTF-8. A program sends JSON, as application/json."
        raise InvalidBodyError(msg) from None
    fields = dict(pairs)
    if len(fields) != len(pairs) or not fields.keys() <= _FORM_FIELDS:
        msg = "The form has fields that its page does not have. A program sends JSON, as application/json."
        raise InvalidBodyError(msg)
    return fields


def form_body(fields: Mapping[str, str]) -> Body:
    """Return what a form asks for: its message is JSON, and its headers are lines.

    Raises:
        InvalidFieldError: The message is not JSON, or a line is no header.
    """
    text = fields.get("message", "")
    try:
        message = loads(text) if text.strip() else None
    except InvalidBodyError as error:
        raise InvalidFieldError(str(error), ["message"]) from None
    headers: dict[str, str] = {}
    for line in filter(None, map(str.strip, fields.get("headers", "").splitlines())):
        name, colon, value = line.partition(":")
        if not colon:
            raise InvalidFieldError("Each line should be a header: Name: value", ["headers"])
        if name.strip() in headers:
            raise InvalidFieldError("The same header occurs twice", ["headers"])
        headers[name.strip()] = value.strip()
    destination = _destination(fields.get("destination", "").strip())
    only = "validate_only" in fields
    return Body(fields.get("channel", ""), message, _headers(headers), only, destination)


def _headers(headers: object) -> dict[str, str]:
    if headers is None:
        return {}
    if not isinstance(headers, dict) or len(headers) > MAX_HEADERS:
        raise InvalidFieldError(f"Input should be an object with at most {MAX_HEADERS} headers", ["headers"])
    seen: set[str] = set()
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            # Not in the path: it can contain anything.
            raise InvalidFieldError("A name should consist of letters, digits and hyphens", ["headers"])
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            text = "Input should be a string without control characters, of at most 4096 characters"
            raise InvalidFieldError(text, ["headers", name])
        if name.lower() in seen:
            raise InvalidFieldError("The same header occurs twice", ["headers", name])
        seen.add(name.lower())
    return headers


def _destination(destination: object) -> str:
    if destination is None:
        return ""
    if (
        not isinstance(destination, str)
        or len(destination.encode()) > MAX_DESTINATION
        or not destination.isprintable()
        or " " in destination
    ):
        text = f"Input should be a string without spaces, of at most {MAX_DESTINATION} bytes"
        raise InvalidFieldError(text, ["destination"])
    return destination


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        msg = "The body is not UTF-8."
        raise InvalidBodyError(msg) from None


# --- JSON ---


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        msg = "A key occurs twice in one object."
        raise InvalidBodyError(msg)
    return found


def _constant(name: str) -> None:
    msg = f"{name} is not JSON."
    raise InvalidBodyError(msg)


def _float(text: str) -> float:
    if math.isinf(value := float(text)):
        msg = "A number is too large."
        raise InvalidBodyError(msg)
    return value


def _int(text: str) -> int:
    if len(text) > _MAX_DIGITS or (value := int(text)) not in _INTEGERS:
        msg = "A number is too large: integers have at most 64 bits."
        raise InvalidBodyError(msg)
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_constant, parse_float=_float, parse_int=_int
)


def loads(text: str) -> Any:
    """Parse JSON.

    Raises:
        InvalidBodyError: It is not JSON, or not JSON that every program reads as the same value.

    Source: RFC 8259, sections 4 (names should be unique), 6 (numbers), 8.1 and 8.2 (characters); RFC 7493.
    """
    try:
        value = _DECODER.decode(text)
    except InvalidBodyError:
        raise
    except RecursionError:
        msg = f"Arrays and objects are nested more than {MAX_DEPTH} levels deep."
        raise InvalidBodyError(msg) from None
    except ValueError as error:
        where = (
            f" at line {error.lineno}, column {error.colno}"
            if isinstance(error, json.JSONDecodeError)
            else ""
        )
        msg = f"This is not JSON{where}."
        raise InvalidBodyError(msg) from None
    _check(value)
    return value


def _check(value: Any) -> None:
    """Refuse values that are nested too deep, and characters that cannot be encoded."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.keys()
                inner += each.values()
            elif isinstance(each, list):
                inner += each
            elif isinstance(each, str) and not each.isascii():
                _check_text(each)
        if not inner:
            return
        level = inner
    msg = f"Arrays and objects are nested more than {MAX_DEPTH} levels deep."
    raise InvalidBodyError(msg)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        msg = "A string contains half of a surrogate pair."
        raise InvalidBodyError(msg) from None
