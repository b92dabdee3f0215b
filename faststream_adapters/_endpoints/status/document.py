"""The status of a target at one moment, as the JSON document that the page shows too."""

import os
import socket
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from time import monotonic, time
from typing import TypedDict

from faststream_adapters._brokers.codes import Code
from faststream_adapters._endpoints import report
from faststream_adapters._endpoints.report import Status
from faststream_adapters._lifecycle.health_check import ManagedCheck
from faststream_adapters._lifecycle.history import MAX_CHANGES, ChangeKind
from faststream_adapters._lifecycle.lifespan import BrokerLifespan
from faststream_adapters._lifecycle.managed import ManagedBroker
from faststream_adapters._lifecycle.options import State
from faststream_adapters._lifecycle.selectors import NamedSubscriber
from faststream_adapters._lifecycle.statistics import Statistics
from faststream_adapters._lifecycle.targets import TargetView
from faststream_adapters._lifecycle.workers import has_siblings

_process_since = time()
"""When this process began, as Unix time: about when it has imported this module, or was forked."""


def _set_process_since() -> None:  # pragma: no cover (called in a process that the tests cannot measure)
    global _process_since  # noqa: PLW0603 (there is one process)
    _process_since = time()


if hasattr(os, "register_at_fork"):  # pragma: no branch (not on Windows)
    os.register_at_fork(after_in_child=_set_process_since)


class ProcessStatus(TypedDict):
    """The process that has answered."""

    host: str
    pid: int
    since: str
    one_of_several: bool


class BrokerStatus(TypedDict):
    """A broker."""

    name: str
    address: str
    status: Status
    code: Code
    optional: bool
    last_reply: str | None
    round_trip_ms: float | None
    restarts: int


class CheckStatus(TypedDict):
    """A health check of the application."""

    name: str
    status: Status
    code: Code
    optional: bool
    last_result: str | None
    duration_ms: float | None


class SubscriberStatus(TypedDict):
    """A subscriber."""

    name: str
    broker: str
    destination: str
    group: str | None
    status: Status
    code: Code
    optional: bool
    in_flight: int
    oldest_seconds: float
    per_second: float | None
    received: int
    failed: int
    dropped: int | None
    backlog: int | None
    backlog_shared: bool | None
    last_message: str | None


class ChangeStatus(TypedDict):
    """A change that one or more components of one kind made at the same time."""

    time: str
    kind: ChangeKind
    names: list[str]
    count: int
    old: State | Code
    new: State | Code


class StatusDocument(TypedDict):
    """The whole."""

    status: Status
    code: Code
    state: list[State]
    since: str | None
    time: str
    process: ProcessStatus
    brokers: list[BrokerStatus]
    checks: list[CheckStatus]
    subscribers: list[SubscriberStatus]
    changes: list[ChangeStatus]


def take(target: TargetView) -> StatusDocument:
    """Return the status of a target as it is known now, without a new check."""
    clock = _Clock()
    lifespans = list(dict.fromkeys(target.lifespans))
    code = report.last_verdict(target)
    brokers = [_broker(name, managed, clock) for name, managed in target.named]
    checks = [_check(check, clock) for check in target.checks]
    subscribers = [_subscriber(named, clock) for named in target.named_subscribers]
    statuses = {each["status"] for each in (*brokers, *checks, *subscribers)}
    since = max((each.status.since for each in lifespans), default=None)
    return {
        "status": report.total_status(code, statuses),
        "code": code,
        "state": sorted({each.state for each in lifespans}) or ["stopped"],
        "since": None if since is None else _text(since),
        "time": clock.unix(clock.now),
        "process": {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": clock.unix(_process_since),
            "one_of_several": has_siblings(),
        },
        "brokers": brokers,
        "checks": checks,
        "subscribers": subscribers,
        "changes": [*_changes(lifespans)],
    }


class _Clock:
    """Converts times to text: seconds in UTC, RFC 3339."""

    def __init__(self) -> None:
        self.now = time()
        self._offset = self.now - monotonic()

    def unix(self, seconds: float) -> str:
        """Return the text of a Unix time."""
        return _text(datetime.fromtimestamp(seconds, UTC))

    def monotonic(self, seconds: float) -> str:
        """Return the text of a time on the clock of `time.monotonic`."""
        return self.unix(seconds + self._offset)


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _broker(name: str, managed: ManagedBroker, clock: _Clock) -> BrokerStatus:
    code, checks = managed.code, managed.broker_check
    last = checks.last
    return {
        "name": name,
        "address": managed.driver.name.partition(" ")[2],
        "status": report.status_of(code, counts=not managed.optional),
        "code": code,
        "optional": managed.optional,
        "last_reply": clock.monotonic(checks.last_ok) if checks.last_ok else None,
        "round_trip_ms": round(last.seconds * 1000, 3) if last is not None and last.ok else None,
        "restarts": managed.restarts,
    }


def _check(check: ManagedCheck, clock: _Clock) -> CheckStatus:
    code, last = check.code, check.last
    return {
        "name": check.name,
        # Readiness waits for the first result of a check.
        "status": report.status_of(code, counts=not check.optional and code != "not_started"),
        "code": code,
        "optional": check.optional,
        "last_result": None if last is None else clock.monotonic(last.at),
        "duration_ms": None if last is None else round(last.seconds * 1000, 3),
    }


def _subscriber(named: NamedSubscriber, clock: _Clock) -> SubscriberStatus:
    managed, subscriber = named.managed, named.subscriber
    # There are statistics, because the endpoint collects them.
    statistics = managed.statistics or Statistics()
    counts, rate = statistics[subscriber], statistics.rate(subscriber)
    code, backlog = managed.subscriber_code(subscriber), managed.backlogs.get(subscriber)
    last = counts.last_message_at
    return {
        "name": named.name,
        "broker": named.broker,
        "destination": named.destination,
        "group": named.group,
        "status": report.subscriber_status(managed, subscriber, code, counts=not managed.optional),
        "code": code,
        "optional": managed.optional or managed.is_optional(subscriber),
        "in_flight": counts.in_flight,
        "oldest_seconds": round(counts.oldest, 3),
        "per_second": None if rate is None else round(rate, 3),
        "received": counts.received,
        "failed": counts.failed,
        "dropped": managed.driver.dropped(subscriber),
        "backlog": backlog,
        "backlog_shared": None if backlog is None else managed.driver.is_backlog_shared(subscriber),
        "last_message": None if last is None else clock.unix(last),
    }


def _changes(lifespans: Iterable[BrokerLifespan]) -> Iterator[ChangeStatus]:
    """Yield the last changes of all lifespans, the latest first."""
    changes = [change for lifespan in lifespans for change in lifespan.status.history]
    # Lifespans that share a broker notice its changes independently of each other.
    changes.sort(key=lambda change: change.time, reverse=True)
    for change in changes[:MAX_CHANGES]:
        yield {
            "time": _text(change.time),
            "kind": change.kind,
            "names": [*change.names],
            "count": change.count,
            "old": change.old,
            "new": change.new,
        }
