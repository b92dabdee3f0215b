"""The configuration of Sphinx, which builds the documentation as HTML: `make docs`.

The pages are plain Markdown files, which read well on a code host too. What only the site needs is added
while Sphinx reads them: the navigation, from the lists in `index.md`, and the files of the repository's root.
"""

import inspect
import re
import shutil
import sys
from importlib import import_module
from importlib.metadata import version as version_of
from os.path import relpath
from pathlib import Path
from typing import Any

from docutils.nodes import Element
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT / "tools"))

from reference import MODULES, text_below  # noqa: E402 (the path is set above)

project = "faststream-adapters"
author = "The faststream_adapters contributors"
release = version = version_of(project)
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
nitpicky = True
# Code in docstrings, such as `BrokerLifespan` or `consume=[]`: a link if it is a public name.
default_role = "py:obj"
# Names of other packages, private ones in signatures, and what is code but no name.
nitpick_ignore_regex = [("py:obj", ".*"), ("py:.*", r"(?!faststream_adapters\.).*|.*\._.*")]
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# Sections have the same anchors as on code hosts, so that a link to one works in both places.
myst_heading_anchors = 4

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False

ROOT_FILES = {"changelog": "CHANGELOG.md", "contributing": "CONTRIBUTING.md", "security": "SECURITY.md"}
"""The pages whose text is a file in the root of the repository."""

INDEX = (DOCS / "index.md").read_text(encoding="utf-8")
_SECTION = re.compile(r"^## (?P<caption>[^\n]+)$(?P<text>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_ENTRY = re.compile(r"^- \[(?P<title>[^]]+)\]\((?P<page>[\w/-]+)\.md\)", re.MULTILINE)
SECTIONS = {match["caption"]: _ENTRY.findall(match["text"]) for match in _SECTION.finditer(INDEX)}
"""The titles and the names of the pages in each section of the navigation, in its order."""

_CALLABLE, _RESULT = "~collections.abc.Callable", "~collections.abc.Awaitable"
_MESSAGE = "~collections.abc.MutableMapping[str, ~typing.Any]"
_ANY = "~typing.Any"
_ALIASES = {
    f"{_CALLABLE}[[], {_RESULT}[{_MESSAGE}]]": "Receive",
    f"{_CALLABLE}[[{_MESSAGE}], {_RESULT}[None]]": "Send",
    f"{_CALLABLE}[[{_MESSAGE}, Receive, Send], {_RESULT}[None]]": "ASGIApp",
    f"scope: {_MESSAGE}": "scope: Scope",
    f"~faststream._internal.broker.broker.BrokerUsecase[{_ANY}, {_ANY}, {_ANY}]": "Broker",
    " | ~faststream.asgi.factories.asyncapi.route.AsyncAPIRoute": "",
}
"""Types in signatures, and how they are written in the reference."""

INTERNAL = {
    "FastStreamPlugin.on_app_init",
    "FastStreamPlugin.on_cli_init",
    "HttpHandler.respond",
    "HttpHandler.set_logger",
    "HttpHandler.update_fd_config",
    *(f"BrokerLifespan.{name}" for name in ("drain", "end_observation", "enter", "leave", "prepare_brokers")),
    "BrokerLifespan.selected",
}
"""Methods that the package itself, a framework or FastStream calls, and no application."""

_ACCESS = {
    # Captions of the navigation have the role of a heading, which needs a level.
    'class="caption" role="heading"': 'class="caption" role="heading" aria-level="2"',
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="Site">',
    '<aside class="toc-drawer': '<aside aria-label="Page" class="toc-drawer',
    # The theme's search page has no heading.
    '<div id="search-results">': '<h1>Search</h1>\n<div id="search-results">',
    # The head above the names of a table's rows is empty.
    '<th class="head"><p></p></th>': "<td></td>",
    # What is wider than a phone scrolls, also with the keyboard.
    '<div class="highlight"><pre>': '<div class="highlight"><pre tabindex="0">',
    '<div class="table-wrapper ': '<div tabindex="0" class="table-wrapper ',
}
"""What the theme's HTML contains, and what it should contain."""

_LINK = re.compile(r"(?<=\]\()(?P<path>[\w/.-]*)(?P<anchor>(?:#[\w-]+)?)(?=\))")
"""What a link in Markdown leads to, if that is in this repository."""

_SIGNATURE = re.compile(r"<dl>\n((?:<dd><em class=\"sig-param\">.*</dd>\n)+)</dl>")
"""The parameters of a signature, one a line: a list of definitions that define nothing."""


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
        f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n"
        + "".join(f"{title} <{page}>\n" for title, page in entries)
        + "```\n"
        for caption, entries in SECTIONS.items()
    )


def documentation_of(module_name: str) -> str:
    """Return the directives that show the docstrings of a module's public names."""
    module = import_module(module_name)
    lines = [f".. py:currentmodule:: {module_name}", ""]
    for name in sorted(module.__all__):
        value = getattr(module, name)
        if inspect.isclass(value):
            kind = "exception" if issubclass(value, BaseException) else "class"
            lines.append(f".. auto{kind}:: {name}")
            if value.__bases__ != (object,):
                lines.append("   :show-inheritance:")
        elif inspect.isroutine(value):
            lines.append(f".. autofunction:: {name}")
        elif type(value).__module__.startswith("faststream_adapters"):
            lines += [f".. py:decorator:: {name}", "", indented(inspect.getdoc(value) or "")]
        else:
            lines += [f".. py:data:: {name}", "", indented(text_below(module, name))]
        lines.append("")
    return "```{eval-rst}\n" + "\n".join(lines) + "```\n"


def indented(text: str) -> str:
    """Return a docstring as the content of a directive."""
    return "   " + inspect.cleandoc(text).replace("\n", "\n   ")


def complete(_app: Sphinx, page: str, source: list[str]) -> None:
    """Add to a page what only the site needs."""
    source[0] = text_of(page)
    if page == "index":
        source[0] += navigation()
    if page == "reference":
        for module in MODULES:
            before, marker, after = source[0].partition(f"<!-- generated: {module} -->")
            table, end, rest = after.partition("<!-- end -->\n")
            table = re.sub(r"^\| `(\w+)`", rf"| {{py:obj}}`\1 <{module}.\1>`", table, flags=re.MULTILINE)
            source[0] = "".join((before, marker, table, end, "\n", documentation_of(module), rest))


def shorten(_app: Sphinx, _what: str, _name: str, _value: Any, _options: Any, *texts: str | None) -> Any:
    """Write the aliases of types in a signature instead of what they stand for."""
    shortened = []
    for text in texts:
        for long, alias in _ALIASES.items():
            text = text and text.replace(long, alias)  # noqa: PLW2901 (one alias after the other)
        shortened.append(text)
    return tuple(shortened)


def keep_colons(_app: Sphinx, what: str, _name: str, value: Any, _options: Any, lines: list[str]) -> None:
    """Restore the docstring of a property: napoleon takes what precedes a colon for its type."""
    if what == "property":
        lines[:] = [*(inspect.getdoc(value) or "").splitlines(), ""]


def skip(_app: Sphinx, _what: str, _name: str, value: Any, *_rest: Any) -> bool | None:
    """Leave out what only this package calls, and attributes that a constructor sets."""
    is_attribute = type(value).__module__.startswith("sphinx.")
    return True if is_attribute or getattr(value, "__qualname__", "") in INTERNAL else None


def link(app: Sphinx, env: BuildEnvironment, node: Element, content: Element) -> Element | None:
    """Resolve a reference to what a private module defines: a public name, or the type of keywords."""
    name = str(node.get("reftarget", "")).rpartition(".")[2]
    if name.endswith("Keywords"):
        return make_refnode(app.builder, node["refdoc"], "keywords", "", content)
    owner = next((module for module in MODULES if name in import_module(module).__all__), None)
    if node.get("refdomain") != "py" or owner is None:
        return None
    python = env.domains["py"]
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", f"{owner}.{name}", node, content)


def improve_access(app: Sphinx, error: Exception | None) -> None:
    """Complete the theme's HTML for screen readers and keyboards."""
    for path in app.outdir.rglob("*.html") if error is None else ():
        text = path.read_text(encoding="utf-8")
        for before, after in _ACCESS.items():
            text = text.replace(before, after)
        text = _SIGNATURE.sub(lambda match: match[1].replace("dd>", "span>"), text)
        path.write_text(text, encoding="utf-8")


def markdown_of(page: str, site: Path, folder: Path) -> str:
    """Return the Markdown of a page, and copy into the site what it links to besides other pages.

    Args:
        page: The name of the page.
        site: The directory of the site.
        folder: The directory inside the site that links are relative to.
    """
    source = DOCS / f"{page}.md"

    def resolved(link: re.Match[str]) -> str:
        file = (source.parent / link["path"]).resolve() if link["path"] else source
        if not file.is_file():
            return link[0]  # Code that only looks like a link.
        target = site / file.relative_to(DOCS if file.is_relative_to(DOCS) else ROOT)
        if target.suffix != ".md":
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        return Path(relpath(target, folder)).as_posix() + link["anchor"]

    return _LINK.sub(resolved, text_of(page))


def write_for_models(app: Sphinx, error: Exception | None) -> None:
    """Write what language models read: `llms.txt`, `llms-full.txt` and the Markdown of each page."""
    if error is not None:
        return
    site = Path(app.outdir)
    pages = [page for entries in SECTIONS.values() for _, page in entries]
    for page in pages:
        path = (site / page).with_suffix(".md")
        path.write_text(markdown_of(page, site, path.parent), encoding="utf-8")
    title, summary, *sections = INDEX.split("\n\n")
    summary = "> " + summary.replace("\n", "\n> ")
    (site / "llms.txt").write_text("\n\n".join([title, summary, *sections]), encoding="utf-8")
    full = "\n\n".join(markdown_of(page, site, site) for page in pages)
    (site / "llms-full.txt").write_text(full, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Register the functions above."""
    app.connect("source-read", complete)
    app.connect("autodoc-process-docstring", keep_colons, priority=900)
    app.connect("autodoc-process-signature", shorten)
    app.connect("autodoc-skip-member", skip)
    app.connect("missing-reference", link)
    app.connect("build-finished", improve_access)
    app.connect("build-finished", write_for_models)
