"""The document as the viewer gets it.

The viewer derives everything it shows from the document: the type of a field from `type` and `format`,
headings from titles and keys. So this module copies the document, and writes what a reader wants to see into
the copy.
"""

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from math import inf
from typing import Any

from .document import without_http_routes
from .examples import ExampleError, author_examples, example_of
from .names import heading_of, model_name, readable
from .nodes import mapping, pointer_names, references, rename_references, resolve

__all__ = ("ELEMENT_ID", "for_viewer")

ELEMENT_ID = "asyncapi"
"""The id of the viewer's element, with which all its anchors begin."""

# The keys of a schema whose values are schemas, by the form of the value.
_MAPS = frozenset({"properties", "patternProperties"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems", "items"})
_SINGLES = frozenset({"items", "additionalProperties"})

# The viewer expands every reference when it loads the document, shown or not. Beyond this number of fields, a
# reference becomes a link to the schema's own section.
_MAX_FIELDS = 300

# The characters that have a meaning in Markdown.
_MARKDOWN = re.compile(r"([\\`*_\[\]()<>#!|~&:])")
# What the viewer replaces in anchors.
_NOT_IN_ANCHORS = re.compile(r"[^A-Za-z0-9_.]+")
_FASTSTREAM_TITLE = re.compile(r":(?:Subscribe)?Message$")
_NULL = {"type": "null"}


def for_viewer(
    document: dict[str, Any],
    titles: Mapping[str, str] | None = None,
    *,
    http_routes: bool = False,
    links: bool = True,
) -> dict[str, Any]:
    """Copy the document, and write what the viewer shows to readers into the copy.

    Args:
        document: The document.
        titles: The titles that authors have chosen, by the keys of their channels.
        http_routes: Whether HTTP routes are included.
        links: Whether the viewer has a section of schemas that fields can link to.
    """
    copy = deepcopy(document if http_routes else without_http_routes(document))
    _describe_operations(copy, titles or {})
    _remove_noise(copy)
    _Schemas(copy, links=links).shape()
    return copy


# --- operations ---


def _describe_operations(document: dict[str, Any], titles: Mapping[str, str]) -> None:
    """Give each operation a heading, and the description of its channel if it has none.

    FastStream writes a handler's description to its channel, but the viewer shows only those of operations.
    """
    for key, channel, operation, heading in _operations(document):
        if "description" in channel:
            operation.setdefault("description", channel["description"])
        operation.setdefault(heading, heading_of(key, channel, titles))


def _operations(
    document: dict[str, Any],
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any], str]]:
    """Yield channels and their operations: the key, both, and what the viewer takes the heading from."""
    for operation in mapping(document.get("operations")).values():
        key, channel = resolve(document, mapping(operation).get("channel"))
        if isinstance(operation, dict):
            yield str(key), mapping(channel), operation, "title"
    for key, channel in mapping(document.get("channels")).items():
        for action in ("publish", "subscribe"):
            if isinstance(operation := mapping(channel).get(action), dict):
                yield key, channel, operation, "operationId"


def _remove_noise(node: object) -> None:
    """Remove the versions of bindings and protocols for which FastStream knows none."""
    for key, value in [*mapping(node).items()]:
        if key in {"bindingVersion", "protocolVersion"} and value == "custom":
            del mapping(node)[key]
        elif key != "schemas":
            _remove_noise(value)


# --- messages ---


class _Schemas:
    """Shapes the messages and the schemas of a document.

    Args:
        document: The document, which is changed.
        links: Whether the viewer has a section of schemas that fields can link to.
    """

    def __init__(self, document: dict[str, Any], *, links: bool) -> None:
        self._document = document
        self._links = links
        self._components = mapping(document.get("components"))
        self._schemas = mapping(self._components.get("schemas"))
        self._names = _readable_names(self._schemas)
        self._cut = _cut_references(self._schemas)

    def shape(self) -> None:
        """Shape all messages and schemas."""
        keys: dict[str, str] = {}
        messages: dict[str, Any] = {}
        for key, message in mapping(self._components.get("messages")).items():
            keys[key] = self._message_name(mapping(message)) or readable(key)
            self._shape_message(keys[key], mapping(message))
            # Messages of several channels are often the same.
            if messages.setdefault(keys[key], message) != message:
                keys[key] = key
                messages[key] = message
        schemas = {self._names[name]: self._shaped(schema, name) for name, schema in self._schemas.items()}
        for kind, shaped in (("messages", messages), ("schemas", schemas)):
            if kind in self._components:
                self._components[kind] = shaped
        names = {"components/messages": keys, "components/schemas": self._names}
        rename_references(self._document, names)

    def _message_name(self, message: dict[str, Any]) -> str | None:
        """Return the name of a message's model, or None if it has none."""
        name = self._component(message.get("payload"))
        return None if name is None else self._names[name]

    def _shape_message(self, name: str, message: dict[str, Any]) -> None:
        payload = message.get("payload")
        schema = mapping(resolve(self._document, payload)[1])
        variants = [self._resolved(variant) for variant in _list(schema.get("oneOf"))]
        if _FASTSTREAM_TITLE.search(str(message.get("title"))):
            component = self._component(payload)
            shown = [self._label(each) for each in map(self._component, _list(schema.get("oneOf"))) if each]
            message["title"] = " | ".join(shown) or (self._label(component) if component else name)
        if "description" in schema:
            message.setdefault("description", schema["description"])
        if examples := [example for each in (schema, *variants) for example in author_examples(each)]:
            message.setdefault("examples", [{"payload": example} for example in examples])
        if "headers" in message:
            message["headers"] = self._shaped(message["headers"])
        # Schemas of other formats stay as they are.
        if "payload" in message and not {"schemaFormat"} & (message.keys() | mapping(payload).keys()):
            message["payload"] = self._payload(payload, schema, generate="examples" not in message)

    def _payload(self, payload: object, schema: dict[str, Any], *, generate: bool) -> Any:
        shaped = payload if self._component(payload) else self._shaped(payload)
        # The viewer shows the example of a field beside it, so only that of an object is not shown twice.
        if generate and isinstance(shaped, dict) and schema.get("type") == "object":
            try:
                example = example_of(self._document, payload)
            except ExampleError:
                # The viewer makes one.
                return shaped
            # It marks this one as generated too.
            shaped = {"allOf": [shaped], "examples": [example]}
        return shaped

    # --- schemas ---

    def _shaped(self, schema: Any, owner: str | None = None) -> Any:
        """Return a copy of a schema.

        Args:
            schema: The schema.
            owner: The name of the component that contains it.
        """
        if not isinstance(schema, dict):
            return schema
        if self._component(schema):
            return self._referred(schema, owner)
        if (only := _only_choice(schema)) and self._component(only):
            outer = {key: value for key, value in schema.items() if key not in {"anyOf", "oneOf"}}
            return self._referred({**only, **outer}, owner, nullable=True)
        shaped = {key: self._part(key, value, owner) for key, value in schema.items() if _says(key, value)}
        if "prefixItems" in shaped:
            # The viewer knows the older name.
            shaped["items"] = shaped.pop("prefixItems")
        for key in ("anyOf", "oneOf"):
            if choices := _list(shaped.get(key)):
                del shaped[key]
                merged = _merged(choices) or {key: [self._titled(choice) for choice in choices]}
                shaped = {**merged, **shaped}
        return self._linked(shaped, schema)

    def _part(self, key: str, value: Any, owner: str | None) -> Any:
        if key in _MAPS and isinstance(value, dict):
            return {name: self._shaped(field, owner) for name, field in value.items()}
        if key in _LISTS and isinstance(value, list):
            return [self._shaped(choice, owner) for choice in value]
        return self._shaped(value, owner) if key in _SINGLES else value

    def _referred(
        self, schema: dict[str, Any], owner: str | None, *, nullable: bool = False
    ) -> dict[str, Any]:
        """Return a schema for a reference to a component, and for what is written beside the reference.

        The viewer ignores what is beside a reference, and does not show what it refers to.
        """
        name = self._component(schema) or ""
        target = mapping(self._schemas[name])
        shaped = {key: value for key, value in schema.items() if key != "$ref" and _says(key, value)}
        kind = target.get("type")
        if (owner, name) in self._cut:
            shaped = {"type": kind or "object", **shaped}
        else:
            shaped = {"allOf": [{"$ref": schema["$ref"]}], **shaped}
        if isinstance(kind, str):
            shaped["format"] = " · ".join(
                [self._label(name), *([target["format"]] if "format" in target else [])]
            )
            if nullable:
                shaped["type"] = [kind, "null"]
        elif nullable:
            shaped = {"anyOf": [{**shaped, "title": self._label(name)}, {**_NULL, "title": "null"}]}
        if "description" in target:
            shaped.setdefault("description", target["description"])
        return self._linked(shaped, schema)

    def _linked(self, shaped: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
        """Add a link to the section of the component that a field or its items refer to."""
        inner: Any = schema
        while not self._component(inner) and isinstance(inner, dict):
            inner = _only_choice(inner) or inner.get("items")
        if self._links and (name := self._component(inner)):
            anchor = _NOT_IN_ANCHORS.sub("-", self._names[name]).strip("-") or "item"
            label = _MARKDOWN.sub(r"\\\1", self._label(name))
            link = f"[{label}](#{ELEMENT_ID}--schemas--{anchor})"
            text = schema.get("description") or shaped.get("description")
            # The link of a choice may be there already.
            shaped["description"] = text if link in str(text) else f"{text} {link}" if text else link
        return shaped

    def _titled(self, choice: Any) -> Any:
        """Return a choice with a title, which the viewer shows on a button."""
        return {"title": self._type_name(choice), **choice} if isinstance(choice, dict) else choice

    def _type_name(self, schema: Any) -> str:
        details = mapping(schema)
        if name := self._component(next(iter(_list(details.get("allOf"))), None)):
            return self._label(name)
        if "const" in details:
            return json.dumps(details["const"])
        kind = details.get("type", "any")
        name = " | ".join(map(str, kind)) if isinstance(kind, list) else str(kind)
        if kind == "array" and "items" in details:
            name = f"array of {self._type_name(details['items'])}"
        return f"{name} · {details['format']}" if "format" in details else name

    def _component(self, node: object) -> str | None:
        """Return the name of the component schema that a node refers to."""
        reference = mapping(node).get("$ref")
        match pointer_names(reference) if isinstance(reference, str) else ():
            case ["components", "schemas", name] if name in self._schemas:
                return name
        return None

    def _label(self, name: str) -> str:
        """Return the name of a component for people."""
        return model_name(name, mapping(self._schemas[name]), self._names[name])

    def _resolved(self, node: object) -> dict[str, Any]:
        return mapping(resolve(self._document, node)[1])


def _says(key: str, value: object) -> bool:
    """Return whether a part of a schema is worth showing: a field that is null by default is optional."""
    return key != "default" or value is not None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _readable_names(schemas: dict[str, Any]) -> dict[str, str]:
    names: dict[str, str] = {}
    for name in schemas:
        shown = readable(name)
        names[name] = name if shown in schemas or shown in names.values() else shown
    return names


def _cut_references(schemas: dict[str, Any]) -> set[tuple[str | None, str]]:
    """Return the references that the viewer must not expand, as pairs of names.

    Without them, no schema contains itself, and none has more than about `_MAX_FIELDS` fields.
    """
    targets = {name: [*references(schema)] for name, schema in schemas.items()}
    sizes: dict[str, int] = {}
    cut: set[tuple[str | None, str]] = set()
    for root in schemas:
        path = [root]
        while path:
            name = path[-1]
            inner = [each for each in targets[name] if each in schemas]
            unknown = next((each for each in inner if each not in sizes and each not in path), None)
            if unknown is not None:
                path.append(unknown)
                continue
            # What is on the path has no size yet.
            large = {each for each in inner if sizes.get(each, inf) > _MAX_FIELDS}
            cut |= {(name, each) for each in large}
            sizes[name] = 1 + sum(1 if each in large else sizes[each] for each in inner)
            path.pop()
    return cut


# --- choices ---


def _only_choice(schema: dict[str, Any]) -> dict[str, Any] | None:
    """Return the only choice of a schema besides null, or None if there are several or none."""
    choices = [*_list(schema.get("anyOf")), *_list(schema.get("oneOf"))]
    others = [choice for choice in choices if choice != _NULL]
    return mapping(others[0]) if len(others) == 1 < len(choices) else None


def _merged(choices: list[Any]) -> dict[str, Any] | None:
    """Return one schema with several types that is equivalent to the choices, or None.

    A rule such as `minimum` concerns values of its own type only, so rules of different types do not
    interfere.
    """
    types = [mapping(choice).get("type") for choice in choices]
    if not all(isinstance(kind, str) for kind in types) or len({*types}) < len(types):
        return None
    others = [choice for choice in choices if choice != _NULL]
    merged: dict[str, Any] = {}
    for choice in others:
        rules = {key: value for key, value in choice.items() if key not in {"type", "title"}}
        if rules.keys() & merged.keys() or rules.keys() & {"allOf", "anyOf", "oneOf"}:
            return None
        merged |= rules
    values = [merged.pop("const")] if "const" in merged else merged.get("enum")
    if values is not None:
        if len(others) > 1:
            return None
        merged["enum"] = [*values, *([None] if len(others) < len(choices) else [])]
    return {"type": types, **merged}
