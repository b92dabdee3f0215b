"""The messages that a response sends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from faststream.asgi import AsgiResponse as UpstreamResponse
from faststream.asgi.response import JSONResponse as UpstreamJSONResponse
from hypothesis import example, given, settings
from hypothesis import strategies as st

from faststream_adapters import AsgiResponse, JSONResponse
from tests.harness.asgi_calls import exchange, http_scope, request


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


async def test_the_default_is_an_empty_200() -> None:
    assert await request(AsgiResponse(), http_scope()) == (200, [(b"content-length", b"0")], b"")


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_a_body_have_no_content_length(status: int) -> None:
    assert await request(AsgiResponse(b"", status), http_scope()) == (status, [], b"")


@pytest.mark.parametrize("status", [200, 404, 405, 500, 503])
async def test_an_empty_body_has_a_content_length(status: int) -> None:
    # Without a content length, a server must use chunked encoding or close the connection.
    reply = await request(AsgiResponse(b"", status), http_scope())
    assert reply.headers == {"content-length": "0"}


async def test_a_given_content_length_is_kept() -> None:
    reply = await request(AsgiResponse(b"body", headers={"CONTENT-LENGTH": "4"}), http_scope())
    assert reply.raw_headers == [(b"content-length", b"4")]


@pytest.mark.parametrize("response", [AsgiResponse(b"body"), JSONResponse("body")])
async def test_head_has_the_headers_of_get(response: AsgiResponse) -> None:
    get = await request(response, http_scope())
    head = await request(response, http_scope(method="HEAD"))
    assert head == (get.status, get.raw_headers, b"")


async def test_a_response_can_be_sent_twice() -> None:
    response = AsgiResponse(b"body")
    assert await request(response, http_scope()) == await request(response, http_scope())


async def test_headers_added_by_a_middleware_are_not_in_the_next_response() -> None:
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


async def test_later_changes_of_the_headers_have_no_effect() -> None:
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
async def test_data_is_sent_as_json(data: Any, body: Any) -> None:
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


def test_data_that_is_not_json_is_refused() -> None:
    with pytest.raises(TypeError):
        JSONResponse(object())


@pytest.mark.parametrize("name", ["Content-Type", "content-type", "CONTENT-TYPE"])
async def test_a_given_content_type_is_kept(name: str) -> None:
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
async def test_the_messages_are_those_of_faststream(arguments: tuple[Any, ...]) -> None:
    upstream_messages = await exchange(UpstreamResponse(*arguments), http_scope())
    assert await exchange(AsgiResponse(*arguments), http_scope()) == upstream_messages


@pytest.mark.parametrize("data", [{"a": 1}, "é", b"[]"])
async def test_the_json_messages_are_those_of_faststream(data: Any) -> None:
    upstream_messages = await exchange(UpstreamJSONResponse(data, 201, {"X-One": "1"}), http_scope())
    assert await exchange(JSONResponse(data, 201, {"X-One": "1"}), http_scope()) == upstream_messages


@settings(deadline=None)  # A busy machine can interrupt an example for longer than the default allows.
@given(st.text(st.characters(max_codepoint=255)), st.text(st.characters(max_codepoint=255)))
@example("X-Name", "value\r\nSet-Cookie: a=b")
@example("X-Name\r\nSet-Cookie: a=b", "value")
@example("X-Name", "\0")
def test_a_header_that_would_end_early_is_refused(name: str, value: str) -> None:
    if any(character in name + value for character in "\r\n\0"):
        with pytest.raises(ValueError, match="contains a line break or a NUL"):
            AsgiResponse(headers={name: value})
    else:
        assert AsgiResponse(headers={name: value}).raw_headers[0] == (
            name.lower().encode("latin-1"),
            value.encode("latin-1"),
        )
