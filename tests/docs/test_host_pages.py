"""docs/hosts/*.md: the pages have one order, their applications work, and so do the tests of these."""

from __future__ import annotations

import re
import shlex
from importlib.metadata import distribution, packages_distributions
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


def installed(requirements: list[str]) -> set[str]:
    """Return the names of the distributions that pip installs for these requirements."""
    seen: set[tuple[str, str]] = set()
    queue = [Requirement(each) for each in requirements]
    for requirement in queue:
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, extra))
            needed = map(Requirement, distribution(name).requires or ())
            queue += [
                each for each in needed if each.marker is None or each.marker.evaluate({"extra": extra})
            ]
    return {name for name, _ in seen}


def test_the_first_command_installs_what_the_application_imports() -> None:
    owners = packages_distributions()
    for name in NAMES:
        command = code_blocks(f"docs/hosts/{name}.md", "sh")["Install 1"].code
        available = installed(shlex.split(command)[2:])
        code = python_blocks(f"docs/hosts/{name}.md")[APPLICATION].code
        modules = set(re.findall(r"^from (\w+)", code, re.MULTILINE)) & owners.keys()
        providers = {module: {canonicalize_name(owner) for owner in owners[module]} for module in modules}
        assert [module for module in modules if not providers[module] & available] == [], name


@each_host
async def test_the_application_counts_an_order(name: str, shared_nats: NatsServer, tmp_path: Path) -> None:
    blocks = python_blocks(f"docs/hosts/{name}.md")
    code = blocks[APPLICATION].code
    needs_recent_litestar(code)
    commands = code_blocks(f"docs/hosts/{name}.md", "sh")[APPLICATION].code
    [order] = re.findall(r"^curl -X POST '?localhost:8000([^'\s]+)", commands, re.MULTILINE)
    [(path, total)] = re.findall(r"^curl localhost:8000(\S+) +# (\d+)$", commands, re.MULTILINE)
    async with served(load(at_nats(code, shared_nats.url), tmp_path).app) as client:
        for endpoint in ("/livez", "/readyz", "/asyncapi", "/asyncapi.json", "/asyncapi.yaml"):
            assert (await client.get(endpoint)).status_code == 200
        assert (await client.post(order)).status_code == 202
        await eventually(client, path, int(total))


@each_host
def test_the_test_of_the_application_passes(name: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    blocks = python_blocks(f"docs/hosts/{name}.md")
    needs_recent_litestar(blocks[APPLICATION].code)
    (settings,) = code_blocks("docs/testing.md", "toml").values()
    files = {"main.py": blocks[APPLICATION], "test_main.py": blocks[TEST], "pyproject.toml": settings}
    for file, block in files.items():
        (tmp_path / file).write_text(block.code, encoding="utf-8")
    assert "1 passed" in run_tests(tmp_path, pytestconfig)
