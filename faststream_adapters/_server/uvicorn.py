"""Run an app under uvicorn, inside the running event loop."""

import inspect
import logging
import socket
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from faststream.asgi.types import ASGIApp
from faststream.exceptions import SetupError

from .binding import url_of
from .extras import require

if TYPE_CHECKING:
    from uvicorn import Server

logger = logging.getLogger("faststream.adapters")

ADDRESSES = frozenset({"bind", "host", "port", "uds", "fd"})
"""The options that say where to listen."""

_OF_THE_COMMAND = ("reload", "workers", "app_dir", "factory")
"""How uvicorn's options begin that only its own command can follow."""


_TRUTH = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


def make_server(app: ASGIApp, log_level: int, options: Mapping[str, Any]) -> "Server":
    """Return a uvicorn server for an app; where it listens is for the caller to say.

    Args:
        app: The app.
        log_level: The level of uvicorn's own logging, unless the application has set that up.
        options: Options as the command line gives them; those that are uvicorn settings are used.

    Raises:
        ImportError: uvicorn is not installed.
        SetupError: An option has a value that the setting cannot have.
    """
    uvicorn = require("uvicorn", "server")
    known = _settings()
    settings: dict[str, Any] = {"log_level": log_level}
    if logging.getLogger("uvicorn").handlers or logging.getLogger("uvicorn.error").handlers:
        # Who configures uvicorn's loggers, with --log-config for example, wants nothing else.
        settings = {"log_config": None}
    settings |= {name: _cast(name, value, known[name]) for name, value in options.items() if name in known}

    try:
        config = uvicorn.Config(app, **settings)
        # It would do so itself, and fail with a traceback.
        config.load()
    except Exception as error:
        msg = f"uvicorn does not accept these options: {str(error) or type(error).__name__}"
        raise SetupError(msg) from error

    class Announced(uvicorn.Server):  # type: ignore[misc, name-defined]  # uvicorn is here only now
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            scheme = "https" if self.config.is_ssl else "http"
            for listener in sockets or ():
                logger.info("Serving on %s (Ctrl-C stops)", url_of(listener, scheme))

    return cast("Server", Announced(config))


def warn_of_unused(options: Iterable[str], taken: Iterable[str]) -> None:
    """Name the options that have no effect in the log, with what may have been meant.

    Args:
        options: The names of the options that were given.
        taken: The names of those that the application takes.
    """
    import difflib

    known = {*_settings(), *ADDRESSES, *taken}
    for name in options:
        if name in known:
            continue
        option = _option(name)
        if name.startswith(_OF_THE_COMMAND):
            logger.warning("%s has no effect: it is an option of the uvicorn command.", option)
            continue
        [meant] = difflib.get_close_matches(name, known, n=1) or [""]
        logger.warning(
            "%s has no effect: neither uvicorn nor the lifespan or a startup hook of the app takes it.%s",
            option,
            f" Did you mean {_option(meant)}?" if meant else "",
        )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _settings() -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(require("uvicorn", "server").Config).parameters
    return {
        name: parameter
        for name, parameter in parameters.items()
        if name not in {"app", *ADDRESSES} and not name.startswith(_OF_THE_COMMAND)
    }


def _cast(name: str, value: Any, parameter: inspect.Parameter) -> Any:
    """Return a command line's string as the type that the setting has."""
    kinds = str(parameter.annotation)
    if (isinstance(value, bool) and "bool" not in kinds) or (isinstance(value, list) and "list" not in kinds):
        msg = f"{_option(name)} needs one value."
        raise SetupError(msg)
    if not isinstance(value, str):
        return value
    try:
        if "bool" in kinds:
            kind = "true or false"
            return _TRUTH[value.lower()]
        if "float" in kinds:
            kind = "a number"
            return float(value)
        if "int" in kinds and "str" not in kinds:
            kind = "a whole number"
            return int(value)
    except (KeyError, ValueError):
        msg = f"{_option(name)} must be {kind}, not {value!r}."
        raise SetupError(msg) from None
    return value
