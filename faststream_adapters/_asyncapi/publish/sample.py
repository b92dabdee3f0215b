"""The JSON schema of a channel's messages and an example, with which the form begins."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from faststream_adapters._asyncapi.document import mapping

__all__ = ("Sample", "sample_of")

_MAX_DEPTH = 6

_VALUES: Mapping[str, object] = {
    "integer": 0,
    "number": 0,
    "boolean": False,
    "array": [],
    "object": {},
}

_STRINGS = {
    "date-time": "2026-01-31T12:00:00Z",
    "date": "2026-01-31",
    "time": "12:00:00Z",
    "duration": "PT1M",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "someone@example.com",
    "uri": "https://example.com/",
}


class Sample(NamedTuple):
    """What the page shows of a channel's messages.

    Args:
        schema: The JSON schema; None if FastStream cannot describe the message.
        text: An example as JSON.
    """

    schema: Any
    text: str


def sample_of(endpoint: Any, *, items: bool) -> Sample:
    """Return the sample of a subscriber or a publisher. Making a schema takes milliseconds.

    Args:
        endpoint: The subscriber or the publisher.
        items: Whether it declares a batch, of which a message is one item.
    """
    schema: Any = None
    try:
        specification = next(iter(endpoint.schema().values()))
        schema = specification.operation.message.payload
    except Exception:  # noqa: BLE001 (models of the application can raise anything; it can be published anyway)
        return Sample(None, "")
    choices = mapping(schema).get("oneOf")
    # FastStream lists several handlers by their names.
    first = next(iter(choices.values())) if isinstance(choices, dict) else schema
    value = _Examples(mapping(first).get("$defs")).of(first)
    value = value[0] if items and isinstance(value, list) and value else value
    return Sample(
        schema, "" if value is None else json.dumps(value, indent=2, ensure_ascii=False, default=str)
    )


class _Examples:
    """Makes examples from a JSON schema and its definitions.

    Args:
        definitions: The schemas that it refers to, by name.
    """

    def __init__(self, definitions: object) -> None:
        self._definitions = mapping(definitions)

    def of(self, node: object, depth: int = 0) -> Any:
        """Return an example of a value."""
        schema = self._resolved(mapping(node), depth)
        for key in ("examples", "enum"):
            if isinstance(found := schema.get(key), list) and found:
                return found[0]
        for key in ("const", "default"):
            if key in schema:
                return schema[key]
        return self._of_type(schema, schema.get("type"), depth)

    def _resolved(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        """Follow references and take the first of several choices, up to a depth."""
        for _ in range(_MAX_DEPTH - depth):
            choice = next((schema[key] for key in ("anyOf", "oneOf", "allOf") if schema.get(key)), None)
            if isinstance(reference := schema.get("$ref"), str):
                schema = mapping(self._definitions.get(reference.rpartition("/")[2]))
            elif isinstance(choice, list):
                schema = mapping(choice[0])
            else:
                break
        return schema

    def _of_type(self, schema: dict[str, Any], kind: object, depth: int) -> Any:
        if kind == "string":
            return _STRINGS.get(schema.get("format", ""), "")
        if depth < _MAX_DEPTH and kind == "object":
            return {
                name: self.of(each, depth + 1) for name, each in mapping(schema.get("properties")).items()
            }
        if depth < _MAX_DEPTH and kind == "array" and "items" in schema:
            return [self.of(schema["items"], depth + 1)]
        return _VALUES.get(str(kind))
