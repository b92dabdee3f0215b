"""What is known of the brokers, as Prometheus metrics."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

from faststream_adapters.brokers import Driver
from faststream_adapters.endpoints import Target
from faststream_adapters.extras import require
from faststream_adapters.health import Result
from faststream_adapters.lifespan import State
from faststream_adapters.supervision import BrokerRun

logger = logging.getLogger("faststream.adapters")

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""The upper bounds of the histogram; supervision waits for one second."""


class BrokerMetrics:
    """Metrics of brokers and of the lifespans that run them, in a registry of their own.

    They follow what supervision finds once a second, so that a scrape asks no broker. The registry is not the
    user's: several applications in one process would collide there, and leave their metrics behind.

    Args:
        target: The brokers.
    """

    def __init__(self, target: Target) -> None:
        client = require("prometheus_client", "metrics")
        self.registry = client.CollectorRegistry()
        self._target = target
        self._failed = False
        # The modes are for several workers: the worst of them, and how many of them.
        self._up = client.Gauge(
            "faststream_adapters_broker_up",
            "Whether the broker is started and its last round trip succeeded (1) or not (0).",
            ["broker"],
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        self._last_success = client.Gauge(
            "faststream_adapters_broker_last_success_timestamp_seconds",
            "Unix time of the broker's last round trip that succeeded.",
            ["broker"],
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        self._duration = client.Histogram(
            "faststream_adapters_broker_round_trip_duration_seconds",
            "How long the broker's round trips took that succeeded.",
            ["broker"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._state = client.Gauge(
            "faststream_adapters_lifecycle_state",
            "How many processes are in this state of the brokers' lifespan.",
            ["state"],
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._watch()

    def _watch(self) -> None:
        """Be told of what happens, to brokers too that were added to an app."""
        for lifespan in self._target.lifespans():
            lifespan.observers.add(self)
        for run in self._target.runs():
            run.round_trips.observers.add(self)

    def refresh(self) -> None:
        """Bring everything up to date."""
        self._watch()
        states = {lifespan.state for lifespan in self._target.lifespans()} or {"stopped"}
        for state in get_args(State):
            self._state.labels(state).set(state in states)
        for name, run in self._target.named:
            self._up.labels(name).set(_is_up(run))
            # From the start, so that a rate is right from the first round trip on.
            self._duration.labels(name)

    def found(self, driver: Driver, result: Result) -> None:
        """Count a round trip."""
        with self._harmless():
            for name, run in self._target.named:
                if run.driver is not driver:
                    continue
                if result.ok:
                    self._last_success.labels(name).set(time.time())
                    self._duration.labels(name).observe(result.seconds)
                self._up.labels(name).set(_is_up(run))

    def changed(self) -> None:
        """Show the state that a lifespan is in now."""
        with self._harmless():
            self.refresh()

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """Keep the brokers going when the files of several workers cannot be written."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 (whatever it is, it is only about metrics)
            if not self._failed:
                self._failed = True
                logger.error("The metrics cannot be written: %s.", type(error).__name__)  # noqa: TRY400 (redacted)


def _is_up(run: BrokerRun) -> bool:
    last = run.round_trips.last
    # A client that is not asked, as under FastStream's TestBroker, has been started at least.
    return run.up and run.driver.down() is None and (last is None or last.ok)
