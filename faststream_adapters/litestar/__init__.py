"""The Litestar adapter: `Litestar(plugins=[FastStreamPlugin(broker)])`."""

from faststream_adapters._utils.extras import require

require("litestar", "litestar")

from ._plugin import FastStreamPlugin

__all__ = ("FastStreamPlugin",)
