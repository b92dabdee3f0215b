"""make_metrics_asgi: an endpoint for Prometheus to scrape."""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack
from urllib.parse import parse_qs

from faststream.asgi.types import Receive, Scope, Send
from faststream.exceptions import SetupError

from faststream_adapters.endpoints import ProbeTarget, Target
from faststream_adapters.extras import require
from faststream_adapters.negotiation import coding, header
from faststream_adapters.responses import AsgiResponse
from faststream_adapters.routing import Endpoint, Tags

from .brokers import BrokerMetrics
from .workers import VARIABLE, Workers

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric

_LEVEL = 6
"""Of gzip: 9, Python's default, takes four times as long for the same size."""


class SchemaKeywords(TypedDict, total=False):
    """How the AsyncAPI document lists a route: `include_in_schema`, `description`, `tags`, `unique_id`."""

    include_in_schema: bool
    description: str | None
    tags: Tags | None
    unique_id: str | None


class _Together:
    """Several registries as one."""

    def __init__(self, *registries: Any) -> None:
        self._registries = registries

    def collect(self) -> "Iterator[Metric]":
        for registry in self._registries:
            yield from registry.collect()

    def restricted_registry(self, names: Sequence[str]) -> "_Together":
        return _Together(*(registry.restricted_registry(names) for registry in self._registries))


class _Metrics(Endpoint):
    def __init__(
        self,
        registry: "CollectorRegistry | None",
        targets: Sequence[ProbeTarget],
        *,
        compression: bool,
        **schema: Any,
    ) -> None:
        self._client = require("prometheus_client", "metrics")
        super().__init__(**schema)
        self._registry: Any = self._client.REGISTRY if registry is None else registry
        if not callable(getattr(self._registry, "collect", None)):
            msg = (
                f"The registry must be a CollectorRegistry, not {type(registry).__name__}: "
                "name the brokers as targets=[...]."
            )
            raise SetupError(msg)
        if not isinstance(targets, list | tuple):
            msg = f"targets must be a list, not {type(targets).__name__}: targets=[...]."
            raise SetupError(msg)
        self._brokers = BrokerMetrics(Target(tuple(targets))) if targets else None
        self._codings = ("gzip",) if compression else ("identity",)
        # As prometheus_client does, which writes either into memory or into these files.
        self._workers = Workers(os.environ[VARIABLE]) if VARIABLE in os.environ else None

    async def respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        choose_encoder = self._client.exposition.choose_encoder
        try:
            encode, content_type = choose_encoder(header(scope, b"accept"))
        except TypeError:
            # It has compared a version that is no number.
            encode, content_type = choose_encoder("")
        names = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("name[]", [])
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        compressed = coding(header(scope, b"accept-encoding"), self._codings) == "gzip"
        if compressed:
            headers["Content-Encoding"] = "gzip"
        if self._brokers is not None:
            self._brokers.refresh()
        # 10,000 series take 60 ms, for which no message would be handled.
        body = await asyncio.to_thread(self._body, encode, names, compressed=compressed)
        await AsgiResponse(body, 200, headers)(scope, receive, send)

    def _body(self, encode: Callable[[Any], bytes], names: list[str], *, compressed: bool) -> bytes:
        registry = self._collected(describe=bool(names))
        body = encode(registry.restricted_registry(names) if names else registry)
        if not compressed:
            return body
        import gzip

        return gzip.compress(body, _LEVEL)

    def _collected(self, *, describe: bool) -> Any:
        if self._workers is not None:
            # What each process has, BrokerMetrics included. Only what is described can be found by name.
            registry = self._client.CollectorRegistry(auto_describe=describe)
            registry.register(self._workers)
            return registry
        return self._registry if self._brokers is None else _Together(self._registry, self._brokers.registry)


def make_metrics_asgi(
    registry: "CollectorRegistry | None" = None,
    *,
    targets: Sequence[ProbeTarget] = (),
    compression: bool = True,
    **schema: Unpack[SchemaKeywords],
) -> Endpoint:
    """Make an endpoint that exposes Prometheus metrics.

    With `PROMETHEUS_MULTIPROC_DIR` set, an answer holds the metrics of all worker processes, of whatever
    registry.

    Args:
        registry: The registry; prometheus_client's default one when not given.
        targets: One or more brokers, or one FastStream app, or one BrokerLifespan: its state is exposed too.
        compression: Whether the answer is compressed for a scraper that can read that.
        schema: See `SchemaKeywords`.

    Returns:
        An ASGI app that answers in the format the scraper asks for (Prometheus text or OpenMetrics).

    Raises:
        ImportError: prometheus_client is not installed.
        SetupError: The registry or the targets are not what they must be, or `PROMETHEUS_MULTIPROC_DIR` is
            no directory.

    Source: Prometheus documentation, "Exposition formats".
    """
    return _Metrics(registry, targets, compression=compression, **schema)
