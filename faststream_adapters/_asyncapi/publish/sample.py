"""The JSON schema of a channel's messages and an example, with which the form begins."""

import json
from typing import Any, NamedTuple

from faststream_adapters._asyncapi.document import mapping
from faststream_adapters._asyncapi.examples import ExampleError, example_of

__all__ = ("Sample", "sample_of")


class Sample(NamedTuple):
    """What the page shows of a channel's messages.

    Args:
        schema: The JSON schema; None if FastStream cannot describe the message.
        text: An example as JSON, or an empty string.
        schema_text: The schema as JSON, or an empty string.
    """

    schema: Any
    text: str
    schema_text: str = ""


def sample_of(endpoint: Any, *, items: bool) -> Sample:
    """Return the sample of a subscriber or a publisher. Making a schema takes milliseconds.

    Args:
        endpoint: The subscriber or the publisher.
        items: Whether it declares a batch, of which a message is one item.
    """
    try:
        specification = next(iter(endpoint.schema().values()))
        schema: Any = specification.operation.message.payload
    except Exception:  # noqa: BLE001 (models of the application can raise anything; publishing works anyway)
        return Sample(None, "")
    # FastStream lists several handlers by their names.
    handlers = mapping(schema).get("oneOf")
    first = mapping(next(iter(handlers.values())) if isinstance(handlers, dict) else schema)
    try:
        example = example_of(first, first.get("items") if items else first) if first else None
    except ExampleError:
        example = None
    text = "" if example is None else json.dumps(example, indent=2, ensure_ascii=False)
    schema_text = json.dumps(schema, indent=2, ensure_ascii=False, default=str) if schema else ""
    return Sample(schema, text, schema_text)
