"""Import what an extra brings, or say which extra is missing."""

from importlib import import_module
from typing import Any


def require(module: str, extra: str) -> Any:
    """Return a module that an extra of this package installs.

    Args:
        module: The module's name.
        extra: The name of the extra.

    Raises:
        ImportError: It is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        msg = f'This needs {module}: install it with pip install "faststream-adapters[{extra}]".'
        raise ImportError(msg) from error
