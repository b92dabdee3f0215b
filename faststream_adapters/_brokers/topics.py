"""Compare the topics and partitions that Kafka subscribers declare with those on the server."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any

from .driver import Mismatch

TTL = 1.0
"""Seconds that a reply is used for, so that the subscribers of a broker share one request."""

TIMEOUT = 2.0
"""Seconds that the server may take to describe topics."""

Found = Mapping[str, Collection[int] | None]
"""The partitions of topics by their names, none for a topic that does not exist; None if they are unknown."""


class Topics:
    """The topics of a broker's subscribers, as the server last described them.

    Args:
        request: Asks the server for the partitions of topics; must not create them.
    """

    def __init__(self, request: Callable[[list[str]], Awaitable[Found]]) -> None:
        self._request = request
        self._lock = asyncio.Lock()
        self._asked_at = -math.inf
        self._found: Found = {}

    async def find_mismatch(self, subscriber: Any, subscribers: Collection[Any]) -> Mismatch | None:
        """Return what a subscriber declares and the server does not have.

        Args:
            subscriber: The subscriber.
            subscribers: All subscribers of its broker.
        """
        async with self._lock:
            await self._refresh(subscribers)
        return compare(declared(subscriber), self._found)

    async def _refresh(self, subscribers: Collection[Any]) -> None:
        if monotonic() - self._asked_at < TTL:
            return
        names = sorted({name for each in subscribers for name in declared(each)})
        # Without a reply, the last one remains valid.
        with suppress(Exception):
            async with asyncio.timeout(TIMEOUT):
                self._found = await self._request(names) if names else {}
        self._asked_at = monotonic()


def declared(subscriber: Any) -> dict[str, list[int]]:
    """Return the topics that a subscriber declares by name, with the partitions of each that it names."""
    topics: dict[str, list[int]] = {topic.name: [] for topic in subscriber.topics}
    for partition in subscriber.partitions:
        topics.setdefault(partition.topic, []).append(partition.partition)
    return topics


def compare(topics: Mapping[str, Collection[int]], found: Found) -> Mismatch | None:
    """Return the first declared topic that does not exist, or does not have the declared partitions."""
    for name, partitions in topics.items():
        existing = found.get(name)
        if existing is None:
            continue
        if not existing:
            return Mismatch(f"the topic {name!r}", "no such topic")
        if missing := set(partitions).difference(existing):
            return Mismatch(
                f"the partitions {_list(missing)} of the topic {name!r}", f"the partitions {_list(existing)}"
            )
    return None


def _list(partitions: Collection[int]) -> str:
    return ", ".join(map(str, sorted(partitions)))


def publish_arguments(subscriber: Any, address: str) -> Mapping[str, Any] | None:
    """Return the keywords of `publish()` for a topic that a subscriber consumes; None for a pattern.

    A consumer learns of a new topic that matches its pattern after a while, and may begin behind the message.
    """
    if (partitions := declared(subscriber).get(address)) is None:
        return None
    # A subscriber of partitions does not get what the producer sends to others.
    return {"topic": address, "partition": partitions[0]} if partitions else {"topic": address}
