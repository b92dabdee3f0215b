"""The adapter for FastAPI."""

from faststream_adapters.extras import require

require("fastapi", "fastapi")

from .dependencies import BrokerNotProvidedError, provide_broker
from .router import FastStreamRouter

__all__ = ("BrokerNotProvidedError", "FastStreamRouter", "provide_broker")
