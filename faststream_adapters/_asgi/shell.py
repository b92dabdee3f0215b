"""The HTML document around each page, its stylesheet and its security headers."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from urllib.parse import quote

from .markup import Html, join, tag

__all__ = ("Shell", "document", "policy", "shared_file")


@cache
def shared_file(name: str) -> str:
    """Read a file that the pages share: `base.css` or `icon.svg`."""
    return (files(__package__) / "static" / name).read_text(encoding="utf-8")


def document(
    title: object,
    *main: object,
    style: Html,
    icon: str,
    head: Iterable[object] = (),
    nav: Html | None = None,
    before: Html | None = None,
) -> str:
    """Return a complete HTML document with one `main` and a link that skips to it.

    Args:
        title: The title of the window.
        main: The content, which begins with the only `h1`.
        style: The element with the stylesheet, or the link to it.
        icon: The URL of the icon.
        head: Further elements of the head.
        nav: The links of the table of contents.
        before: What precedes the page in the body.
    """
    contents = None
    if nav is not None:
        # Narrow screens show the summary only, wide ones the links only; see base.css.
        menu = tag("details", tag("summary", "Contents"), nav)
        up = tag("a", "Contents", class_="up", href="#contents")
        contents = tag("nav", menu, up, id="contents", aria_label="Contents")
    metadata = join(
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("link", rel="icon", type="image/svg+xml", href=icon),
        style,
        *head,
    )
    page = tag(
        "div",
        tag("a", "Skip to the content", class_="skip", href="#main"),
        tag("div", contents, tag("main", *main, id="main", tabindex="-1"), class_="layout"),
        class_="page",
    )
    body = join(tag("head", metadata), tag("body", before, page))
    return f"<!DOCTYPE html>\n{tag('html', body, lang='en')}\n"


def policy(sources: Mapping[str, Sequence[str]], *, forms: bool = False) -> str:
    """Return a Content-Security-Policy that allows these sources only, and no frame around the page.

    Args:
        sources: The sources by directive, such as `{"style-src": ["'self'"]}`.
        forms: Whether forms may be sent, to the same origin.
    """
    directives = [" ".join((name, *values)) for name, values in sources.items()]
    form_action = "form-action 'self'" if forms else "form-action 'none'"
    return "; ".join(
        ("default-src 'none'", *directives, "base-uri 'none'", form_action, "frame-ancestors 'none'")
    )


class Shell:
    """The document around the pages of an endpoint, which load nothing: style and icon are in them.

    An endpoint does not know its path, so its pages could not link to files of their own.

    Args:
        css: Rules in addition to those that all pages share.
        script: The only script that the pages may run.
        forms: Whether the pages contain forms, which may be sent to the same origin only.

    Attributes:
        headers: The headers of each page, with its Content-Security-Policy.
    """

    def __init__(self, css: str = "", script: str = "", *, forms: bool = False) -> None:
        style = shared_file("base.css") + css
        self._style = tag("style", Html(style))
        self._icon = f"data:image/svg+xml,{quote(shared_file('icon.svg'))}"
        self._script = tag("script", Html(script)) if script else None
        sources = {"style-src": [_digest(style)], "img-src": ["data:"]}
        if script:
            sources["script-src"] = [_digest(script)]
        self.headers = {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": policy(sources, forms=forms),
            "X-Content-Type-Options": "nosniff",
            # With `no-referrer`, browsers send `Origin: null` with a form.
            "Referrer-Policy": "same-origin" if forms else "no-referrer",
        }

    def page(
        self, title: object, *main: object, head: Iterable[object] = (), nav: Html | None = None
    ) -> bytes:
        """Return a page; see `document` for the arguments."""
        head = (self._script, *head)
        html = document(title, *main, style=self._style, icon=self._icon, head=head, nav=nav)
        # A name may contain half of a surrogate pair, which has no encoding.
        return html.encode(errors="replace")


def _digest(text: str) -> str:
    """Return the source that allows an inline style or script with this text."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
