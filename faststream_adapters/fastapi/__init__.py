"""The adapter for FastAPI."""

from .dependencies import BrokerNotProvidedError, provide_broker
from .router import FastStreamRouter

__all__ = ("BrokerNotProvidedError", "FastStreamRouter", "provide_broker")
