"""Options: each keyword is declared once; its default, validation, signature and documentation follow.

A group of options is a `TypedDict` whose annotations carry an `Option`:

    class Keywords(TypedDict, total=False):
        ttl: Annotated[float, Option(0.0, "Seconds for which a result is reused.", seconds(minimum=0))]

    @accepts(Keywords)
    def make(**given: Unpack[Keywords]) -> None:
        options = complete(Keywords, given)
"""

import inspect
import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeVar, cast, get_args

from faststream.exceptions import SetupError

T = TypeVar("T")

Check = Callable[[str, Any], str | None]
"""Takes an option's name and value; returns an error message, or None if the value is valid."""


@dataclass(frozen=True, slots=True)
class Option:
    """The declaration of one keyword.

    Args:
        default: The value if the keyword is not given.
        text: The description for the documentation.
        check: Validates a value; None accepts every value.
    """

    default: Any
    text: str
    check: Check | None = None


def one_of(*values: str) -> Check:
    """Accept only these values."""
    listed = " or ".join(f'"{value}"' for value in values)
    return lambda name, value: None if value in values else f"{name} must be {listed}, not {value!r}."


def boolean(name: str, value: object) -> str | None:
    """Accept True and False."""
    return None if isinstance(value, bool) else f"{name} must be True or False, not {value!r}."


def seconds(
    *,
    above: float | None = None,
    maximum: float = math.inf,
    optional: bool = False,
) -> Check:
    """Accept a number of seconds.

    Args:
        above: The exclusive lower bound; None accepts 0 and more.
        maximum: The inclusive upper bound.
        optional: Whether to accept None.
    """

    def check(name: str, value: Any) -> str | None:
        if value is None and optional:
            return None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and (value >= 0 if above is None else value > above) and value <= maximum:
            return None
        if maximum == math.inf:
            return f"{name} must be a number of seconds that is not negative, not {value!r}."
        limit = "from 0" if above is None else f"above {above:g}"
        return f"{name} must be a number of seconds {limit}, up to {maximum}, not {value!r}."

    return check


@cache
def declared(group: Hashable) -> Mapping[str, Option]:
    """Return the options of a group, in declaration order."""
    # Not `get_type_hints`, which fails on names that are imported for type checkers only.
    annotations: dict[str, Any] = cast("type", group).__annotations__
    return {name: hint.__metadata__[0] for name, hint in annotations.items()}


def type_of(group: type, name: str) -> Any:
    """Return the declared type of an option."""
    return get_args(group.__annotations__[name])[0]


def split(
    given: Mapping[str, Any], *groups: Hashable, of: Callable[..., object] | None = None
) -> list[dict[str, Any]]:
    """Split keywords by the group that declares them.

    Args:
        given: The keywords.
        groups: The groups.
        of: What takes the keywords, whose own parameters an error suggests too.

    Raises:
        TypeError: A keyword is not declared in any group.
    """
    parts: list[dict[str, Any]] = [{} for _ in groups]
    for name, value in given.items():
        for group, part in zip(groups, parts, strict=True):
            if name in declared(group):
                part[name] = value
                break
        else:
            raise _unknown_keyword(name, [known for group in groups for known in declared(group)], of)
    return parts


def complete(group: Callable[..., T], given: Mapping[str, Any], of: Callable[..., object] | None = None) -> T:
    """Validate the given options of a group and add the defaults of the others.

    Args:
        group: The group.
        given: The options by name.
        of: What takes the options, whose own parameters an error suggests too.

    Raises:
        SetupError: A value is invalid.
        TypeError: A keyword is unknown.
    """
    options = declared(group)
    for name, value in given.items():
        if (option := options.get(name)) is None:
            raise _unknown_keyword(name, options, of)
        if option.check is not None and (message := option.check(name, value)) is not None:
            raise SetupError(message)
    return cast("T", {name: given.get(name, option.default) for name, option in options.items()})


def _unknown_keyword(name: str, known: Iterable[str], of: Callable[..., object] | None) -> TypeError:
    own = () if of is None else inspect.signature(of).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = sorted({*known, *(each.name for each in own if each.kind in named)})
    close = get_close_matches(name, names, n=1, cutoff=0.75)
    suggestion = f" Did you mean {close[0]!r}?" if close else ""
    return TypeError(f"Unknown keyword {name!r}.{suggestion} Known keywords: {', '.join(names)}.")


def accepts(*groups: Hashable) -> Callable[[T], T]:
    """Show the options of groups in the signature of a function that takes them as `**keywords`."""

    def decorate(function: T) -> T:
        signature = inspect.signature(cast("Callable[..., Any]", function))
        parameters = [
            parameter
            for parameter in signature.parameters.values()
            if parameter.kind is not parameter.VAR_KEYWORD
        ]
        parameters += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option.default)
            for group in groups
            for name, option in declared(group).items()
        ]
        vars(function)["__signature__"] = signature.replace(parameters=parameters)
        return function

    return decorate


def documented(group: T) -> T:
    """Add the options of a group to its docstring."""
    lines = (f"    {name}: {option.text}" for name, option in declared(group).items())
    group.__doc__ = f"{inspect.getdoc(group)}\n\nArgs:\n" + "\n".join(lines)
    return group
