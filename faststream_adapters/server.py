"""Run an app under uvicorn, inside the running event loop."""

import inspect
import logging
from typing import TYPE_CHECKING, Any, cast

from faststream.asgi.types import ASGIApp

from .extras import require

if TYPE_CHECKING:
    from uvicorn import Server

    from ._compat import SettingField

_FALSE = frozenset({"", "0", "false", "no", "off"})


def make_server(app: ASGIApp, log_level: int, options: "dict[str, SettingField]") -> "Server":
    """Return a uvicorn server for an app.

    Args:
        app: The app.
        log_level: The level of uvicorn's own logging.
        options: Options as the command line gives them; those that are uvicorn settings are used.

    Raises:
        ImportError: uvicorn is not installed.
    """
    uvicorn = require("uvicorn", "server")
    known = inspect.signature(uvicorn.Config).parameters
    settings = {
        name: _cast(value, known[name].default)
        for name, value in options.items()
        if name in known and name != "app"
    }
    config = uvicorn.Config(app, **{"log_level": log_level or logging.INFO, **settings})
    return cast("Server", uvicorn.Server(config))


def _cast(value: Any, default: object) -> Any:
    """Return a command line's string as the type that the setting has."""
    if not isinstance(value, str):
        return value
    if isinstance(default, bool):
        return value.lower() not in _FALSE
    if isinstance(default, int) or (default is None and value.isdecimal()):
        return int(value)
    return value
