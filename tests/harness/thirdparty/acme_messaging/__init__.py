"""The broker of a company in a third-party package: NATS with different defaults."""

from .broker import AcmeBroker

__all__ = ("AcmeBroker",)
