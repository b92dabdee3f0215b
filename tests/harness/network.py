"""Forbid the network temporarily, for tests that must not use it."""

from __future__ import annotations

import functools
import socket
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_SOCKETS = frozenset({"socket.bind", "socket.connect", "socket.sendto", "socket.sendmsg"})
_NAMES = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})


class NetworkForbiddenError(OSError):
    """The network was used while it was forbidden. As an OSError, it makes libraries close their socket."""


@contextmanager
def forbidden() -> Iterator[None]:
    """Refuse each use of an INET socket in this process.

    This includes the servers of the harness, which reserve a port when they are created. Pipes and Unix
    sockets are allowed. Other processes are not monitored.

    Raises:
        NetworkForbiddenError: The network was used. Raised at the end too, as the code may have caught it.
    """
    refusal = _refusal()
    refused = refusal.refused = []
    try:
        yield
    finally:
        refusal.refused = None
    if refused:
        raise NetworkForbiddenError("\n".join(refused))


class _Refusal:
    """An audit hook. Python cannot remove it, so it does nothing while `refused` is None."""

    def __init__(self) -> None:
        self.refused: list[str] | None = None
        """The refused calls."""
        sys.addaudithook(self.hook)

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self.refused is None or event not in _SOCKETS | _NAMES:
            return
        if event in _NAMES or args[0].family in _FAMILIES:
            used = f"{event} {args[event in _SOCKETS]!r}"
            self.refused.append(used)
            raise NetworkForbiddenError(used)

    # Without this, coverage would not measure the hook.
    hook.__cantrace__ = True  # type: ignore[attr-defined]  # a mark for Python


_refusal = functools.cache(_Refusal)
