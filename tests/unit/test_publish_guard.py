"""Who may publish: foreign pages, page tokens, and the application's own check."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

import pytest

from faststream_adapters._asgi.request import AsgiRequest, BodyTooLargeError
from faststream_adapters._asyncapi.publish.guard import PageToken, is_authorized, is_foreign
from tests.harness.asgi_calls import http_scope

LOGGER = logging.getLogger("faststream.adapters.publish")


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        # Programs send none of these headers.
        ({}, False),
        ({"sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-site"}, True),
        ({"sec-fetch-site": "anything"}, True),
        ({"origin": "http://shop.example"}, False),
        ({"origin": "https://shop.example", "host": "shop.example:443"}, False),
        ({"origin": "https://shop.example:443"}, False),
        ({"origin": "http://SHOP.example:80"}, False),
        ({"origin": "https://shop.example"}, False),
        ({"origin": "http://shop.example:8000"}, True),
        ({"origin": "http://shop.example", "host": "shop.example:8000"}, True),
        ({"origin": "http://shop.example:8000", "host": "shop.example:8000"}, False),
        ({"origin": "http://[::1]:8000", "host": "[::1]:8000"}, False),
        ({"origin": "http://evil.example"}, True),
        ({"origin": "http://shop.example.evil.example"}, True),
        ({"origin": "http://shop.example@evil.example"}, True),
        ({"origin": "http://shop.example/evil"}, True),
        ({"origin": "null"}, True),
        ({"origin": "file://"}, True),
        ({"origin": "http://"}, True),
        ({"origin": "http://[evil"}, True),
        ({"origin": "http://shop.example:port"}, True),
        ({"origin": "chrome-extension://shop.example"}, True),
        ({"origin": "http://evil.example", "sec-fetch-site": "same-origin"}, True),
        ({"origin": "http://shop.example", "sec-fetch-site": "cross-site"}, True),
        ({"origin": "http://shop.example", "host": ""}, True),
        ({"origin": "http://shop.example, http://evil.example"}, True),
        # A script cannot make a browser send these.
        ({"origin": "http://public.example", "x-forwarded-host": "public.example"}, True),
    ],
)
def test_a_request_for_a_page_of_another_site_is_foreign(headers: dict[str, str], foreign: bool) -> None:
    scope = http_scope("/", "POST", headers={"host": "shop.example", **headers}.items())
    assert is_foreign(scope) is foreign


def test_a_repeated_header_is_foreign() -> None:
    twice = [("host", "shop.example"), ("origin", "http://shop.example"), ("origin", "http://shop.example")]
    assert is_foreign(http_scope("/", "POST", headers=twice))


@pytest.mark.parametrize(
    ("client", "forwarded_for", "forwarded_host", "foreign"),
    [
        # The server has replaced the client's address, because it trusts the proxy.
        (("203.0.113.7", 0), "203.0.113.7", "public.example", False),
        (("203.0.113.7", 0), "198.51.100.1, 203.0.113.7, 10.0.0.2", "public.example", False),
        (("203.0.113.7", 0), "203.0.113.7", "evil.example, public.example", False),
        (("203.0.113.7", 0), "203.0.113.7", "public.example, evil.example", True),
        (("203.0.113.7", 0), "203.0.113.7", "", True),
        # It has not: the headers are the client's own.
        (("127.0.0.1", 4711), "127.0.0.1", "public.example", True),
        (("10.0.0.2", 4711), "203.0.113.7", "public.example", True),
        (("10.0.0.2", 0), "203.0.113.7", "public.example", True),
        (None, "203.0.113.7", "public.example", True),
    ],
)
def test_only_a_trusted_proxy_tells_the_public_host(
    client: tuple[str, int] | None, forwarded_for: str, forwarded_host: str, foreign: bool
) -> None:
    headers = [("host", "internal:8000"), ("origin", "https://public.example")]
    headers += [("x-forwarded-for", forwarded_for), ("x-forwarded-host", forwarded_host)]
    assert is_foreign(http_scope("/", "POST", headers=headers, client=client)) is foreign


# --- tokens ---


def _with_cookie(token: PageToken, before: str = "") -> PageToken:
    cookie = token.set_cookie.partition(";")[0]
    return PageToken(http_scope(headers=[("cookie", before + cookie)]))


def test_a_token_fits_to_the_browser_that_got_the_page() -> None:
    first = PageToken(http_scope())
    token = first.new()
    assert _with_cookie(first).fits(token)
    assert _with_cookie(first, "theme={dark}; session=a,b; ").fits(token)
    assert not first.fits(token), "without the cookie"
    assert not PageToken(http_scope()).fits(token)
    assert not _with_cookie(PageToken(http_scope())).fits(token), "with the cookie of another browser"


def test_tokens_of_several_open_pages_stay_valid() -> None:
    first = PageToken(http_scope())
    second = _with_cookie(first)
    tokens = [first.new(), second.new()]
    assert len(set(tokens)) == 2
    assert all(map(_with_cookie(second).fits, tokens))


def test_a_changed_token_does_not_fit() -> None:
    first = PageToken(http_scope())
    known, token = _with_cookie(first), first.new()
    for forged in (
        "",
        ".",
        token[:-1],
        token + "0",
        token.replace(".", ""),
        "0" + token,
        "é" + token,
        token[33:],
    ):
        assert not known.fits(forged)


def test_a_second_cookie_of_the_same_name_does_not_hide_the_first() -> None:
    first, other = PageToken(http_scope()), PageToken(http_scope())
    cookies = [("cookie", each.set_cookie.partition(";")[0]) for each in (other, first)]
    assert PageToken(http_scope(headers=cookies)).fits(first.new())


def test_a_cookie_that_was_not_made_here_is_replaced() -> None:
    chosen = PageToken(http_scope(headers=[("cookie", "faststream_publish=x; Path=/")]))
    assert "=x" not in chosen.set_cookie


@pytest.mark.parametrize(("scheme", "secure"), [("http", False), ("https", True)])
def test_the_cookie_is_hidden_from_scripts_and_other_sites(scheme: str, secure: bool) -> None:
    cookie = PageToken(http_scope(scheme=scheme)).set_cookie
    assert "; HttpOnly; SameSite=Strict" in cookie
    assert ("; Secure" in cookie) is secure


# --- authorize ---


def _request(*chunks: bytes) -> AsgiRequest:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x" * 100, "more_body": False}

    async def send(message: object) -> None:
        raise NotImplementedError

    return AsgiRequest(http_scope(headers=[("x-key", "7")]), receive, send, 10)


async def _async(request: AsgiRequest) -> bool:
    return request.headers["x-key"] == "7"


class _Guard:
    async def __call__(self, request: AsgiRequest) -> bool:
        return await _async(request)


@pytest.mark.parametrize(
    ("authorize", "allowed"),
    [
        (lambda request: request.headers["x-key"] == "7", True),
        (lambda _: False, False),
        (_async, True),
        (partial(_async), True),
        (_Guard(), True),
        # A function that returns a coroutine, as a lambda around an asynchronous one does.
        (lambda request: _async(request), True),  # noqa: PLW0108 (see above)
        # Only True is True.
        (lambda _: 1, False),
        (lambda _: "user", False),
        (lambda _: object(), False),
        (lambda _: None, False),
    ],
)
async def test_only_true_admits_a_request(authorize: Any, allowed: bool) -> None:
    assert await is_authorized(authorize, _request(), LOGGER) is allowed


async def test_an_error_refuses_and_is_logged_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    async def authorize(_: AsgiRequest) -> bool:
        msg = "cannot reach postgresql://shop:hunter2@db"
        raise ConnectionError(msg)

    assert not await is_authorized(authorize, _request(), LOGGER)
    assert "authorize raised" in caplog.text
    assert "ConnectionError" in caplog.text
    assert "hunter2" not in caplog.text


async def test_a_guard_that_finds_nothing_refuses() -> None:
    def authorize(request: AsgiRequest) -> bool:
        return next(key == "7" for key in request.headers.get("x-keys", "").split())

    async with asyncio.timeout(60.0):
        assert not await is_authorized(authorize, _request(), LOGGER)


async def test_a_guard_may_read_the_body_up_to_the_limit() -> None:
    async def authorize(request: AsgiRequest) -> bool:
        return bool(await request.body())

    with pytest.raises(BodyTooLargeError):
        await is_authorized(authorize, _request(), LOGGER)


async def test_a_cancellation_is_no_error_of_the_guard() -> None:
    async def authorize(_: AsgiRequest) -> bool:
        await asyncio.Event().wait()
        raise NotImplementedError

    task = asyncio.create_task(is_authorized(authorize, _request(), LOGGER))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
