"""Where log lines go: to the application's own logger, or to one of this package for each area."""

import logging
from typing import Any, Literal, Protocol, TypeAlias

Area = Literal["lifecycle", "health", "brokers", "docs", "publish", "metrics", "http", "server", "hosts"]

_FASTSTREAM = logging.getLogger("faststream")
"""The logger of an application that has not been given one."""


class HasLogger(Protocol):
    """A FastStream app."""

    logger: Any


class _Forwarder(logging.LoggerAdapter[Any]):
    """Passes lines on to a logger that may have nothing but FastStream's `log` method, or to none.

    A logger that raises must stop neither brokers nor the shutdown: the line then goes to the area's logger.
    """

    def __init__(self, logger: Any, area_logger: logging.Logger) -> None:
        super().__init__(logger)
        self._area_logger = area_logger

    def log(self, level: int, msg: object, *args: object, **fields: Any) -> None:
        if self.logger is None:
            return
        text = str(msg) % args if args else str(msg)
        try:
            self.logger.log(level, text, **fields)
        except Exception as error:  # noqa: BLE001 (a logger of the application can raise anything)
            name = type(error).__name__
            self._area_logger.log(level, "%s (The application's logger raised %s.)", text, name, **fields)


Logger: TypeAlias = logging.Logger | _Forwarder


class Loggers:
    """The loggers of a lifespan or an endpoint, by area.

    An application with a logger of its own gets all lines there, and one whose logger is None gets none. The
    lines of others go to `faststream.adapters.<area>`, which inherits the handler and level of FastStream's
    logger.

    Args:
        app: The FastStream app, whose logger is looked up for each line; None for brokers without an app.
    """

    def __init__(self, app: HasLogger | None = None) -> None:
        self._app = app

    @property
    def app(self) -> HasLogger | None:
        """The app now; None if none is known."""
        return self._app

    @property
    def are_silent(self) -> bool:
        """Whether the application wants no lines."""
        return self.app is not None and self.app.logger is None

    def __getitem__(self, area: Area) -> Logger:
        """Return the logger for lines about this area."""
        logger = _FASTSTREAM if self.app is None else self.app.logger
        area_logger = logging.getLogger(f"faststream.adapters.{area}")
        if logger is _FASTSTREAM:
            return area_logger
        return logger if isinstance(logger, logging.Logger) else _Forwarder(logger, area_logger)


DEFAULT = Loggers()
"""The loggers where there is no application."""
