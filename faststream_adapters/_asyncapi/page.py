"""The HTML page: server-rendered sections, with the viewer on top, or the official React component."""

import json
from collections.abc import Mapping
from functools import cached_property
from html import escape
from string import Template
from typing import Any

from faststream_adapters._asgi.markup import Html, tag
from faststream_adapters._asgi.shell import document
from faststream_adapters._utils.threads import call_with_deep_stack

from .assets import Asset, asset, icon, read_static, stylesheet, viewer
from .content import Content
from .document import count_operations, mapping, without_http_routes
from .sections import Sections
from .view import VIEWER_JSON, View
from .viewer_document import ELEMENT_ID

__all__ = ("Page", "page_assets")

_FILTER = tag(
    "form",
    tag("label", "Filter", for_="filter"),
    tag("input", type="search", id="filter", placeholder="operation, model or field", autocomplete="off"),
    tag("output", for_="filter"),
    role="search",
    class_="filter",
    hidden=True,
)
"""The field that `filter.js` shows."""


def page_assets(view: View) -> list[Asset]:
    """Return the static files that the page loads."""
    if view.options["asyncapi_js_url"] is not None:
        return [icon(), asset("react.css"), asset("react.js")]
    # The number of operations is not known yet.
    script = viewer() if view.wants_viewer(0) else None
    return [icon(), stylesheet(), asset("filter.js"), *([] if script is None else [asset("page.js"), script])]


class Page:
    """The page of one document.

    The server-rendered sections are part of the page with the viewer too. They are shown where no scripts run
    (search engines, text browsers, a host whose own policy forbids scripts), and they are what is printed.

    Args:
        document: The AsyncAPI document.
        view: The page's options.
        titles: The titles that authors have chosen, by the keys of their channels.
    """

    def __init__(self, document: dict[str, Any], view: View, titles: Mapping[str, str]) -> None:
        self._document = document if view.options["http_routes"] else without_http_routes(document)
        self._view = view
        self._titles = titles
        self._wants_viewer = view.wants_viewer(count_operations(self._document))
        self._script = viewer() if self._wants_viewer else None

    def content(self, folder: str) -> Content:
        """Return the page.

        Args:
            folder: The location of the page's own files, relative to the page's URL.
        """
        with_react = self._view.options["asyncapi_js_url"] is not None
        html = self._react_page(folder) if with_react else self._viewer_page(folder)
        headers = {**self._view.headers(viewer=self._script is not None), "Link": _link_header(folder)}
        return Content(html.encode(), "text/html; charset=utf-8", headers)

    @property
    def _title(self) -> str:
        return f"{mapping(self._document.get('info')).get('title', '')} AsyncAPI"

    def _viewer_page(self, folder: str) -> str:
        nav, main = self._sections
        script = self._script
        scripts = [] if script is None else [asset("page.js"), script]
        as_json, as_yaml = f"{folder}asyncapi.json", f"{folder}asyncapi.yaml"
        alternate = tag("link", rel="alternate", type="application/json", href=as_json)
        return document(
            self._title,
            _FILTER,
            tag("p", tag("a", "JSON", href=as_json), " ", tag("a", "YAML", href=as_yaml), class_="formats"),
            main,
            Html(read_static("hint.html").decode()) if self._wants_viewer and script is None else None,
            head=[
                alternate,
                tag("script", src=folder + asset("filter.js").path, defer=True),
                *(tag("script", src=folder + each.path) for each in scripts),
            ],
            style=tag("link", rel="stylesheet", href=folder + stylesheet().path),
            icon=folder + icon().path,
            nav=nav,
            before=None if script is None else self._viewer_element(folder),
        )

    def _viewer_element(self, folder: str) -> Html:
        options = {
            **self._view.visible_parts(),
            "message_examples": self._view.options["expand_message_examples"],
        }
        attributes = {name: str(value).lower() for name, value in options.items()}
        # AsyncAPI 2 describes the application from the outside: what others publish, it receives.
        attributes |= {"publish_label": "RECEIVE", "subscribe_label": "SEND"}
        element = tag("asyncapi-viewer", id=ELEMENT_ID, src=folder + VIEWER_JSON, **attributes)
        # The viewer has neither a landmark nor a heading for its content.
        return tag("main", tag("h1", self._title, class_="unseen"), element, class_="viewer")

    @cached_property
    def _sections(self) -> tuple[Html | None, Html]:
        # Schemas can be nested deeply.
        return call_with_deep_stack(self._make_sections)

    def _make_sections(self) -> tuple[Html | None, Html]:
        sections = Sections(self._document, self._view, self._titles)
        return sections.contents() if self._view.options["sidebar"] else None, sections.main()

    def _react_page(self, folder: str) -> str:
        css = self._view.options["asyncapi_css_url"]
        return Template(read_static("react.html").decode()).substitute(
            title=escape(self._title),
            icon=folder + icon().path,
            json=f"{folder}asyncapi.json",
            yaml=f"{folder}asyncapi.yaml",
            stylesheet=f'<link rel="stylesheet" href="{escape(css)}">' if css is not None else "",
            component=escape(self._view.options["asyncapi_js_url"] or ""),
            style=folder + asset("react.css").path,
            script=folder + asset("react.js").path,
            config=escape(json.dumps(self._view.react_config())),
        )


def _link_header(folder: str) -> str:
    """Return the `Link` header that points programs to the document.

    `service-desc` is the registered relation that fits best: the page is about a service, and the document is
    that service's description for programs. `describedby` would mean that the document describes the page.

    Source: RFC 8631, section 4.1; RFC 8288, section 3.1 (the URLs are relative to the page's).
    """
    media_types = {"asyncapi.json": "application/json", "asyncapi.yaml": "application/yaml"}
    return ", ".join(
        f'<{folder}{name}>; rel="service-desc"; type="{media_type}"'
        for name, media_type in media_types.items()
    )
