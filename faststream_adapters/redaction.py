"""Keep secrets out of what is logged, answered or told to the server."""

import re
from traceback import format_exception

_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")


def redact(text: str) -> str:
    """Return the text without the credentials of the URLs in it."""
    return _USERINFO.sub("***@", text)


def redacted_traceback(error: BaseException) -> str:
    """Return an error with its causes and traceback, without the credentials of the URLs in it."""
    return redact("".join(format_exception(error)))
