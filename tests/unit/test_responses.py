"""What a response sends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from faststream.asgi import AsgiResponse as UpstreamResponse
from faststream.asgi.response import JSONResponse as UpstreamJSONResponse

from faststream_adapters import AsgiResponse, JSONResponse
from tests.asgi_calls import exchange, http_scope, request


async def test_body_status_and_headers() -> None:
    response = AsgiResponse(b"body", 201, {"X-One": "1", "Content-Type": "text/plain"})
    reply = await request(response, http_scope())
    assert reply.status == 201
    assert reply.body == b"body"
    assert reply.raw_headers == [
        (b"x-one", b"1"),
        (b"content-type", b"text/plain"),
        (b"content-length", b"4"),
    ]


async def test_defaults_are_an_empty_200() -> None:
    assert await request(AsgiResponse(), http_scope()) == (200, [(b"content-length", b"0")], b"")


@pytest.mark.parametrize("status", [204, 304])
async def test_no_content_length_where_http_has_none(status: int) -> None:
    assert await request(AsgiResponse(b"", status), http_scope()) == (status, [], b"")


@pytest.mark.parametrize("status", [200, 404, 405, 500, 503])
async def test_an_empty_body_has_its_length_too(status: int) -> None:
    # Without it a server has to use chunks, or to close the connection.
    reply = await request(AsgiResponse(b"", status), http_scope())
    assert reply.headers == {"content-length": "0"}


async def test_a_given_content_length_is_kept() -> None:
    reply = await request(AsgiResponse(b"body", headers={"CONTENT-LENGTH": "4"}), http_scope())
    assert reply.raw_headers == [(b"content-length", b"4")]


@pytest.mark.parametrize("response", [AsgiResponse(b"body"), JSONResponse("body")])
async def test_head_gets_the_headers_of_get(response: AsgiResponse) -> None:
    get = await request(response, http_scope())
    head = await request(response, http_scope(method="HEAD"))
    assert head == (get.status, get.raw_headers, b"")


async def test_a_response_can_be_sent_again() -> None:
    response = AsgiResponse(b"body")
    assert await request(response, http_scope()) == await request(response, http_scope())


async def test_what_a_middleware_adds_is_not_in_the_next_response() -> None:
    response = AsgiResponse(b"body", headers={"X-One": "1"})
    for _ in range(2):
        start, _body = await exchange(response, http_scope())
        assert len(start["headers"]) == 2
        start["headers"].append((b"x-request-id", b"secret"))
    assert await request(response, http_scope()) == (
        200,
        [(b"x-one", b"1"), (b"content-length", b"4")],
        b"body",
    )


async def test_the_headers_are_the_ones_of_the_moment() -> None:
    headers = {"X-One": "1"}
    response = AsgiResponse(b"", 204, headers)
    headers["X-One"] = "2"
    assert (await request(response, http_scope())).headers == {"x-one": "1"}


async def test_a_websocket_is_closed() -> None:
    sent = await exchange(AsgiResponse(b"body"), {"type": "websocket", "path": "/"})
    assert [message["type"] for message in sent] == ["websocket.close"]


@pytest.mark.parametrize("response", [AsgiResponse(b"secret", 201), JSONResponse(b"secret", 201)])
def test_repr_does_not_show_the_body(response: AsgiResponse) -> None:
    assert repr(response) == f"{type(response).__name__}(status_code=201, 6 bytes)"


@pytest.mark.parametrize(
    ("data", "body"),
    [
        ({"a": [1, None, True]}, {"a": [1, None, True]}),
        ("text", "text"),
        (None, None),
        ([], []),
        ("é", "é"),
        (b'{"sent": "as it is"}', {"sent": "as it is"}),
    ],
)
async def test_json(data: Any, body: Any) -> None:
    response = JSONResponse(data, 202, {"X-One": "1"})
    assert isinstance(response, AsgiResponse)
    reply = await request(response, http_scope())
    assert reply.status == 202
    assert json.loads(reply.body) == body
    assert reply.headers == {
        "content-type": "application/json",
        "x-one": "1",
        "content-length": str(len(reply.body)),
    }


def test_what_is_not_json_is_refused_at_once() -> None:
    with pytest.raises(TypeError):
        JSONResponse(object())


@pytest.mark.parametrize("name", ["Content-Type", "content-type", "CONTENT-TYPE"])
async def test_a_given_content_type_wins(name: str) -> None:
    reply = await request(JSONResponse({}, headers={name: "application/problem+json"}), http_scope())
    assert reply.raw_headers == [(b"content-type", b"application/problem+json"), (b"content-length", b"2")]


@pytest.mark.parametrize(
    "arguments",
    [
        (b"body", 200, {"X-One": "1"}),
        (b"", 204, None),
        (b"body",),
        (b"body", 500, {"Content-Length": "4", "Content-Type": "text/plain"}),
    ],
)
async def test_the_same_bytes_as_upstream(arguments: tuple[Any, ...]) -> None:
    theirs = await exchange(UpstreamResponse(*arguments), http_scope())
    assert await exchange(AsgiResponse(*arguments), http_scope()) == theirs


@pytest.mark.parametrize("data", [{"a": 1}, "é", b"[]"])
async def test_the_same_json_as_upstream(data: Any) -> None:
    theirs = await exchange(UpstreamJSONResponse(data, 201, {"X-One": "1"}), http_scope())
    assert await exchange(JSONResponse(data, 201, {"X-One": "1"}), http_scope()) == theirs
