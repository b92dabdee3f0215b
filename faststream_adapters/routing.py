"""Which app answers a request: endpoints by their exact path, everything else by prefix."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterator, Sequence
from typing import Any

from faststream.asgi.types import ASGIApp, Receive, Scope, Send
from faststream.exceptions import SetupError
from faststream.specification.schema import Tag, TagDict

from .responses import AsgiResponse

Tags = Sequence[Tag | TagDict | dict[str, Any]]


def _below(path: str, prefix: str) -> str | None:
    if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in {"", "/"}:
        return path[len(prefix) :]
    return None


def route_path(scope: Scope) -> str:
    """Return the path to route by: below `root_path`, without a trailing slash.

    Servers and frameworks disagree about `path`: some put `root_path` in front of it, some do not, and
    inside a mount only the part of `root_path` that the mount added may be there.

    Args:
        scope: An HTTP or websocket scope.

    Returns:
        A path that starts with a slash and, unless it is the root, does not end with one.

    Source: ASGI specification, "HTTP connection scope", `path` and `root_path`.
    """
    path: str = scope["path"]
    if root := scope.get("root_path", "").rstrip("/"):
        rest = _below(path, root)
        if rest is None and (mounted := root.removeprefix(scope.get("app_root_path", ""))) != root:
            rest = _below(path, mounted)
        if rest is not None:
            path = rest
    return path.removesuffix("/") or "/"


def mount_scope(scope: Scope, prefix: str) -> Scope:
    """Return the scope for an app that is mounted below a prefix.

    Args:
        scope: The scope of the request.
        prefix: The mount's path, as `route_path` sees it, without a trailing slash.

    Source: ASGI specification, "HTTP connection scope", `root_path`; `app_root_path` is Starlette's.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    inner = {**scope, "root_path": root + prefix, "app_root_path": scope.get("app_root_path", root)}
    if root and _below(path, root) is None and _below(path, prefix) is not None:
        # A server that leaves root_path out of the path: below a mount, frameworks expect it there.
        inner["path"] = root + path
    return inner


class Endpoint(ABC):
    """One URL's behaviour, whatever the URL is: an ASGI app for HTTP that needs no router.

    Methods that are not listed get 405 with `Allow`; a websocket is closed; a lifespan is accepted, so that
    an endpoint can be served alone.

    Args:
        methods: The HTTP methods that are answered.
        include_in_schema: Whether the AsyncAPI document lists the route.
        description: The description in that document.
        tags: The tags in that document.
        unique_id: The operation id in that document.
    """

    def __init__(
        self,
        *,
        methods: Sequence[str] = ("GET", "HEAD"),
        include_in_schema: bool = True,
        description: str | None = None,
        tags: Tags | None = None,
        unique_id: str | None = None,
    ) -> None:
        self.methods = tuple(methods)
        self.include_in_schema = include_in_schema
        self.description = description
        self.tags = tags
        self.unique_id = unique_id
        self.ok_status = 200
        """The status of a good answer, for the host's own documentation."""
        self._not_allowed = AsgiResponse(b"Method Not Allowed", 405, {"Allow": ", ".join(self.methods)})

    @abstractmethod
    def respond(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request, whose method is one of `methods`, by what is returned to be awaited."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection, of any kind."""
        if scope["type"] == "lifespan":
            await _accept_lifespan(receive, send)
        else:
            await self.begin(scope, receive, send)

    def begin(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request or websocket by what is returned to be awaited."""
        if scope["type"] == "http" and scope["method"] in self.methods:
            return self.respond(scope, receive, send)
        return self._not_allowed.answer(scope, receive, send)


async def _accept_lifespan(receive: Receive, send: Send) -> None:
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return


class Routes:
    """A routing table: an `Endpoint` answers its exact path, any other app all paths below its own."""

    def __init__(self) -> None:
        self._exact: dict[str, ASGIApp] = {}
        self._mounts: dict[str, ASGIApp] = {}
        self._roots: dict[str, ASGIApp] = {}

    def __iter__(self) -> Iterator[tuple[str, ASGIApp]]:
        return iter([*self._exact.items(), *self._mounts.items()])

    def add(self, path: str, app: ASGIApp, *, exact: bool) -> None:
        """Add a route.

        Args:
            path: The path, which starts with a slash.
            app: The app that answers.
            exact: Whether it answers this path only, or everything below it too. An app may have an endpoint
                as `root`, which then answers the path itself.

        Raises:
            SetupError: The path does not start with a slash, or it is taken.
        """
        if not path.startswith("/"):
            msg = f'The path {path!r} must start with "/".'
            raise SetupError(msg)
        path = path.rstrip("/") or "/"
        if path in self._exact or path in self._mounts:
            msg = f"The path {path!r} is served already: give each route a path of its own."
            raise SetupError(msg)
        if exact:
            self._exact[path] = app
            self._roots[path] = _begin(app)
        else:
            if isinstance(root := getattr(app, "root", None), Endpoint):
                self._roots[path] = _begin(root)
            # The longest prefix is asked first, so that /docs/internal is not swallowed by /docs.
            self._mounts = dict(
                sorted([*self._mounts.items(), (path, app)], key=lambda mount: -len(mount[0])),
            )

    def begin(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        otherwise: ASGIApp,
    ) -> Awaitable[None]:
        """Answer one request or websocket by what is returned to be awaited.

        Args:
            scope: The HTTP or websocket scope.
            receive: The ASGI receive callable.
            send: The ASGI send callable.
            otherwise: The app that answers what has no route.
        """
        # Most requests: nothing above us, no slash at the end.
        if not scope.get("root_path") and (app := self._roots.get(scope["path"])) is not None:
            return app(scope, receive, send)
        app, scope = self.find(scope) or (otherwise, scope)
        return app(scope, receive, send)

    def find(self, scope: Scope) -> tuple[ASGIApp, Scope] | None:
        """Return the app that answers this HTTP or websocket scope and the scope to call it with."""
        path = route_path(scope)
        if (app := self._roots.get(path)) is not None:
            return app, scope
        for prefix, mounted in self._mounts.items():
            below = prefix.rstrip("/")
            if _below(path, below) is not None:
                return mounted, mount_scope(scope, below)
        return None


def _begin(app: ASGIApp) -> ASGIApp:
    """Return how an app is called that is known to get no lifespan."""
    # A subclass with a call of its own, such as one that checks a password, has the last word.
    return app.begin if isinstance(app, Endpoint) and type(app).__call__ is Endpoint.__call__ else app
