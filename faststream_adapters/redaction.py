"""Keep secrets out of what is logged, answered or told to the server."""

import re
from traceback import format_exception

_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")


def redact(text: str) -> str:
    """Return the text without the credentials of the URLs in it."""
    return _USERINFO.sub("***@", text)


class RedactedError(Exception):
    """Stands for an error whose text held a secret."""


def without_secrets(error: Exception) -> Exception:
    """Return the error, or one that says the same without credentials: a host may print its traceback."""
    text = "".join(format_exception(error))
    return error if redact(text) == text else RedactedError(redact(text))


def redacted_traceback(error: BaseException) -> str:
    """Return an error with its causes and traceback, without the credentials of the URLs in it."""
    return redact("".join(format_exception(error)))
