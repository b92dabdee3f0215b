"""Static files of the AsyncAPI page: this package's own, and the viewer from the `asyncapi-viewer` wheel."""

from functools import cache
from importlib.resources import files
from typing import NamedTuple

from faststream_adapters._asgi.shell import shared_file

from .content import Content, digest

__all__ = ("Asset", "asset", "icon", "read_static", "stylesheet", "viewer")

# The file name contains a digest of the content, so a cached file never needs to be revalidated.
_IMMUTABLE = "public, max-age=31536000, immutable"
_MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


class Asset(NamedTuple):
    """A static file and its name in URLs.

    Args:
        path: The file name with a digest of the content.
        content: The file's content.
    """

    path: str
    content: Content


def read_static(name: str) -> bytes:
    """Read a file from this package's `static` directory."""
    return (files(__package__) / "static" / name).read_bytes()


@cache
def asset(name: str) -> Asset:
    """Return a file of this package's `static` directory as an asset."""
    return _asset(name, read_static(name))


@cache
def icon() -> Asset:
    """Return the icon that all pages share."""
    return _asset("icon.svg", shared_file("icon.svg").encode())


@cache
def stylesheet() -> Asset:
    """Return the stylesheet: the rules that all pages share, and those of the AsyncAPI page."""
    return _asset("docs.css", shared_file("base.css").encode() + read_static("docs.css"))


@cache
def viewer() -> Asset | None:
    """Return the viewer's script, or None if the wheel is not installed or does not contain it."""
    try:
        from asyncapi_viewer import assets  # type: ignore[import-untyped]  # ships no types

        # The classic script is a fifth smaller than the module. The viewer shows nothing before it has run.
        body = assets.static_path(assets.VIEWER_IIFE).read_bytes()
    except (ImportError, OSError):
        return None
    return _asset("viewer.js", body)


def _asset(name: str, body: bytes) -> Asset:
    stem, _, suffix = name.partition(".")
    content = Content(body, _MEDIA_TYPES[suffix], cache_control=_IMMUTABLE)
    return Asset(f"{stem}.{digest(body)[:12]}.{suffix}", content)
