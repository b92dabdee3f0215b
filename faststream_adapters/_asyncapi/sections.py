"""Server-rendered HTML of an AsyncAPI document, version 2 or 3. It needs no script."""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import quote

from faststream_adapters._asgi.markup import Html, join, safe_link, tag

from .document import mapping, pointer_names, resolve
from .view import View

__all__ = ("Sections",)


def _text(value: object) -> Html | None:
    return tag("p", value, class_="text") if value else None


def _anchor(kind: str, name: str) -> str:
    return f"{kind}-{'-'.join(name.split())}"


def _anchor_link(kind: str, name: str, text: object = None) -> Html:
    return tag("a", name if text is None else text, href=f"#{quote(_anchor(kind, name))}")


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

    def main(self) -> Html:
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
        return join(*parts)

    def sidebar(self) -> Html:
        """Return the table of contents."""
        view = self.view
        parts: list[Html | None] = []
        if view.options["operations"]:
            links = [_anchor_link("operation", item.name, item.address) for item in self.operations]
            parts.append(_contents("Operations", links))
        if view.options["messages"]:
            parts.append(_contents("Messages", [_anchor_link("message", name) for name in self.messages]))
        if view.options["schemas"]:
            parts.append(_contents("Schemas", [_anchor_link("schema", name) for name in self.schemas]))
        return join(*parts)

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

    def _info(self) -> Html:
        info = mapping(self.document.get("info"))
        contact = mapping(info.get("contact"))
        license_ = mapping(info.get("license"))
        facts: list[object] = []
        if contact:
            email = str(contact.get("email", ""))
            url = str(contact.get("url") or (email and f"mailto:{email}"))
            facts.append(join("Contact: ", safe_link(url, contact.get("name") or email or url)))
        if license_:
            facts.append(join("License: ", safe_link(str(license_.get("url", "")), license_.get("name"))))
        if terms := info.get("termsOfService"):
            facts.append(safe_link(str(terms), "Terms of service"))
        facts += _external_docs(info)
        facts += _external_docs(self.document)
        version = tag("span", info.get("version", ""), class_="version")
        return join(
            tag("h1", info.get("title", ""), " ", version),
            tag("p", f"AsyncAPI {self.document.get('asyncapi', '')}", class_="note"),
            _text(info.get("description")),
            *(tag("p", fact, class_="note") for fact in facts),
            _tags(info) or _tags(self.document),
        )

    def _server_card(self, item: tuple[str, Any]) -> Html:
        name, server = item[0], mapping(item[1])
        protocol = server.get("protocol", "")
        address = server.get("url") or f"{protocol}://{server.get('host', '')}{server.get('pathname', '')}"
        version = server.get("protocolVersion")
        return tag(
            "article",
            tag("h3", name, " ", tag("code", address)),
            tag("p", protocol, f" {version}" if version else "", class_="note"),
            _text(server.get("description")),
            _tags(server),
            class_="card",
            id=_anchor("server", name),
        )

    def _operation_card(self, operation: _Operation) -> Html:
        details, channel = operation.details, operation.channel
        facts: list[object] = []
        if servers := [self._server_name(server) for server in _list(channel.get("servers"))]:
            facts.append(f"Servers: {', '.join(servers)}")
        facts += (*_bindings(channel), *_bindings(details))
        names = [self._message(node).name for node in operation.messages]
        links = [
            _anchor_link("message", name) if self.view.options["messages"] else tag("code", name)
            for name in names
        ]
        return tag(
            "article",
            tag("h3", _badge(operation), operation.address),
            _text(details.get("summary")),
            _text(details.get("description")),
            _text(channel.get("description")),
            *(tag("p", fact, class_="note") for fact in facts),
            *(tag("p", "Message: ", link, class_="note") for link in links),
            _tags(details),
            class_="card",
            id=_anchor("operation", operation.name),
        )

    def _server_name(self, server: object) -> str:
        return resolve(self.document, server)[0] or str(server)

    def _message_card(self, message: _Message) -> Html:
        content = message.content
        title = content.get("title") or message.name
        payload = _payload(content)
        examples = [example for example in _list(content.get("examples")) if example]
        examples += _list(mapping(resolve(self.document, payload)[1]).get("examples"))
        return tag(
            "article",
            tag("h3", title),
            tag("p", content["contentType"], class_="note") if "contentType" in content else None,
            _text(content.get("summary")),
            _text(content.get("description")),
            *(self._schema_part("Headers", content["headers"]) if "headers" in content else ()),
            *(self._schema_part("Payload", payload) if payload is not None else ()),
            *map(self._example, examples),
            _tags(content),
            class_="card",
            id=_anchor("message", message.name),
        )

    def _schema_part(self, title: str, schema: object) -> tuple[Html, ...]:
        _, target = resolve(self.document, schema)
        return (tag("h4", title, " ", self._type(schema)), self._fields(target))

    def _example(self, example: object) -> Html:
        # XX write an attribute without a value.
        opening = Html("<details open>" if self.view.options["expand_message_examples"] else "<details>")
        body = join(tag("summary", "Example"), tag("pre", tag("code", _pretty(example))))
        return join(opening, body, Html("</details>"))

    def _schema_card(self, item: tuple[str, Any]) -> Html:
        name, schema = item
        return tag(
            "article",
            tag("h3", name, " ", tag("span", self._type(schema), class_="type")),
            _text(mapping(schema).get("description")),
            self._fields(schema),
            tag("details", tag("summary", "JSON Schema"), tag("pre", tag("code", _pretty(schema)))),
            class_="card",
            id=_anchor("schema", name),
        )

    def _fields(self, schema: object) -> Html:
        """Return the properties of a schema, nested objects included, without following references."""
        details = mapping(schema)
        if "items" in details:
            return self._fields(details["items"])
        required = _list(details.get("required"))
        fields = [
            tag(
                "li",
                tag("code", name),
                " ",
                tag("span", self._type(field), class_="type"),
                tag("span", " required", class_="required") if name in required else None,
                _constraints(mapping(field)),
                _text(mapping(field).get("description")),
                self._fields(field),
            )
            for name, field in mapping(details.get("properties")).items()
        ]
        return tag("ul", *fields, class_="fields") if fields else Html()

    def _type(self, schema: object) -> Html:
        """Return a short description of the schema's type."""
        details = mapping(schema)
        if isinstance(reference := details.get("$ref"), str):
            return self._schema_name(pointer_names(reference)[-1])
        for key, separator in (("oneOf", " | "), ("anyOf", " | "), ("allOf", " & ")):
            if choices := _list(details.get(key)):
                return Html(join(separator).join(map(self._type, choices)))
        if values := [details["const"]] if "const" in details else _list(details.get("enum")):
            return join(" | ".join(map(_compact, values)))
        kind = details.get("type", "any")
        if kind == "array":
            return join("array of ", self._type(details.get("items")))
        if kind == "object" and mapping(details.get("additionalProperties")):
            return join("object of ", self._type(details["additionalProperties"]))
        name = " | ".join(kind) if isinstance(kind, list) else kind
        return join(name, f" ({details['format']})" if "format" in details else None)

    def _schema_name(self, name: str) -> Html:
        return (
            _anchor_link("schema", name)
            if self.view.options["schemas"] and name in self.schemas
            else join(name)
        )


def _badge(operation: _Operation) -> Html:
    if http := mapping(mapping(operation.details.get("bindings")).get("http")):
        return tag("span", "HTTP ", http.get("method"), class_="badge http")
    return tag("span", operation.action, "s", class_=f"badge {operation.action}")


def _section(title: str, cards: list[Html]) -> Html | None:
    return join(tag("h2", title), *cards) if cards else None


def _contents(title: str, links: list[Html]) -> Html | None:
    if not links:
        return None
    return join(tag("p", title), tag("ul", *(tag("li", link) for link in links)))


def _external_docs(parent: dict[str, Any]) -> list[object]:
    external = mapping(parent.get("externalDocs"))
    if not external:
        return []
    url = str(external.get("url", ""))
    return [safe_link(url, external.get("description") or url)]


def _tags(parent: dict[str, Any]) -> Html | None:
    names = [mapping(item).get("name", "") for item in _list(parent.get("tags"))]
    return tag("p", *(tag("span", name, class_="tag") for name in names)) if names else None


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


def _constraints(schema: dict[str, Any]) -> Html | None:
    constraints = [f" · {name} {_compact(schema[name])}" for name in _CONSTRAINTS if name in schema]
    return tag("span", *constraints, class_="type") if constraints else None
