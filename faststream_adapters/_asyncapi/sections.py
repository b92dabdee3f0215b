"""Server-rendered HTML of an AsyncAPI document, version 2 or 3. It needs no script."""

import json
import re
from collections.abc import Iterable
from html import escape
from typing import Any, NamedTuple
from urllib.parse import quote

from .document import mapping, pointer_names, resolve
from .view import View

__all__ = ("Sections",)

_SAFE_URL = re.compile(r"https?://|mailto:", re.IGNORECASE)


class _Html(str):
    """Markup. Every other string is escaped when it is inserted into markup."""

    __slots__ = ()


def _join(parts: Iterable[object]) -> _Html:
    return _Html(
        "".join(part if isinstance(part, _Html) else escape(str(part)) for part in parts if part is not None)
    )


def _tag(name: str, *parts: object, **attributes: str) -> _Html:
    """Return an element. An underscore in an attribute's name stands for a hyphen, except at its end."""
    markup = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items()
    )
    return _Html(f"<{name}{markup}>{_join(parts)}</{name}>")


def _text(value: object) -> _Html | None:
    return _tag("p", value, class_="text") if value else None


def _link(url: str, *parts: object) -> object:
    """Return a link, or only its text if the URL could run a script."""
    if _SAFE_URL.match(url):
        return _tag("a", *parts, href=url, rel="noreferrer")
    return _join(parts)


def _anchor(kind: str, name: str) -> str:
    return f"{kind}-{'-'.join(name.split())}"


def _anchor_link(kind: str, name: str, text: object = None) -> _Html:
    return _tag("a", name if text is None else text, href=f"#{quote(_anchor(kind, name))}")


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


class _Operation(NamedTuple):
    name: str
    action: str
    address: str
    details: dict[str, Any]
    channel: dict[str, Any]
    messages: list[Any]


class _Message(NamedTuple):
    name: str
    content: dict[str, Any]


class Sections:
    """The parts of the server-rendered page."""

    def __init__(self, document: dict[str, Any], view: View) -> None:
        self.document = document
        self.view = view
        self.servers = mapping(document.get("servers"))
        self.components = mapping(document.get("components"))
        self.schemas = mapping(self.components.get("schemas"))
        self.operations = list(self._operations())
        messages = mapping(self.components.get("messages"))
        self.messages = {name: _Message(name, mapping(content)) for name, content in messages.items()}
        for operation in self.operations:
            for node in operation.messages:
                if (message := self._message(node)).content:
                    self.messages.setdefault(message.name, message)

    def main(self) -> _Html:
        """Return the sections that the view includes."""
        view = self.view
        parts = [self._info() if view.options["info"] else None]
        if view.options["servers"]:
            parts.append(_section("Servers", [*map(self._server_card, self.servers.items())]))
        if view.options["operations"]:
            parts.append(_section("Operations", [*map(self._operation_card, self.operations)]))
        if view.options["messages"]:
            parts.append(_section("Messages", [*map(self._message_card, self.messages.values())]))
        if view.options["schemas"]:
            parts.append(_section("Schemas", [*map(self._schema_card, self.schemas.items())]))
        return _join(parts)

    def sidebar(self) -> _Html:
        """Return the table of contents."""
        view = self.view
        parts: list[_Html | None] = []
        if view.options["operations"]:
            links = [_anchor_link("operation", item.name, item.address) for item in self.operations]
            parts.append(_contents("Operations", links))
        if view.options["messages"]:
            parts.append(_contents("Messages", [_anchor_link("message", name) for name in self.messages]))
        if view.options["schemas"]:
            parts.append(_contents("Schemas", [_anchor_link("schema", name) for name in self.schemas]))
        return _tag("nav", *parts, aria_label="Contents")

    def _message(self, node: object) -> _Message:
        name, target = resolve(self.document, node)
        content = mapping(target)
        return _Message(str(name or content.get("name") or content.get("title") or "message"), content)

    def _operations(self) -> Iterable[_Operation]:
        channels = mapping(self.document.get("channels"))
        for name, value in mapping(self.document.get("operations")).items():
            operation = mapping(value)
            channel_name, target = resolve(self.document, operation.get("channel"))
            channel = mapping(target)
            action = str(operation.get("action"))
            address = str(channel.get("address") or channel_name or name)
            messages = _list(operation.get("messages"))
            yield _Operation(name, action, address, operation, channel, messages)
        for name, value in channels.items():
            channel = mapping(value)
            # AsyncAPI 2 describes a client's view: a client publishes what this application receives.
            for key, action in (("publish", "receive"), ("subscribe", "send")):
                if operation := mapping(channel.get(key)):
                    message = operation.get("message")
                    messages = _list(mapping(message).get("oneOf")) or [message] * (message is not None)
                    yield _Operation(f"{name}-{key}", action, name, operation, channel, messages)

    def _info(self) -> _Html:
        info = mapping(self.document.get("info"))
        contact = mapping(info.get("contact"))
        license_ = mapping(info.get("license"))
        facts: list[object] = []
        if contact:
            email = str(contact.get("email", ""))
            url = str(contact.get("url") or (email and f"mailto:{email}"))
            facts.append(_join(["Contact: ", _link(url, contact.get("name") or email or url)]))
        if license_:
            facts.append(_join(["License: ", _link(str(license_.get("url", "")), license_.get("name"))]))
        if terms := info.get("termsOfService"):
            facts.append(_link(str(terms), "Terms of service"))
        facts += _external_docs(info)
        facts += _external_docs(self.document)
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

    def _server_card(self, item: tuple[str, Any]) -> _Html:
        name, server = item[0], mapping(item[1])
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

    def _operation_card(self, operation: _Operation) -> _Html:
        details, channel = operation.details, operation.channel
        facts: list[object] = []
        if servers := [self._server_name(server) for server in _list(channel.get("servers"))]:
            facts.append(f"Servers: {', '.join(servers)}")
        facts += (*_bindings(channel), *_bindings(details))
        names = [self._message(node).name for node in operation.messages]
        links = [
            _anchor_link("message", name) if self.view.options["messages"] else _tag("code", name)
            for name in names
        ]
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
        return resolve(self.document, server)[0] or str(server)

    def _message_card(self, message: _Message) -> _Html:
        content = message.content
        title = content.get("title") or message.name
        payload = _payload(content)
        examples = [example for example in _list(content.get("examples")) if example]
        examples += _list(mapping(resolve(self.document, payload)[1]).get("examples"))
        return _tag(
            "article",
            _tag("h3", title),
            _tag("p", content["contentType"], class_="note") if "contentType" in content else None,
            _text(content.get("summary")),
            _text(content.get("description")),
            *(self._schema_part("Headers", content["headers"]) if "headers" in content else ()),
            *(self._schema_part("Payload", payload) if payload is not None else ()),
            *map(self._example, examples),
            _tags(content),
            class_="card",
            id=_anchor("message", message.name),
        )

    def _schema_part(self, title: str, schema: object) -> tuple[_Html, ...]:
        _, target = resolve(self.document, schema)
        return (_tag("h4", title, " ", self._type(schema)), self._fields(target))

    def _example(self, example: object) -> _Html:
        # `_tag` cannot write an attribute without a value.
        opening = _Html("<details open>" if self.view.options["expand_message_examples"] else "<details>")
        body = _join([_tag("summary", "Example"), _tag("pre", _tag("code", _pretty(example)))])
        return _join([opening, body, _Html("</details>")])

    def _schema_card(self, item: tuple[str, Any]) -> _Html:
        name, schema = item
        return _tag(
            "article",
            _tag("h3", name, " ", _tag("span", self._type(schema), class_="type")),
            _text(mapping(schema).get("description")),
            self._fields(schema),
            _tag("details", _tag("summary", "JSON Schema"), _tag("pre", _tag("code", _pretty(schema)))),
            class_="card",
            id=_anchor("schema", name),
        )

    def _fields(self, schema: object) -> _Html:
        """Return the properties of a schema, nested objects included, without following references."""
        details = mapping(schema)
        if "items" in details:
            return self._fields(details["items"])
        required = _list(details.get("required"))
        fields = [
            _tag(
                "li",
                _tag("code", name),
                " ",
                _tag("span", self._type(field), class_="type"),
                _tag("span", " required", class_="required") if name in required else None,
                _constraints(mapping(field)),
                _text(mapping(field).get("description")),
                self._fields(field),
            )
            for name, field in mapping(details.get("properties")).items()
        ]
        return _tag("ul", *fields, class_="fields") if fields else _Html()

    def _type(self, schema: object) -> _Html:
        """Return a short description of the schema's type."""
        details = mapping(schema)
        if isinstance(reference := details.get("$ref"), str):
            return self._schema_name(pointer_names(reference)[-1])
        for key, separator in (("oneOf", " | "), ("anyOf", " | "), ("allOf", " & ")):
            if choices := _list(details.get(key)):
                return _Html(escape(separator).join(map(self._type, choices)))
        if values := [details["const"]] if "const" in details else _list(details.get("enum")):
            return _join([" | ".join(map(_compact, values))])
        kind = details.get("type", "any")
        if kind == "array":
            return _join(["array of ", self._type(details.get("items"))])
        if kind == "object" and mapping(details.get("additionalProperties")):
            return _join(["object of ", self._type(details["additionalProperties"])])
        name = " | ".join(kind) if isinstance(kind, list) else kind
        return _join([name, f" ({details['format']})" if "format" in details else None])

    def _schema_name(self, name: str) -> _Html:
        return (
            _anchor_link("schema", name)
            if self.view.options["schemas"] and name in self.schemas
            else _join([name])
        )


def _badge(operation: _Operation) -> _Html:
    if http := mapping(mapping(operation.details.get("bindings")).get("http")):
        return _tag("span", "HTTP ", http.get("method"), class_="badge http")
    return _tag("span", operation.action, "s", class_=f"badge {operation.action}")


def _section(title: str, cards: list[_Html]) -> _Html | None:
    return _join([_tag("h2", title), *cards]) if cards else None


def _contents(title: str, links: list[_Html]) -> _Html | None:
    if not links:
        return None
    return _join([_tag("h2", title), _tag("ul", *(_tag("li", link) for link in links))])


def _external_docs(parent: dict[str, Any]) -> list[object]:
    external = mapping(parent.get("externalDocs"))
    if not external:
        return []
    url = str(external.get("url", ""))
    return [_link(url, external.get("description") or url)]


def _tags(parent: dict[str, Any]) -> _Html | None:
    names = [mapping(item).get("name", "") for item in _list(parent.get("tags"))]
    return _tag("p", *(_tag("span", name, class_="tag") for name in names)) if names else None


def _payload(message: dict[str, Any]) -> Any:
    payload = message.get("payload")
    # In AsyncAPI 3, a payload with a schemaFormat wraps the schema.
    return mapping(payload).get("schema") if "schemaFormat" in mapping(payload) else payload


def _bindings(parent: dict[str, Any]) -> list[str]:
    lines = []
    for protocol, binding in mapping(parent.get("bindings")).items():
        facts = [
            f"{key} {value if isinstance(value, str) else _compact(value)}"
            for key, value in mapping(binding).items()
            if key != "bindingVersion"
        ]
        if facts:
            lines.append(f"{protocol}: {', '.join(facts)}")
    return lines


_CONSTRAINTS = (
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


def _constraints(schema: dict[str, Any]) -> _Html | None:
    constraints = [f" · {name} {_compact(schema[name])}" for name in _CONSTRAINTS if name in schema]
    return _tag("span", *constraints, class_="type") if constraints else None
