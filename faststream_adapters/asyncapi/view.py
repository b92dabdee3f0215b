"""How the AsyncAPI page looks, where it loads things from, and the policy that follows from that."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypedDict

from faststream.exceptions import SetupError

__all__ = ("PageKeywords", "View")

_EXTERNAL_ORIGIN = r"(?i:(?:https?:)?//[a-z0-9.:\[\]-]+(?=[/?#]|$))"
_NOT_A_PATH = r"//|[^/?#]*:"
_HEADER_VALUE = r"[!-~]+(?: +[!-~]+)*"


class _Strict(Enum):
    STRICT = "strict"


class PageKeywords(TypedDict, total=False):
    """How the AsyncAPI page looks.

    Args:
        sidebar: Whether the page has a table of contents.
        info: Whether it shows title, version and description.
        servers: Whether it shows the servers.
        operations: Whether it shows the operations.
        messages: Whether it shows the messages.
        schemas: Whether it shows the schemas.
        errors: Whether the viewer, or the React component, shows errors in the document.
        expand_message_examples: Whether examples are open from the start.
        asyncapi_js_url: Where to load the official React component from, instead of the viewer.
        asyncapi_css_url: Where to load that component's styles from.
        try_it_out_path: Not supported: None.
        try_it_out_plugin_url: Not supported: None.
        csp: The page's Content-Security-Policy, instead of the strict one; None sends none, for a host that
            has its own.
    """

    sidebar: bool
    info: bool
    servers: bool
    operations: bool
    messages: bool
    schemas: bool
    errors: bool
    expand_message_examples: bool
    asyncapi_js_url: str | None
    asyncapi_css_url: str | None
    try_it_out_path: str | None
    try_it_out_plugin_url: str | None
    csp: str | None


# Nobody compares or prints one: a dataclass makes each method anew, at every import.
@dataclass(kw_only=True, eq=False, repr=False)
class View:
    """What the page shows, and from where: `PageKeywords` with their defaults.

    Raises:
        SetupError: They cannot work.
    """

    sidebar: bool = True
    info: bool = True
    servers: bool = True
    operations: bool = True
    messages: bool = True
    schemas: bool = True
    errors: bool = True
    expand_message_examples: bool = True
    asyncapi_js_url: str | None = None
    asyncapi_css_url: str | None = None
    try_it_out_path: str | None = None
    try_it_out_plugin_url: str | None = None
    csp: str | Literal[_Strict.STRICT] | None = _Strict.STRICT

    def __post_init__(self) -> None:
        for keyword in ("try_it_out_path", "try_it_out_plugin_url"):
            if getattr(self, keyword) is not None:
                msg = (
                    f"{keyword} must be None: trying a message out from the documentation would publish to "
                    "the live broker, for everyone who can open the page."
                )
                raise SetupError(msg)
        if self.asyncapi_css_url is not None and self.asyncapi_js_url is None:
            msg = "asyncapi_css_url styles the React component: pass asyncapi_js_url too, or neither."
            raise SetupError(msg)
        if isinstance(self.csp, str) and not re.fullmatch(_HEADER_VALUE, self.csp):
            msg = f"csp must be one line of printable ASCII, or None for no policy, not {self.csp!r}."
            raise SetupError(msg)
        # Raises for a URL that no policy can name, now rather than when the page is asked for.
        self.headers(viewer=False)

    def shown(self) -> dict[str, bool]:
        """Return which parts of the page are shown, by the names that all viewers have for them."""
        names = ("sidebar", "info", "servers", "operations", "messages", "schemas", "errors")
        return {name: getattr(self, name) for name in names}

    def react_config(self) -> dict[str, Any]:
        """Return the configuration of the React component.

        Source: https://github.com/asyncapi/asyncapi-react/blob/master/docs/configuration/config-modification.md
        """
        return {
            "show": self.shown(),
            "expand": {"messageExamples": self.expand_message_examples},
            "sidebar": {"showServers": "byDefault", "showOperations": "byDefault"},
        }

    def headers(self, *, viewer: bool) -> dict[str, str]:
        """Return the page's security headers.

        Args:
            viewer: Whether the page has the viewer in it.
        """
        headers = {"Referrer-Policy": "no-referrer"}
        if isinstance(self.csp, str):
            headers["Content-Security-Policy"] = self.csp
        elif self.csp is not None:
            headers["Content-Security-Policy"] = self._policy(viewer=viewer)
        return headers

    def _policy(self, *, viewer: bool) -> str:
        sources = {"default-src": ["'none'"], "style-src": ["'self'"], "img-src": ["'self'"]}
        if viewer or self.asyncapi_js_url is not None:
            # Both fetch the document.
            sources |= {"script-src": ["'self'"], "connect-src": ["'self'"]}
        if self.asyncapi_js_url is not None:
            # The component compiles its validators from text, and shows nothing where it may not.
            sources["script-src"] += ["'unsafe-eval'", *_origins(self.asyncapi_js_url, "asyncapi_js_url")]
            sources["style-src"] += _origins(self.asyncapi_css_url, "asyncapi_css_url")
        return _written(sources.items())


def _written(sources: Iterable[tuple[str, list[str]]]) -> str:
    closed = ("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'")
    return "; ".join((*(" ".join((name, *values)) for name, values in sources), *closed))


def _origins(url: str | None, keyword: str) -> list[str]:
    if url is None:
        return []
    if external := re.match(_EXTERNAL_ORIGIN, url):
        return [external[0].removeprefix("//")]
    if re.match(_NOT_A_PATH, url):
        msg = f"{keyword} must be a path or an http(s) URL without credentials, not {url!r}."
        raise SetupError(msg)
    return []
