"""The grammar of broker addresses: what of a URL may be shown, and what is secret."""

import re
from typing import NamedTuple

HIDDEN = "***"
"""What replaces a secret."""

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*\Z", re.IGNORECASE)
_LONGEST_SCHEME = 20
_IPV6 = r"[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}"
# A document may contain variables, such as `{port}`.
_AUTHORITY = rf"(?:\[[\w:.%]*\]|{_IPV6}|[^\s:@/?#\[\]\"'\\]*)(?::(?:[0-9]{{1,5}}|{{[\w.-]+}}))?"
_IS_AUTHORITY = re.compile(rf"{_AUTHORITY}\Z", re.IGNORECASE)
_STARTS_WITH_AUTHORITY = re.compile(rf"{_AUTHORITY}(?:\Z|[/?#,;.)}}>\]\"'`])", re.IGNORECASE)
_QUERY = re.compile(r"\?(?=[\w.-]+=)")
# The clients of these schemes know no query: a question mark is part of an unescaped password.
_WITHOUT_QUERY = frozenset({"", "nats", "tls", "mqtt", "mqtts"})


class Address(NamedTuple):
    """The parts of a URL, or of an address without a scheme.

    Args:
        scheme: The scheme, without `://`.
        credentials: User and password, with the @. An unescaped password may contain any character, so this
            is everything before the last @, unless that belongs to a query.
        location: Host, port and path, and the fragment.
        query: The query, with its question mark.
    """

    scheme: str
    credentials: str
    location: str
    query: str


def parse(url: str) -> Address:
    """Split a URL as its client does, but find the end of an unescaped password too."""
    scheme, separator, rest = url.partition("://")
    if not separator or not _SCHEME.match(scheme):
        scheme, rest = "", url
    query = ""
    found = None if scheme.lower() in _WITHOUT_QUERY else _QUERY.search(rest)
    if found and _IS_AUTHORITY.match(rest[: found.start()].partition("/")[0].rpartition("@")[2]):
        rest, query = rest[: found.start()], rest[found.start() :]
    credentials, at, location = rest.rpartition("@")
    return Address(scheme, credentials + at, location, query)


def find_url(text: str) -> int:
    """Return where the first URL in a text begins, or -1."""
    end = text.find("://")
    match = _SCHEME.search(text, max(end - _LONGEST_SCHEME, 0), max(end, 0))
    return match.start() if match else -1


def starts_with_authority(text: str) -> bool:
    """Return whether a text begins with a host and maybe a port, not with a user and a colon."""
    return _STARTS_WITH_AUTHORITY.match(text) is not None


def without_credentials(url: str) -> str:
    """Return a broker's address without user, password, query and fragment.

    Returns:
        The address; `***` instead of the host and what follows if it cannot be told what is the host.
    """
    if "," in url and "@" not in url:
        return ",".join(map(without_credentials, url.split(",")))
    scheme, credentials, location, _ = parse(url)
    authority, _, path = (credentials + location).partition("/")
    host = authority.rpartition("@")[2]
    if scheme.lower() in {"amqp", "amqps"} and "@" in path and _IS_AUTHORITY.match(host):
        # A virtual host may contain an @.
        shown = host
    else:
        shown = re.split(r"[?#]", location, maxsplit=1)[0]
        if not _IS_AUTHORITY.match(shown.partition("/")[0]):
            shown = HIDDEN
    return f"{scheme}://{shown}" if scheme else shown
