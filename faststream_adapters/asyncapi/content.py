"""A body with all that HTTP says about it, made once and sent many times."""

import gzip
import re
from collections.abc import Callable, Mapping
from functools import cache, lru_cache, partial
from hashlib import sha256
from typing import NamedTuple

from faststream.asgi.types import Scope

from faststream_adapters.responses import AsgiResponse

__all__ = ("NOSNIFF", "Content", "digest")

NOSNIFF = {"X-Content-Type-Options": "nosniff"}

_Encoder = Callable[[bytes], bytes]

# The bodies are packed while the event loop waits: beyond 7, brotli takes several times as long to save a few
# bytes in a thousand. Without a time stamp, gzip gives the same bytes, and so the same ETag, in each process.
_BROTLI_QUALITY = 7
_GZIP: dict[str, _Encoder] = {"gzip": partial(gzip.compress, mtime=0)}


@cache
def _encoders() -> dict[str, _Encoder]:
    """Return the codings that we can send, the best one first."""
    try:
        import brotli  # type: ignore[import-untyped]  # ships no types
    except ImportError:
        return _GZIP
    return {"br": partial(brotli.compress, quality=_BROTLI_QUALITY), **_GZIP}


class _Variant(NamedTuple):
    tag: str
    full: AsgiResponse
    unchanged: AsgiResponse


class Content:
    """A body in every coding that clients ask for; each is made when it is first asked for.

    Args:
        body: The body.
        media_type: Its `Content-Type`.
        headers: More headers, sent with 304 too.
        cache_control: By default a cache asks each time whether what it has is still right.

    Source: RFC 9110, sections 8.8.3 (ETag), 12.5.3 (Accept-Encoding), 13.1.2 (If-None-Match), 15.4.5 (304).
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
        self._always = {
            "Cache-Control": cache_control,
            "Vary": "Accept-Encoding",
            **NOSNIFF,
            **(headers or {}),
        }
        self._described = {"Content-Type": media_type}
        self._variants: dict[str, _Variant] = {}

    def answer(self, scope: Scope) -> AsgiResponse:
        """Return the response to one GET or HEAD request."""
        coding = _coding(_header(scope, b"accept-encoding"), tuple(_encoders()))
        if (variant := self._variants.get(coding)) is None:
            variant = self._variants[coding] = self._variant(coding)
        known = _header(scope, b"if-none-match")
        if known and (known.strip() == "*" or variant.tag in re.findall(r'"([^"]*)"', known)):
            return variant.unchanged
        return variant.full

    def _variant(self, coding: str) -> _Variant:
        body, described = self._body, self._described
        if coding != "identity":
            body, described = _encoders()[coding](body), {**described, "Content-Encoding": coding}
        tag = digest(body)
        headers = {**self._always, "ETag": f'"{tag}"'}
        return _Variant(
            tag,
            AsgiResponse(body, 200, {**headers, **described}),
            AsgiResponse(b"", 304, headers),
        )


def digest(body: bytes) -> str:
    """Return what names these bytes and no others."""
    return sha256(body).hexdigest()[:32]


def _header(scope: Scope, name: bytes) -> str:
    return ",".join(value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name)


# Every request asks, and browsers say one of a few things.
@lru_cache(maxsize=32)
def _coding(accepted: str, available: tuple[str, ...]) -> str:
    weights: dict[str, float] = {}
    for item in accepted.lower().split(","):
        coding, _, parameter = item.partition(";")
        weights[coding.strip()] = _weight(parameter)
    others = weights.get("*", 0.0)
    best = max(available, key=lambda coding: weights.get(coding, others))
    weight = weights.get(best, others)
    return best if weight > 0 and weight >= weights.get("identity", 0.0) else "identity"


def _weight(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        # The body as it is, is right for everyone.
        return 0.0
