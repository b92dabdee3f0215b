"""Loggers of applications."""

import logging
from collections.abc import Mapping
from typing import Any

PACKAGE = "faststream.adapters"
"""The parent of the loggers of an application that brings none."""


class AppLog:
    """A logger with FastStream's `log` method and nothing else, and what was logged to it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.fields: list[Mapping[str, Any]] = []

    def log(
        self, level: int, msg: Any, /, *, exc_info: Any = None, extra: Mapping[str, Any] | None = None
    ) -> None:
        # As in FastStream's protocol; the lines do not show it.
        del exc_info
        self.lines.append(f"{logging.getLevelName(level)} {msg}")
        self.fields.append(extra or {})

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def package_lines(records: list[logging.LogRecord]) -> list[str]:
    """Return what was logged to the loggers of this package."""
    return [record.getMessage() for record in records if record.name.startswith(PACKAGE)]
