"""The AsyncAPI document as it is served: sorted, without credentials and without links that run scripts."""

import json
import re
from copy import deepcopy
from typing import Any
from urllib.parse import unquote, urlparse

from faststream.specification.base import SpecificationFactory

from faststream_adapters._utils.addresses import without_credentials

__all__ = ("document_of", "for_viewer", "mapping", "pointer_names", "resolve")

_LINK_KEYS = frozenset({"termsOfService", "authorizationUrl", "tokenUrl", "refreshUrl", "openIdConnectUrl"})
# The values of these keys are application data, not a part of the document's structure.
_DATA_KEYS = frozenset({"const", "default", "enum", "example", "examples"})
_SCRIPT_SCHEME = re.compile(r"(?:javascript|vbscript|data):", re.IGNORECASE)
# Browsers ignore these characters before a URL's scheme, and some of them within it.
_IGNORED_IN_SCHEME = re.compile(r"[\x00-\x20]")


def mapping(value: object) -> dict[str, Any]:
    """Return the value if it is a dictionary, else an empty one, because a document may contain anything."""
    return value if isinstance(value, dict) else {}


def pointer_names(reference: str) -> list[str]:
    """Split a reference inside the document, such as `#/components/schemas/Order`, into unescaped names."""
    return [
        unquote(part).replace("~1", "/").replace("~0", "~")
        for part in reference.removeprefix("#/").split("/")
    ]


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


def document_of(specification: SpecificationFactory) -> dict[str, Any]:
    """Build the document, identical in every process, without credentials and links that run scripts."""
    document: dict[str, Any] = json.loads(specification.to_specification().to_json())
    _remove_credentials(document, specification)
    _remove_scripts(document)
    _sort(document)
    return document


def for_viewer(document: dict[str, Any]) -> dict[str, Any]:
    """Copy the document and give operations without a description the one of their channel.

    FastStream writes a handler's description to its channel, but the viewer shows only those of operations.
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


def _remove_credentials(document: dict[str, Any], specification: SpecificationFactory) -> None:
    # FastStream has split the addresses for 3.0: of a password with a delimiter, the host is the beginning.
    addresses: dict[tuple[str, str], str] = {}
    for broker in getattr(specification, "brokers", ()):
        for url in broker.specification.url:
            parts = urlparse(url if "://" in url else f"//{url}")
            addresses[parts.netloc, parts.path] = without_credentials(url)
    for parent in (document, mapping(document.get("components"))):
        for server in mapping(parent.get("servers")).values():
            if "url" in server:
                server["url"] = without_credentials(server["url"])
            elif "host" in server:
                host, path = server["host"], server.get("pathname", "")
                address = addresses.get((host, path)) or without_credentials(host + path)
                server["host"], slash, path = address.rpartition("://")[2].partition("/")
                if slash or "pathname" in server:
                    server["pathname"] = slash + path


def _remove_scripts(node: object, link_keys: frozenset[str] = _LINK_KEYS) -> None:
    """Remove URLs that would run a script when followed, because viewers turn them into links."""
    if isinstance(node, list):
        for item in node:
            _remove_scripts(item)
    for key, value in list(mapping(node).items()):
        # An externalDocs object requires its URL, so it is removed as a whole.
        link = mapping(value).get("url") if key == "externalDocs" else value if key in link_keys else None
        if isinstance(link, str) and _SCRIPT_SCHEME.match(_IGNORED_IN_SCHEME.sub("", link)):
            del mapping(node)[key]
        elif key not in _DATA_KEYS:
            _remove_scripts(value, _LINK_KEYS | {"url"} if key in {"contact", "license"} else _LINK_KEYS)


def _sort(document: dict[str, Any]) -> None:
    # FastStream keeps subscribers in sets, whose order differs between processes. ETags must not differ.
    components = mapping(document.get("components"))
    for parent, keys in ((document, ("channels", "operations")), (components, ("messages", "schemas"))):
        for key in keys:
            if key in parent:
                parent[key] = dict(sorted(parent[key].items()))
