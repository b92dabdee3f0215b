"""The table of brokers and subscribers that `info` prints, and how `run` selects by the names in it."""

from collections.abc import Callable, Iterable, Sequence

from faststream.exceptions import SetupError

from faststream_adapters._compat.faststream import Broker, Subscriber
from faststream_adapters._lifecycle.lifespan import BrokerLifespan
from faststream_adapters._lifecycle.managed import ManagedBroker, managed_broker
from faststream_adapters._lifecycle.selectors import SubscriberNames, name_brokers


def overview(lifespans: Iterable[BrokerLifespan]) -> str:
    """Return a table of brokers, subscribers and publishers, without credentials.

    Args:
        lifespans: The lifespans that run the brokers.

    Raises:
        SetupError: A selector of a lifespan names no subscriber, or more than one.
    """
    lifespans = list(lifespans)
    managed = _managed_by(lifespans)
    subscribers = SubscriberNames().of(managed)
    optional = {broker for lifespan in lifespans for broker in lifespan.optional}
    left_out: set[Subscriber] = set()
    for lifespan in lifespans:
        started, not_required = lifespan.selected()
        optional |= not_required
        if started is not None:
            left_out |= {each for broker in lifespan.brokers for each in broker.subscribers} - started
    rows = [("KIND", "NAME", "DESTINATION", "GROUP", "STATE")]
    for name, each in name_brokers(managed):
        addresses = each.driver.name.partition(" ")[2]
        rows.append(("broker", name, addresses, "", "optional" if each.broker in optional else ""))
        for named in subscribers:
            if named.managed is each:
                states = ["left out" if named.subscriber in left_out else "consumes"]
                states += ["optional"] if named.subscriber in optional else []
                state = ", ".join(states)
                rows.append(("  subscriber", named.name, named.destination, named.group or "", state))
        # FastStream keeps publishers in no defined order.
        publishers = sorted(publisher.specification.name for publisher in each.broker.publishers)
        rows += [("  publisher", publisher, "", "", "") for publisher in publishers]
    return _format_table(rows)


def _format_table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def select_subscribers(
    lifespans: Iterable[BrokerLifespan], brokers: Iterable[str], subscribers: Sequence[str]
) -> Callable[[Iterable[Broker]], frozenset[Subscriber]] | None:
    """Return a function that selects named subscribers and those of named brokers; None without a name.

    Args:
        lifespans: The lifespans that run the brokers.
        brokers: The names of brokers, as in the overview, or their classes.
        subscribers: The names of subscribers.

    Raises:
        SetupError: A name matches no broker or subscriber, or more than one.
    """
    managed = _managed_by(lifespans)
    selected = {
        subscriber for _, subscriber in SubscriberNames().select(managed, subscribers, "--subscriber")
    }
    whole = {_named_broker(managed, name) for name in brokers}
    if not selected and not whole:
        return None

    def select(brokers: Iterable[Broker]) -> frozenset[Subscriber]:
        return frozenset(
            each for broker in brokers for each in broker.subscribers if broker in whole or each in selected
        )

    return select


def _named_broker(brokers: Sequence[ManagedBroker], name: str) -> Broker:
    named = name_brokers(brokers)
    found = [each for each in named if name in {each[0], type(each[1].broker).__name__}]
    if len(found) == 1:
        return found[0][1].broker
    if found:
        msg = f"--broker: {name!r} can mean {_listed(found)}. Name one of these."
    else:
        msg = f"--broker: {name!r} is not a broker of this application. Its brokers: {_listed(named)}."
    raise SetupError(msg)


def _listed(named: Iterable[tuple[str, ManagedBroker]]) -> str:
    return ", ".join(repr(name) for name, _ in named) or "none"


def _managed_by(lifespans: Iterable[BrokerLifespan]) -> list[ManagedBroker]:
    """Return the brokers of some lifespans; one that several share is listed once."""
    brokers = dict.fromkeys(broker for lifespan in lifespans for broker in lifespan.brokers)
    return [managed_broker(broker) for broker in brokers]
