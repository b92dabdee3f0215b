"""Keep secrets out of what is logged, answered or told to the server."""

import re
from traceback import format_exception

# A password may hold anything, unescaped slashes and at signs included: up to the last @ nothing is shown.
_USERINFO = r"(?<=://)[^\s\"']*@"
_SCHEME = r"(?i:[a-z][a-z0-9+.-]*://)"


def redact(text: str) -> str:
    """Return the text without the credentials of the URLs in it."""
    return re.sub(_USERINFO, "***@", text)


def without_credentials(url: str) -> str:
    """Return a server's address without user, password, query and fragment.

    A path with an unescaped @ is taken for a part of the password: the two cannot be told apart.
    """
    scheme = match[0] if (match := re.match(_SCHEME, url)) else ""
    return scheme + re.split(r"[?#]", url.removeprefix(scheme).rpartition("@")[2], maxsplit=1)[0]


class RedactedError(Exception):
    """Stands for an error whose text held a secret."""


def without_secrets(error: Exception) -> Exception:
    """Return the error, or one that says the same without credentials: a host may print its traceback."""
    text = "".join(format_exception(error))
    return error if redact(text) == text else RedactedError(redact(text))


def redacted_traceback(error: BaseException) -> str:
    """Return an error with its causes and traceback, without the credentials of the URLs in it."""
    return redact("".join(format_exception(error)))
