"""OpenAPI documents of Quart: private names of the extension quart-schema."""

from collections.abc import Callable
from typing import Any


def hide(view: Callable[..., Any]) -> None:
    """Leave a view out of the OpenAPI document.

    The public decorator cannot be used, because the extension may not be installed. Verified with 0.25.
    """
    vars(view)["_quart_schema_hidden"] = True
