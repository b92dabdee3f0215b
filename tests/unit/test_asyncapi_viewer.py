"""What the viewer gets: a copy of the document that says what readers want to see."""

from __future__ import annotations

import json
from collections import deque
from datetime import datetime
from decimal import Decimal
from enum import Enum
from types import GenericAlias
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import pytest
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # ships no types
from pydantic import AnyUrl, BaseModel, ConfigDict, Field, RootModel, create_model

from faststream_adapters import AsyncAPIRoute, make_asyncapi_asgi, make_liveness_asgi
from faststream_adapters._asyncapi.document import document_of, titles_of, without_http_routes
from faststream_adapters._asyncapi.examples import ExampleError, example_of
from faststream_adapters._asyncapi.viewer_document import for_viewer
from faststream_adapters._compat.patterns import matching
from tests.harness.clients import client
from tests.unit.test_asyncapi_schema import problems

if TYPE_CHECKING:
    from collections.abc import Callable

VERSIONS = ("3.0.0", "2.6.0")
T = TypeVar("T")


class Kind(Enum):
    GIFT = "gift"
    NORMAL = "normal"


class Address(BaseModel):
    """Where to send it."""

    street: str


class Category(BaseModel):
    parent: Category | None = None
    children: list[Category] = []


class Envelope(BaseModel, Generic[T]):
    content: T


class Reference(RootModel[UUID]): ...


class Choice(RootModel[Address | Category]): ...


def documents(broker: NatsBroker, version: str = "3.0.0", **options: Any) -> dict[str, Any]:
    """Return the document of a broker as the viewer gets it."""
    specification = AsyncAPI(broker, schema_version=version)
    document = document_of(specification)
    untouched = json.dumps(document)
    shaped = for_viewer(document, titles_of(specification), **options)
    assert json.dumps(document) == untouched
    assert problems(shaped, version) == []
    return shaped


def field_of(annotation: Any, **options: Any) -> dict[str, Any]:
    """Return what the viewer gets for a field with this annotation."""
    model = create_model("Message", field=(annotation, ...))
    broker = NatsBroker()
    broker.publisher("messages", schema=model)
    shaped: dict[str, Any] = documents(broker, **options)["components"]["schemas"]["Message"]["properties"][
        "field"
    ]
    return {key: value for key, value in shaped.items() if key != "title"}


# --- fields ---


@pytest.mark.parametrize(
    ("annotation", "shown"),
    [
        pytest.param(str | None, {"type": ["string", "null"]}, id="optional"),
        pytest.param(
            Annotated[Decimal, Field(ge=0)], {"type": ["number", "string"], "minimum": 0.0}, id="decimal"
        ),
        pytest.param(datetime | None, {"type": ["string", "null"], "format": "date-time"}, id="format"),
        pytest.param(
            Literal["card", "cash"] | None,
            {"type": ["string", "null"], "enum": ["card", "cash", None]},
            id="optional enum",
        ),
        pytest.param(
            Literal["card"] | None, {"type": ["string", "null"], "enum": ["card", None]}, id="optional const"
        ),
        pytest.param(
            list[int] | None, {"type": ["array", "null"], "items": {"type": "integer"}}, id="optional list"
        ),
        pytest.param(
            Annotated[str | None, Field(default=None)], {"type": ["string", "null"]}, id="null as default"
        ),
        pytest.param(
            tuple[int, str],
            {
                "type": "array",
                "items": [{"type": "integer"}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
            },
            id="tuple",
        ),
        pytest.param(
            Literal["all"] | int,
            {
                "anyOf": [
                    {"type": "string", "const": "all", "title": '"all"'},
                    {"type": "integer", "title": "integer"},
                ]
            },
            id="value or type",
        ),
        pytest.param(
            UUID | AnyUrl,
            {
                "anyOf": [
                    {"type": "string", "format": "uuid", "title": "string · uuid"},
                    {"type": "string", "format": "uri", "minLength": 1, "title": "string · uri"},
                ]
            },
            id="one type twice",
        ),
        pytest.param(
            list[int] | dict[str, list[str]] | list[Address],
            {
                "anyOf": [
                    {"type": "array", "items": {"type": "integer"}, "title": "array of integer"},
                    {
                        "type": "object",
                        "additionalProperties": {"type": "array", "items": {"type": "string"}},
                        "title": "object",
                    },
                    {
                        "type": "array",
                        "items": {
                            "allOf": [{"$ref": "#/components/schemas/Address"}],
                            "format": "Address",
                            "description": "Where to send it. [Address](#asyncapi--schemas--Address)",
                        },
                        "description": "[Address](#asyncapi--schemas--Address)",
                        "title": "array of Address",
                    },
                ]
            },
            id="lists",
        ),
    ],
)
def test_choices_are_shown_as_types_or_by_name(annotation: Any, shown: dict[str, Any]) -> None:
    assert field_of(annotation) == shown


def test_a_nested_model_has_its_name_its_description_and_a_link() -> None:
    shown = {
        "allOf": [{"$ref": "#/components/schemas/Address"}],
        "format": "Address",
        "description": "Where to send it. [Address](#asyncapi--schemas--Address)",
    }
    assert field_of(Address) == shown
    assert field_of(Address | None) == {**shown, "type": ["object", "null"]}
    own = field_of(Annotated[Address, Field(description="The sender")])
    assert own["description"] == "The sender [Address](#asyncapi--schemas--Address)"
    assert field_of(list[list[Address]])["description"] == "[Address](#asyncapi--schemas--Address)"
    assert field_of(Address, links=False)["description"] == "Where to send it."
    assert field_of(Kind | None) == {
        "allOf": [{"$ref": "#/components/schemas/Kind"}],
        "format": "Kind",
        "type": ["string", "null"],
        "description": "[Kind](#asyncapi--schemas--Kind)",
    }
    assert field_of(Reference)["format"] == "Reference · uuid"


def test_a_model_that_is_a_choice_itself_stays_one() -> None:
    assert "format" not in field_of(Choice)
    [choice, null] = field_of(Choice | None)["anyOf"]
    assert choice["title"] == "Choice"
    assert null == {"type": "null", "title": "null"}


def test_the_choice_between_models_has_their_names() -> None:
    choices = field_of(Address | Kind | None)["anyOf"]
    assert [choice["title"] for choice in choices] == ["Address", "Kind", "null"]


def test_a_generic_model_has_its_name_with_brackets() -> None:
    shown = field_of(Envelope[Address])
    assert shown["allOf"] == [{"$ref": "#/components/schemas/Envelope_Address_"}]
    assert shown["format"] == "Envelope[Address]"
    assert shown["description"] == r"[Envelope\[Address\]](#asyncapi--schemas--Envelope_Address_)"


def test_a_model_that_contains_itself_is_linked_not_expanded() -> None:
    broker = NatsBroker()
    broker.publisher("categories", schema=create_model("Message", category=(Category, ...)))
    schemas = documents(broker)["components"]["schemas"]
    assert schemas["Message"]["properties"]["category"]["allOf"]
    link = "[Category](#asyncapi--schemas--Category)"
    assert schemas["Category"]["properties"]["parent"] == {
        "type": ["object", "null"],
        "format": "Category",
        "description": link,
    }
    children = schemas["Category"]["properties"]["children"]
    assert children["items"] == {"type": "object", "format": "Category", "description": link}


def expanded(document: dict[str, Any], payload: Any) -> int:
    """Return the number of schemas when all references are followed, as the viewer does."""
    number, waiting = 0, [payload]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict) and "$ref" in node:
            waiting.append(document["components"]["schemas"][node["$ref"].rpartition("/")[2]])
        else:
            number += isinstance(node, dict)
            waiting += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return number


@pytest.mark.full
@pytest.mark.parametrize("width", [1, 2])
def test_deep_models_are_expanded_up_to_a_limit(width: int) -> None:
    """With two fields each, the last of 150 models would appear 2 ** 149 times."""
    model: Any = Address
    for number in range(150):
        fields: Any = {f"field{each}": (model, ...) for each in range(width)}
        model = create_model(f"Level{number}", **fields)
    broker = NatsBroker()
    broker.publisher("deep", schema=model)
    document = documents(broker)
    for message in document["components"]["messages"].values():
        assert expanded(document, message["payload"]) < 5_000


# --- operations and messages ---


def shop(title: str | None = None) -> NatsBroker:
    broker = NatsBroker()

    @broker.subscriber("shop.orders.new", description="New orders", title=title)
    @broker.publisher("shop.sent")
    async def accept_order(order: Address) -> int:
        raise NotImplementedError

    @broker.subscriber("shop.orders.late")
    async def accept_late_order(order: Address) -> None:
        raise NotImplementedError

    @broker.subscriber("shop.sums")
    async def add(first: int, second: int) -> None:
        raise NotImplementedError

    return broker


def operations_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the operations by their headings."""
    operations = list(document.get("operations", {}).values())
    for channel in document["channels"].values():
        operations += [channel[action] for action in ("publish", "subscribe") if action in channel]
    return {each.get("title") or each["operationId"]: each for each in operations}


@pytest.mark.parametrize("version", VERSIONS)
def test_operations_have_the_title_or_the_address_as_their_heading(version: str) -> None:
    shown = operations_of(documents(shop(), version))
    assert shown.keys() == {"shop.orders.new", "shop.orders.late", "shop.sums", "shop.sent"}
    assert shown["shop.orders.new"]["description"] == "New orders"
    assert "Accept an order / now" in operations_of(documents(shop(title="Accept an order / now"), version))


@pytest.mark.parametrize("version", VERSIONS)
def test_messages_have_the_name_of_their_model_or_handler(version: str) -> None:
    document = documents(shop(), version)
    messages = document["components"]["messages"]
    assert {key: message["title"] for key, message in messages.items()} == {
        "Address": "Address",
        "Add": "Add",
        "shop.sent": "shop.sent",
    }
    assert messages["Address"]["description"] == "Where to send it."
    assert document["components"]["schemas"].keys() == {"Address", "Add", "shop.sent"}
    assert '"custom"' not in json.dumps(document)


def test_operations_that_faststream_does_not_write_keep_their_texts() -> None:
    document = {
        "channels": {"a": {"publish": {"operationId": "Own"}, "subscribe": 1}, "b": 1},
        "operations": {"lost": {"channel": {"$ref": "#/channels/none"}, "title": "Mine"}, "odd": []},
    }
    assert for_viewer(document) == document


def test_messages_of_several_models_have_all_names() -> None:
    broker = NatsBroker()
    orders = broker.subscriber("orders")

    @orders(filter=lambda message: bool(message.headers))
    async def on_address(message: Address) -> None:
        raise NotImplementedError

    @orders
    async def on_kind(message: Envelope[int]) -> None:
        raise NotImplementedError

    [message] = documents(broker)["components"]["messages"].values()
    assert message["title"] == "Address | Envelope[int]"


def test_messages_of_one_model_that_differ_stay_apart() -> None:
    reference = {"$ref": "#/components/schemas/Order"}
    document = {
        "channels": {"a": {"messages": {"m": {"$ref": "#/components/messages/b~1c"}, "n": reference}}},
        "components": {
            "messages": {"a": {"payload": reference}, "b/c": {"payload": reference, "title": "Late"}, "d": 1},
            "schemas": {"Order": {"type": "object"}, "Order:Payload": True, "Odd:Payload": {"type": 1}},
        },
    }
    shaped = for_viewer(document)
    assert [
        message.get("title") for message in shaped["components"]["messages"].values() if message != 1
    ] == [
        None,
        "Late",
    ]
    assert shaped["components"]["messages"].keys() == {"Order", "b/c", "d"}
    assert shaped["channels"]["a"]["messages"]["m"] == {"$ref": "#/components/messages/b~1c"}
    assert shaped["components"]["schemas"].keys() == {"Order", "Order:Payload", "Odd"}


# --- examples ---


@pytest.mark.parametrize("version", VERSIONS)
def test_the_examples_of_the_author_are_those_of_the_message(version: str) -> None:
    class Paid(BaseModel):
        model_config = ConfigDict(json_schema_extra={"examples": [{"cents": 1}, {"cents": 2}]})
        cents: int

    broker = NatsBroker()
    broker.publisher("paid", schema=Paid)
    document = documents(broker, version)
    message = document["components"]["messages"]["Paid"]
    assert message["examples"] == [{"payload": {"cents": 1}}, {"payload": {"cents": 2}}]
    assert message["payload"] == {"$ref": "#/components/schemas/Paid"}


def test_an_example_that_is_generated_is_marked_by_the_viewer() -> None:
    class Paid(BaseModel):
        code: str = Field(pattern="^[A-Z]{3}$")

    broker = NatsBroker()
    broker.publisher("paid", schema=Paid)
    message = documents(broker)["components"]["messages"]["Paid"]
    assert "examples" not in message
    assert message["payload"] == {
        "allOf": [{"$ref": "#/components/schemas/Paid"}],
        "examples": [{"code": "AAA"}],
    }


class Everything(BaseModel):
    code: str = Field(pattern=r"^[A-Z]{3}-\d{4}$")
    short: str = Field(max_length=3)
    long: str = Field(min_length=120)
    at_least: int = Field(ge=7)
    above: int = Field(gt=7)
    at_most: int = Field(le=-7)
    below: float = Field(lt=-7)
    between: float = Field(gt=0, lt=1)
    five: int = Field(multiple_of=5, gt=5, le=1000)
    price: Decimal = Field(ge=1)
    when: datetime
    identifier: UUID
    kind: Kind
    fixed: Literal["x"] = "x"
    nothing: None
    anything: Any
    flag: bool
    pair: tuple[int, Address]
    several: list[str] = Field(min_length=2)
    queue: deque[int] = Field(max_length=0)
    unknown: list[Any] = Field(min_length=1)
    optional: Kind | None = None
    category: Category
    categories: list[Category] = []
    labels: dict[str, int]
    given: str = Field(examples=["given"])
    default: int = 12
    message: Address | Kind
    wrapped: Annotated[Kind, Field(description="d")] = Kind.NORMAL


def test_generated_examples_are_valid() -> None:
    schema = Everything.model_json_schema(ref_template="#/components/schemas/{model}")
    document = {"components": {"schemas": schema.pop("$defs")}}
    example = example_of(document, schema)
    validator = Draft202012Validator({**schema, **document})
    assert list(validator.iter_errors(example)) == []
    assert example == example_of(document, schema)
    assert (example["code"], example["given"], example["default"]) == ("AAA-1111", "given", 12)
    assert example["wrapped"] == "normal"
    assert example["category"] == {"parent": None, "children": []}


def test_optional_fields_are_left_out_of_objects_that_are_nested_deep() -> None:
    model: Any = Address
    for number in range(8):
        model = create_model(f"Level{number}", inner=(model, ...), note=(str, ""))
    schema = model.model_json_schema()
    assert json.dumps(example_of(schema, schema)).count("note") < 8


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"type": "string", "pattern": r"^\p{L}$"}, id="another dialect"),
        pytest.param({"type": "string", "format": "uuid", "maxLength": 3}, id="too short for its format"),
        pytest.param({"$ref": "#/self"}, id="endless"),
        pytest.param(
            {"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#/self"}}}, id="endless field"
        ),
        pytest.param({"type": "array", "minItems": 1, "items": {"$ref": "#/self"}}, id="endless items"),
        pytest.param({"type": "array", "minItems": 2, "uniqueItems": True, "items": {}}, id="unique items"),
        pytest.param({"anyOf": [{"$ref": "#/self"}]}, id="endless choice"),
        pytest.param({"allOf": [{"type": "string"}, {"type": "integer"}]}, id="contradiction"),
        pytest.param({"type": "integer", "minimum": 3, "maximum": 2}, id="no number"),
        pytest.param(
            {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 4}, id="no number between"
        ),
    ],
)
def test_no_example_is_generated_from_a_schema_without_values(schema: dict[str, Any]) -> None:
    with pytest.raises(ExampleError):
        example_of({"self": {"$ref": "#/self2"}, "self2": {"$ref": "#/self"}}, schema)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda model: model, id="field"),
        pytest.param(lambda model: GenericAlias(list, model), id="items"),
        pytest.param(lambda model: model | None, id="choice"),
    ],
)
def test_no_example_is_generated_from_a_large_model(make: Callable[[Any], Any]) -> None:
    model: Any = Address
    for number in range(12):
        model = create_model(f"Level{number}", left=(make(model), ...), right=(make(model), ...))
    schema = model.model_json_schema()
    with pytest.raises(ExampleError):
        example_of(schema, schema)
    broker = NatsBroker()
    broker.publisher("large", schema=model)
    [message] = documents(broker)["components"]["messages"].values()
    assert message["payload"] == {"$ref": "#/components/schemas/Level11"}


def test_values_of_schemas_that_pydantic_does_not_write() -> None:
    assert example_of({}, {"type": "array", "minItems": 2}) == [{}, {}]
    impossible = {"type": "string", "pattern": r"^\p{L}$"}
    assert example_of({}, {"type": "object", "properties": {"a": impossible, "b": {"const": 1}}}) == {"b": 1}
    assert example_of({}, {"allOf": [{"type": "integer"}], "title": "T"}) == 1
    assert example_of({}, {"type": "number", "multipleOf": 0.5, "maximum": 0.5}) == 0.0
    assert example_of({}, {"type": "number", "minimum": 0.3, "multipleOf": 0.5}) == 0.5


def test_all_parts_of_an_example_are_combined() -> None:
    parts = [
        {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"example": 2}}},
        {"type": "object", "properties": {"c": {"type": ["null", "string"]}}},
    ]
    assert example_of({}, {"allOf": parts}) == {"a": 1, "b": 2, "c": "string"}


@pytest.mark.parametrize(
    ("pattern", "least", "text"),
    [
        (r"^[A-Z]{3}-\d+$", 0, "AAA-1"),
        (r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$", 0, "+01.1"),
        (r"^[^a-z]{2,}x*$", 0, "AAx"),
        (r"(foo|bar)\s\w\W\S\D", 0, "foo A!AA"),
        (r"[a-z]*", 3, "aaa"),
        (r"^é+[^x]$", 0, "éA"),
        (r"^[\u4e00-\u4e05]$", 0, "\u4e00"),
        (r"^(?>ab).$", 0, "abA"),
        (r"^[\u4e00\d]{2}$", 0, "11"),
        (r"^(a)\1$", 0, None),
        (r"^\p{L}$", 0, None),
        (r"^(((a{100}){100}){100}){100}$", 0, None),
        (r"^[^\W\w]$", 0, None),
        (r"^a$", 2, None),
    ],
)
def test_a_string_that_matches_a_pattern(pattern: str, least: int, text: str | None) -> None:
    assert matching(pattern, least) == text


# --- documents that FastStream does not write ---


def test_schemas_of_other_formats_stay_as_they_are() -> None:
    avro = {"schemaFormat": "application/vnd.apache.avro;version=1.9.0", "schema": {"type": "record"}}
    payload = {"anyOf": [{"type": "null"}, {"type": "string"}], "schemaFormat": "x"}
    document = {
        "components": {
            "messages": {"a": {"payload": avro}, "b": {"schemaFormat": "x", "payload": payload}, "c": {}},
        }
    }
    assert for_viewer(document) == document


def test_headers_and_inline_payloads_are_shaped_too() -> None:
    choice = {"oneOf": [{"type": "string"}, {"type": "null"}, True]}
    headers = {"type": "object", "properties": {"odd": [], "trace": {"anyOf": choice["oneOf"][:2]}}}
    document = {"components": {"messages": {"a": {"headers": headers, "payload": choice}}}}
    message = for_viewer(document)["components"]["messages"]["a"]
    assert message["headers"]["properties"] == {"odd": [], "trace": {"type": ["string", "null"]}}
    assert message["payload"] == {
        "oneOf": [{"type": "string", "title": "string"}, {"type": "null", "title": "null"}, True]
    }


def test_choices_with_rules_that_interfere_stay_choices() -> None:
    choices = [{"type": "string", "description": "A"}, {"type": "integer", "description": "B"}]
    nested = [{"type": "string", "allOf": []}, {"type": ["integer", "null"]}]
    document = {"components": {"schemas": {"a": {"anyOf": choices}, "b": {"anyOf": nested}}}}
    schemas = for_viewer(document)["components"]["schemas"]
    assert [each["title"] for each in schemas["a"]["anyOf"]] == ["string", "integer"]
    assert [each["title"] for each in schemas["b"]["anyOf"]] == ["string", "integer | null"]


# --- HTTP routes ---


@pytest.mark.parametrize("version", VERSIONS)
async def test_http_routes_are_shown_only_on_request(version: str) -> None:
    broker = shop()
    specification = AsyncAPI(broker, schema_version=version)
    specification.add_http_route("/livez", make_liveness_asgi(broker, description="Is it alive"))  # type: ignore[arg-type]  # has the same attributes

    async def texts(**page: Any) -> tuple[bool, ...]:
        async with client(make_asyncapi_asgi(specification, **page)) as http:
            paths = ("/asyncapi.json", "/asyncapi.yaml", "/", "/viewer/asyncapi.json")
            return tuple(["livez" in (await http.get(path)).text for path in paths])

    assert await texts() == (True, True, False, False)
    assert await texts(http_routes=True) == (True, True, True, True)


def test_a_document_without_operations_has_no_http_routes() -> None:
    assert without_http_routes({"info": {}}) == {"info": {}}


# --- the choice of the view ---


def large(operations: int) -> NatsBroker:
    broker = NatsBroker()
    for number in range(operations):
        broker.publisher(f"channel-{number}", schema=Address)
    return broker


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("operations", "view", "shown"),
    [(60, "auto", True), (61, "auto", False), (61, "viewer", True), (1, "plain", False)],
)
async def test_the_viewer_is_for_small_documents(
    version: str, operations: int, view: Any, shown: bool
) -> None:
    specification = AsyncAPI(large(operations), schema_version=version)
    async with client(make_asyncapi_asgi(specification, view=view)) as http:
        page = await http.get("/")
    assert ("<asyncapi-viewer" in page.text) == shown
    assert ('src="viewer.' in page.text) == shown
    assert ("connect-src" in page.headers["content-security-policy"]) == shown
    assert "This is the plain page." not in page.text
    assert "channel-0" in page.text


async def test_http_routes_that_are_not_shown_do_not_count() -> None:
    broker = large(60)
    specification = AsyncAPI(broker)
    specification.add_http_route("/livez", make_liveness_asgi(broker))  # type: ignore[arg-type]  # has the same attributes
    for routes, shown in ((False, True), (True, False)):
        async with client(make_asyncapi_asgi(specification, http_routes=routes)) as http:
            assert ("<asyncapi-viewer" in (await http.get("/")).text) == shown


def test_other_views_are_refused() -> None:
    with pytest.raises(
        SetupError,
        match='view must be "auto" or "viewer" or "plain", not "table"'.replace('"table"', "'table'"),
    ):
        AsyncAPIRoute("/", view="table")  # type: ignore[arg-type]  # the error under test
    with pytest.raises(SetupError, match="pass asyncapi_js_url or view, not both"):
        AsyncAPIRoute("/", view="plain", asyncapi_js_url="/a.js")
