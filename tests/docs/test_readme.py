"""README.md fits on a screen, its links lead somewhere, and its service behaves as the text describes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from faststream_adapters._endpoints.options import ProbeKeywords
from faststream_adapters._utils.options import declared
from tests.docs.blocks import ROOT, assert_promises, at_nats, code_blocks, load, python_blocks, served

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.harness.servers.nats import NatsServer

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
SERVICE = "A FastAPI service with truthful probes"


def test_it_has_at_most_150_lines() -> None:
    assert len(TEXT.splitlines()) <= 150


def test_the_service_has_12_lines() -> None:
    [service] = python_blocks("README.md").values()
    assert len([line for line in service.code.splitlines() if line]) <= 12


async def test_the_service_answers_as_promised_when_nats_freezes(
    nats: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [service] = python_blocks("README.md").values()
    module = load(at_nats(service.code, nats.url), tmp_path)
    commands = code_blocks("README.md", "sh")[f"{SERVICE} 2"].code
    async with served(module.app) as client:
        await module.broker.publish("tea", "orders")
        assert (await client.get("/readyz")).text == "ok"
        await assert_promises(client, nats, commands)
    assert "tea" in capsys.readouterr().out.splitlines()


def test_readiness_fails_within_a_second_by_default() -> None:
    assert "within a second" in TEXT
    assert declared(ProbeKeywords)["timeout"].default < 1.0


def test_links_point_to_existing_files() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        linked = [page.parent / path for path in re.findall(r"\]\(([\w/.-]+)(?:#[\w-]+)?\)", text)]
        named = [ROOT / path for path in re.findall(r"`(examples/[\w.]*)`", text)]
        assert [path for path in (*linked, *named) if not path.exists()] == []


def test_links_point_to_existing_sections() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for path, section in re.findall(r"\]\(([\w/.-]*\.md)?#([\w-]+)\)", page.read_text(encoding="utf-8")):
            text = (page.parent / path if path else page).read_text(encoding="utf-8")
            assert section in {_anchor(line) for line in text.splitlines() if line.startswith("#")}, page


def _anchor(heading: str) -> str:
    """Return the anchor that a heading gets when Markdown is displayed."""
    words = re.sub(r"[^\w\s-]", "", heading.lstrip("#").strip().lower())
    return words.replace(" ", "-")
