"""The readiness rule, as a table: no server and no probe is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from faststream import FastStream
from faststream.nats import NatsBroker

from faststream_adapters import BrokerLifespan, HealthCheck
from faststream_adapters._endpoints import report
from faststream_adapters._lifecycle.broker_check import Result
from faststream_adapters._lifecycle.health_check import ManagedCheck
from faststream_adapters._lifecycle.managed import ManagedBroker, managed_broker
from faststream_adapters._lifecycle.targets import TargetView
from faststream_adapters._utils.loggers import DEFAULT

if TYPE_CHECKING:
    from faststream_adapters._brokers.codes import Code


@pytest.fixture
def managed() -> ManagedBroker:
    return managed_broker(NatsBroker())


@pytest.mark.parametrize(("optional", "required"), [(False, True), (True, False)])
def test_an_optional_broker_is_not_required(managed: ManagedBroker, optional: bool, required: bool) -> None:
    managed.optional = optional
    assert report.is_required(managed) == required


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
    assert report.readiness(TargetView((healthy.broker, managed.broker)), results) == verdict


@pytest.mark.parametrize(
    ("code", "optional", "verdict"),
    [("ok", False, "ok"), ("check_failed", False, "check_failed"), ("check_failed", True, "ok")],
)
def test_a_check_counts_unless_it_is_optional(
    managed: ManagedBroker, code: Code, optional: bool, verdict: Code
) -> None:
    check = ManagedCheck(HealthCheck("database", print), DEFAULT, optional=optional)
    results: report.Results = {managed: Result("ok", 0.0), check: Result(code, 0.0)}
    assert report.readiness(TargetView((managed.broker,)), results) == verdict


def test_a_lifespan_that_is_not_running_is_not_ready(managed: ManagedBroker) -> None:
    target = TargetView((BrokerLifespan(managed.broker),))
    assert report.readiness(target, {managed: Result("ok", 0.0)}) == "not_started"


def test_without_a_broker_nothing_is_ready() -> None:
    assert report.readiness(TargetView((FastStream(),)), {}) == "no_brokers"
