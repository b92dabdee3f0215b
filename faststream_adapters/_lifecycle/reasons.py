"""Explain in words why a broker is not up, and why a subscriber does not consume."""

import errno
import os
from socket import gaierror
from ssl import SSLError

from faststream.exceptions import SetupError

from faststream_adapters._brokers.codes import Code
from faststream_adapters._brokers.driver import Driver
from faststream_adapters._utils.redaction import redact

_LONGEST = 300
"""Characters of a server's text that are shown."""

_REFUSED = (f"[Errno {errno.ECONNREFUSED}]", os.strerror(errno.ECONNREFUSED))
"""What the text of an error contains that adds nothing to the reason."""

BROKER_REASONS: dict[Code, str] = {
    "timeout": "it did not reply in time",
    "unreachable": "the connection was refused",
    "auth_failed": "the credentials were rejected",
    "closed": "the connection is closed",
    "not_started": "it is not connected",
}

SUBSCRIBER_REASONS: dict[Code, str] = {
    "not_permitted": "the server does not allow it to subscribe",
    "task_failed": "its task has ended",
    "consumer_missing": "the server no longer has its consumer, group, stream or queue",
    "consumer_mismatch": "the server has something else than it declares",
    "consumer_paused": "its consumer is paused on the server",
    "error": "its check or its start failed",
    "timeout": "the server did not report on its consumer in time",
}


def start_failure(driver: Driver, error: BaseException | None) -> str:
    """Return why a start has failed.

    Args:
        driver: The broker's driver. Its `last_error` is more specific than the error of the start.
        error: The error of the start; None if the start has not ended.
    """
    error = driver.last_error or error
    if error is None:
        return BROKER_REASONS["timeout"]
    if isinstance(error, SetupError):
        # Its text says what to do.
        return redact(str(error)).rstrip(".")
    if isinstance(error, gaierror):
        return "its host name could not be resolved"
    if isinstance(error, SSLError):
        return f"TLS failed ({getattr(error, 'reason', None) or error.strerror})"
    code = driver.classify(error)
    if (reason := BROKER_REASONS.get(code)) is None:
        return class_and_text(error)
    text = str(error)
    refused = code == "unreachable" and any(words in text for words in _REFUSED)
    return reason if not text or refused or code == "timeout" else f"{reason} ({class_and_text(error)})"


def class_and_text(error: BaseException) -> str:
    """Return the class of an error and the first line of its text, the server's own words, redacted."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = next(iter(redact(str(error)).strip().splitlines()), "")
    name = type(error).__name__
    return f"{name}: {text[:_LONGEST].rstrip('.')}" if text else name
