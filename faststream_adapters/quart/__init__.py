"""QuartFastStream: brokers inside a Quart application."""

from faststream_adapters.extras import require

require("quart", "quart")

from .extension import QuartFastStream

__all__ = ("QuartFastStream",)
