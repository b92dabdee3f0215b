"""FastStream over ASGI: probes, AsyncAPI docs, metrics, and the life of brokers inside a web application."""

from .app import AsgiFastStream, FastStream
from .asyncapi import AsyncAPIRoute, make_asyncapi_asgi
from .endpoints import make_liveness_asgi, make_ping_asgi, make_readiness_asgi, make_startup_asgi
from .handlers import Header, HttpHandler, Query, Request, get, post
from .lifespan import BrokerLifespan
from .metrics import make_metrics_asgi
from .middleware import FastStreamMiddleware
from .responses import AsgiResponse, JSONResponse

__all__ = (
    "AsgiFastStream",
    "AsgiResponse",
    "AsyncAPIRoute",
    "BrokerLifespan",
    "FastStream",
    "FastStreamMiddleware",
    "Header",
    "HttpHandler",
    "JSONResponse",
    "Query",
    "Request",
    "get",
    "make_asyncapi_asgi",
    "make_liveness_asgi",
    "make_metrics_asgi",
    "make_ping_asgi",
    "make_readiness_asgi",
    "make_startup_asgi",
    "post",
)
