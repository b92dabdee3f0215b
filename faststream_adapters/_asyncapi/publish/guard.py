"""Authorization by the application's own check, and protection against requests of foreign pages.

A page of another site can make a browser send a form here, with the user's cookies. Three things stop that:

- The browser says where the request comes from, in `Sec-Fetch-Site` and `Origin`. Both must name this site.
- A form must contain the token of its page. Only this page knows it, and it fits only to the cookie that the
  browser got with the page. So it needs no memory here, and works with any number of processes.
- JSON is no content type of a form: a foreign script can send it only where the application allows that
  (CORS).
"""

import hmac
import inspect
import re
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from faststream.asgi.types import Scope

from faststream_adapters._asgi.negotiation import header
from faststream_adapters._asgi.request import AsgiRequest, RequestError
from faststream_adapters._utils.calls import is_async
from faststream_adapters._utils.loggers import Logger
from faststream_adapters._utils.redaction import redacted_traceback

__all__ = ("Authorize", "PageToken", "is_authorized", "is_foreign")

Authorize = Callable[[AsgiRequest], bool | Awaitable[bool]]
"""Returns, or awaits, True for a request that may publish."""

_COOKIE = "faststream_publish"
_SECRET = re.compile(r"[0-9a-f]{64}")
_PORTS = {"http": 80, "https": 443}


async def is_authorized(authorize: Authorize, request: AsgiRequest, logger: Logger) -> bool:
    """Return whether the application's check returns True. An error in it refuses, and is logged.

    Raises:
        RequestError: The check has read the body, and that is too large.
    """
    try:
        if is_async(authorize):
            allowed = authorize(request)
        else:
            # Here, because nothing else needs it.
            from anyio import to_thread

            # In a thread it may block, and sees the context of the request, as of Quart. Not asyncio's
            # to_thread, which before Python 3.12 waits forever for a function that raises StopIteration.
            allowed = await to_thread.run_sync(authorize, request, abandon_on_cancel=True)
        if inspect.isawaitable(allowed):
            allowed = await allowed
    except RequestError:
        raise
    except Exception as error:  # noqa: BLE001 (the application's check can raise anything)
        logger.error("authorize raised, which refuses the request.\n%s", redacted_traceback(error))  # noqa: TRY400 (redacted)
        return False
    # Not what is merely true: a coroutine or a user object would be.
    return allowed is True


def is_foreign(scope: Scope) -> bool:
    """Return whether a browser sends the request for a page of another site.

    The own hosts are `Host` and, behind a trusted proxy, `X-Forwarded-Host`. Whether a proxy is trusted is a
    setting of the server: uvicorn and granian then replace the client's address with the one in
    `X-Forwarded-For`, and have no port for it. hypercorn's ProxyFixMiddleware replaces `Host` itself.
    Starlette reads `Host` only. The scheme does not count: behind a proxy that ends TLS, only a server that
    trusts the proxy knows it.

    Source: Fetch Standard, "Origin header"; Fetch Metadata Request Headers, section 2.3 (Sec-Fetch-Site).
    """
    if header(scope, b"sec-fetch-site") not in {"", "same-origin", "none"}:
        return True
    origin = header(scope, b"origin")
    return bool(origin) and _location(origin) not in _own_locations(scope, origin.partition("://")[0])


def _location(origin: str) -> tuple[str, int] | None:
    """Return the host and the port of an origin; None for `null` and for what is no origin."""
    try:
        parts = urlsplit(origin)
        port = parts.port or _PORTS[parts.scheme]
    except (KeyError, ValueError):
        return None
    return (parts.hostname, port) if parts.hostname and not (parts.path or parts.query) else None


def _own_locations(scope: Scope, scheme: str) -> set[tuple[str, int] | None]:
    hosts = [header(scope, b"host")]
    if _has_trusted_proxy(scope):
        # The last one is that of the proxy that the server trusts.
        hosts.append(header(scope, b"x-forwarded-host").rpartition(",")[2].strip())
    return {_location(f"{scheme}://{host}") for host in hosts if host} - {None}


def _has_trusted_proxy(scope: Scope) -> bool:
    client = scope.get("client")
    if client is None or client[1]:
        return False
    forwarded = header(scope, b"x-forwarded-for").split(",")
    return client[0] in [address.strip() for address in forwarded]


class PageToken:
    """The tokens of the pages of one browser, and the cookie that they fit to.

    Args:
        scope: The scope of a request, which has the cookie if the browser has been here before.
    """

    def __init__(self, scope: Scope) -> None:
        self._known = _secrets_in(scope)
        # The browser keeps its cookie, so that the tokens of all its open pages stay valid.
        self._secret = self._known[0] if self._known else secrets.token_hex(32)
        self._secure = scope.get("scheme") == "https"

    def new(self) -> str:
        """Return a token for one page."""
        nonce = secrets.token_hex(16)
        return f"{nonce}.{_signature(self._secret, nonce)}"

    def fits(self, token: str) -> bool:
        """Return whether a token is that of a page of this browser."""
        nonce, _, signature = token.partition(".")
        expected = (_signature(secret, nonce) for secret in self._known)
        return any(hmac.compare_digest(signature.encode(), each.encode()) for each in expected)

    @property
    def set_cookie(self) -> str:
        """The `Set-Cookie` header. Without a path, it is sent to this URL and those beside it."""
        secure = "; Secure" if self._secure else ""
        return f"{_COOKIE}={self._secret}; HttpOnly; SameSite=Strict{secure}"


def _signature(secret: str, nonce: str) -> str:
    return hmac.digest(secret.encode(), nonce.encode(), "sha256").hex()


def _secrets_in(scope: Scope) -> list[str]:
    # Not `http.cookies`, which drops all cookies after one that it cannot read.
    lines = (value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie")
    cookies = (part.strip().partition("=") for line in lines for part in line.split(";"))
    return [value for name, _, value in cookies if name == _COOKIE and _SECRET.fullmatch(value)]
