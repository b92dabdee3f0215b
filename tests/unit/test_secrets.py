"""No output contains a secret of a broker, wherever its client accepts one, and the host is still shown."""

from __future__ import annotations

import asyncio
import gc
import json
from html import escape
from time import process_time
from traceback import format_exception
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker
from faststream.nats.security import NatsToken
from faststream.specification import AsyncAPI
from hypothesis import example, given, settings
from nats.aio.client import RawCredentials

from faststream_adapters import BrokerLifespan, make_asyncapi_asgi
from faststream_adapters._brokers.registry import driver_for
from faststream_adapters._hosting.overview import overview
from faststream_adapters._utils.addresses import without_credentials
from faststream_adapters._utils.errors import shown_text
from faststream_adapters._utils.redaction import redact, related, without_secrets
from faststream_adapters._utils.secrets import protect
from tests.harness.asgi_calls import http_scope, request
from tests.harness.secrets import POSITIONS, SECRETS, UNESCAPED, shown_part

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "broker.example:4000"


async def documents(broker: Any) -> list[str]:
    """Return the AsyncAPI documents and pages of a broker, in both versions."""
    found = []
    for version in ("2.6.0", "3.0.0"):
        app = make_asyncapi_asgi(AsyncAPI(broker, schema_version=version))
        found += [
            (await request(app, http_scope(path))).body.decode()
            for path in ("/", "/asyncapi.json", "/asyncapi.yaml")
        ]
    return found


@pytest.mark.parametrize("make", POSITIONS.values(), ids=POSITIONS)
@settings(max_examples=5, deadline=None)
@given(secret=SECRETS)
@example("hunter@SeCrEt")
@example("a'b\"c d@e/f?g#h")
def test_names_documents_and_info_show_the_host_and_no_secret(
    make: Callable[[str, str], Any], secret: str
) -> None:
    broker = make(secret, HOST)
    outputs = [driver_for(broker).name, overview([BrokerLifespan(broker)]), *asyncio.run(documents(broker))]
    for output in outputs:
        assert shown_part(secret, output) is None
        assert HOST in output


@pytest.mark.parametrize("make", UNESCAPED.values(), ids=UNESCAPED)
@settings(max_examples=50, deadline=None)
@given(secret=SECRETS)
@example("Hunter2abc/defghi")
@example("Hunter2abc?defghi")
@example("Hunter2abc#defghi")
@example("Hunter2abc?x=@defghi")
def test_an_unescaped_password_is_not_shown(make: Callable[[str, str], Any], secret: str) -> None:
    try:
        broker = make(secret, HOST)
    except ValueError:
        # FastStream refuses some addresses.
        return
    outputs = [driver_for(broker).name, overview([BrokerLifespan(broker)]), *asyncio.run(documents(broker))]
    for output in outputs:
        assert shown_part(secret, output) is None
        assert HOST in output


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0?password=hunter@SeCrEt", "redis://127.0.0.1:6379/0"),
        ("redis://:p%40ss@[::1]:6379/1?db=2", "redis://[::1]:6379/1"),
        ("redis://u:p?q@host:1", "redis://host:1"),
        ("unix://user:hunter2@/run/redis.sock?password=SeCrEt", "unix:///run/redis.sock"),
        ("amqps://u:p@host:5671/?keyfile=/k/a@b.pem", "amqps://host:5671/"),
        ("amqp://u:p@host/orders@prod", "amqp://host"),
        ("amqp://u:p/q@host/orders", "amqp://host/orders"),
        ("nats://svc:Hunter2/abc@one:4222", "nats://one:4222"),
        ("nats://svc:Hunter2?x=abc@one:4222", "nats://one:4222"),
        ("nats://svc:Hunter2", "nats://***"),
        ("nats://u:p://q@one", "nats://one"),
        ("user:p://w@one:1", "one:1"),
        ("PLAINTEXT://one:9092,SSL://two:9093", "PLAINTEXT://one:9092,SSL://two:9093"),
        ("user:pa ss@kafka:9092", "kafka:9092"),
        ("::1", "::1"),
        ("user:pass word", "***"),
        ("", ""),
    ],
)
def test_the_shown_part_of_an_address(url: str, shown: str) -> None:
    assert without_credentials(url) == shown
    assert without_credentials(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('refused: "postgres://u:hun\'ter2@db/shop"', 'refused: "postgres://***@db/shop"'),
        ("no answer from nats://u:hun ter 2@one, retrying", "no answer from nats://***@one, retrying"),
        ("nats://a:b@one, nats://c:d@two", "nats://***@one, nats://***@two"),
        (
            "see http://127.0.0.1:80/x, or ask ops@example.com",
            "see http://127.0.0.1:80/x, or ask ops@example.com",
        ),
        ("connect user:pw@host:1 failed", "connect ***@host:1 failed"),
        ("GET /x?a=1&password=hun;ter,2&b=2", "GET /x?a=1&password=***&b=2"),
        ("redis://h:1/0?password=hunter@SeCrEt", "redis://h:1/0?password=***"),
        ("host=db password=hunter2 dbname=shop", "host=db password=*** dbname=shop"),
        ("sasl_plain_password=hunter2", "sasl_plain_password=***"),
        ('connect(password="it\'s \\"2\\"")', 'connect(password="***")'),
        ("{'password': 'hun ter2', 'port': 1}", "{'password': '***', 'port': 1}"),
        ("connect(password=settings.password, port=1)", "connect(password=settings.password, port=1)"),
        ("wrong token: expected an int", "wrong token: expected an int"),
        ("two lines\nnats://u:p@h\n", "two lines\nnats://***@h\n"),
        ("(://u:p@h", "***@h"),
    ],
)
def test_secrets_are_found_by_their_form(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown


def test_a_known_secret_is_removed_in_part_and_in_each_spelling() -> None:
    secret = "S3/cr%t'\"\\ p&ß0123"
    driver_for(broker := NatsBroker(security=NatsToken(secret)))
    for spelling in (secret, repr(secret), quote(secret), json.dumps(secret), escape(secret)):
        assert shown_part(secret, redact(f"wrong: {spelling}.")) is None
    assert redact("'ß0123' is not a port, S3/cr%") == "'ß0123' is not a port, ***"
    assert redact("a:p&ß0123:b, p&ß0123") == "a:***:b,***"
    del broker


def test_the_secrets_of_a_broker_that_is_gone_are_forgotten() -> None:
    driver_for(NatsBroker(security=NatsToken("correct-Horse-1")))
    gc.collect()
    assert redact("correct-Horse-1") == "correct-Horse-1"


def test_credentials_of_nats_and_bytes_are_secrets_but_paths_and_plain_names_are_not() -> None:
    owner = NatsBroker()
    protect(
        owner,
        {
            "user_credentials": RawCredentials("JWT-1234567"),
            "files": [("/etc/nats/user.creds",)],
            "username": "orders-service",
            "password": b"Horse-Battery",
            "ssl_password": "secret",
            "sasl.oauthbearer.token.endpoint.url": "https://login.example",
        },
    )
    text = "JWT-1234567 /etc/nats/user.creds orders-service Horse-Battery https://login.example secret"
    assert redact(text) == "*** /etc/nats/user.creds orders-service *** https://login.example secret"


@pytest.mark.parametrize("piece", ["a", "a.", "://", "x://u:p", "u:p@", "password=", "?password='"])
def test_long_text_takes_little_time(piece: str) -> None:
    driver_for(broker := NatsBroker("nats://svc:Correct-Horse-1@one"))
    text = f"{piece * (1_000_000 // len(piece))} @"
    started = process_time()
    redact(text)
    without_credentials(text)
    assert process_time() - started < 5.0
    del broker


def test_an_error_shows_no_known_secret_wherever_it_is() -> None:
    driver_for(broker := NatsBroker(security=NatsToken("Correct-Horse-1")))
    hidden = KeyError("Correct-Horse-1")
    hidden.__suppress_context__ = True
    hidden.__context__ = ValueError("'Correct-H' is not a port")
    group = ExceptionGroup("two", [LookupError("fine"), ExceptionGroup("one", [hidden])])
    outer = RuntimeError("no start")
    outer.__context__ = group
    outer.__suppress_context__ = True
    for error in (hidden, group, outer):
        copy: Exception = without_secrets(error)
        assert isinstance(copy, type(error))
        for each in related(copy):
            assert shown_part("Correct-Horse-1", "".join([*format_exception(each), repr(each)])) is None
    assert shown_text(SetupError("wrong: Correct-Horse-1")) == "wrong: ***"
    del broker
