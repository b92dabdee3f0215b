"""The driver for FastStream's NATS brokers, which use nats-py."""

from .driver import driver_class

__all__ = ("driver_class",)
