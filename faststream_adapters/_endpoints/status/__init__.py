"""The status of a process for people, as a page and as JSON."""

from .endpoint import make_status_asgi

__all__ = ("make_status_asgi",)
