"""The management server: endpoints at a separate address, in the host's process and event loop."""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from types import MappingProxyType

from faststream.asgi.types import ASGIApp, Receive, Scope, Send
from faststream.exceptions import SetupError

from faststream_adapters._asgi.responses import AsgiResponse
from faststream_adapters._asgi.routing import Routes
from faststream_adapters._endpoints.probes import make_liveness_asgi, make_readiness_asgi, make_startup_asgi
from faststream_adapters._lifecycle.lifespan import BrokerLifespan
from faststream_adapters._lifecycle.managed import managed_broker
from faststream_adapters._lifecycle.workers import has_siblings
from faststream_adapters._server.embedded import serving
from faststream_adapters._server.sockets import claimed, is_unix, listener_url, listening
from faststream_adapters._utils.extras import require

EndpointRoute = tuple[str, ASGIApp]
"""A path, and the endpoint that serves it."""

_NOT_FOUND = AsgiResponse(b"Not Found", 404)

_DEFAULT_PROBES = MappingProxyType(
    {"/livez": make_liveness_asgi, "/readyz": make_readiness_asgi, "/startupz": make_startup_asgi}
)
"""The endpoints of a worker whose application has none."""


class ManagementServer:
    """Serves endpoints of a lifespan at separate addresses, while it runs.

    It listens from before the first hook runs and the brokers start until everything has stopped.
    """

    def __init__(self) -> None:
        self._routes: dict[str, Routes] = {}
        self._in_host: list[EndpointRoute] = []

    @property
    def endpoints(self) -> list[EndpointRoute]:
        """All endpoints of the lifespan with their paths, also those that the host serves."""
        own = [(path, endpoint) for routes in self._routes.values() for path, endpoint in routes]
        return [*self._in_host, *own]

    def add(self, address: str | None, endpoints: Iterable[EndpointRoute]) -> None:
        """Add endpoints.

        Args:
            address: The address to serve them at; None: the host serves them.
            endpoints: The endpoints with their paths.

        Raises:
            SetupError: The address has another endpoint with the same path.
        """
        if address is None:
            self._in_host += endpoints
        else:
            _add(self._routes.setdefault(address, Routes()), endpoints)

    @asynccontextmanager
    async def __call__(self, lifespan: BrokerLifespan, workers: str | None) -> AsyncIterator[None]:
        """Serve the endpoints during an `async with` block.

        Args:
            lifespan: The lifespan.
            workers: The setting that starts several workers, or None.

        Raises:
            SetupError: An address cannot be listened on.
        """
        async with AsyncExitStack() as stack:
            for address, routes in self._routes.items():
                server = _served("management_bind", address, routes, workers, lifespan)
                await stack.enter_async_context(server)
            yield


class WorkerServer:
    """Serves the endpoints of all lifespans of a process at one address.

    It listens while the lifespan runs that starts first.

    Args:
        address: The address.
        lifespans: The lifespans that are known before the start.

    Raises:
        ImportError: uvicorn is not installed.
    """

    def __init__(self, address: str, lifespans: Iterable[BrokerLifespan] = ()) -> None:
        require("uvicorn", "server")
        self._address = address
        self._lifespans = lifespans
        self._listening = False

    @asynccontextmanager
    async def __call__(self, lifespan: BrokerLifespan, workers: str | None) -> AsyncIterator[None]:
        """Serve the endpoints during an `async with` block, if this is the first lifespan.

        Args:
            lifespan: The lifespan.
            workers: The setting that starts several workers, or None.

        Raises:
            SetupError: The address cannot be listened on, two lifespans have an endpoint with the same path,
                or several lifespans have none.
        """
        if self._listening:
            yield
            return
        self._listening = True
        routes = _routes_of(dict.fromkeys((*self._lifespans, lifespan)))
        async with _served("--listen", self._address, routes, workers, lifespan):
            yield


def _routes_of(lifespans: Iterable[BrokerLifespan]) -> Routes:
    """Return a routing table of all endpoints of some lifespans, or of probes if they have none.

    Raises:
        SetupError: Two lifespans have an endpoint with the same path, or several lifespans have none.
    """
    routes = Routes()
    for lifespan in lifespans:
        own = Routes()
        _add(own, management_of(lifespan).endpoints)
        for path, endpoint in own:
            routes.add(path, endpoint, exact=True)
    if not [*routes]:
        only, *others = lifespans
        if others:
            msg = "--listen: The application has several lifespans: set the paths of their probes."
            raise SetupError(msg)
        _add(routes, ((path, make(only)) for path, make in _DEFAULT_PROBES.items()))
    return routes


def _add(routes: Routes, endpoints: Iterable[EndpointRoute]) -> None:
    served = dict(routes)
    for path, endpoint in endpoints:
        # An adapter that is used in several applications adds its endpoints for each of them.
        if type(served.get(path.rstrip("/") or "/")) is type(endpoint):
            routes.remove(path)
        routes.add(path, endpoint, exact=True)


def management_of(lifespan: BrokerLifespan) -> ManagementServer:
    """Return the management server of a lifespan, which several adapters may share."""
    server = next((each for each in lifespan.services.own if isinstance(each, ManagementServer)), None)
    if server is None:
        server = ManagementServer()
        lifespan.services.own.append(server)
    return server


@asynccontextmanager
async def _served(
    option: str, address: str, routes: Routes, workers: str | None, lifespan: BrokerLifespan
) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        try:
            # Also if there is one worker: while a server replaces it, there are two.
            shared = has_siblings()
            if shared and is_unix(address):
                if workers is not None:
                    msg = f"Several workers ({workers}) cannot share {address}: use a TCP address."
                    raise SetupError(msg)  # noqa: TRY301 (handled like the errors below)
                shared = False
            sockets = stack.enter_context(listening([address], shared=shared))
            if shared:
                stack.enter_context(claimed(sockets))
            await stack.enter_async_context(serving(_app(routes), sockets))
        except SetupError as error:
            if (taken := _other_at(address, lifespan)) is not None:
                names = ", ".join(managed_broker(each).driver.name for each in _listening[taken].brokers)
                msg = (
                    f"{option}: {error} Another lifespan of this process listens at {taken}, that of {names}."
                    " Give each lifespan an address of its own, or run the brokers of both in one lifespan."
                )
                raise SetupError(msg) from error
            msg = f"{option}: {error}"
            raise SetupError(msg) from error
        for listener in sockets:
            url = listener_url(listener, "http")
            lifespan.loggers["server"].info("Serving the management endpoints on %s", url)
        stack.callback(_listening.pop, address, None)
        _listening[address] = lifespan
        yield


_listening: dict[str, BrokerLifespan] = {}
"""The lifespans of this process by the addresses they listen at, for the error of another one."""


def _other_at(address: str, lifespan: BrokerLifespan) -> str | None:
    """Return the address of another lifespan of this process with the same port or path, or None."""
    place = address.rpartition(":")[2]
    others = (taken for taken, other in _listening.items() if other is not lifespan)
    return next((taken for taken in others if taken.rpartition(":")[2] == place), None)


def _app(routes: Routes) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        endpoint, scope = routes.find(scope) or (_NOT_FOUND, scope)
        await endpoint(scope, receive, send)

    return app
