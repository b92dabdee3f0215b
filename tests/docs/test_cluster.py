"""The cluster example: every order is handled once, and its report notices lost and repeated orders."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter

import pytest

from examples import cluster
from tests.docs.blocks import ROOT


@pytest.mark.full
@pytest.mark.timeout(300)
def test_every_order_is_handled_once() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "examples.cluster"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert "3 NATS nodes, 4 workers, 200 orders of each kind" in process.stdout
    lines = re.findall(
        r"^  (.+?) +200 handled once, 0 more than once \((.*)\)$", process.stdout, re.MULTILINE
    )
    assert [title for title, _ in lines] == ["core NATS, queue group", "JetStream, durable consumer"]
    for _, shares in lines:
        assert len(shares.split(" + ")) == 4
        assert sum(map(int, shares.split(" + "))) == 200


@pytest.mark.parametrize(
    ("first", "times", "message"),
    [
        (0, 1, "200 handled once, 0 more than once (199 + 1)"),
        (0, 2, "199 handled once, 1 more than once (199 + 2)"),
        # One order is lost, and one is handled that was never sent.
        (200, 1, "200 handled once, 0 more than once (199 + 1)"),
        (None, 0, "199 handled once, 0 more than once (199)"),
    ],
)
def test_the_report_notices_lost_and_repeated_orders(
    first: int | None, times: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    handled = Counter({("fast", number, 7): 1 for number in range(1, 200)})
    handled["up", 0, 7] = 1
    if first is not None:
        handled["fast", first, 8] = times
    assert cluster.report("fast", handled) is ((first, times) == (0, 1))
    assert message in capsys.readouterr().out
