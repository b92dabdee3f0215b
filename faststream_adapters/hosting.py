"""From targets and keywords to one lifespan and the endpoints of a host; every adapter translates these."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from faststream import AsyncAPI, FastStream
from faststream.asgi.types import ASGIApp
from faststream.exceptions import SetupError
from faststream.specification.base import SpecificationFactory

from ._compat import Broker
from .asyncapi import AsyncAPIRoute
from .endpoints import (
    PROBE_TIMEOUT,
    ProbeKeywords,
    make_liveness_asgi,
    make_ping_asgi,
    make_readiness_asgi,
    make_startup_asgi,
)
from .lifespan import BrokerLifespan, LifespanKeywords
from .metrics import make_metrics_asgi
from .routing import Endpoint, Routes

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class EndpointKeywords(TypedDict, total=False):
    """Which endpoints a host serves, and how.

    Args:
        ping_path: The path of a ping; off when not given, as are all paths.
        liveness_path: The path of the liveness probe.
        readiness_path: The path of the readiness probe.
        startup_path: The path of the startup probe.
        metrics_path: The path of the Prometheus metrics.
        probe_timeout: Seconds after which a probe answers, whatever the answer is by then; 0.9.
        probe_ttl: Seconds for which a broker's answer is used again; 0.
        probe_details: Whether probes list brokers and subscribers.
        max_handler_age: Seconds that a message may be in its handler before the liveness probe fails; not
            limited when not given.
        metrics_registry: The Prometheus registry; prometheus_client's default one when not given.
    """

    ping_path: str | None
    liveness_path: str | None
    readiness_path: str | None
    startup_path: str | None
    metrics_path: str | None
    probe_timeout: float
    probe_ttl: float
    probe_details: bool
    max_handler_age: float | None
    metrics_registry: "CollectorRegistry | None"


class HostKeywords(LifespanKeywords, EndpointKeywords, total=False):
    """The keywords that every host takes: those of the lifespan and those of the endpoints."""


class AdapterKeywords(HostKeywords, total=False):
    """The keywords of every adapter: those of every host, and those of the AsyncAPI docs.

    Args:
        asyncapi_path: The path of the docs, or all about them.
        specification: The AsyncAPI specification; when not given, that of the target app, or one made from
            the brokers with the host's title, version and description.
    """

    asyncapi_path: str | AsyncAPIRoute | None
    specification: SpecificationFactory | None


class HostInfo(NamedTuple):
    """What a host application says of itself, for the AsyncAPI document.

    Args:
        title: Its title.
        version: Its version.
        description: Its description.
    """

    title: str | None = None
    version: str | None = None
    description: str | None = None

    def specification(self, lifespan: BrokerLifespan) -> SpecificationFactory:
        """Return the specification of a target app, or one in the host's name for brokers."""
        if lifespan.app is not None:
            return lifespan.app.schema
        said = {name: value for name, value in self._asdict().items() if value}
        return AsyncAPI(*lifespan.brokers, **said)


class Hosting(NamedTuple):
    """What a host has to run and to serve.

    Args:
        lifespan: To be entered by the host.
        routes: Paths with the apps that answer them; an `Endpoint` its path, any other app all below it too.
    """

    lifespan: BrokerLifespan
    routes: Routes


def hosting_for(
    targets: tuple[Broker | FastStream | BrokerLifespan, ...],
    keywords: AdapterKeywords,
    info: HostInfo | None = None,
) -> Hosting:
    """Return what a host has to run and to serve for these targets.

    Args:
        targets: One or more brokers, or one FastStream app, or one BrokerLifespan.
        keywords: The adapter's keywords.
        info: What the host says of itself.

    Raises:
        SetupError: Two endpoints have one path, or the targets and the keywords cannot work together.
        TypeError: A keyword is unknown.
    """
    docs = {name: keywords[name] for name in ("asyncapi_path", "specification") if name in keywords}
    rest = HostKeywords(**{name: value for name, value in keywords.items() if name not in docs})  # type: ignore[typeddict-item]  # checked below
    lifespan_keywords, endpoint_keywords = split_keywords(rest)
    lifespan = lifespan_for(targets, lifespan_keywords)
    served = endpoints_for(lifespan, endpoint_keywords)
    _check_path_of("specification", "asyncapi_path", keywords)
    if path := keywords.get("asyncapi_path"):
        given = keywords.get("specification")
        target = (info or HostInfo()).specification(lifespan) if given is None else lifespan
        served += docs_for(path, target, given)
    routes = Routes()
    for path, app in served:
        routes.add(path, app, exact=isinstance(app, Endpoint))
    return Hosting(lifespan, routes)


_PROBES = {
    "ping_path": make_ping_asgi,
    "readiness_path": make_readiness_asgi,
    "startup_path": make_startup_asgi,
}


def lifespan_for(
    targets: tuple[Broker | FastStream | BrokerLifespan, ...],
    keywords: LifespanKeywords,
) -> BrokerLifespan:
    """Return the lifespan that runs these targets.

    Args:
        targets: One or more brokers, or one FastStream app, or one BrokerLifespan.
        keywords: The lifespan's keywords; a BrokerLifespan has brought its own.

    Raises:
        SetupError: The targets or the keywords cannot work together.
    """
    target: Any = targets[0] if len(targets) == 1 else None
    if isinstance(target, FastStream):
        # An AsgiFastStream brings its lifespan.
        target = getattr(target, "broker_lifespan", None)
    if isinstance(target, BrokerLifespan):
        if keywords:
            msg = (
                f"{', '.join(keywords)}: give these to the BrokerLifespan itself, it brings its own keywords."
            )
            raise SetupError(msg)
        return target
    return BrokerLifespan(*targets, **keywords)  # type: ignore[arg-type]  # it says what it takes


def split_keywords(keywords: HostKeywords) -> tuple[LifespanKeywords, EndpointKeywords]:
    """Return the lifespan's keywords and the endpoints'.

    Raises:
        TypeError: A keyword is unknown.
    """
    lifespan: dict[str, Any] = {}
    endpoints: dict[str, Any] = {}
    for name, value in keywords.items():
        if name in LifespanKeywords.__annotations__:
            lifespan[name] = value
        elif name in EndpointKeywords.__annotations__:
            endpoints[name] = value
        else:
            known = ", ".join(sorted(AdapterKeywords.__annotations__))
            msg = f"Unknown keyword {name!r}. Known are: {known}."
            raise TypeError(msg)
    return LifespanKeywords(**lifespan), EndpointKeywords(**endpoints)  # type: ignore[typeddict-item]  # checked above


def endpoints_for(lifespan: BrokerLifespan, keywords: EndpointKeywords) -> list[tuple[str, ASGIApp]]:
    """Return the endpoints with their paths.

    Args:
        lifespan: Whose brokers the probes are about.
        keywords: Which endpoints, and how.
    """
    routes: list[tuple[str, ASGIApp]] = []
    options = ProbeKeywords(
        timeout=keywords.get("probe_timeout", PROBE_TIMEOUT),
        ttl=keywords.get("probe_ttl", 0.0),
        details=keywords.get("probe_details", False),
    )
    for name, make in _PROBES.items():
        if path := keywords.get(name):
            routes.append((str(path), make(lifespan, **options)))
    _check_path_of("max_handler_age", "liveness_path", keywords)
    if path := keywords.get("liveness_path"):
        max_age = keywords.get("max_handler_age")
        routes.append((path, make_liveness_asgi(lifespan, max_handler_age=max_age, **options)))
    _check_path_of("metrics_registry", "metrics_path", keywords)
    if metrics_path := keywords.get("metrics_path"):
        registry = keywords.get("metrics_registry")
        routes.append((metrics_path, make_metrics_asgi(registry, targets=[lifespan])))
    return routes


def _check_path_of(name: str, path: str, keywords: Mapping[str, Any]) -> None:
    """Refuse a keyword that would silently do nothing."""
    if keywords.get(name) is not None and not keywords.get(path):
        msg = f"{name} has no effect without {path}: name the path, or leave {name} out."
        raise SetupError(msg)


def docs_for(
    route: str | AsyncAPIRoute,
    target: Any,
    specification: SpecificationFactory | None = None,
) -> list[tuple[str, ASGIApp]]:
    """Return the AsyncAPI docs and the document beside them, with their paths.

    Args:
        route: The path of the docs, or all about them.
        target: What `make_asyncapi_asgi` takes.
        specification: The one to use instead of the target's own; the target's brokers are added to it.
    """
    route = AsyncAPIRoute.ensure_route(route)
    docs = route(target, specification=specification)
    beside = {route.asyncapi_json_path: docs.json, route.asyncapi_yaml_path: docs.yaml}
    return [(route.path, docs), *((path, endpoint) for path, endpoint in beside.items() if path)]
