"""FastStream over ASGI: probes, AsyncAPI docs, metrics, and brokers that a web app starts and stops."""

# As `typing.TYPE_CHECKING`, which would be most of what this import takes; type checkers know the name.
TYPE_CHECKING = False

__all__ = (
    "AsgiFastStream",
    "AsgiResponse",
    "AsyncAPIRoute",
    "BrokerLifespan",
    "BrokerNotUpError",
    "BrokerStartError",
    "FastStream",
    "FastStreamMiddleware",
    "Header",
    "HealthChange",
    "HealthCheck",
    "HostStartError",
    "HttpHandler",
    "JSONResponse",
    "Query",
    "Request",
    "SubscriberInfo",
    "get",
    "make_asyncapi_asgi",
    "make_liveness_asgi",
    "make_metrics_asgi",
    "make_ping_asgi",
    "make_publish_asgi",
    "make_readiness_asgi",
    "make_startup_asgi",
    "make_status_asgi",
    "post",
)

if TYPE_CHECKING:
    from ._asgi.responses import AsgiResponse, JSONResponse
    from ._asyncapi.docs import AsyncAPIRoute, make_asyncapi_asgi
    from ._asyncapi.publish.endpoint import make_publish_asgi
    from ._endpoints.metrics.endpoint import make_metrics_asgi
    from ._endpoints.probes import (
        make_liveness_asgi,
        make_ping_asgi,
        make_readiness_asgi,
        make_startup_asgi,
    )
    from ._endpoints.status.endpoint import make_status_asgi
    from ._hosting.middleware import FastStreamMiddleware
    from ._lifecycle.health_change import HealthChange
    from ._lifecycle.health_check import HealthCheck
    from ._lifecycle.lifespan import BrokerLifespan
    from ._lifecycle.subscriber_info import SubscriberInfo
    from ._standalone.app import AsgiFastStream, FastStream
    from ._standalone.handlers import Header, HttpHandler, Query, Request, get, post
    from ._utils.errors import BrokerNotUpError, BrokerStartError, HostStartError
else:
    # Each name is imported on first use (PEP 562). Hidden from type checkers, which read the imports above.
    _MODULES = {
        "._asgi.responses": ("AsgiResponse", "JSONResponse"),
        "._asyncapi.docs": ("AsyncAPIRoute", "make_asyncapi_asgi"),
        "._asyncapi.publish.endpoint": ("make_publish_asgi",),
        "._endpoints.metrics.endpoint": ("make_metrics_asgi",),
        "._endpoints.probes": (
            "make_liveness_asgi",
            "make_ping_asgi",
            "make_readiness_asgi",
            "make_startup_asgi",
        ),
        "._endpoints.status.endpoint": ("make_status_asgi",),
        "._hosting.middleware": ("FastStreamMiddleware",),
        "._lifecycle.health_change": ("HealthChange",),
        "._lifecycle.health_check": ("HealthCheck",),
        "._lifecycle.lifespan": ("BrokerLifespan",),
        "._lifecycle.subscriber_info": ("SubscriberInfo",),
        "._standalone.app": ("AsgiFastStream", "FastStream"),
        "._standalone.handlers": ("Header", "HttpHandler", "Query", "Request", "get", "post"),
        "._utils.errors": ("BrokerNotUpError", "BrokerStartError", "HostStartError"),
    }
    _MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

    def __getattr__(name: str) -> object:
        from importlib import import_module

        try:
            module = import_module(_MODULE_OF[name], __name__)
        except KeyError:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg) from None
        return globals().setdefault(name, getattr(module, name))

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
