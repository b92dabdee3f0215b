"""The endpoints of the status page and of its JSON document."""

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Unpack
from urllib.parse import parse_qs

from faststream.asgi.types import Scope

from faststream_adapters._asgi.endpoint import Endpoint, SchemaKeywords
from faststream_adapters._asgi.responses import AsgiResponse
from faststream_adapters._asgi.routing import folder_of
from faststream_adapters._asgi.slow_responses import SlowEndpoint, accepts_gzip, compress
from faststream_adapters._endpoints.options import StatusKeywords
from faststream_adapters._lifecycle.statistics import Collected
from faststream_adapters._lifecycle.targets import Target, TargetView
from faststream_adapters._utils.options import accepts, complete
from faststream_adapters._utils.threads import SingleFlight

from .document import StatusDocument, take

_COLLECTED = Collected.MESSAGES | Collected.BACKLOGS | Collected.CHECKS | Collected.HISTORY

_HEADERS = {"Cache-Control": "no-store", "Vary": "Accept-Encoding"}
_JSON_HEADERS = {"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"}

_ABSOLUTE = ("/", "http:", "https:")
"""How a link begins that is not relative to the page."""

Build = Callable[[StatusDocument], tuple[bytes, Mapping[str, str]]]
"""Returns a body and its headers; called in a thread."""


class _Snapshot:
    """The status at one moment; compared by identity."""

    def __init__(self, document: StatusDocument) -> None:
        self.document = document


class _Responses:
    """Makes the responses of both endpoints in a thread, one at a time; concurrent requests share them.

    Invariant: a request that arrives when a response has been made gets a newer status.

    Args:
        target: What to report on.
    """

    def __init__(self, target: TargetView) -> None:
        self._target = target
        self._flight = SingleFlight()
        self._snapshot: _Snapshot | None = None
        """What concurrent requests share, until the first of their responses is made."""

    async def make(self, scope: Scope, key: Hashable, build: Build) -> AsgiResponse:
        """Make a response.

        Args:
            scope: The scope of the request.
            key: What to build; equal for equal bodies.
            build: Builds the body.
        """
        if (snapshot := self._snapshot) is None:
            snapshot = self._snapshot = _Snapshot(take(self._target))
        compressed = accepts_gzip(scope)
        call = partial(_build, snapshot.document, build, compressed=compressed)
        try:
            return await self._flight.run((snapshot, key, compressed), call)
        finally:
            if self._snapshot is snapshot:
                self._snapshot = None


def _build(document: StatusDocument, build: Build, *, compressed: bool) -> AsgiResponse:
    body, headers = build(document)
    if compressed:
        body, headers = compress(body), {**headers, "Content-Encoding": "gzip"}
    return AsgiResponse(body, 200, {**_HEADERS, **headers})


def _json(document: StatusDocument) -> tuple[bytes, Mapping[str, str]]:
    return json.dumps(document).encode(), _JSON_HEADERS


class _JsonEndpoint(SlowEndpoint):
    """The endpoint of the document.

    Args:
        responses: Where responses are made.
        schema: See `SchemaKeywords`.
    """

    def __init__(self, responses: _Responses, **schema: Unpack[SchemaKeywords]) -> None:
        super().__init__("The status could not be collected.", **schema)
        self._responses = responses

    async def _make(self, scope: Scope) -> AsgiResponse:
        response = await self._responses.make(scope, "json", _json)
        self._failure_logged = False
        return response

    def _log(self, traceback: str) -> None:
        self.loggers["health"].error("The status could not be collected.\n%s", traceback)


class StatusEndpoint(_JsonEndpoint):
    """The endpoint of the page, which has the document too.

    Args:
        targets: What to report on.
        options: The complete keywords.
    """

    def __init__(self, targets: Sequence[Target], options: StatusKeywords) -> None:
        target = TargetView(targets)
        responses = _Responses(target)
        super().__init__(
            responses,
            include_in_schema=options["include_in_schema"],
            description=options["description"] or "The status of the process, as a page.",
            tags=options["tags"],
            unique_id=options["unique_id"],
        )
        target.collect(_COLLECTED)
        self.loggers = target.loggers
        self.json: Endpoint = _JsonEndpoint(
            responses,
            include_in_schema=options["include_in_schema"],
            description="The status of the process, as JSON.",
            tags=options["tags"],
        )
        """The endpoint of the document, to be served at a URL of its own."""
        self.json.loggers = target.loggers
        self._interval = options["refresh"]
        self._links = options["links"] or {}

    async def _make(self, scope: Scope) -> AsgiResponse:
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        if query.get("format") == ["json"]:
            return await super()._make(scope)
        refresh = 0 if query.get("refresh") == ["0"] else self._interval
        folder = folder_of(scope)
        response = await self._responses.make(
            scope, (refresh, folder), partial(self._page, refresh=refresh, folder=folder)
        )
        self._failure_logged = False
        return response

    def _page(
        self, document: StatusDocument, *, refresh: int, folder: str
    ) -> tuple[bytes, Mapping[str, str]]:
        # In the thread, because the first call reads the stylesheet.
        from .page import Settings, render, shell

        links = {
            text: url if url.startswith(_ABSOLUTE) else folder + url for text, url in self._links.items()
        }
        settings = Settings(refresh, self._interval, {"JSON": "?format=json", **links})
        return render(document, settings), shell().headers


@accepts(StatusKeywords)
def make_status_asgi(*targets: Target, **keywords: Unpack[StatusKeywords]) -> StatusEndpoint:
    """Make an endpoint that shows the status of the process as a page for people, without scripts.

    `?format=json` returns the same as JSON, and so does the attribute `json`, an endpoint for a URL of its
    own. From now on the brokers count the messages of their subscribers and the backlogs, and the lifespan
    keeps its last changes.

    Args:
        targets: One or more brokers, or one FastStream app, or one object that has a `broker_lifespan`.
        keywords: See `StatusKeywords`.

    Returns:
        An ASGI app that responds with 200, whatever the status is.

    Raises:
        SetupError: The targets or a keyword cannot be used.
        TypeError: A keyword is unknown.
    """
    return StatusEndpoint(targets, complete(StatusKeywords, keywords))
