"""Metrics from a snapshot of the target: readiness, restarts, subscribers and health checks."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import isnan, nan
from typing import TYPE_CHECKING, Any, NamedTuple

from faststream_adapters._brokers.codes import NO_FAULTS
from faststream_adapters._endpoints.report import Snapshot

if TYPE_CHECKING:
    from prometheus_client import Metric

Labels = tuple[str, ...]


class Family(NamedTuple):
    """A metric.

    Args:
        name: Its name; that of a counter without `_total`.
        documentation: What it means.
        labels: The names of its labels.
        merge: Merges the values of several workers into one; None for a counter, whose values are added up.
    """

    name: str
    documentation: str
    labels: Labels
    merge: Callable[[Iterable[float]], float] | None = None


_SUBSCRIBER = ("broker", "subscriber")

READY = Family(
    "faststream_adapters_ready",
    "1 if the application is ready, by the rule of the readiness probe, else 0.",
    (),
    min,
)
RESTARTS = Family(
    "faststream_adapters_broker_restarts", "How often supervision has restarted the broker.", ("broker",)
)
UP = Family(
    "faststream_adapters_subscriber_up",
    "1 if the subscriber consumes, 0 if it should and does not. No sample while it is stopped or paused.",
    _SUBSCRIBER,
    min,
)
OLDEST = Family(
    "faststream_adapters_subscriber_oldest_message_seconds",
    "Seconds since the oldest message in flight was received; 0 if there is none.",
    _SUBSCRIBER,
    max,
)
BACKLOG = Family(
    "faststream_adapters_subscriber_backlog",
    "Messages that wait on the server. If shared is true, all processes report the same number; else add up.",
    (*_SUBSCRIBER, "shared"),
    max,
)
DROPPED = Family(
    "faststream_adapters_subscriber_dropped",
    "Messages that the client has dropped because the subscriber was too slow.",
    _SUBSCRIBER,
)
CHECK_UP = Family(
    "faststream_adapters_check_up",
    "1 if the health check of the application passes, else 0.",
    ("check",),
    min,
)

FAMILIES = (READY, RESTARTS, UP, OLDEST, BACKLOG, DROPPED, CHECK_UP)
"""All metrics that are read from a snapshot."""

Readings = Mapping[Family, Mapping[Labels, float]]
"""The values of each metric by their labels."""

_UNSTARTED = (NO_FAULTS - {"ok"}) | {"not_started"}
"""The codes of subscribers that are not meant to consume now."""


def read(snapshot: Snapshot) -> Readings:
    """Return the values of all metrics in a snapshot."""
    readings: dict[Family, dict[Labels, float]] = {family: {} for family in FAMILIES}
    readings[READY][()] = float(snapshot.code == "ok")
    for broker, restarts in snapshot.restarts.items():
        readings[RESTARTS][(broker,)] = restarts
    for check, code in snapshot.checks.items():
        if code != "not_started":
            readings[CHECK_UP][(check,)] = float(code == "ok")
    up, oldest, backlog, dropped = (readings[family] for family in (UP, OLDEST, BACKLOG, DROPPED))
    for each in snapshot.subscribers:
        labels = (each.broker, each.name)
        if each.dropped is not None:
            dropped[labels] = each.dropped
        if each.code in _UNSTARTED:
            continue
        up[labels] = float(each.code == "ok")
        oldest[labels] = each.oldest
        if each.backlog is not None:
            backlog[(*labels, "true" if each.backlog_is_shared else "false")] = each.backlog
    return readings


class SnapshotCollector:
    """A collector of the metrics in the last snapshot, for a registry.

    The samples are created at each collection, so there are none of subscribers that were stopped.
    """

    def __init__(self) -> None:
        self.snapshot = Snapshot("not_started", {}, {}, ())
        """The last snapshot."""

    def describe(self) -> "Iterator[Metric]":
        """Yield the metrics without samples, so that they can be selected by name."""
        for family in FAMILIES:
            yield _metric(family, {})

    def collect(self) -> "Iterator[Metric]":
        """Yield the metrics; called in a thread, because those of 1,000 subscribers take a while."""
        for family, values in read(self.snapshot).items():
            yield _metric(family, values)


def _metric(family: Family, values: Mapping[Labels, float]) -> "Metric":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    kind: Any = CounterMetricFamily if family.merge is None else GaugeMetricFamily
    metric: Metric = kind(family.name, family.documentation, labels=family.labels)
    for labels, value in values.items():
        metric.add_metric(labels, value)  # type: ignore[attr-defined]  # of both kinds
    return metric


class SnapshotFiles:
    """Writes the metrics to the files that prometheus_client keeps for several workers.

    A sample cannot be removed from a file, so NaN replaces it; `merge_workers` removes it.
    """

    def __init__(self) -> None:
        self._metrics: dict[Family, Any] = {}
        self._written: dict[Family, dict[Labels, float]] = {family: {} for family in FAMILIES}

    def write(self, readings: Readings) -> None:
        """Write what has changed."""
        for family, values in readings.items():
            if family not in self._metrics:
                self._metrics[family] = _metric_in_file(family)
            written, metric = self._written[family], self._metrics[family]
            gone = {} if family.merge is None else dict.fromkeys(written.keys() - values.keys(), nan)
            for labels, value in (*values.items(), *gone.items()):
                before = written.get(labels)
                if value == before:
                    continue
                sample = metric.labels(*labels) if labels else metric
                if family.merge is not None:
                    sample.set(value)
                else:
                    # A subscriber that takes the place of another one begins at 0.
                    sample.inc(value if before is None or value < before else value - before)
                written[labels] = value
            for labels in gone:
                del written[labels]


def _metric_in_file(family: Family) -> Any:
    from prometheus_client import Counter, Gauge

    arguments = (family.name, family.documentation, family.labels)
    if family.merge is None:
        return Counter(*arguments, registry=None)
    return Gauge(*arguments, registry=None, multiprocess_mode="liveall")


_GAUGES = {family.name: family for family in FAMILIES if family.merge is not None}


def merge_workers(metric: "Metric") -> None:
    """Merge the samples of several workers in place, if the metric is one of this module."""
    if (family := _GAUGES.get(metric.name)) is None or family.merge is None:
        return
    samples: dict[Labels, list[Any]] = {}
    for sample in metric.samples:
        if not isnan(sample.value):
            samples.setdefault(tuple(sample.labels[name] for name in family.labels), []).append(sample)
    metric.samples = [
        each[0]._replace(
            labels=dict(zip(family.labels, labels, strict=True)),
            value=(sum if labels[2:] == ("false",) else family.merge)(sample.value for sample in each),
        )
        for labels, each in samples.items()
    ]
