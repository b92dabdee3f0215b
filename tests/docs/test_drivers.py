"""docs/drivers.md: its example is a tested driver, and its table lists the members of Driver."""

from __future__ import annotations

import re

from faststream_adapters.drivers import Driver
from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs" / "drivers.md").read_text(encoding="utf-8")
ACME = ROOT / "tests" / "harness" / "thirdparty"


def test_the_example_is_the_driver_that_the_conformance_suite_runs() -> None:
    assert (ACME / "acme_messaging" / "driver.py").read_text(encoding="utf-8") in PAGE


def test_the_entry_point_matches_the_example() -> None:
    [(name, value)] = re.findall(r'^(\w+) = "(.*)"$', PAGE, re.MULTILINE)
    declared = (ACME / "acme_messaging-1.0.dist-info" / "entry_points.txt").read_text(encoding="utf-8")
    assert f"{name} = {value}" in declared


def test_the_table_names_members_of_the_contract() -> None:
    rows = [line.split(" | ")[1] for line in PAGE.splitlines() if line.startswith("| ") and "`" in line]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    members = {name for name in vars(Driver) if not name.startswith("_")}
    assert named <= members
    # Drivers inherit these members unchanged.
    assert members - named == {"has_client", "name", "start_publishers", "stop", "stop_now"}
