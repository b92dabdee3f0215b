"""The private parser of the standard library's regular expressions."""

import re
import string
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

__all__ = ("matching",)

_parser: Any = import_module("re._parser")

_MAX_LENGTH = 1000
# Members of a set that name characters.
_OWN = (_parser.LITERAL, _parser.RANGE)
# The first that fits is taken.
_CHARACTERS = "Aa1" + string.printable[:95]
# The parts of an operation that contains others.
_INNER: dict[str, Callable[[Any], Any]] = {
    "BRANCH": lambda value: value[1][0],
    "SUBPATTERN": lambda value: value[-1],
    "ATOMIC_GROUP": lambda value: value,
}
_CATEGORIES: dict[str, Callable[[str], bool]] = {
    "CATEGORY_DIGIT": str.isdigit,
    "CATEGORY_SPACE": str.isspace,
    "CATEGORY_WORD": lambda each: each.isalnum() or each == "_",
    "CATEGORY_NOT_DIGIT": lambda each: not each.isdigit(),
    "CATEGORY_NOT_SPACE": lambda each: not each.isspace(),
    "CATEGORY_NOT_WORD": lambda each: not (each.isalnum() or each == "_"),
}


def matching(pattern: str, least: int = 0, most: int = 100) -> str | None:
    """Return a short string that matches a pattern, always the same one, or None if it finds none.

    Args:
        pattern: The regular expression.
        least: The minimum length of the string.
        most: The maximum length of the string.
    """
    try:
        parsed = _parser.parse(pattern)
        for repeats in (1, 0, least):
            text = _text(parsed, repeats)
            if least <= len(text) <= most and re.search(pattern, text):
                return text
    except (re.error, LookupError, RecursionError):
        # The pattern belongs to another dialect, or uses what is not written down here.
        pass
    return None


def _text(nodes: Iterable[tuple[Any, Any]], repeats: int) -> str:
    return "".join(_part(str(operation), value, repeats) for operation, value in nodes)


def _part(operation: str, value: Any, repeats: int) -> str:
    if operation in {"AT", "ASSERT", "ASSERT_NOT"}:
        return ""
    if operation in _INNER:
        return _text(_INNER[operation](value), repeats)
    if operation in {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}:
        fewest, most, repeated = value
        text = _text(repeated, repeats)
        times: int = min(max(fewest, repeats), int(most))
        if len(text) * times > _MAX_LENGTH:
            raise LookupError(operation)
        return text * times
    return chr(value) if operation == "LITERAL" else _character(operation, value)


def _character(operation: str, value: Any) -> str:
    """Return a character of a set, or any other than one."""
    members = {
        "IN": value,
        "NOT_LITERAL": [(_parser.NEGATE, None), (_parser.LITERAL, value)],
        "ANY": [(_parser.NEGATE, None)],
    }[operation]
    starts = [chr(each[0] if kind is _parser.RANGE else each) for kind, each in members if kind in _OWN]
    return next((each for each in (*_CHARACTERS, *starts) if _is_in(each, members)), "")


def _is_in(character: str, members: list[tuple[Any, Any]]) -> bool:
    """Return whether a character is in a set such as `[^a-z_]`."""
    negated = str(members[0][0]) == "NEGATE"
    return negated != any(_is_member(character, str(kind), value) for kind, value in members[negated:])


def _is_member(character: str, kind: str, value: Any) -> bool:
    if kind == "RANGE":
        return bool(value[0] <= ord(character) <= value[1])
    return _CATEGORIES[str(value)](character) if kind == "CATEGORY" else character == chr(value)
