"""The server-rendered page of an AsyncAPI document, version 2 or 3.

Everything is shown once, so that the page of a large service stays small: a message with the operation that
uses it, or among the messages if several do; a model with the message whose payload it is, or among the
schemas.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from faststream_adapters._asgi.markup import Html, join, safe_link, tag

from .document import mapping
from .markdown import description
from .outline import Message, Model, Operation, Outline, sequence
from .schema_markup import SchemaMarkup, compact, examples_of, pretty
from .view import View

__all__ = ("Sections",)

_SECURITY = {
    "userPassword": "user name and password",
    "apiKey": "API key",
    "X509": "X.509 certificate",
    "symmetricEncryption": "symmetric encryption",
    "asymmetricEncryption": "asymmetric encryption",
    "httpApiKey": "API key",
    "http": "HTTP authentication",
    "oauth2": "OAuth 2",
    "openIdConnect": "OpenID Connect",
    "plain": "SASL PLAIN",
    "scramSha256": "SASL SCRAM-SHA-256",
    "scramSha512": "SASL SCRAM-SHA-512",
    "gssapi": "SASL GSSAPI",
}
"""The types of security schemes in words."""

_Facts = Iterator[tuple[str, object]]


class Sections:
    """The parts of the page.

    Args:
        document: The AsyncAPI document.
        view: The page's options.
        titles: The titles that authors have chosen, by the keys of their channels.
    """

    def __init__(self, document: dict[str, Any], view: View, titles: Mapping[str, str]) -> None:
        self._document = document
        self._shown = view.options
        self._outline = outline = Outline(document, titles)
        self._servers = mapping(document.get("servers"))
        self._anchors = _Anchors()
        self._schema = SchemaMarkup(outline, self._model_link)
        # The messages that are shown with their operation, and the models that are shown with their message.
        self._embedded = {
            message
            for message in outline.messages
            if self._shown["operations"] and self._shown["messages"] and len(message.operations) == 1
        }
        self._homes = self._find_homes()

    def main(self) -> Html:
        """Return the sections that the view includes."""
        shown = self._shown
        messages = [each for each in self._outline.messages if each not in self._embedded]
        models = [each for each in self._outline.models.values() if each.key not in self._homes]
        return join(
            self._info(),
            _section("Servers", map(self._server, self._servers.items()) if shown["servers"] else ()),
            _section(
                "Operations", map(self._operation, self._outline.operations) if shown["operations"] else ()
            ),
            _section("Messages", map(self._message, messages) if shown["messages"] else ()),
            _section("Schemas", map(self._model, models) if shown["schemas"] else ()),
        )

    def contents(self) -> Html | None:
        """Return the table of contents."""
        shown, outline = self._shown, self._outline
        operations = [self._anchor_link("operation", each, each.heading) for each in outline.operations]
        messages = [self._anchor_link("message", each, each.name) for each in outline.messages]
        models = [
            self._model_link(each.key) for each in outline.models.values() if not outline.is_made(each.key)
        ]
        return join(
            _links("Operations", operations if shown["operations"] else []),
            # The others have the same place as their operation.
            _links("Messages", messages if shown["messages"] and not shown["operations"] else []),
            _links("Schemas", models if shown["schemas"] else []),
        )

    # --- where things are ---

    def _find_homes(self) -> dict[str, Message]:
        """Return the messages with which models are shown, by the keys of the models."""
        homes: dict[str, list[Message]] = {}
        for message in self._outline.messages if self._shown["messages"] else ():
            if (key := self._outline.model_key(message.payload)) in self._outline.models:
                homes.setdefault(str(key), []).append(message)
        # Without a section for those that several messages share, the first message shows the model.
        shared = self._shown["schemas"]
        return {key: found[0] for key, found in homes.items() if len(found) == 1 or not shared}

    def _anchor_link(self, kind: str, item: object, text: object) -> Html:
        return tag("a", text, href=f"#{quote(self._anchors.of(kind, item, str(text)))}")

    def _model_link(self, key: str) -> Html:
        """Return the name of a model, linked to where it is shown."""
        model = self._outline.models.get(key)
        name = self._outline.model_name(key)
        if model is None or not (key in self._homes or self._shown["schemas"]):
            return join(name)
        return self._anchor_link("schema", key, name)

    def _message_link(self, message: Message) -> Html:
        if not self._shown["messages"]:
            return tag("strong", message.name)
        return self._anchor_link("message", message, message.name)

    # --- info and servers ---

    def _info(self) -> Html:
        info = mapping(self._document.get("info"))
        title = tag("h1", info.get("title", ""), " ", tag("span", info.get("version", ""), class_="version"))
        if not self._shown["info"]:
            # Screen readers need a heading for the page.
            return tag("h1", info.get("title", ""), class_="unseen")
        facts = _facts(self._info_facts(info))
        return join(title, tag("section", description(info.get("description")), facts))

    def _info_facts(self, info: dict[str, Any]) -> _Facts:
        yield "Specification", f"AsyncAPI {self._document.get('asyncapi', '')}"
        if content_type := self._document.get("defaultContentType"):
            yield "Content type", content_type
        if contact := mapping(info.get("contact")):
            email = str(contact.get("email", ""))
            url = str(contact.get("url") or (email and f"mailto:{email}"))
            yield "Contact", safe_link(url, contact.get("name") or email or url)
        if license_ := mapping(info.get("license")):
            yield "License", safe_link(str(license_.get("url", "")), license_.get("name"))
        if terms := info.get("termsOfService"):
            yield "Terms of service", safe_link(str(terms), terms)
        for parent in (info, self._document):
            yield from _common_facts(parent)

    def _server(self, item: tuple[str, Any]) -> Html:
        name, server = item[0], mapping(item[1])
        protocol = server.get("protocol", "")
        address = server.get("url") or f"{protocol}://{server.get('host', '')}{server.get('pathname', '')}"
        return _card(
            self._anchors.of("server", name, name),
            tag("h3", server.get("title") or name, " ", tag("code", address)),
            _text(server.get("summary")),
            description(server.get("description")),
            _facts(self._server_facts(server)),
        )

    def _server_facts(self, server: dict[str, Any]) -> _Facts:
        version = server.get("protocolVersion")
        # FastStream writes these where the version of the protocol is not known.
        known = version if version not in {None, "custom", "auto"} else None
        yield "Protocol", f"{server.get('protocol', '')} {known or ''}".strip()
        yield from self._security(server)
        for name, variable in mapping(server.get("variables")).items():
            yield f"Variable {name}", self._parameter(variable)
        yield from _bindings(server)
        yield from _common_facts(server)

    def _security(self, parent: dict[str, Any]) -> _Facts:
        schemes = mapping(self._outline.components.get("securitySchemes"))
        for requirement in sequence(parent.get("security")):
            scheme = mapping(self._outline.target(requirement))
            if "type" in scheme:
                yield "Security", _scheme(scheme, sequence(scheme.get("scopes")))
                continue
            # AsyncAPI 2 names the scheme.
            for name, scopes in scheme.items():
                yield "Security", _scheme({"type": name, **mapping(schemes.get(name))}, sequence(scopes))

    def _parameter(self, node: object) -> Html:
        """Return a variable of a server or a parameter of a channel, which are texts."""
        parameter = mapping(self._outline.target(node))
        schema = {"type": "string", **mapping(parameter.get("schema"))}
        schema |= {key: parameter[key] for key in ("enum", "default") if key in parameter}
        return join(self._schema.facts(schema), description(parameter.get("description")))

    # --- operations and messages ---

    def _operation(self, operation: Operation) -> Html:
        details, channel = operation.details, operation.channel
        texts = [details.get("description"), channel.get("description")]
        return _card(
            self._anchors.of("operation", operation, operation.heading),
            tag("h3", _badge(operation), operation.heading, _deprecated(details)),
            _text(details.get("summary")),
            *map(description, dict.fromkeys(text for text in texts if isinstance(text, str))),
            _facts(self._operation_facts(operation)),
            *(self._used_message(message, "Message") for message in operation.messages),
            *(self._used_message(message, "Reply") for message in operation.replies),
        )

    def _operation_facts(self, operation: Operation) -> _Facts:
        details, channel = operation.details, operation.channel
        if operation.heading != operation.address:
            yield "Address", tag("code", operation.address)
        servers = [self._server_link(server) for server in sequence(channel.get("servers"))]
        # A single server is at the top of the page already.
        if servers and len(self._servers) > 1:
            yield ("Server" if len(servers) == 1 else "Servers"), Html(", ".join(servers))
        for name, parameter in mapping(channel.get("parameters")).items():
            yield f"Parameter {name}", self._parameter(parameter)
        yield from self._security(details)
        yield from _bindings(channel)
        yield from _bindings(details)
        yield from _common_facts(channel)
        yield from _common_facts(details)

    def _server_link(self, server: object) -> Html:
        name = self._outline.key_of(server) or str(server)
        linked = self._shown["servers"] and name in self._servers
        return self._anchor_link("server", name, name) if linked else join(name)

    def _used_message(self, message: Message, label: str) -> Html:
        """Return a message of an operation, or the link to it."""
        if message not in self._embedded:
            return tag("p", label, " ", self._message_link(message))
        anchor = self._anchors.of("message", message, message.name)
        return tag(
            "div", tag("h4", f"{label} ", message.name), self._message_body(message), class_="part", id=anchor
        )

    def _message(self, message: Message) -> Html:
        users = [self._anchor_link("operation", each, each.heading) for each in message.operations]
        return _card(
            self._anchors.of("message", message, message.name),
            tag("h3", message.name, _deprecated(message.content)),
            tag("p", "Used by ", Html(", ".join(users)), class_="note")
            if users and self._shown["operations"]
            else None,
            self._message_body(message),
        )

    def _message_body(self, message: Message) -> Html:
        content, payload = message.content, message.payload
        return join(
            _text(content.get("summary")),
            description(content.get("description")),
            _facts(self._message_facts(content)),
            self._headers(content["headers"]) if "headers" in content else None,
            self._payload(message) if payload is not None else None,
            *self._examples(content, payload),
        )

    def _message_facts(self, content: dict[str, Any]) -> _Facts:
        if "contentType" in content:
            yield "Content type", content["contentType"]
        if correlation_id := mapping(self._outline.target(content.get("correlationId"))):
            location = str(correlation_id.get("location", "")).removeprefix("$message.").replace("#/", " ")
            yield "Correlation id", join(location, description(correlation_id.get("description")))
        yield from _bindings(content)
        yield from _common_facts(content)

    def _headers(self, headers: object) -> Html:
        target = self._outline.target(headers)
        return self._part("Headers", self._model_facts(target), target)

    def _payload(self, message: Message) -> Html:
        key = self._outline.model_key(message.payload)
        if key is None or self._homes.get(key) is not message:
            return self._part("Payload", self._schema.facts(message.payload), message.payload)
        model = self._outline.models[key]
        # The message has the name of its model already, unless its author has chosen another one.
        named = model.name != message.name and not self._outline.is_made(key)
        facts = join(tag("strong", model.name) if named else None, " ", self._model_facts(model.schema))
        return self._part("Payload", facts, model.schema, self._anchors.of("schema", key, model.name))

    def _part(self, label: str, facts: Html, schema: object, anchor: str | None = None) -> Html:
        """Return the payload or the headers of a message."""
        return join(tag("p", label, " ", facts, class_="label", id=anchor), self._schema.body(schema))

    def _examples(self, content: dict[str, Any], payload: object) -> Iterator[Html]:
        found = [each for each in map(mapping, sequence(content.get("examples"))) if each]
        found += [{"payload": each} for each in examples_of(mapping(self._outline.target(payload)))]
        for each in found:
            title = " ".join(str(each[key]) for key in ("name", "summary") if key in each)
            values = [(part, each[part]) for part in ("headers", "payload") if part in each]
            # One part needs no name.
            shown = pretty(values[0][1] if len(values) == 1 else dict(values))
            yield tag(
                "details",
                tag("summary", "Example ", title),
                tag("pre", tag("code", shown)),
                open_=self._shown["expand_message_examples"],
            )

    def _model(self, model: Model) -> Html:
        facts = self._model_facts(model.schema)
        return _card(
            self._anchors.of("schema", model.key, model.name),
            tag("h3", model.name, _deprecated(mapping(model.schema))),
            tag("p", facts, class_="note") if facts else None,
            self._schema.body(model.schema),
            *self._examples({}, model.schema),
        )

    def _model_facts(self, schema: object) -> Html:
        # The type of an object is its fields.
        details = mapping(schema)
        return self._schema.rules(details) if "properties" in details else self._schema.facts(schema)


class _Anchors:
    """The ids of the elements to which links lead, unique in the page."""

    def __init__(self) -> None:
        self._by_item: dict[tuple[str, object], str] = {}
        self._taken: set[str] = set()

    def of(self, kind: str, item: object, name: str) -> str:
        """Return the id of an item: its kind and its name, with a number if another item has the same one."""
        if (kind, item) not in self._by_item:
            anchor = base = f"{kind}-{'-'.join(name.split())}"
            number = 1
            while anchor in self._taken:
                number += 1
                anchor = f"{base}-{number}"
            self._taken.add(anchor)
            self._by_item[kind, item] = anchor
        return self._by_item[kind, item]


def _card(anchor: str, *content: object) -> Html:
    return tag("article", *content, class_="card", id=anchor)


def _section(title: str, cards: Iterator[Html] | tuple[()]) -> Html | None:
    found = [*cards]
    return tag("section", tag("h2", title), *found) if found else None


def _links(title: str, links: list[Html]) -> Html | None:
    if not links:
        return None
    return join(tag("p", title), tag("ul", *(tag("li", link) for link in links)))


def _text(value: object) -> Html | None:
    return tag("p", value, class_="text") if value else None


def _facts(facts: _Facts) -> Html | None:
    rows = [join(tag("dt", name), tag("dd", value)) for name, value in facts]
    return tag("dl", *rows) if rows else None


def _common_facts(parent: dict[str, Any]) -> _Facts:
    if external := mapping(parent.get("externalDocs")):
        url = str(external.get("url", ""))
        yield "Documentation", safe_link(url, external.get("description") or url)
    if tags := [mapping(each) for each in sequence(parent.get("tags"))]:
        shown = [
            join(tag("span", each.get("name", ""), class_="tag"), each.get("description")) for each in tags
        ]
        yield "Tags", Html(" ".join(shown))


def _badge(operation: Operation) -> Html:
    if http := mapping(mapping(operation.details.get("bindings")).get("http")):
        return tag("span", "HTTP ", http.get("method"), class_="badge http")
    return tag("span", operation.action, "s", class_=f"badge {operation.action}")


def _deprecated(parent: dict[str, Any]) -> Html | None:
    return tag("i", "deprecated") if parent.get("deprecated") is True else None


def _scheme(scheme: dict[str, Any], scopes: list[Any]) -> Html:
    kind = str(scheme["type"])
    details = [str(scheme[key]) for key in ("scheme", "bearerFormat", "name", "in") if key in scheme]
    links = [str(scheme["openIdConnectUrl"])] if "openIdConnectUrl" in scheme else []
    for flow, each in mapping(scheme.get("flows")).items():
        details.append(flow)
        links += [str(each[key]) for key in ("authorizationUrl", "tokenUrl") if key in mapping(each)]
    details += map(str, scopes)
    return join(
        _SECURITY.get(kind, kind),
        f" ({', '.join(details)})" if details else None,
        *(join(" ", safe_link(url, url)) for url in links),
        description(scheme.get("description")),
    )


def _bindings(parent: dict[str, Any]) -> _Facts:
    for protocol, binding in mapping(parent.get("bindings")).items():
        if facts := _in_words(binding):
            yield protocol, facts


def _in_words(binding: object) -> str:
    """Return the details of a binding as text."""
    facts = []
    for key, value in mapping(binding).items():
        if key == "bindingVersion":
            continue
        if isinstance(value, dict):
            shown = f"({_in_words(value)})"
        elif isinstance(value, bool):
            shown = "yes" if value else "no"
        else:
            shown = value if isinstance(value, str) else compact(value)
        facts.append(f"{key} {shown}")
    return ", ".join(facts)
