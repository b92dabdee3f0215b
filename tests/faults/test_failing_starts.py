"""Starts that fail: each reports why, in both modes, and none blocks the event loop."""

import itertools
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from faststream_adapters import BrokerLifespan
from faststream_adapters._compat.faststream import Broker
from faststream_adapters._lifecycle import managed
from faststream_adapters._utils.errors import BrokerStartError
from tests.faults.test_brokers import CHANNEL
from tests.harness.brokers import HARNESSES, BrokerHarness
from tests.harness.failing_starts import FAILURES, PASSWORD, failing_broker
from tests.harness.stalls import assert_never_blocks
from tests.harness.waiting import eventually

ATTEMPTS = 3


@pytest.fixture
def harness(kind: str) -> BrokerHarness:
    harness = HARNESSES[kind]
    if reason := harness.missing():  # pragma: no cover (installed where skips are forbidden)
        pytest.skip(reason)
    return harness


@pytest.fixture
def broker(harness: BrokerHarness, failure: str, tmp_path: Path) -> Iterator[Broker]:
    """Return a broker with a subscriber, whose start fails."""

    async def handle(number: int) -> None: ...

    with failing_broker(harness, failure, tmp_path) as broker:
        harness.subscribe(broker, CHANNEL, handle)
        yield broker


@pytest.mark.full
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("kind", HARNESSES)
async def test_a_start_that_fails_reports_the_reason_and_does_not_block_the_event_loop(
    broker: Broker,
    harness: BrokerHarness,
    failure: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "faststream.adapters.lifecycle")
    monkeypatch.setattr(managed, "backoff", lambda: itertools.repeat(0.1))

    # On a busy machine a server may need more than a second to reject a password.
    times_out = "in time" in FAILURES[failure]

    async def start_in_the_background() -> None:
        caplog.clear()
        async with BrokerLifespan(broker, startup="background"):
            await eventually(lambda: len(_reports(caplog)) >= ATTEMPTS, 30.0)
        assert all(re.search(FAILURES[failure], report.getMessage()) for report in _reports(caplog))
        # The other ones are not logged above DEBUG.
        assert [report.levelno for report in _reports(caplog)].count(logging.WARNING) == 1

    # A client with attempts without end fails at the limit.
    limit = 20.0 if harness.attempt_timeout and not times_out else 2.0

    async def start_strictly() -> None:
        with pytest.raises(BrokerStartError, match=FAILURES[failure]) as raised:
            await BrokerLifespan(broker, startup_timeout=limit).enter()
        assert PASSWORD not in str(raised.value)

    with monkeypatch.context() as shorter:
        if times_out and (timeout := harness.attempt_timeout):
            shorter.setattr(f"faststream_adapters._brokers.{timeout}", 1.0)
        await assert_never_blocks(start_in_the_background)
    await assert_never_blocks(start_strictly)
    assert PASSWORD not in caplog.text


def _reports(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if " is not up: " in record.getMessage()]
