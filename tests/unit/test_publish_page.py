"""The page: its forms, what it shows of a message, and names that try to be markup."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any, Literal
from uuid import UUID

import pytest
from faststream.kafka import KafkaBroker
from faststream.nats import NatsBroker
from faststream.redis import RedisBroker
from pydantic import BaseModel, Field

from faststream_adapters import make_publish_asgi
from faststream_adapters._asyncapi.publish.channels import Channels
from faststream_adapters._lifecycle.targets import TargetView
from tests.harness.asgi_calls import Reply, http_scope, request

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\n</textarea></title>"


async def _page(*brokers: Any) -> Reply:
    return await request(make_publish_asgi(*brokers, authorize=lambda _: True), http_scope())


def _sample(broker: Any) -> Any:
    [channel] = Channels(TargetView([broker])).all()
    return channel.sample


class _Elements(HTMLParser):
    """Collects the elements of a page, and checks that each is closed in order."""

    VOID = frozenset({"meta", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag == name]


async def handle(number: int) -> None:
    raise NotImplementedError


async def test_hostile_names_and_texts_stay_texts() -> None:
    class Order(BaseModel):
        """</pre><script>alert(3)</script>."""

        name: Literal["</textarea><script>alert(4)</script>"]

    broker = NatsBroker()
    broker.subscriber("orders", title=HOSTILE)(handle)
    broker.subscriber("</summary><script>alert(5)</script>")(handle)
    broker.publisher("x" * 5000, schema=Order)
    page = (await _page(broker)).body.decode()
    elements = _Elements(page)
    assert len(elements.of("script")) == 1, "our own"
    assert not elements.of("img")
    names = {each["value"] for each in elements.of("input") if each["name"] == "channel"}
    assert HOSTILE in names
    assert "onerror=alert" not in page.replace("onerror=alert(2)&gt;", "")


async def test_the_page_loads_nothing_and_sends_forms_to_itself_only() -> None:
    broker = NatsBroker()
    broker.subscriber("orders")(handle)
    reply = await _page(broker)
    policy = reply.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "form-action 'self'", "frame-ancestors 'none'"} <= set(policy)
    [script] = re.findall("<script>(.*?)</script>", reply.body.decode(), re.DOTALL)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy, "only our own script runs"
    # With `no-referrer`, browsers would send `Origin: null` with the form.
    assert reply.headers["referrer-policy"] == "same-origin"
    assert reply.headers["cache-control"] == "no-store"
    elements = _Elements(reply.body.decode())
    [form] = elements.of("form")
    assert (form["method"], form["action"]) == ("post", "#outcome")
    labels = {each["for"] for each in elements.of("label")}
    assert (
        labels
        == {each["id"] for each in elements.of("textarea")}
        == {"channel-1-message", "channel-1-headers"}
    )


async def test_channels_are_grouped_by_broker() -> None:
    nats, redis = NatsBroker(), RedisBroker()
    nats.subscriber("orders")(handle)
    redis.publisher("bills", schema=int)
    nats.subscriber("logs.*")(handle)
    nats.subscriber("more")(handle)
    page = (await _page(nats, redis)).body.decode()
    assert page.index("<h2>NatsBroker 1</h2>") < page.index("<h2>RedisBroker 1</h2>")
    assert page.count('method="post"') == 4
    assert page.count('name="destination"') == 1, "only a pattern has several destinations"
    assert "Destination, which logs.* covers" in page
    assert '<details class="card" id="channel-1" open' not in page, "closed where there are many"


async def test_a_channel_that_cannot_be_published_to_says_why() -> None:
    broker = KafkaBroker()
    broker.subscriber(pattern="orders.*")(handle)
    page = (await _page(broker)).body.decode()
    assert "Only its consumer knows which" in page
    assert "<form" not in page


async def test_without_channels_the_page_says_so() -> None:
    assert "The application declares no channel." in (await _page(NatsBroker())).body.decode()


# --- examples ---


class Line(BaseModel):
    text: str
    count: int = Field(2, ge=1)


class Order(BaseModel):
    id: UUID
    lines: list[Line]
    given: str = Field(examples=["Ann"])


class Endless(BaseModel):
    inner: Endless


def test_a_form_begins_with_a_valid_example() -> None:
    broker = NatsBroker()

    @broker.subscriber("orders")
    async def orders(message: Order) -> None:
        raise NotImplementedError

    sample = _sample(broker)
    assert sample.schema["title"] == "Order"
    order = Order.model_validate_json(sample.text)
    assert (order.lines[0].count, order.given) == (2, "Ann")


def test_the_example_of_a_batch_is_one_item() -> None:
    broker = KafkaBroker()
    batch: Any = broker.subscriber("orders", batch=True)

    async def orders(messages: list[Line]) -> None:
        raise NotImplementedError

    batch(orders)
    assert Line.model_validate_json(_sample(broker).text).count == 2


def test_several_handlers_have_the_example_of_the_first() -> None:
    broker = NatsBroker()
    subscriber: Any = broker.subscriber("orders")

    async def number(message: Literal[7]) -> None:
        raise NotImplementedError

    async def text(message: str) -> None:
        raise NotImplementedError

    subscriber(number, filter=lambda _: True)
    subscriber(text)
    sample = _sample(broker)
    assert (sample.text, len(sample.schema["oneOf"])) == ("7", 2)


def test_a_message_without_a_possible_example_has_none() -> None:
    broker = NatsBroker()
    broker.publisher("bills", schema=Endless)
    assert _sample(broker).text == ""


def test_an_untyped_message_has_no_example() -> None:
    broker = NatsBroker()
    broker.publisher("bills")
    assert _sample(broker).text == ""


async def test_a_message_that_cannot_be_described_has_a_form_nevertheless() -> None:
    class Opaque:
        """No JSON schema."""

    broker = NatsBroker()

    @broker.subscriber("orders")
    async def orders(message: Opaque) -> None:
        raise NotImplementedError

    assert _sample(broker).schema is None
    page = (await _page(broker)).body.decode()
    assert 'method="post"' in page
    assert "JSON Schema" not in page


@pytest.mark.parametrize("count", [100])
async def test_many_channels_are_shown(count: int) -> None:
    broker = NatsBroker()
    for number in range(count):
        broker.publisher(f"bills.{number}", schema=int)
    page = (await _page(broker)).body.decode()
    assert page.count('method="post"') == count
