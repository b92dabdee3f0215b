"""Read and change documents that may contain anything, and follow the references inside them."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

__all__ = ("mapping", "pointer", "pointer_names", "references", "rename_references", "resolve")


def mapping(value: object) -> dict[str, Any]:
    """Return the value if it is a dictionary, else an empty one, because a document may contain anything."""
    return value if isinstance(value, dict) else {}


def pointer_names(reference: str) -> list[str]:
    """Split a reference inside the document, such as `#/components/schemas/Order`, into unescaped names."""
    return [
        unquote(part).replace("~1", "/").replace("~0", "~")
        for part in reference.removeprefix("#/").split("/")
    ]


def pointer(*names: str) -> str:
    """Return a reference inside the document."""
    return "#/" + "/".join(quote(name.replace("~", "~0").replace("/", "~1"), safe="$~:._-") for name in names)


def resolve(document: dict[str, Any], node: object) -> tuple[str | None, Any]:
    """Follow references inside the document.

    Returns:
        The last name of the last reference, or None if the node is no reference; and the referenced node.
    """
    name = None
    seen: set[str] = set()
    while isinstance(reference := mapping(node).get("$ref"), str) and reference not in seen:
        seen.add(reference)
        node = document
        for name in pointer_names(reference):
            node = mapping(node).get(name)
    return name, node


def references(node: object) -> Iterator[str]:
    """Yield the last name of each reference in a node."""
    for value in node if isinstance(node, list) else mapping(node).values():
        yield from references(value)
    if isinstance(reference := mapping(node).get("$ref"), str):
        yield pointer_names(reference)[-1]


def rename_references(node: object, names: Mapping[str, Mapping[str, str]]) -> None:
    """Change the references in a node.

    Args:
        node: The node.
        names: The new names by the old ones, by what precedes these in references, such as
            `components/schemas`.
    """
    for value in node if isinstance(node, list) else mapping(node).values():
        rename_references(value, names)
    if isinstance(reference := mapping(node).get("$ref"), str):
        *path, name = pointer_names(reference)
        if new := names.get("/".join(path), {}).get(name):
            mapping(node)["$ref"] = pointer(*path, new)
