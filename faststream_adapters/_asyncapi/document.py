"""The AsyncAPI document as it is served: sorted, without credentials and without links that run scripts."""

import json
import re
from typing import Any
from urllib.parse import urlparse

from faststream.specification.base import SpecificationFactory

from faststream_adapters._utils.addresses import without_credentials

from .described import Report, describe
from .nodes import mapping, pointer_names, resolve

__all__ = (
    "count_operations",
    "document_of",
    "mapping",
    "pointer_names",
    "resolve",
    "titles_of",
    "without_http_routes",
)

_LINK_KEYS = frozenset({"termsOfService", "authorizationUrl", "tokenUrl", "refreshUrl", "openIdConnectUrl"})
# The values of these keys are application data, not a part of the document's structure.
_DATA_KEYS = frozenset({"const", "default", "enum", "example", "examples"})
_SCRIPT_SCHEME = re.compile(r"(?:javascript|vbscript|data):", re.IGNORECASE)
# Browsers ignore these characters before a URL's scheme, and some of them within it.
_IGNORED_IN_SCHEME = re.compile(r"[\x00-\x20]")


def _raise(_: str, error: Exception) -> None:
    raise error


def document_of(specification: SpecificationFactory, report: Report = _raise) -> dict[str, Any]:
    """Build the document, identical in every process, without credentials and links that run scripts.

    Args:
        specification: The specification.
        report: Called with the name and the error of each message that cannot be described; such a message
            then has a placeholder. By default the error is raised.
    """
    document: dict[str, Any] = json.loads(describe(specification, report).to_specification().to_json())
    _remove_credentials(document, specification)
    _remove_scripts(document)
    _sort(document)
    return document


def titles_of(specification: SpecificationFactory) -> dict[str, str]:
    """Return the titles that authors have chosen, by the keys of their channels."""
    endpoints = [
        endpoint
        for broker in getattr(specification, "brokers", ())
        for endpoint in (*broker.subscribers, *broker.publishers)
    ]
    titles = {endpoint.specification.config.title_ for endpoint in endpoints} - {None}
    # FastStream replaces slashes in AsyncAPI 3 only.
    return {key: title for title in titles for key in (title, title.replace("/", "."))}


def without_http_routes(document: dict[str, Any]) -> dict[str, Any]:
    """Copy the document without the HTTP routes of the application, which have no messages."""
    operations = mapping(document.get("operations"))
    routes = {name for name, operation in operations.items() if _is_http_route(operation)}
    keys = {resolve(document, mapping(operations[name]).get("channel"))[0] for name in routes}
    channels = mapping(document.get("channels"))
    keys |= {key for key, channel in channels.items() if _is_http_route(mapping(channel).get("subscribe"))}
    return {
        **document,
        **{
            kind: {name: value for name, value in mapping(document[kind]).items() if name not in left_out}
            for kind, left_out in (("channels", keys), ("operations", routes))
            if kind in document
        },
    }


def _is_http_route(operation: object) -> bool:
    return "http" in mapping(mapping(operation).get("bindings"))


def count_operations(document: dict[str, Any]) -> int:
    """Return the number of operations."""
    channels = mapping(document.get("channels")).values()
    in_channels = sum(len({"publish", "subscribe"} & mapping(channel).keys()) for channel in channels)
    return len(mapping(document.get("operations"))) + in_channels


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
