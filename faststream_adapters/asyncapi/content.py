"""A body with all that HTTP says about it, made once and sent many times."""

import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from hashlib import sha256
from typing import NamedTuple

from faststream.asgi.types import Scope

from faststream_adapters.negotiation import coding, header
from faststream_adapters.responses import AsgiResponse

__all__ = ("NOSNIFF", "Content", "digest")

NOSNIFF = {"X-Content-Type-Options": "nosniff"}

_Encoder = Callable[[bytes], bytes]

# The bodies are packed while the event loop waits: beyond 7, brotli takes several times as long to save a few
# bytes in a thousand. Without a time stamp, gzip gives the same bytes, and so the same ETag, in each process.
_BROTLI_QUALITY = 7


@cache
def _encoders() -> dict[str, _Encoder]:
    """Return the codings that we can send, the best one first."""
    import gzip

    without_brotli: dict[str, _Encoder] = {"gzip": partial(gzip.compress, mtime=0)}
    try:
        import brotli  # type: ignore[import-untyped]  # ships no types
    except ImportError:
        return without_brotli
    return {"br": partial(brotli.compress, quality=_BROTLI_QUALITY), **without_brotli}


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
        accepted = header(scope, b"accept-encoding")
        name = coding(accepted, tuple(_encoders())) if accepted else "identity"
        if (variant := self._variants.get(name)) is None:
            variant = self._variants[name] = self._variant(name)
        known = header(scope, b"if-none-match")
        if known and (known == variant.tag or _names(known, variant.tag)):
            return variant.unchanged
        return variant.full

    def _variant(self, name: str) -> _Variant:
        body, described = self._body, self._described
        if name != "identity":
            body, described = _encoders()[name](body), {**described, "Content-Encoding": name}
        tag = f'"{digest(body)}"'
        headers = {**self._always, "ETag": tag}
        return _Variant(
            tag,
            AsgiResponse(body, 200, {**headers, **described}),
            AsgiResponse(b"", 304, headers),
        )


def _names(known: str, tag: str) -> bool:
    """Return whether a list of tags, weak ones too, holds this one."""
    return known.strip() == "*" or tag in re.findall(r'"[^"]*"', known)


def digest(body: bytes) -> str:
    """Return what names these bytes and no others."""
    return sha256(body).hexdigest()[:32]
