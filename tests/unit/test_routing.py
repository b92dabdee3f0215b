"""Which path a request is for, and which app answers it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from faststream.exceptions import SetupError

from faststream_adapters import AsgiResponse
from faststream_adapters.routing import Endpoint, Routes, route_path
from tests.asgi_calls import exchange, http_scope, request
from tests.support import status

if TYPE_CHECKING:
    from faststream.asgi.types import ASGIApp, Receive, Scope, Send


async def first(scope: Scope, receive: Receive, send: Send) -> None:
    """Stand for an app."""


async def second(scope: Scope, receive: Receive, send: Send) -> None:
    """Stand for another app."""


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
        # A server that puts root_path in front of the path, and one that does not.
        ("/svc/health", "/svc", None, "/health"),
        ("/svc/health/", "/svc", None, "/health"),
        ("/health", "/svc", None, "/health"),
        ("/svc/health", "/svc/", None, "/health"),
        ("/svc", "/svc", None, "/"),
        ("/svc/", "/svc", None, "/"),
        ("/health", "/", None, "/health"),
        # Not below root_path, though it looks like it.
        ("/svcx", "/svc", None, "/svcx"),
        ("/svcx/health", "/svc", None, "/svcx/health"),
        ("/other/svc", "/svc", None, "/other/svc"),
        # Only the first of two is root_path.
        ("/svc/svc", "/svc", None, "/svc"),
        # In a mount: the prefix is in both, and the server's own root_path in neither or only in one.
        ("/x/health", "/x", "", "/health"),
        ("/svc/x/health", "/svc/x", "/svc", "/health"),
        ("/x/health", "/svc/x", "/svc", "/health"),
        ("/x/", "/svc/x", "/svc", "/"),
        ("/x", "/svc/x", "/svc", "/"),
        ("/xy/health", "/svc/x", "/svc", "/xy/health"),
        # A host that strips the mount's prefix from the path.
        ("/health", "/svc/x", "/svc", "/health"),
        ("/", "/svc/x", "/svc", "/"),
        # Not in a mount: app_root_path is all there is.
        ("/health", "/svc", "/svc", "/health"),
        ("/svc/health", "/svc", "/svc", "/health"),
    ],
)
def test_route_path(path: str, root_path: str | None, app_root_path: str | None, expected: str) -> None:
    roots = {"root_path": root_path, "app_root_path": app_root_path}
    scope = {"type": "http", "path": path, **{key: root for key, root in roots.items() if root is not None}}
    assert route_path(scope) == expected


def found(routes: Routes, path: str, **scope: Any) -> ASGIApp | None:
    result = routes.find(http_scope(path, **scope))
    return result and result[0]


def test_an_exact_route_answers_its_path_only() -> None:
    routes = Routes()
    routes.add("/health", first, exact=True)
    assert found(routes, "/health") is first
    assert found(routes, "/health/") is first
    assert found(routes, "/svc/health", root_path="/svc") is first
    for path in ("/", "/health/more", "/healthy", "/Health", "/more/health", "//health"):
        assert found(routes, path) is None


def test_an_exact_route_gets_the_scope_as_it_is() -> None:
    routes = Routes()
    routes.add("/health/", first, exact=True)
    scope = http_scope("/health")
    result = routes.find(scope)
    assert result is not None
    assert result[1] is scope


def test_a_mount_answers_everything_below_its_path() -> None:
    routes = Routes()
    routes.add("/docs", first, exact=False)
    for path in ("/docs", "/docs/", "/docs/a", "/docs/a/b"):
        assert found(routes, path) is first
    for path in ("/", "/docsx", "/docs.json", "/a/docs"):
        assert found(routes, path) is None


@pytest.mark.parametrize("longest_first", [True, False])
def test_the_longest_prefix_wins(longest_first: bool) -> None:
    routes = Routes()
    mounts = [("/docs/internal", second), ("/docs", first), ("/", first)]
    for path, app in mounts if longest_first else mounts[::-1]:
        routes.add(path, app, exact=False)
    assert found(routes, "/docs/internal/a") is second
    assert found(routes, "/docs/internals") is first


def test_an_exact_route_wins_over_a_mount_above_it() -> None:
    routes = Routes()
    routes.add("/", first, exact=False)
    routes.add("/health", second, exact=True)
    assert found(routes, "/health") is second
    assert found(routes, "/health/") is second
    assert found(routes, "/health/a") is first
    assert found(routes, "/") is first


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
def test_a_mounted_app_sees_its_own_path(
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
        assert inner["path"] == path  # as the ASGI specification has it: root_path is a part of path
    assert scope["root_path"] == root_path  # the host's own scope is not touched


def test_mounts_in_mounts() -> None:
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
def test_a_path_is_taken_once(taken: str, exact: bool) -> None:
    routes = Routes()
    routes.add(taken, first, exact=True)
    with pytest.raises(SetupError, match=rf"'{taken.rstrip('/') or '/'}' is served already"):
        routes.add(taken.rstrip("/") or "/", second, exact=exact)
    assert list(routes) == [(taken.rstrip("/") or "/", first)]


def test_a_mount_takes_its_path() -> None:
    routes = Routes()
    routes.add("/docs", first, exact=False)
    with pytest.raises(SetupError, match="'/docs' is served already"):
        routes.add("/docs", second, exact=True)


@pytest.mark.parametrize("path", ["health", "", "health/"])
def test_a_path_starts_with_a_slash(path: str) -> None:
    routes = Routes()
    with pytest.raises(SetupError, match=r"must start with \"/\""):
        routes.add(path, first, exact=True)
    assert list(routes) == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_endpoint_answers_its_methods(method: str) -> None:
    reply = await request(Hello(), http_scope(method=method))
    assert reply.status == 200
    assert reply.headers["content-length"] == "5"
    assert reply.body == (b"hello" if method == "GET" else b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW", "get"])
async def test_another_method_gets_405_with_allow(method: str) -> None:
    reply = await request(Hello(), http_scope(method=method))
    assert reply.status == 405
    assert set(reply.headers["allow"].split(", ")) == {"GET", "HEAD"}


async def test_head_is_not_allowed_unless_named() -> None:
    reply = await request(Hello(methods=("PUT",)), http_scope(method="HEAD"))
    assert (reply.status, reply.headers["allow"], reply.body) == (405, "PUT", b"")


async def test_an_endpoint_closes_a_websocket_and_nothing_else() -> None:
    sent = await exchange(
        Hello(), {"type": "websocket", "path": "/", "headers": []}, {"type": "websocket.connect"}
    )
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_an_endpoint_alone_answers_the_lifespan() -> None:
    sent = await exchange(
        Hello(), {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
    )
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


async def test_an_endpoint_with_a_call_of_its_own_keeps_it() -> None:
    class Guarded(Hello):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await AsgiResponse(b"no", 403)(scope, receive, send)

    routes = Routes()
    for path, app in (("/free", Hello()), ("/guarded", Guarded())):
        routes.add(path, app, exact=True)

    async def site(scope: Scope, receive: Receive, send: Send) -> None:
        await routes.begin(scope, receive, send, AsgiResponse(b"", 404))

    found = [await status(site, path) for path in ("/free", "/free/", "/guarded", "/guarded/", "/other")]
    assert found == [200, 200, 403, 403, 404]
