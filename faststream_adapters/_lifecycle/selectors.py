"""Names of subscribers, and selectors: how an application refers to some of them."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from faststream.exceptions import SetupError

from faststream_adapters._compat.faststream import Subscriber, handler_name, handlers_of, is_subscriber

if TYPE_CHECKING:
    from .managed import ManagedBroker

Selector: TypeAlias = Callable[..., Any] | str
"""A subscriber, its handler function, or its name."""

Selection: TypeAlias = Selector | Iterable[Selector]
"""One selector or several."""

_MAX_LISTED = 20
"""How many subscribers an error lists."""


def as_tuple(selection: object) -> tuple[Any, ...]:
    """Return the selectors of a selection, which may be a single one."""
    if isinstance(selection, str) or not isinstance(selection, Iterable):
        return (selection,)
    return tuple(selection)


def name_brokers(brokers: Iterable["ManagedBroker"]) -> "list[tuple[str, ManagedBroker]]":
    """Return the brokers with names: the class of each, and its number among those of its class."""
    counts: Counter[str] = Counter()
    named = []
    for managed in brokers:
        kind = type(managed.broker).__name__
        counts[kind] += 1
        named.append((f"{kind} {counts[kind]}", managed))
    return named


class NamedSubscriber(NamedTuple):
    """A subscriber with a name that is unique among the subscribers of some brokers.

    Args:
        name: The name; no other subscriber has the same one.
        broker: The name of its broker.
        destination: Where its messages come from.
        group: The consumer group, queue group or durable consumer that shares them, or None.
        managed: Its broker.
        subscriber: The subscriber.
        forms: The handler's name alone, with the destination, and with the broker too.
    """

    name: str
    broker: str
    destination: str
    group: str | None
    managed: "ManagedBroker"
    subscriber: Subscriber
    forms: tuple[str, str, str]

    def is_meant_by(self, selector: object) -> bool:
        """Return whether a selector matches this subscriber."""
        if isinstance(selector, str):
            return selector == self.name or selector in self.forms
        return selector is self.subscriber or selector in handlers_of(self.subscriber)


class SubscriberNames:
    """The names of the subscribers of some brokers.

    A name is that of the handler function, with `@destination` and then `@broker` where it would not be
    unique otherwise. If it still is not, as for two subscribers of one topic that share a handler, a number
    is added.

    The names are computed again only when subscribers or handlers are added or removed, because a scrape may
    need those of 1,000 subscribers.
    """

    def __init__(self) -> None:
        self._subscribers: list[tuple[ManagedBroker, Subscriber, int]] = []
        self._named: tuple[NamedSubscriber, ...] = ()

    def of(self, brokers: "Sequence[ManagedBroker]") -> tuple[NamedSubscriber, ...]:
        """Return the subscribers that have a handler, sorted by name."""
        subscribers = [
            (managed, subscriber, len(subscriber.calls))
            for managed in brokers
            for subscriber in managed.broker.subscribers
            if subscriber.calls
        ]
        if subscribers != self._subscribers:
            self._subscribers = subscribers
            self._named = _name(brokers)
        return self._named

    def name(self, brokers: "Sequence[ManagedBroker]", subscriber: Subscriber) -> str:
        """Return the name of a subscriber; one without a handler has an empty name."""
        named = (each.name for each in self.of(brokers) if each.subscriber is subscriber)
        return next(named, handler_name(subscriber))

    def select(
        self, brokers: "Sequence[ManagedBroker]", selection: object, keyword: str
    ) -> "list[tuple[ManagedBroker, Subscriber]]":
        """Return the subscribers that a selection names, each once.

        Args:
            brokers: The brokers.
            selection: One selector or several.
            keyword: The keyword or method that takes the selection, for errors.

        Raises:
            SetupError: A selector is of a wrong type, or matches no subscriber or more than one.
        """
        named = self.of(brokers)
        selected = [_select(named, brokers, selector, keyword) for selector in as_tuple(selection)]
        return list(dict.fromkeys(selected))


def _name(brokers: "Sequence[ManagedBroker]") -> tuple[NamedSubscriber, ...]:
    found = []
    for broker, managed in name_brokers(brokers):
        for subscriber in managed.broker.subscribers:
            if subscriber.calls:
                destination, group = managed.driver.destination(subscriber), managed.driver.group(subscriber)
                handler = handler_name(subscriber)
                forms = (handler, f"{handler}@{destination}", f"{handler}@{destination}@{broker}")
                found.append(NamedSubscriber("", broker, destination, group, managed, subscriber, forms))
    # FastStream keeps subscribers in no defined order.
    found.sort(key=lambda each: (each.forms, each.group or ""))
    counts = Counter(form for each in found for form in each.forms)
    numbers: Counter[str] = Counter()
    named = []
    for each in found:
        name = next((form for form in each.forms if counts[form] == 1), None)
        if name is None:
            longest = each.forms[-1]
            numbers[longest] += 1
            name = f"{longest}#{numbers[longest]}"
        named.append(each._replace(name=name))
    return tuple(sorted(named, key=lambda each: each.name))


def _select(
    named: Sequence[NamedSubscriber],
    brokers: "Sequence[ManagedBroker]",
    selector: object,
    keyword: str,
) -> "tuple[ManagedBroker, Subscriber]":
    matches = [each for each in named if each.is_meant_by(selector)]
    if len(matches) == 1:
        return matches[0].managed, matches[0].subscriber
    if matches:
        msg = f"{keyword}: {_shown(selector)} can mean {_listed(matches)}. Name one of these."
        raise SetupError(msg)
    for managed in brokers:
        # One without a handler, which the application reads from, has no name.
        if selector in managed.broker.subscribers:
            return managed, selector
    if not isinstance(selector, str) and not callable(selector):
        kind = type(selector).__name__
        msg = f"{keyword} takes subscribers, their handler functions or their names, not {kind}."
        raise SetupError(msg)
    text = selector if isinstance(selector, str) else getattr(selector, "__name__", "")
    forms = {form: each.name for each in named for form in each.forms}
    close = get_close_matches(text, forms, n=1)
    suggestion = f" Did you mean {forms[close[0]]!r}?" if close else ""
    msg = (
        f"{keyword}: {_shown(selector)} is not a subscriber of these brokers.{suggestion} "
        f"Their subscribers: {_listed(named)}."
    )
    raise SetupError(msg)


def _shown(selector: object) -> str:
    if isinstance(selector, str):
        return repr(selector)
    if is_subscriber(selector):
        return f"the subscriber {handler_name(selector)!r}"
    return f"the function {getattr(selector, '__name__', type(selector).__name__)!r}"


def _listed(named: Sequence[NamedSubscriber]) -> str:
    names = [each.name for each in named[:_MAX_LISTED]]
    if more := len(named) - len(names):
        names.append(f"and {more} more")
    return ", ".join(names) or "none"
