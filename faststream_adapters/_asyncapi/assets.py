"""The files of the AsyncAPI page: our own ones, and the viewer from the `asyncapi-viewer` wheel."""

from functools import cache
from importlib.resources import files
from typing import NamedTuple

from .content import Content, digest

__all__ = ("Asset", "asset", "static", "viewer")

# The name changes with the content: whoever has it never needs to ask again.
_FOR_EVER = "public, max-age=31536000, immutable"
_MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


class Asset(NamedTuple):
    """A file to serve.

    Args:
        path: Its name in URLs, which holds a digest of the content.
        content: The content.
    """

    path: str
    content: Content


def static(name: str) -> bytes:
    """Return a file of this package."""
    return (files(__package__) / "static" / name).read_bytes()


@cache
def asset(name: str) -> Asset:
    """Return a file of this package, to be served."""
    return _asset(name, static(name))


@cache
def viewer() -> Asset | None:
    """Return the viewer's script, or None where the wheel is not installed or has no viewer in it."""
    try:
        from asyncapi_viewer import assets  # type: ignore[import-untyped]  # ships no types

        # The classic script: a fifth smaller than the module, and the page shows nothing before it has run.
        body = assets.static_path(assets.VIEWER_IIFE).read_bytes()
    except (ImportError, OSError):
        return None
    return _asset("viewer.js", body)


def _asset(name: str, body: bytes) -> Asset:
    stem, _, suffix = name.partition(".")
    content = Content(body, _MEDIA_TYPES[suffix], cache_control=_FOR_EVER)
    return Asset(f"{stem}.{digest(body)[:12]}.{suffix}", content)
