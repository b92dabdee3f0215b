"""The adapter's keywords in the config of a Quart app."""

import json
import logging
from contextlib import suppress
from typing import Any

from faststream.exceptions import SetupError
from quart import Quart

from faststream_adapters.hosting import AdapterKeywords

logger = logging.getLogger("faststream.adapters")

_PREFIX = "FASTSTREAM_"
_KEYS = {f"{_PREFIX}{name.upper()}": name for name in AdapterKeywords.__annotations__}
_NOT_TEXT = (bool, float, float | None)


def configured(app: Quart) -> dict[str, Any]:
    """Return the keywords that the app's config gives.

    Args:
        app: The app; each key that it lacks is added, with None.

    Raises:
        SetupError: A number or a truth value is neither, nor the text of one.
    """
    if unknown := sorted(key for key in app.config if key.startswith(_PREFIX) and key not in _KEYS):
        # No error: some apps load their whole environment, where such a name need not be meant for us.
        logger.warning("QuartFastStream does not know %s, found in app.config.", ", ".join(unknown))
    found: dict[str, Any] = {}
    for key, name in _KEYS.items():
        value = app.config.setdefault(key, None)
        if value is not None and value != "":
            kind = AdapterKeywords.__annotations__[name]
            found[name] = _not_text(key, value, kind) if kind in _NOT_TEXT else value
    return found


def _not_text(key: str, value: object, kind: object) -> bool | float:
    """Return a number or a truth value, which is text still when an environment variable held it."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = json.loads(value.lower())
    if not isinstance(value, bool | int | float):
        msg = f"app.config[{key!r}] must be true, false or a number, not {value!r}."
        raise SetupError(msg)
    # In an environment variable, 0 and 1 are truth values too.
    return bool(value) if kind is bool and value in {0, 1} else value
