"""Descriptions as markup. They are Markdown, written by the authors of the application."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from faststream_adapters._asgi.markup import Html, is_safe_url, tag

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

__all__ = ("description", "parser")

_PARAGRAPH = ("paragraph_open", "inline", "paragraph_close")


def description(text: object) -> Html | None:
    """Return a description as an element, or None if there is none.

    Without markdown-it-py the text is shown as it is. HTML in it is text, and so is a link that could run a
    script. A picture is a link, because loading it would tell its server who reads the page.
    """
    if not isinstance(text, str) or not text.strip():
        return None
    if (markdown := parser()) is None:
        return tag("p", text, class_="text as-is")
    tokens = markdown.parse(text)
    # One paragraph needs no element of its own; most descriptions of fields are one.
    single = tuple(token.type for token in tokens) == _PARAGRAPH
    markup = markdown.renderer.render(tokens[1:2] if single else tokens, markdown.options, {})
    return tag("div", Html(markup.strip()), class_="text")


@cache
def parser() -> "MarkdownIt | None":
    """Return the parser of Markdown, or None if markdown-it-py is not installed."""
    try:
        from markdown_it import MarkdownIt
    except ImportError:
        return None
    markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("image")
    markdown.validateLink = is_safe_url  # type: ignore[method-assign]  # documented way to replace it
    markdown.add_render_rule("link_open", _open_link)
    # The policy of the page forbids the `style` with which columns are aligned.
    markdown.add_render_rule("th_open", _open_cell)
    markdown.add_render_rule("td_open", _open_cell)
    # The headings of the page form one hierarchy, in which those of a description have no place.
    markdown.add_render_rule("heading_open", _open_heading)
    markdown.add_render_rule("heading_close", _close_heading)
    return markdown


def _open_link(renderer: Any, tokens: "Sequence[Token]", index: int, options: Any, env: Any) -> str:  # noqa: ARG001 (the signature of render rules)
    tokens[index].attrSet("rel", "noreferrer")
    opening: str = renderer.renderToken(tokens, index, options, {})
    return opening


def _open_cell(_renderer: Any, tokens: "Sequence[Token]", index: int, *_: object) -> str:
    return f"<{tokens[index].tag}>"


def _open_heading(*_: object) -> str:
    return '<p class="heading">'


def _close_heading(*_: object) -> str:
    return "</p>\n"
