"""FastStream in Litestar: `Litestar(plugins=[FastStreamPlugin(broker, ...)])`."""

from .plugin import FastStreamPlugin

__all__ = ("FastStreamPlugin",)
