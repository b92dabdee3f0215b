"""Helpers that depend on neither brokers nor ASGI."""
