"""What the server-rendered page shows of a document."""

from __future__ import annotations

import json
import sys
from datetime import date
from decimal import Decimal
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

import pytest
from faststream.nats import NatsBroker
from faststream.security import SASLPlaintext
from faststream.specification import AsyncAPI, Tag
from pydantic import BaseModel, Field, create_model

from faststream_adapters._asgi.markup import join
from faststream_adapters._asyncapi import markdown
from faststream_adapters._asyncapi.document import document_of
from faststream_adapters._asyncapi.sections import Sections
from faststream_adapters._asyncapi.view import View
from tests.harness.pages import Page

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VERSIONS = ("3.0.0", "2.6.0")
HOSTILE = (
    "</script></details></table><script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u2028& "
    "[x](javascript:alert(3)) [y](  JaVaScRiPt:alert(4)) <javascript:alert(5)> ![z](data:text/html,a) "
    "[d](data:image/png;base64,a) &#106;avascript:alert(6) [e](&#106;avascript:alert(7)) `</code>`\n\n"
    "# <b>h</b>\n\n|a</td>|\n|:-:|\n|<svg onload=alert(8)>|"
)


def shown(document: dict[str, Any], titles: Mapping[str, str] | None = None, **keywords: Any) -> Page:
    """Return the sections and the table of contents as a page."""
    sections = Sections(document, View(**keywords), titles or {})
    return Page(join(sections.contents(), sections.main()))


def schemas(**schemas: Any) -> Page:
    return shown({"components": {"schemas": schemas}})


def type_of(schema: Any) -> str:
    """Return what the page shows of a field with this schema."""
    page = schemas(Model={"type": "object", "properties": {"f": schema}})
    return page.words.rpartition("Model f ")[2]


# --- types ---


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "integer"}, "integer"),
        ({}, "any"),
        (True, "any"),
        (False, "nothing"),
        ({"type": "string", "format": "date-time"}, "string (date-time)"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}, "string or null"),
        ({"oneOf": [{"type": "string"}, {"type": "null"}], "default": "a"}, 'string or null · default "a"'),
        ({"type": ["string", "null"]}, "string or null"),
        ({"type": ["string", "integer", "null"]}, "string or integer or null"),
        ({"type": "null", "default": None}, "null · default null"),
        ({"anyOf": [{"type": "null"}]}, "null"),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "integer or string"),
        (
            {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "maxLength": 5}]},
            "integer (≥ 1) or string (at most 5 characters)",
        ),
        (
            {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}]},
            "array of integer or null",
        ),
        (
            {"type": "array", "items": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
            "array of (integer or null)",
        ),
        ({"type": "array"}, "array of any"),
        (
            {"type": "array", "items": {"type": "string", "maxLength": 3, "description": "Short"}},
            "array of string (at most 3 characters) Short",
        ),
        (
            {"type": "object", "additionalProperties": {"type": "integer", "minimum": 1}},
            "object of integer (≥ 1)",
        ),
        (
            {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "minItems": 1, "maxItems": 3},
            "array of string · unique · 1 to 3 items",
        ),
        (
            {
                "type": "array",
                "prefixItems": [{"type": "number"}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
            },
            "tuple [number, string]",
        ),
        (
            {"type": "array", "prefixItems": [{"type": "number"}], "items": {"type": "string"}},
            "tuple [number, then string]",
        ),
        (
            {"type": "array", "items": [{"type": "number"}], "additionalItems": {"type": "string"}},
            "tuple [number, then string]",
        ),
        ({"type": "object"}, "object"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "object of integer"),
        ({"type": "object", "additionalProperties": True}, "object"),
        ({"type": "object", "additionalProperties": False}, "object · no other fields"),
        ({"enum": ["a", 1, None]}, '"a" | 1 | null'),
        ({"const": "a", "default": "a"}, '"a" · default "a"'),
        ({"allOf": [{"type": "a"}, {"type": "b"}]}, "a and b"),
        ({"$ref": "#/components/schemas/Gone"}, "Gone"),
        ({"$ref": "#/elsewhere/a~1b"}, "a/b"),
        # Pydantic's Decimal, without and with a pattern for its text.
        ({"anyOf": [{"type": "number", "minimum": 0.5}, {"type": "string"}]}, "number or string · ≥ 0.5"),
        (
            {"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}]},
            "decimal number",
        ),
        (
            {"anyOf": [{"type": "number"}, {"type": "string"}, {"type": "null"}], "default": None},
            "number or string or null",
        ),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 9.5}, "number · > 0 · < 9.5"),
        (
            {"type": "number", "minimum": 0, "maximum": 9, "multipleOf": 0.5},
            "number · ≥ 0 · ≤ 9 · multiple of 0.5",
        ),
        ({"type": "string", "minLength": 1}, "string · at least 1 character"),
        ({"type": "string", "minLength": 2, "maxLength": 2}, "string · exactly 2 characters"),
        ({"type": "object", "maxProperties": 2}, "object · at most 2 fields"),
        ({"type": "string", "pattern": r"^\d{3}<[a-z]+\\$"}, r"string · matches ^\d{3}<[a-z]+\\$"),
        ({"type": "string", "writeOnly": True, "readOnly": False}, "string · write-only"),
        ({"not": {"type": "string"}, "x-own": [1]}, 'any · not {"type": "string"} · x-own [1]'),
        (
            {"oneOf": [{"type": "a"}, {"type": "b"}], "discriminator": {"propertyName": "kind"}},
            "a or b · chosen by kind",
        ),
        ({"type": "string", "examples": ["a"], "example": 2}, 'string Example: "a" Example: 2'),
        ({"type": "string", "title": "F"}, "string"),
        ({"type": "string", "title": "Another"}, "string Another"),
    ],
    ids=str,
)
def test_types_and_rules_are_written_in_words(schema: Any, text: str) -> None:
    assert type_of(schema) == text


def test_fields_are_required_or_deprecated() -> None:
    page = schemas(
        M={
            "type": "object",
            "required": ["a"],
            "properties": {"a": {"type": "string"}, "b": {"type": "string", "deprecated": True}},
            "deprecated": True,
        }
    )
    assert "Mdeprecated" in page.text
    assert "arequiredstring" in page.text
    assert "bdeprecatedstring" in page.text


def test_objects_without_a_name_are_collapsed_and_models_are_linked() -> None:
    inner = {"type": "object", "properties": {"deep": {"type": "string", "description": "Far **down**"}}}
    page = schemas(
        Outer={
            "properties": {
                "object": inner,
                "array": {"type": "array", "items": inner},
                "tuple": {"type": "array", "prefixItems": [inner, {"type": "string"}]},
                "map": {"type": "object", "additionalProperties": inner},
                "nullable": {"anyOf": [inner, {"type": "null"}]},
                "choice": {"anyOf": [{**inner, "title": "First"}, {"type": "integer"}]},
                "model": {"anyOf": [{"$ref": "#/components/schemas/Inner"}, {"type": "null"}]},
            },
        },
        Inner={"properties": {"a": {"type": "string"}}},
    )
    assert page.words.count("deepstring Far down") + page.words.count("deep string Far down") == 6
    assert len(page.attributes("details")) == 7  # a choice is inside of the fields
    assert "open" not in "".join(map(str, page.attributes("details")))
    assert page.text.count("Inner") == 3  # contents, type, section
    assert "#schema-Inner" in page.urls()
    assert "First" in page.text


def test_a_generic_model_has_the_name_of_its_class() -> None:
    page = schemas(
        Page_Order_={"title": "Page[Order]", "type": "object"},
        Other={"title": "Another", "properties": {"page": {"$ref": "#/components/schemas/Page_Order_"}}},
    )
    assert page.text.count("Page[Order]") == 3
    assert "Page_Order_" not in page.text
    assert "Another" not in page.text


def test_models_that_contain_themselves_are_linked() -> None:
    page = schemas(
        Tree={"properties": {"children": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}}},
        Loop={"$ref": "#/components/schemas/Loop"},
    )
    assert page.urls().count("#schema-Tree") == 2


# --- operations, messages and models ---


class Currency(Enum):
    EUR = "EUR"
    USD = "USD"


class Line(BaseModel):
    """A line of an order."""

    sku: str = Field(pattern=r"^\w{3}-\d+$", description="Which *article*")
    price: Decimal
    currency: Currency = Currency.EUR


class Order(BaseModel):
    model_config = {"json_schema_extra": {"examples": [{"id": 7}]}}

    id: int
    lines: list[Line]
    due: date | None = None
    position: tuple[float, float] = (0, 0)
    old: int | None = Field(None, deprecated=True)


class Receipt(BaseModel):
    order_id: int


def shop(version: str) -> AsyncAPI:
    broker = NatsBroker(
        "nats://localhost:4222",
        security=SASLPlaintext("a", "b"),
        description="The *shop*",
        tags=[Tag(name="eu")],
    )

    @broker.subscriber("orders.created", queue="workers", description="New orders.\n\n- once")
    @broker.publisher("orders.paid", title="Paid orders")
    async def take(order: Order) -> Receipt:
        raise NotImplementedError

    @broker.subscriber("orders.cancelled")
    async def cancel(order_id: int, reason: Literal["late", "wrong"] = "late") -> None:
        raise NotImplementedError

    @broker.subscriber("orders.archived")
    async def archive(orders: list[Order]) -> None:
        raise NotImplementedError

    return AsyncAPI(
        broker,
        title="Shop",
        schema_version=version,
        description="Sells **things**",
        tags=[Tag(name="shop", description="All of it")],
        external_docs={"url": "https://wiki.example"},
    )


def shop_page(version: str, **keywords: Any) -> Page:
    return shown(document_of(shop(version)), {"Paid orders": "Paid orders"}, **keywords)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_page_of_a_service(version: str) -> None:
    page = shop_page(version)
    for text in (
        "Shop 0.1.0",
        "Sells things",
        f"Specification AsyncAPI {version}",
        "Content type application/json",
        "development nats://localhost:4222",
        "The shop",
        "Protocol nats",
        "Security user name and password",
        "Tags eu",
        "sends Paid orders",
        "Address orders.paid",
        "Message Receipt",
        "receives orders.created",
        "New orders. once",
        "nats subject orders.created, queue workers",
        "Message Order",
        "Correlation id header correlation_id",
        "id required integer",
        "lines required array of Line",
        "due string (date) or null",
        "position tuple [number, number] · default [0, 0]",
        "old deprecated integer or null",
        'Example { "id": 7 }',
        "receives orders.cancelled",
        "order_id required integer",
        'reason "late" | "wrong" · default "late"',
        "Message array of Order",
        "Payload array of Order",
        "Line A line of an order.",
        r"sku required string · matches ^\w{3}-\d+$ Which article",
        "price required number or string",
        'currency Currency · default "EUR"',
        'Currency "EUR" | "USD"',
    ):
        assert text in page.words, text
    assert "custom" not in page.text


def test_both_versions_read_alike() -> None:
    pages = [shop_page(version) for version in VERSIONS]
    texts = [page.words.replace("2.6.0", "3.0.0").replace("Tags shop All of it", "") for page in pages]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_is_shown_once_and_every_link_leads_to_it(version: str) -> None:
    page = shop_page(version)
    ids = page.ids()
    assert len(ids) == len({*ids})
    assert {unquote(url[1:]) for url in page.urls() if url.startswith("#")} <= {*ids}
    assert {"schema-Order", "schema-Line", "schema-Currency", "schema-Receipt"} <= {*ids}
    # The fields of a model have one place.
    assert page.names.count("table") == 4
    assert page.words.count(" id required integer") == 1


HIDEABLE = ("info", "servers", "operations", "messages", "schemas")


@pytest.mark.parametrize("hidden", HIDEABLE)
def test_without_a_part_links_lead_to_what_is_shown(hidden: str) -> None:
    page = shop_page("3.0.0", **{hidden: False})
    assert {unquote(url[1:]) for url in page.urls() if url.startswith("#")} <= {*page.ids()}
    assert page.names.count("h1") == 1


def test_messages_have_a_section_without_operations() -> None:
    page = shop_page("3.0.0", operations=False)
    assert "Messages" in page.text
    assert "#message-Order" in page.urls()
    assert "Used by" not in page.text


def test_models_are_shown_with_the_schemas_without_messages() -> None:
    page = shop_page("3.0.0", messages=False)
    assert "Message Order" in page.words
    assert "message-Order" not in page.ids()
    assert "schema-Order" in page.ids()


@pytest.mark.parametrize("with_schemas", [True, False])
def test_a_message_of_several_operations_is_shown_once(with_schemas: bool) -> None:
    broker = NatsBroker()
    for number in range(3):

        @broker.subscriber(f"orders.{number}")
        async def handle(order: Order) -> None:
            raise NotImplementedError

    page = shown(document_of(AsyncAPI(broker)), schemas=with_schemas)
    assert page.words.count("position") == 1
    assert page.words.count("Message Order") == 3
    assert "Used by orders.0 , orders.1 , orders.2" in page.words
    assert "Example" in page.text


def test_a_payload_that_only_refers_to_a_model_is_the_model() -> None:
    page = shown(
        {
            "components": {
                "messages": {
                    "a": {"payload": {"$ref": "#/components/schemas/Alias"}},
                    "b": {"payload": {"$ref": "#/components/schemas/Loop"}},
                },
                "schemas": {
                    "Alias": {"$ref": "#/components/schemas/Order", "properties": {}},
                    "Loop": {"$ref": "#/components/schemas/Loop"},
                    "Order": {"properties": {"id": {"type": "integer"}}},
                },
            }
        }
    )
    assert "Order Payload id integer" in page.words
    assert "Alias" not in page.text
    assert "Loop Payload Loop" in page.words


def test_messages_of_one_name_have_anchors_of_their_own() -> None:
    page = shown(
        {
            "components": {
                "messages": {
                    "a": {"title": "Same", "payload": {"type": "string"}},
                    "b": {"title": "Same", "payload": {"type": "integer"}},
                }
            }
        }
    )
    assert [each for each in page.ids() if each.startswith("message-")] == ["message-Same", "message-Same-2"]


def test_headings_form_one_hierarchy() -> None:
    document = document_of(shop("3.0.0"))
    document["info"]["description"] = "# One\n\n### Three"
    levels = shown(document).headings()
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_what_faststream_does_not_write_in_asyncapi_3() -> None:
    page = shown(
        {
            "asyncapi": "3.0.0",
            "info": {"title": "T", "license": {"name": "MIT"}, "termsOfService": "https://terms.example"},
            "servers": {
                "main": {
                    "host": "{stage}.example",
                    "protocol": "kafka",
                    "protocolVersion": "3.5",
                    "title": "Main",
                    "summary": "In short",
                    "variables": {
                        "stage": {"enum": ["dev", "prod"], "default": "dev", "description": "Which *one*"}
                    },
                    "security": [
                        {"$ref": "#/components/securitySchemes/oauth"},
                        {"type": "httpApiKey", "name": "X-Key", "in": "header"},
                        {"type": "openIdConnect", "openIdConnectUrl": "https://id.example"},
                        {"type": "own", "scopes": ["a"]},
                    ],
                    "bindings": {
                        "kafka": {"schemaRegistryUrl": "https://registry.example", "bindingVersion": "1"}
                    },
                },
            },
            "channels": {
                "orders": {
                    "address": "orders.{region}",
                    "parameters": {"region": {"enum": ["eu", "us"], "description": "Where"}},
                    "servers": [{"$ref": "#/servers/main"}],
                    "messages": {"order": {"name": "order", "payload": {"type": "string"}}},
                    "tags": [{"name": "tagged"}],
                },
                "replies": {"messages": {"done": {"title": "Done", "payload": {"type": "null"}}}},
            },
            "operations": {
                "take": {
                    "action": "receive",
                    "summary": "Takes one",
                    "deprecated": True,
                    "channel": {"$ref": "#/channels/orders"},
                    "reply": {
                        "channel": {"$ref": "#/channels/replies"},
                        "messages": [{"$ref": "#/channels/replies/messages/done"}],
                    },
                    "security": [{"type": "X509"}],
                    "externalDocs": {"url": "https://wiki.example", "description": "The wiki"},
                    "bindings": {
                        "amqp": {"ack": True, "cc": ["a"], "queue": {"name": "q", "durable": False}}
                    },
                }
            },
            "components": {
                "securitySchemes": {
                    "oauth": {
                        "type": "oauth2",
                        "description": "With *login*",
                        "flows": {"implicit": {"authorizationUrl": "https://login.example"}, "odd": []},
                    }
                },
                "messages": {
                    "m": {
                        "title": "M",
                        "summary": "Short",
                        "description": "Long",
                        "contentType": "application/xml",
                        "correlationId": {"location": "$message.payload#/id", "description": "Unique"},
                        "headers": {"type": "object", "properties": {"trace": {"type": "string"}}},
                        "payload": {"schemaFormat": "x", "schema": {"$ref": "#/components/schemas/Size"}},
                        "examples": [
                            {"name": "one", "summary": "The first", "payload": 1},
                            {"headers": {"trace": "a"}, "payload": 2},
                            {},
                            "odd",
                        ],
                        "deprecated": True,
                    }
                },
                "schemas": {"Size": {"type": "integer", "description": "How many", "example": 3}},
            },
        }
    )
    for text in (
        "License MIT",
        "Terms of service https://terms.example",
        "Main kafka://{stage}.example In short",
        "Protocol kafka 3.5",
        "Security OAuth 2 (implicit, odd) https://login.example With login",
        "Security API key (X-Key, header)",
        "Security OpenID Connect https://id.example",
        "Security own (a)",
        'Variable stage "dev" | "prod" · default "dev" Which one',
        "kafka schemaRegistryUrl https://registry.example Operations",
        "receives orders.{region} deprecated Takes one",
        'Parameter region "eu" | "us" Where',
        "Security X.509 certificate",
        'amqp ack yes, cc ["a"], queue (name q, durable no)',
        "Tags tagged",
        "Documentation The wiki",
        "Message order Payload string",
        "Reply Done Payload null",
        "M deprecated Short Long Content type application/xml Correlation id payload id Unique",
        "Headers trace string",
        "Payload Size integer How many",
        "Example one The first 1",
        'Example { "headers": { "trace": "a" }, "payload": 2 }',
        "Example 3",
    ):
        assert text in page.words, (text, page.words)


@pytest.mark.parametrize(
    ("contact", "text", "url"),
    [
        ({"email": "a@b.example"}, "Contact a@b.example", "mailto:a@b.example"),
        ({"url": "https://c.example"}, "Contact https://c.example", "https://c.example"),
        ({"url": "https://c.example", "name": "C"}, "Contact C", "https://c.example"),
    ],
)
def test_the_contact(contact: dict[str, str], text: str, url: str) -> None:
    page = shown({"info": {"title": "T", "contact": contact}})
    assert text in page.words
    assert url in page.urls()


def test_links_that_could_run_a_script_are_shown_as_text() -> None:
    page = shown(
        {
            "info": {
                "title": "T",
                "contact": {"name": "C", "url": "JavaScript:alert(1)"},
                "license": {"name": "L", "url": " javascript:alert(1)"},
                "termsOfService": "data:text/html,x",
                "externalDocs": {"url": "vbscript:x"},
            },
        },
    )
    assert "Contact C License L Terms of service data:text/html,x Documentation vbscript:x" in page.words
    assert page.urls() == []


def test_what_faststream_does_not_write_in_asyncapi_2() -> None:
    page = shown(
        {
            "asyncapi": "2.6.0",
            "servers": {
                "main": {
                    "url": "h",
                    "protocol": "kafka",
                    "security": [{"oauth": ["read"]}, {"gone": []}, "odd"],
                },
                "other": {"url": "o", "protocol": "kafka"},
            },
            "channels": {
                "orders/{id}": {
                    "servers": ["main", "gone"],
                    "parameters": {"id": {"schema": {"type": "string", "maxLength": 3}}},
                    "publish": {"message": {"oneOf": [{"name": "a"}, {"title": "b"}, {"payload": 1}]}},
                    "subscribe": {"operationId": "sent", "message": {"$ref": "#/components/messages/c"}},
                },
                "health": {"subscribe": {"bindings": {"http": {"method": "GET"}}}},
            },
            "components": {
                "messages": {
                    "c": {
                        "payload": {
                            "oneOf": [{"$ref": "#/components/schemas/A"}, {"$ref": "#/components/schemas/B"}]
                        }
                    }
                },
                "schemas": {"A": {"type": "string"}, "B": {"type": "integer"}},
                "securitySchemes": {"oauth": {"type": "oauth2"}},
            },
        }
    )
    for text in (
        "Security OAuth 2 (read)",
        "Security gone",
        "receives orders/{id}",
        "Servers main , gone",
        "Parameter id string · at most 3 characters",
        "Message a",
        "Message b",
        "Message message Payload any",
        "sends orders/{id}",
        "Message A or B Payload A or B",
        "HTTP GET health",
    ):
        assert text in page.words, (text, page.words)


# --- size ---


@pytest.mark.full
def test_the_page_of_150_subscribers_has_at_most_15000_elements() -> None:
    broker = NatsBroker()
    for number in range(150):
        inner = create_model(
            f"Inner{number}", a=(int, ...), b=(str, "b"), c=(float | None, Field(None, description="c"))
        )
        fields: dict[str, Any] = {
            f"field_{each}": (str | None, Field(None, description=f"The *field* {each}", max_length=9))
            for each in range(10)
        }
        model: Any = create_model(f"Model{number}", inner=(inner, ...), items=(list[inner], []), **fields)  # type: ignore[valid-type]

        @broker.subscriber(f"subject.{number}", queue="workers", description=f"Handles {number}.")
        async def handle(message: model) -> None:
            raise NotImplementedError

    page = shown(document_of(AsyncAPI(broker)))
    assert "Model149" in page.text
    assert len(page.elements) <= 15_000


# --- descriptions ---


def described(text: str) -> str:
    found = markdown.description(text)
    assert found is not None
    return found


def test_descriptions_are_markdown() -> None:
    assert described("One **two** `3`\nfour") == (
        '<div class="text">One <strong>two</strong> <code>3</code>\nfour</div>'
    )
    page = Page(
        described("a\n\n- b\n\n1. c\n\n> d\n\n|e|\n|-|\n|f|\n\n```\ng\n```\n\n~~h~~ [i](https://i.example)")
    )
    assert {"p", "ul", "ol", "blockquote", "table", "th", "td", "pre", "s"} <= {*page.names}
    assert page.attributes("a") == [{"href": "https://i.example", "rel": "noreferrer"}]


@pytest.mark.parametrize("text", [None, "", " \n", 5, ["a"]])
def test_nothing_is_no_description(text: object) -> None:
    assert markdown.description(text) is None


def test_headings_of_descriptions_are_no_headings_of_the_page() -> None:
    page = Page(described("# One\n\nTwo\n---\n"))
    assert page.headings() == []
    assert page.attributes("p") == [{"class": "heading"}] * 2


def test_a_picture_is_a_link() -> None:
    page = Page(described("![a](https://tracker.example/pixel.png)"))
    assert page.names == ["div", "a"]


def test_columns_are_aligned_by_no_inline_style() -> None:
    assert "style" not in described("|a|b|\n|:-|-:|\n|c|d|")


@pytest.fixture
def without_markdown(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make markdown-it-py appear not installed."""
    monkeypatch.setitem(sys.modules, "markdown_it", None)
    markdown.parser.cache_clear()
    yield
    markdown.parser.cache_clear()


def test_without_markdown_it_descriptions_are_shown_as_they_are(without_markdown: None) -> None:
    assert described("**a** <b>\n[c](javascript:d)") == (
        '<p class="text as-is">**a** &lt;b&gt;\n[c](javascript:d)</p>'
    )


# --- hostile texts ---


def hostile(node: Any) -> Any:
    """Return a copy whose texts are all hostile, except for those that determine what is shown."""
    if isinstance(node, list):
        return [hostile(each) for each in node]
    if not isinstance(node, dict):
        return HOSTILE if isinstance(node, str) else node
    kept = {"$ref", "action", "type"}
    names = {"properties", "schemas", "messages", "bindings", "parameters", "servers", "variables"}
    copy = {}
    for key, value in node.items():
        inner = value if key in kept else hostile(value)
        if key in names and isinstance(inner, dict):
            # The names of what the application has defined.
            inner |= {f"{HOSTILE}{number}": each for number, each in enumerate([*inner.values()])}
        copy[key] = inner
    return {**copy, HOSTILE: HOSTILE}


SAFE_ELEMENTS = {
    *(
        "a",
        "article",
        "b",
        "blockquote",
        "br",
        "code",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "em",
        "h1",
        "h2",
        "h3",
    ),
    *(
        "h4",
        "i",
        "li",
        "p",
        "pre",
        "section",
        "span",
        "strong",
        "summary",
        "table",
        "tbody",
        "td",
        "th",
        "thead",
    ),
    *("tr", "ul", "ol", "hr"),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("with_markdown", [True, False])
def test_hostile_texts_are_shown_and_not_interpreted(
    version: str, with_markdown: bool, request: pytest.FixtureRequest
) -> None:
    if not with_markdown:
        request.getfixturevalue("without_markdown")
    document = hostile(json.loads(json.dumps(document_of(shop(version)))))
    page = shown(document)
    assert {*page.names} <= SAFE_ELEMENTS
    assert page.text.count("<script>alert(1)</script>") > 30
    attributes = {name for _, found in page.elements for name in found}
    assert attributes <= {"class", "id", "href", "rel", "scope", "open"}
    assert [url for url in page.urls() if not url.startswith(("#", "https://"))] == []
