"""Read the adapter's keywords from the config of a Quart app."""

import json
from contextlib import suppress
from typing import Any

from faststream.exceptions import SetupError
from quart import Quart

from faststream_adapters._hosting.options import AdapterKeywords
from faststream_adapters._utils.loggers import Loggers
from faststream_adapters._utils.options import declared, type_of

_PREFIX = "FASTSTREAM_"
_KEYS = {f"{_PREFIX}{name.upper()}": name for name in declared(AdapterKeywords)}
_PARSED_TYPES = (bool, float, float | None)
_CONSUME = "consume"


def keywords_from_config(app: Quart, loggers: Loggers) -> dict[str, Any]:
    """Return the keywords that the app's config contains.

    Args:
        app: The app. Keys that its config lacks are added with the value None.
        loggers: Where unknown keys are logged.

    Raises:
        SetupError: The value of a number or a boolean is invalid.
    """
    if unknown := sorted(key for key in app.config if key.startswith(_PREFIX) and key not in _KEYS):
        # Not an error: some apps load the whole environment, which may contain unrelated names with this
        # prefix.
        logger = loggers["hosts"]
        logger.warning("QuartFastStream ignores unknown keys in app.config: %s.", ", ".join(unknown))
    keywords: dict[str, Any] = {}
    for key, name in _KEYS.items():
        value = app.config.setdefault(key, None)
        if value is not None and value != "":
            kind = type_of(AdapterKeywords, name)
            if name == _CONSUME:
                value = _parse_consume(value)
            keywords[name] = _parse(key, value, kind) if kind in _PARSED_TYPES else value
    return keywords


def _parse(key: str, value: object, kind: object) -> bool | float:
    """Return a number or a boolean, which is still text if it comes from an environment variable."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = json.loads(value.lower())
    if not isinstance(value, bool | int | float):
        msg = f"app.config[{key!r}] must be true, false or a number, not {value!r}."
        raise SetupError(msg)
    # In environment variables, 0 and 1 are booleans too.
    return bool(value) if kind is bool and value in {0, 1} else value


def _parse_consume(value: object) -> object:
    """Return a boolean or names, which are separated by commas if they come from an environment variable."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = json.loads(value.lower())
    if value in (0, 1):
        return bool(value)
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value
