"""The responses of the metrics endpoint, parsed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.clients import client
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faststream.asgi.types import ASGIApp
    from prometheus_client import Metric

Series = tuple[str, frozenset[tuple[str, str]]]


class Scrape:
    """The samples in one response.

    Args:
        text: The body of the response.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._families = list(text_string_to_metric_families(text))
        samples = [
            (sample.name, frozenset(sample.labels.items()), sample.value)
            for family in self._families
            for sample in family.samples
        ]
        self._values = {(name, labels): value for name, labels, value in samples}
        # Prometheus rejects a response that contains a series twice.
        assert len(self._values) == len(samples)

    def __call__(self, metric: str, **labels: str) -> float | None:
        """Return the value of a series, or None if it does not exist."""
        return self._values.get((metric, frozenset(labels.items())))

    @property
    def names(self) -> set[str]:
        """The names of all samples that there can be, also of metrics without samples."""
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
        return {
            family.name + suffix for family in self._families for suffix in suffixes.get(family.type, ("",))
        }

    def broker_metric(self, metric: str, broker: str = "NatsBroker 1") -> float | None:
        """Return the value of the metric `faststream_adapters_broker_…` of a broker, or None."""
        return self(f"faststream_adapters_broker_{metric}", broker=broker)

    def total(self, metric: str) -> float:
        """Return the sum of all series of a metric."""
        return sum(value for (name, _), value in self._values.items() if name == metric)

    def labels(self, name: str) -> set[str]:
        """Return all values of a label."""
        return {value for _, labels in self._values for label, value in labels if label == name}

    @property
    def busy(self) -> set[str]:
        """The ids of the processes with a message in a handler."""
        return {
            dict(labels)["pid"]
            for (name, labels), value in self._values.items()
            if name == "faststream_received_messages_in_process" and value
        }

    @property
    def states(self) -> dict[str, float]:
        """The number of processes in each state, without the states that have none."""
        return {
            dict(labels)["state"]: value
            for (name, labels), value in self._values.items()
            if name == "faststream_adapters_lifecycle_state" and value
        }


async def scrape(app: ASGIApp, path: str = "/") -> Scrape:
    """Request the metrics of an ASGI app in this process."""
    async with client(app) as http:
        response = await http.get(path)
    assert response.status_code == 200
    return Scrape(response.text)


class FailingRegistry:
    """A registry that cannot be collected."""

    def collect(self) -> Iterator[Metric]:
        """Fail as a collector of the application may."""
        raise ZeroDivisionError


class BlockedCollector:
    """A collector of the metric `waited`, which blocks until the test lets it proceed."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.collections = 0
        self.proceed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.proceed.set()

    def describe(self) -> Iterator[Metric]:
        """Yield what can be selected by name."""
        yield GaugeMetricFamily("waited", "For the test.")

    def collect(self) -> Iterator[Metric]:
        """Wait for the test, and yield the metric."""
        self.collections += 1
        assert self.proceed.wait(20)
        yield GaugeMetricFamily("waited", "For the test.", 1.0)

    async def has_begun(self) -> None:
        """Wait until the first collection has begun."""
        await eventually(lambda: self.collections == 1)
