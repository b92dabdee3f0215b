"""The names that readers see instead of FastStream's keys, which are made for programs."""

import re
from collections.abc import Mapping
from typing import Any

__all__ = ("heading_of", "model_name", "readable")

# FastStream appends these to the name of a handler, a channel or a message.
_SUFFIXES = re.compile(r"(?::Publisher\d*)?(?::(?:Subscribe)?Message)?(?::Payload)?$")
_HANDLER = re.compile(r":[A-Z]\w*$")
# What pydantic replaces in the keys of schemas.
_NOT_IN_KEYS = re.compile(r"[^\w.\-]")


def readable(key: str) -> str:
    """Return the key of a message or schema without what FastStream has appended."""
    return _SUFFIXES.sub("", key) or key


def model_name(key: str, schema: Mapping[str, Any], shown: str | None = None) -> str:
    """Return the name of a model: that of a generic one has brackets, which its key cannot have.

    Args:
        key: The key of its schema.
        schema: The schema.
        shown: The name of any other model, if that is not the readable key.
    """
    title = str(schema.get("title"))
    return title if _NOT_IN_KEYS.sub("_", title) == key else shown or readable(key)


def heading_of(key: str, channel: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """Return the heading of an operation: the author's title, else the address of the channel.

    Args:
        key: The channel's key.
        channel: The channel.
        titles: The titles that authors have chosen, by the keys of their channels.
    """
    address = channel.get("address")
    # Channels of AsyncAPI 2 have no address. FastStream appends the handler's name to it.
    return titles.get(key) or str(address or _HANDLER.sub("", key) or key)
