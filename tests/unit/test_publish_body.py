"""The body of a request to publish is read strictly."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faststream_adapters._asyncapi.publish import body
from faststream_adapters._asyncapi.publish.body import (
    Body,
    InvalidBodyError,
    InvalidFieldError,
    form_body,
    parse_form,
    parse_json,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


def test_a_json_body_has_a_channel_a_message_and_optional_fields() -> None:
    assert parse_json(b'{"channel": "orders", "message": null}') == Body(
        "orders", None, {}, validate_only=False, destination=""
    )
    message = b'"message": [1, 2.5, "\xc3\xa9"], "headers": {"x-id": "7"}, "validate_only": true}'
    text = b'{"channel": "orders.*", "destination": "orders.7", ' + message
    assert parse_json(text) == Body(
        "orders.*", [1, 2.5, "é"], {"x-id": "7"}, validate_only=True, destination="orders.7"
    )
    assert parse_json(b'{"channel": "o", "message": 1, "headers": null}').headers == {}
    assert parse_json(b'{"channel": "o", "message": 1, "destination": null}').destination == ""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "This is not JSON at line 1, column 1."),
        (b"{", "not JSON at line 1"),
        (b'{"channel": "a",\n "message": }', "line 2, column 13"),
        (b'["channel"]', "must be a JSON object"),
        (b"1", "must be a JSON object"),
        (b'{"channel": "a", "channel": "b", "message": 1}', "A key occurs twice"),
        (b'{"channel": "a", "message": {"x": 1, "x": 2}}', "A key occurs twice"),
        (b'{"channel": "a", "message": {"x": 1, "\\u0078": 2}}', "A key occurs twice"),
        (b'{"channel": "a", "message": NaN}', "NaN is not JSON"),
        (b'{"channel": "a", "message": -Infinity}', "-Infinity is not JSON"),
        (b'{"channel": "a", "message": 1e999}', "too large"),
        (b'{"channel": "a", "message": -1e999}', "too large"),
        (b'{"channel": "a", "message": 18446744073709551616}', "at most 64 bits"),
        (b'{"channel": "a", "message": -9223372036854775809}', "at most 64 bits"),
        (b'{"channel": "a", "message": ' + b"9" * 100_000 + b"}", "at most 64 bits"),
        (b'{"channel": "a", "message": "\xff"}', "not UTF-8"),
        (b'{"channel": "a", "message": "\xed\xa0\x80"}', "not UTF-8"),
        ('{"channel": "a", "message": 1}'.encode("utf-16"), "not UTF-8"),
        (b'\xef\xbb\xbf{"channel": "a", "message": 1}', "not JSON"),
        (b'{"channel": "a", "message": "\\ud800"}', "half of a surrogate pair"),
        (b'{"channel": "a", "message": {"\\udfff": 1}}', "half of a surrogate pair"),
        (b'{"channel": "a", "message": "a\nb"}', "not JSON"),
        (b'{"channel": "a", "message": ' + b"[" * 101 + b"]" * 101 + b"}", "nested more than 100"),
        (b'{"channel": "a", "message": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}", "nested more than 100"),
        (b"[" * 500_000, "nested more than 100"),
    ],
)
def test_what_two_readers_may_read_differently_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidBodyError, match=reason):
        parse_json(data)


def test_what_is_just_allowed_is_read() -> None:
    deep = b"[" * 99 + b"]" * 99
    assert parse_json(b'{"channel": "a", "message": ' + deep + b"}").message == json.loads(deep)
    for number in (2**64 - 1, -(2**63)):
        assert parse_json(b'{"channel": "a", "message": %d}' % number).message == number
    assert parse_json(b'{"channel": "a", "message": "\\ud83d\\ude00"}').message == "😀"


@pytest.mark.parametrize(
    ("data", "loc", "reason"),
    [
        ({"message": 1}, ["channel"], "Field required"),
        ({"channel": "a"}, ["message"], "Field required"),
        ({"channel": 1, "message": 1}, ["channel"], "should be a string"),
        ({"channel": "a", "message": 1, "validate_only": 1}, ["validate_only"], "true or false"),
        ({"channel": "a", "message": 1, "options": {}}, ["options"], "Unknown field"),
        ({"channel": "a", "message": 1, "headers": ["a"]}, ["headers"], "should be an object"),
        ({"channel": "a", "message": 1, "headers": {"a": 1}}, ["headers", "a"], "should be a string"),
        ({"channel": "a", "message": 1, "headers": {"a": "1\r\nb: 2"}}, ["headers", "a"], "without control"),
        ({"channel": "a", "message": 1, "headers": {"a": "1\n"}}, ["headers", "a"], "without control"),
        ({"channel": "a", "message": 1, "headers": {"a": "\x00"}}, ["headers", "a"], "without control"),
        ({"channel": "a", "message": 1, "headers": {"a": "x" * 5000}}, ["headers", "a"], "at most 4096"),
        ({"channel": "a", "message": 1, "headers": {"a\r\nb": "1"}}, ["headers"], "should consist of"),
        ({"channel": "a", "message": 1, "headers": {"a\n": "1"}}, ["headers"], "should consist of"),
        ({"channel": "a", "message": 1, "headers": {"": "1"}}, ["headers"], "should consist of"),
        ({"channel": "a", "message": 1, "headers": {"a:b": "1"}}, ["headers"], "should consist of"),
        ({"channel": "a", "message": 1, "headers": {"A": "1", "a": "2"}}, ["headers", "a"], "occurs twice"),
        (
            {"channel": "a", "message": 1, "headers": dict.fromkeys(map(str, range(51)), "")},
            ["headers"],
            "at most 50",
        ),
    ],
)
def test_a_field_that_cannot_be_used_is_named(data: object, loc: list[str], reason: str) -> None:
    with pytest.raises(InvalidFieldError, match=reason) as refused:
        parse_json(json.dumps(data).encode())
    assert refused.value.loc == loc


@settings(max_examples=40)
@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for parse in (parse_json, parse_form):
        try:
            parse(data)
        except (InvalidBodyError, InvalidFieldError) as error:
            assert str(error)  # noqa: PT017 (most bytes are refused, some are not)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=40)
@given(_JSON)
def test_what_json_can_represent_is_read_as_it_is(value: object) -> None:
    text = json.dumps({"channel": "a", "message": value})
    assert parse_json(text.encode()).message == value
    assert form_body({"channel": "a", "message": json.dumps([value])}).message == [value]


# --- forms ---


def test_a_form_has_json_and_lines_of_headers() -> None:
    fields = parse_form(
        b"token=t&channel=orders&message=%7B%22id%22%3A+1%7D&headers=x-id%3A+7%0D%0A%0D%0Ay%3Az"
    )
    assert fields["token"] == "t"
    assert form_body(fields) == Body(
        "orders", {"id": 1}, {"x-id": "7", "y": "z"}, validate_only=False, destination=""
    )
    fields = parse_form(b"token=t&channel=orders&message=&headers=&validate_only=1&destination=+orders.7%0A")
    assert form_body(fields) == Body("orders", None, {}, validate_only=True, destination="orders.7")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"channel", "not a form"),
        (b"channel=%ff", "not a form"),
        (b"channel=%ED%A0%80", "not a form"),
        (b"channel=\xff", "not a form in UTF-8"),
        (b'{"channel": "orders", "message": 1}', "A program sends JSON, as application/json"),
        (b'{"channel": "orders=", "message": 1}', "A program sends JSON, as application/json"),
        (b"channel=a&channel=b", "fields that its page does not have"),
        (b"channel=a&other=b", "fields that its page does not have"),
        (b"&".join([b"channel=a"] * 1000), "not a form"),
    ],
)
def test_a_form_that_the_page_cannot_have_sent_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidBodyError, match=reason):
        parse_form(data)


@pytest.mark.parametrize(
    ("fields", "loc", "reason"),
    [
        ({"message": "{"}, ["message"], "not JSON at line 1, column 2"),
        ({"message": '{"a": 1, "a": 2}'}, ["message"], "A key occurs twice"),
        ({"headers": "x-id"}, ["headers"], "Name: value"),
        ({"headers": "a: 1\na: 2"}, ["headers"], "occurs twice"),
        ({"headers": "a: 1\nA: 2"}, ["headers", "A"], "occurs twice"),
        ({"headers": "a b: 1"}, ["headers"], "should consist of"),
        ({"headers": "a: 1\x07"}, ["headers", "a"], "without control"),
    ],
)
def test_a_field_of_a_form_that_cannot_be_used_is_named(
    fields: Mapping[str, str], loc: list[str], reason: str
) -> None:
    with pytest.raises(InvalidFieldError, match=reason) as refused:
        form_body({"channel": "orders", **fields})
    assert refused.value.loc == loc


def test_numbers_take_a_time_that_is_proportional_to_their_length() -> None:
    with pytest.raises(InvalidBodyError):
        body.loads("1" * 1_000_000)
