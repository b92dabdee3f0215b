"""README.md fits on a screen, its links lead somewhere, and its service behaves as the text describes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from faststream_adapters._endpoints.options import ProbeKeywords
from faststream_adapters._utils.options import declared
from tests.docs.blocks import ROOT, at_nats, code_blocks, load, python_blocks, served, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.harness.servers.nats import NatsServer

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
SERVICE = "A FastAPI service with truthful probes"
PROMISED = re.compile(r"^curl -i localhost:8000(/\w+) +# (\d+) (\w+)", re.MULTILINE)


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
    frozen, thawed = commands.partition("pkill -CONT")[::2]
    async with served(module.app) as client:
        await module.broker.publish("tea", "orders")
        assert (await client.get("/readyz")).text == "ok"
        nats.freeze()
        for path, status, word in PROMISED.findall(frozen):
            response = await client.get(path)
            assert (path, response.status_code, response.text) == (path, int(status), word)
        nats.thaw()
        [(path, status, word)] = PROMISED.findall(thawed)

        async def ready_again() -> bool:
            response = await client.get(path)
            return (response.status_code, response.text) == (int(status), word)

        await wait_until(ready_again)
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
