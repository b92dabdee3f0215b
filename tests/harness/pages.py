"""Read HTML pages as a browser would."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta", "wbr"})


class Page(HTMLParser):
    """The elements and the text of an HTML page, whose elements are nested properly.

    Attributes:
        elements: The name and the attributes of each element, in order.
        texts: The texts, in order.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.texts)

    @property
    def names(self) -> list[str]:
        """The names of the elements."""
        return [name for name, _ in self.elements]

    @property
    def words(self) -> str:
        """The text with one space between words, also where an element begins or ends."""
        return " ".join(" ".join(self.texts).split())

    def attributes(self, name: str) -> list[dict[str, str]]:
        """Return the attributes of all elements with this name."""
        return [attributes for tag, attributes in self.elements if tag == name]

    def urls(self) -> list[str]:
        """Return the URLs of all links."""
        return [attributes["href"] for attributes in self.attributes("a")]

    def ids(self) -> list[str]:
        """Return the ids of all elements."""
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]

    def headings(self) -> list[int]:
        """Return the levels of all headings."""
        return [int(name[1]) for name in self.names if re.fullmatch("h[1-6]", name)]
