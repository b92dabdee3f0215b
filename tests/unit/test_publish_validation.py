"""A message is valid if the subscriber that gets it accepts it, or if the publisher declares it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest
from fast_depends.msgspec import MsgSpecSerializer
from fast_depends.pydantic import PydanticSerializer
from faststream import Context, Depends, Header, Logger, Response
from faststream.kafka import KafkaBroker
from faststream.nats import NatsBroker, NatsMessage
from pydantic import BaseModel, Field, field_validator

from faststream_adapters._asyncapi.publish.validation import FieldError, Validator
from faststream_adapters._compat.channels import declared_messages


class Address(BaseModel):
    city: str


class Order(BaseModel):
    id: int
    quantity: int = Field(1, ge=1)
    address: Address | None = None
    codes: list[int] = []

    @field_validator("quantity")
    @classmethod
    def is_no_dozen(cls, value: int) -> int:
        if value == 13:
            msg = "13 is not sold at redis://:hunter2@cache"
            raise ValueError(msg)
        if value == 14:
            msg = "a bug of the validator"
            raise KeyError(msg)
        return value


class Stock(msgspec.Struct):
    id: int
    codes: list[int] = []


def _errors(endpoint: Any, message: object) -> list[FieldError]:
    return Validator(declared_messages(endpoint)).errors(message)


def _brief(errors: list[FieldError]) -> list[tuple[Any, ...]]:
    return [(*error["loc"], error["type"]) for error in errors]


def _subscriber(handler: Any, **options: Any) -> Any:
    subscriber = NatsBroker(**options).subscriber("orders")
    subscriber(handler)
    return subscriber


async def _order(order: Order, logger: Logger, key: str = Header(), app: Any = Context()) -> None:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("message", "errors"),
    [
        ({"id": 7}, []),
        # As the subscriber: pydantic converts.
        ({"id": "7", "quantity": 2.0, "more": True}, []),
        ({"id": 7, "address": {"city": "Oslo"}}, []),
        ({}, [("id", "missing")]),
        ({"id": "x", "quantity": 0}, [("id", "int_parsing"), ("quantity", "greater_than_equal")]),
        ({"id": 1, "address": {"city": 1}}, [("address", "city", "string_type")]),
        ({"id": 1, "codes": [1, "x"]}, [("codes", 1, "int_parsing")]),
        ({"id": 1, "quantity": 13}, [("quantity", "value_error")]),
        ({"id": 1, "quantity": 14}, [("validation",)]),
        ("text", [("model_type",)]),
        ([{"id": 7}], [("model_type",)]),
        (None, [("model_type",)]),
    ],
)
def test_a_message_is_validated_as_by_its_subscriber(message: object, errors: list[Any]) -> None:
    assert _brief(_errors(_subscriber(_order), message)) == errors


def test_an_error_contains_neither_the_message_nor_a_secret() -> None:
    [error] = _errors(_subscriber(_order), {"id": 1, "quantity": 13})
    assert error["msg"] == "Value error, 13 is not sold at redis://***@cache"
    [error] = _errors(_subscriber(_order), {"id": 1, "quantity": 14})
    assert error["msg"] == "The validation of the message raised KeyError"
    assert "tell-nobody" not in str(_errors(_subscriber(_order), {"id": "tell-nobody"}))


async def _several(user: str, age: Annotated[int, Field(alias="years")] = 1) -> None:
    raise NotImplementedError


def _quantity(quantity: int, message: NatsMessage) -> int:
    raise NotImplementedError


async def _dependent(order: int, quantity: int = Depends(_quantity)) -> None:
    raise NotImplementedError


async def _any_number(*values: Any) -> None:
    raise NotImplementedError


async def _untyped(message) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 (as some applications)
    raise NotImplementedError


async def _raw(message: NatsMessage) -> None:
    raise NotImplementedError


async def _aliased(order: Annotated[int, Field(alias="number")]) -> None:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("handler", "message", "errors"),
    [
        (_several, {"user": "Ann", "years": 7}, []),
        (_several, {"user": "Ann"}, []),
        (_several, ["Ann", 7], []),
        (_several, ["Ann"], []),
        (_several, ["Ann", "x"], [("years", "int_parsing")]),
        (_several, {"years": "x"}, [("user", "missing"), ("years", "int_parsing")]),
        (_several, "Ann", [("arguments_type",)]),
        (_several, 7, [("arguments_type",)]),
        (_dependent, {"order": 1, "quantity": 2}, []),
        (_dependent, {"order": 1}, [("quantity", "missing")]),
        (_any_number, [1, "x", None], []),
        (_any_number, [], []),
        (_any_number, 1, [("arguments_type",)]),
        (_untyped, {"anything": [1]}, []),
        (_untyped, None, []),
        # It reads the message itself.
        (_raw, {"anything": [1]}, []),
        (_aliased, 7, []),
        (_aliased, "x", [("int_parsing",)]),
    ],
)
def test_the_parameters_of_a_handler_are_the_fields_of_its_message(
    handler: Any, message: object, errors: list[Any]
) -> None:
    assert _brief(_errors(_subscriber(handler), message)) == errors


def test_one_of_several_handlers_has_to_accept_a_message() -> None:
    subscriber: Any = NatsBroker().subscriber("orders")

    async def text(message: str) -> None:
        raise NotImplementedError

    async def number(message: int) -> None:
        raise NotImplementedError

    subscriber(text, filter=lambda message: message.headers.get("kind") == "text")
    subscriber(number)

    assert _errors(subscriber, 7) == []
    assert _errors(subscriber, "seven") == []
    assert _brief(_errors(subscriber, [])) == [("text", "string_type"), ("number", "int_type")]


def test_a_message_is_one_item_of_a_batch() -> None:
    broker = KafkaBroker()
    subscriber: Any = broker.subscriber("orders", batch=True)

    async def orders(batch: list[Order]) -> None:
        raise NotImplementedError

    subscriber(orders)
    assert _errors(subscriber, {"id": 7}) == []
    assert _brief(_errors(subscriber, {"id": "x"})) == [("id", "int_parsing")]
    publisher = broker.publisher("shipped", batch=True, schema=list[int])
    assert _errors(publisher, 7) == []
    assert _brief(_errors(publisher, "x")) == [("int_parsing",)]


@pytest.mark.parametrize("wrapped", [True, False])
def test_msgspec_validates_its_structs(wrapped: bool) -> None:
    async def handle(stock: Stock) -> None:
        raise NotImplementedError

    subscriber = _subscriber(handle, serializer=MsgSpecSerializer(use_fastdepends_errors=wrapped))
    assert _errors(subscriber, {"id": 7, "codes": [1]}) == []
    [error] = _errors(subscriber, {"id": 7, "codes": [1, "x"]})
    assert error == {"loc": ["codes", 1], "msg": "Expected `int`, got `str`", "type": "validation"}


def test_errors_of_fast_depends_have_their_cause() -> None:
    subscriber = _subscriber(_order, serializer=PydanticSerializer(use_fastdepends_errors=True))
    assert _brief(_errors(subscriber, {})) == [("id", "missing")]


@pytest.mark.parametrize("options", [{"serializer": None}, {"apply_types": False}])
def test_what_the_application_declares_counts_even_where_it_does_not_validate(options: Any) -> None:
    assert _brief(_errors(_subscriber(_order, **options), {})) == [("id", "missing")]


def test_a_publisher_declares_what_it_sends() -> None:
    broker = NatsBroker()

    @broker.publisher("numbers")
    async def number() -> int:
        raise NotImplementedError

    @broker.publisher("nothing")
    async def nothing() -> None:
        raise NotImplementedError

    @broker.publisher("responses")
    async def response() -> Response:
        raise NotImplementedError

    @broker.publisher("untyped")
    async def untyped():  # type: ignore[no-untyped-def]  # noqa: ANN202 (as some applications)
        raise NotImplementedError

    broker.publisher("orders", schema=Order)
    publishers: dict[str, Any] = {publisher.specification.name: publisher for publisher in broker.publishers}
    assert _errors(publishers["numbers:Publisher"], 7) == []
    assert _brief(_errors(publishers["numbers:Publisher"], "x")) == [("int_parsing",)]
    assert _brief(_errors(publishers["orders:Publisher"], {"id": "x"})) == [("id", "int_parsing")]
    for name in ("nothing", "responses", "untyped"):
        assert _errors(publishers[f"{name}:Publisher"], object()) == []
