"""The readiness rule, as a table: no server and no probe is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from faststream import FastStream
from faststream.nats import NatsBroker

from faststream_adapters import BrokerLifespan, HealthCheck
from faststream_adapters._endpoints import report
from faststream_adapters._lifecycle.broker_check import Result
from faststream_adapters._lifecycle.managed import ManagedBroker, managed_broker
from faststream_adapters._lifecycle.targets import TargetView

if TYPE_CHECKING:
    from faststream_adapters._brokers.codes import Code


@pytest.fixture
def managed() -> ManagedBroker:
    return managed_broker(NatsBroker())


def no_result(_: report.Checked) -> None:
    """Return no result of a broker or a check."""


def test_an_optional_broker_does_not_count(managed: ManagedBroker) -> None:
    managed.optional = True
    assert report.readiness(TargetView((managed.broker,)), lambda _: Result("timeout", 0.0)) == "ok"


def test_without_a_result_the_verdict_is_not_known(managed: ManagedBroker) -> None:
    assert report.readiness(TargetView((managed.broker,)), no_result) is None
    assert report.ping(TargetView((managed.broker,)), no_result) is None


@pytest.mark.parametrize(
    ("broker_code", "subscriber_code", "verdict"),
    [
        ("ok", None, "ok"),
        ("timeout", None, "timeout"),
        ("ok", "consumer_missing", "consumer_missing"),
        ("unreachable", "consumer_missing", "unreachable"),
    ],
)
def test_the_verdict_is_the_first_fault(
    managed: ManagedBroker,
    broker_code: Code,
    subscriber_code: Code | None,
    verdict: Code,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    healthy = managed_broker(NatsBroker())
    monkeypatch.setattr(managed, "subscriber_fault", lambda: subscriber_code)
    results: report.Results = {healthy: Result("ok", 0.0), managed: Result(broker_code, 0.0)}
    assert report.readiness(TargetView((healthy.broker, managed.broker)), results.get) == verdict


@pytest.mark.parametrize(
    ("code", "optional", "verdict"),
    [("ok", False, "ok"), ("check_failed", False, "check_failed"), ("check_failed", True, "ok")],
)
def test_a_check_counts_unless_it_is_optional(
    managed: ManagedBroker, code: Code, optional: bool, verdict: Code
) -> None:
    check = HealthCheck("database", print)
    lifespan = BrokerLifespan(managed.broker, checks=[check], optional=[check] if optional else [])
    lifespan.status.set("running")
    results: report.Results = {managed: Result("ok", 0.0), lifespan.checks[0]: Result(code, 0.0)}
    assert report.readiness(TargetView((lifespan,)), results.get) == verdict


def test_a_lifespan_that_is_not_running_is_not_ready(managed: ManagedBroker) -> None:
    target = TargetView((BrokerLifespan(managed.broker),))
    assert report.readiness(target, lambda _: Result("ok", 0.0)) == "not_started"


def test_without_a_broker_nothing_is_ready() -> None:
    assert report.readiness(TargetView((FastStream(),)), no_result) == "no_brokers"
