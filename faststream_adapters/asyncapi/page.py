"""The AsyncAPI page: plain, with the viewer, or with the official React component."""

import json
from functools import cached_property
from html import escape
from string import Template
from typing import Any

from .assets import Asset, asset, static, viewer
from .content import Content
from .document import mapping
from .sections import Sections
from .view import View

__all__ = ("VIEWER_JSON", "Page", "assets_of")

# Who downloads the document from the viewer gets a file of the last name.
VIEWER_JSON = "viewer/asyncapi.json"

# The page differs by its own last path segment, and some mounts let the client choose that.
_MOST_FOLDERS = 8


def assets_of(view: View) -> list[Asset]:
    """Return the page's own files."""
    if view.asyncapi_js_url is not None:
        return [asset("icon.svg"), asset("react.css"), asset("react.js")]
    found = (asset("icon.svg"), asset("docs.css"), viewer())
    return [each for each in found if each is not None]


class Page:
    """The page of one document.

    The sections are on the page with the viewer too. There they are for whoever runs no scripts: search
    engines, text browsers, a host whose own policy forbids them. And they are what is printed.

    Args:
        document: The document.
        view: How it is shown.
    """

    def __init__(self, document: dict[str, Any], view: View) -> None:
        self._document = document
        self._view = view
        self._contents: dict[str, Content] = {}

    def content(self, folder: str) -> Content:
        """Return the page whose own files are in `folder`, seen from the page's URL."""
        if folder not in self._contents:
            if len(self._contents) >= _MOST_FOLDERS:
                self._contents.clear()
            self._contents[folder] = self._content(folder)
        return self._contents[folder]

    def _content(self, folder: str) -> Content:
        html = self._viewer(folder) if self._view.asyncapi_js_url is None else self._react(folder)
        headers = {**self._view.headers(viewer=viewer() is not None), "Link": _links(folder)}
        return Content(html.encode(), "text/html; charset=utf-8", headers)

    def _common(self, folder: str) -> dict[str, str]:
        return {
            "title": escape(str(mapping(self._document.get("info")).get("title", ""))),
            "icon": folder + asset("icon.svg").path,
            "json": f"{folder}asyncapi.json",
            "yaml": f"{folder}asyncapi.yaml",
        }

    def _viewer(self, folder: str) -> str:
        sidebar, main = self._sections
        script = viewer()
        return Template(static("page.html").decode()).substitute(
            self._common(folder),
            style=folder + asset("docs.css").path,
            script="" if script is None else f'<script src="{folder}{script.path}"></script>',
            viewer="" if script is None else self._element(folder),
            hint=static("hint.html").decode() if script is None else "",
            sidebar=sidebar,
            main=main,
        )

    def _element(self, folder: str) -> str:
        options = {
            **self._view.shown(),
            "message-examples": self._view.expand_message_examples,
            # As on the plain page: what FastStream names operations by is made for programs.
            "use-channel-address-as-identifier": True,
        }
        said = " ".join(f'{name}="{str(value).lower()}"' for name, value in options.items())
        return f'<asyncapi-viewer id="asyncapi" src="{folder}{VIEWER_JSON}" {said}></asyncapi-viewer>'

    @cached_property
    def _sections(self) -> tuple[str, str]:
        sections = Sections(self._document, self._view)
        return sections.sidebar() if self._view.sidebar else "", sections.main()

    def _react(self, folder: str) -> str:
        css = self._view.asyncapi_css_url
        return Template(static("react.html").decode()).substitute(
            self._common(folder),
            stylesheet=f'<link rel="stylesheet" href="{escape(css)}">' if css is not None else "",
            component=escape(self._view.asyncapi_js_url or ""),
            style=folder + asset("react.css").path,
            script=folder + asset("react.js").path,
            config=escape(json.dumps(self._view.react_config())),
        )


def _links(folder: str) -> str:
    """Return where machines find the document.

    Of the registered relations `service-desc` fits best: the page is about a service, and the document is its
    description for machines. `describedby` would say that the document describes the page.

    Source: RFC 8631, section 4.1; RFC 8288, section 3.1, for the URLs, which are relative to the page's.
    """
    kinds = {"asyncapi.json": "application/json", "asyncapi.yaml": "application/yaml"}
    return ", ".join(f'<{folder}{name}>; rel="service-desc"; type="{kind}"' for name, kind in kinds.items())
