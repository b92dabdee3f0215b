"""Compare the consumers and streams on a NATS server with what subscribers declare."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from nats.js.api import AckPolicy, ConsumerConfig

from faststream_adapters._brokers.driver import Mismatch


def durable_name(subscriber: Any) -> str:
    """Return the name of the durable consumer of a JetStream subscriber, or an empty string."""
    # nats-py names the consumer of a queue after it.
    return getattr(subscriber, "queue", "") or subscriber.config.durable_name or ""


def find_mismatch(subscriber: Any, found: ConsumerConfig, subjects: Sequence[str] | None) -> Mismatch | None:
    """Compare what a JetStream subscriber declares with its consumer and its stream on the server.

    Settings that only change when and how often a message is delivered are not compared.

    Args:
        subscriber: The subscriber.
        found: The configuration of its consumer.
        subjects: The subjects of its stream; None if they do not show what the stream contains.
    """
    differences = list(_differences(subscriber, found, subjects))
    if not differences:
        return None
    return Mismatch(*(", ".join(side) for side in zip(*differences, strict=True)))


def _differences(
    subscriber: Any, found: ConsumerConfig, subjects: Sequence[str] | None
) -> Iterator[tuple[str, str]]:
    """Yield what is declared and what is found, for each setting that differs."""
    is_push = not hasattr(subscriber, "pull_sub")
    if is_push != bool(found.deliver_subject):
        yield _kind(is_push=is_push), _kind(is_push=not is_push)
    elif is_push and (group := subscriber.config.deliver_group or subscriber.queue) != (
        found.deliver_group or ""
    ):
        yield f"deliver_group {group!r}", f"deliver_group {found.deliver_group or ''!r}"
    # As nats-py creates the consumer.
    declared = subscriber.config.filter_subjects or [subscriber.subject.broker_address]
    filters = found.filter_subjects or ([found.filter_subject] if found.filter_subject else [])
    if not (_contain(filters or [">"], declared) and _contain(declared, _delivered(filters, subjects))):
        yield f"filter_subject {_list(declared)}", f"filter_subject {_list(filters)}"
    if subjects is not None and not all(any(overlap(each, one) for one in subjects) for each in declared):
        yield f"subject {_list(declared)}", f"a stream with the subject {_list(subjects)}"
    policy = subscriber.config.ack_policy or AckPolicy.NONE
    if policy != found.ack_policy:
        yield f"ack_policy {policy.value!r}", f"ack_policy {found.ack_policy!r}"


def _kind(*, is_push: bool) -> str:
    return "a push consumer" if is_push else "a pull consumer"


def _list(subjects: Sequence[str]) -> str:
    return " and ".join(map(repr, subjects)) or "''"


def _delivered(filters: Sequence[str], subjects: Sequence[str] | None) -> Collection[str]:
    """Return the subjects that a consumer with these filters delivers from a stream with these subjects."""
    if subjects is None:
        return filters
    return {
        subject if contains(each, subject) else each
        for each in filters or [">"]
        for subject in subjects
        if overlap(each, subject)
    }


def _contain(filters: Collection[str], subjects: Collection[str]) -> bool:
    """Return whether each subject is contained in one of the filters; both may have wildcards."""
    return all(any(contains(each, subject) for each in filters) for subject in subjects)


def contains(pattern: str, subject: str) -> bool:
    """Return whether a subject, with all that its wildcards stand for, is contained in a pattern."""
    tokens, others = pattern.split("."), subject.split(".")
    if tokens[-1] == ">" and len(others) >= len(tokens):
        others[len(tokens) - 1 :] = [">"]
    return len(tokens) == len(others) and all(
        token == other or (token == "*" and other != ">")  # noqa: S105 (no password)
        for token, other in zip(tokens, others, strict=True)
    )


def overlap(one: str, other: str) -> bool:
    """Return whether two subjects with wildcards have a subject in common."""
    tokens, others = one.split("."), other.split(".")
    for token, another in zip(tokens, others, strict=False):
        if ">" in {token, another}:
            return True
        if token != another and "*" not in {token, another}:
            return False
    return len(tokens) == len(others)
