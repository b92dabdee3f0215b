"""The configuration of Sphinx, which builds the documentation as HTML: `make docs`.

The pages are plain Markdown files, which read well on a code host too. What only the site needs is added
while Sphinx reads them: the navigation, from the lists in `index.md`, and the files of the repository's root.
"""

import re
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
ROOT = DOCS.parent

project = "faststream-adapters"
author = "The faststream_adapters contributors"
release = version = version_of(project)
extensions = ["myst_parser"]
nitpicky = True
# Sections have the same anchors as on code hosts, so that a link to one works in both places.
myst_heading_anchors = 4

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False

ROOT_FILES = {"changelog": "CHANGELOG.md", "contributing": "CONTRIBUTING.md", "security": "SECURITY.md"}
"""The pages whose text is a file in the root of the repository."""

INDEX = (DOCS / "index.md").read_text(encoding="utf-8")
_SECTION = re.compile(r"^## (?P<caption>[^\n]+)$(?P<text>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_ENTRY = re.compile(r"^- \[[^]]+\]\((?P<page>[\w/-]+)\.md\)", re.MULTILINE)
SECTIONS = {match["caption"]: _ENTRY.findall(match["text"]) for match in _SECTION.finditer(INDEX)}
"""The names of the pages in each section of the navigation, in its order."""


def text_of(page: str) -> str:
    """Return the Markdown of a page."""
    if page not in ROOT_FILES:
        return (DOCS / f"{page}.md").read_text(encoding="utf-8")
    text = (ROOT / ROOT_FILES[page]).read_text(encoding="utf-8")
    for name, file in ROOT_FILES.items():
        text = text.replace(f"]({file}", f"]({name}.md")
    return text.replace("](docs/", "](")


def navigation() -> str:
    """Return the tables of contents that the navigation shows, one for each section."""
    return "".join(
        "\n```{toctree}\n:hidden:\n:caption: " + caption + "\n\n" + "\n".join(pages) + "\n```\n"
        for caption, pages in SECTIONS.items()
    )


def complete(_app: Sphinx, page: str, source: list[str]) -> None:
    """Add to a page what only the site needs."""
    source[0] = text_of(page) + (navigation() if page == "index" else "")


def write_for_models(app: Sphinx, error: Exception | None) -> None:
    """Write what language models read: `llms.txt`, `llms-full.txt` and the Markdown of each page."""
    if error is not None:
        return
    pages = [page for section in SECTIONS.values() for page in section]
    for page in pages:
        (app.outdir / page).with_suffix(".md").write_text(text_of(page), encoding="utf-8")
    title, summary, *sections = INDEX.split("\n\n")
    summary = "> " + summary.replace("\n", "\n> ")
    (app.outdir / "llms.txt").write_text("\n\n".join([title, summary, *sections]), encoding="utf-8")
    full = "\n\n".join(text_of(page) for page in pages)
    (app.outdir / "llms-full.txt").write_text(full, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Register the functions above."""
    app.connect("source-read", complete)
    app.connect("build-finished", write_for_models)
