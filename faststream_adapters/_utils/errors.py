"""Errors that users catch, and what may be shown or logged of an error."""

import traceback

from faststream.exceptions import IncorrectState, SetupError, StartupValidationError

from .redaction import redact, redacted_traceback, related


class BrokerStartError(RuntimeError):
    """A broker could not be started; `__cause__` is the client's error."""


class BrokerNotUpError(IncorrectState):
    """A broker cannot publish: it has not been started, is not connected yet, or has been stopped.

    While a client reconnects it accepts messages, as FastStream does, and this is not raised.
    """


class HostStartError(RuntimeError):
    """The host application reported that its startup or shutdown failed, but raised no error."""


SHOWN = (BrokerStartError, HostStartError, SetupError, StartupValidationError)
"""Errors whose message is written for operators and contains no credentials."""

_REPORTED = "_faststream_adapters_reported"


def unwrapped(error: BaseException) -> BaseException:
    """Unwrap exception groups that contain a single error, such as those of a host's task groups."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def clear_frames(error: BaseException) -> None:
    """Clear the local variables in the tracebacks of an error and its causes: they keep clients alive."""
    for each in related(error):
        traceback.clear_frames(each.__traceback__)


def forget_frames(error: BaseException | None) -> None:
    """Remove the tracebacks of an error and its causes.

    Args:
        error: The error, which may be kept after it was handled.
    """
    if error is not None:
        for each in related(error):
            each.__traceback__ = None


def shown_text(error: BaseException) -> str:
    """Return what to log of an error, redacted: the message of a `SHOWN` error, else the traceback."""
    return redact(str(error)) if isinstance(error, SHOWN) else redacted_traceback(error)


def is_first_report(error: BaseException) -> bool:
    """Return whether this is the first call with the error: nested applications pass the same one on."""
    attributes = vars(error)
    first = not attributes.get(_REPORTED)
    attributes[_REPORTED] = True
    return first
