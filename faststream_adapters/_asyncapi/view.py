"""Options of the AsyncAPI page, and the security headers that follow from them."""

import re
from typing import Annotated, Any, Literal, TypedDict, Unpack

from faststream.exceptions import SetupError

from faststream_adapters._asgi.shell import policy
from faststream_adapters._utils.options import Option, complete, documented, one_of

__all__ = ("MAX_OPERATIONS", "VIEWER_JSON", "PageKeywords", "View")

# The viewer names a downloaded document after the last part of this path.
VIEWER_JSON = "viewer/asyncapi.json"

# The viewer creates about 800 elements for each operation, all at once.
MAX_OPERATIONS = 60

_EXTERNAL_ORIGIN = re.compile(r"(?:https?:)?//[a-z0-9.:\[\]-]+(?=[/?#]|$)", re.IGNORECASE)
_NOT_A_PATH = re.compile(r"//|[^/?#]*:")
_HEADER_VALUE = re.compile(r"[!-~]+(?: +[!-~]+)*")

STRICT = "strict"
"""The value of `csp` that selects the built-in policy."""


def _check_unsupported(name: str, value: object) -> str | None:
    if value is None:
        return None
    return (
        f"{name} must be None: everyone who can open the documentation could send messages to the live "
        "broker. Use publish_path, which requires authorize=."
    )


def _check_policy(name: str, value: object) -> str | None:
    if isinstance(value, str) and not _HEADER_VALUE.fullmatch(value):
        return f"{name} must be one line of printable ASCII, or None for no policy, not {value!r}."
    return None


@documented
class PageKeywords(TypedDict, total=False):
    """Options of the AsyncAPI page."""

    sidebar: Annotated[bool, Option(True, "whether the page has a table of contents")]
    info: Annotated[bool, Option(True, "whether the page shows title, version and description")]
    servers: Annotated[bool, Option(True, "whether the page shows the servers")]
    operations: Annotated[bool, Option(True, "whether the page shows the operations")]
    messages: Annotated[bool, Option(True, "whether the page shows the messages")]
    schemas: Annotated[bool, Option(True, "whether the page shows the schemas")]
    errors: Annotated[
        bool, Option(True, "whether the viewer or the React component shows errors in the document")
    ]
    expand_message_examples: Annotated[
        bool, Option(True, "whether examples are expanded when the page opens")
    ]
    http_routes: Annotated[bool, Option(False, "whether the page shows the HTTP routes of the document")]
    view: Annotated[
        Literal["auto", "viewer", "plain"],
        Option(
            "auto",
            'what is shown where scripts run: the viewer, the plain page, or with "auto" the viewer for '
            f"up to {MAX_OPERATIONS} operations",
            one_of("auto", "viewer", "plain"),
        ),
    ]
    asyncapi_js_url: Annotated[
        str | None,
        Option(None, "URL of the official React component, which is then used instead of the viewer"),
    ]
    asyncapi_css_url: Annotated[str | None, Option(None, "URL of the React component's stylesheet")]
    try_it_out_path: Annotated[str | None, Option(None, "not supported, must be None", _check_unsupported)]
    try_it_out_plugin_url: Annotated[
        str | None, Option(None, "not supported, must be None", _check_unsupported)
    ]
    csp: Annotated[
        str | None,
        Option(
            STRICT,
            "the page's Content-Security-Policy, instead of the built-in strict one; None sends none, for a "
            "host that sends its own",
            _check_policy,
        ),
    ]


class View:
    """The complete options of a page.

    Args:
        keywords: See `PageKeywords`.

    Raises:
        SetupError: A keyword cannot be used.
        TypeError: A keyword is unknown.
    """

    def __init__(self, **keywords: Unpack[PageKeywords]) -> None:
        self.options = options = complete(PageKeywords, keywords)
        if options["asyncapi_css_url"] is not None and options["asyncapi_js_url"] is None:
            msg = "asyncapi_css_url is for the React component only: pass asyncapi_js_url too, or neither."
            raise SetupError(msg)
        if options["asyncapi_js_url"] is not None and options["view"] != "auto":
            msg = "view is not for the React component: pass asyncapi_js_url or view, not both."
            raise SetupError(msg)
        # Raise here, not on the first request, if a URL cannot be part of a policy.
        self.headers(viewer=False)

    def wants_viewer(self, operations: int) -> bool:
        """Return whether the viewer, where it is installed, shows a document with so many operations."""
        choice = self.options["view"]
        return choice == "viewer" or (choice == "auto" and operations <= MAX_OPERATIONS)

    def visible_parts(self) -> dict[str, bool]:
        """Return which parts of the page are shown, by the names that both viewers use."""
        options = self.options
        return {
            "sidebar": options["sidebar"],
            "info": options["info"],
            "servers": options["servers"],
            "operations": options["operations"],
            "messages": options["messages"],
            "schemas": options["schemas"],
            "errors": options["errors"],
        }

    def react_config(self) -> dict[str, Any]:
        """Return the configuration of the React component.

        Source: https://github.com/asyncapi/asyncapi-react/blob/master/docs/configuration/config-modification.md
        """
        return {
            "show": self.visible_parts(),
            "expand": {"messageExamples": self.options["expand_message_examples"]},
            "sidebar": {"showServers": "byDefault", "showOperations": "byDefault"},
        }

    def headers(self, *, viewer: bool) -> dict[str, str]:
        """Return the page's security headers.

        Args:
            viewer: Whether the page contains the viewer.
        """
        headers = {"Referrer-Policy": "no-referrer"}
        csp = self.options["csp"]
        if csp is not None:
            strict = csp == STRICT
            headers["Content-Security-Policy"] = self._strict_policy(viewer=viewer) if strict else csp
        return headers

    def _strict_policy(self, *, viewer: bool) -> str:
        sources = {"style-src": ["'self'"], "img-src": ["'self'"], "script-src": ["'self'"]}
        if viewer or self.options["asyncapi_js_url"] is not None:
            # The viewer and the React component both fetch the document.
            sources["connect-src"] = ["'self'"]
        if (script := self.options["asyncapi_js_url"]) is not None:
            # The React component compiles validators from strings, and shows nothing where that is forbidden.
            sources["script-src"] += ["'unsafe-eval'", *_origins(script, "asyncapi_js_url")]
            sources["style-src"] += _origins(self.options["asyncapi_css_url"], "asyncapi_css_url")
        return policy(sources)


def _origins(url: str | None, keyword: str) -> list[str]:
    """Return the policy source of an external URL; a path needs none.

    Raises:
        SetupError: The URL is neither a path nor an http(s) URL without credentials.
    """
    if url is None:
        return []
    if external := _EXTERNAL_ORIGIN.match(url):
        return [external[0].removeprefix("//")]
    if _NOT_A_PATH.match(url):
        msg = f"{keyword} must be a path or an http(s) URL without credentials, not {url!r}."
        raise SetupError(msg)
    return []
