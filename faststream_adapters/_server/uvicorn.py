"""Configure uvicorn to run an app in the current event loop."""

import inspect
import logging
import socket
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from faststream.asgi.types import ASGIApp
from faststream.exceptions import SetupError

from faststream_adapters._utils.extras import require
from faststream_adapters._utils.loggers import DEFAULT, Loggers

from .sockets import listener_url

if TYPE_CHECKING:
    from uvicorn import Server

ADDRESS_OPTIONS = frozenset({"bind", "host", "port", "uds", "fd", "socket_mode"})
"""The options of the addresses to listen on."""

_COMMAND_ONLY = ("reload", "workers", "app_dir", "factory")
"""Prefixes of the options that only the uvicorn command supports."""

_BOOLEANS = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


def make_server(
    app: ASGIApp, log_level: int, options: Mapping[str, Any], loggers: Loggers = DEFAULT
) -> "Server":
    """Return a uvicorn server for an app; the caller passes the sockets to `serve`.

    Args:
        app: The app.
        log_level: The level of uvicorn's loggers, unless they are already configured.
        options: Options as parsed by the command line, of which the settings of uvicorn are used.
        loggers: Where the addresses are logged.

    Raises:
        ImportError: uvicorn is not installed.
        SetupError: An option has an invalid value.
    """
    uvicorn = require("uvicorn", "server")
    known = _settings()
    settings: dict[str, Any] = {"log_level": log_level}
    if logging.getLogger("uvicorn").handlers or logging.getLogger("uvicorn.error").handlers:
        # Keep the existing configuration of uvicorn's loggers, for example from --log-config.
        settings = {"log_config": None}
    settings |= {name: _cast(name, value, known[name]) for name, value in options.items() if name in known}

    try:
        config = uvicorn.Config(app, **settings)
        # Load here, because `Server.serve` would fail with a traceback.
        config.load()
    except Exception as error:
        msg = f"uvicorn does not accept these options: {str(error) or type(error).__name__}"
        raise SetupError(msg) from error

    class LoggingServer(uvicorn.Server):  # type: ignore[misc, name-defined]  # imported above, at run time
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            scheme = "https" if self.config.is_ssl else "http"
            for listener in sockets or ():
                loggers["server"].info("Serving on %s (press Ctrl-C to stop)", listener_url(listener, scheme))

    return cast("Server", LoggingServer(config))


def warn_about_unused(options: Iterable[str], taken: Iterable[str], loggers: Loggers = DEFAULT) -> None:
    """Log a warning for each option that has no effect, with the closest known name.

    Args:
        options: The names of the given options.
        taken: The names of the options that the application takes.
        loggers: Where the warnings are logged.
    """
    import difflib

    logger = loggers["server"]
    known = {*_settings(), *ADDRESS_OPTIONS, *taken}
    for name in options:
        if name in known:
            continue
        option = _option(name)
        if name.startswith(_COMMAND_ONLY):
            logger.warning("%s has no effect: it is an option of the uvicorn command.", option)
            continue
        [close] = difflib.get_close_matches(name, known, n=1) or [""]
        logger.warning(
            "%s has no effect: neither uvicorn nor the lifespan or a startup hook of the app takes it.%s",
            option,
            f" Did you mean {_option(close)}?" if close else "",
        )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _settings() -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(require("uvicorn", "server").Config).parameters
    return {
        name: parameter
        for name, parameter in parameters.items()
        if name not in {"app", *ADDRESS_OPTIONS} and not name.startswith(_COMMAND_ONLY)
    }


def _cast(name: str, value: Any, parameter: inspect.Parameter) -> Any:
    """Convert a command-line value to the type of its setting."""
    annotation = str(parameter.annotation)
    if (isinstance(value, bool) and "bool" not in annotation) or (
        isinstance(value, list) and "list" not in annotation
    ):
        msg = f"{_option(name)} needs one value."
        raise SetupError(msg)
    if not isinstance(value, str):
        return value
    try:
        if "bool" in annotation:
            expected = "true or false"
            return _BOOLEANS[value.lower()]
        if "float" in annotation:
            expected = "a number"
            return float(value)
        if "int" in annotation and "str" not in annotation:
            expected = "a whole number"
            return int(value)
    except (KeyError, ValueError):
        msg = f"{_option(name)} must be {expected}, not {value!r}."
        raise SetupError(msg) from None
    return value
