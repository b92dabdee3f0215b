"""A broker whose ping is controlled by a test."""

import asyncio
from typing import Any

from faststream.nats import NatsBroker


class Pinged(NatsBroker):
    """A broker whose ping returns or raises `ping_result`, or never returns if that is None."""

    ping_result: Any = True

    async def ping(self, timeout: float | None) -> bool:  # noqa: ASYNC109 (FastStream's signature)
        if isinstance(self.ping_result, Exception):
            raise self.ping_result
        if self.ping_result is None:
            await asyncio.Event().wait()
        return bool(self.ping_result)
