"""The secrets with which brokers are configured, so that they can be removed from any text."""

import json
import re
from collections import UserString
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from threading import Lock
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_plus
from weakref import WeakKeyDictionary

from .addresses import HIDDEN, parse

_SECRET = re.compile(r"pass|pwd|token(?!.*url)|secret|seed_str|jwt|key.?pem|ssl_key$", re.IGNORECASE)
_USER = re.compile(r"(?:user(?:name)?|login)$", re.IGNORECASE)
_ADDRESS = re.compile(r"url|server|host", re.IGNORECASE)
# Words such as "guest" and "password" protect nothing, and errors would be hard to read without them.
_SHORT_WORD = re.compile(r"[a-z]{0,8}")
# The name of a user is no secret, unless it looks like the id of a key.
_PLAIN_NAME = re.compile(r"[a-z._-]*")
_ATTRIBUTES = ("username", "password", "token")

_RUN = 6
"""The number of consecutive characters of a secret that are removed."""

_runs: WeakKeyDictionary[object, frozenset[str]] = WeakKeyDictionary()
"""The runs of characters in the secrets of each broker, while it exists."""
_lock = Lock()
"""Held while `_runs` is used: documents are built in other threads."""


def protect(owner: object, settings: object) -> None:
    """Make `without_known_secrets` remove the secrets of a broker.

    Args:
        owner: The broker. Its secrets are known while it exists.
        settings: What its client is configured with: mappings, collections, addresses, objects with
            credentials.
    """
    runs = {
        spelling[start : start + _RUN]
        for secret in _secrets("", settings)
        if not _SHORT_WORD.fullmatch(secret)
        for spelling in _spellings(secret)
        for start in range(len(spelling) - _RUN + 1)
    }
    with _lock:
        _runs[owner] = frozenset(runs)


def without_known_secrets(text: str) -> str:
    """Replace the secrets of brokers in a text, also in part: an error may contain only the beginning."""
    with _lock:
        runs: frozenset[str] = frozenset().union(*_runs.values())
    parts: list[str] = []
    end = 0
    for start in range(len(text) - _RUN + 1) if runs else ():
        if text[start : start + _RUN] in runs:
            if start > end or not parts:
                parts += (text[end:start], HIDDEN)
            end = start + _RUN
    return "".join((*parts, text[end:]))


def _secrets(name: str, value: object) -> Iterator[str]:
    """Yield the secrets in a setting; its name tells which text is one."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, UserString):
        # The credentials of nats-py; a path to them is a str.
        yield str(value)
    elif isinstance(value, str):
        yield from _secrets_in_text(name, value)
    else:
        for key, item in _items(name, value):
            yield from _secrets(key, item)


def _items(name: str, value: object) -> Iterable[tuple[str, object]]:
    if isinstance(value, Mapping):
        return ((str(key), item) for key, item in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return ((name, item) for item in value)
    # Of an object with credentials.
    attributes = ((attribute, getattr(value, attribute, None)) for attribute in _ATTRIBUTES)
    return ((attribute, item) for attribute, item in attributes if isinstance(item, str))


def _secrets_in_text(name: str, text: str) -> Iterator[str]:
    if _SECRET.search(name):
        yield text
    elif _USER.search(name):
        if not _PLAIN_NAME.fullmatch(text):
            yield text
    elif _ADDRESS.search(name):
        _, credentials, _, query = parse(text)
        user, colon, password = credentials[:-1].partition(":")
        # A user without a password is a token.
        yield from _secrets_in_text("user" if colon else "token", user)
        yield password
        yield from _secrets("", dict(parse_qsl(query[1:])))


def _spellings(secret: str) -> set[str]:
    """Return a secret as clients, tracebacks and documents may write it."""
    plain = {secret, unquote(secret), unquote_plus(secret)}
    escaped = {spelling for one in plain for spelling in (quote(one, ""), quote_plus(one), escape(one))}
    literal = {spelling for one in plain for spelling in (repr(one)[1:-1], json.dumps(one)[1:-1])}
    return plain | escaped | literal
