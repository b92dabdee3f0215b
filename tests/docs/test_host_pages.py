"""docs/hosts/*.md: the pages have one order, their applications work, and so do the tests of these."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.docs.blocks import (
    ROOT,
    at_nats,
    code_blocks,
    eventually,
    load,
    needs_recent_litestar,
    python_blocks,
    run_tests,
    served,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.servers.nats import NatsServer

SECTIONS = ["Install", "Life cycle", "Health", "Dependencies", "Docs page", "Testing", "Workers"]
NAMES = ["fastapi", "litestar", "quart", "asgi", "standalone"]
APPLICATION, TEST = "Life cycle 1", "Testing 1"

# The others run only in the full run.
each_host = pytest.mark.parametrize(
    "name", [NAMES[0], *(pytest.param(each, marks=pytest.mark.full) for each in NAMES[1:])]
)


def test_there_is_a_page_for_each_host() -> None:
    assert {path.stem for path in (ROOT / "docs" / "hosts").glob("*.md")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_sections_have_one_order(name: str) -> None:
    text = (ROOT / "docs" / "hosts" / f"{name}.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    assert list(python_blocks(f"docs/hosts/{name}.md")) == [APPLICATION, TEST]


@each_host
async def test_the_application_counts_an_order(name: str, shared_nats: NatsServer, tmp_path: Path) -> None:
    blocks = python_blocks(f"docs/hosts/{name}.md")
    code = blocks[APPLICATION].code
    needs_recent_litestar(code)
    [order] = re.findall(r'client\.post\("(.+?)"\)', blocks[TEST].code)
    async with served(load(at_nats(code, shared_nats.url), tmp_path).app) as client:
        for path in ("/livez", "/readyz", "/asyncapi", "/asyncapi.json", "/asyncapi.yaml"):
            assert (await client.get(path)).status_code == 200
        assert (await client.post(order)).status_code == 202
        await eventually(client, "/total", 3)


@each_host
def test_the_test_of_the_application_passes(name: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    blocks = python_blocks(f"docs/hosts/{name}.md")
    needs_recent_litestar(blocks[APPLICATION].code)
    (settings,) = code_blocks("docs/testing.md", "toml").values()
    files = {"main.py": blocks[APPLICATION], "test_main.py": blocks[TEST], "pyproject.toml": settings}
    for file, block in files.items():
        (tmp_path / file).write_text(block.code, encoding="utf-8")
    assert "1 passed" in run_tests(tmp_path, pytestconfig)
