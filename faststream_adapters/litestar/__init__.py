"""FastStream in Litestar: `Litestar(plugins=[FastStreamPlugin(broker, ...)])`."""

from faststream_adapters.extras import require

require("litestar", "litestar")

from .plugin import FastStreamPlugin

__all__ = ("FastStreamPlugin",)
