"""The verdicts of the probes, computed from the lifespans' states and the results of broker checks."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any, Literal, NamedTuple

from faststream_adapters._brokers.codes import NO_FAULTS, Code
from faststream_adapters._compat.faststream import Subscriber
from faststream_adapters._lifecycle.broker_check import Result
from faststream_adapters._lifecycle.health_check import ManagedCheck
from faststream_adapters._lifecycle.lifespan import BrokerLifespan
from faststream_adapters._lifecycle.managed import ManagedBroker
from faststream_adapters._lifecycle.options import State
from faststream_adapters._lifecycle.selectors import NamedSubscriber
from faststream_adapters._lifecycle.targets import TargetView

Checked = ManagedBroker | ManagedCheck
"""What a probe checks."""

Results = Mapping[Checked, Result]
"""The result of the last check of each broker, and of each of the application's own checks."""

ResultOf = Callable[[Checked], Result | None]
"""Returns a result that is good enough for a verdict, or None."""

Status = Literal["pass", "warn", "fail"]
"""Source: draft-inadarei-api-health-check-06."""

Component = Literal["broker", "subscriber"]

Counted = Callable[[ManagedBroker], Container[Component]]
"""Returns the parts of a broker that decide the verdict. A fault of another part is only a warning."""

_NOT_RUNNING: dict[State, Code] = {
    "stopped": "not_started",
    "starting": "starting",
    "draining": "draining",
    "failed": "failed",
}


def ping(target: TargetView, result_of: ResultOf) -> Code | None:
    """Return "ok" if every broker has replied, else the code of the first that has not.

    Args:
        target: The brokers.
        result_of: Returns the result of a broker. Where it has none, the verdict is None: not known.
    """
    return _first_fault(map(result_of, target.managed_brokers))


def _first_fault(results: Iterable[Result | None]) -> Code | None:
    for result in results:
        if result is None or result.code != "ok":
            return result and result.code
    return "ok"


def not_running(lifespans: Iterable[BrokerLifespan]) -> Code | None:
    """Return the code of the first lifespan that is not running, or None if all are."""
    for lifespan in lifespans:
        if (state := lifespan.status.current) != "running":
            return _NOT_RUNNING[state]
    return None


def readiness(target: TargetView, result_of: ResultOf) -> Code | None:
    """Apply the readiness rule: return "ok" if messages can be consumed and published, else the reason.

    Args:
        target: The brokers and the lifespans that run them. All must be running, and there must be a broker.
        result_of: Returns the result of a broker, or of one of the application's checks. Each one that is
            required must be "ok", and those subscribers of a broker that the application has not stopped must
            consume. Where a required one has no result, the verdict is None: not known.
    """
    if (code := not_running(target.lifespans)) is not None:
        return code
    brokers = target.managed_brokers
    if not brokers:
        return "no_brokers"
    for managed in brokers:
        if managed.optional:
            continue
        result = result_of(managed)
        if result is None or result.code != "ok":
            return result and result.code
        if (fault := managed.subscriber_fault()) is not None:
            return fault
    checks = target.checks
    return _first_fault(result_of(check) for check in checks if not check.optional) if checks else "ok"


def liveness(
    lifespans: Iterable[BrokerLifespan], brokers: Iterable[ManagedBroker], max_handler_age: float | None
) -> Code:
    """Return "ok", or the reason why only a restart of the process can help.

    Args:
        lifespans: The lifespans that run the brokers. None may have failed.
        brokers: The brokers. None may be lost without supervision to restart it.
        max_handler_age: Seconds that a handler may take for a message; None: no limit.
    """
    for lifespan in lifespans:
        if lifespan.status.current == "failed":
            return "failed"
    for managed in brokers:
        if managed.is_unrecoverable():
            return "closed" if managed.driver.is_closed else "task_failed"
        if max_handler_age is not None and managed.oldest_message > max_handler_age:
            return "handler_stuck"
    return "ok"


def startup(lifespans: Iterable[BrokerLifespan]) -> Code:
    """Return "ok" if every lifespan has been running at least once."""
    return "ok" if all(lifespan.status.was_running for lifespan in lifespans) else "starting"


class SubscriberReading(NamedTuple):
    """What is known of a subscriber at one moment; less than `SubscriberInfo`, which takes longer to make.

    Args:
        broker: The name of its broker.
        name: Its name.
        code: The code of its health.
        oldest: How long the oldest message in flight has been handled, in seconds; 0 if there is none.
        backlog: How many messages wait on the server; None if that is unknown.
        backlog_is_shared: Whether all processes have the same backlog.
        dropped: How many messages the client has dropped; None if it never drops any.
    """

    broker: str
    name: str
    code: Code
    oldest: float
    backlog: int | None
    backlog_is_shared: bool
    dropped: int | None


class Snapshot(NamedTuple):
    """What is known of a target at one moment, without a new check.

    Args:
        code: The verdict of readiness.
        restarts: How often each broker was restarted.
        checks: The code of each of the application's own checks.
        subscribers: The subscribers.
    """

    code: Code
    restarts: Mapping[str, int]
    checks: Mapping[str, Code]
    subscribers: Sequence[SubscriberReading]


def last_verdict(target: TargetView) -> Code:
    """Return the verdict of readiness from the checks that supervision makes every second."""
    return readiness(target, _last_result) or "not_started"


def status_of(code: Code, *, counts: bool) -> Status:
    """Return the status of a component: "fail" only if its fault decides the verdict.

    Args:
        code: Its code.
        counts: Whether it decides the verdict.
    """
    return "pass" if code in NO_FAULTS else "fail" if counts else "warn"


def subscriber_status(managed: ManagedBroker, subscriber: Subscriber, code: Code, *, counts: bool) -> Status:
    """Return the status of a subscriber.

    Args:
        managed: Its broker.
        subscriber: The subscriber.
        code: Its code.
        counts: Whether the subscribers of the broker decide the verdict.
    """
    # One that is not started is no failure: the application decides which ones it starts.
    counts = counts and code != "not_started" and not managed.is_optional(subscriber)
    return status_of(code, counts=counts)


def total_status(code: Code, statuses: Container[object]) -> Status:
    """Return the status of the whole.

    Args:
        code: The verdict.
        statuses: The statuses of the components.
    """
    if code != "ok":
        return "fail"
    return "warn" if "warn" in statuses else "pass"


def snapshot(target: TargetView) -> Snapshot:
    """Return what is known of a target, from the checks that supervision makes every second."""
    running = [each for each in dict.fromkeys(target.lifespans) if each.state == "running"]
    checks = [check for lifespan in running for check in lifespan.checks]
    return Snapshot(
        last_verdict(target),
        {name: managed.restarts for name, managed in target.named},
        # Two lifespans that share a broker may have checks of the same name: the one that fails counts.
        {each.name: each.code for each in sorted(checks, key=lambda each: each.code != "ok")},
        [_read(each) for each in target.named_subscribers],
    )


def _last_result(checked: Checked) -> Result:
    # Readiness waits for the first result of a check.
    unknown = isinstance(checked, ManagedCheck) and checked.code == "not_started"
    return Result("ok" if unknown else checked.code, 0.0)


def _read(named: NamedSubscriber) -> SubscriberReading:
    managed, subscriber = named.managed, named.subscriber
    statistics, backlog = managed.statistics, managed.backlogs.get(subscriber)
    return SubscriberReading(
        named.broker,
        named.name,
        managed.subscriber_code(subscriber),
        0.0 if statistics is None else statistics[subscriber].oldest,
        backlog,
        backlog is not None and managed.driver.is_backlog_shared(subscriber),
        managed.driver.dropped(subscriber),
    )


def details(target: TargetView, code: Code, results: Results, counted: Counted) -> dict[str, Any]:
    """Return the status of all brokers, subscribers and checks in the format `application/health+json`.

    It agrees with the code: a part has the status "fail" only if the code is not "ok".

    Args:
        target: The brokers to report on.
        code: The verdict of the probe, from the same results and without an await in between.
        results: The results. A broker without one is listed without a status, and a check is left out.
        counted: Returns which parts of a broker decide this verdict.

    Source: draft-inadarei-api-health-check-06.
    """
    now = monotonic()
    checks: dict[str, list[dict[str, Any]]] = {}
    subscribers: dict[ManagedBroker, list[NamedSubscriber]] = {}
    for named in target.named_subscribers:
        subscribers.setdefault(named.managed, []).append(named)
    for component, managed in target.named:
        parts = counted(managed)
        entries = checks.setdefault(type(managed.broker).__name__, [])
        entry: dict[str, Any] = {"componentType": "broker", "componentId": component}
        if (result := results.get(managed)) is not None:
            # A broker that is restarted may reply before its subscribers have started.
            started = not managed.is_starting or "subscriber" not in parts
            broker_code = result.code if started or not result.ok else "not_started"
            entry |= _observed(result, broker_code, counts="broker" in parts, now=now)
        entries.append(entry)
        for named in subscribers.get(managed, ()):
            subscriber_code = managed.subscriber_code(named.subscriber)
            status = subscriber_status(
                managed, named.subscriber, subscriber_code, counts="subscriber" in parts
            )
            entries.append(
                {
                    "componentType": "subscriber",
                    "componentId": named.name,
                    "status": status,
                    "code": subscriber_code,
                }
            )
    for check in target.checks:
        if (result := results.get(check)) is not None:
            entry = {"componentType": "check", "componentId": check.name}
            entry |= _observed(result, result.code, counts=not check.optional, now=now)
            checks.setdefault("HealthCheck", []).append(entry)
    statuses = {entry.get("status") for entries in checks.values() for entry in entries}
    return {
        "status": total_status(code, statuses),
        "code": code,
        "state": sorted({lifespan.state for lifespan in target.lifespans}),
        "checks": checks,
    }


def _observed(result: Result, code: Code, *, counts: bool, now: float) -> dict[str, Any]:
    """Return the details of one result.

    Args:
        result: The result.
        code: The code to show.
        counts: Whether it decides the verdict.
        now: The time on the clock of `time.monotonic`.
    """
    return {
        "status": status_of(code, counts=counts),
        "code": code,
        "observedValue": round(result.seconds * 1000, 3),
        "observedUnit": "ms",
        "age": round(max(now - result.at, 0.0), 3),
    }
