"""The AsyncAPI document of an application and a page that shows it, as one ASGI app."""

import json
import logging
import operator
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from functools import cached_property, lru_cache
from importlib import import_module
from time import monotonic
from typing import Any, Literal, Unpack
from urllib.parse import quote, unquote

from faststream.asgi.types import ASGIApp, Receive, Scope, Send
from faststream.exceptions import SetupError
from faststream.specification import AsyncAPI
from faststream.specification.base import SpecificationFactory

from faststream_adapters._compat import BrokerUsecase
from faststream_adapters.lifespan import BrokerLifespan
from faststream_adapters.redaction import redacted_traceback
from faststream_adapters.responses import AsgiResponse
from faststream_adapters.routing import Endpoint, Tags, route_path

from .content import NOSNIFF, Content
from .view import PageKeywords, View

__all__ = ("AsyncAPIDocs", "AsyncAPIRoute", "make_asyncapi_asgi", "specification_of")

logger = logging.getLogger("faststream.adapters")

_TARGETS = "pass one AsyncAPI specification, one FastStream app, one BrokerLifespan, or one or more brokers"
# Comparing costs some microseconds per subscriber, so that it is not done for each request.
_LOOK_EVERY = 1.0
_TEXT = {"Content-Type": "text/plain; charset=utf-8", **NOSNIFF}

_NOT_FOUND = AsgiResponse(b"Not Found", 404, _TEXT)
_FAILED = AsgiResponse(
    b"The AsyncAPI document could not be built; the log says why.",
    500,
    {**_TEXT, "Cache-Control": "no-store"},
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


# --- the app ---


class _ContentEndpoint(Endpoint):
    """An endpoint whose content is made when it is asked for, and may fail to be made."""

    def __init__(self, content: Callable[[Scope], Content], *, include_in_schema: bool = False) -> None:
        super().__init__(include_in_schema=include_in_schema)
        self._content = content

    def respond(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        try:
            response = self._content(scope).answer(scope)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is not the client's business)
            logger.error("The AsyncAPI document could not be built.\n%s", redacted_traceback(error))  # noqa: TRY400 (redacted)
            response = _FAILED
        return response(scope, receive, send)


def _file_endpoint(content: Content) -> Endpoint:
    return _ContentEndpoint(lambda _: content)


class _Built:
    """One state of the document, in all the forms it is sent in; each form is made when it is asked for."""

    def __init__(self, specification: SpecificationFactory, view: View) -> None:
        # Imported on the first request: who looks at no docs does not pay for them.
        from .document import document_of
        from .page import Page

        self._document = document_of(specification)
        self.page = Page(self._document, view)

    @cached_property
    def json(self) -> Content:
        return _json_content(self._document)

    @cached_property
    def viewer_json(self) -> Content:
        from .document import for_viewer

        return _json_content(for_viewer(self._document))

    @cached_property
    def yaml(self) -> Content:
        try:
            yaml = import_module("yaml")
        except ImportError:
            # Every JSON text is YAML 1.2.
            text = _compact(self._document)
        else:
            text = yaml.safe_dump(self._document, sort_keys=False, allow_unicode=True)
        return Content(text.encode(), "application/yaml")


def _json_content(document: dict[str, Any]) -> Content:
    return Content(_compact(document).encode(), "application/json")


def _compact(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _folder(scope: Scope) -> str:
    """Return where the page's own files are, relative to the URL that the client asked for."""
    # Some hosts strip the mount's prefix from `path`; relative links need the path that the client sees.
    return _folder_of(scope.get("raw_path") or quote(scope["path"]).encode())


# The client chooses it, in part.
@lru_cache(maxsize=8)
def _folder_of(raw: bytes) -> str:
    last = raw.partition(b"?")[0].decode("latin-1").rpartition("/")[2]
    # Quoted anew, so that nothing in it looks like a scheme or ends an attribute.
    return f"{quote(unquote(last), safe='')}/" if last else ""


class AsyncAPIDocs:
    """An ASGI app: a page at its root; below it `asyncapi.json`, `asyncapi.yaml` and the page's own files.

    `root` is the endpoint of the page; `json` and `yaml` are those of the document alone, for further URLs.

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
        self.root = _ContentEndpoint(lambda scope: self._current().page.content(_folder(scope)))
        self.methods = self.root.methods
        self._view = view
        self._built: _Built | None = None
        self._parts: list[object] = []
        self._looked = 0.0

    @cached_property
    def _urls(self) -> dict[str, Endpoint]:
        # Made on the first request: the viewer's wheel takes a tenth of a second to import.
        from .page import VIEWER_JSON, assets_of

        urls: dict[str, Endpoint] = {
            "/": self.root,
            "/asyncapi.json": self.json,
            "/asyncapi.yaml": self.yaml,
            f"/{VIEWER_JSON}": _ContentEndpoint(lambda _: self._current().viewer_json),
        }
        for asset in assets_of(self._view):
            urls[f"/{asset.path}"] = _file_endpoint(asset.content)
        return urls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or accept the lifespan."""
        app: ASGIApp = self.root
        if scope["type"] != "lifespan":
            app = self._urls.get(route_path(scope), _NOT_FOUND)
        await app(scope, receive, send)

    def _current(self) -> _Built:
        now = monotonic()
        if self._built is not None and now - self._looked < _LOOK_EVERY:
            return self._built
        from .document import parts_of

        parts = parts_of(self.specification)
        # Compared by identity, and kept alive meanwhile, so that no new object can take an old one's id.
        same = len(parts) == len(self._parts) and all(map(operator.is_, parts, self._parts))
        if self._built is None or not same:
            self._built = _Built(self.specification, self._view)
            self._parts = parts
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
