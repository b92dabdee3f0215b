"""Remove credentials from text that is logged or sent to clients and servers.

The secrets of brokers are known, and removed wherever they occur. Others, such as those of the application's
database, are found by their form: the user and password of a URL, and values named as in `password='…'`.
"""

import re
from asyncio import CancelledError
from traceback import format_exception, format_tb
from typing import Any, TypeVar, cast

from .addresses import HIDDEN, find_url, parse, starts_with_authority
from .secrets import without_known_secrets

E = TypeVar("E", bound=BaseException)

_NAME = r"(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key)"
_NAMED_SECRET = re.compile(
    # Quoted, as in source code and JSON; in a query; and as in `host=db password=… dbname=shop`.
    rf"""({_NAME}(?:["']\s?:\s?|\s?=\s?)(["']))(?:\\.|(?!\2)[^\\])*"""
    rf"""|([?&][\w.-]*{_NAME}=)[^\s&]+"""
    rf"""|((?<!\S)[\w.-]*{_NAME}=)[^\s,()"'&]+(?=[\s;]|$)""",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Replace the secrets in a text with `***`, in a time that is proportional to its length."""
    return "\n".join(map(_redact_line, without_known_secrets(text).split("\n")))


def _redact_line(line: str) -> str:
    if "@" in line:
        line = _without_userinfo(line)
    return _NAMED_SECRET.sub(_hide_value, line)


def _hide_value(match: re.Match[str]) -> str:
    return f"{match[1] or match[3] or match[4]}{HIDDEN}"


def _without_userinfo(line: str) -> str:
    """Replace the users and passwords of URLs, and of addresses such as `user:password@host`."""
    parts: list[str] = []
    end = 0
    opened: int | None = None
    """Where credentials begin that contain a space: their @ is in a later word."""
    for word in re.finditer(r"\S+", line):
        text, start = word[0], word.start()
        url = find_url(text)
        scheme, credentials, location, _ = parse(text[max(url, 0) :])
        if url >= 0:
            start += url + len(scheme) + len("://")
            opened = None if credentials or starts_with_authority(location) else start
        elif opened is not None and credentials:
            credentials, start, opened = line[opened : start + len(credentials)], opened, None
        elif ":" not in credentials:
            continue
        if credentials:
            parts += (line[end:start], f"{HIDDEN}@")
            end = start + len(credentials)
    return "".join((*parts, line[end:]))


class RedactedError(Exception):
    """Replaces an error whose text contains credentials, if its class cannot be copied."""


def without_secrets(error: E) -> E:
    """Return the error, or a copy without credentials if its traceback contains some.

    For errors that leave this package: servers, hosts and test clients print their tracebacks.

    Returns:
        The error itself, or an instance of a subclass with the same name, with redacted text and causes. A
        note replaces its traceback, whose source lines may contain credentials.
    """
    return error if isinstance(error, CancelledError) else cast("E", _copied(error, {}))


def related(error: BaseException) -> list[BaseException]:
    """Return an error and all its causes, contexts and members of groups, also those that are not printed."""
    errors = [error]
    for current in errors:
        causes = (current.__cause__, current.__context__, *getattr(current, "exceptions", ()))
        errors += [cause for cause in causes if cause is not None and cause not in errors]
    return errors


def _has_secret(error: BaseException) -> bool:
    text = "".join(format_exception(error, chain=False))
    return redact(text) != text


def _copied(error: BaseException, copies: dict[int, BaseException]) -> BaseException:
    if (known := copies.get(id(error))) is not None:
        return known
    if not any(map(_has_secret, related(error))):
        return error
    copies[id(error)] = copy = _same_class(error, copies)
    frames = redact("".join(format_tb(error.__traceback__)))
    notes = [redact(str(note)) for note in getattr(error, "__notes__", ())]
    copy.__notes__ = (
        [*notes, f"Traceback (most recent call last, without credentials):\n{frames}"] if frames else notes
    )
    if error.__cause__ is not None:
        copy.__cause__ = _copied(error.__cause__, copies)
    if error.__context__ is not None and not error.__suppress_context__:
        copy.__context__ = _copied(error.__context__, copies)
    copy.__suppress_context__ = error.__suppress_context__
    return copy


def _same_class(error: BaseException, copies: dict[int, BaseException]) -> BaseException:
    """Return a redacted instance of a subclass of the error's class, so that `except` still finds it."""
    cls, text = type(error), redact(str(error))
    if isinstance(error, BaseExceptionGroup):
        args: tuple[object, ...] = (redact(error.message), [_copied(one, copies) for one in error.exceptions])
    else:
        args = tuple(_redacted_value(arg) for arg in error.args)
    body = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__str__": lambda _: text}
    try:
        # Not through `__init__`, which may take anything.
        subclass: Any = type(cls.__name__, (cls,), body)
        copy: BaseException = subclass.__new__(subclass, *args)
        copy.args = args
        vars(copy).update({name: _redacted_value(value) for name, value in vars(error).items()})
        if isinstance(error, SystemExit):
            copy.code = _redacted_value(error.code)  # type: ignore[attr-defined]  # mypy does not narrow the copy
        printed = "".join(format_exception(copy))
        if redact(printed) == printed:  # pragma: no branch (not if its __str__ adds a secret)
            return copy
    except Exception:  # noqa: BLE001, S110 (a class may refuse anything: then the text has to do)
        pass
    return RedactedError(f"{cls.__name__}: {text}")


def _redacted_value(value: object) -> object:
    text = value if isinstance(value, str) else repr(value)
    return value if redact(text) == text else redact(text)


def redacted_traceback(error: BaseException) -> str:
    """Return the traceback of an error and its causes, without the credentials of URLs."""
    return redact("".join(format_exception(error)))
