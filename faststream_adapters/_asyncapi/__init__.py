"""Serve an application's AsyncAPI document and a page that shows it."""

from .docs import AsyncAPIDocs, AsyncAPIRoute, make_asyncapi_asgi

__all__ = ("AsyncAPIDocs", "AsyncAPIRoute", "make_asyncapi_asgi")
