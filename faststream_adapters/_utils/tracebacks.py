"""Find objects that only a traceback or the stack still refers to."""

from collections.abc import Callable, Iterator, Mapping
from inspect import currentframe
from traceback import walk_tb
from types import FrameType
from typing import Any, TypeVar, cast

T = TypeVar("T")


def find_in_traceback(error: BaseException, kind: type[T]) -> T | None:
    """Find the client that failed to connect, if nothing but the error's traceback refers to it.

    Args:
        error: The error. Its context is searched too, because a timeout is raised outside the call that it
            cancels.
        kind: The class of the client.

    Returns:
        The first object of this class whose method is in the traceback, or None.
    """
    selves = (frame.f_locals.get("self") for frame in _frames(error))
    return next((candidate for candidate in selves if isinstance(candidate, kind)), None)


def find_locals(error: BaseException, kind: type[T]) -> list[T]:
    """Return the local variables of a type in the frames of an error and of its context."""
    values = (value for frame in _frames(error) for value in frame.f_locals.values())
    return [value for value in values if isinstance(value, kind)]


def _frames(error: BaseException | None) -> Iterator[FrameType]:
    while error is not None:
        for frame, _ in walk_tb(error.__traceback__):
            yield frame
        error = error.__context__


def stack_names() -> dict[str, Any]:
    """Return the local variables of all callers, those of inner ones first."""
    names: dict[str, Any] = {}
    own = currentframe()
    frame = own and own.f_back
    while frame is not None:
        names = {**frame.f_locals, **names}
        frame = frame.f_back
    return names


def call_with_names(names: Mapping[str, Any], call: Callable[[], T]) -> T:
    """Call a function with these local variables in the frame of its caller.

    FastDepends looks there for names in annotations, such as a model that is defined in a test.
    """
    # Only eval() and exec() make a frame with given local variables, and what is evaluated is a constant. The
    # name in it must not be one of theirs.
    return cast("T", eval("_call_with_names()", {}, {**names, "_call_with_names": call}))  # noqa: S307 (constant)
