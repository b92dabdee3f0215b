"""Import optional dependencies, with an error that names the missing extra."""

from importlib import import_module
from typing import Any


def require(module: str, extra: str) -> Any:
    """Import a module that an extra of this package installs.

    Raises:
        ImportError: The module is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        msg = f'This needs {module}: install it with pip install "faststream-adapters[{extra}]".'
        raise ImportError(msg) from error
