"""QuartFastStream: brokers inside a Quart application."""

from .extension import QuartFastStream

__all__ = ("QuartFastStream",)
