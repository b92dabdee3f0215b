"""QuartFastStream: the adapter for Quart."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from http import HTTPMethod
from types import TracebackType
from typing import Any, Unpack, cast

from faststream import BaseMiddleware, FastStream
from faststream.asgi.types import ASGIApp, Message, Receive, Scope, Send
from faststream.exceptions import SetupError
from quart import Blueprint, Quart, Response, current_app, request
from werkzeug.datastructures import Headers
from werkzeug.routing import Rule

from faststream_adapters._compat import Broker
from faststream_adapters.cli import broker_commands
from faststream_adapters.hosting import AdapterKeywords, HostInfo, hosting_for
from faststream_adapters.lifespan import BrokerLifespan, serve_lifespan
from faststream_adapters.middleware import host_first, host_running
from faststream_adapters.responses import answer_of
from faststream_adapters.routing import Endpoint, Routes

from .config import configured

_BELOW = "faststream_path"


class QuartFastStream:
    """Runs brokers with a Quart app and serves their endpoints as routes of the app.

    Each message is handled in the app's context. A keyword can also stand in `app.config`, as `FASTSTREAM_`
    and its name in capitals; one that is given here wins. `app.extensions["faststream"]` lists the lifespans;
    `quart faststream run` and `quart faststream info` are commands of the app.

    Args:
        targets: One or more brokers, or one FastStream app, or one BrokerLifespan.
        app: The app; without it, call `init_app` later.
        blueprint: What the endpoints are put on instead of the app; register it afterwards.
        keywords: See `AdapterKeywords`.

    Raises:
        SetupError: The targets, the keywords and the app cannot work together.
        TypeError: A keyword is unknown.
    """

    def __init__(
        self,
        *targets: Broker | FastStream | BrokerLifespan,
        app: Quart | None = None,
        blueprint: Blueprint | None = None,
        **keywords: Unpack[AdapterKeywords],
    ) -> None:
        # An error in them shows here, where they were written.
        hosting_for(targets, keywords)
        self._targets = targets
        self._blueprint = blueprint
        self._keywords = keywords
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Quart, blueprint: Blueprint | None = None) -> None:
        """Tie the brokers to an app; of several apps, one at a time can run them.

        Args:
            app: The app.
            blueprint: What the endpoints are put on instead of the app; register it afterwards.

        Raises:
            SetupError: A value in `app.config` is of no use, a path is taken, or the blueprint has been
                registered already.
        """
        keywords = cast("AdapterKeywords", {**configured(app), **self._keywords})
        hosting = hosting_for(self._targets, keywords, HostInfo(title=app.name))
        blueprint = blueprint or self._blueprint
        names = _add_routes(blueprint or app, hosting.routes)
        lifespans: list[BrokerLifespan] = app.extensions.setdefault("faststream", [])
        if hosting.lifespan not in lifespans:
            lifespans.append(hosting.lifespan)
        hosted = _WithBrokers(app, cast("ASGIApp", app.asgi_app), hosting.lifespan, names, blueprint)
        app.asgi_app = hosted  # type: ignore[method-assign, assignment]  # as Quart's documentation tells
        app.cli.add_command(broker_commands(lambda: _without_requests(app), lambda: lifespans))


def _without_requests(app: Quart) -> AbstractAsyncContextManager[None]:
    """Return the whole lifespan of the app, as a server would run it."""
    scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    return host_running(cast("ASGIApp", app), scope)


def _add_routes(owner: Quart | Blueprint, routes: Routes) -> set[str]:
    """Add a rule for each endpoint, and for a mount one more for all below it; return their names."""
    names = set()
    for path, app in routes:
        name = "faststream" + re.sub(r"\W", "_", path)
        below = [] if isinstance(app, Endpoint) else [f"{path.rstrip('/')}/<path:{_BELOW}>"]
        options: dict[str, Any] = {
            # The endpoint itself refuses what it does not answer.
            "methods": [method.value for method in HTTPMethod],
            "provide_automatic_options": False,
            "strict_slashes": False,
        }
        view = _view(app)
        try:
            for rule in (path, *below):
                owner.add_url_rule(rule, name, view, **options)
        except AssertionError as error:
            msg = (
                f"{path!r} could not be added to {owner.name!r}: give each endpoint a path of its own, "
                f"and call init_app before register_blueprint. Quart says: {error}"
            )
            raise SetupError(msg) from error
        names.add(name)
    return names


def _view(app: ASGIApp) -> Callable[..., Awaitable[Response]]:
    """Return a view that lets an ASGI app answer."""
    methods = getattr(app, "methods", ())

    # The prefix of a blueprint may have variables; they are nothing to an endpoint.
    async def view(**variables: str) -> Response:
        if request.method == "OPTIONS":
            response: Response = await current_app.make_default_options_response()
            # Quart names all that the rule takes.
            response.headers["Allow"] = ", ".join((*methods, "OPTIONS"))
            return response
        return await _answer(app, variables.get(_BELOW, ""))

    # The extension quart-schema leaves such a view out of the app's OpenAPI document.
    vars(view)["_quart_schema_hidden"] = True
    return view


async def _answer(app: ASGIApp, below: str) -> Response:
    """Return what an ASGI app sends for the current request.

    Args:
        app: The ASGI app.
        below: What the path has below the path of the app.
    """
    scope: Scope = {**request.scope}
    scope["root_path"] = scope["path"].rstrip("/").removesuffix(below.rstrip("/")).rstrip("/")

    async def receive() -> Message:
        return {"type": "http.request", "body": await request.get_data(as_text=False), "more_body": False}

    status, headers, body = await answer_of(app, scope, receive)
    response: Response = current_app.response_class(body, status)
    # In the place of those that Quart adds to every response.
    response.headers = Headers(headers)
    return response


@dataclass(frozen=True, slots=True)
class _WithBrokers:
    """The app's `asgi_app` with brokers inside its lifespan; everything else passes through."""

    app: Quart
    inner: ASGIApp
    lifespan: BrokerLifespan
    names: set[str]
    blueprint: Blueprint | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await serve_lifespan(self._running(scope), receive, send)
        else:
            await self.inner(scope, receive, send)

    @asynccontextmanager
    async def _running(self, scope: Scope) -> AsyncIterator[None]:
        self._check()
        for broker in self.lifespan.brokers:
            # It cannot be taken out again: one is enough for all apps that this broker will see.
            if _InAppContext not in broker.middlewares:
                broker.insert_middleware(_InAppContext)
        async with host_first(self.inner, scope, self.lifespan, host=self.app):
            yield

    def _check(self) -> None:
        """See to it that the endpoints are served, and each path by one view only."""
        blueprint = self.blueprint
        if self.names and blueprint is not None and blueprint not in self.app.blueprints.values():
            msg = (
                f"Register the blueprint {blueprint.name!r} on the app: it has the endpoints of the brokers."
            )
            raise SetupError(msg)
        ours: dict[object, str] = {}
        others: set[object] = set()
        for rule in self.app.url_map.iter_rules():
            if rule.endpoint.rpartition(".")[2] in self.names:
                ours[_place(rule)] = rule.rule
            else:
                others.add(_place(rule))
        if taken := [path for place, path in ours.items() if place in others]:
            msg = f"The app serves {', '.join(taken)} itself: give the endpoints paths of their own."
            raise SetupError(msg)


def _place(rule: Rule) -> tuple[object, ...]:
    """Return what two rules must not have in common."""
    path = re.sub(r"<path:\w+>", "<path>", rule.rule).rstrip("/")
    return path, rule.subdomain, rule.host, rule.websocket


class _InAppContext(BaseMiddleware[Any, Any]):
    """Handles each message in the context of the Quart app that runs the broker, if one does."""

    async def on_receive(self) -> None:
        host = self.context.get("host")
        self._app_context = host.app_context() if isinstance(host, Quart) else None
        if self._app_context is not None:
            await self._app_context.push()

    async def after_processed(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> bool | None:
        if self._app_context is not None:
            await self._app_context.pop(exc_val)
        return await super().after_processed(exc_type, exc_val, exc_tb)
