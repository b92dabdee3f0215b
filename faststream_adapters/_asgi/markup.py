"""HTML elements whose texts and attributes are escaped."""

import re
from html import escape

__all__ = ("Html", "is_safe_url", "join", "safe_link", "tag")

_SAFE_URL = re.compile(r"https?://|mailto:", re.IGNORECASE)
_VOID = frozenset({"br", "hr", "img", "input", "link", "meta", "wbr"})


class Html(str):
    """Markup. Every other string is escaped when it is inserted into markup."""

    __slots__ = ()


def join(*parts: object) -> Html:
    """Concatenate markup and texts; None is left out."""
    return Html(
        "".join(part if isinstance(part, Html) else escape(str(part)) for part in parts if part is not None)
    )


def tag(name: str, /, *parts: object, **attributes: str | int | bool | None) -> Html:
    """Return an element.

    Args:
        name: The element's name.
        parts: The content: markup and texts; None is left out.
        attributes: An underscore in a name stands for a hyphen, except at its end (`class_`). With True the
            attribute has no value; with False or None it is left out.
    """
    opening = f"<{name}{''.join(map(_attribute, attributes.items()))}>"
    return Html(opening) if name in _VOID else Html(f"{opening}{join(*parts)}</{name}>")


def _attribute(item: tuple[str, str | int | bool | None]) -> str:
    key, value = item
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'


def is_safe_url(url: str) -> bool:
    """Return whether a link to a URL leads to another page or to a mail program, and cannot run a script."""
    return _SAFE_URL.match(url) is not None


def safe_link(url: str, *parts: object) -> Html:
    """Return a link to another site, or only its text if the URL could run a script."""
    return tag("a", *parts, href=url, rel="noreferrer") if is_safe_url(url) else join(*parts)
