"""The state of brokers and lifespans as Prometheus metrics."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import get_args

from faststream_adapters._brokers.driver import Driver
from faststream_adapters._endpoints import report
from faststream_adapters._lifecycle.broker_check import Result
from faststream_adapters._lifecycle.options import State
from faststream_adapters._lifecycle.statistics import Collected
from faststream_adapters._lifecycle.targets import TargetView
from faststream_adapters._utils.extras import require

from .snapshot import SnapshotCollector, SnapshotFiles, read
from .workers import DIRECTORY_VARIABLE

WRITE_INTERVAL = 0.9
"""Seconds between two writes for the other workers; supervision checks each broker once a second."""

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Upper bounds of the histogram's buckets, in seconds. Supervision waits at most one second for a reply."""


class BrokerMetrics:
    """Metrics of brokers and of the lifespans that run them, in a separate registry.

    The metrics follow the checks that supervision makes once a second, so a scrape does not check any broker.
    They are not in the application's registry, because there the metrics of several applications in one
    process would collide, and would remain when an application has ended.

    Args:
        target: The brokers to report on.
    """

    def __init__(self, target: TargetView) -> None:
        client = require("prometheus_client", "metrics")
        self.registry = client.CollectorRegistry()
        self._target = target
        target.collect(Collected.MESSAGES | Collected.BACKLOGS | Collected.CHECKS)
        self._error_logged = False
        # With several workers, prometheus_client keeps the metrics in files, which one of them reads.
        self._files = SnapshotFiles() if DIRECTORY_VARIABLE in os.environ else None
        self._written_at = -math.inf
        self._collector = SnapshotCollector()
        self.registry.register(self._collector)
        # With several workers, the modes select the worst worker, and the number of workers in a state.
        self._up = client.Gauge(
            "faststream_adapters_broker_up",
            "1 if the broker is started and its last round trip succeeded, else 0.",
            ["broker"],
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        self._last_success = client.Gauge(
            "faststream_adapters_broker_last_success_timestamp_seconds",
            "Unix time of the broker's last successful round trip.",
            ["broker"],
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        self._duration = client.Histogram(
            "faststream_adapters_broker_round_trip_duration_seconds",
            "Duration of the broker's successful round trips in seconds.",
            ["broker"],
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self._state = client.Gauge(
            "faststream_adapters_lifecycle_state",
            "Number of processes whose lifespan is in this state.",
            ["state"],
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._observe()

    def _observe(self) -> None:
        """Register as an observer of all brokers and lifespans, brokers added to an app later included."""
        for lifespan in self._target.lifespans:
            lifespan.status.observers.add(self)
        for managed in self._target.managed_brokers:
            managed.broker_check.observers.add(self)

    def update(self) -> None:
        """Set all gauges to the current state."""
        with self._errors_logged():
            self._observe()
            self._take_snapshot()
            states = {lifespan.state for lifespan in self._target.lifespans} or {"stopped"}
            for state in get_args(State):
                self._state.labels(state).set(state in states)
            for name, managed in self._target.named:
                self._up.labels(name).set(managed.code == "ok")
                # Create the histogram before the first round trip, so that rates include the first one.
                self._duration.labels(name)

    def on_check(self, driver: Driver, result: Result) -> None:
        """Record a round trip."""
        with self._errors_logged():
            for name, managed in self._target.named:
                if managed.driver is not driver:
                    continue
                if result.ok:
                    self._last_success.labels(name).set(time.time())
                    self._duration.labels(name).observe(result.seconds)
                self._up.labels(name).set(managed.code == "ok")
            if self._files is not None and monotonic() - self._written_at >= WRITE_INTERVAL:
                self._take_snapshot()

    def _take_snapshot(self) -> None:
        self._collector.snapshot = snapshot = report.snapshot(self._target)
        if self._files is not None:
            self._written_at = monotonic()
            self._files.write(read(snapshot))

    def on_state_change(self) -> None:
        """Record the new state of a lifespan."""
        self.update()

    @contextmanager
    def _errors_logged(self) -> Iterator[None]:
        """Log the first error, such as a file for several workers that cannot be written, and raise none."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 (an error in metrics must not affect the brokers)
            if not self._error_logged:
                self._error_logged = True
                logger = self._target.loggers["metrics"]
                logger.error("The metrics cannot be written: %s.", type(error).__name__)  # noqa: TRY400 (redacted)
