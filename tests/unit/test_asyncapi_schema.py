"""Served documents are valid by the JSON Schema of the AsyncAPI specification."""

from __future__ import annotations

import json
from enum import Enum
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from faststream import Header
from faststream.nats import JStream, NatsBroker, NatsMessage
from faststream.specification import AsyncAPI, Contact, License, Tag
from jsonschema import Draft7Validator  # type: ignore[import-untyped]  # ships no types
from pydantic import BaseModel, Field

from faststream_adapters import make_asyncapi_asgi, make_liveness_asgi
from faststream_adapters.testing import assert_asyncapi
from tests.harness.clients import client

if TYPE_CHECKING:
    from collections.abc import Callable

    from faststream.specification.base import SpecificationFactory

SCHEMAS = Path(__file__).parent / "data" / "asyncapi"
VERSIONS = ("2.6.0", "3.0.0")


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Cup(BaseModel):
    size: Size
    sugar: int | None = Field(None, ge=0, le=5, examples=[2])
    inside: list[Cup] = []


def problems(document: dict[str, Any], version: str) -> list[str]:
    schema = json.loads((SCHEMAS / f"{version}.json").read_text(encoding="utf-8"))
    return [f"{error.json_path}: {error.message}" for error in Draft7Validator(schema).iter_errors(document)]


async def served(specification: SpecificationFactory, path: str = "/asyncapi.json") -> dict[str, Any]:
    async with client(make_asyncapi_asgi(specification)) as http:
        document: dict[str, Any] = (await http.get(path)).json()
    return document


async def served_page(specification: SpecificationFactory) -> str:
    async with client(make_asyncapi_asgi(specification, view="plain")) as http:
        return (await http.get("/")).text


def two_brokers() -> tuple[NatsBroker, NatsBroker]:
    """Return brokers for different servers, with all kinds of subscribers and publishers."""
    core = NatsBroker(
        ["nats://user:secret@one:4222", "nats://two:4222"], description="Core", tags=[Tag(name="core")]
    )
    streams = NatsBroker("nats://three:4222", description="JetStream")

    @core.subscriber("cups.{size}.full", queue="kitchen", title="Full", description="A cup is full")
    @core.publisher("cups.empty", schema=Cup, title="Empty", description="A cup is empty")
    async def drink(cup: Cup, message: NatsMessage, trace: Annotated[str, Header()]) -> Cup:
        raise NotImplementedError

    @core.subscriber("plain")
    async def anything(body: str | bytes | None) -> None:
        raise NotImplementedError

    @core.subscriber("two")
    async def two(first: int, second: Cup) -> None:
        raise NotImplementedError

    @streams.subscriber("orders.>", stream=JStream("orders"), pull_sub=True)
    async def order(cups: list[Cup]) -> None:
        raise NotImplementedError

    streams.publisher("orders.done", schema=int)
    return core, streams


@pytest.mark.parametrize("path", ["/asyncapi.json", "/viewer/asyncapi.json"])
@pytest.mark.parametrize("version", VERSIONS)
async def test_the_document_is_valid(version: str, path: str) -> None:
    core, streams = two_brokers()
    specification = AsyncAPI(
        core,
        streams,
        title="Tea house",
        version="1.2.3",
        schema_version=version,
        description="Serves **tea**",
        terms_of_service="https://terms.example",
        contact=Contact(name="The house", url="https://house.example"),
        license=License(name="MIT", url="https://licence.example"),
        tags=[Tag(name="tea", description="Leaves", external_docs={"url": "https://leaves.example"})],
        external_docs={"url": "https://wiki.example", "description": "More"},
        identifier="urn:example:tea",
    )
    specification.add_http_route("/livez", make_liveness_asgi(core))  # type: ignore[arg-type]  # has the same attributes
    document = await served(specification, path)
    assert document["asyncapi"] == version
    assert problems(document, version) == []
    assert set(document["servers"]) == {"Server1", "Server2", "Server3"}
    text = json.dumps(document)
    for each in ("one:4222", "two:4222", "three:4222", "cups.empty", "orders.done"):
        assert each in text, each
    assert ("livez" in text) == (path == "/asyncapi.json")
    assert "secret" not in text


@pytest.mark.parametrize("version", VERSIONS)
def test_the_file_of_assert_asyncapi_is_valid(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTSTREAM_ADAPTERS_UPDATE_ASYNCAPI", "1")
    file = tmp_path / "asyncapi.json"
    assert_asyncapi(two_brokers(), file, specification=AsyncAPI(schema_version=version))
    assert problems(json.loads(file.read_text(encoding="utf-8")), version) == []


# FastStream's other brokers, with the client library, the class and a URL of each.
KINDS = {
    "redis": ("redis", "RedisBroker", "redis://user:s3cret@host:6379/0"),
    "rabbit": ("aio_pika", "RabbitBroker", "amqp://user:s3cret@host:5672/shop"),
    "kafka": ("aiokafka", "KafkaBroker", "host:9092"),
}


@pytest.mark.parametrize("version", VERSIONS)
async def test_brokers_of_all_installed_kinds_in_one_document(version: str) -> None:
    """If only the NATS client is installed, the document contains two brokers of one kind."""
    brokers: list[Any] = [NatsBroker("nats://user:s3cret@host:4222"), NatsBroker("nats://s3cret@other:4222")]
    brokers += [
        getattr(import_module(f"faststream.{kind}"), name)(url)
        for kind, (library, name, url) in KINDS.items()
        if find_spec(library)
    ]
    for number, broker in enumerate(brokers):
        broker.publisher(f"number-{number}", schema=Cup)
    app = make_asyncapi_asgi(*brokers, specification=AsyncAPI(schema_version=version))
    async with client(app) as http:
        document = (await http.get("/asyncapi.json")).json()
        page = (await http.get("/")).text
    assert problems(document, version) == []
    assert len(document["servers"]) == len(brokers)
    assert len(document["channels"]) == len(brokers)
    for number, _ in enumerate(brokers):
        assert f"number-{number}" in page
    assert "s3cret" not in page + json.dumps(document)


def same_names(*, reverse: bool) -> list[NatsBroker]:
    """Return two brokers whose handlers, titles and publishers have the same names."""

    def handler(kind: Any) -> Any:
        async def handle(message: Any) -> None:
            raise NotImplementedError

        handle.__annotations__["message"] = kind
        return handle

    first, second = NatsBroker("nats://one:4222"), NatsBroker("nats://two:4222")
    declared: list[Callable[[], object]] = [
        lambda: first.subscriber("orders")(handler(int)),
        lambda: first.subscriber("orders", "workers")(handler(str)),
        lambda: first.subscriber("orders", "workers")(handler(str)),
        lambda: second.subscriber("orders")(handler(int)),
        lambda: first.subscriber("cups/small", title="a/b")(handler(int)),
        lambda: first.subscriber("cups/large", title="a.b")(handler(int)),
        lambda: first.publisher("bills", schema=int),
        lambda: first.publisher("bills", schema=int),
        lambda: second.publisher("bills", schema=str),
        lambda: second.publisher("bills2", schema=str, title="bills:Publisher2"),
    ]
    for declare in reversed(declared) if reverse else declared:
        declare()
    return [first, second]


@pytest.mark.parametrize("version", VERSIONS)
async def test_channels_of_one_name_are_all_in_the_document(version: str) -> None:
    document, other = [
        await served(AsyncAPI(*same_names(reverse=reverse), schema_version=version))
        for reverse in (False, True)
    ]
    assert problems(document, version) == []
    assert document == other, "the order of declarations does not matter"
    slash = "/" if version == "2.6.0" else "."
    channels = document["channels"]
    # What one broker declares twice in the same way is one channel.
    assert set(channels) == {
        "orders:Handle",
        "orders:Handle2",
        "orders:Handle3",
        "a.b",
        f"a{slash}b2",
        "bills:Publisher",
        "bills:Publisher2",
        "bills:Publisher3",
    }
    servers = [channels[key]["servers"] for key in ("orders:Handle", "orders:Handle2", "orders:Handle3")]
    assert servers[0] == servers[1] != servers[2]
    if version == "3.0.0":
        operations = document["operations"]
        assert len(operations) == len(document["components"]["messages"]) == len(channels)
        assert {each["channel"]["$ref"] for each in operations.values()} == {
            f"#/channels/{key}" for key in channels
        }
    page = await served_page(AsyncAPI(*same_names(reverse=False), schema_version=version))
    assert page.count('class="badge receive"') == 5
    assert page.count('class="badge send"') == 3


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_document_with_removed_links_is_valid(version: str) -> None:
    link: Any = {"name": "C", "url": "javascript:alert(1)", "x-own": 1}
    specification = AsyncAPI(
        NatsBroker("nats://host:4222"),
        schema_version=version,
        contact=link,
        license=link,
        external_docs={**link, "description": "D"},
    )
    document = await served(specification)
    assert problems(document, version) == []
    assert "javascript" not in json.dumps(document)


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_validation_detects_a_missing_property(version: str) -> None:
    document = await served(AsyncAPI(NatsBroker(), schema_version=version))
    assert problems(document, version) == []
    [server] = document["servers"].values()
    del server["protocol"]
    [problem] = problems(document, version)
    assert problem.startswith("$.servers.development: {")
