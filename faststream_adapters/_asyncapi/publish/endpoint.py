"""The endpoint that publishes: it authorizes, validates, publishes, and writes one audit line."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from traceback import format_tb
from typing import Unpack

from faststream.asgi.types import Receive, Scope, Send
from faststream.exceptions import IncorrectState, SetupError

from faststream_adapters._asgi.endpoint import Endpoint
from faststream_adapters._asgi.negotiation import header
from faststream_adapters._asgi.request import MAX_BODY_SIZE, AsgiRequest, RequestError
from faststream_adapters._asgi.responses import RETRY_AFTER, AsgiResponse, JSONResponse
from faststream_adapters._compat.channels import new_correlation_id
from faststream_adapters._compat.faststream import json_dumps, json_loads
from faststream_adapters._lifecycle.targets import Target, TargetView
from faststream_adapters._utils.options import accepts, complete
from faststream_adapters._utils.redaction import redact

from .body import FORM, JSON, Body, InvalidBodyError, InvalidFieldError, form_body, parse_form, parse_json
from .channels import AmbiguousChannelError, Channel, Channels, ConfirmedError, ReturnedError
from .guard import PageToken, is_authorized, is_foreign
from .options import PublishKeywords
from .outcome import Outcome
from .page import Page
from .validation import FieldError

__all__ = ("make_publish_asgi",)

_REPLY_MARGIN = 1.0
"""Seconds that a client has, after its own timeout, to report it."""

_OK, _NOT_UP = 200, 503

_DIGITS = len(str(MAX_BODY_SIZE))

_NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

_TOO_LARGE = Outcome(413, f"The body is larger than {MAX_BODY_SIZE} bytes.")


class _Refused(Exception):  # noqa: N818 (it is a response)
    """The request is refused, with this outcome."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.detail)
        self.outcome = outcome


def _refuse(status: int, detail: str) -> _Refused:
    return _Refused(Outcome(status, detail))


class _Publish(Endpoint):
    """The endpoint.

    Args:
        target: The brokers to publish with.
        options: The complete keywords.
    """

    def __init__(self, target: TargetView, options: PublishKeywords) -> None:
        super().__init__(
            methods=("GET", "HEAD", "POST"),
            include_in_schema=options["include_in_schema"],
            description=options["description"] or "Publish a message to a declared channel.",
            tags=options["tags"],
            unique_id=options["unique_id"],
        )
        if options["authorize"] is None:
            msg = (
                "Publishing over HTTP needs authorize=: a function that gets the Request, and returns "
                "True for those who may send messages to the live brokers. There is no default."
            )
            raise SetupError(msg)
        self.loggers = target.loggers
        self._authorize = options["authorize"]
        self._timeout = options["timeout"]
        self._channels = Channels(target)
        self._page = Page()

    async def respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond with the page, or with the result of publishing."""
        request = AsgiRequest(scope, receive, send, MAX_BODY_SIZE)
        try:
            response = await self._response(request)
        except _Refused as refused:
            response = self._refusal(scope, refused.outcome)
        except RequestError as error:
            response = self._refusal(scope, Outcome(error.response.status_code, "The body is incomplete."))
        await response(scope, receive, send)

    async def _response(self, request: AsgiRequest) -> AsgiResponse:
        scope = request.scope
        if request.method == "POST" and is_foreign(scope):
            raise self._forbidden(scope, "it comes from a page of another site")
        if _is_too_large(header(scope, b"content-length")):
            raise _Refused(_TOO_LARGE)
        try:
            allowed = await is_authorized(self._authorize, request, self.loggers["publish"])
            if not allowed:
                raise self._forbidden(scope, "authorize does not allow it")
            if request.method != "POST":
                return await self._show(scope)
            return await self._post(request)
        except RequestError as error:
            if error.response.status_code == _TOO_LARGE.status:
                raise _Refused(_TOO_LARGE) from None
            raise

    def _forbidden(self, scope: Scope, reason: str) -> _Refused:
        client = _client(scope)
        self.loggers["publish"].warning(
            "Refused a request to publish, because %s; client %s.", reason, client, extra={"client": client}
        )
        return _refuse(403, f"Refused, because {reason}.")

    async def _post(self, request: AsgiRequest) -> AsgiResponse:
        scope = request.scope
        kind = _content_type(scope)
        if kind not in {JSON, FORM}:
            raise _refuse(415, f"The content type must be {JSON}, in UTF-8 and without a content encoding.")
        data = await request.body()
        if kind == JSON:
            outcome = await self._outcome(scope, len(data), partial(parse_json, data))
            return _json(outcome)
        try:
            fields = parse_form(data)
        except InvalidBodyError as error:
            raise _refuse(400, str(error)) from None
        if not PageToken(scope).fits(fields.get("token", "")):
            raise self._forbidden(scope, "the form is not from this page: open the page again")
        outcome = await self._outcome(scope, len(data), partial(form_body, fields))
        return await self._show(scope, outcome, fields)

    async def _outcome(self, scope: Scope, size: int, read: Callable[[], Body]) -> Outcome:
        """Do what a body asks for, and return what came of it."""
        try:
            body = read()
            channel = self._channel(body)
        except InvalidBodyError as error:
            return Outcome(400, str(error))
        except InvalidFieldError as error:
            errors = [FieldError(loc=error.loc, msg=str(error), type="value_error")]
            return Outcome(422, "The request is invalid.", errors=errors)
        except _Refused as refused:
            return refused.outcome
        if errors := channel.validator.errors(body.message):
            located = [
                FieldError(loc=["message", *each["loc"]], msg=each["msg"], type=each["type"])
                for each in errors
            ]
            return Outcome(422, "The message is not what the channel declares.", channel, errors=located)
        correlation_id = new_correlation_id(channel.managed.broker)
        outcome = Outcome(200, "The message is valid. Nothing was published.", channel, correlation_id)
        if not body.validate_only:
            outcome = await self._publish(channel, body, correlation_id)
        self._log(scope, size, outcome, body.destination)
        return outcome

    def _channel(self, body: Body) -> Channel:
        """Return the channel of a request.

        Raises:
            _Refused: There is none, or nothing can be published to it.
            InvalidFieldError: The channel is ambiguous, it does not cover the destination, or a header is
                reserved.
        """
        try:
            channel = self._channels.find(body.channel)
        except AmbiguousChannelError as error:
            raise InvalidFieldError(str(error), ["channel"]) from None
        if channel is None:
            hint = self._channels.hint(body.channel)
            raise _refuse(404, f"The application declares no such channel.{hint}")
        if channel.reason:
            raise InvalidFieldError(channel.reason, ["channel"])
        _check_destination(channel, body.destination)
        for name in body.headers:
            if channel.managed.driver.is_reserved_header(name.lower()):
                raise InvalidFieldError("FastStream or the broker sets this header", ["headers", name])
        return channel

    async def _publish(self, channel: Channel, body: Body, correlation_id: str) -> Outcome:
        seconds = self._timeout
        try:
            async with asyncio.timeout(seconds + _REPLY_MARGIN * channel.replies):
                reply = await channel.publish(body, correlation_id, seconds)
        except IncorrectState:
            return Outcome(503, "The broker is not up. Nothing was published.", channel, correlation_id)
        except ConfirmedError:
            detail = "Published. The server's confirmation came instead of the subscriber's reply."
            return Outcome(200, detail, channel, correlation_id, published=True)
        except ReturnedError:
            detail = "The server has returned the message, because no queue receives it."
            return Outcome(502, detail, channel, correlation_id)
        except Exception as error:  # noqa: BLE001 (clients and middlewares can raise anything)
            if channel.managed.driver.classify(error) == "timeout":
                waited = (
                    f"reply within {seconds:g} s" if channel.replies else "confirmation of the broker in time"
                )
                detail = f"No {waited}. The message may have been published."
                return Outcome(504, detail, channel, correlation_id)
            self._log_error(channel, error)
            detail = f"Publishing raised {type(error).__name__}. The message may have been published."
            return Outcome(502, detail, channel, correlation_id)
        detail = "Published, and the subscriber replied." if channel.replies else "Published."
        return Outcome(200, detail, channel, correlation_id, published=True, reply=_readable(reply))

    def _log(self, scope: Scope, size: int, outcome: Outcome, destination: str) -> None:
        """Write the audit line of a request whose message is valid. It never contains the message."""
        channel = outcome.channel
        fields = {
            "client": _client(scope),
            "channel": channel and channel.name,
            "destination": destination,
            "size": size,
            "correlation_id": outcome.correlation_id,
        }
        level = logging.INFO if outcome.status == _OK else logging.WARNING
        self.loggers["publish"].log(
            level,
            "%s Channel %s, client %s, %d bytes, correlation id %s.",
            outcome.detail,
            f"{fields['channel']} to {destination}" if destination else fields["channel"],
            fields["client"],
            size,
            outcome.correlation_id,
            extra=fields,
        )

    def _log_error(self, channel: Channel, error: Exception) -> None:
        # Without the error's text, which can contain the message.
        frames = redact("".join(format_tb(error.__traceback__)))
        self.loggers["publish"].error(
            "Publishing to %s raised %s.\n%s", channel.name, type(error).__name__, frames
        )

    async def _show(
        self, scope: Scope, outcome: Outcome | None = None, fields: Mapping[str, str] | None = None
    ) -> AsgiResponse:
        token = PageToken(scope)
        body = await self._page.render(self._channels.all(), token.new(), outcome, fields or {})
        headers = {**self._page.headers, "Cache-Control": "no-store", "Set-Cookie": token.set_cookie}
        return AsgiResponse(body, 200 if outcome is None else outcome.status, headers | _retry(outcome))

    def _refusal(self, scope: Scope, outcome: Outcome) -> AsgiResponse:
        """Return the response to a request that is refused before it is read."""
        if "text/html" not in header(scope, b"accept"):
            return _json(outcome)
        headers = {**self._page.headers, "Cache-Control": "no-store"}
        return AsgiResponse(self._page.refusal(outcome), outcome.status, headers)


def _json(outcome: Outcome) -> AsgiResponse:
    return JSONResponse(outcome.data(), outcome.status, _NO_STORE | _retry(outcome))


def _retry(outcome: Outcome | None) -> dict[str, str]:
    return RETRY_AFTER if outcome is not None and outcome.status == _NOT_UP else {}


def _check_destination(channel: Channel, destination: str) -> None:
    """Refuse a destination that a channel does not cover, and one of a channel that needs none.

    Raises:
        InvalidFieldError: The destination is refused.
    """
    loc: list[str | int] = ["destination"]
    if destination and not channel.is_pattern:
        raise InvalidFieldError("Only a channel that is a pattern has several destinations", loc)
    if channel.is_pattern and not destination:
        raise InvalidFieldError("Field required: the channel is a pattern of destinations", loc)
    if channel.arguments(destination) is None:
        raise InvalidFieldError(f"Input should be one destination that {channel.address} covers", loc)


def _content_type(scope: Scope) -> str:
    """Return the content type; an empty string if the body is encoded in a way that is not read."""
    kind, *parameters = (part.strip().lower() for part in header(scope, b"content-type").split(";"))
    charsets = [part.partition("=")[2].strip('"') for part in parameters if part.startswith("charset=")]
    if charsets not in ([], ["utf-8"], ["utf8"]):
        return ""
    return kind if header(scope, b"content-encoding").lower() in {"", "identity"} else ""


def _is_too_large(content_length: str) -> bool:
    # Without the header, or if it lies, the body is counted while it is read.
    return content_length.isdecimal() and (
        len(content_length) > _DIGITS or int(content_length) > MAX_BODY_SIZE
    )


def _client(scope: Scope) -> str:
    """Return the address of the client, which a proxy may have written."""
    client = scope.get("client")
    return ascii(client[0][:64])[1:-1] if client else "unknown"


def _readable(reply: object) -> object:
    """Return a reply as JSON can represent it."""
    if isinstance(reply, bytes):
        return reply.decode(errors="replace")
    try:
        return json_loads(json_dumps(reply))
    except (TypeError, ValueError, RecursionError):
        return str(reply)


@accepts(PublishKeywords)
def make_publish_asgi(*targets: Target, **keywords: Unpack[PublishKeywords]) -> Endpoint:
    """Make an endpoint that publishes messages to the declared channels: a page for people, and an API.

    It sends through the broker's own `publish()` what the declared message accepts, with all middlewares.
    A request that `authorize` admits can send messages to the live brokers.

    Args:
        targets: One or more brokers, or one FastStream app, or one object that has a `broker_lifespan`.
        keywords: See `PublishKeywords`.

    Returns:
        An ASGI app that responds to GET with the page, and to POST with the result.

    Raises:
        SetupError: `authorize` is missing, or the targets or a keyword cannot be used.
        TypeError: A keyword is unknown.
    """
    return _Publish(TargetView(targets), complete(PublishKeywords, keywords))
