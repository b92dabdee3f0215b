"""Check the built documentation: every link inside it leads somewhere, and it loads nothing from other hosts.

This includes the links in what it has for language models: Markdown files, and text files with Markdown.

Usage:
    python tools/check_site.py DIRECTORY
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Elements whose URL a browser loads by itself; a link (`a`) is loaded only when a person follows it.
LOADED = {"audio", "embed", "iframe", "img", "input", "link", "object", "script", "source", "track", "video"}
MARKDOWN = {".md", ".txt"}
CODE_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
CSS_URL = re.compile(r"""(?:url\(|@import)\s*["']?([^"')\s]+)""")


class Page(HTMLParser):
    """The links and the anchors of one HTML file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[str, bool]] = []
        """URLs, and whether a browser loads them by itself."""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what a tag refers to, and its anchor."""
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in {"href", "src", "data", "poster"} and value:
                self.links.append((value, tag in LOADED))
            elif name == "srcset" and value:
                self.links += [(each.split()[0], True) for each in value.split(",")]
            elif name == "style" and value:
                self.links += [(url, True) for url in CSS_URL.findall(value)]


class MarkdownPage:
    """The links of one file with Markdown, and the anchors that code hosts give its headings."""

    def __init__(self, path: Path) -> None:
        text = CODE_BLOCK.sub("", path.read_text(encoding="utf-8"))
        words = [re.sub(r"[^\w\s-]", "", heading.strip().lower()) for heading in HEADING.findall(text)]
        self.anchors = {each.replace(" ", "-") for each in words}
        self.links = [(url, False) for url in LINK.findall(CODE.sub("", text))]


def problems(site: Path) -> Iterator[str]:
    """Yield one line for each link that leads nowhere, and for each request to another host."""
    pages: dict[Path, Page | MarkdownPage] = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    pages |= {path: MarkdownPage(path) for path in sorted(site.rglob("*.*")) if path.suffix in MARKDOWN}
    links = [(path, *link) for path, page in pages.items() for link in page.links]
    for sheet in sorted(site.rglob("*.css")):
        links += [(sheet, url, True) for url in CSS_URL.findall(sheet.read_text(encoding="utf-8"))]
    for path, url, is_loaded in links:
        parts = urlsplit(url)
        where = f"{path.relative_to(site)}: {url}"
        if parts.scheme == "data" or (not is_loaded and parts.scheme in {"http", "https", "mailto"}):
            continue
        if parts.scheme or parts.netloc:
            yield f"{where} is on another host"
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.is_file():
            yield f"{where} does not exist"
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
            yield f"{where} has no such anchor"


def main() -> None:
    """Check the site in the directory that the command line names."""
    site = Path(sys.argv[1]).resolve()
    if not (site / "index.html").is_file():
        sys.exit(f"{site} has no index.html.")
    if found := list(problems(site)):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
