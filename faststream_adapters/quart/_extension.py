"""QuartFastStream: runs brokers in a Quart app and serves their endpoints as its routes."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPMethod
from types import TracebackType
from typing import Any, Unpack, cast

from faststream import BaseMiddleware
from faststream.asgi.types import ASGIApp, Message, Receive, Scope, Send
from faststream.exceptions import SetupError
from quart import Blueprint, Quart, Response, current_app, request
from quart.ctx import AppContext
from quart.signals import appcontext_tearing_down
from werkzeug.datastructures import Headers
from werkzeug.routing import Rule

from faststream_adapters._asgi.endpoint import Endpoint
from faststream_adapters._asgi.lifespan_protocol import drive_lifespan, lifespan_scope, serve_lifespan
from faststream_adapters._asgi.responses import collect_response
from faststream_adapters._asgi.routing import Routes
from faststream_adapters._compat import quart_schema
from faststream_adapters._compat.quart import pop_torn_down
from faststream_adapters._hosting.assembly import HostInfo, assemble, check_keywords
from faststream_adapters._hosting.clean_up import MessageScope
from faststream_adapters._hosting.commands import broker_commands
from faststream_adapters._hosting.middleware import run_with_host
from faststream_adapters._hosting.options import AdapterKeywords
from faststream_adapters._lifecycle.lifespan import BrokerLifespan
from faststream_adapters._lifecycle.targets import Target, loggers_of

from ._config import keywords_from_config

_SUBPATH = "faststream_path"
"""The view argument with the part of the path below a mounted app."""

_PATH_VARIABLE = re.compile(r"<path:\w+>")


class QuartFastStream:
    """Run brokers in a Quart app and serve their endpoints as its routes.

    Messages are handled in the app's context. Keywords can also be set in `app.config`, as `FASTSTREAM_` and
    the name in capitals; arguments take precedence. `app.extensions["faststream"]` lists the lifespans. The
    commands `quart faststream run` and `quart faststream info` are added to the app.

    Args:
        targets: One or more brokers, or one FastStream app, or one object that has a `broker_lifespan`.
        app: The app. Without it, call `init_app` later.
        blueprint: The blueprint that gets the endpoints instead of the app. Register it afterwards.
        keywords: See `AdapterKeywords`.

    Raises:
        SetupError: The targets, the keywords and the app do not fit together.
        TypeError: A keyword is unknown.
    """

    def __init__(
        self,
        *targets: Target,
        app: Quart | None = None,
        blueprint: Blueprint | None = None,
        **keywords: Unpack[AdapterKeywords],
    ) -> None:
        # Raise errors here, where the arguments are written, and not only in init_app.
        check_keywords(targets, keywords, QuartFastStream, partial=True)
        self._targets = targets
        self._blueprint = blueprint
        self._keywords = keywords
        self._lifespan: BrokerLifespan | None = None
        if app is not None:
            self.init_app(app)

    @property
    def broker_lifespan(self) -> BrokerLifespan:
        """The lifespan of the app that was initialized last.

        Raises:
            SetupError: No app has been initialized. Its config may contain keywords of the lifespan.
        """
        if self._lifespan is None:
            msg = "QuartFastStream has no app yet: call init_app(app) first."
            raise SetupError(msg)
        return self._lifespan

    def init_app(self, app: Quart, blueprint: Blueprint | None = None) -> None:
        """Initialize an app: add its routes and commands, and run the brokers in its lifespan.

        Several apps can be initialized, but only one at a time can run the brokers.

        Args:
            app: The app.
            blueprint: The blueprint that gets the endpoints instead of the app. Register it afterwards.

        Raises:
            SetupError: A value in `app.config` is invalid, a path is in use already, or the blueprint has
                been registered already.
        """
        from_config = keywords_from_config(app, loggers_of(self._targets))
        keywords = cast("AdapterKeywords", {**from_config, **self._keywords})
        assembly = assemble(self._targets, keywords, QuartFastStream)
        self._lifespan = assembly.broker_lifespan
        blueprint = blueprint or self._blueprint
        names = _add_routes(blueprint or app, assembly.routes(HostInfo(title=app.name)))
        assembly.broker_lifespan.preparations.append(lambda _: _add_app_contexts(assembly.broker_lifespan))
        lifespans: list[BrokerLifespan] = app.extensions.setdefault("faststream", [])
        if assembly.broker_lifespan not in lifespans:
            lifespans.append(assembly.broker_lifespan)
        inner = cast("ASGIApp", app.asgi_app)
        wrapped = _LifespanMiddleware(app, inner, assembly.broker_lifespan, names, blueprint)
        app.asgi_app = wrapped  # type: ignore[method-assign, assignment]  # as Quart's documentation recommends
        app.cli.add_command(broker_commands(lambda: _app_lifespan(app, lifespans[0]), lambda: lifespans))


def _app_lifespan(app: Quart, lifespan: BrokerLifespan) -> AbstractAsyncContextManager[None]:
    """Return a context manager that runs the lifespan of the app as a server does."""
    return drive_lifespan(cast("ASGIApp", app), lifespan_scope(), lifespan.loggers)


def _add_routes(owner: Quart | Blueprint, routes: Routes) -> set[str]:
    """Add a rule for each route, and a second one for the paths below a mounted app.

    Returns:
        The names of the rules' endpoints, without the name of a blueprint.

    Raises:
        SetupError: A route could not be added.
    """
    names = set()
    for path, app in routes:
        name = "faststream" + re.sub(r"\W", "_", path)
        below = [] if isinstance(app, Endpoint) else [f"{path.rstrip('/')}/<path:{_SUBPATH}>"]
        options: dict[str, Any] = {
            # The app itself rejects unsupported methods.
            "methods": [method.value for method in HTTPMethod],
            "provide_automatic_options": False,
            "strict_slashes": False,
        }
        view = view_for(app)
        try:
            for rule in (path, *below):
                owner.add_url_rule(rule, name, view, **options)
        except AssertionError as error:
            msg = (
                f"{path!r} could not be added to {owner.name!r}: choose a different path for each endpoint, "
                f"and call init_app before register_blueprint. Quart reports: {error}"
            )
            raise SetupError(msg) from error
        names.add(name)
    return names


def view_for(app: ASGIApp) -> Callable[..., Awaitable[Response]]:
    """Return a view that calls an ASGI app."""
    methods = getattr(app, "methods", ())

    # The prefix of a blueprint may have variables, which the app does not use.
    async def view(**variables: str) -> Response:
        if request.method == "OPTIONS":
            response: Response = await current_app.make_default_options_response()
            # Quart lists all methods of the rule.
            response.headers["Allow"] = ", ".join((*methods, "OPTIONS"))
            return response
        return await _call(app, variables.get(_SUBPATH, ""))

    quart_schema.hide(view)
    return view


async def _call(app: ASGIApp, subpath: str) -> Response:
    """Call an ASGI app with the current request and return its response.

    Args:
        app: The ASGI app.
        subpath: The part of the request's path below the path of the app.
    """
    scope: Scope = {**request.scope}
    scope["root_path"] = scope["path"].rstrip("/").removesuffix(subpath.rstrip("/")).rstrip("/")

    async def receive() -> Message:
        return {"type": "http.request", "body": await request.get_data(as_text=False), "more_body": False}

    status, headers, body = await collect_response(app, scope, receive)
    response: Response = current_app.response_class(body, status)
    # Replace the headers that Quart adds to every response.
    response.headers = Headers(headers)
    return response


@dataclass(frozen=True, slots=True)
class _LifespanMiddleware:
    """Wraps the app's `asgi_app` and runs the brokers inside its lifespan. Requests are passed through."""

    app: Quart
    inner: ASGIApp
    lifespan: BrokerLifespan
    names: set[str]
    blueprint: Blueprint | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await serve_lifespan(self._running(scope), receive, send, self.lifespan.loggers)
        else:
            await self.inner(scope, receive, send)

    @asynccontextmanager
    async def _running(self, scope: Scope) -> AsyncIterator[None]:
        self._check_routes()
        async with run_with_host(self.inner, scope, self.lifespan, host=self.app):
            yield

    def _check_routes(self) -> None:
        """Check that the endpoints are served, and each of their paths by one view only.

        Raises:
            SetupError: The blueprint is not registered, or the app serves one of the paths itself.
        """
        blueprint = self.blueprint
        if self.names and blueprint is not None and blueprint not in self.app.blueprints.values():
            msg = (
                f"The blueprint {blueprint.name!r} contains the endpoints, but is not registered: "
                "register it on the app after init_app."
            )
            raise SetupError(msg)
        endpoints: dict[object, str] = {}
        app_rules: set[object] = set()
        for rule in self.app.url_map.iter_rules():
            if rule.endpoint.rpartition(".")[2] in self.names:
                endpoints[_rule_key(rule)] = rule.rule
            else:
                app_rules.add(_rule_key(rule))
        if collisions := [path for key, path in endpoints.items() if key in app_rules]:
            msg = f"The app serves {', '.join(collisions)} itself: choose other paths for the endpoints."
            raise SetupError(msg)


def _rule_key(rule: Rule) -> tuple[object, ...]:
    """Return a key that is equal for two rules that match the same requests."""
    path = _PATH_VARIABLE.sub("<path>", rule.rule).rstrip("/")
    return path, rule.subdomain, rule.host, rule.websocket


def _add_app_contexts(lifespan: BrokerLifespan) -> None:
    """Handle the messages of a lifespan's brokers in the context of the app."""
    for broker in lifespan.brokers:
        # A middleware cannot be removed from a broker, so all apps that run the broker share one.
        if _AppContextMiddleware not in broker.middlewares:
            broker.insert_middleware(_AppContextMiddleware)


class _AppContextMiddleware(BaseMiddleware[Any, Any]):
    """Handles each message in the context of the Quart app that runs the broker, if there is one."""

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
            await _pop(self._app_context, exc_val)
        return await super().after_processed(exc_type, exc_val, exc_tb)


async def _pop(context: AppContext, error: BaseException | None) -> None:
    """Run the teardown functions of an app context without interruption, and end it."""
    app = context.app
    if not app.teardown_appcontext_funcs and not appcontext_tearing_down.receivers:
        await context.pop(error)
        return
    scope = MessageScope()
    scope.hold()
    try:
        await scope.run(partial(app.do_teardown_appcontext, error))
    finally:
        await pop_torn_down(context)
