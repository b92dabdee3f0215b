"""What to write instead of a stand-in."""

from collections.abc import Iterable, Mapping
from typing import Any

from faststream_adapters._compat.faststream import Broker


def native_lines(
    broker_class: type[Broker], connection: Iterable[Any], keywords: Iterable[str], options: Mapping[str, Any]
) -> str:
    """Return the lines that replace a router, without the values of arguments, which may be secret.

    Args:
        broker_class: The class of its broker.
        connection: The positional arguments of the broker.
        keywords: The names of the broker's keywords.
        options: The options of the FastStreamRouter; those that are empty are left out.
    """
    name = broker_class.__name__
    client = ".".join(broker_class.__module__.split(".")[:2])
    arguments = ", ".join([*("..." for _ in connection), *(f"{each}=..." for each in keywords)])
    given = [
        f"{each}={value!r}" if isinstance(value, str | float) else f"{each}=..."
        for each, value in options.items()
        if value
    ]
    return "; ".join(
        (
            f"from {client} import {name}",
            "from faststream_adapters.fastapi import FastStreamRouter",
            f"broker = {name}({arguments})",
            f"router = FastStreamRouter({', '.join(['broker', *given])})",
        )
    )
