"""The endpoint that publishes: every status, every refusal, and the audit lines; see docs/publishing.md."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from faststream import BaseMiddleware, PublishCommand
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker, NatsMessage
from pydantic import BaseModel

from faststream_adapters import AsgiFastStream, AsyncAPIRoute, BrokerLifespan, Request, make_publish_asgi
from faststream_adapters.testing import app_client, in_memory
from tests.harness.asgi_calls import Reply, exchange, http_scope, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from faststream.asgi.types import ASGIApp

SECRET = "tell-nobody"


class Order(BaseModel):
    id: int
    note: str = ""


class Shop:
    """A service with the endpoint, in memory."""

    def __init__(self, **keywords: Any) -> None:
        self.broker = NatsBroker()
        self.handled: list[tuple[Any, dict[str, str]]] = []
        self.commands: list[PublishCommand] = []

        @self.broker.subscriber("orders")
        async def handle(order: Order, message: NatsMessage) -> None:
            self.handled.append((order, message.headers))

        @self.broker.subscriber("sums")
        async def add(numbers: list[int]) -> int:
            return sum(numbers)

        @self.broker.subscriber("orders.*")
        async def every(order: Order, message: NatsMessage) -> None:
            self.handled.append((order, {"subject": message.raw_message.subject}))

        self.broker.publisher("bills", schema=int, headers={"kind": "bill"})
        self.lifespan = BrokerLifespan(self.broker)
        self.endpoint = make_publish_asgi(self.lifespan, **{"authorize": lambda _: True, **keywords})

    def observe(self) -> None:
        commands = self.commands

        class Observer(BaseMiddleware):
            async def publish_scope(
                self, call_next: Callable[[Any], Awaitable[Any]], cmd: PublishCommand
            ) -> Any:
                commands.append(cmd)
                return await call_next(cmd)

        self.broker.add_middleware(Observer)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Shop]:
        self.observe()
        with in_memory():
            async with self.lifespan:
                yield self

    async def post(self, body: object, *, content_type: str = "application/json", **headers: str) -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await post(self.endpoint, data, content_type, headers)


async def post(app: ASGIApp, data: bytes, content_type: str, headers: dict[str, str]) -> Reply:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    all_headers = {"host": "shop.example", "content-type": content_type, **sent}
    return await request(app, http_scope("/", "POST", headers=all_headers.items()), data)


def detail(reply: Reply) -> str:
    text: str = json.loads(reply.body)["detail"]
    return text


ORDER = {"channel": "orders", "message": {"id": 7, "note": SECRET}}
EVERY = {"channel": "orders.*", "message": {"id": 7}}


# --- the API ---


async def test_a_message_is_published_as_the_application_would() -> None:
    async with Shop().running() as shop:
        reply = await shop.post({**ORDER, "headers": {"x-request-id": "r-1"}})
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
        assert reply.headers["cache-control"] == "no-store"
        result = json.loads(reply.body)
        [(order, headers)] = shop.handled
    correlation_id = result.pop("correlation_id")
    assert result == {"detail": "Published.", "channel": "orders:Handle", "published": True}
    assert order == Order(id=7, note=SECRET)
    assert (headers["x-request-id"], headers["correlation_id"]) == ("r-1", correlation_id)
    [command] = shop.commands
    assert (command.destination, command.body) == ("orders", {"id": 7, "note": SECRET})


async def test_a_publisher_adds_what_it_declares() -> None:
    async with Shop().running() as shop:
        assert (await shop.post({"channel": "bills:Publisher", "message": 7})).status == 200
    [command] = shop.commands
    assert (command.destination, command.body, command.headers["kind"]) == ("bills", 7, "bill")


@pytest.mark.parametrize("only", [False, True])
async def test_a_message_goes_to_one_destination_of_a_pattern(
    only: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "faststream.adapters.publish")
    async with Shop().running() as shop:
        reply = await shop.post({**EVERY, "destination": "orders.7", "validate_only": only})
    assert (reply.status, json.loads(reply.body)["published"]) == (200, not only)
    assert shop.handled == ([] if only else [(Order(id=7), {"subject": "orders.7"})])
    [audited] = [each for each in caplog.records if each.name == "faststream.adapters.publish"]
    fields = vars(audited)
    assert (fields["channel"], fields["destination"]) == ("orders.*:Every", "orders.7")
    assert "Channel orders.*:Every to orders.7, client" in audited.getMessage()


async def test_the_reply_of_a_subscriber_is_returned() -> None:
    async with Shop().running() as shop:
        reply = await shop.post({"channel": "sums", "message": [1, 2, 3]})
        assert (reply.status, json.loads(reply.body)["reply"]) == (200, 6)
        assert detail(reply) == "Published, and the subscriber replied."


async def test_nothing_is_published_if_it_is_only_validated() -> None:
    shop = Shop()
    # Without a broker that is up, too.
    for body, status in ((ORDER, 200), ({"channel": "orders", "message": {}}, 422)):
        assert (await shop.post({**body, "validate_only": True})).status == status
    async with shop.running():
        reply = await shop.post({"channel": "sums", "message": [1], "validate_only": True})
        result = json.loads(reply.body)
        assert (reply.status, result["published"], "reply" in result) == (200, False, False)
    assert (shop.commands, shop.handled) == ([], [])


async def test_a_message_that_is_not_declared_is_422_with_the_fields() -> None:
    async with Shop().running() as shop:
        reply = await shop.post({"channel": "orders", "message": {"id": SECRET}})
        assert reply.status == 422
        assert json.loads(reply.body) == {
            "detail": "The message is not what the channel declares.",
            "errors": [
                {
                    "loc": ["message", "id"],
                    "msg": "Input should be a valid integer, unable to parse string as an integer",
                    "type": "int_parsing",
                }
            ],
        }
    assert shop.commands == []


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"channel": "nowhere", "message": 1}, 404, "declares no such channel"),
        ({"channel": "", "message": 1}, 404, "declares no such channel"),
        ({"channel": "order", "message": 1}, 404, "Did you mean 'orders:Handle'?"),
        ({"channel": "sums:Ad", "message": 1}, 404, "Did you mean 'sums:Add'?"),
        ({"channel": "orders" * 100, "message": 1}, 404, 'no such channel."'),
        ({"channel": "elsewhere", "message": 1}, 404, 'no such channel."'),
        ({"channel": "orders.*", "message": {"id": 1}}, 422, "the channel is a pattern"),
        ({**EVERY, "destination": ""}, 422, "the channel is a pattern"),
        ({**EVERY, "destination": "bills.7"}, 422, "should be one destination that orders.* covers"),
        ({**EVERY, "destination": "orders.*"}, 422, "should be one destination that orders.* covers"),
        ({**EVERY, "destination": "orders.7\r\nPUB x 1"}, 422, '"loc":["destination"]'),
        ({**EVERY, "destination": "orders.\u2028"}, 422, "without spaces"),
        ({**EVERY, "destination": "orders.a b"}, 422, "without spaces"),
        ({**EVERY, "destination": 7}, 422, "should be a string"),
        ({**EVERY, "destination": f"orders.{'é' * 125}"}, 422, "at most 255 bytes"),
        ({**ORDER, "destination": "orders"}, 422, "Only a channel that is a pattern has several"),
        ({"channel": "orders.7", "message": {"id": 1}}, 404, "orders.*:Every covers it: send that as"),
        ({"channel": "orders"}, 422, '"loc":["message"]'),
        ({**ORDER, "headers": {"Nats-Rollup": "sub"}}, 422, '"loc":["headers","Nats-Rollup"]'),
        ({**ORDER, "headers": {"Reply_To": "elsewhere"}}, 422, "sets this header"),
        ({**ORDER, "headers": {"a": "1\r\nNats-Rollup: sub"}}, 422, "without control characters"),
        (b'{"channel": "orders", "message": NaN}', 400, "NaN is not JSON"),
        (b"\xff", 400, "not UTF-8"),
        (b"", 400, "not JSON"),
    ],
)
async def test_a_request_that_cannot_be_done_says_why(body: Any, status: int, text: str) -> None:
    async with Shop().running() as shop:
        reply = await shop.post(body)
        assert reply.status == status
        assert (
            text in reply.body.decode().replace('": ', '":').replace(", ", ",") or text in reply.body.decode()
        )
    assert shop.commands == []


async def test_an_address_of_several_channels_is_422_with_their_names() -> None:
    shop = Shop()
    shop.broker.publisher("orders", schema=Order)
    reply = await shop.post(ORDER)
    assert reply.status == 422
    assert "orders:Handle, orders:Publisher" in reply.body.decode()
    assert (await shop.post({**ORDER, "channel": "orders:Handle", "validate_only": True})).status == 200


# --- sizes ---


async def test_a_body_over_one_mebibyte_is_413() -> None:
    async with Shop().running() as shop:
        largest = json.dumps({"channel": "orders", "message": {"id": 1, "note": ""}}).encode()
        largest = largest.replace(b'""', b'"' + b"x" * (2**20 - len(largest)) + b'"')
        assert len(largest) == 2**20
        assert (await shop.post(largest)).status == 200
        assert (await shop.post(largest + b" ")).status == 413
        assert len(shop.handled) == 1


@pytest.mark.parametrize("length", ["1048577", "9" * 5000])
async def test_a_length_over_one_mebibyte_is_413_before_the_body_is_read(length: str) -> None:
    scope = http_scope(
        "/", "POST", headers=[("content-type", "application/json"), ("content-length", length)]
    )
    start, _ = await exchange(Shop().endpoint, scope)
    assert start["status"] == 413


@pytest.mark.parametrize("length", [None, "10", "x"])
async def test_a_chunked_body_is_counted_while_it_is_read(length: str | None) -> None:
    headers = [("content-type", "application/json"), *([("content-length", length)] if length else [])]
    scope = http_scope("/", "POST", headers=headers)
    # The endless body is read up to the limit: another chunk would be an error of the test.
    chunk = {"type": "http.request", "body": b" " * 2**18, "more_body": True}
    start, _ = await exchange(Shop().endpoint, scope, *[chunk] * 5)
    assert start["status"] == 413


async def test_a_guard_that_reads_a_body_that_is_too_large_is_413() -> None:
    async def authorize(request: Request) -> bool:
        return bool(await request.body())

    assert (await Shop(authorize=authorize).post(b" " * (2**20 + 1))).status == 413


async def test_a_guard_may_read_the_body() -> None:
    async def authorize(request: Request) -> bool:
        return bool((await request.json())["channel"] == "orders")

    async with Shop(authorize=authorize).running() as shop:
        assert (await shop.post(ORDER)).status == 200
        assert (await shop.post({"channel": "sums", "message": [1]})).status == 403
        assert (await shop.post(b"{")).status == 400


async def test_a_client_that_disconnects_publishes_nothing() -> None:
    async with Shop().running() as shop:
        scope = http_scope("/", "POST", headers=[("content-type", "application/json")])
        half = {"type": "http.request", "body": json.dumps(ORDER).encode(), "more_body": True}
        start, _ = await exchange(shop.endpoint, scope, half, {"type": "http.disconnect"})
        assert start["status"] == 400
    assert shop.commands == []


# --- content types and methods ---


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=UTF-8", 200),
        ('application/json; charset="utf-8"', 200),
        ("application/json; charset=utf-16", 415),
        ("application/json; charset=utf-8; charset=utf-16", 415),
        ("text/plain", 415),
        ("text/plain;application/json", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/cloudevents+json", 415),
        ("", 415),
    ],
)
async def test_another_content_type_is_415(content_type: str, status: int) -> None:
    reply = await Shop().post({**ORDER, "validate_only": True}, content_type=content_type)
    assert reply.status == status


async def test_a_compressed_body_is_415() -> None:
    assert (await Shop().post(ORDER, content_encoding="gzip")).status == 415
    assert (await Shop().post({**ORDER, "validate_only": True}, content_encoding="identity")).status == 200


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_another_method_is_405(method: str) -> None:
    reply = await request(Shop().endpoint, http_scope("/", method))
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, POST")


async def test_head_is_as_get_without_a_body() -> None:
    endpoint = Shop().endpoint
    got, asked = [await request(endpoint, http_scope("/", method)) for method in ("GET", "HEAD")]
    assert (asked.status, asked.body) == (200, b"")
    assert asked.headers["content-length"] == got.headers["content-length"]


# --- who may ---


def test_there_is_no_endpoint_without_authorize() -> None:
    broker = NatsBroker()
    for make in (make_publish_asgi, lambda broker: AsgiFastStream(broker, publish_path="/publish")):
        with pytest.raises(SetupError, match=r"authorize=: a function that gets the Request"):
            make(broker)
    with pytest.raises(SetupError, match="authorize has no effect without publish_path"):
        AsgiFastStream(broker, authorize=lambda _: True)
    with pytest.raises(SetupError, match="authorize must be a function, not bool"):
        make_publish_asgi(broker, authorize=True)  # type: ignore[arg-type]
    with pytest.raises(SetupError, match="authorize is called with the request alone"):
        make_publish_asgi(broker, authorize=lambda: True)  # type: ignore[arg-type, misc]
    with pytest.raises(SetupError, match="authorize must not be a generator function"):
        AsgiFastStream(broker, publish_path="/publish", authorize=_generator)
    with pytest.raises(SetupError, match="timeout must be a number of seconds above 0"):
        make_publish_asgi(broker, authorize=lambda _: True, timeout=0)
    with pytest.raises(TypeError, match=r"Unknown keyword 'authorise'. Did you mean 'authorize'"):
        AsgiFastStream(broker, publish_path="/publish", authorise=lambda _: True)  # type: ignore[call-arg]


def _generator(request: Request) -> Any:
    yield request  # pragma: no cover (it is not called)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_who_is_not_admitted_gets_403_and_learns_nothing(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop(authorize=lambda request: request.headers.get("x-key") == "right")
    headers = [("content-type", "application/json"), ("x-key", "wrong")]
    scope = http_scope("/", method, headers=headers)
    reply = await request(shop.endpoint, scope, json.dumps(ORDER).encode())
    assert reply.status == 403
    assert b"orders" not in reply.body
    [record] = caplog.records
    assert (record.name, record.levelno) == ("faststream.adapters.publish", logging.WARNING)
    assert record.client == "127.0.0.1"  # type: ignore[attr-defined]
    assert "wrong" not in caplog.text


@pytest.mark.parametrize("headers", [{"origin": "http://evil.example"}, {"sec_fetch_site": "cross-site"}])
async def test_a_request_for_a_foreign_page_is_403_before_authorize_is_asked(headers: Any) -> None:
    def authorize(_: Request) -> bool:
        raise NotImplementedError

    assert (await Shop(authorize=authorize).post(ORDER, **headers)).status == 403
    assert (await Shop(authorize=authorize).post(b"", **headers)).status == 403


async def test_a_request_for_the_own_page_is_not_foreign() -> None:
    body = {**ORDER, "validate_only": True}
    own = {"origin": "http://shop.example", "sec_fetch_site": "same-origin"}
    assert (await Shop().post(body, **own)).status == 200


# --- the form ---


def _token(page: Reply) -> tuple[str, str]:
    """Return the token of a page and the cookie that came with it."""
    [token] = set(re.findall('name="token" value="([^"]+)"', page.body.decode()))
    return token, page.headers["set-cookie"].partition(";")[0]


FORM = "application/x-www-form-urlencoded"


async def test_the_form_of_the_page_publishes() -> None:
    async with Shop().running() as shop:
        page = await request(shop.endpoint, http_scope())
        token, cookie = _token(page)
        form = {"token": token, "channel": "orders:Handle", "message": '{"id": 7}', "headers": "x-a: 1"}
        reply = await shop.post(urlencode(form).encode(), content_type=FORM, cookie=cookie)
        assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "Published." in reply.body.decode()
        [(order, headers)] = shop.handled
        assert (order, headers["x-a"]) == (Order(id=7), "1")
        # The page that the form was answered with has a token of its own, and the first one stays valid.
        second, same = _token(reply)
        assert (second != token, same) == (True, cookie)
        for each in (token, second):
            form = {"token": each, "channel": "orders:Handle", "message": "{}", "headers": ""}
            reply = await shop.post(urlencode(form).encode(), content_type=FORM, cookie=cookie)
            assert reply.status == 422
            assert "Field required" in reply.body.decode()
            assert ">\n{}</textarea>" in reply.body.decode(), "the input is kept"
        form |= {"message": '{"id": 8}', "validate_only": "1"}
        reply = await shop.post(urlencode(form).encode(), content_type=FORM, cookie=cookie)
        assert (reply.status, len(shop.handled)) == (200, 1)
        assert "Nothing was published." in reply.body.decode()


async def test_a_form_without_the_token_of_its_page_is_403(caplog: pytest.LogCaptureFixture) -> None:
    async with Shop().running() as shop:
        token, cookie = _token(await request(shop.endpoint, http_scope()))
        _, other = _token(await request(shop.endpoint, http_scope()))
        for sent, kept in (("", cookie), (token[:-1] + "x", cookie), (token, ""), (token, other), ("", "")):
            form = {"token": sent, "channel": "orders:Handle", "message": '{"id": 7}'}
            reply = await shop.post(urlencode(form).encode(), content_type=FORM, cookie=kept)
            assert reply.status == 403
        assert (await shop.post(b"", content_type=FORM)).status == 403
        assert (await shop.post(b"channel", content_type=FORM)).status == 400
    assert shop.commands == []
    assert caplog.text.count("the form is not from this page") == 6
    assert token not in caplog.text


async def test_a_refused_browser_gets_a_page_that_says_so() -> None:
    reply = await Shop(authorize=lambda _: False).post(ORDER, accept="text/html,*/*")
    assert (reply.status, reply.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert "authorize does not allow it" in reply.body.decode()
    assert "set-cookie" not in reply.headers


async def test_a_form_for_a_channel_that_is_gone_is_404_on_the_page() -> None:
    shop = Shop()
    token, cookie = _token(await request(shop.endpoint, http_scope()))
    form = {"token": token, "channel": "gone", "message": "1"}
    reply = await shop.post(urlencode(form).encode(), content_type=FORM, cookie=cookie)
    assert reply.status == 404
    assert "declares no such channel" in reply.body.decode()


async def test_the_page_shows_the_reply_of_a_subscriber() -> None:
    async with Shop().running() as shop:
        token, cookie = _token(await request(shop.endpoint, http_scope()))
        form = {"token": token, "channel": "sums:Add", "message": "[1, 2]"}
        reply = await shop.post(urlencode(form).encode(), content_type=FORM, cookie=cookie)
    assert "<pre><code>3</code></pre>" in reply.body.decode()


# --- brokers that fail ---


async def test_a_broker_that_is_not_up_is_503() -> None:
    shop = Shop()
    reply = await shop.post(ORDER)
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert detail(reply) == "The broker is not up. Nothing was published."
    token, cookie = _token(await request(shop.endpoint, http_scope()))
    form = {"token": token, "channel": "orders:Handle", "message": '{"id": 7}'}
    page = await shop.post(urlencode(form).encode(), content_type=FORM, cookie=cookie)
    assert (page.status, page.headers["retry-after"]) == (503, "1")
    async with shop.running():
        assert (await shop.post(ORDER)).status == 200
    assert (await shop.post(ORDER)).status == 503


@pytest.mark.parametrize(("channel", "message"), [("orders", {"id": 7}), ("sums", [1])])
async def test_an_error_of_the_client_is_502_and_its_text_stays_here(
    channel: str, message: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with Shop().running() as shop:

        class Failing(BaseMiddleware):
            async def publish_scope(self, call_next: Any, cmd: PublishCommand) -> Any:
                msg = f"{SECRET}: {cmd.body}"
                raise RuntimeError(msg)

        shop.broker.add_middleware(Failing)
        reply = await shop.post({"channel": channel, "message": message})
    assert (reply.status, detail(reply)) == (
        502,
        "Publishing raised RuntimeError. The message may have been published.",
    )
    assert "publish_scope" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("channel", "message", "text"),
    [
        ("orders", {"id": 7}, "No confirmation of the broker in time. The message may have been"),
        ("sums", [1], "No reply within 0.01 s. The message may have been published."),
    ],
)
async def test_a_broker_that_does_not_answer_in_time_is_504(
    channel: str, message: object, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faststream_adapters._asyncapi.publish.endpoint._REPLY_MARGIN", 0.0)
    async with Shop(timeout=0.01).running() as shop:

        class Frozen(BaseMiddleware):
            async def publish_scope(self, call_next: Any, cmd: PublishCommand) -> Any:
                await asyncio.Event().wait()

        shop.broker.add_middleware(Frozen)
        reply = await shop.post({"channel": channel, "message": message})
    assert reply.status == 504
    assert text in detail(reply)


@pytest.mark.parametrize(
    ("returned", "reply"),
    [
        (b"caf\xe9", "caf\ufffd"),
        ("text", "text"),
        ({"a": [1, None]}, {"a": [1, None]}),
        ([float("nan")], None),
    ],
)
async def test_any_reply_is_shown(returned: Any, reply: Any) -> None:
    broker = NatsBroker()

    @broker.subscriber("ask")
    async def answer() -> Any:
        return returned

    lifespan = BrokerLifespan(broker)
    endpoint = make_publish_asgi(lifespan, authorize=lambda _: True)
    with in_memory():
        async with lifespan:
            data = json.dumps({"channel": "ask", "message": None}).encode()
            got = json.loads((await post(endpoint, data, "application/json", {})).body)["reply"]
    assert got == reply or (reply is None and got in ("[nan]", [None]))


# --- the audit lines ---


async def test_each_publish_writes_one_audit_line_without_the_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "faststream.adapters.publish")
    async with Shop().running() as shop:
        size = len(json.dumps(ORDER))
        published = json.loads((await shop.post(ORDER)).body)
        validated = json.loads((await shop.post({**ORDER, "validate_only": True})).body)
    failed = await shop.post(ORDER)
    assert failed.status == 503
    lines = [record for record in caplog.records if record.name == "faststream.adapters.publish"]
    assert [record.levelno for record in lines] == [logging.INFO, logging.INFO, logging.WARNING]
    first: Any = lines[0]
    assert first.getMessage() == (
        f"Published. Channel orders:Handle, client 127.0.0.1, {size} bytes, "
        f"correlation id {published['correlation_id']}."
    )
    assert (first.client, first.channel, first.size, first.correlation_id) == (
        "127.0.0.1",
        "orders:Handle",
        size,
        published["correlation_id"],
    )
    assert validated["correlation_id"] in lines[1].getMessage()
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("client", "shown"),
    [
        (None, "unknown"),
        (["203.0.113.7", 0], "203.0.113.7"),
        (("::1", 5), "::1"),
        (("x\r\nINFO Published\x1b[0m\u2028é", 0), r"x\r\nINFO Published\x1b[0m\u2028\xe9"),
        (("y" * 9999, 0), "y" * 64),
    ],
)
async def test_a_client_cannot_write_into_the_log(
    client: Any, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "faststream.adapters.publish")
    endpoint = Shop().endpoint
    scope = http_scope("/", "POST", headers=[("content-type", "application/json")], client=client)
    assert (
        await request(endpoint, scope, json.dumps({**ORDER, "validate_only": True}).encode())
    ).status == 200
    assert f"client {shown}, " in caplog.records[-1].getMessage()


async def test_the_lines_go_to_the_logger_of_the_application() -> None:
    lines: list[str] = []

    class Own:
        def log(self, level: int, message: object, **fields: Any) -> None:
            lines.append(str(message))

    app = AsgiFastStream(NatsBroker(), logger=Own(), publish_path="/publish", authorize=lambda _: False)
    async with app_client(app) as http:
        assert (await http.get("/publish")).status_code == 403
    assert any("Refused a request to publish" in line for line in lines)


# --- elsewhere ---


def test_the_page_of_the_documentation_refuses_to_publish() -> None:
    with pytest.raises(SetupError, match=r"try_it_out_path must be None.*publish_path"):
        AsyncAPIRoute("/docs", try_it_out_path="/try")


async def test_a_password_of_the_broker_is_not_on_the_page() -> None:
    broker = NatsBroker("nats://svc:hunter2@127.0.0.1:1")
    broker.publisher("bills", schema=int)
    page = await request(make_publish_asgi(broker, authorize=lambda _: True), http_scope())
    assert b"bills:Publisher" in page.body
    assert b"hunter2" not in page.body
