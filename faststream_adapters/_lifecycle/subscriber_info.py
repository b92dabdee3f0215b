"""What is known of the subscribers of a lifespan or another target."""

from collections.abc import Iterable
from dataclasses import dataclass

from faststream_adapters._brokers.codes import Code

from .selectors import NamedSubscriber


@dataclass(frozen=True, slots=True)
class Counters:
    """What is counted of one subscriber; see `SubscriberInfo`."""

    in_flight: int | None = None
    oldest_seconds: float | None = None
    received: int | None = None
    failed: int | None = None
    last_message_at: float | None = None
    backlog: int | None = None


@dataclass(frozen=True, slots=True)
class SubscriberInfo:
    """A subscriber of a lifespan, as it was when the lifespan was asked.

    What is counted is None unless it is collected, and the backlog also for servers that do not report it. A
    batch counts as one message.

    Args:
        name: The name of its handler, with `@destination` and `@broker` where needed to be unique.
        broker: The class of its broker, and its number among the brokers of that class.
        destination: Where its messages come from: a subject, a queue, topics, a channel.
        group: With whom it shares the messages: a consumer group, a queue group or a durable consumer.
        code: The code of its health.
        in_flight: The number of messages that its handlers are processing.
        oldest_seconds: Seconds since the oldest of these was received.
        received: The number of messages since the process started.
        failed: How many of these its handlers have not processed successfully.
        last_message_at: When the last one was received, as Unix time.
        backlog: The number of messages that wait on the server.
    """

    name: str
    broker: str
    destination: str
    group: str | None
    code: Code
    in_flight: int | None = None
    oldest_seconds: float | None = None
    received: int | None = None
    failed: int | None = None
    last_message_at: float | None = None
    backlog: int | None = None


def describe(subscribers: Iterable[NamedSubscriber]) -> tuple[SubscriberInfo, ...]:
    """Return what is known of subscribers."""
    return tuple(map(_describe, subscribers))


def _describe(named: NamedSubscriber) -> SubscriberInfo:
    managed = named.managed
    counters = managed.counters(named.subscriber)
    return SubscriberInfo(
        named.name,
        named.broker,
        named.destination,
        named.group,
        managed.subscriber_code(named.subscriber),
        counters.in_flight,
        counters.oldest_seconds,
        counters.received,
        counters.failed,
        counters.last_message_at,
        counters.backlog,
    )
