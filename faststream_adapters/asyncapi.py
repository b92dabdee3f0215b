"""The AsyncAPI document of an application and a page that shows it, as one ASGI app."""

import gzip
import json
import logging
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import cache, cached_property
from hashlib import sha256
from html import escape
from importlib import import_module
from importlib.resources import files
from string import Template
from time import monotonic
from typing import Any, Literal, NamedTuple, Unpack
from urllib.parse import quote, unquote

from faststream.asgi.types import ASGIApp, Receive, Scope, Send
from faststream.exceptions import SetupError
from faststream.specification import AsyncAPI
from faststream.specification.base import SpecificationFactory

from ._compat import BrokerUsecase
from .asyncapi_page import PageKeywords, Sections, View, mapping
from .lifespan import BrokerLifespan
from .redaction import redacted_traceback, without_credentials
from .responses import AsgiResponse
from .routing import Endpoint, Tags, route_path

__all__ = ("AsyncAPIDocs", "AsyncAPIRoute", "make_asyncapi_asgi", "specification_of")

logger = logging.getLogger("faststream.adapters")

_TARGETS = "pass one AsyncAPI specification, one FastStream app, one BrokerLifespan, or one or more brokers"
# Comparing costs some microseconds per subscriber, so that it is not done for each request.
_LOOK_EVERY = 1.0
# The page differs by its own last path segment, and some mounts let the client choose that.
_MOST_PAGES = 8
_JSON_TYPE = "application/json"

_NOT_FOUND = AsgiResponse(b"Not Found", 404, {"Content-Type": "text/plain; charset=utf-8"})
_FAILED = AsgiResponse(
    b"The AsyncAPI document could not be built; the log says why.",
    500,
    {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"},
)


class _Unset(Enum):
    UNSET = "unset"


_UNSET: Literal[_Unset.UNSET] = _Unset.UNSET


# --- what is documented ---


def specification_of(
    targets: Sequence[Any],
    specification: SpecificationFactory | None = None,
) -> SpecificationFactory:
    """Return the AsyncAPI specification that describes the targets.

    Args:
        targets: One specification, one FastStream app, one `BrokerLifespan`, or one or more brokers.
        specification: The one to use instead of the target's own; the target's brokers are added to it.

    Returns:
        The app's own specification, or a new one for brokers: an app is never created for them, because that
        would change what `Context` gives to subscribers that run already.

    Raises:
        SetupError: There are no targets, or they are of another kind, or of different kinds.
    """
    if specification is None:
        return _own_specification(targets)
    if not _is_specification(specification):
        msg = f"A specification is an object like AsyncAPI(title=...), not {specification!r}."
        raise SetupError(msg)
    if targets:
        for broker in getattr(_own_specification(targets), "brokers", ()):
            specification.add_broker(broker)
    return specification


def _own_specification(targets: Sequence[Any]) -> SpecificationFactory:
    if targets and all(isinstance(target, BrokerUsecase) for target in targets):
        return AsyncAPI(*targets)
    if len(targets) != 1:
        got = ", ".join(type(target).__name__ for target in targets) or "nothing"
        msg = f"AsyncAPI documentation needs a target, and got {got}: {_TARGETS}."
        raise SetupError(msg)
    target: Any = targets[0]
    if isinstance(target, BrokerLifespan):
        return _own_specification(target.brokers if target.app is None else (target.app,))
    found: Any = target if _is_specification(target) else getattr(target, "schema", None)
    if _is_specification(found):
        specification: SpecificationFactory = found
        return specification
    msg = f"{target!r} cannot be documented with AsyncAPI: {_TARGETS}."
    raise SetupError(msg)


def _is_specification(candidate: object) -> bool:
    return callable(getattr(candidate, "to_specification", None))


def _contents(specification: SpecificationFactory) -> list[object]:
    """Return the objects whose coming and going changes the document."""
    found: list[object] = []
    for broker in getattr(specification, "brokers", ()):
        found += (broker, *broker.subscribers, *broker.publishers)
    found += getattr(specification, "http_handlers", ())
    return found


def _remove_credentials(document: dict[str, Any]) -> None:
    for holder in (document, mapping(document.get("components"))):
        for server in mapping(holder.get("servers")).values():
            if "url" in server:
                server["url"] = without_credentials(server["url"])
            elif "host" in server:
                given = server["host"] + server.get("pathname", "")
                if (address := without_credentials(given)) != given:
                    server["host"], slash, path = address.partition("/")
                    server["pathname"] = slash + path


def _sort(document: dict[str, Any]) -> None:
    # FastStream keeps subscribers in sets: their order differs between worker processes, and ETags must not.
    components = mapping(document.get("components"))
    for holder, keys in ((document, ("channels", "operations")), (components, ("messages", "schemas"))):
        for key in keys:
            if key in holder:
                holder[key] = dict(sorted(holder[key].items()))


# --- how it is sent ---


class _Variant(NamedTuple):
    tag: str
    full: AsgiResponse
    unchanged: AsgiResponse


class _Content:
    """A body with all that HTTP says about it, ready to be sent.

    Source: RFC 9110, sections 8.8.3 (ETag), 12.5.3 (Accept-Encoding), 13.1.2 (If-None-Match), 15.4.5 (304).
    """

    def __init__(
        self,
        body: bytes,
        media_type: str,
        headers: Mapping[str, str],
        cache_control: str = "no-cache",
    ) -> None:
        always = {
            "Cache-Control": cache_control,
            "Vary": "Accept-Encoding",
            "X-Content-Type-Options": "nosniff",
            **headers,
        }
        described = {"Content-Type": media_type}
        self._plain = _variant(body, always, described)
        packed = gzip.compress(body, mtime=0)
        self._packed = _variant(packed, always, {**described, "Content-Encoding": "gzip"})

    def answer(self, scope: Scope) -> AsgiResponse:
        """Return the response to one GET or HEAD request."""
        variant = self._packed if _accepts_gzip(_header(scope, b"accept-encoding")) else self._plain
        known = _header(scope, b"if-none-match")
        if known.strip() == "*" or variant.tag in re.findall(r'"([^"]*)"', known):
            return variant.unchanged
        return variant.full


def _variant(body: bytes, always: Mapping[str, str], described: Mapping[str, str]) -> _Variant:
    tag = _digest(body)
    headers = {**always, "ETag": f'"{tag}"'}
    return _Variant(
        tag,
        AsgiResponse(body, 200, {**headers, **described}),
        AsgiResponse(b"", 304, headers),
    )


def _digest(body: bytes) -> str:
    return sha256(body).hexdigest()[:32]


def _header(scope: Scope, name: bytes) -> str:
    return ",".join(value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name)


def _accepts_gzip(header: str) -> bool:
    weights: dict[str, float] = {}
    for item in header.lower().split(","):
        coding, _, parameter = item.partition(";")
        weights[coding.strip()] = _weight(parameter)
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _weight(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        # The plain body is right for everyone.
        return 0.0


def _static(name: str) -> bytes:
    return (files(__package__) / "static" / name).read_bytes()


class _Asset(NamedTuple):
    path: str
    content: _Content


_MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@cache
def _asset(name: str) -> _Asset:
    body = _static(name)
    stem, _, suffix = name.partition(".")
    content = _Content(body, _MEDIA_TYPES[suffix], {}, "public, max-age=31536000, immutable")
    return _Asset(f"{stem}.{_digest(body)[:12]}.{suffix}", content)


class _ContentEndpoint(Endpoint):
    """An endpoint whose content is made when it is asked for, and may fail to be made."""

    def __init__(self, content: Callable[[Scope], _Content], *, include_in_schema: bool = False) -> None:
        super().__init__(include_in_schema=include_in_schema)
        self._content = content

    async def respond(self, scope: Scope, receive: Receive, send: Send) -> ASGIApp:  # noqa: ARG002
        try:
            return self._content(scope).answer(scope)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is not the client's business)
            logger.error("The AsyncAPI document could not be built.\n%s", redacted_traceback(error))  # noqa: TRY400 (redacted)
            return _FAILED


def _asset_endpoint(asset: _Asset) -> Endpoint:
    return _ContentEndpoint(lambda _: asset.content)


# --- the app ---


class _Built:
    """One state of the document, in all the forms it is sent in; each form is made when it is asked for."""

    def __init__(self, specification: SpecificationFactory, view: View) -> None:
        self._view = view
        self._document: dict[str, Any] = json.loads(specification.to_specification().to_json())
        _remove_credentials(self._document)
        _sort(self._document)
        self._pages: dict[str, _Content] = {}

    @cached_property
    def _text(self) -> str:
        return json.dumps(self._document, ensure_ascii=False, separators=(",", ":"))

    @cached_property
    def json(self) -> _Content:
        return _Content(self._text.encode(), _JSON_TYPE, {})

    @cached_property
    def yaml(self) -> _Content:
        try:
            yaml = import_module("yaml")
        except ImportError:
            # Every JSON text is YAML 1.2.
            text = self._text
        else:
            text = yaml.safe_dump(self._document, sort_keys=False, allow_unicode=True)
        return _Content(text.encode(), "application/yaml", {})

    def page(self, folder: str) -> _Content:
        """Return the page, whose own files are in `folder`, seen from the page's URL."""
        if folder not in self._pages:
            if len(self._pages) >= _MOST_PAGES:
                self._pages.clear()
            body = self._react(folder) if self._view.asyncapi_js_url is not None else self._plain(folder)
            self._pages[folder] = _Content(body.encode(), "text/html; charset=utf-8", self._view.headers())
        return self._pages[folder]

    def _common(self, folder: str) -> dict[str, str]:
        return {
            "title": escape(str(mapping(self._document.get("info")).get("title", ""))),
            "icon": folder + _asset("icon.svg").path,
            "json": f"{folder}asyncapi.json",
            "yaml": f"{folder}asyncapi.yaml",
        }

    def _plain(self, folder: str) -> str:
        return Template(_static("page.html").decode()).substitute(
            self._common(folder),
            style=folder + _asset("docs.css").path,
            sidebar=self._sections[0],
            main=self._sections[1],
        )

    @cached_property
    def _sections(self) -> tuple[str, str]:
        sections = Sections(self._document, self._view)
        return sections.sidebar() if self._view.sidebar else "", sections.main()

    def _react(self, folder: str) -> str:
        css = self._view.asyncapi_css_url
        return Template(_static("react.html").decode()).substitute(
            self._common(folder),
            stylesheet=f'<link rel="stylesheet" href="{escape(css)}">' if css is not None else "",
            component=escape(self._view.asyncapi_js_url or ""),
            style=folder + _asset("react.css").path,
            script=folder + _asset("react.js").path,
            config=escape(json.dumps(self._view.react_config())),
        )


def _folder(scope: Scope) -> str:
    """Return where the page's own files are, relative to the URL that the client asked for."""
    # Some hosts strip the mount's prefix from `path`; relative links need the path that the client sees.
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    last = raw.partition(b"?")[0].decode("latin-1").rpartition("/")[2]
    # Quoted anew, so that nothing in it looks like a scheme or ends an attribute.
    return f"{quote(unquote(last), safe='')}/" if last else ""


class AsyncAPIDocs:
    """An ASGI app: a page at its root; below it `asyncapi.json`, `asyncapi.yaml` and the page's own files.

    `json` and `yaml` are the endpoints of the document alone, for further URLs.

    Args:
        specification: What is shown.
        view: How it is shown.
        include_in_schema: Whether the AsyncAPI document lists the page as a route.
        description: The description in that document.
        tags: The tags in that document.
        unique_id: The operation id in that document.
    """

    def __init__(
        self,
        specification: SpecificationFactory,
        view: View,
        *,
        include_in_schema: bool,
        description: str | None,
        tags: Tags | None,
        unique_id: str | None,
    ) -> None:
        self.specification = specification
        self.include_in_schema = include_in_schema
        self.description = description
        self.tags = tags
        self.unique_id = unique_id
        self.json: Endpoint = _ContentEndpoint(
            lambda _: self._current().json,
            include_in_schema=include_in_schema,
        )
        self.yaml: Endpoint = _ContentEndpoint(
            lambda _: self._current().yaml,
            include_in_schema=include_in_schema,
        )
        self._page = _ContentEndpoint(lambda scope: self._current().page(_folder(scope)))
        self.methods = self._page.methods
        self._view = view
        self._built: _Built | None = None
        self._contents: list[object] = []
        self._looked = 0.0
        self._urls: dict[str, Endpoint] = {
            "/": self._page,
            "/asyncapi.json": self.json,
            "/asyncapi.yaml": self.yaml,
        }
        for asset in map(_asset, view.assets()):
            self._urls[f"/{asset.path}"] = _asset_endpoint(asset)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or accept the lifespan."""
        app: ASGIApp = self._page
        if scope["type"] != "lifespan":
            app = self._urls.get(route_path(scope), _NOT_FOUND)
        await app(scope, receive, send)

    def _current(self) -> _Built:
        now = monotonic()
        if self._built is not None and now - self._looked < _LOOK_EVERY:
            return self._built
        contents = _contents(self.specification)
        # Compared by identity, and kept alive meanwhile, so that no new object can take an old one's id.
        same = len(contents) == len(self._contents) and all(map(operator.is_, contents, self._contents))
        if self._built is None or not same:
            self._built = _Built(self.specification, self._view)
            self._contents = contents
        self._looked = now
        return self._built


def make_asyncapi_asgi(
    *targets: Any,
    specification: SpecificationFactory | None = None,
    schema: SpecificationFactory | None = None,
    description: str | None = None,
    tags: Tags | None = None,
    unique_id: str | None = None,
    include_in_schema: bool = True,
    **page: Unpack[PageKeywords],
) -> AsyncAPIDocs:
    """Make the ASGI app that serves AsyncAPI documentation.

    Args:
        targets: One AsyncAPI specification, one FastStream app, one `BrokerLifespan`, or one or more brokers.
        specification: The specification to show instead of the target's own.
        schema: Upstream's name of `specification`.
        description: The page's description in the document, where the page is listed there.
        tags: The page's tags there.
        unique_id: The page's operation id there.
        include_in_schema: Whether the page is listed there.
        page: See `PageKeywords`.

    Returns:
        The app; mount it with all the paths below its own.

    Raises:
        SetupError: The targets cannot be documented, or keywords cannot work.
        TypeError: A keyword is unknown.
    """
    if specification is not None and schema is not None:
        msg = "specification and schema are two names of one thing: pass one of them."
        raise SetupError(msg)
    return AsyncAPIDocs(
        specification_of(targets, specification or schema),
        View(**page),
        include_in_schema=include_in_schema,
        description=description,
        tags=tags,
        unique_id=unique_id,
    )


class AsyncAPIRoute:
    """Where AsyncAPI documentation is served, and how it looks.

    Args:
        path: The page's path.
        description: The page's description in the document, where the page is listed there.
        tags: The page's tags there.
        unique_id: The page's operation id there.
        include_in_schema: Whether the page is listed there.
        asyncapi_json_path: The path of the document as JSON beside the page; by default the page's path and
            `.json`. None serves neither it nor its YAML sibling.
        page: See `PageKeywords`.

    Raises:
        SetupError: Keywords cannot work.
        TypeError: A keyword is unknown.
    """

    def __init__(  # noqa: PLR0917 (upstream's signature)
        self,
        path: str,
        description: str | None = None,
        tags: Tags | None = None,
        unique_id: str | None = None,
        include_in_schema: bool = False,  # noqa: FBT001, FBT002 (upstream's signature)
        asyncapi_json_path: str | Literal[_Unset.UNSET] | None = _UNSET,
        **page: Unpack[PageKeywords],
    ) -> None:
        # Raises where the route is written, not where it is served.
        View(**page)
        self.path = path
        self.asyncapi_json_path: str | None
        if isinstance(asyncapi_json_path, _Unset):
            beside = path.rstrip("/")
            # The root has nothing beside it; /asyncapi.json is below it.
            self.asyncapi_json_path = f"{beside}.json" if beside else None
        else:
            self.asyncapi_json_path = asyncapi_json_path
        self.description = description
        self.tags = tags
        self.unique_id = unique_id
        self.include_in_schema = include_in_schema
        self.page = page

    @property
    def asyncapi_yaml_path(self) -> str | None:
        """The path of the document as YAML, next to the JSON one; None where that is off."""
        if self.asyncapi_json_path is None:
            return None
        return self.asyncapi_json_path.removesuffix(".json") + ".yaml"

    @classmethod
    def ensure_route(cls, path: "str | AsyncAPIRoute") -> "AsyncAPIRoute":
        """Return the route itself, or one with all defaults for a path."""
        return path if isinstance(path, AsyncAPIRoute) else cls(path)

    def __call__(
        self,
        *targets: Any,
        specification: SpecificationFactory | None = None,
        schema: SpecificationFactory | None = None,
    ) -> AsyncAPIDocs:
        """Make the app that serves this documentation of the targets.

        Args:
            targets: What `make_asyncapi_asgi` takes.
            specification: The specification to show instead of the target's own.
            schema: Upstream's name of `specification`.

        Returns:
            The app to mount at `path`.

        Raises:
            SetupError: The targets cannot be documented, or keywords cannot work.
        """
        return make_asyncapi_asgi(
            *targets,
            specification=specification,
            schema=schema,
            description=self.description,
            tags=self.tags,
            unique_id=self.unique_id,
            include_in_schema=self.include_in_schema,
            **self.page,
        )
