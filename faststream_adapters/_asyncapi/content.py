"""Response bodies with cache validation and content coding."""

import gzip
import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from hashlib import sha256
from typing import NamedTuple

from faststream.asgi.types import Scope

from faststream_adapters._asgi.negotiation import header, negotiate_encoding
from faststream_adapters._asgi.responses import AsgiResponse

__all__ = ("NOSNIFF", "Content", "coding_for", "digest", "encoders")

NOSNIFF = {"X-Content-Type-Options": "nosniff"}

_ENTITY_TAG = re.compile(r'"[^"]*"')

_Encoder = Callable[[bytes], bytes]

# Above 7, brotli takes several times as long to save a few bytes in a thousand.
_BROTLI_QUALITY = 7


@cache
def encoders() -> dict[str, _Encoder]:
    """Return the supported content codings, the preferred one first."""
    # With a fixed time stamp, every process produces the same bytes and so the same ETag.
    without_brotli: dict[str, _Encoder] = {"gzip": partial(gzip.compress, mtime=0)}
    try:
        import brotli  # type: ignore[import-untyped]  # ships no types
    except ImportError:
        return without_brotli
    return {"br": partial(brotli.compress, quality=_BROTLI_QUALITY), **without_brotli}


def coding_for(scope: Scope) -> str:
    """Return the content coding for the response to a request, or `identity`."""
    accept_encoding = header(scope, b"accept-encoding")
    return negotiate_encoding(accept_encoding, tuple(encoders())) if accept_encoding else "identity"


class _Variant(NamedTuple):
    etag: str
    full: AsgiResponse
    not_modified: AsgiResponse

    def response_for(self, scope: Scope) -> AsgiResponse:
        if_none_match = header(scope, b"if-none-match")
        return self.not_modified if if_none_match and _matches(if_none_match, self.etag) else self.full


class Content:
    """A body and its responses, one for each content coding, created on first use.

    Args:
        body: The uncompressed body.
        media_type: The `Content-Type`.
        headers: Additional headers, sent with 304 responses too.
        cache_control: The `Cache-Control`. By default, caches revalidate the body for each request.

    Source: RFC 9110, sections 8.8.3 (ETag), 13.1.2 (If-None-Match), 15.4.5 (304).
    """

    def __init__(
        self,
        body: bytes,
        media_type: str,
        headers: Mapping[str, str] | None = None,
        *,
        cache_control: str = "no-cache",
    ) -> None:
        self._body = body
        self._headers = {
            "Cache-Control": cache_control,
            "Vary": "Accept-Encoding",
            **NOSNIFF,
            **(headers or {}),
        }
        self._media_type = media_type
        self._variants: dict[str, _Variant] = {}

    def ready_response(self, scope: Scope) -> AsgiResponse | None:
        """Return the response to a GET or HEAD request, or None if it was not created yet."""
        variant = self._variants.get(coding_for(scope))
        return None if variant is None else variant.response_for(scope)

    def response_for(self, scope: Scope) -> AsgiResponse:
        """Return the response to a GET or HEAD request; it is created if it is not ready."""
        self.encode(coding := coding_for(scope))
        return self._variants[coding].response_for(scope)

    def encode(self, coding: str) -> None:
        """Create the responses with a content coding; compressing a body may take long."""
        if coding not in self._variants:
            self._variants[coding] = self._variant(coding)

    def _variant(self, name: str) -> _Variant:
        body, content_headers = self._body, {"Content-Type": self._media_type}
        if name != "identity":
            body = encoders()[name](body)
            content_headers["Content-Encoding"] = name
        etag = f'"{digest(body)}"'
        headers = {**self._headers, "ETag": etag}
        return _Variant(
            etag,
            AsgiResponse(body, 200, {**headers, **content_headers}),
            AsgiResponse(b"", 304, headers),
        )


def _matches(if_none_match: str, etag: str) -> bool:
    """Return whether an `If-None-Match` header lists the ETag, strong or weak."""
    return if_none_match == etag or if_none_match.strip() == "*" or etag in _ENTITY_TAG.findall(if_none_match)


def digest(body: bytes) -> str:
    """Return the first 32 hexadecimal digits of the SHA-256 digest."""
    return sha256(body).hexdigest()[:32]
