"""A record of how long messages have been in their handlers, which shows a handler that hangs."""

import time
from types import TracebackType
from typing import Any

from faststream import BaseMiddleware, ContextRepo


class HandlerAges:
    """A broker middleware that records since when each message is being handled."""

    def __init__(self) -> None:
        self._since: dict[object, float] = {}

    @property
    def oldest(self) -> float:
        """Seconds since the start of the oldest handler that has not finished; 0 if no handler runs."""
        # A dict is ordered by insertion, so the first entry is the oldest.
        since = next(iter(self._since.values()), None)
        return 0.0 if since is None else time.monotonic() - since

    def __call__(self, msg: Any, /, *, context: ContextRepo) -> BaseMiddleware[Any, Any]:
        """Return the middleware for one message."""
        return _HandlerAge(msg, context=context, since=self._since)


class _HandlerAge(BaseMiddleware[Any, Any]):
    def __init__(self, msg: Any, /, *, context: ContextRepo, since: dict[object, float]) -> None:
        super().__init__(msg, context=context)
        self._since = since

    async def on_receive(self) -> None:
        self._since[self] = time.monotonic()

    async def after_processed(
        self,
        exc_type: type[BaseException] | None = None,  # noqa: ARG002 (FastStream's signature)
        exc_val: BaseException | None = None,  # noqa: ARG002
        exc_tb: TracebackType | None = None,  # noqa: ARG002
    ) -> bool:
        del self._since[self]
        return False
