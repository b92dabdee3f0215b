"""The ASGI app that serves an AsyncAPI document and its page, and the route that places it in an application.

The document is built in a thread, on the first request, and again when a subscriber, a publisher or a broker
has been added or removed. The event loop only sends what was built.
"""

import json
import operator
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from enum import Enum
from functools import partial
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, Unpack

from faststream.asgi import AsyncAPIRoute as UpstreamRoute
from faststream.asgi.types import ASGIApp, Receive, Scope, Send
from faststream.exceptions import SetupError
from faststream.specification import AsyncAPI
from faststream.specification.base import SpecificationFactory

from faststream_adapters._asgi.endpoint import Endpoint, Tags
from faststream_adapters._asgi.responses import AsgiResponse
from faststream_adapters._asgi.routing import folder_of, route_path
from faststream_adapters._asgi.slow_responses import send_when_made
from faststream_adapters._lifecycle.targets import loggers_of, parse_targets
from faststream_adapters._utils.garbage import existing_objects_frozen
from faststream_adapters._utils.loggers import DEFAULT, Loggers
from faststream_adapters._utils.options import complete
from faststream_adapters._utils.redaction import redacted_traceback
from faststream_adapters._utils.threads import SingleFlight
from faststream_adapters._utils.tracebacks import call_with_names, stack_names

from .content import NOSNIFF, Content, coding_for
from .view import VIEWER_JSON, PageKeywords, View

if TYPE_CHECKING:
    from .page import Page

__all__ = ("AsyncAPIDocs", "AsyncAPIRoute", "make_asyncapi_asgi", "specification_of")

T = TypeVar("T")

# Seconds. Detecting changes takes a few microseconds per subscriber, so it is not done for every request.
_CHECK_INTERVAL = 1.0

# The page differs by the last segment of its own path, and under some mounts the client chooses that segment.
_MAX_FOLDERS = 8

_TEXT = {"Content-Type": "text/plain; charset=utf-8", **NOSNIFF}

_NOT_FOUND = AsgiResponse(b"Not Found", 404, _TEXT)
_FAILED = AsgiResponse(
    b"The AsyncAPI document could not be built. The log contains the error.",
    500,
    {**_TEXT, "Cache-Control": "no-store"},
)


class _Unset(Enum):
    UNSET = "unset"


_UNSET: Literal[_Unset.UNSET] = _Unset.UNSET

_SHARED_PARTS = (
    "sidebar",
    "info",
    "servers",
    "operations",
    "messages",
    "schemas",
    "errors",
    "expand_message_examples",
)
"""The options of the page that `faststream.asgi` has too, with the same meaning."""


# --- the specification ---


def specification_of(
    targets: Sequence[Any],
    specification: SpecificationFactory | None = None,
) -> SpecificationFactory:
    """Return the AsyncAPI specification that describes the targets.

    Args:
        targets: One specification, one FastStream app, one `BrokerLifespan`, or one or more brokers.
        specification: The specification to use instead; the targets' brokers are added to it.

    Returns:
        The app's own specification, or a new one for brokers. No FastStream app is created for brokers: it
        would change the values that `Context` injects into running subscribers.

    Raises:
        SetupError: There are no targets, or they are of a wrong kind or of different kinds.
    """
    if specification is None:
        return _own_specification(targets)
    if not _is_specification(specification):
        msg = f"specification must be an object like AsyncAPI(title=...), not {specification!r}."
        raise SetupError(msg)
    if targets:
        for broker in getattr(_own_specification(targets), "brokers", ()):
            specification.add_broker(broker)
    return specification


def _own_specification(targets: Sequence[Any]) -> SpecificationFactory:
    if len(targets) == 1 and _is_specification(targets[0]):
        specification: SpecificationFactory = targets[0]
        return specification
    parsed = parse_targets(targets, also="one AsyncAPI specification, or ")
    return AsyncAPI(*parsed.brokers) if parsed.app is None else parsed.app.schema


def _loggers_of(targets: Sequence[Any]) -> Loggers:
    """Return the loggers of targets that `specification_of` accepts."""
    return loggers_of(targets) if targets and not _is_specification(targets[0]) else DEFAULT


def _is_specification(candidate: object) -> bool:
    return callable(getattr(candidate, "to_specification", None))


# --- the app ---


class _NotBuiltError(Exception):
    """The document could not be built, and the log contains the error."""


class _Part(Generic[T]):
    """A representation of the document, or a static file. It is built on first use, in a thread, and kept.

    A failure is kept too, and logged once.

    Args:
        source: Returns what the content is built from. The first call may take long.
        build: Builds the content from that, for a page whose own files are in this folder.
        log: Logs an error.
    """

    def __init__(
        self,
        source: Callable[[], T],
        build: Callable[[T, str], Content],
        log: Callable[[Exception], object],
    ) -> None:
        self._source = source
        self._build = build
        self._log = log
        self._contents: dict[str, Content] = {}
        self._failed = False

    def ready_response(self, scope: Scope, folder: str) -> AsgiResponse | None:
        """Return the response to a request, or None if it has to be built first."""
        if self._failed:
            return _FAILED
        content = self._contents.get(folder)
        return None if content is None else content.ready_response(scope)

    def content(self, folder: str, coding: str) -> Content | None:
        """Build the content and its responses with a content coding, in the thread; None after a failure."""
        try:
            # Further calls may be waiting when one has failed.
            if not self._failed:
                content = self._contents.get(folder) or self._make(folder)
                content.encode(coding)
                return content
        except _NotBuiltError:
            self._failed = True
        except Exception as error:  # noqa: BLE001 (models of the application can raise anything)
            self._failed = True
            self._log(error)
        return None

    def _make(self, folder: str) -> Content:
        # Only the first time, which creates many objects. Clients choose folders, and objects that are frozen
        # again and again are never collected.
        frozen = nullcontext if self._contents else existing_objects_frozen
        with frozen():
            source = self._source()
        # The objects of the document exist by now.
        with frozen():
            content = self._build(source, folder)
        if len(self._contents) >= _MAX_FOLDERS:
            del self._contents[next(iter(self._contents))]
        self._contents[folder] = content
        return content


class _PartEndpoint(Endpoint):
    """An endpoint that serves a part.

    Args:
        flight: Where parts are built, one at a time.
        part: Returns the part to serve.
        folder: Returns the folder of the page's own files; only the page needs it.
        include_in_schema: Whether the AsyncAPI document lists the endpoint.
    """

    def __init__(
        self,
        flight: SingleFlight,
        part: Callable[[], _Part[Any]],
        folder: Callable[[Scope], str] = lambda _: "",
        *,
        include_in_schema: bool = False,
    ) -> None:
        super().__init__(include_in_schema=include_in_schema)
        self._flight = flight
        self._part = part
        self._folder = folder

    def respond(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        part, folder = self._part(), self._folder(scope)
        if (response := part.ready_response(scope, folder)) is not None:
            return response(scope, receive, send)
        # FastDepends finds models that are local to a function, as in tests, on the stack of the caller only.
        names = stack_names()
        return send_when_made(self._response(part, folder, scope, names), scope, receive, send)

    async def _response(
        self, part: _Part[Any], folder: str, scope: Scope, names: dict[str, Any]
    ) -> AsgiResponse:
        coding = coding_for(scope)
        build = partial(call_with_names, names, partial(part.content, folder, coding))
        content = await self._flight.run((part, folder, coding), build)
        return _FAILED if content is None else content.response_for(scope)


class _Version:
    """One version of the document, and its parts. Nothing is built before its first use.

    Args:
        specification: The specification to build the document from.
        view: The options of the page.
        described: The objects that the document describes.
        log: Logs an error.
        report: Logs the name and the error of a message that cannot be described.
    """

    def __init__(
        self,
        specification: SpecificationFactory,
        view: View,
        described: list[object],
        log: Callable[[Exception], object],
        report: Callable[[str, Exception], object],
    ) -> None:
        self._specification = specification
        self._report = report
        self._view = view
        # Compared by identity. This keeps the objects alive, so no new one can reuse an id.
        self._described = described
        self._document: dict[str, Any] | None = None
        self._page: Page | None = None
        self._failed = False
        self._log = log
        self.json = _Part(self._built, lambda document, _: _json_content(document), log)
        self.viewer_json = _Part(self._built, self._viewer_content, log)
        self.yaml = _Part(self._built, lambda document, _: _yaml_content(document), log)
        self.page = _Part(self._built, self._page_content, log)

    def describes(self, objects: list[object]) -> bool:
        """Return whether these are the objects that the document describes."""
        return len(objects) == len(self._described) and all(map(operator.is_, objects, self._described))

    def _built(self) -> dict[str, Any]:
        if self._document is None and not self._failed:
            try:
                self._document = self._build()
            except Exception as error:  # noqa: BLE001 (models of the application can raise anything)
                self._failed = True
                self._log(error)
        if self._document is None:
            raise _NotBuiltError
        return self._document

    def _build(self) -> dict[str, Any]:
        # Imported in the thread, because these modules take more than 20 ms to import.
        from .document import document_of

        try:
            return document_of(self._specification, self._report)
        except Exception:
            if self.describes(_described_objects(self._specification)):
                raise
            # The event loop has added a subscriber meanwhile.
            return document_of(self._specification, self._report)

    def _viewer_content(self, document: dict[str, Any], _: str) -> Content:
        from .document import titles_of
        from .viewer_document import for_viewer

        options = self._view.options
        titles = titles_of(self._specification)
        shaped = for_viewer(document, titles, http_routes=options["http_routes"], links=options["schemas"])
        return _json_content(shaped)

    def _page_content(self, document: dict[str, Any], folder: str) -> Content:
        from .document import titles_of
        from .page import Page

        if self._page is None:
            self._page = Page(document, self._view, titles_of(self._specification))
        return self._page.content(folder)


def _described_objects(specification: SpecificationFactory) -> list[object]:
    """Return the objects that the document describes: adding or removing one changes the document."""
    objects: list[object] = []
    for broker in getattr(specification, "brokers", ()):
        objects += (broker, *broker.subscribers, *broker.publishers)
    objects += getattr(specification, "http_handlers", ())
    return objects


def _yaml_content(document: dict[str, Any]) -> Content:
    try:
        yaml = import_module("yaml")
    except ImportError:
        # JSON is a subset of YAML 1.2.
        text = _compact(document)
    else:
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return Content(text.encode(), "application/yaml")


def _json_content(document: dict[str, Any]) -> Content:
    return Content(_compact(document).encode(), "application/json")


def _compact(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


class AsyncAPIDocs:
    """An ASGI app with the page at its root, and `asyncapi.json`, `asyncapi.yaml` and static files below it.

    The attributes `root`, `json` and `yaml` are the endpoints of the page and of the document. They can be
    served at other URLs too.

    Args:
        specification: The specification to build the document from.
        view: The page's options.
        loggers: Where an error is logged; an application that the docs are mounted in may replace them.
        include_in_schema: Whether the AsyncAPI document lists the page as a route.
        description: The description of that route.
        tags: The tags of that route.
        unique_id: The operation id of that route.
    """

    def __init__(
        self,
        specification: SpecificationFactory,
        view: View,
        loggers: Loggers = DEFAULT,
        *,
        include_in_schema: bool,
        description: str | None,
        tags: Tags | None,
        unique_id: str | None,
    ) -> None:
        self.specification = specification
        self.loggers = loggers
        self.include_in_schema = include_in_schema
        self.description = description
        self.tags = tags
        self.unique_id = unique_id
        self._flight = SingleFlight()
        part = partial(_PartEndpoint, self._flight)
        self.json: Endpoint = part(lambda: self._version().json, include_in_schema=include_in_schema)
        self.yaml: Endpoint = part(lambda: self._version().yaml, include_in_schema=include_in_schema)
        self.root: Endpoint = part(lambda: self._version().page, folder_of)
        self._documents: dict[str, Endpoint] = {
            "/": self.root,
            "/asyncapi.json": self.json,
            "/asyncapi.yaml": self.yaml,
            f"/{VIEWER_JSON}": part(lambda: self._version().viewer_json),
        }
        self._files: dict[str, Endpoint] | None = None
        self.methods = self.root.methods
        self._view = view
        self._current: _Version | None = None
        self._checked_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request, or accept the lifespan."""
        app: ASGIApp = self.root
        if scope["type"] != "lifespan":
            path = route_path(scope)
            if (document := self._documents.get(path)) is not None:
                app = document
            else:
                if self._files is None:
                    self._files = await self._flight.run("files", self._load_files)
                app = self._files.get(path, _NOT_FOUND)
        await app(scope, receive, send)

    def _load_files(self) -> dict[str, Endpoint]:
        # In the thread, because importing the viewer's wheel takes a tenth of a second.
        from .page import page_assets

        return {f"/{asset.path}": self._file_endpoint(asset.content) for asset in page_assets(self._view)}

    def _file_endpoint(self, content: Content) -> Endpoint:
        file = _Part(lambda: content, lambda content, _: content, self._log)
        return _PartEndpoint(self._flight, lambda: file)

    def _log(self, error: Exception) -> None:
        self.loggers["docs"].error("The AsyncAPI document could not be built.\n%s", redacted_traceback(error))

    def _report(self, name: str, error: Exception) -> None:
        self.loggers["docs"].error(
            "The message of %s cannot be described: the AsyncAPI document has a placeholder for it.\n%s",
            name,
            redacted_traceback(error),
        )

    def _version(self) -> _Version:
        """Return the current version of the document."""
        now = monotonic()
        if self._current is not None and now - self._checked_at < _CHECK_INTERVAL:
            return self._current
        described = _described_objects(self.specification)
        if self._current is None or not self._current.describes(described):
            self._current = _Version(self.specification, self._view, described, self._log, self._report)
        self._checked_at = now
        return self._current


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
        specification: The specification to use instead of the target's own.
        schema: The name that `faststream.asgi` has for `specification`.
        description: The page's description, if the document lists the page.
        tags: The page's tags, if the document lists the page.
        unique_id: The page's operation id, if the document lists the page.
        include_in_schema: Whether the document lists the page.
        page: See `PageKeywords`.

    Returns:
        The app. Mount it, so that it also receives the requests for paths below its own.

    Raises:
        SetupError: The targets cannot be documented, or a keyword cannot be used.
        TypeError: A keyword is unknown.
    """
    if specification is not None and schema is not None:
        msg = "specification and schema are two names of the same argument: pass only one of them."
        raise SetupError(msg)
    return AsyncAPIDocs(
        specification_of(targets, specification or schema),
        View(**complete(PageKeywords, page, make_asyncapi_asgi)),
        _loggers_of(targets),
        include_in_schema=include_in_schema,
        description=description,
        tags=tags,
        unique_id=unique_id,
    )


class AsyncAPIRoute:
    """The paths and options of the AsyncAPI documentation.

    Args:
        path: The page's path.
        description: The page's description, if the document lists the page.
        tags: The page's tags, if the document lists the page.
        unique_id: The page's operation id, if the document lists the page.
        include_in_schema: Whether the document lists the page.
        asyncapi_json_path: The path of the document as JSON; by default the page's path with `.json`
            appended. With None, the document is served only below the page.
        page: See `PageKeywords`.

    Raises:
        SetupError: A keyword cannot be used.
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
        # Validate the keywords here, where they are written, and not only when the app is made.
        View(**complete(PageKeywords, page, AsyncAPIRoute))
        self.path = path
        self.asyncapi_json_path: str | None
        if isinstance(asyncapi_json_path, _Unset):
            page_path = path.rstrip("/")
            # A page at the root serves /asyncapi.json anyway.
            self.asyncapi_json_path = f"{page_path}.json" if page_path else None
        else:
            self.asyncapi_json_path = asyncapi_json_path
        self.description = description
        self.tags = tags
        self.unique_id = unique_id
        self.include_in_schema = include_in_schema
        self.page = page

    @property
    def asyncapi_yaml_path(self) -> str | None:
        """The path of the document as YAML, beside the JSON path; None if there is no JSON path."""
        if self.asyncapi_json_path is None:
            return None
        return self.asyncapi_json_path.removesuffix(".json") + ".yaml"

    @classmethod
    def ensure_route(cls, path: "str | UpstreamRoute | AsyncAPIRoute") -> "AsyncAPIRoute":
        """Return the route unchanged, or create one from a path or from a route of `faststream.asgi`.

        The scripts and styles that a route of `faststream.asgi` names by default are not loaded: this package
        serves its own. Its path for publishing from the page has no effect.
        """
        if isinstance(path, UpstreamRoute):
            parts = {name: getattr(path, name) for name in _SHARED_PARTS}
            return cls(
                path.path,
                path.description,
                path.tags,
                path.unique_id,
                path.include_in_schema,
                path.asyncapi_json_path,
                **parts,
            )
        return path if isinstance(path, AsyncAPIRoute) else cls(path)

    def __call__(
        self,
        *targets: Any,
        specification: SpecificationFactory | None = None,
        schema: SpecificationFactory | None = None,
    ) -> AsyncAPIDocs:
        """Make the ASGI app for the targets.

        Args:
            targets: The same targets as for `make_asyncapi_asgi`.
            specification: The specification to use instead of the target's own.
            schema: The name that `faststream.asgi` has for `specification`.

        Returns:
            The app to mount at `path`.

        Raises:
            SetupError: The targets cannot be documented.
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
