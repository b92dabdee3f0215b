"""docs/drivers.md: its example is a tested driver, and its table lists the members of Driver."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import ConsumerConfig

from faststream_adapters.drivers import Driver, Mismatch
from tests.docs.blocks import ROOT, load, python_blocks

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.harness.servers.nats import NatsServer

PAGE = (ROOT / "docs" / "drivers.md").read_text(encoding="utf-8")
ACME = ROOT / "tests" / "harness" / "thirdparty"


def test_the_example_is_the_driver_that_the_conformance_suite_runs() -> None:
    assert (ACME / "acme_messaging" / "driver.py").read_text(encoding="utf-8") in PAGE


async def test_the_second_example_finds_what_is_wrong_with_a_consumer(
    nats_js: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme, checking = python_blocks("docs/drivers.md").values()
    monkeypatch.setitem(sys.modules, "acme_messaging.driver", load(acme.code, tmp_path, "acme"))
    broker = NatsBroker(nats_js.url)
    driver = load(checking.code, tmp_path).CheckingDriver(broker)
    subscriber = broker.subscriber(
        "orders",
        stream=JStream("shop", subjects=["orders"]),
        durable="workers",
        config=ConsumerConfig(max_deliver=3),
        pull_sub=PullSub(),
    )
    subscriber(print)
    assert await driver.check_subscriber(subscriber) == "ok"
    async with broker:
        await broker.start()
        context = broker.connection.jetstream()
        assert await driver.check_subscriber(subscriber) == "ok"
        found = (await context.consumer_info("shop", "workers")).config
        found.name, found.max_deliver = found.durable_name, 5
        await context.add_consumer("shop", found)
        assert await driver.check_subscriber(subscriber) == Mismatch("max_deliver 3", "max_deliver 5")
        await context.delete_consumer("shop", "workers")
        assert await driver.check_subscriber(subscriber) == "consumer_missing"


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
