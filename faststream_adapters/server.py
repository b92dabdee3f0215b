"""Run an app under uvicorn, inside the running event loop."""

import inspect
import logging
from typing import TYPE_CHECKING, Any

from faststream.asgi.types import ASGIApp

if TYPE_CHECKING:
    import uvicorn

    from ._compat import SettingField

_FALSE = frozenset({"", "0", "false", "no", "off"})


def make_server(app: ASGIApp, log_level: int, options: "dict[str, SettingField]") -> "uvicorn.Server":
    """Return a uvicorn server for an app.

    Args:
        app: The app.
        log_level: The level of uvicorn's own logging.
        options: Options as the command line gives them; those that are uvicorn settings are used.

    Raises:
        ImportError: uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        msg = 'Serving HTTP needs uvicorn: install it with pip install "faststream-adapters[server]".'
        raise ImportError(msg) from error
    known = inspect.signature(uvicorn.Config).parameters
    settings = {
        name: _cast(value, known[name].default)
        for name, value in options.items()
        if name in known and name != "app"
    }
    return uvicorn.Server(uvicorn.Config(app, **{"log_level": log_level or logging.INFO, **settings}))


def _cast(value: Any, default: object) -> Any:
    """Return a command line's string as the type that the setting has."""
    if not isinstance(value, str):
        return value
    if isinstance(default, bool):
        return value.lower() not in _FALSE
    if isinstance(default, int) or (default is None and value.isdecimal()):
        return int(value)
    return value
