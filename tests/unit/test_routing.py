"""The path of a request relative to its app, and the app that a request is routed to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from faststream.exceptions import SetupError

from faststream_adapters import AsgiResponse
from faststream_adapters._asgi.endpoint import Endpoint
from faststream_adapters._asgi.routing import Routes, route_path
from tests.harness.asgi_calls import exchange, http_scope, request
from tests.harness.clients import status

if TYPE_CHECKING:
    from faststream.asgi.types import ASGIApp, Receive, Scope, Send


async def first(scope: Scope, receive: Receive, send: Send) -> None:
    """Represent an app."""


async def second(scope: Scope, receive: Receive, send: Send) -> None:
    """Represent another app."""


class Hello(Endpoint):
    async def respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        await AsgiResponse(b"hello")(scope, receive, send)


@pytest.mark.parametrize(
    ("path", "root_path", "app_root_path", "expected"),
    [
        ("/health", None, None, "/health"),
        ("/health", "", None, "/health"),
        ("/health/", "", None, "/health"),
        ("/", "", None, "/"),
        ("", "", None, "/"),
        ("/a/b/", "", None, "/a/b"),
        # The path may or may not start with root_path, depending on the server.
        ("/svc/health", "/svc", None, "/health"),
        ("/svc/health/", "/svc", None, "/health"),
        ("/health", "/svc", None, "/health"),
        ("/svc/health", "/svc/", None, "/health"),
        ("/svc", "/svc", None, "/"),
        ("/svc/", "/svc", None, "/"),
        ("/health", "/", None, "/health"),
        # The path has root_path as a prefix of its text, but is not below it.
        ("/svcx", "/svc", None, "/svcx"),
        ("/svcx/health", "/svc", None, "/svcx/health"),
        ("/other/svc", "/svc", None, "/other/svc"),
        # root_path is removed once only.
        ("/svc/svc", "/svc", None, "/svc"),
        # In a mount, path and root_path both contain the prefix, but path may lack the server's root_path.
        ("/x/health", "/x", "", "/health"),
        ("/svc/x/health", "/svc/x", "/svc", "/health"),
        ("/x/health", "/svc/x", "/svc", "/health"),
        ("/x/", "/svc/x", "/svc", "/"),
        ("/x", "/svc/x", "/svc", "/"),
        ("/xy/health", "/svc/x", "/svc", "/xy/health"),
        # Some hosts strip the prefix of the mount from the path.
        ("/health", "/svc/x", "/svc", "/health"),
        ("/", "/svc/x", "/svc", "/"),
        # Outside a mount, app_root_path equals root_path.
        ("/health", "/svc", "/svc", "/health"),
        ("/svc/health", "/svc", "/svc", "/health"),
    ],
)
def test_the_path_relative_to_the_app(
    path: str, root_path: str | None, app_root_path: str | None, expected: str
) -> None:
    roots = {"root_path": root_path, "app_root_path": app_root_path}
    scope = {"type": "http", "path": path, **{key: root for key, root in roots.items() if root is not None}}
    assert route_path(scope) == expected


def find(routes: Routes, path: str, **scope: Any) -> ASGIApp | None:
    result = routes.find(http_scope(path, **scope))
    return result and result[0]


def test_an_exact_route_matches_its_path_only() -> None:
    routes = Routes()
    routes.add("/health", first, exact=True)
    assert find(routes, "/health") is first
    assert find(routes, "/health/") is first
    assert find(routes, "/svc/health", root_path="/svc") is first
    for path in ("/", "/health/more", "/healthy", "/Health", "/more/health", "//health"):
        assert find(routes, path) is None


def test_an_exact_route_receives_the_unchanged_scope() -> None:
    routes = Routes()
    routes.add("/health/", first, exact=True)
    scope = http_scope("/health")
    result = routes.find(scope)
    assert result is not None
    assert result[1] is scope


def test_a_mount_matches_all_paths_below_its_own() -> None:
    routes = Routes()
    routes.add("/docs", first, exact=False)
    for path in ("/docs", "/docs/", "/docs/a", "/docs/a/b"):
        assert find(routes, path) is first
    for path in ("/", "/docsx", "/docs.json", "/a/docs"):
        assert find(routes, path) is None


@pytest.mark.parametrize("longest_first", [True, False])
def test_the_longest_prefix_wins(longest_first: bool) -> None:
    routes = Routes()
    mounts = [("/docs/internal", second), ("/docs", first), ("/", first)]
    for path, app in mounts if longest_first else mounts[::-1]:
        routes.add(path, app, exact=False)
    assert find(routes, "/docs/internal/a") is second
    assert find(routes, "/docs/internals") is first


def test_an_exact_route_takes_precedence_over_a_mount() -> None:
    routes = Routes()
    routes.add("/", first, exact=False)
    routes.add("/health", second, exact=True)
    assert find(routes, "/health") is second
    assert find(routes, "/health/") is second
    assert find(routes, "/health/a") is first
    assert find(routes, "/") is first


@pytest.mark.parametrize(
    ("mount", "path", "root_path", "expected_root", "below"),
    [
        ("/x", "/x/a", "", "/x", "/a"),
        ("/x/", "/x/a", "", "/x", "/a"),
        ("/x", "/x", "", "/x", "/"),
        ("/x", "/svc/x/a", "/svc", "/svc/x", "/a"),
        ("/x", "/x/a", "/svc", "/svc/x", "/a"),
        ("/", "/a", "", "", "/a"),
        ("/", "/svc/a", "/svc", "/svc", "/a"),
    ],
)
def test_the_scope_of_a_mounted_app_contains_the_relative_path(
    mount: str, path: str, root_path: str, expected_root: str, below: str
) -> None:
    routes = Routes()
    routes.add(mount, first, exact=False)
    scope = http_scope(path, root_path=root_path)
    result = routes.find(scope)
    assert result is not None
    app, inner = result
    assert app is first
    assert inner["root_path"] == expected_root
    assert route_path(inner) == below
    if path.startswith(f"{root_path}/"):
        assert inner["path"] == path  # by the ASGI specification, path includes root_path
    assert scope["root_path"] == root_path  # the host's own scope is not changed


def test_nested_mounts() -> None:
    outer, inner = Routes(), Routes()
    outer.add("/a", first, exact=False)
    inner.add("/b", second, exact=False)
    one = outer.find(http_scope("/a/b/c", root_path="/svc"))
    assert one is not None
    two = inner.find(one[1])
    assert two is not None
    assert two[0] is second
    assert route_path(two[1]) == "/c"


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("taken", ["/health", "/health/", "/"])
def test_a_path_can_be_added_once_only(taken: str, exact: bool) -> None:
    routes = Routes()
    routes.add(taken, first, exact=True)
    with pytest.raises(SetupError, match=rf"'{taken.rstrip('/') or '/'}' is served already"):
        routes.add(taken.rstrip("/") or "/", second, exact=exact)
    assert list(routes) == [(taken.rstrip("/") or "/", first)]


def test_the_path_of_a_mount_cannot_be_added_again() -> None:
    routes = Routes()
    routes.add("/docs", first, exact=False)
    with pytest.raises(SetupError, match="'/docs' is served already"):
        routes.add("/docs", second, exact=True)


@pytest.mark.parametrize("path", ["health", "", "health/"])
def test_a_path_must_start_with_a_slash(path: str) -> None:
    routes = Routes()
    with pytest.raises(SetupError, match=r"must start with \"/\""):
        routes.add(path, first, exact=True)
    assert list(routes) == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_endpoint_responds_to_its_methods(method: str) -> None:
    reply = await request(Hello(), http_scope(method=method))
    assert reply.status == 200
    assert reply.headers["content-length"] == "5"
    assert reply.body == (b"hello" if method == "GET" else b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW", "get"])
async def test_other_methods_are_rejected_with_405_and_allow(method: str) -> None:
    reply = await request(Hello(), http_scope(method=method))
    assert reply.status == 405
    assert set(reply.headers["allow"].split(", ")) == {"GET", "HEAD"}


async def test_head_is_rejected_unless_it_is_listed() -> None:
    reply = await request(Hello(methods=("PUT",)), http_scope(method="HEAD"))
    assert (reply.status, reply.headers["allow"], reply.body) == (405, "PUT", b"")


async def test_an_endpoint_closes_websockets() -> None:
    sent = await exchange(
        Hello(), {"type": "websocket", "path": "/", "headers": []}, {"type": "websocket.connect"}
    )
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_an_endpoint_accepts_the_lifespan() -> None:
    sent = await exchange(
        Hello(), {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
    )
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


async def test_an_overridden_call_of_an_endpoint_is_used() -> None:
    class Guarded(Hello):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await AsgiResponse(b"no", 403)(scope, receive, send)

    routes = Routes()
    for path, app in (("/free", Hello()), ("/guarded", Guarded())):
        routes.add(path, app, exact=True)

    async def site(scope: Scope, receive: Receive, send: Send) -> None:
        app, scope = routes.find(scope) or (AsgiResponse(b"", 404), scope)
        await app(scope, receive, send)

    paths = ("/free", "/free/", "/guarded", "/guarded/", "/other")
    assert [await status(site, path) for path in paths] == [200, 200, 403, 403, 404]
