"""The driver for FastStream's Redis brokers, which use redis-py."""

from .driver import driver_class

__all__ = ("driver_class",)
