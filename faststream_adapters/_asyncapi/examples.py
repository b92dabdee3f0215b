"""Examples of messages: those of the author, or else one that is made from the schema and is valid."""

from collections.abc import Callable
from math import floor
from typing import Any

from faststream_adapters._compat.patterns import matching

from .nodes import mapping, resolve

__all__ = ("ExampleError", "author_examples", "example_of")

# An example with more values than this is too long to read.
_MAX_VALUES = 500
_MAX_REFERENCES = 50
# Optional properties are left out of objects that are nested deeper.
_MAX_DEPTH = 4
_MAX_LENGTH = 100

_FORMATS = {
    "uuid": "3fa85f64-5717-4562-b3fc-2c963f66afa6",
    "date-time": "2026-01-31T12:30:00Z",
    "date": "2026-01-31",
    "time": "12:30:00Z",
    "duration": "PT15M",
    "email": "name@example.com",
    "uri": "https://example.com/",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "ipvanyaddress": "192.0.2.1",
    "byte": "aGVsbG8=",
}


class ExampleError(Exception):
    """No example can be made from the schema."""


def author_examples(schema: dict[str, Any]) -> list[Any]:
    """Return the examples that a schema contains."""
    examples = schema.get("examples")
    if isinstance(examples, list):
        return examples
    return [schema["example"]] if "example" in schema else []


def example_of(document: dict[str, Any], schema: object) -> Any:
    """Make an example, the same one each time.

    Raises:
        ExampleError: The schema is too large, contains itself, or has rules that this module does not know.
    """
    return _Examples(document).value(schema, ())


_Maker = Callable[[dict[str, Any], tuple[str, ...]], Any]


class _Examples:
    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._left = _MAX_VALUES

    def value(self, schema: object, path: tuple[str, ...]) -> Any:
        """Return a value that is valid by a schema.

        Args:
            schema: The schema.
            path: The references that led to it.
        """
        self._left -= 1
        details = mapping(schema)
        reference = details.get("$ref")
        if self._left < 0 or reference in path or len(path) > _MAX_REFERENCES:
            raise ExampleError
        if given := _given(details):
            return given[0]
        if isinstance(reference, str):
            return self.value(resolve(self._document, {"$ref": reference})[1], (*path, reference))
        if "allOf" in details:
            return self._all_of(details["allOf"], path)
        choices = details.get("oneOf") or details.get("anyOf")
        return self._first(choices, path) if choices else self._of_type(details, path)

    def _of_type(self, details: dict[str, Any], path: tuple[str, ...]) -> Any:
        kind = details.get("type")
        if isinstance(kind, list):
            kind = next((each for each in kind if each != "null"), "null")
        makers: dict[Any, _Maker] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": self._integer,
            "number": self._number,
            "boolean": _true,
            "null": _null,
        }
        return makers[kind](details, path) if kind in makers else {}

    def _first(self, choices: list[Any], path: tuple[str, ...]) -> Any:
        """Return a value of the first choice that has one, and is not null if possible."""
        for choice in sorted(choices, key=lambda each: mapping(each).get("type") == "null"):
            try:
                return self.value(choice, path)
            except ExampleError:
                if self._left < 0:
                    raise
        raise ExampleError

    def _all_of(self, schemas: list[Any], path: tuple[str, ...]) -> Any:
        parts = [self.value(part, path) for part in schemas]
        if len(parts) == 1:
            return parts[0]
        if not all(isinstance(part, dict) for part in parts):
            raise ExampleError
        return {key: value for part in parts for key, value in part.items()}

    def _object(self, details: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        required = details.get("required") or ()
        found = {}
        for name, field in mapping(details.get("properties")).items():
            if name not in required and len(path) > _MAX_DEPTH:
                continue
            try:
                found[name] = self.value(field, path)
            except ExampleError:
                if name in required or self._left < 0:
                    raise
        others = details.get("additionalProperties")
        if not found and isinstance(others, dict):
            found["key"] = self.value(others, path)
        return found

    def _array(self, details: dict[str, Any], path: tuple[str, ...]) -> list[Any]:
        if isinstance(first := details.get("prefixItems"), list):
            return [self.value(each, path) for each in first]
        least = details.get("minItems", 0)
        if "items" not in details:
            return [{}] * least
        try:
            value = self.value(details["items"], path)
        except ExampleError:
            if least or self._left < 0:
                raise
            return []
        if least > 1 and details.get("uniqueItems"):
            raise ExampleError
        return [value] * max(min(1, details.get("maxItems", 1)), least)

    def _string(self, details: dict[str, Any], _: tuple[str, ...]) -> str:
        least = details.get("minLength", 0)
        most = details.get("maxLength", max(_MAX_LENGTH, least))
        text: str | None
        if isinstance(pattern := details.get("pattern"), str):
            text = matching(pattern, least, most)
        else:
            text = _FORMATS.get(details.get("format", ""), "string"[:most].ljust(least, "x"))
        if text is None or not least <= len(text) <= most:
            raise ExampleError
        return text

    def _integer(self, details: dict[str, Any], path: tuple[str, ...]) -> int:
        return int(self._number({"multipleOf": 1, **details}, path))

    def _number(self, details: dict[str, Any], _: tuple[str, ...]) -> float:
        step = details.get("multipleOf", 0)
        low = details.get("minimum", details.get("exclusiveMinimum"))
        high = details.get("maximum", details.get("exclusiveMaximum"))
        value: float = 1 if low is None else low
        if low is None and high is not None and high <= value:
            value = high - (step or 1)
        if step and value % step:
            value = (floor(value / step) + 1) * step
        if value == details.get("exclusiveMinimum"):
            value += step or (1 if high is None else (high - value) / 2)
        if high is not None and (value > high or value == details.get("exclusiveMaximum")):
            raise ExampleError
        return value


def _given(details: dict[str, Any]) -> list[Any]:
    """Return the values that a schema contains itself."""
    if examples := author_examples(details):
        return examples
    # What is empty is valid, but shows nothing.
    if details.get("default") not in (None, [], {}):
        return [details["default"]]
    return [details["const"]] if "const" in details else list(details.get("enum", ()))


def _true(*_: object) -> bool:
    return True


def _null(*_: object) -> None:
    return None
