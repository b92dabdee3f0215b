"""The state and the counters of subscribers."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from faststream_adapters._brokers.codes import Code

from .selectors import NamedSubscriber


@dataclass(frozen=True, slots=True)
class SubscriberInfo:
    """A subscriber of a lifespan, as it was when `subscribers` was read.

    The counters are None unless an endpoint needs them: all of them for metrics and the status page, and all
    but the backlog for liveness with `max_handler_age`. A batch counts as one message.

    Args:
        name: The name of its handler, with `@destination` and `@broker` where needed to be unique.
        broker: The class of its broker, and its number among the brokers of that class.
        destination: Where its messages come from: a subject, a queue, topics, a channel.
        group: The consumer group, queue group or durable consumer that shares the messages; None without one.
        code: The code of its health.
        in_flight: The number of messages that its handlers are processing.
        oldest_seconds: Seconds since the oldest of these was received; 0 if there is none.
        received: The number of messages since the process started.
        failed: How many of these its handlers have not processed successfully.
        last_message_at: When the last one was received, as Unix time; None before the first one.
        backlog: The number of messages that wait on the server; None if the server does not report it.
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
    """Return the state and the counters of subscribers."""
    return tuple(map(_describe, subscribers))


def _describe(named: NamedSubscriber) -> SubscriberInfo:
    managed, subscriber = named.managed, named.subscriber
    code, backlog = managed.subscriber_code(subscriber), managed.backlogs.get(subscriber)
    info = SubscriberInfo(named.name, named.broker, named.destination, named.group, code, backlog=backlog)
    if managed.statistics is None:
        return info
    counts = managed.statistics[subscriber]
    return replace(
        info,
        in_flight=counts.in_flight,
        oldest_seconds=counts.oldest,
        received=counts.received,
        failed=counts.failed,
        last_message_at=counts.last_message_at,
    )
