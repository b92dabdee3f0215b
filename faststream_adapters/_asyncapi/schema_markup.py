"""Schemas as markup: types in words, and the fields of objects as rows of a table."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from faststream_adapters._asgi.markup import Html, join, tag

from .document import mapping, pointer_names
from .markdown import description
from .outline import Outline, sequence

__all__ = ("SchemaMarkup", "compact", "examples_of", "pretty")

# What Pydantic writes for a Decimal: its text may have this form, or it may be a number.
_DECIMAL = "^(?!^[-+.]*$)[+-]?0*"

_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_SIZES = {
    "character": ("minLength", "maxLength"),
    "item": ("minItems", "maxItems"),
    "field": ("minProperties", "maxProperties"),
}
_FLAGS: dict[str, tuple[bool, str]] = {
    "uniqueItems": (True, "unique"),
    "readOnly": (True, "read-only"),
    "writeOnly": (True, "write-only"),
    "additionalProperties": (False, "no other fields"),
}

# Keywords that are shown elsewhere or say nothing to readers; all others are shown as they are.
_SHOWN = frozenset(
    {
        *(keyword for pair in _SIZES.values() for keyword in pair),
        *(
            "$ref",
            "$defs",
            "$schema",
            "$id",
            "title",
            "description",
            "deprecated",
            "example",
            "examples",
            "default",
        ),
        *("type", "format", "enum", "const"),
        *("allOf", "anyOf", "oneOf", "items", "prefixItems", "additionalItems"),
        *("properties", "required"),
    }
)


class SchemaMarkup:
    """Writes the schemas of a document.

    Args:
        outline: The models.
        link: Returns the name of the model with this key, as a link to where it is shown.
    """

    def __init__(self, outline: Outline, link: Callable[[str], Html]) -> None:
        self._outline = outline
        self._link = link

    def type(self, schema: object) -> Html:
        """Return the type of a schema in words; models are linked."""
        if isinstance(schema, bool):
            return Html("any" if schema else "nothing")
        details, nullable = _without_null(mapping(schema))
        name = self._type(details)
        return join(name, " or null") if nullable else name

    def _type(self, details: dict[str, Any]) -> Html:
        if isinstance(reference := details.get("$ref"), str):
            return self._link(self._outline.model_key(details) or pointer_names(reference)[-1])
        for keyword, word in (("oneOf", " or "), ("anyOf", " or "), ("allOf", " and ")):
            if choices := sequence(details.get(keyword)):
                return _is_decimal(choices) or Html(word.join(map(self._part, choices)))
        if values := [details["const"]] if "const" in details else sequence(details.get("enum")):
            return join(" | ".join(map(compact, values)))
        kind = details.get("type", "object" if "properties" in details else "any")
        if kind == "array":
            return self._array(details)
        if kind == "object" and mapping(details.get("additionalProperties")):
            return join("object of ", self._part(details["additionalProperties"]))
        name = " or ".join(map(str, kind)) if isinstance(kind, list) else kind
        return join(name, f" ({details['format']})" if "format" in details else None)

    def _part(self, part: object) -> Html:
        """Return a type as a part of another one, with its own rules."""
        name, rules = self._element(part), [*_rules(_of_decimal(_without_null(mapping(part))[0]))]
        return join(name, " (", _joined(", ", rules), ")") if rules else name

    def _array(self, details: dict[str, Any]) -> Html:
        items = details.get("items", True)
        # AsyncAPI's own schemas have the older form: a list of items.
        first = sequence(details.get("prefixItems")) or sequence(items)
        if not first:
            return join("array of ", self._part(items))
        rest = details.get("additionalItems") if isinstance(items, list) else items
        more = join(", then ", self._part(rest)) if mapping(rest) else None
        return join("tuple [", _joined(", ", map(self._part, first)), more, "]")

    def _element(self, schema: object) -> Html:
        details, nullable = _without_null(mapping(schema))
        several = nullable or any(len(sequence(details.get(key))) > 1 for key in ("oneOf", "anyOf", "type"))
        name = self.type(schema)
        return (
            join("(", name, ")") if several and _is_decimal(sequence(details.get("anyOf"))) is None else name
        )

    def facts(self, schema: object) -> Html:
        """Return the type and the rules of a schema."""
        details, nullable = _without_null(mapping(schema))
        default = details.get("default")
        has_default = "default" in details and not (default is None and nullable)
        rules = [self.type(schema), *_rules(_of_decimal(details))]
        if has_default:
            rules.append(join(f"default {compact(default)}"))
        return _joined(" · ", rules)

    @staticmethod
    def rules(schema: dict[str, Any]) -> Html:
        """Return the rules of a schema without its type."""
        return _joined(" · ", [*_rules(schema)])

    def body(self, schema: object) -> Html:
        """Return what a schema consists of, without its type: description, choices and fields."""
        details = mapping(schema)
        return join(*_descriptions(details), self.fields(schema))

    def fields(self, schema: object) -> Html | None:
        """Return the fields of an object, of the items of an array, or of the choices, or None.

        Objects without a name are inside; models are not.
        """
        details, _ = _without_null(mapping(schema))
        if not details or "$ref" in details:
            return None
        parts: list[Html | None] = []
        if "items" in details:
            parts += map(self.fields, sequence(details["items"]) or [details["items"]])
        parts += map(self.fields, sequence(details.get("prefixItems")))
        parts += map(self.fields, sequence(details.get("allOf")))
        for keyword in ("oneOf", "anyOf"):
            parts += map(self._variant, sequence(details.get(keyword)))
        parts += [self.fields(details.get("additionalProperties"))]
        required = sequence(details.get("required"))
        rows = [
            self._row(name, field, required=name in required)
            for name, field in mapping(details.get("properties")).items()
        ]
        if rows:
            parts.append(tag("table", *rows, class_="fields"))
        return join(*parts) if any(parts) else None

    def _variant(self, variant: object) -> Html | None:
        fields = self.fields(variant)
        return None if fields is None else _collapsed(mapping(variant).get("title") or "Fields", fields)

    def _row(self, name: str, field: object, *, required: bool) -> Html:
        details = mapping(field)
        inner = self.fields(field)
        title = details.get("title")
        return tag(
            "tr",
            tag(
                "th",
                name,
                tag("b", "required") if required else None,
                tag("i", "deprecated") if details.get("deprecated") else None,
                scope="row",
            ),
            tag(
                "td",
                self.facts(field),
                tag("p", tag("strong", title)) if title and not _is_made(str(title), name) else None,
                *_descriptions(details),
                *(tag("p", "Example: ", tag("code", compact(each))) for each in examples_of(details)),
                None if inner is None else _collapsed("Fields", inner),
            ),
        )


def _descriptions(schema: dict[str, Any]) -> list[Html | None]:
    """Return the description of a schema, and that of the items of an array."""
    return [description(mapping(each).get("description")) for each in (schema, schema.get("items"))]


def _collapsed(summary: object, *content: object) -> Html:
    return tag("details", tag("summary", summary), *content)


def _is_made(title: str, name: str) -> bool:
    """Return whether Pydantic has made the title from the name of the field."""
    return re.sub(r"[\W_]", "", title).lower() == re.sub(r"[\W_]", "", name).lower()


def examples_of(schema: dict[str, Any]) -> list[Any]:
    """Return the examples that the author of a schema has given."""
    examples = schema.get("examples")
    # The older form has one example without a list.
    return [*sequence(examples), *([schema["example"]] if "example" in schema else [])]


def _without_null(schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return a schema without null among its choices, and whether null was one."""
    kind = schema.get("type")
    if isinstance(kind, list) and "null" in kind and len(kind) > 1:
        others = [each for each in kind if each != "null"]
        return {**schema, "type": others if len(others) > 1 else others[0]}, True
    for keyword in ("anyOf", "oneOf"):
        choices = sequence(schema.get(keyword))
        others = [choice for choice in choices if mapping(choice).get("type") != "null"]
        if 0 < len(others) < len(choices):
            outer = {key: value for key, value in schema.items() if key != keyword}
            return (
                {**mapping(others[0]), **outer} if len(others) == 1 else {**schema, keyword: others}
            ), True
    return schema, False


def _is_decimal(choices: list[Any]) -> Html | None:
    kinds = [mapping(choice).get("type") for choice in choices]
    if kinds == ["number", "string"] and mapping(choices[1]).keys() <= {"type", "pattern"}:
        decimal = str(choices[1].get("pattern", "")).startswith(_DECIMAL)
        return Html("decimal number" if decimal else "number or string")
    return None


def _of_decimal(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with the rules of the number, if it describes a decimal number."""
    choices = sequence(schema.get("anyOf"))
    return schema if _is_decimal(choices) is None else {**mapping(choices[0]), **schema}


def _rules(schema: dict[str, Any]) -> Iterator[Html]:
    """Yield what values must comply with, besides their type."""
    for keyword, value in schema.items():
        if keyword in _BOUNDS:
            yield join(f"{_BOUNDS[keyword]} {compact(value)}")
        elif keyword == "pattern":
            yield join("matches ", tag("code", value))
        elif keyword == "multipleOf":
            yield join(f"multiple of {compact(value)}")
        elif keyword == "discriminator":
            name = mapping(value).get("propertyName", value)
            yield join("chosen by ", name)
        elif keyword in _FLAGS:
            expected, words = _FLAGS[keyword]
            if value is expected:
                yield Html(words)
        elif keyword not in _SHOWN:
            yield join(f"{keyword} {compact(value)}")
    yield from _sizes(schema)


def _sizes(schema: dict[str, Any]) -> Iterator[Html]:
    for noun, keywords in _SIZES.items():
        least, most = (schema.get(keyword) for keyword in keywords)
        # A tuple shows its length.
        if least == most == len(sequence(schema.get("prefixItems"))) or (least is None and most is None):
            continue
        if least == most:
            number = f"exactly {least}"
        elif most is None:
            number = f"at least {least}"
        elif least is None:
            number = f"at most {most}"
        else:
            number = f"{least} to {most}"
        yield join(f"{number} {noun}" if number.endswith(" 1") else f"{number} {noun}s")


def _joined(separator: str, parts: "Iterator[Html] | list[Html] | map[Html]") -> Html:
    return Html(join(separator).join(parts))


def compact(value: object) -> str:
    """Return a value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False)


def pretty(value: object) -> str:
    """Return a value as JSON on several lines."""
    return json.dumps(value, indent=2, ensure_ascii=False)
