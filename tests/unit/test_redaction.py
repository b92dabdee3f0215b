"""without_secrets: what is left of an error that contains credentials."""

from __future__ import annotations

import asyncio
import traceback
from dataclasses import dataclass
from typing import Any, Self

import pytest

from faststream_adapters._utils.redaction import RedactedError, without_secrets

URL = "postgres://user:hunter2@db/shop"
REDACTED = "postgres://***@db/shop"


def printed(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def raised(error: Exception) -> Exception:
    """Return the error with a traceback."""
    try:
        raise error  # noqa: TRY301 (that gives it a traceback)
    except Exception as caught:  # noqa: BLE001 (whatever it is)
        return caught


def test_an_error_without_credentials_is_returned() -> None:
    error = raised(ValueError("no database"))
    assert without_secrets(error) is error


@pytest.mark.parametrize("kind", [ValueError, KeyError, OSError, RuntimeError, UnicodeError])
def test_the_class_and_its_name_stay(kind: type[Exception]) -> None:
    copy = without_secrets(raised(kind(URL)))
    assert isinstance(copy, kind)
    assert type(copy).__name__ == kind.__name__
    assert REDACTED in str(copy)
    assert "hunter2" not in printed(copy)
    assert "hunter2" not in repr(copy)


def test_a_note_replaces_the_traceback() -> None:
    copy = without_secrets(raised(ValueError(URL)))
    assert copy.__traceback__ is None
    assert "in raised" in printed(copy)


def test_attributes_and_numbers_stay() -> None:
    error = OSError(111, f"{URL} refused")
    error.add_note(f"while connecting to {URL}")
    error.tries, error.dsn = 3, URL  # type: ignore[attr-defined]  # like those of a client's errors
    copy: Any = without_secrets(error)
    assert (copy.errno, copy.tries, copy.dsn) == (111, 3, REDACTED)
    assert copy.__notes__ == [f"while connecting to {REDACTED}"]


def test_a_secret_in_a_cause_or_context_is_removed_and_the_original_is_not_changed() -> None:
    cause, context = KeyError(URL), LookupError("no secret")
    cause.__context__ = context
    error = ValueError("no database")
    error.__cause__ = cause
    copy = without_secrets(error)
    assert type(copy) is not ValueError
    assert isinstance(copy.__cause__, KeyError)
    assert copy.__cause__.__context__ is context
    assert "hunter2" not in printed(copy)
    assert error.__cause__ is cause


def test_a_hidden_context_stays_hidden() -> None:
    error = ValueError(URL)
    error.__context__ = KeyError(URL)
    error.__suppress_context__ = True
    copy = without_secrets(error)
    assert copy.__context__ is None
    assert copy.__suppress_context__


def test_errors_that_refer_to_each_other() -> None:
    one, two = ValueError(URL), KeyError(URL)
    one.__cause__, two.__cause__ = two, one
    copy = without_secrets(one)
    assert copy.__cause__ is not None
    assert copy.__cause__.__cause__ is copy
    assert "hunter2" not in printed(copy)


def test_a_group_stays_a_group() -> None:
    fine = KeyError("dsn")
    copy = without_secrets(ExceptionGroup("two errors", [fine, ValueError(URL)]))
    assert isinstance(copy, ExceptionGroup)
    assert copy.exceptions[0] is fine
    assert isinstance(copy.exceptions[1], ValueError)
    assert "hunter2" not in printed(copy)


def test_a_class_with_arguments_of_its_own() -> None:
    class ConnectError(Exception):
        def __init__(self, *, url: str) -> None:
            self.url = url

        def __str__(self) -> str:
            return f"no answer from {self.url}"

    copy = without_secrets(ConnectError(url=URL))
    assert isinstance(copy, ConnectError)
    assert str(copy) == f"no answer from {REDACTED}"
    assert copy.url == REDACTED


def test_a_class_that_cannot_be_copied() -> None:
    class StubbornError(Exception):
        def __new__(cls, url: str, *, key: bool = False) -> Self:
            assert key
            return super().__new__(cls, url)

        def __init__(self, url: str, **_: object) -> None:
            super().__init__(url)

    error = StubbornError(URL, key=True)
    copy: Exception = without_secrets(error)
    assert type(copy) is RedactedError
    assert str(copy) == f"StubbornError: {REDACTED}"


def test_an_immutable_class() -> None:
    @dataclass(frozen=True)
    class FrozenError(Exception):
        url: str

    copy = without_secrets(FrozenError(URL))
    assert "hunter2" not in printed(copy)


def test_the_text_of_an_exit_is_redacted() -> None:
    copy = without_secrets(SystemExit(f"no database at {URL}"))
    assert isinstance(copy, SystemExit)
    assert copy.code == f"no database at {REDACTED}"


def test_a_cancellation_is_returned() -> None:
    error = asyncio.CancelledError(URL)
    assert without_secrets(error) is error
