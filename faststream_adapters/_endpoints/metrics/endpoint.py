"""The endpoint that Prometheus scrapes."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import parse_qs

from faststream.asgi.types import Scope
from faststream.exceptions import SetupError

from faststream_adapters._asgi.endpoint import Endpoint, SchemaKeywords
from faststream_adapters._asgi.negotiation import header
from faststream_adapters._asgi.responses import AsgiResponse
from faststream_adapters._asgi.slow_responses import SlowEndpoint, accepts_gzip, compress
from faststream_adapters._lifecycle.targets import Target, TargetView
from faststream_adapters._utils.extras import require
from faststream_adapters._utils.options import complete
from faststream_adapters._utils.threads import SingleFlight

from .brokers import BrokerMetrics
from .workers import DIRECTORY_VARIABLE, WorkerCollector

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric


class _CombinedRegistry:
    """Several registries that are collected as one."""

    def __init__(self, *registries: Any) -> None:
        self._registries = registries

    def collect(self) -> "Iterator[Metric]":
        for registry in self._registries:
            yield from registry.collect()

    def restricted_registry(self, names: Sequence[str]) -> "_CombinedRegistry":
        return _CombinedRegistry(*(registry.restricted_registry(names) for registry in self._registries))


class _Collected:
    """What a collector returned once, to be encoded in any format."""

    def __init__(self, collector: Any) -> None:
        self._metrics: list[Metric] = [*collector.collect()]

    def collect(self) -> "list[Metric]":
        return self._metrics


class _Metrics(SlowEndpoint):
    def __init__(
        self,
        registry: "CollectorRegistry | None",
        targets: Sequence[Target],
        *,
        compression: bool,
        **schema: Unpack[SchemaKeywords],
    ) -> None:
        self._client = require("prometheus_client", "metrics")
        super().__init__("The metrics could not be collected.", **schema)
        self._registry: Any = self._client.REGISTRY if registry is None else registry
        if not callable(getattr(self._registry, "collect", None)):
            msg = (
                f"The registry must be a CollectorRegistry, not {type(registry).__name__}. "
                "Pass brokers as targets=[...]."
            )
            raise SetupError(msg)
        if not isinstance(targets, list | tuple):
            msg = f"targets must be a list, not {type(targets).__name__}: pass targets=[...]."
            raise SetupError(msg)
        self._brokers: BrokerMetrics | None = None
        if targets:
            target = TargetView(targets)
            self.loggers = target.loggers
            self._brokers = BrokerMetrics(target)
        self._compression = compression
        # With this variable set, prometheus_client keeps the metrics in files instead of in memory.
        directory = os.environ.get(DIRECTORY_VARIABLE)
        self._workers = None if directory is None else WorkerCollector(directory, self._log_broken)
        self._flight = SingleFlight()

    async def _make(self, scope: Scope) -> AsgiResponse:
        choose_encoder = self._client.exposition.choose_encoder
        try:
            encode, content_type = choose_encoder(header(scope, b"accept"))
        except TypeError:
            # prometheus_client compares the requested version as numbers, and this one is not numeric.
            encode, content_type = choose_encoder("")
        names = frozenset(parse_qs(scope.get("query_string", b"").decode("latin-1")).get("name[]", ()))
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        compressed = self._compression and accepts_gzip(scope)
        if compressed:
            headers["Content-Encoding"] = "gzip"
        if self._brokers is not None:
            self._brokers.update()
        # In a thread, because 10,000 series take 60 ms, which would block the event loop. Concurrent scrapes
        # share a collection, also if they ask for different formats.
        collected = await self._flight.run(names, partial(self._collect, names))
        key = (collected, content_type, compressed)
        body = await self._flight.run(key, partial(_encode, collected, encode, compressed=compressed))
        if not names:
            # Only now it is known that all metrics can be collected again.
            self._failure_logged = False
        return AsgiResponse(body, 200, headers)

    def _collect(self, names: frozenset[str]) -> "_Collected":
        registry = self._registries()
        return _Collected(registry.restricted_registry(names) if names else registry)

    def _log(self, traceback: str) -> None:
        self.loggers["metrics"].error("The metrics could not be collected.\n%s", traceback)

    def _log_broken(self, name: str, reason: str) -> None:
        self.loggers["metrics"].warning(
            "%r in the directory %s is left out of the metrics, because it cannot be read (%s).",
            name,
            DIRECTORY_VARIABLE,
            reason,
        )

    def _registries(self) -> Any:
        if self._workers is not None:
            # The files contain BrokerMetrics too. Metrics can be selected by name only if they are described,
            # for which a registry collects them.
            registry = self._client.CollectorRegistry(auto_describe=True)
            registry.register(_Collected(self._workers))
            return registry
        if self._brokers is None:
            return self._registry
        return _CombinedRegistry(self._registry, self._brokers.registry)


def _encode(collected: "_Collected", encode: Callable[[Any], bytes], *, compressed: bool) -> bytes:
    body = encode(collected)
    return compress(body) if compressed else body


def make_metrics_asgi(
    registry: "CollectorRegistry | None" = None,
    *,
    targets: Sequence[Target] = (),
    compression: bool = True,
    **schema: Unpack[SchemaKeywords],
) -> Endpoint:
    """Make an endpoint that exposes Prometheus metrics.

    With `PROMETHEUS_MULTIPROC_DIR` set, a response contains the metrics of all worker processes and all
    registries.

    Args:
        registry: The registry; by default, the one of prometheus_client.
        targets: One or more brokers, or one FastStream app, or one object that has a `broker_lifespan`, whose
            state is exposed too.
        compression: Whether to compress responses with gzip, for scrapers that accept it.
        schema: See `SchemaKeywords`.

    Returns:
        An ASGI app that responds in the requested format, Prometheus text or OpenMetrics.

    Raises:
        ImportError: prometheus_client is not installed.
        SetupError: The registry or the targets are of a wrong kind, or `PROMETHEUS_MULTIPROC_DIR` is not a
            directory.

    Source: Prometheus documentation, "Exposition formats".
    """
    options = complete(SchemaKeywords, schema, make_metrics_asgi)
    return _Metrics(registry, targets, compression=compression, **options)
