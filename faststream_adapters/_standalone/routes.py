"""The routes of an app as a list that can be changed."""

from collections.abc import Callable, Iterable, MutableSequence, Sequence
from typing import Any, overload

from faststream.asgi.types import ASGIApp
from faststream.exceptions import SetupError

AsgiRoute = tuple[str, ASGIApp]


class RouteList(MutableSequence[AsgiRoute]):
    """A live list: a route that is added to it is mounted, one that is removed from it is served no more.

    The order has no meaning: the exact path comes before all mounts, and the longest mount before others.

    Args:
        routes: The app's routes.
        mount: Adds a route.
        unmount: Removes the route with a path.
    """

    def __init__(
        self,
        routes: Iterable[AsgiRoute],
        mount: Callable[[str, ASGIApp], None],
        unmount: Callable[[str], None],
    ) -> None:
        self._routes = routes
        self._mount = mount
        self._unmount = unmount

    def replace(self, routes: Iterable[AsgiRoute]) -> None:
        """Mount these routes, and remove all others.

        Raises:
            SetupError: A path cannot be used. The routes are what they were before.
        """
        after, before = list(routes), list(self)
        try:
            self._replace(before, after)
        except SetupError:
            self._replace(list(self), before)
            raise

    def _replace(self, before: list[AsgiRoute], after: list[AsgiRoute]) -> None:
        for path, app in before:
            if (path, app) not in after:
                self._unmount(path)
        for path, app in after:
            if (path, app) not in before:
                self._mount(path, app)

    def insert(self, index: int, value: AsgiRoute) -> None:  # noqa: ARG002 (the order has no meaning)
        """Mount a route."""
        self._mount(*value)

    @overload
    def __getitem__(self, index: int) -> AsgiRoute: ...
    @overload
    def __getitem__(self, index: slice) -> list[AsgiRoute]: ...
    def __getitem__(self, index: int | slice) -> AsgiRoute | list[AsgiRoute]:
        return list(self._routes)[index]

    def __setitem__(self, index: int | slice, value: Any) -> None:
        after = list(self)
        after[index] = value
        self.replace(after)

    def __delitem__(self, index: int | slice) -> None:
        after = list(self)
        del after[index]
        self.replace(after)

    def __len__(self) -> int:
        return len(list(self._routes))

    def copy(self) -> list[AsgiRoute]:
        """Return the routes as they are now."""
        return list(self)

    def __add__(self, other: Iterable[AsgiRoute]) -> list[AsgiRoute]:
        return [*self, *other]

    def __radd__(self, other: Iterable[AsgiRoute]) -> list[AsgiRoute]:
        return [*other, *self]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as that of a list

    def __repr__(self) -> str:
        return repr(list(self))
