"""Types of messages in the document: models of one name, msgspec, deep models, and types without a schema."""

from __future__ import annotations

import enum
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, TypedDict
from urllib.parse import unquote

import msgspec
import pytest
from fast_depends.msgspec import MsgSpecSerializer
from faststream import Depends
from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI
from pydantic import BaseModel, ConfigDict, Field, RootModel, create_model

from faststream_adapters import make_asyncapi_asgi
from faststream_adapters._utils.threads import call_with_deep_stack
from faststream_adapters.testing import assert_asyncapi
from tests.harness.clients import client
from tests.unit.test_asyncapi_schema import problems

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = ("3.0.0", "2.6.0")


def model(module: str, **fields: Any) -> Any:
    """Return a model `Order` of a module."""
    required: Any = {name: (kind, ...) for name, kind in fields.items()}
    return create_model("Order", __module__=module, **required)


async def documented(*brokers: NatsBroker, version: str = "3.0.0") -> dict[str, Any]:
    """Return the document that is served, after the page has been shown too."""
    async with client(make_asyncapi_asgi(AsyncAPI(*brokers, schema_version=version))) as http:
        for path in ("/", "/viewer/asyncapi.json"):
            assert (await http.get(path)).status_code == 200
        document: dict[str, Any] = (await http.get("/asyncapi.json")).json()
    assert problems(document, version) == []
    return document


def payloads(document: dict[str, Any]) -> dict[str, str]:
    """Return the names of the payloads by the titles of their messages."""
    messages = document["components"]["messages"].values()
    return {each["title"].partition(":")[0]: name_of(each["payload"]) for each in messages}


def name_of(reference: dict[str, str]) -> str:
    """Return the name of the schema that a reference refers to."""
    return unquote(reference["$ref"].rpartition("/")[2])


# --- models of one name ---


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("version", VERSIONS)
async def test_two_models_of_one_name_are_two_schemas(version: str) -> None:
    broker = NatsBroker()
    broker.publisher("new", schema=model("shop.orders", sku=str))
    broker.publisher("paid", schema=model("billing", cents=int))
    broker.publisher("many", schema=list[model("billing", cents=int)])  # type: ignore[misc]  # made at run time
    document = await documented(broker, version=version)
    schemas = document["components"]["schemas"]
    many = "many:Publisher:Message:Payload"
    assert payloads(document) == {"new": "shop.orders.Order", "paid": "billing.Order", "many": many}
    assert schemas["shop.orders.Order"]["properties"].keys() == {"sku"}
    assert schemas["billing.Order"]["properties"].keys() == {"cents"}
    assert schemas[many]["items"] == {"$ref": "#/components/schemas/billing.Order"}
    assert "Order" not in schemas


async def test_one_model_of_several_messages_is_one_schema() -> None:
    broker = NatsBroker()
    for number in range(3):
        broker.publisher(f"channel-{number}", schema=model("shop", sku=str))
    assert (await documented(broker))["components"]["schemas"].keys() == {"Order"}


async def test_models_that_differ_only_inside_are_different() -> None:
    """Both orders look the same, but their lines are of different modules."""
    broker = NatsBroker()
    for module, fields in (("shop", {"sku": str}), ("billing", {"cents": int})):
        line = create_model("Line", __module__=module, **{name: (kind, ...) for name, kind in fields.items()})  # type: ignore[call-overload]  # made at run time
        broker.publisher(module, schema=model(module, line=line, last=line))
    schemas = (await documented(broker))["components"]["schemas"]
    assert schemas.keys() == {"shop.Order", "shop.Line", "billing.Order", "billing.Line"}
    for module in ("shop", "billing"):
        line = schemas[f"{module}.Order"]["properties"]["line"]
        assert line == {"$ref": f"#/components/schemas/{module}.Line"}


async def test_the_names_of_models_do_not_depend_on_the_order_of_endpoints() -> None:
    def broker(*numbers: int) -> NatsBroker:
        made = NatsBroker()
        for number in numbers:
            made.publisher(f"channel-{number}", schema=model("shop", **{f"field{number}": str}))
        return made

    first, second = await documented(broker(1, 2, 3)), await documented(broker(3, 2, 1))
    assert first == second
    # All three are of one module.
    assert first["components"]["schemas"].keys() == {"shop.Order", "shop.Order-2", "shop.Order-3"}


@pytest.mark.parametrize("version", VERSIONS)
async def test_messages_of_handlers_with_one_name_are_two_schemas(version: str) -> None:
    broker = NatsBroker()

    @broker.subscriber("new")
    async def handle(sku: str, amount: int) -> None:
        raise NotImplementedError

    def other() -> None:
        @broker.subscriber("paid")
        async def handle(cents: int) -> None:
            raise NotImplementedError

    other()
    document = await documented(broker, version=version)
    assert payloads(document) == {"new": "new:Handle:Message:Payload", "paid": "paid:Handle:Message:Payload"}
    assert document["components"]["schemas"]["paid:Handle:Message:Payload"]["type"] == "integer"


async def test_handlers_of_one_subscriber_may_have_models_of_one_name() -> None:
    broker = NatsBroker()
    subscriber = broker.subscriber("orders")
    new: Any = model("shop", sku=str)
    paid: Any = model("billing", cents=int)

    @subscriber(filter=lambda message: bool(message.headers))
    async def on_new(order: new) -> None:
        raise NotImplementedError

    @subscriber
    async def on_paid(order: paid) -> None:
        raise NotImplementedError

    document = await documented(broker)
    [message] = document["components"]["messages"].values()
    names = [name_of(each) for each in message["payload"]["oneOf"]]
    assert names == ["shop.Order", "billing.Order"]
    assert names[0] in document["components"]["schemas"]


async def test_models_that_are_local_to_a_function_are_named_by_their_channel() -> None:
    def order(kind: Any) -> Any:
        class Order(BaseModel):
            field: kind

        return Order

    broker = NatsBroker()
    broker.publisher("new", schema=dict[str, order(int)])  # type: ignore[misc]  # made at run time
    broker.publisher("paid", schema=order(str))
    schemas = (await documented(broker))["components"]["schemas"]
    assert schemas.keys() >= {"new:Publisher.Order", "paid:Publisher.Order"}


async def test_modules_are_found_in_all_kinds_of_types() -> None:
    @dataclass
    class Box:
        order: Any

    Box.__annotations__["order"] = model("shop", sku=str)
    Box.__dataclass_fields__["order"].type = Box.__annotations__["order"]

    class Crate(TypedDict):
        unknown: Nowhere  # type: ignore[name-defined]  # noqa: F821 (no such name)

    broker = NatsBroker()
    broker.publisher("boxes", schema=Box)
    broker.publisher("paid", schema=model("billing", cents=int))
    broker.publisher("crates", schema=Annotated[Any, Field(title="A crate"), Crate])
    schemas = (await documented(broker))["components"]["schemas"]
    assert schemas.keys() == {"Box", "shop.Order", "billing.Order", "A crate"}


# --- types that have a name ---


class Kind(enum.Enum):
    GIFT = "gift"


class Address(BaseModel):
    street: str


@dataclass
class Parcel:
    address: Address
    kind: Kind


class Numbers(RootModel[list[int]]): ...


class Category(BaseModel):
    children: list[Category] = []


class Titled(BaseModel):
    model_config = ConfigDict(title="A title")
    field: int


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(Address, "Address", id="model"),
        pytest.param(Titled, "A title", id="title"),
        pytest.param(Parcel, "Parcel", id="dataclass"),
        pytest.param(Kind, "Kind", id="enum"),
        pytest.param(Numbers, "Numbers", id="root model"),
        pytest.param(Category, "Category", id="model that contains itself"),
    ],
)
async def test_a_named_type_is_the_payload(kind: Any, name: str, version: str) -> None:
    """FastStream writes the first model inside a dataclass instead of the dataclass."""
    broker = NatsBroker()

    @broker.subscriber("received")
    @broker.publisher("returned")
    async def handle(message: kind) -> kind:
        raise NotImplementedError

    broker.publisher("declared", schema=kind)
    document = await documented(broker, version=version)
    assert payloads(document) == {"received": name, "returned": name, "declared": name}
    schema = document["components"]["schemas"][name]
    assert schema["title"] == name
    if kind is Parcel:
        assert schema["properties"].keys() == {"address", "kind"}


async def test_documents_of_ordinary_models_are_those_of_faststream() -> None:
    broker = NatsBroker()

    @broker.subscriber("one", title="With a title")
    @broker.publisher("two")
    async def one(message: Address) -> int:
        raise NotImplementedError

    @broker.subscriber("three")
    async def three(first: int, second: list[Address], third: Annotated[str, Field("x", title="T")]) -> None:
        raise NotImplementedError

    @broker.subscriber("four")
    async def four() -> None:
        raise NotImplementedError

    @broker.subscriber("five")
    async def five(only: Annotated[int, Field(title="Only one", ge=1)]) -> None:
        raise NotImplementedError

    @broker.publisher("nine")
    @broker.subscriber("ten")
    async def nine(message: int):  # type: ignore[no-untyped-def]  # noqa: ANN202 (without a type of its result)
        raise NotImplementedError

    several = broker.subscriber("six")
    several(one, filter=lambda message: bool(message.headers))
    several(three)
    broker.subscriber("seven")
    broker.publisher("eight")
    specification = AsyncAPI(broker)
    document = await documented(broker)
    expected = json.loads(specification.to_specification().to_json())
    assert document["channels"] == expected["channels"]
    assert document["components"] == expected["components"]


async def test_what_a_handler_yields_is_the_payload() -> None:
    broker = NatsBroker()

    @broker.publisher("yielded")
    @broker.subscriber("received")
    async def handle(message: int) -> AsyncIterator[Address]:
        yield Address(street="")  # pragma: no cover (only described)

    @broker.publisher("bare")
    @broker.subscriber("other")
    def other(message: int) -> Iterator:  # type: ignore[type-arg]  # without an argument
        yield from ()  # pragma: no cover (only described)

    document = await documented(broker)
    assert payloads(document)["yielded"] == "Address"


async def test_a_publisher_of_several_handlers_has_all_their_types() -> None:
    broker = NatsBroker()
    publisher = broker.publisher("returned")

    @publisher
    @broker.subscriber("one")
    async def one(message: int) -> Address:
        raise NotImplementedError

    @publisher
    @broker.subscriber("two")
    async def two(message: int) -> int:
        raise NotImplementedError

    @publisher
    @broker.subscriber("three")
    async def three(message: int) -> None:
        raise NotImplementedError

    messages = (await documented(broker))["components"]["messages"]
    names = {name_of(each) for each in messages["returned:Publisher:Message"]["payload"]["oneOf"]}
    assert names == {"Address", "Two:Publisher:Message:Payload", "Three:Publisher:Message:Payload"}


# --- msgspec ---


class Item(msgspec.Struct):
    """One article."""

    sku: Annotated[str, msgspec.Meta(pattern="^[A-Z]+$")]
    parts: list[Item] = []


class Cart(msgspec.Struct):
    items: list[Item]
    note: str | None = None


@pytest.mark.parametrize("serializer", [False, True], ids=["pydantic", "msgspec"])
@pytest.mark.parametrize("version", VERSIONS)
async def test_msgspec_structs_are_described(version: str, serializer: bool) -> None:
    broker = NatsBroker(serializer=MsgSpecSerializer()) if serializer else NatsBroker()

    @broker.subscriber("carts")
    @broker.publisher("items")
    async def handle(message: Cart) -> Item:
        raise NotImplementedError

    @broker.subscriber("several")
    async def several(cart: Cart, item: Item | None = None) -> None:
        raise NotImplementedError

    broker.publisher("declared", schema=list[Item])
    document = await documented(broker, version=version)
    names = payloads(document)
    assert (names["carts"], names["items"]) == ("Cart", "Item")
    schemas = document["components"]["schemas"]
    assert schemas["Cart"]["properties"]["items"]["items"] == {"$ref": "#/components/schemas/Item"}
    assert schemas["Item"]["description"] == "One article."
    assert schemas["Item"]["properties"]["sku"] == {"type": "string", "pattern": "^[A-Z]+$"}
    several_fields = schemas["Several:Message:Payload"]
    assert several_fields["properties"]["cart"] == {"$ref": "#/components/schemas/Cart"}
    assert several_fields["required"] == ["cart"]


@pytest.mark.parametrize("serializer", [False, True], ids=["pydantic", "msgspec"])
async def test_several_fields_without_models(serializer: bool) -> None:
    """A type that only msgspec knows, beside one that only pydantic knows."""
    broker = NatsBroker(serializer=MsgSpecSerializer()) if serializer else NatsBroker()

    @broker.subscriber("raw")
    async def handle(first: msgspec.Raw, second: int) -> None:
        raise NotImplementedError

    schemas = (await documented(broker))["components"]["schemas"]
    assert schemas["Handle:Message:Payload"]["properties"].keys() == {"first", "second"}
    assert "$defs" not in schemas["Handle:Message:Payload"]


# --- deep models ---


# The first releases of Python 3.12 bound the depth of calls from C, as pydantic makes them, by a number of
# their own (python/cpython#112215).
CHAIN = 100 if (3, 12) <= sys.version_info < (3, 12, 3) else 150


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_long_chain_of_models_is_described(version: str) -> None:
    kind: Any = Address
    for number in range(CHAIN):
        kind = create_model(f"Level{number}", inner=(kind, ...))
    broker = NatsBroker()

    @broker.subscriber("received")
    @broker.publisher("returned")
    async def handle(message: kind) -> kind:
        raise NotImplementedError

    limit = sys.getrecursionlimit()
    document = await documented(broker, version=version)
    assert len(document["components"]["schemas"]) == CHAIN + 1
    outermost = f"Level{CHAIN - 1}"
    assert payloads(document) == {"received": outermost, "returned": outermost}
    assert sys.getrecursionlimit() == limit


def test_a_deep_call_has_a_thread_of_its_own_and_raises_its_error() -> None:
    def depth(rest: int) -> int:
        return 1 + depth(rest - 1) if rest else 0

    assert call_with_deep_stack(lambda: depth(10_000)) == 10_000
    assert call_with_deep_stack(threading.current_thread) is not threading.current_thread()
    with pytest.raises(RecursionError):
        call_with_deep_stack(lambda: depth(-1))
    with pytest.raises(ZeroDivisionError):
        call_with_deep_stack(lambda: depth(1 // 0))


# --- types without a schema ---


class Opaque:
    """A class that no library can describe."""


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_message_that_cannot_be_described_has_a_placeholder(
    version: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = NatsBroker("nats://user:s3cret@host")

    class Failing(BaseModel):
        field: int

        @classmethod
        def __get_pydantic_json_schema__(cls, *_: Any) -> Any:
            msg = "nats://user:s3cret@host is wrong"
            raise ValueError(msg)

    @broker.subscriber("good")
    async def good(message: Address) -> None:
        raise NotImplementedError

    @broker.subscriber("bad", description="Bad messages")
    async def bad(message: Failing) -> None:
        raise NotImplementedError

    broker.publisher("opaque", schema=Opaque)
    broker.publisher("hopeless", schema=SimpleNamespace(name="no type"))
    document = await documented(broker, version=version)
    assert payloads(document)["good"] == "Address"
    schemas = document["components"]["schemas"]
    placeholder = "This message cannot be described. The log contains the error."
    assert schemas["Bad:Message:Payload"] == {"title": "Bad:Message:Payload", "description": placeholder}
    assert schemas["opaque:Publisher:Message:Payload"]["description"] == placeholder
    assert "Bad messages" in json.dumps(document["channels"])
    records = [record for record in caplog.records if record.name == "faststream.adapters.docs"]
    texts = sorted(record.getMessage() for record in records)
    assert [text.partition(" cannot")[0].removeprefix("The message of ") for text in texts] == [
        "bad:Bad",
        "hopeless:Publisher",
        "opaque:Publisher",
    ]
    assert "ValueError: nats://***@host is wrong" in texts[0]
    assert "s3cret" not in caplog.text


async def test_a_handler_whose_annotation_is_unknown_has_a_placeholder() -> None:
    broker = NatsBroker()

    async def handle(message: Nowhere) -> Nowhere:  # type: ignore[name-defined]  # noqa: F821 (no such name)
        raise NotImplementedError

    broker.publisher("returned")(broker.subscriber("received")(handle))
    document = await documented(broker)
    descriptions = [schema["description"] for schema in document["components"]["schemas"].values()]
    assert len(descriptions) == 2


async def test_a_handler_that_cannot_be_called_has_a_placeholder(caplog: pytest.LogCaptureFixture) -> None:
    broker = NatsBroker()

    @broker.subscriber("received")
    async def handle(message: Annotated[int, Depends(str), Depends(int)]) -> None:
        raise NotImplementedError

    assert payloads(await documented(broker)) == {"received": "Handle:Message:Payload"}
    assert "Cannot specify multiple" in caplog.text


def test_assert_asyncapi_fails_for_a_message_that_cannot_be_described(tmp_path: Path) -> None:
    broker = NatsBroker()
    broker.publisher("opaque", schema=Opaque)
    with pytest.raises(Exception, match="Opaque"):
        assert_asyncapi(broker, tmp_path / "asyncapi.json")


@pytest.mark.full
def test_msgspec_is_not_imported_for_applications_without_it() -> None:
    code = (
        "import sys\n"
        "from faststream.nats import NatsBroker\n"
        "from faststream.specification import AsyncAPI\n"
        "from faststream_adapters._asyncapi.document import document_of\n"
        "class Opaque: ...\n"
        "broker = NatsBroker()\n"
        "broker.publisher('one', schema=Opaque)\n"
        "@broker.subscriber('two')\n"
        "async def two(first: Opaque, second: int) -> None: ...\n"
        "sys.modules.pop('msgspec', None)\n"
        "found = []\n"
        "document_of(AsyncAPI(broker), lambda name, error: found.append(name))\n"
        "print(*sorted(found), 'msgspec' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["one:Publisher", "two:Two", "False"]
