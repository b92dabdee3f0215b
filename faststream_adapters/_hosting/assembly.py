"""Assemble the lifespan and the endpoints of a host from targets and keywords."""

import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast
from urllib.parse import quote

from faststream import AsyncAPI
from faststream.asgi.types import ASGIApp
from faststream.exceptions import SetupError
from faststream.specification.base import SpecificationFactory

from faststream_adapters._asgi.endpoint import Endpoint
from faststream_adapters._asgi.routing import Routes
from faststream_adapters._asyncapi import AsyncAPIRoute
from faststream_adapters._endpoints.metrics import make_metrics_asgi
from faststream_adapters._endpoints.options import LivenessKeywords, ProbeKeywords
from faststream_adapters._endpoints.probes import (
    make_liveness_asgi,
    make_ping_asgi,
    make_readiness_asgi,
    make_startup_asgi,
)
from faststream_adapters._endpoints.status import make_status_asgi
from faststream_adapters._lifecycle.lifespan import BrokerLifespan
from faststream_adapters._lifecycle.options import LifespanKeywords
from faststream_adapters._lifecycle.targets import Target, parse_targets
from faststream_adapters._utils.extras import require
from faststream_adapters._utils.options import complete, declared, split

from .management import EndpointRoute, management_of
from .options import AdapterKeywords, DocsKeywords, EndpointKeywords, PublishingKeywords

Route = tuple[str, ASGIApp]

_PROBES: Mapping[str, Callable[..., Endpoint]] = {
    "readiness_path": make_readiness_asgi,
    "ping_path": make_ping_asgi,
    "startup_path": make_startup_asgi,
}

_REQUIRED_PATHS: Mapping[str, str] = {
    "max_handler_age": "liveness_path",
    "metrics_registry": "metrics_path",
    "specification": "asyncapi_path",
    "authorize": "publish_path",
}
"""Keywords that have an effect only together with a path."""


class HostInfo(NamedTuple):
    """The title, version and description of a host application, for the AsyncAPI document."""

    title: str | None = None
    version: str | None = None
    description: str | None = None

    def specification(self, lifespan: BrokerLifespan) -> SpecificationFactory:
        """Return the specification of the target app; for brokers, one with this information."""
        if lifespan.app is not None:
            return lifespan.app.schema
        known = {name: value for name, value in self._asdict().items() if value}
        return AsyncAPI(*lifespan.brokers, **known)


class Assembly(NamedTuple):
    """What a host runs and serves.

    Args:
        broker_lifespan: The lifespan that the host enters.
        endpoints: The endpoints that the host serves, with their paths, except the docs.
        docs_route: The path and the options of the docs; None if they are not served.
        specification: The specification that the docs show; None generates one.
    """

    broker_lifespan: BrokerLifespan
    endpoints: Sequence[EndpointRoute]
    docs_route: AsyncAPIRoute | None
    specification: SpecificationFactory | None

    def docs(self, info: HostInfo | None = None) -> list[Route]:
        """Return the AsyncAPI docs with their paths: an app for the page, an `Endpoint` for each document."""
        route, lifespan = self.docs_route, self.broker_lifespan
        if route is None:
            return []
        if self.specification is None:
            page = route((info or HostInfo()).specification(lifespan))
        else:
            page = route(lifespan, specification=self.specification)
        page.loggers = lifespan.loggers
        documents = {route.asyncapi_json_path: page.json, route.asyncapi_yaml_path: page.yaml}
        return [(route.path, page), *((path, endpoint) for path, endpoint in documents.items() if path)]

    def routes(self, info: HostInfo | None = None) -> Routes:
        """Return a routing table of the endpoints and the docs.

        Raises:
            SetupError: Two of them have the same path.
        """
        routes = Routes()
        for path, app in (*self.endpoints, *self.docs(info)):
            routes.add(path, app, exact=isinstance(app, Endpoint))
        return routes


def assemble(
    targets: Sequence[Target], keywords: AdapterKeywords, of: Callable[..., object] | None = None
) -> Assembly:
    """Assemble what a host runs and serves.

    Args:
        targets: One or more brokers, or one FastStream app, or one object that has a `broker_lifespan`.
        keywords: The host's keywords.
        of: What takes the keywords, whose own parameters an error suggests too.

    Raises:
        SetupError: The targets or the keywords are invalid, or cannot be combined.
        TypeError: A keyword is unknown.
    """
    checked = check_keywords(targets, keywords, of)
    lifespan = _lifespan(targets, checked.lifespan)
    endpoints = _endpoints(lifespan, checked)
    publishing = _publishing(lifespan, checked.publishing)
    address = checked.endpoints["management_bind"] or None
    management_of(lifespan).add(address, endpoints)
    if address is not None:
        require("uvicorn", "server")
        endpoints = []
    path = checked.docs["asyncapi_path"]
    return Assembly(
        lifespan,
        [*endpoints, *publishing],
        AsyncAPIRoute.ensure_route(path) if path else None,
        checked.docs["specification"],
    )


class CheckedKeywords(NamedTuple):
    """The valid keywords of a host, split by purpose.

    Args:
        lifespan: The given keywords of the lifespan.
        endpoints: The keywords of the endpoints, with defaults.
        docs: The keywords of the docs, with defaults.
        publishing: The keywords of publishing, with defaults.
    """

    lifespan: LifespanKeywords
    endpoints: EndpointKeywords
    docs: DocsKeywords
    publishing: PublishingKeywords


def check_keywords(
    targets: Sequence[Target],
    keywords: AdapterKeywords,
    of: Callable[..., object] | None,
    *,
    partial: bool = False,
) -> CheckedKeywords:
    """Validate the arguments of `assemble` without assembling anything.

    Args:
        targets: See `assemble`.
        keywords: See `assemble`.
        of: See `assemble`.
        partial: Whether there may be more keywords, so that none is missing.

    Raises:
        SetupError: The targets or the keywords are invalid, or cannot be combined.
        TypeError: A keyword is unknown.
    """
    groups = (LifespanKeywords, EndpointKeywords, DocsKeywords, PublishingKeywords)
    lifespan, endpoints, docs, publishing = split(keywords, *groups, of=of)
    complete(LifespanKeywords, lifespan)
    if lifespan and parse_targets(targets).lifespan is not None:
        msg = f"{', '.join(lifespan)}: pass these to the BrokerLifespan itself, which has its own keywords."
        raise SetupError(msg)
    if not partial:
        _check_effects(keywords)
    checked = CheckedKeywords(
        cast("LifespanKeywords", lifespan),
        complete(EndpointKeywords, endpoints),
        complete(DocsKeywords, docs),
        complete(PublishingKeywords, publishing),
    )
    _check_paths(checked)
    return checked


def _check_effects(keywords: AdapterKeywords) -> None:
    for name, path in _REQUIRED_PATHS.items():
        if keywords.get(name) is not None and not keywords.get(path):
            msg = f"{name} has no effect without {path}: set {path}, or remove {name}."
            raise SetupError(msg)
    paths = [name for name in declared(EndpointKeywords) if name.endswith("_path")]
    if keywords.get("management_bind") and not any(map(keywords.get, paths)):
        msg = f"management_bind has no effect without a path to serve there: set {' or '.join(paths)}."
        raise SetupError(msg)


def _check_paths(checked: CheckedKeywords) -> None:
    paths = [str(value) for name, value in checked.endpoints.items() if name.endswith("_path") and value]
    if status := checked.endpoints["status_path"]:
        paths.append(_json_path(status))
    docs_paths = [path] if (path := checked.publishing["publish_path"]) else []
    if route := checked.docs["asyncapi_path"]:
        docs = AsyncAPIRoute.ensure_route(route)
        docs_paths += filter(None, (docs.path, docs.asyncapi_json_path, docs.asyncapi_yaml_path))
    # The docs and what publishes stay in the host.
    separate = checked.endpoints["management_bind"]
    for together in (paths, docs_paths) if separate else ([*paths, *docs_paths],):
        routes = Routes()
        for path in together:
            routes.reserve(path)


def _lifespan(targets: Sequence[Any], keywords: LifespanKeywords) -> BrokerLifespan:
    return parse_targets(targets).lifespan or BrokerLifespan(*targets, **keywords)


def _publishing(lifespan: BrokerLifespan, options: PublishingKeywords) -> list[EndpointRoute]:
    if not (path := options["publish_path"]):
        return []
    from faststream_adapters._asyncapi.publish.endpoint import make_publish_asgi

    return [(path, make_publish_asgi(lifespan, authorize=options["authorize"]))]


def _json_path(status_path: str) -> str:
    # A page at the root has no name of its own.
    return f"{status_path.rstrip('/') or '/status'}.json"


def _links(checked: CheckedKeywords) -> dict[str, str]:
    """Return the links of the status page, relative to it, because a host may add a prefix to all paths."""
    paths = {"Metrics": checked.endpoints["metrics_path"]}
    if not checked.endpoints["management_bind"]:
        docs = checked.docs["asyncapi_path"]
        paths["AsyncAPI"] = AsyncAPIRoute.ensure_route(docs).path if docs else None
        paths["Publish"] = checked.publishing["publish_path"]
    start = checked.endpoints["status_path"]
    return {text: quote(posixpath.relpath(path, start)) for text, path in paths.items() if path}


def _endpoints(lifespan: BrokerLifespan, checked: CheckedKeywords) -> list[EndpointRoute]:
    options = checked.endpoints
    probe = ProbeKeywords(
        timeout=options["probe_timeout"], ttl=options["probe_ttl"], details=options["probe_details"]
    )
    paths: Mapping[str, Any] = options
    # Some hosts try one route after the other, so those that are requested most come first.
    routes: list[EndpointRoute] = []
    if path := options["liveness_path"]:
        liveness = LivenessKeywords(max_handler_age=options["max_handler_age"], **probe)
        routes.append((path, make_liveness_asgi(lifespan, **liveness)))
    routes += [(paths[name], make(lifespan, **probe)) for name, make in _PROBES.items() if paths[name]]
    if path := options["metrics_path"]:
        routes.append((path, make_metrics_asgi(options["metrics_registry"], targets=[lifespan])))
    if path := options["status_path"]:
        status = make_status_asgi(lifespan, links=_links(checked))
        routes += [(path, status), (_json_path(path), status.json)]
    return routes
