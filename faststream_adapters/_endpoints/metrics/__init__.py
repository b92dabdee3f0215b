"""Prometheus metrics over HTTP: those of a registry, and what we know of the brokers."""

from .endpoint import make_metrics_asgi

__all__ = ("make_metrics_asgi",)
