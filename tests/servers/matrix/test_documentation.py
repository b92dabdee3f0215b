"""What docs/servers.md and the README say of running is what the tests run."""

from __future__ import annotations

import re
from typing import Any

import pytest
from faststream.nats import NatsBroker, PullSub

from faststream_adapters import AsgiFastStream
from faststream_adapters._compat import options_of
from faststream_adapters.brokers import driver_for
from faststream_adapters.server import ADDRESSES, _settings
from tests.examples.blocks import ROOT, python_blocks
from tests.servers.matrix.rows import behaviour_table, commands_table

PAGE = (ROOT / "docs" / "servers.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = python_blocks("docs/servers.md")
# Those of FastStream's command line.
OF_THE_COMMAND = {"workers", "reload", "factory", "loop", "log_level", "log_config", "app_dir"}


@pytest.mark.parametrize(
    ("text", "table"), [(README, commands_table()), (PAGE, commands_table()), (PAGE, behaviour_table())]
)
def test_tables(text: str, table: list[str]) -> None:
    assert "\n".join(table) in text


def run(block: str) -> dict[str, Any]:
    names = {"__name__": "page", "broker": NatsBroker(), "app": AsgiFastStream(), "PullSub": PullSub}
    exec(compile(BLOCKS[block].code, block, "exec"), names)  # noqa: S102 (that is what the page is for)
    return names


@pytest.mark.parametrize(
    ("block", "shared"), [("Workers and messages 1", [False]), ("Workers and messages 2", [True, True])]
)
def test_which_subscribers_share(block: str, shared: list[bool]) -> None:
    broker = run(block)["broker"]
    assert [driver_for(broker).shared(subscriber) for subscriber in broker.subscribers] == shared


def test_what_a_hook_takes() -> None:
    assert options_of(run("`faststream run` 1")["app"]) == {"env", "worker_id"}


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {"Workers and messages 1", "Workers and messages 2", "`faststream run` 1"}


def test_options() -> None:
    section = PAGE.split("\n## `faststream run`\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    named = {name.replace("-", "_") for row in rows for name in re.findall(r"`--([a-z-]+)", row)}
    named = {name.removeprefix("no_") for name in named}
    assert named >= ADDRESSES | OF_THE_COMMAND
    assert named <= ADDRESSES | OF_THE_COMMAND | set(_settings())
