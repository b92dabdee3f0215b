"""Which destinations a pattern covers, so that a message published to one of them reaches its subscriber.

Destinations that the servers use themselves, such as NATS's `$JS.API.>` and `_INBOX.>`, are covered only by
patterns that name them: what a subscriber of everything may read, a client must not write.
"""

import re
from collections.abc import Sequence

__all__ = ("mqtt_covers", "nats_covers", "rabbit_covers", "redis_covers")


def nats_covers(pattern: str, subject: str) -> bool:
    """Return whether a subscription of a pattern gets what is published to a subject.

    Source: docs.nats.io, "Subject-Based Messaging" (wildcards, reserved subjects).
    """
    wanted, tokens = pattern.split("."), subject.split(".")
    # The server drops a message to a subject with an empty token.
    if not all(tokens) or not {"*", ">"}.isdisjoint(tokens):
        return False
    if subject.startswith(("$", "_")) and wanted[0] != tokens[0]:
        return False
    return _covers(wanted, tokens, one="*", many=">", least=1)


def mqtt_covers(pattern: str, topic: str) -> bool:
    """Return whether a subscription of a topic filter gets what is published to a topic.

    Source: MQTT 5.0, section 4.7 (also: `$` is never matched by a wildcard at the first level).
    """
    wanted, levels = pattern.split("/"), topic.split("/")
    if "+" in topic or "#" in topic or (topic.startswith("$") and wanted[0] != levels[0]):
        return False
    return _covers(wanted, levels, one="+", many="#", least=0)


def rabbit_covers(pattern: str, key: str) -> bool:
    """Return whether a queue bound to a topic exchange with a pattern gets what has a routing key.

    Source: rabbitmq.com, "Topic exchanges".
    """
    words = key.split(".")
    # They would be literal words of a key, and are hardly meant as such.
    if not {"*", "#"}.isdisjoint(words):
        return False
    return _covers(pattern.split("."), words, one="*", many="#", least=0)


def redis_covers(pattern: str, channel: str) -> bool:
    """Return whether a subscription of a glob pattern gets what is published to a channel.

    Channels of Redis itself begin with two underscores: key space notifications, Sentinel's messages.

    Source: redis.io, PSUBSCRIBE and KEYS; Redis's `stringmatchlen`, which compares bytes.
    """
    if channel.startswith("__") and not pattern.startswith("__"):
        return False
    # A client that only copies the pattern means none of its channels.
    if channel == pattern and not {"*", "?"}.isdisjoint(pattern):
        return False
    return re.fullmatch(_glob(pattern.encode()), channel.encode(), re.DOTALL) is not None


def _covers(pattern: Sequence[str], levels: Sequence[str], *, one: str, many: str, least: int) -> bool:
    """Return whether a pattern of levels covers others.

    Args:
        pattern: The levels of the pattern.
        levels: The levels of the destination.
        one: The wildcard for one level.
        many: The wildcard for any number of levels.
        least: The least number of levels that it stands for.
    """
    # How many levels the part of the pattern that was read can stand for.
    reached = {0}
    for each in pattern:
        if each == many:
            reached = set(range(min(reached, default=len(levels) + 1) + least, len(levels) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(levels) and each in {one, levels[at]}}
    return len(levels) in reached


_GLOB = re.compile(rb"\\(.)|\[(\^?)((?:\\.|[^\]])*)(?:\]|$)|(.)", re.DOTALL)
_RANGE = re.compile(rb"\\(.)|(.)-(.)|(.)", re.DOTALL)


def _glob(pattern: bytes) -> bytes:
    """Return a glob pattern of Redis as a regular expression."""

    def translate(found: re.Match[bytes]) -> bytes:
        escaped, negated, members, plain = found.groups()
        if members is not None:
            inside = b"".join(map(_member, _RANGE.finditer(members)))
            # An empty set has no member, and its opposite has all.
            return b"[" + negated + inside + b"]" if inside else (b"." if negated else b"(?!)")
        return {b"*": b".*", b"?": b"."}.get(plain, re.escape(plain or escaped))

    # Several asterisks are one: the others would only cost time.
    return _GLOB.sub(translate, re.sub(rb"(?<!\\)\*+", b"*", pattern))


def _member(found: re.Match[bytes]) -> bytes:
    escaped, first, last, single = found.groups()
    if first is None:
        return re.escape(escaped or single)
    # Redis swaps the ends of a range.
    return re.escape(min(first, last)) + b"-" + re.escape(max(first, last))
