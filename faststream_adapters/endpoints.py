"""The probes: endpoints that say whether the brokers, and the process around them, are well."""

import json
import logging
import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Awaitable, Iterator
from time import monotonic
from typing import Any, TypedDict, Unpack

from faststream import FastStream
from faststream.asgi.types import ASGIApp, Receive, Scope, Send
from faststream.exceptions import SetupError

from ._compat import Broker, BrokerUsecase
from .brokers import Code
from .health import Result, changes
from .lifespan import BrokerLifespan, State
from .responses import AsgiResponse
from .routing import Endpoint, Tags
from .supervision import BrokerRun, run_of

logger = logging.getLogger("faststream.adapters")

ProbeTarget = Broker | FastStream | BrokerLifespan

_LOWEST_STATUS, _HIGHEST_STATUS = 200, 599
_MOST_SECONDS = 24 * 60 * 60

PROBE_TIMEOUT = 0.9
"""Seconds: below the second that the kubelet waits by default."""

_STATE_CODES: dict[State, Code] = {
    "stopped": "not_started",
    "starting": "not_started",
    "draining": "draining",
    "failed": "error",
}
_NO_STORE = {"Cache-Control": "no-store"}


class Target:
    """What an endpoint is about: brokers, and the lifespans that run them.

    Args:
        targets: One or more brokers, or one FastStream app, or one BrokerLifespan.

    Raises:
        SetupError: It is something else.
    """

    def __init__(self, targets: tuple[ProbeTarget, ...]) -> None:
        self.lifespan: BrokerLifespan | None = None
        """The target's own lifespan, if it has one."""
        self.app: FastStream | None = None
        """The target, or the target of its lifespan, if that is an app."""
        self._brokers: list[Broker] = []
        if len(targets) == 1 and isinstance(targets[0], BrokerLifespan):
            self.lifespan = targets[0]
            self.app = self.lifespan.app
            self._brokers = list(self.lifespan.brokers)
        elif len(targets) == 1 and isinstance(targets[0], FastStream):
            # An AsgiFastStream brings its lifespan; FastStream's own app may be run by any.
            self.lifespan = getattr(targets[0], "broker_lifespan", None)
            self.app = targets[0]
        elif targets and all(isinstance(target, BrokerUsecase) for target in targets):
            self._brokers = [target for target in targets if isinstance(target, BrokerUsecase)]
        else:
            kinds = ", ".join(type(target).__name__ for target in targets) or "nothing"
            msg = f"Pass one or more brokers, or one FastStream app, or one BrokerLifespan, not {kinds}."
            raise SetupError(msg)
        self._runs = [run_of(broker) for broker in self._brokers]
        self._own = [] if self.lifespan is None else [self.lifespan]

    # Every request asks, which is why these two are no properties: a method is called faster by CPython 3.11.

    def runs(self) -> list[BrokerRun]:
        """Return the runs of the brokers, in their order."""
        app = self.app
        if app is not None and app.brokers != self._brokers:
            self._brokers = list(app.brokers)
            self._runs = [run_of(broker) for broker in self._brokers]
        return self._runs

    def lifespans(self) -> list[BrokerLifespan]:
        """Return the lifespan, or those that run the brokers just now."""
        return self._own or [lifespan for run in self.runs() for lifespan in run.holders]

    @property
    def named(self) -> Iterator[tuple[str, BrokerRun]]:
        """The runs with their names: the broker's class, and its number among those of its class."""
        counts: Counter[str] = Counter()
        for run in self.runs():
            kind = type(run.broker).__name__
            counts[kind] += 1
            yield f"{kind} {counts[kind]}", run

    def watch_handlers(self) -> None:
        """Remember from now on since when each message is being handled."""
        if self.lifespan is not None:
            # Its app may be given more brokers before it starts.
            self.lifespan.watch_handlers = True
        for run in self.runs():
            run.watch_handlers()


class ProbeKeywords(TypedDict, total=False):
    """The keywords of every `make_*_asgi` probe.

    Args:
        ok_status: The HTTP status for "healthy"; 204, or 200 with details.
        fail_status: The HTTP status for "not healthy"; 503, for a ping 500.
        timeout: Seconds after which the answer is given, whatever it is by then; 0.9 when not given.
        ttl: Seconds for which a broker's answer is used again; 0 when not given.
        details: Whether the answer lists brokers and subscribers, as `application/health+json`.
        include_in_schema: Whether the AsyncAPI document lists the route.
        description: The description in that document.
        tags: The tags in that document.
        unique_id: The operation id in that document.
    """

    ok_status: int | None
    fail_status: int | None
    timeout: float | None
    ttl: float
    details: bool
    include_in_schema: bool
    description: str | None
    tags: Tags | None
    unique_id: str | None


class LivenessKeywords(ProbeKeywords, total=False):
    """The keywords of `make_liveness_asgi`.

    Args:
        max_handler_age: Seconds that a message may be in its handler; not limited when not given.
    """

    max_handler_age: float | None


class _Probe(Endpoint):
    """An endpoint that answers with one of two statuses."""

    name: str
    description: str
    default_fail_status = 503

    def __init__(
        self,
        targets: tuple[ProbeTarget, ...],
        *,
        ok_status: int | None = None,
        fail_status: int | None = None,
        timeout: float | None = None,
        ttl: float = 0.0,
        details: bool = False,
        description: str | None = None,
        **schema: Any,
    ) -> None:
        super().__init__(description=description or type(self).description, **schema)
        self._target = Target(targets)
        self._timeout = PROBE_TIMEOUT if timeout is None else timeout
        self._ttl = ttl
        _check_seconds("timeout", self._timeout)
        _check_seconds("ttl", ttl, zero=True)
        self._details = details
        self.ok_status = _status("ok_status", ok_status, 200 if details else 204)
        self._fail_status = _status("fail_status", fail_status, self.default_fail_status)
        self._ok = AsgiResponse(b"", self.ok_status, _NO_STORE)
        self._fail = AsgiResponse(b"", self._fail_status, _NO_STORE)
        self._warned = False
        # An app may be given brokers, which nobody tells. That is of no account to its own lifespan's state.
        self._keeps = not details and (self._target.lifespan is not None or self._target.app is None)
        # The last answer, the change that came before it, and until when it holds without another one.
        self._known: tuple[AsgiResponse, object, float] = self._fail, None, -math.inf

    def respond(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer what is known already, or examine the target; with `details`, tell what was found."""
        last, (known, since, until) = changes.last, self._known
        if since is last and monotonic() <= until:
            return known.answer(scope, receive, send)
        if (lifespan := self._target.lifespan) is not None and not lifespan.was_entered:
            self._warn()
            return self.answer("not_started", {}).answer(scope, receive, send)
        found = self.examine()
        if isinstance(found, tuple):
            response, until = found
            if self._keeps:
                self._known = response, last, until
            return response.answer(scope, receive, send)
        return found(scope, receive, send)

    @abstractmethod
    def examine(self) -> tuple[AsgiResponse, float] | ASGIApp:
        """Return the answer, and until when it holds if nothing changes; or else who asks the brokers."""

    def answer(self, code: Code | None, results: dict[BrokerRun, Result]) -> AsgiResponse:
        """Return the response.

        Args:
            code: Why the target is not healthy, or None.
            results: What each broker that was asked has answered.
        """
        if self._details:
            return self._report(code, results)
        return self._ok if code is None else self._fail

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "The %s endpoint was asked, but its lifespan never ran, so no broker was started. "
                "A server runs only the outermost application's lifespan: enter this one there.",
                self.name,
            )

    def _report(self, code: Code | None, results: dict[BrokerRun, Result]) -> AsgiResponse:
        now = monotonic()
        checks: dict[str, list[dict[str, Any]]] = {}
        for component, run in self._target.named:
            entries = checks.setdefault(type(run.broker).__name__, [])
            entry: dict[str, Any] = {"componentType": "broker", "componentId": component}
            if (result := results.get(run)) is not None:
                entry |= {
                    "status": "pass" if result.ok else "warn" if run.optional else "fail",
                    "code": result.code,
                    "observedValue": round(result.seconds * 1000, 3),
                    "observedUnit": "ms",
                    "age": round(max(now - result.at, 0.0), 3),
                }
            entries.append(entry)
            for name, consumer in run.subscribers():
                # One that was never started is the user's own affair.
                bad = "warn" if run.optional or consumer == "not_started" else "fail"
                status = "pass" if consumer == "ok" else bad
                entries.append(
                    {"componentType": "subscriber", "componentId": name, "status": status, "code": consumer}
                )
        statuses = {entry.get("status") for entries in checks.values() for entry in entries}
        ok = "warn" if "warn" in statuses else "pass"
        body = {
            "status": ok if code is None else "fail",
            "code": code or "ok",
            "state": sorted({lifespan.state for lifespan in self._target.lifespans()}),
            "checks": checks,
        }
        return AsgiResponse(
            json.dumps(body).encode(),
            self.ok_status if code is None else self._fail_status,
            {"Content-Type": "application/health+json", **_NO_STORE},
        )


class _Asking(_Probe):
    """An endpoint that asks the brokers, unless what they said lately will do."""

    def runs(self) -> list[BrokerRun]:
        """Return the brokers to ask."""
        return self._target.runs()

    def fault(self, run: BrokerRun, result: Result) -> Code | None:  # noqa: ARG002 (for who looks closer)
        """Return what is wrong with a broker that has answered this, or None."""
        return None if result.code == "ok" else result.code

    def judge(self, results: dict[BrokerRun, Result]) -> AsgiResponse:
        """Return the answer, by what each broker that was asked has answered."""
        faults = (self.fault(run, result) for run, result in results.items())
        code = next((fault for fault in faults if fault is not None), None)
        return self.answer(code, results | self.known() if self._details else results)

    def known(self) -> dict[BrokerRun, Result]:
        """Return what is known, and told with details, of brokers that were not asked."""
        return {}

    def examine(self) -> tuple[AsgiResponse, float] | ASGIApp:
        if not self._ttl:
            return self.ask
        results: dict[BrokerRun, Result] = {}
        oldest = monotonic()
        for run in self.runs():
            if (result := run.fresh(self._ttl)) is None:
                return self.ask
            results[run] = result
            oldest = min(oldest, result.at)
        return self.judge(results), oldest + self._ttl

    async def ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask the brokers, and answer."""
        runs = self.runs()
        if len(runs) == 1 and not self._details:
            # As a rule, and then nothing has to be collected.
            [run] = runs
            code = self.fault(run, await run.ask(self._timeout))
            response = self._ok if code is None else self._fail
        else:
            # All are asked before the first is waited for.
            answers = [run.ask(self._timeout, self._ttl) for run in runs]
            response = self.judge({run: await answer for run, answer in zip(runs, answers, strict=True)})
        await response.answer(scope, receive, send)


class _Ping(_Asking):
    name = "ping"
    description = "Whether the brokers answer."
    default_fail_status = 500


class _Liveness(_Probe):
    name = "liveness"
    description = "Whether the process can go on by itself."

    def __init__(
        self,
        targets: tuple[ProbeTarget, ...],
        *,
        max_handler_age: float | None = None,
        **options: Unpack[ProbeKeywords],
    ) -> None:
        super().__init__(targets, **options)
        self._max_handler_age = max_handler_age
        lifespan = self._target.lifespan
        self._state_tells = lifespan is not None and lifespan.supervise and max_handler_age is None
        """Whether nothing but a failed start is beyond help: what is supervised is brought back."""
        if max_handler_age is not None:
            _check_seconds("max_handler_age", max_handler_age)
            self._target.watch_handlers()

    def examine(self) -> tuple[AsgiResponse, float]:
        for lifespan in self._target.lifespans():
            if lifespan.state == "failed":
                return self.answer("error", {}), math.inf
        if self._state_tells:
            return self.answer(None, {}), math.inf
        return self.answer(self._fault(), {}), -math.inf

    def _fault(self) -> Code | None:
        for run in self._target.runs():
            if run.beyond_help():
                return "closed"
            if self._max_handler_age is not None and run.watch_handlers().oldest > self._max_handler_age:
                return "timeout"
        return None


class _Readiness(_Asking):
    name = "readiness"
    description = "Whether messages can be consumed and published now."

    def examine(self) -> tuple[AsgiResponse, float] | ASGIApp:
        for lifespan in self._target.lifespans():
            if lifespan.state != "running":
                return self.answer(_STATE_CODES[lifespan.state], {}), math.inf
        return super().examine()

    def runs(self) -> list[BrokerRun]:
        runs = self._target.runs()
        for run in runs:
            if run.optional:
                # Nobody waits for a broker that the service can do without.
                return [run for run in runs if not run.optional]
        return runs

    def fault(self, run: BrokerRun, result: Result) -> Code | None:
        return run.not_consuming() if result.code == "ok" else result.code

    def known(self) -> dict[BrokerRun, Result]:
        return {run: run.known() for run in self._target.runs() if run.optional}


class _Startup(_Probe):
    name = "startup"
    description = "Whether the start is over."

    def examine(self) -> tuple[AsgiResponse, float]:
        for lifespan in self._target.lifespans():
            if not lifespan.was_running:
                return self.answer("not_started", {}), math.inf
        return self.answer(None, {}), math.inf


def _check_seconds(name: str, value: object, *, zero: bool = False) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # Not "for ever" either: a timer could not be set.
    if number and (0 < value <= _MOST_SECONDS or (zero and value == 0)):  # type: ignore[operator]  # see `number`
        return
    limit = "from 0" if zero else "above 0"
    msg = f"{name} must be a number of seconds {limit}, up to {_MOST_SECONDS}, not {value!r}."
    raise SetupError(msg)


def _status(name: str, value: int | None, default: int) -> int:
    if value is None:
        return default
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or not _LOWEST_STATUS <= value <= _HIGHEST_STATUS
    ):
        msg = f"{name} must be an HTTP status from {_LOWEST_STATUS} to {_HIGHEST_STATUS}, not {value!r}."
        raise SetupError(msg)
    return value


def make_ping_asgi(*targets: ProbeTarget, **options: Unpack[ProbeKeywords]) -> Endpoint:
    """Make an endpoint that asks every broker for a sign of life.

    Args:
        targets: One or more brokers, or one FastStream app, or one BrokerLifespan.
        options: See `ProbeKeywords`.

    Returns:
        An ASGI app: 204 when all answer, else 500.

    Raises:
        SetupError: The targets, `timeout`, `ttl` or a status are not what they must be.
    """
    return _Ping(targets, **options)


def make_liveness_asgi(*targets: ProbeTarget, **options: Unpack[LivenessKeywords]) -> Endpoint:
    """Make an endpoint that says whether the process can go on by itself; it never asks a broker.

    Args:
        targets: One or more brokers, or one FastStream app, or one BrokerLifespan.
        options: See `LivenessKeywords`.

    Returns:
        An ASGI app: 503 when only a restart of the process can help, else 204.

    Raises:
        SetupError: The targets, `timeout`, `ttl`, a status or `max_handler_age` are not what they must be.

    Source: Kubernetes documentation, "Liveness, Readiness, and Startup Probes".
    """
    return _Liveness(targets, **options)


def make_readiness_asgi(*targets: ProbeTarget, **options: Unpack[ProbeKeywords]) -> Endpoint:
    """Make an endpoint that says whether messages can be consumed and published now.

    Args:
        targets: One or more brokers, or one FastStream app, or one BrokerLifespan.
        options: See `ProbeKeywords`.

    Returns:
        An ASGI app: 204 when running and every broker that is not optional answers, else 503.

    Raises:
        SetupError: The targets, `timeout`, `ttl` or a status are not what they must be.

    Source: Kubernetes documentation, "Liveness, Readiness, and Startup Probes".
    """
    return _Readiness(targets, **options)


def make_startup_asgi(*targets: ProbeTarget, **options: Unpack[ProbeKeywords]) -> Endpoint:
    """Make an endpoint that says whether the start is over; once it is, it stays so.

    Args:
        targets: One or more brokers, or one FastStream app, or one BrokerLifespan.
        options: See `ProbeKeywords`.

    Returns:
        An ASGI app: 503 until the lifespan has been running for the first time, then 204.

    Raises:
        SetupError: The targets, `timeout`, `ttl` or a status are not what they must be.

    Source: Kubernetes documentation, "Liveness, Readiness, and Startup Probes".
    """
    return _Startup(targets, **options)
