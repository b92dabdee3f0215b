"""Expose the metrics of a Prometheus registry, and the state of brokers and lifespans, over HTTP."""

from .endpoint import make_metrics_asgi

__all__ = ("make_metrics_asgi",)
