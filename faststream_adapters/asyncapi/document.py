"""The AsyncAPI document of a specification, without what must not be in one that is served."""

import json
import re
from copy import deepcopy
from typing import Any
from urllib.parse import unquote

from faststream.specification.base import SpecificationFactory

from faststream_adapters.redaction import without_credentials

__all__ = ("document_of", "for_viewer", "mapping", "parts_of", "pointer", "resolve")

_LINKS = frozenset({"termsOfService", "authorizationUrl", "tokenUrl", "refreshUrl", "openIdConnectUrl"})
# What stands there is anybody's data, and no part of the document's own structure.
_DATA = frozenset({"const", "default", "enum", "example", "examples"})
_SCRIPT = re.compile(r"(?:javascript|vbscript|data):", re.IGNORECASE)
# Browsers overlook these in front of a scheme, and some of them inside it.
_OVERLOOKED = re.compile(r"[\x00-\x20]")


def mapping(value: object) -> dict[str, Any]:
    """Return the value if it is a mapping, else an empty one: a document may hold anything."""
    return value if isinstance(value, dict) else {}


def pointer(reference: str) -> list[str]:
    """Return the names that lead to what a reference inside the document points to."""
    return [
        unquote(part).replace("~1", "/").replace("~0", "~")
        for part in reference.removeprefix("#/").split("/")
    ]


def resolve(document: dict[str, Any], node: object) -> tuple[str | None, Any]:
    """Follow references inside the document; return the last one's name and what it points to."""
    name = None
    seen: set[str] = set()
    while isinstance(reference := mapping(node).get("$ref"), str) and reference not in seen:
        seen.add(reference)
        node = document
        for name in pointer(reference):
            node = mapping(node).get(name)
    return name, node


def document_of(specification: SpecificationFactory) -> dict[str, Any]:
    """Return the document: the same in each process, without credentials and links that run scripts."""
    document: dict[str, Any] = json.loads(specification.to_specification().to_json())
    _remove_credentials(document)
    _remove_scripts(document)
    _sort(document)
    return document


def for_viewer(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with the channels' descriptions on their operations, where they have none.

    FastStream writes what a handler does on its channel, and the viewer shows it for operations only.
    """
    copy = deepcopy(document)
    pairs = [
        (resolve(copy, mapping(operation).get("channel"))[1], operation)
        for operation in mapping(copy.get("operations")).values()
    ]
    for channel in mapping(copy.get("channels")).values():
        pairs += [(channel, mapping(channel).get(key)) for key in ("publish", "subscribe")]
    for channel, operation in pairs:
        if "description" in mapping(channel):
            mapping(operation).setdefault("description", channel["description"])
    return copy


def parts_of(specification: SpecificationFactory) -> list[object]:
    """Return the objects whose coming and going changes the document."""
    found: list[object] = []
    for broker in getattr(specification, "brokers", ()):
        found += (broker, *broker.subscribers, *broker.publishers)
    found += getattr(specification, "http_handlers", ())
    return found


def _remove_credentials(document: dict[str, Any]) -> None:
    for holder in (document, mapping(document.get("components"))):
        for server in mapping(holder.get("servers")).values():
            if "url" in server:
                server["url"] = without_credentials(server["url"])
            elif "host" in server:
                given = server["host"] + server.get("pathname", "")
                if (address := without_credentials(given)) != given:
                    server["host"], slash, path = address.partition("/")
                    server["pathname"] = slash + path


def _remove_scripts(node: object, links: frozenset[str] = _LINKS) -> None:
    """Remove links that would run a script when they are followed: viewers make real links of them."""
    if isinstance(node, list):
        for item in node:
            _remove_scripts(item)
    for key, value in list(mapping(node).items()):
        # External documentation is nothing without its link.
        link = mapping(value).get("url") if key == "externalDocs" else value if key in links else None
        if isinstance(link, str) and _SCRIPT.match(_OVERLOOKED.sub("", link)):
            del mapping(node)[key]
        elif key not in _DATA:
            _remove_scripts(value, _LINKS | {"url"} if key in {"contact", "license"} else _LINKS)


def _sort(document: dict[str, Any]) -> None:
    # FastStream keeps subscribers in sets: their order differs between worker processes, and ETags must not.
    components = mapping(document.get("components"))
    for holder, keys in ((document, ("channels", "operations")), (components, ("messages", "schemas"))):
        for key in keys:
            if key in holder:
                holder[key] = dict(sorted(holder[key].items()))
