"""What eases the move from `faststream.asgi` and from older releases of FastStream."""

import inspect
from collections.abc import Iterable

from faststream import AsyncAPI
from faststream.asgi import AsgiFastStream
from faststream.asgi import HttpHandler as UpstreamHandler
from faststream.exceptions import SetupError

from faststream_adapters._compat.faststream import Application, BrokerUsecase

from .routes import AsgiRoute

_DOCS_MODULES = ("faststream.asgi.app", "faststream.asgi.factories.asyncapi")
"""Where FastStream defines the handlers of its AsyncAPI page, its JSON, and its form that publishes."""


def own_routes(app: AsgiFastStream) -> list[AsgiRoute]:
    """Return the routes of an app of `faststream.asgi`, without those of its AsyncAPI page."""
    return [(path, route) for path, route in app.routes if not _is_documentation(route)]


def _is_documentation(route: object) -> bool:
    if not isinstance(route, UpstreamHandler):
        return False
    module = route.func.__module__
    return any(module == each or module.startswith(f"{each}.") for each in _DOCS_MODULES)


def check_brokers(brokers: Iterable[object]) -> None:
    """Refuse what is not a broker: FastStream's own error would not say what is wrong.

    Raises:
        SetupError: There is something else.
    """
    for broker in brokers:
        if isinstance(broker, Application):
            msg = f"Pass brokers, not a {type(broker).__name__}: AsgiFastStream.from_app(app) takes an app."
            raise SetupError(msg)
        if not isinstance(broker, BrokerUsecase):
            msg = f"Pass brokers, as in AsgiFastStream(broker), not {type(broker).__name__}."
            raise SetupError(msg)


def refuse_document_keywords(names: Iterable[str]) -> None:
    """Refuse keywords that an application had until FastStream 0.5, and that its document has since.

    Raises:
        TypeError: There is such a keyword.
    """
    of_document = inspect.signature(AsyncAPI).parameters
    if moved := [name for name in names if name in of_document]:
        given = ", ".join(f"{name}=..." for name in moved)
        msg = f"Since FastStream 0.6 these describe the document: pass specification=AsyncAPI({given})."
        raise TypeError(msg)
