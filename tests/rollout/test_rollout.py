"""No message is lost while the processes of a service are replaced, whatever the server does meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rollout.conftest import OUTCOMES
from tests.rollout.flow import NONE, Row, roll_out
from tests.rollout.table import COUNT


@pytest.mark.full
@pytest.mark.timeout(1800)
async def test_no_message_is_lost(row: Row, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    whole = request.config.getoption("rollout", None)
    outcome = await roll_out(row, tmp_path, *((COUNT, 1_000.0) if whole else (1_000, 200.0)))
    # Core NATS delivers a message to the processes that are connected, and to none later.
    assert outcome.lost == 0 or not (row.transport.keeps or row.fault is NONE)
    request.config.stash[OUTCOMES].append(outcome)
