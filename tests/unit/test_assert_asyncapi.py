"""`assert_asyncapi` fails when the contract has changed, and for no other reason."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import faststream
import pytest
import yaml
from fastapi import Depends
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI
from pydantic import BaseModel, Field, create_model

from faststream_adapters import AsgiFastStream, BrokerLifespan, get
from faststream_adapters.fastapi import FastStreamRouter
from faststream_adapters.testing import assert_asyncapi, in_memory
from tests.harness.brokers import HARNESSES
from tests.harness.hosts import HOSTS
from tests.harness.secrets import POSITIONS, UNESCAPED, shown_part

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.harness.brokers import BrokerHarness
    from tests.harness.hosts import Host

UPDATE = "FASTSTREAM_ADAPTERS_UPDATE_ASYNCAPI"
VERSIONS = ("3.0.0", "2.6.0")


class Order(BaseModel):
    id: int
    item: str
    price: float = Field(0.5, description="In €")


async def process(order: Order) -> None:
    raise NotImplementedError


def shop(url: str = "nats://localhost:4222") -> NatsBroker:
    broker = NatsBroker(url)
    broker.subscriber("orders")(process)
    return broker


@pytest.fixture(autouse=True)
def no_update(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(UPDATE, raising=False)


@pytest.fixture
def update(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that writes the file."""

    def write(*args: Any, **keywords: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setenv(UPDATE, "1")
            assert_asyncapi(*args, **keywords)

    return write


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "asyncapi.json"


@pytest.fixture
def approved(file: Path, update: Callable[..., None]) -> Path:
    """Return a file with the document of the shop."""
    update(shop(), file)
    return file


def difference(app: Any, file: Path, **keywords: Any) -> str:
    """Return the message of the failure."""
    with pytest.raises(AssertionError) as caught:
        assert_asyncapi(app, file, **keywords)
    return str(caught.value)


# --- what is documented ---


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("host", HOSTS.values(), ids=list(HOSTS))
def test_a_change_fails_in_every_host_without_a_start(
    host: Host, version: str, file: Path, update: Callable[..., None]
) -> None:
    broker = shop()
    adapter, specification = host.adapter(broker), AsyncAPI(title="Shop", schema_version=version)
    update(adapter, file, specification=specification)
    assert json.loads(file.read_text(encoding="utf-8"))["asyncapi"] == version
    assert_asyncapi(adapter, file, specification=specification)
    broker.publisher("bills", schema=int)
    assert "added:   #/channels/bills:Publisher\n" in difference(adapter, file, specification=specification)
    assert adapter.broker_lifespan.state == "stopped"


@pytest.mark.parametrize("harness", HARNESSES.values(), ids=list(HARNESSES))
@pytest.mark.parametrize("suffix", ["json", "yaml", "yml"])
def test_every_broker_is_documented(
    harness: BrokerHarness, suffix: str, tmp_path: Path, update: Callable[..., None]
) -> None:
    def numbers(annotation: Any) -> Any:
        async def handle(number: int) -> None:
            raise NotImplementedError

        handle.__annotations__["number"] = annotation
        broker: Any = harness.broker(harness.unreachable_url())
        harness.subscribe(broker, "numbers", handle)
        return broker

    file = tmp_path / f"asyncapi.{suffix}"
    update(numbers(int), file)
    load: Callable[[str], Any] = json.loads if suffix == "json" else yaml.safe_load
    assert load(file.read_text(encoding="utf-8"))["servers"]["development"]["protocol"] == harness.protocol
    assert_asyncapi(numbers(int), file)
    assert "changed: #/components/schemas/Handle:Message:Payload/type\n" in difference(numbers(str), file)


def test_several_brokers_are_a_list(file: Path, update: Callable[..., None]) -> None:
    other = NatsBroker("nats://other:4222")
    other.publisher("bills", schema=int)
    update([shop(), other], file)
    assert_asyncapi((shop(), other), file)
    assert "removed: #/channels/bills:Publisher\n" in difference(shop(), file)


def test_apps_have_their_own_specification(file: Path, update: Callable[..., None]) -> None:
    @get(include_in_schema=True)
    async def prices() -> None:
        raise NotImplementedError

    specification = AsyncAPI(title="Shop", version="2.0.0")
    update(faststream.FastStream(shop(), specification=specification), file)
    assert json.loads(file.read_text(encoding="utf-8"))["info"] == {"title": "Shop", "version": "2.0.0"}
    assert_asyncapi(AsyncAPI(shop(), title="Shop", version="2.0.0"), file)
    app = AsgiFastStream(shop(), specification=specification, asgi_routes=[("/prices", prices)])
    assert "added:   #/channels/prices:HttpChannel\n" in difference(app, file)


def test_dependencies_of_the_host_are_no_part_of_messages(approved: Path) -> None:
    broker = NatsBroker("nats://localhost:4222")
    router = FastStreamRouter(broker)

    async def process(order: Order, table: Annotated[str, Depends(lambda: "orders")]) -> None:
        raise NotImplementedError

    broker.subscriber("orders")(process)
    assert_asyncapi(router, approved)


def test_models_that_are_local_to_a_test_are_described(approved: Path) -> None:
    class Tea(BaseModel):
        leaves: int

    broker = shop()

    @broker.subscriber("teas")
    async def brew(tea: Tea) -> None:
        raise NotImplementedError

    assert "added:   #/components/schemas/Tea\n" in difference(broker, approved)


@pytest.mark.parametrize("harness", HARNESSES.values(), ids=list(HARNESSES))
async def test_test_brokers_are_refused_because_they_add_subscribers(
    harness: BrokerHarness, file: Path, update: Callable[..., None]
) -> None:
    async def handle(number: int) -> None:
        raise NotImplementedError

    broker: Any = harness.broker(harness.unreachable_url())
    harness.subscribe(broker, "orders", handle)
    broker.publisher("bills", schema=int)
    lifespan = BrokerLifespan(broker)
    update(lifespan, file)
    with in_memory():
        async with lifespan():
            for function in (assert_asyncapi, update):
                with pytest.raises(SetupError, match="outside of app_client, in_memory and TestBrokers"):
                    function(lifespan, file)
    assert_asyncapi(lifespan, file)


# --- what does not count ---


def test_the_order_of_keys_and_of_required_fields_does_not_count(approved: Path) -> None:
    def reversed_order(node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        return {
            key: node[key][::-1] if key == "required" else reversed_order(node[key]) for key in reversed(node)
        }

    document = reversed_order(json.loads(approved.read_text(encoding="utf-8")))
    assert document["components"]["schemas"]["Order"]["required"] == ["item", "id"]
    approved.write_text(json.dumps(document), encoding="utf-8")
    assert_asyncapi(shop(), approved)


@pytest.mark.parametrize("version", VERSIONS)
def test_addresses_of_servers_do_not_count(version: str, file: Path, update: Callable[..., None]) -> None:
    update(AsyncAPI(shop(), schema_version=version), file)
    assert_asyncapi(AsyncAPI(shop("nats://user:secret@ci:1/path"), schema_version=version), file)
    # The file may be another tool's.
    document = json.loads(file.read_text(encoding="utf-8"))
    document["components"]["servers"] = document.pop("servers")
    key = "host" if version == "3.0.0" else "url"
    document["components"]["servers"]["development"][key] = "user:secret@production"
    file.write_text(json.dumps(document), encoding="utf-8")
    message = difference(AsyncAPI(shop(), schema_version=version), file)
    assert "secret" not in message
    assert "production" not in message


def test_the_order_of_registration_does_not_count(file: Path, update: Callable[..., None]) -> None:
    names = [f"orders.{number}" for number in range(6)]

    def shops(names: list[str]) -> NatsBroker:
        broker = NatsBroker("nats://localhost:4222")
        for name in names:
            broker.subscriber(name)(process)
            broker.publisher(f"{name}.done", schema=Order)
        return broker

    update(shops(names), file)
    content = file.read_bytes()
    assert_asyncapi(shops(names[::-1]), file)
    update(shops(names[::-1]), file)
    assert file.read_bytes() == content


def test_lists_outside_schemas_keep_their_order(file: Path, update: Callable[..., None]) -> None:
    def described(required: list[str]) -> NatsBroker:
        examples = [{"required": required}]
        model = create_model("Form", required=(list[str], Field(examples=examples)), other=(int, ...))
        broker = NatsBroker("nats://localhost:4222")
        broker.publisher("forms", schema=model)
        return broker

    update(described(["b", "a"]), file)
    assert_asyncapi(described(["b", "a"]), file)
    changed = "changed: #/components/schemas/Form/properties/required/examples\n"
    assert changed in difference(described(["a", "b"]), file)


@pytest.mark.parametrize(
    "make",
    [*POSITIONS.values(), *UNESCAPED.values()],
    ids=[*POSITIONS, *map("{}-unescaped".format, UNESCAPED)],
)
def test_the_file_contains_no_secret(
    make: Callable[[str, str], Any], file: Path, update: Callable[..., None]
) -> None:
    secret = "Hunter2abc/defghi"
    for version in VERSIONS:
        update(AsyncAPI(make(secret, "broker.example:4000"), schema_version=version), file)
        assert shown_part(secret, file.read_text(encoding="utf-8")) is None


# --- the file ---


@pytest.mark.parametrize("value", [None, "", "0"])
def test_a_missing_file_is_an_error_that_names_the_variable(
    value: str | None, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setenv(UPDATE, value)
    with pytest.raises(FileNotFoundError, match=rf"asyncapi\.json does not exist\. .*{UPDATE}=1"):
        assert_asyncapi(shop(), file)
    assert not file.exists()


def test_a_relative_path_is_relative_to_the_working_directory(
    approved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(approved.parent)
    assert_asyncapi(shop(), "asyncapi.json")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("asyncapi.json", b"<<<<<<< HEAD\n{}"),
        ("asyncapi.json", b""),
        ("asyncapi.json", b"\xff"),
        ("asyncapi.yaml", b"a: [\n"),
    ],
)
def test_a_broken_file_is_an_error_until_it_is_written_again(
    name: str, content: bytes, tmp_path: Path, update: Callable[..., None]
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"asyncapi\.\w+ cannot be read: (?s:.*){UPDATE}=1"):
        assert_asyncapi(shop(), file)
    update(shop(), file)
    assert_asyncapi(shop(), file)


@pytest.mark.parametrize(
    ("content", "change"),
    [
        ("", "changed: #\n"),
        ("[]", "changed: #\n"),
        ("2026-01-01: 2026-01-01\n3: x\nservers: []", "removed: #/2026-01-01\n"),
        ("components: {servers: [x]}\nservers: {a: b}", "removed: #/servers/a\n"),
    ],
)
def test_any_yaml_is_compared(content: str, change: str, tmp_path: Path) -> None:
    file = tmp_path / "asyncapi.yaml"
    file.write_text(content, encoding="utf-8")
    assert change in difference(shop(), file)


@pytest.mark.parametrize("name", ["asyncapi.txt", "asyncapi", "asyncapi.JSON"])
def test_other_suffixes_are_refused(name: str, tmp_path: Path, update: Callable[..., None]) -> None:
    for function in (assert_asyncapi, update):
        with pytest.raises(ValueError, match=rf"must end with \.json, \.yaml, \.yml, not '{name}'"):
            function(shop(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_yaml_requires_an_extra(
    tmp_path: Path, update: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "asyncapi.yaml"
    update(shop(), file)
    content = file.read_bytes()
    monkeypatch.setitem(sys.modules, "yaml", None)
    for function in (assert_asyncapi, update):
        with pytest.raises(ImportError, match=r"faststream-adapters\[docs\]"):
            function(shop(), file)
    assert file.read_bytes() == content


# --- the message ---


def test_the_message_names_the_path_and_shows_the_lines(approved: Path) -> None:
    class Order(BaseModel):
        id: str
        item: str
        amount: int = 1

    async def process(order: Order) -> None:
        raise NotImplementedError

    broker = NatsBroker("nats://localhost:4222")
    broker.subscriber("orders")(process)
    message = difference(broker, approved)
    head, changes, diff = message.split("\n\n")
    assert head == (
        f"The AsyncAPI document differs from {approved}. If this is intended, run this test with {UPDATE}=1, "
        "and commit the file."
    )
    assert changes.splitlines() == [
        "added:   #/components/schemas/Order/properties/amount",
        "changed: #/components/schemas/Order/properties/id/type",
        "removed: #/components/schemas/Order/properties/price",
    ]
    lines = diff.splitlines()
    assert lines[:2] == [f"--- {approved}", "+++ the application"]
    assert '-            "type": "integer"' in lines
    assert '-            "description": "In €",' in lines
    assert '+            "type": "string"' in lines


def test_pointers_are_escaped(file: Path, update: Callable[..., None]) -> None:
    update(shop(), file)
    document = json.loads(file.read_text(encoding="utf-8"))
    document["channels"]["a/b~c"] = {}
    file.write_text(json.dumps(document), encoding="utf-8")
    assert "removed: #/channels/a~1b~0c\n" in difference(shop(), file)


def test_truth_values_and_numbers_differ(file: Path, update: Callable[..., None]) -> None:
    def switch(default: Any) -> NatsBroker:
        broker = NatsBroker("nats://localhost:4222")
        model = create_model("Switch", on=(Any, default), other=(int, ...))
        broker.publisher("switches", schema=model)
        return broker

    update(switch(default=True), file)
    message = difference(switch(default=1), file)
    assert "changed: #/components/schemas/Switch/properties/on/default\n" in message


def test_the_message_is_bounded(file: Path, update: Callable[..., None]) -> None:
    broker = NatsBroker("nats://localhost:4222")
    update(broker, file)
    for number in range(40):
        broker.publisher(f"{number}.{'x' * 250}", schema=int)
    message = difference(broker, file)
    lines = message.splitlines()
    # Each publisher is a channel, a message, a payload and an operation.
    assert "… and 140 more changes" in lines
    assert lines[-1] == "… and more lines"
    assert len(lines) < 130
    assert max(map(len, lines[1:])) == 201
