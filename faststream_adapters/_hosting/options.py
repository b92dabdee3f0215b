"""The keywords that every host and every adapter takes."""

from typing import TYPE_CHECKING, Annotated, TypedDict

from faststream.asgi import AsyncAPIRoute as UpstreamRoute
from faststream.specification.base import SpecificationFactory

from faststream_adapters._asyncapi import AsyncAPIRoute
from faststream_adapters._asyncapi.publish.guard import Authorize
from faststream_adapters._asyncapi.publish.options import AUTHORIZE
from faststream_adapters._endpoints.options import DETAILS, MAX_HANDLER_AGE, TIMEOUT, TTL
from faststream_adapters._lifecycle.options import LifespanKeywords
from faststream_adapters._server.sockets import is_address
from faststream_adapters._utils.options import Option, documented

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


def address(name: str, value: object) -> str | None:
    """Accept an address to listen on, None and "", which mean none."""
    if value is None or value == "" or (isinstance(value, str) and is_address(value)):
        return None
    return (
        f"{name} must be an address to listen on, not {value!r}: "
        "host:port, [::1]:port or unix:/dir/name.sock."
    )


@documented
class EndpointKeywords(TypedDict, total=False):
    """The endpoints that a host serves: each only if its path is given."""

    ping_path: Annotated[str | None, Option(None, "the path of the ping")]
    liveness_path: Annotated[str | None, Option(None, "the path of the liveness probe")]
    readiness_path: Annotated[str | None, Option(None, "the path of the readiness probe")]
    startup_path: Annotated[str | None, Option(None, "the path of the startup probe")]
    metrics_path: Annotated[str | None, Option(None, "the path of the Prometheus metrics")]
    status_path: Annotated[
        str | None, Option(None, "the path of the status page; its JSON document is beside it, at `.json`")
    ]
    management_bind: Annotated[
        str | None,
        Option(
            None,
            "the address to serve these endpoints on instead of in the host: `host:port` or `unix:/path`",
            address,
        ),
    ]
    probe_timeout: Annotated[float, TIMEOUT]
    probe_ttl: Annotated[float, TTL]
    probe_details: Annotated[bool, DETAILS]
    max_handler_age: Annotated[float | None, MAX_HANDLER_AGE]
    metrics_registry: Annotated[
        "CollectorRegistry | None",
        Option(None, "the Prometheus registry; None: the default registry of prometheus_client"),
    ]


@documented
class DocsKeywords(TypedDict, total=False):
    """The AsyncAPI docs of a host."""

    asyncapi_path: Annotated[
        str | UpstreamRoute | AsyncAPIRoute | None,
        Option(None, "the path of the docs, or an `AsyncAPIRoute` with further options"),
    ]
    specification: Annotated[
        SpecificationFactory | None,
        Option(
            None,
            "the AsyncAPI specification; None: that of the target app, or one generated from the brokers "
            "with the host's title, version and description",
        ),
    ]


@documented
class PublishingKeywords(TypedDict, total=False):
    """The page and the API that publish messages. They are never served at `management_bind`."""

    publish_path: Annotated[
        str | None, Option(None, "the path of the page and the API that publish messages; needs `authorize`")
    ]
    authorize: Annotated[Authorize | None, AUTHORIZE]


class HostKeywords(LifespanKeywords, EndpointKeywords, PublishingKeywords, total=False):
    """The keywords of every host: those of the lifespan, of the endpoints and of publishing."""


class AdapterKeywords(HostKeywords, DocsKeywords, total=False):
    """The keywords of every adapter: those of every host and of the AsyncAPI docs."""
