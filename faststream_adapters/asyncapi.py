"""The AsyncAPI document of an application and a page that shows it, as one ASGI app."""

import gzip
import json
import logging
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property
from hashlib import sha256
from html import escape
from importlib import import_module
from importlib.resources import files
from string import Template
from time import monotonic
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, unquote

from faststream.asgi.types import ASGIApp, Receive, Scope, Send
from faststream.exceptions import SetupError
from faststream.specification import AsyncAPI
from faststream.specification.base import SpecificationFactory

from ._compat import BrokerUsecase
from .lifespan import BrokerLifespan
from .redaction import redacted_traceback
from .responses import AsgiResponse
from .routing import Endpoint, Tags, route_path

__all__ = ("AsyncAPIDocs", "AsyncAPIRoute", "make_asyncapi_asgi", "specification_of")

logger = logging.getLogger("faststream.adapters")

_TARGETS = "pass one AsyncAPI specification, one FastStream app, one BrokerLifespan, or one or more brokers"
# Comparing costs some microseconds per subscriber, so that it is not done for each request.
_LOOK_EVERY = 1.0
# The page differs by its own last path segment, and some mounts let the client choose that.
_MOST_PAGES = 8
_JSON_TYPE = "application/json"
_EXTERNAL_ORIGIN = re.compile(r"(?:https?:)?//[a-z0-9.:\[\]-]+(?=[/?#]|$)", re.IGNORECASE)
_NOT_A_PATH = re.compile(r"//|[^/?#]*:")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_ODD_PORT = re.compile(r":(?!\d+$)[^\]{]*$")

_NOT_FOUND = AsgiResponse(b"Not Found", 404, {"Content-Type": "text/plain; charset=utf-8"})
_FAILED = AsgiResponse(
    b"The AsyncAPI document could not be built; the log says why.",
    500,
    {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"},
)


class _Unset(Enum):
    UNSET = "unset"


_UNSET: Literal[_Unset.UNSET] = _Unset.UNSET


# --- what is documented ---


def specification_of(
    targets: Sequence[Any],
    specification: SpecificationFactory | None = None,
) -> SpecificationFactory:
    """Return the AsyncAPI specification that describes the targets.

    Args:
        targets: One specification, one FastStream app, one `BrokerLifespan`, or one or more brokers.
        specification: The one to use instead of the target's own; the target's brokers are added to it.

    Returns:
        The app's own specification, or a new one for brokers: an app is never created for them, because that
        would change what `Context` gives to subscribers that run already.

    Raises:
        SetupError: There are no targets, or they are of another kind, or of different kinds.
    """
    if specification is None:
        return _own_specification(targets)
    if not _is_specification(specification):
        msg = f"A specification is an object like AsyncAPI(title=...), not {specification!r}."
        raise SetupError(msg)
    if targets:
        for broker in getattr(_own_specification(targets), "brokers", ()):
            specification.add_broker(broker)
    return specification


def _own_specification(targets: Sequence[Any]) -> SpecificationFactory:
    if targets and all(isinstance(target, BrokerUsecase) for target in targets):
        return AsyncAPI(*targets)
    if len(targets) != 1:
        got = ", ".join(type(target).__name__ for target in targets) or "nothing"
        msg = f"AsyncAPI documentation needs a target, and got {got}: {_TARGETS}."
        raise SetupError(msg)
    target: Any = targets[0]
    if isinstance(target, BrokerLifespan):
        return _own_specification(target.brokers if target.app is None else (target.app,))
    found: Any = target if _is_specification(target) else getattr(target, "schema", None)
    if _is_specification(found):
        specification: SpecificationFactory = found
        return specification
    msg = f"{target!r} cannot be documented with AsyncAPI: {_TARGETS}."
    raise SetupError(msg)


def _is_specification(candidate: object) -> bool:
    return callable(getattr(candidate, "to_specification", None))


def _contents(specification: SpecificationFactory) -> list[object]:
    """Return the objects whose coming and going changes the document."""
    found: list[object] = []
    for broker in getattr(specification, "brokers", ()):
        found += (broker, *broker.subscribers, *broker.publishers)
    found += getattr(specification, "http_handlers", ())
    return found


def _without_credentials(url: str) -> str:
    """Return a server's address without user, password, query and fragment."""
    scheme = match[0] if (match := _SCHEME.match(url)) else ""
    rest = url.removeprefix(scheme)
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        rest = rest[authority.rindex("@") + 1 :]
    elif "@" in rest and _ODD_PORT.search(authority):
        # A password with an unescaped slash: what looks like the port is its beginning.
        rest = rest[rest.rindex("@") + 1 :]
    return scheme + re.split(r"[?#]", rest, maxsplit=1)[0]


def _remove_credentials(document: dict[str, Any]) -> None:
    for holder in (document, _mapping(document.get("components"))):
        for server in _mapping(holder.get("servers")).values():
            if "url" in server:
                server["url"] = _without_credentials(server["url"])
            elif "host" in server:
                given = server["host"] + server.get("pathname", "")
                if (address := _without_credentials(given)) != given:
                    server["host"], slash, path = address.partition("/")
                    server["pathname"] = slash + path


def _sort(document: dict[str, Any]) -> None:
    # FastStream keeps subscribers in sets: their order differs between worker processes, and ETags must not.
    components = _mapping(document.get("components"))
    for holder, keys in ((document, ("channels", "operations")), (components, ("messages", "schemas"))):
        for key in keys:
            if key in holder:
                holder[key] = dict(sorted(holder[key].items()))


# --- how it is sent ---


class _Variant(NamedTuple):
    tag: str
    full: AsgiResponse
    unchanged: AsgiResponse


class _Content:
    """A body with all that HTTP says about it, ready to be sent.

    Source: RFC 9110, sections 8.8.3 (ETag), 12.5.3 (Accept-Encoding), 13.1.2 (If-None-Match), 15.4.5 (304).
    """

    def __init__(
        self,
        body: bytes,
        media_type: str,
        headers: Mapping[str, str],
        cache_control: str = "no-cache",
    ) -> None:
        always = {
            "Cache-Control": cache_control,
            "Vary": "Accept-Encoding",
            "X-Content-Type-Options": "nosniff",
            **headers,
        }
        described = {"Content-Type": media_type}
        self._plain = _variant(body, always, described)
        packed = gzip.compress(body, mtime=0)
        self._packed = _variant(packed, always, {**described, "Content-Encoding": "gzip"})

    def answer(self, scope: Scope) -> AsgiResponse:
        """Return the response to one GET or HEAD request."""
        variant = self._packed if _accepts_gzip(_header(scope, b"accept-encoding")) else self._plain
        known = _header(scope, b"if-none-match")
        if known.strip() == "*" or variant.tag in re.findall(r'"([^"]*)"', known):
            return variant.unchanged
        return variant.full


def _variant(body: bytes, always: Mapping[str, str], described: Mapping[str, str]) -> _Variant:
    tag = _digest(body)
    headers = {**always, "ETag": f'"{tag}"'}
    return _Variant(
        tag,
        AsgiResponse(body, 200, {**headers, **described}),
        AsgiResponse(b"", 304, headers),
    )


def _digest(body: bytes) -> str:
    return sha256(body).hexdigest()[:32]


def _header(scope: Scope, name: bytes) -> str:
    return ",".join(value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name)


def _accepts_gzip(header: str) -> bool:
    weights: dict[str, float] = {}
    for item in header.lower().split(","):
        coding, _, parameter = item.partition(";")
        weights[coding.strip()] = _weight(parameter)
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _weight(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        # The plain body is right for everyone.
        return 0.0


def _static(name: str) -> bytes:
    return (files(__package__) / "static" / name).read_bytes()


class _Asset(NamedTuple):
    path: str
    content: _Content


_MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@cache
def _asset(name: str) -> _Asset:
    body = _static(name)
    stem, _, suffix = name.partition(".")
    content = _Content(body, _MEDIA_TYPES[suffix], {}, "public, max-age=31536000, immutable")
    return _Asset(f"{stem}.{_digest(body)[:12]}.{suffix}", content)


class _ContentEndpoint(Endpoint):
    """An endpoint whose content is made when it is asked for, and may fail to be made."""

    def __init__(self, content: Callable[[Scope], _Content], *, include_in_schema: bool = False) -> None:
        super().__init__(include_in_schema=include_in_schema)
        self._content = content

    async def respond(self, scope: Scope, receive: Receive, send: Send) -> ASGIApp:  # noqa: ARG002
        try:
            return self._content(scope).answer(scope)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is not the client's business)
            logger.error("The AsyncAPI document could not be built.\n%s", redacted_traceback(error))  # noqa: TRY400 (redacted)
            return _FAILED


def _asset_endpoint(asset: _Asset) -> Endpoint:
    return _ContentEndpoint(lambda _: asset.content)


# --- what the page looks like ---


@dataclass(frozen=True)
class _View:
    sidebar: bool
    info: bool
    servers: bool
    operations: bool
    messages: bool
    schemas: bool
    errors: bool
    expand_message_examples: bool
    js_url: str | None
    css_url: str | None

    def react_config(self) -> dict[str, Any]:
        """Return the configuration of the React component.

        Source: https://github.com/asyncapi/asyncapi-react/blob/master/docs/configuration/config-modification.md
        """
        show = ("sidebar", "info", "servers", "operations", "messages", "schemas", "errors")
        return {
            "show": {name: getattr(self, name) for name in show},
            "expand": {"messageExamples": self.expand_message_examples},
            "sidebar": {"showServers": "byDefault", "showOperations": "byDefault"},
        }

    def assets(self) -> tuple[str, ...]:
        """Return the names of the page's own files."""
        return ("icon.svg", "docs.css") if self.js_url is None else ("icon.svg", "react.css", "react.js")

    def headers(self) -> dict[str, str]:
        """Return the page's security headers."""
        scripts, styles = ["'self'"], ["'self'"]
        if self.js_url is not None:
            # The component compiles its validators from text; its Markdown may come with style attributes.
            scripts += ["'unsafe-eval'", *_origins(self.js_url, "asyncapi_js_url")]
            styles += ["'unsafe-inline'", *_origins(self.css_url, "asyncapi_css_url")]
        policy = (
            "default-src 'none'",
            f"style-src {' '.join(styles)}",
            "img-src 'self' data:",
            f"script-src {' '.join(scripts)}",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
        return {"Content-Security-Policy": "; ".join(policy), "Referrer-Policy": "no-referrer"}


def _origins(url: str | None, keyword: str) -> list[str]:
    if url is None:
        return []
    if external := _EXTERNAL_ORIGIN.match(url):
        return [external[0].removeprefix("//")]
    if _NOT_A_PATH.match(url):
        msg = f"{keyword} must be a path or an http(s) URL without credentials, not {url!r}."
        raise SetupError(msg)
    return []


class _Html(str):
    """Text that is markup; any other text is escaped when it becomes part of markup."""

    __slots__ = ()


def _join(parts: Iterable[object]) -> _Html:
    return _Html(
        "".join(part if isinstance(part, _Html) else escape(str(part)) for part in parts if part is not None)
    )


def _tag(name: str, *parts: object, **attributes: str) -> _Html:
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items()
    )
    return _Html(f"<{name}{written}>{_join(parts)}</{name}>")


def _text(value: object) -> _Html | None:
    return _tag("p", value, class_="text") if value else None


def _link(url: str, *parts: object) -> object:
    """Return a link, or the bare parts where the URL could run a script."""
    if re.match(r"(?:https?://|mailto:)", url, re.IGNORECASE):
        return _tag("a", *parts, href=url, rel="noreferrer")
    return _join(parts)


def _anchor(kind: str, name: str) -> str:
    return f"{kind}-{'-'.join(name.split())}"


def _to_anchor(kind: str, name: str, shown: object = None) -> _Html:
    return _tag("a", name if shown is None else shown, href=f"#{quote(_anchor(kind, name))}")


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _pointer(reference: str) -> list[str]:
    return [
        unquote(part).replace("~1", "/").replace("~0", "~")
        for part in reference.removeprefix("#/").split("/")
    ]


class _Operation(NamedTuple):
    name: str
    kind: str
    address: str
    details: dict[str, Any]
    channel: dict[str, Any]
    messages: list[Any]


class _Message(NamedTuple):
    name: str
    content: dict[str, Any]


class _Sections:
    """The parts of the server-rendered page, for AsyncAPI 3 and 2 alike."""

    def __init__(self, document: dict[str, Any], view: _View) -> None:
        self.document = document
        self.view = view
        self.servers = _mapping(document.get("servers"))
        self.components = _mapping(document.get("components"))
        self.schemas = _mapping(self.components.get("schemas"))
        self.operations = list(self._operations())
        messages = _mapping(self.components.get("messages"))
        self.messages = {name: _Message(name, _mapping(content)) for name, content in messages.items()}
        for operation in self.operations:
            for node in operation.messages:
                if (message := self._message(node)).content:
                    self.messages.setdefault(message.name, message)

    def main(self) -> _Html:
        """Return all that the view shows."""
        view = self.view
        parts = [self._info() if view.info else None]
        if view.servers:
            parts.append(_section("Servers", [*map(self._server, self.servers.items())]))
        if view.operations:
            parts.append(_section("Operations", [*map(self._show_operation, self.operations)]))
        if view.messages:
            parts.append(_section("Messages", [*map(self._show_message, self.messages.values())]))
        if view.schemas:
            parts.append(_section("Schemas", [*map(self._show_schema, self.schemas.items())]))
        return _join(parts)

    def sidebar(self) -> _Html:
        """Return the table of contents."""
        view = self.view
        parts: list[_Html | None] = []
        if view.operations:
            links = [_to_anchor("operation", item.name, item.address) for item in self.operations]
            parts.append(_contents_of("Operations", links))
        if view.messages:
            parts.append(_contents_of("Messages", [_to_anchor("message", name) for name in self.messages]))
        if view.schemas:
            parts.append(_contents_of("Schemas", [_to_anchor("schema", name) for name in self.schemas]))
        return _tag("nav", *parts, aria_label="Contents")

    def _resolve(self, node: object) -> tuple[str | None, Any]:
        """Follow references inside the document; return the last one's name and what it points to."""
        name = None
        seen: set[str] = set()
        while isinstance(reference := _mapping(node).get("$ref"), str) and reference not in seen:
            seen.add(reference)
            node = self.document
            for name in _pointer(reference):
                node = _mapping(node).get(name)
        return name, node

    def _message(self, node: object) -> _Message:
        name, found = self._resolve(node)
        content = _mapping(found)
        return _Message(str(name or content.get("name") or content.get("title") or "message"), content)

    def _operations(self) -> Iterable[_Operation]:
        channels = _mapping(self.document.get("channels"))
        for name, value in _mapping(self.document.get("operations")).items():
            operation = _mapping(value)
            channel_name, found = self._resolve(operation.get("channel"))
            channel = _mapping(found)
            kind = str(operation.get("action"))
            address = str(channel.get("address") or channel_name or name)
            messages = _list(operation.get("messages"))
            yield _Operation(name, kind, address, operation, channel, messages)
        for name, value in channels.items():
            channel = _mapping(value)
            # AsyncAPI 2 says what others do: they publish what this application receives.
            for key, kind in (("publish", "receive"), ("subscribe", "send")):
                if operation := _mapping(channel.get(key)):
                    message = operation.get("message")
                    messages = _list(_mapping(message).get("oneOf")) or [message] * (message is not None)
                    yield _Operation(f"{name}-{key}", kind, name, operation, channel, messages)

    def _info(self) -> _Html:
        info = _mapping(self.document.get("info"))
        contact = _mapping(info.get("contact"))
        license_ = _mapping(info.get("license"))
        facts: list[object] = []
        if contact:
            email = str(contact.get("email", ""))
            url = str(contact.get("url") or (email and f"mailto:{email}"))
            facts.append(_join(["Contact: ", _link(url, contact.get("name") or email or url)]))
        if license_:
            facts.append(_join(["License: ", _link(str(license_.get("url", "")), license_.get("name"))]))
        if terms := info.get("termsOfService"):
            facts.append(_link(str(terms), "Terms of service"))
        facts += _more(info)
        facts += _more(self.document)
        version = _tag("span", info.get("version", ""), class_="version")
        return _join(
            [
                _tag("h1", info.get("title", ""), " ", version),
                _tag("p", f"AsyncAPI {self.document.get('asyncapi', '')}", class_="note"),
                _text(info.get("description")),
                *(_tag("p", fact, class_="note") for fact in facts),
                _tags(info) or _tags(self.document),
            ],
        )

    def _server(self, item: tuple[str, Any]) -> _Html:
        name, server = item[0], _mapping(item[1])
        protocol = server.get("protocol", "")
        address = server.get("url") or f"{protocol}://{server.get('host', '')}{server.get('pathname', '')}"
        version = server.get("protocolVersion")
        return _tag(
            "article",
            _tag("h3", name, " ", _tag("code", address)),
            _tag("p", protocol, f" {version}" if version else "", class_="note"),
            _text(server.get("description")),
            _tags(server),
            class_="card",
            id=_anchor("server", name),
        )

    def _show_operation(self, operation: _Operation) -> _Html:
        details, channel = operation.details, operation.channel
        facts: list[object] = []
        if servers := [self._server_name(server) for server in _list(channel.get("servers"))]:
            facts.append(f"Servers: {', '.join(servers)}")
        facts += (*_bindings(channel), *_bindings(details))
        names = [self._message(node).name for node in operation.messages]
        links = [_to_anchor("message", name) if self.view.messages else _tag("code", name) for name in names]
        return _tag(
            "article",
            _tag("h3", _badge(operation), operation.address),
            _text(details.get("summary")),
            _text(details.get("description")),
            _text(channel.get("description")),
            *(_tag("p", fact, class_="note") for fact in facts),
            *(_tag("p", "Message: ", link, class_="note") for link in links),
            _tags(details),
            class_="card",
            id=_anchor("operation", operation.name),
        )

    def _server_name(self, server: object) -> str:
        return self._resolve(server)[0] or str(server)

    def _show_message(self, message: _Message) -> _Html:
        content = message.content
        title = content.get("title") or message.name
        payload = _payload(content)
        examples = [example for example in _list(content.get("examples")) if example]
        examples += _list(_mapping(self._resolve(payload)[1]).get("examples"))
        return _tag(
            "article",
            _tag("h3", title),
            _tag("p", content["contentType"], class_="note") if "contentType" in content else None,
            _text(content.get("summary")),
            _text(content.get("description")),
            *(self._shape("Headers", content["headers"]) if "headers" in content else ()),
            *(self._shape("Payload", payload) if payload is not None else ()),
            *map(self._example, examples),
            _tags(content),
            class_="card",
            id=_anchor("message", message.name),
        )

    def _shape(self, title: str, schema: object) -> tuple[_Html, ...]:
        _, found = self._resolve(schema)
        return (_tag("h4", title, " ", self._type(schema)), self._fields(found))

    def _example(self, example: object) -> _Html:
        # A valueless attribute has no keyword of its own in `_tag`.
        opening = _Html("<details open>" if self.view.expand_message_examples else "<details>")
        body = _join([_tag("summary", "Example"), _tag("pre", _tag("code", _pretty(example)))])
        return _join([opening, body, _Html("</details>")])

    def _show_schema(self, item: tuple[str, Any]) -> _Html:
        name, schema = item
        return _tag(
            "article",
            _tag("h3", name, " ", _tag("span", self._type(schema), class_="type")),
            _text(_mapping(schema).get("description")),
            self._fields(schema),
            _tag("details", _tag("summary", "JSON Schema"), _tag("pre", _tag("code", _pretty(schema)))),
            class_="card",
            id=_anchor("schema", name),
        )

    def _fields(self, schema: object) -> _Html:
        """Return the properties of a schema and of objects inside it, but not of schemas it refers to."""
        inside = _mapping(schema)
        if "items" in inside:
            return self._fields(inside["items"])
        required = _list(inside.get("required"))
        fields = [
            _tag(
                "li",
                _tag("code", name),
                " ",
                _tag("span", self._type(field), class_="type"),
                _tag("span", " required", class_="required") if name in required else None,
                _rules(_mapping(field)),
                _text(_mapping(field).get("description")),
                self._fields(field),
            )
            for name, field in _mapping(inside.get("properties")).items()
        ]
        return _tag("ul", *fields, class_="fields") if fields else _Html()

    def _type(self, schema: object) -> _Html:
        """Return what a value may be, in a few words."""
        inside = _mapping(schema)
        if isinstance(reference := inside.get("$ref"), str):
            return self._schema_name(_pointer(reference)[-1])
        for key, between in (("oneOf", " | "), ("anyOf", " | "), ("allOf", " & ")):
            if choices := _list(inside.get(key)):
                return _Html(escape(between).join(map(self._type, choices)))
        if values := [inside["const"]] if "const" in inside else _list(inside.get("enum")):
            return _join([" | ".join(map(_compact, values))])
        kind = inside.get("type", "any")
        if kind == "array":
            return _join(["array of ", self._type(inside.get("items"))])
        if kind == "object" and _mapping(inside.get("additionalProperties")):
            return _join(["object of ", self._type(inside["additionalProperties"])])
        name = " | ".join(kind) if isinstance(kind, list) else kind
        return _join([name, f" ({inside['format']})" if "format" in inside else None])

    def _schema_name(self, name: str) -> _Html:
        return _to_anchor("schema", name) if self.view.schemas and name in self.schemas else _join([name])


def _badge(operation: _Operation) -> _Html:
    if http := _mapping(_mapping(operation.details.get("bindings")).get("http")):
        return _tag("span", "HTTP ", http.get("method"), class_="badge http")
    return _tag("span", operation.kind, "s", class_=f"badge {operation.kind}")


def _section(title: str, cards: list[_Html]) -> _Html | None:
    return _join([_tag("h2", title), *cards]) if cards else None


def _contents_of(title: str, links: list[_Html]) -> _Html | None:
    if not links:
        return None
    return _join([_tag("h2", title), _tag("ul", *(_tag("li", link) for link in links))])


def _more(holder: dict[str, Any]) -> list[object]:
    documents = _mapping(holder.get("externalDocs"))
    if not documents:
        return []
    url = str(documents.get("url", ""))
    return [_link(url, documents.get("description") or url)]


def _tags(holder: dict[str, Any]) -> _Html | None:
    names = [_mapping(item).get("name", "") for item in _list(holder.get("tags"))]
    return _tag("p", *(_tag("span", name, class_="tag") for name in names)) if names else None


def _payload(message: dict[str, Any]) -> Any:
    payload = message.get("payload")
    # AsyncAPI 3 lets a payload say which schema language it is in.
    return _mapping(payload).get("schema") if "schemaFormat" in _mapping(payload) else payload


def _bindings(holder: dict[str, Any]) -> list[str]:
    lines = []
    for protocol, binding in _mapping(holder.get("bindings")).items():
        facts = [
            f"{key} {value if isinstance(value, str) else _compact(value)}"
            for key, value in _mapping(binding).items()
            if key != "bindingVersion"
        ]
        if facts:
            lines.append(f"{protocol}: {', '.join(facts)}")
    return lines


_RULES = (
    "default",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
)


def _rules(schema: dict[str, Any]) -> _Html | None:
    rules = [f" · {name} {_compact(schema[name])}" for name in _RULES if name in schema]
    return _tag("span", *rules, class_="type") if rules else None


# --- the app ---


class _Built:
    """One state of the document, in all the forms it is sent in; each form is made when it is asked for."""

    def __init__(self, specification: SpecificationFactory, view: _View) -> None:
        self._view = view
        self._document: dict[str, Any] = json.loads(specification.to_specification().to_json())
        _remove_credentials(self._document)
        _sort(self._document)
        self._pages: dict[str, _Content] = {}

    @cached_property
    def _text(self) -> str:
        return json.dumps(self._document, ensure_ascii=False, separators=(",", ":"))

    @cached_property
    def json(self) -> _Content:
        return _Content(self._text.encode(), _JSON_TYPE, {})

    @cached_property
    def yaml(self) -> _Content:
        try:
            yaml = import_module("yaml")
        except ImportError:
            # Every JSON text is YAML 1.2.
            text = self._text
        else:
            text = yaml.safe_dump(self._document, sort_keys=False, allow_unicode=True)
        return _Content(text.encode(), "application/yaml", {})

    def page(self, folder: str) -> _Content:
        """Return the page, whose own files are in `folder`, seen from the page's URL."""
        if folder not in self._pages:
            if len(self._pages) >= _MOST_PAGES:
                self._pages.clear()
            body = self._react(folder) if self._view.js_url is not None else self._plain(folder)
            self._pages[folder] = _Content(body.encode(), "text/html; charset=utf-8", self._view.headers())
        return self._pages[folder]

    def _common(self, folder: str) -> dict[str, str]:
        return {
            "title": escape(str(_mapping(self._document.get("info")).get("title", ""))),
            "icon": folder + _asset("icon.svg").path,
            "json": f"{folder}asyncapi.json",
            "yaml": f"{folder}asyncapi.yaml",
        }

    def _plain(self, folder: str) -> str:
        return Template(_static("page.html").decode()).substitute(
            self._common(folder),
            style=folder + _asset("docs.css").path,
            sidebar=self._sections[0],
            main=self._sections[1],
        )

    @cached_property
    def _sections(self) -> tuple[str, str]:
        sections = _Sections(self._document, self._view)
        return sections.sidebar() if self._view.sidebar else "", sections.main()

    def _react(self, folder: str) -> str:
        css = self._view.css_url
        return Template(_static("react.html").decode()).substitute(
            self._common(folder),
            stylesheet=f'<link rel="stylesheet" href="{escape(css)}">' if css is not None else "",
            component=escape(self._view.js_url or ""),
            style=folder + _asset("react.css").path,
            script=folder + _asset("react.js").path,
            config=escape(json.dumps(self._view.react_config())),
        )


def _folder(scope: Scope) -> str:
    """Return where the page's own files are, relative to the URL that the client asked for."""
    # Some hosts strip the mount's prefix from `path`; relative links need the path that the client sees.
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    last = raw.partition(b"?")[0].decode("latin-1").rpartition("/")[2]
    # Quoted anew, so that nothing in it looks like a scheme or ends an attribute.
    return f"{quote(unquote(last), safe='')}/" if last else ""


class AsyncAPIDocs:
    """An ASGI app: a page at its root; below it `asyncapi.json`, `asyncapi.yaml` and the page's own files.

    `json` and `yaml` are the endpoints of the document alone, for further URLs.

    Args:
        specification: What is shown.
        view: How it is shown.
        include_in_schema: Whether the AsyncAPI document lists the page as a route.
        description: The description in that document.
        tags: The tags in that document.
        unique_id: The operation id in that document.
    """

    def __init__(
        self,
        specification: SpecificationFactory,
        view: _View,
        *,
        include_in_schema: bool,
        description: str | None,
        tags: Tags | None,
        unique_id: str | None,
    ) -> None:
        self.specification = specification
        self.include_in_schema = include_in_schema
        self.description = description
        self.tags = tags
        self.unique_id = unique_id
        self.json: Endpoint = _ContentEndpoint(
            lambda _: self._current().json,
            include_in_schema=include_in_schema,
        )
        self.yaml: Endpoint = _ContentEndpoint(
            lambda _: self._current().yaml,
            include_in_schema=include_in_schema,
        )
        self._page = _ContentEndpoint(lambda scope: self._current().page(_folder(scope)))
        self.methods = self._page.methods
        self._view = view
        self._built: _Built | None = None
        self._contents: list[object] = []
        self._looked = 0.0
        self._urls: dict[str, Endpoint] = {
            "/": self._page,
            "/asyncapi.json": self.json,
            "/asyncapi.yaml": self.yaml,
        }
        for asset in map(_asset, view.assets()):
            self._urls[f"/{asset.path}"] = _asset_endpoint(asset)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or accept the lifespan."""
        app: ASGIApp = self._page
        if scope["type"] != "lifespan":
            app = self._urls.get(route_path(scope), _NOT_FOUND)
        await app(scope, receive, send)

    def _current(self) -> _Built:
        now = monotonic()
        if self._built is not None and now - self._looked < _LOOK_EVERY:
            return self._built
        contents = _contents(self.specification)
        # Compared by identity, and kept alive meanwhile, so that no new object can take an old one's id.
        same = len(contents) == len(self._contents) and all(map(operator.is_, contents, self._contents))
        if self._built is None or not same:
            self._built = _Built(self.specification, self._view)
            self._contents = contents
        self._looked = now
        return self._built


def make_asyncapi_asgi(
    *targets: Any,
    specification: SpecificationFactory | None = None,
    schema: SpecificationFactory | None = None,
    description: str | None = None,
    tags: Tags | None = None,
    unique_id: str | None = None,
    include_in_schema: bool = True,
    sidebar: bool = True,
    info: bool = True,
    servers: bool = True,
    operations: bool = True,
    messages: bool = True,
    schemas: bool = True,
    errors: bool = True,
    expand_message_examples: bool = True,
    asyncapi_js_url: str | None = None,
    asyncapi_css_url: str | None = None,
    try_it_out_plugin_url: str | None = None,
    try_it_out_path: str | None = None,
) -> AsyncAPIDocs:
    """Make the ASGI app that serves AsyncAPI documentation.

    Args:
        targets: One AsyncAPI specification, one FastStream app, one `BrokerLifespan`, or one or more brokers.
        specification: The specification to show instead of the target's own.
        schema: Upstream's name of `specification`.
        description: The page's description in the document, where the page is listed there.
        tags: The page's tags there.
        unique_id: The page's operation id there.
        include_in_schema: Whether the page is listed there.
        sidebar: Whether the page has a table of contents.
        info: Whether it shows title, version and description.
        servers: Whether it shows the servers.
        operations: Whether it shows the operations.
        messages: Whether it shows the messages.
        schemas: Whether it shows the schemas.
        errors: Whether the React component shows errors in the document.
        expand_message_examples: Whether examples are open from the start.
        asyncapi_js_url: Where to load the official React component from, instead of the page without scripts.
        asyncapi_css_url: Where to load that component's styles from.
        try_it_out_plugin_url: Not supported: None.
        try_it_out_path: Not supported: None.

    Returns:
        The app; mount it with all the paths below its own.

    Raises:
        SetupError: The targets cannot be documented, or keywords cannot work.
    """
    _refuse_try_it_out(try_it_out_path, try_it_out_plugin_url)
    if specification is not None and schema is not None:
        msg = "specification and schema are two names of one thing: pass one of them."
        raise SetupError(msg)
    view = _View(
        sidebar=sidebar,
        info=info,
        servers=servers,
        operations=operations,
        messages=messages,
        schemas=schemas,
        errors=errors,
        expand_message_examples=expand_message_examples,
        js_url=asyncapi_js_url,
        css_url=asyncapi_css_url,
    )
    if asyncapi_css_url is not None and asyncapi_js_url is None:
        msg = "asyncapi_css_url styles the React component: pass asyncapi_js_url too, or neither."
        raise SetupError(msg)
    # Raises for a URL that no policy can name, now rather than when the page is asked for.
    view.headers()
    return AsyncAPIDocs(
        specification_of(targets, specification or schema),
        view,
        include_in_schema=include_in_schema,
        description=description,
        tags=tags,
        unique_id=unique_id,
    )


def _refuse_try_it_out(path: str | None, plugin_url: str | None) -> None:
    for keyword, value in (("try_it_out_path", path), ("try_it_out_plugin_url", plugin_url)):
        if value is not None:
            msg = (
                f"{keyword} must be None: trying a message out from the documentation would publish to the "
                "live broker, for everyone who can open the page."
            )
            raise SetupError(msg)


class AsyncAPIRoute:
    """Where AsyncAPI documentation is served, and how it looks.

    Args:
        path: The page's path.
        description: The page's description in the document, where the page is listed there.
        tags: The page's tags there.
        unique_id: The page's operation id there.
        include_in_schema: Whether the page is listed there.
        asyncapi_json_path: The path of the document as JSON beside the page; by default the page's path and
            `.json`. None serves neither it nor its YAML sibling.
        try_it_out_path: Not supported: None.
        sidebar: Whether the page has a table of contents.
        info: Whether it shows title, version and description.
        servers: Whether it shows the servers.
        operations: Whether it shows the operations.
        messages: Whether it shows the messages.
        schemas: Whether it shows the schemas.
        errors: Whether the React component shows errors in the document.
        expand_message_examples: Whether examples are open from the start.
        asyncapi_js_url: Where to load the official React component from, instead of the page without scripts.
        asyncapi_css_url: Where to load that component's styles from.
        try_it_out_plugin_url: Not supported: None.

    Raises:
        SetupError: A try-it-out keyword is not None.
    """

    def __init__(  # noqa: PLR0917 (upstream's signature)
        self,
        path: str,
        description: str | None = None,
        tags: Tags | None = None,
        unique_id: str | None = None,
        include_in_schema: bool = False,  # noqa: FBT001, FBT002 (upstream's signature)
        asyncapi_json_path: str | Literal[_Unset.UNSET] | None = _UNSET,
        *,
        try_it_out_path: str | None = None,
        sidebar: bool = True,
        info: bool = True,
        servers: bool = True,
        operations: bool = True,
        messages: bool = True,
        schemas: bool = True,
        errors: bool = True,
        expand_message_examples: bool = True,
        asyncapi_js_url: str | None = None,
        asyncapi_css_url: str | None = None,
        try_it_out_plugin_url: str | None = None,
    ) -> None:
        _refuse_try_it_out(try_it_out_path, try_it_out_plugin_url)
        self.path = path
        self.asyncapi_json_path: str | None
        if isinstance(asyncapi_json_path, _Unset):
            beside = path.rstrip("/")
            # The root has nothing beside it; /asyncapi.json is below it.
            self.asyncapi_json_path = f"{beside}.json" if beside else None
        else:
            self.asyncapi_json_path = asyncapi_json_path
        self.try_it_out_path = try_it_out_path
        self.description = description
        self.tags = tags
        self.unique_id = unique_id
        self.include_in_schema = include_in_schema
        self.sidebar = sidebar
        self.info = info
        self.servers = servers
        self.operations = operations
        self.messages = messages
        self.schemas = schemas
        self.errors = errors
        self.expand_message_examples = expand_message_examples
        self.asyncapi_js_url = asyncapi_js_url
        self.asyncapi_css_url = asyncapi_css_url
        self.try_it_out_plugin_url = try_it_out_plugin_url

    @property
    def asyncapi_yaml_path(self) -> str | None:
        """The path of the document as YAML, next to the JSON one; None where that is off."""
        if self.asyncapi_json_path is None:
            return None
        return self.asyncapi_json_path.removesuffix(".json") + ".yaml"

    @classmethod
    def ensure_route(cls, path: "str | AsyncAPIRoute") -> "AsyncAPIRoute":
        """Return the route itself, or one with all defaults for a path."""
        return path if isinstance(path, AsyncAPIRoute) else cls(path)

    def __call__(
        self,
        *targets: Any,
        specification: SpecificationFactory | None = None,
        schema: SpecificationFactory | None = None,
    ) -> AsyncAPIDocs:
        """Make the app that serves this documentation of the targets.

        Args:
            targets: What `make_asyncapi_asgi` takes.
            specification: The specification to show instead of the target's own.
            schema: Upstream's name of `specification`.

        Returns:
            The app to mount at `path`.

        Raises:
            SetupError: The targets cannot be documented, or keywords cannot work.
        """
        return make_asyncapi_asgi(
            *targets,
            specification=specification,
            schema=schema,
            description=self.description,
            tags=self.tags,
            unique_id=self.unique_id,
            include_in_schema=self.include_in_schema,
            sidebar=self.sidebar,
            info=self.info,
            servers=self.servers,
            operations=self.operations,
            messages=self.messages,
            schemas=self.schemas,
            errors=self.errors,
            expand_message_examples=self.expand_message_examples,
            asyncapi_js_url=self.asyncapi_js_url,
            asyncapi_css_url=self.asyncapi_css_url,
            try_it_out_plugin_url=self.try_it_out_plugin_url,
            try_it_out_path=self.try_it_out_path,
        )
