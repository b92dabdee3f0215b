"""Prometheus metrics over HTTP."""

from typing import TYPE_CHECKING, Any, TypedDict, Unpack
from urllib.parse import parse_qs

from faststream.asgi.types import Receive, Scope, Send

from .extras import require
from .responses import AsgiResponse
from .routing import Endpoint, Tags

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class SchemaKeywords(TypedDict, total=False):
    """How the AsyncAPI document lists a route: `include_in_schema`, `description`, `tags`, `unique_id`."""

    include_in_schema: bool
    description: str | None
    tags: Tags | None
    unique_id: str | None


class _Metrics(Endpoint):
    def __init__(self, registry: "CollectorRegistry | None", **schema: Any) -> None:
        prometheus_client = require("prometheus_client", "metrics")
        super().__init__(**schema)
        self._registry = prometheus_client.REGISTRY if registry is None else registry
        self._choose_encoder = prometheus_client.exposition.choose_encoder

    async def respond(self, scope: Scope, receive: Receive, send: Send) -> AsgiResponse:  # noqa: ARG002 (any request)
        accept = ", ".join(
            value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"accept"
        )
        encode, content_type = self._choose_encoder(accept)
        registry: Any = self._registry
        if names := parse_qs(scope.get("query_string", b"").decode("latin-1")).get("name[]"):
            registry = registry.restricted_registry(names)
        return AsgiResponse(encode(registry), 200, {"Content-Type": content_type})


def make_metrics_asgi(
    registry: "CollectorRegistry | None" = None,
    **schema: Unpack[SchemaKeywords],
) -> Endpoint:
    """Make an endpoint that exposes the metrics of one Prometheus registry.

    Args:
        registry: The registry; prometheus_client's default one when not given.
        schema: See `SchemaKeywords`.

    Returns:
        An ASGI app that answers in the format the scraper asks for (Prometheus text or OpenMetrics).

    Raises:
        ImportError: prometheus_client is not installed.

    Source: Prometheus documentation, "Exposition formats".
    """
    return _Metrics(registry, **schema)
