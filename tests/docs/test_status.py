"""docs/status.md: its applications run, and its tables are those of the code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import httpx

from faststream_adapters._endpoints.options import StatusKeywords
from faststream_adapters._endpoints.status import document
from faststream_adapters._lifecycle.history import MAX_CHANGES, MAX_NAMES
from faststream_adapters._lifecycle.statistics import RATE_PERIOD
from faststream_adapters._lifecycle.supervisor import SUBSCRIBERS_INTERVAL
from faststream_adapters._utils.options import declared
from tests.docs.blocks import ROOT, at_nats, load, python_blocks, served
from tests.harness.hosts import serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.servers.nats import NatsServer

PAGE = "docs/status.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
BLOCKS = python_blocks(PAGE)
KEYWORD, ALONE = "Status page 1", "Alone 1"


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {KEYWORD, ALONE}


async def test_the_page_is_at_its_own_address(
    shared_nats: NatsServer, tmp_path: Path, free_address: str
) -> None:
    code = at_nats(BLOCKS[KEYWORD].code, shared_nats.url)
    assert code.count("127.0.0.1:8081") == 1
    app = load(code.replace("127.0.0.1:8081", free_address), tmp_path).app
    async with serving(app) as host, httpx.AsyncClient(base_url=f"http://{free_address}") as http:
        assert await host.status("/status") == 404
        page = await http.get("/status")
        assert "All brokers reply" in page.text
        assert "../metrics" in page.text
        subscribers = (await http.get("/status.json")).json()["subscribers"]
        assert [(each["name"], each["group"]) for each in subscribers] == [("process", "order-service")]


async def test_the_page_alone_has_a_document_too(shared_nats: NatsServer, tmp_path: Path) -> None:
    async with served(load(at_nats(BLOCKS[ALONE].code, shared_nats.url), tmp_path).app) as http:
        page = await http.get("/status")
        assert 'href="https://wiki.example/orders"' in page.text
        for path in ("/status.json", "/status?format=json"):
            assert (await http.get(path)).json()["state"] == ["running"]


def _rows(head: str) -> dict[str, list[str]]:
    """Return the cells after the first one of each row in the table with this head."""
    table = TEXT.split(f"| {head} |")[1].split("\n\n")[0]
    rows: dict[str, list[str]] = {}
    for line in table.splitlines():
        if line.startswith("| `"):
            first, *others = line.strip("| ").split(" | ")
            rows |= dict.fromkeys(re.findall(r"`(\w+)`", first), others)
    return rows


def test_the_tables_of_fields_are_complete() -> None:
    tables: dict[str, Any] = {
        "Field": document.StatusDocument,
        "Field of `process`": document.ProcessStatus,
        "Field of `brokers`": document.BrokerStatus,
        "Field of `checks`": document.CheckStatus,
        "Field of `subscribers`": document.SubscriberStatus,
        "Field of `changes`": document.ChangeStatus,
    }
    for head, fields in tables.items():
        assert list(_rows(head)) == list(fields.__annotations__), head
        for name, (kind, _) in _rows(head).items():
            nullable = "None" in str(fields.__annotations__[name])
            assert kind.endswith("or null") == nullable, (head, name)


def test_the_table_of_keywords_matches_the_options() -> None:
    options = declared(StatusKeywords)
    for name, (default, text) in _rows("Keyword").items():
        assert default.strip("`") == str(options[name].default)
        assert text == options[name].text


def test_the_numbers_of_the_page_match() -> None:
    refresh = declared(StatusKeywords)["refresh"].default
    assert (refresh, SUBSCRIBERS_INTERVAL, MAX_CHANGES, MAX_NAMES, RATE_PERIOD) == (5, 5.0, 50, 20, 30.0)
    for words in ("every five seconds", "last 50 changes", "at most 20 names", "last 30 to 60 seconds"):
        assert words in TEXT
