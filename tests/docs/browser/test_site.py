"""The documentation as a site: it builds without warnings, every link leads somewhere, axe finds nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING, Literal

import pytest
from playwright.async_api import expect

from tests.docs.blocks import ROOT
from tests.docs.browser.browsing import CHROMIUM, NO_CHROMIUM, visit
from tests.harness.servers import HOST
from tests.harness.servers.asgi import AppServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.async_api import Browser

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(find_spec("sphinx") is None, reason="There is no Sphinx: `make docs` installs it."),
    pytest.mark.timeout(600),
]

SEARCH = "search.html?q=broker"
DESKTOP, PHONE = (1280, 900), (390, 844)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
CONTRAST = "color-contrast"

# axe needs most of its time for the contrast. Texts have the same colours if their elements, and those around
# them, have the same classes: of each such kind a few are enough, of all pages together.
_KEEP_NEW_KINDS = """() => {
  const seen = JSON.parse(localStorage.getItem("seen") ?? "{}");
  const kind = (at) => at ? `${kind(at.parentElement)} ${at.localName}.${at.className}` : "";
  for (const each of [...document.body.querySelectorAll("*")].reverse()) {
    if (each.childElementCount || each.closest("svg, script, input")) continue;
    const its = kind(each);
    seen[its] = (seen[its] ?? 0) + 1;
    if (seen[its] > 3) each.remove();
  }
  localStorage.setItem("seen", JSON.stringify(seen));
}"""


def run(*arguments: str) -> None:
    """Run Python, and fail with what it prints if it fails or prints anything."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=280,
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the site, built as by `make docs`."""
    directory = tmp_path_factory.mktemp("site")
    run("-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "docs", str(directory))
    return directory


@pytest.fixture
def paths(site: Path) -> list[str]:
    """Return the paths of all pages inside the site."""
    return sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))


def test_every_link_leads_somewhere(site: Path) -> None:
    run("tools/check_site.py", str(site))


def test_what_the_pages_link_to_is_there_for_models_too(site: Path) -> None:
    text = (site / "llms-full.txt").read_text(encoding="utf-8")
    for path in ("examples/kubernetes/deployment.yaml", "benchmarks.svg", "hosts/fastapi.md"):
        assert f"]({path})" in text
        assert (site / path).is_file()


async def obstacles(browser: Browser, url: str, pages: Iterator[str]) -> dict[str, dict[str, list[str]]]:
    """Visit pages as a desktop and as a phone, light and dark, and return what axe finds in each."""
    found: dict[str, dict[str, list[str]]] = {}
    async with visit(browser, f"{url}/index.html") as visited:

        async def look(size: tuple[int, int], scheme: Literal["light", "dark"], **options: object) -> None:
            await visited.page.set_viewport_size({"width": size[0], "height": size[1]})
            await visited.page.emulate_media(color_scheme=scheme)
            await visited.page.evaluate("for (const each of document.getAnimations()) each.finish()")
            found[f"{name} {size} {scheme}"] = await visited.obstacles(**options)

        for name in pages:
            await visited.page.goto(f"{url}/{name}")
            if name == SEARCH:
                await expect(visited.page.get_by_text("Search finished")).to_be_visible(timeout=30_000)
            for size in (DESKTOP, PHONE):
                await look(size, "light", rules={CONTRAST: {"enabled": False}})
            found[f"{name} is too wide"] = {"pixels": ["wider"] * (await visited.overflow())}
            await visited.page.evaluate(_KEEP_NEW_KINDS)
            for size, scheme in product((PHONE, DESKTOP), SCHEMES):
                await look(size, scheme, runOnly=[CONTRAST])
        assert (visited.elsewhere, visited.errors) == ([], [])
    return {name: rules for name, rules in found.items() if any(rules.values())}


@pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
@pytest.mark.asyncio(loop_scope="module")
async def test_axe_finds_nothing_on_any_page(browser: Browser, site: Path, paths: list[str]) -> None:
    assert {"search.html", "kubernetes.html", "hosts/fastapi.html"} <= set(paths)
    pages = iter([*paths, SEARCH])
    command = [sys.executable, "-m", "http.server", "{port}", "--bind", HOST, "--directory", str(site)]
    with AppServer(command) as server:
        # Two browsers' tabs, which take the pages in turn.
        found = await asyncio.gather(*(obstacles(browser, server.url, pages) for _ in range(2)))
    assert found == [{}, {}]
