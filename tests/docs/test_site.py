"""The site of the documentation: its navigation has every page, and `make docs` finds wrong links."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.docs.blocks import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DOCS = ROOT / "docs"
INDEX = (DOCS / "index.md").read_text(encoding="utf-8")


def check(site: Path, **files: str) -> tuple[int, list[str]]:
    """Check a site with these pages, style sheets, and pages in Markdown.

    Returns:
        The exit code, and the lines that were printed.
    """
    for name, text in files.items():
        suffix = "md" if text.startswith("#") else "css" if text.startswith("@") or "{" in text else "html"
        (site / f"{name}.{suffix}").write_text(text, encoding="utf-8")
    command = [sys.executable, str(ROOT / "tools" / "check_site.py"), str(site)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def test_every_page_is_in_the_navigation_once() -> None:
    """`docs/conf.py` makes the navigation from the lists in `docs/index.md`: add a new page there."""
    entries = re.findall(r"^- \[[^]]+\]\(([\w/-]+\.md)\): .+", INDEX, re.MULTILINE)
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {"index.md"}
    assert sorted(entries) == sorted(pages)
    assert len(re.findall(r"^- ", INDEX, re.MULTILINE)) == len(entries)


def test_the_readme_links_to_the_list_of_all_pages() -> None:
    assert "](docs/index.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_site_whose_links_are_right_passes(tmp_path: Path) -> None:
    assert check(
        tmp_path,
        index='<a href="#top" id="top">1</a><a href="page.html#part">2</a><a href="https://example.com">3</a>',
        page='<h2 id="part">4</h2><link rel="stylesheet" href="sheet.css"><img srcset="index.html 2x">',
        sheet="p { background: url(data:image/png;base64,AA==) }",
    ) == (0, [])


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    code, lines = check(
        tmp_path,
        index='<a href="missing.html">1</a><a href="page.html#missing">2</a><a href="#missing">3</a>',
        page="",
    )
    assert code == 1
    assert lines == [
        "index.html: missing.html does not exist",
        "index.html: page.html#missing has no such anchor",
        "index.html: #missing has no such anchor",
    ]


def test_markdown_is_checked_like_html(tmp_path: Path) -> None:
    code, lines = check(
        tmp_path,
        index="",
        guide="# Guide\n[1](#guide) [2](other.md#the-end) [3](https://example.com)\n"
        "`[4](code)`\n```\n# 5\n[6](7)\n```\n",
        other="# The end\n[`1`](guide.md#5) [2](../examples/main.py)\n",
    )
    assert code == 1
    assert lines == [
        "other.md: guide.md#5 has no such anchor",
        "other.md: ../examples/main.py does not exist",
    ]


def test_what_a_browser_would_load_from_another_host_is_found(tmp_path: Path) -> None:
    code, lines = check(
        tmp_path,
        index='<script src="https://a.example/x.js"></script><p style="background: url(//b.example/y)">1</p>'
        '<a href="javascript:alert()">2</a>',
        sheet='@import "https://c.example/z.css";',
    )
    assert code == 1
    assert lines == [
        "index.html: https://a.example/x.js is on another host",
        "index.html: //b.example/y is on another host",
        "index.html: javascript:alert() is on another host",
        "sheet.css: https://c.example/z.css is on another host",
    ]


def test_a_directory_without_a_site_is_an_error(tmp_path: Path) -> None:
    assert check(tmp_path) == (1, [f"{tmp_path} has no index.html."])
