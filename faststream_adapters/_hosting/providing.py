"""Find the broker that an application runs, and give brokers names."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from faststream.exceptions import SetupError

from faststream_adapters._compat.faststream import Broker

TBroker = TypeVar("TBroker", bound=Broker)


class BrokerNotProvidedError(SetupError):
    """The application does not run exactly one broker of the requested class and name."""


class Advice(NamedTuple):
    """What to do about a broker that was not found.

    Args:
        none: If there is no such broker.
        several: If there are several of them.
    """

    none: str
    several: str


def find_broker(
    kind: type[TBroker], brokers: Iterable[Broker], advice: Advice, name: str | None = None
) -> TBroker:
    """Return the only broker of a class.

    Args:
        kind: The class, or one of its base classes.
        brokers: The brokers that the application runs; one may occur several times.
        advice: What to do if there is none, or if there are several.
        name: The name that all of these brokers have, for the error message.

    Raises:
        BrokerNotProvidedError: There is none, or there are several.
    """
    found = {broker for broker in brokers if isinstance(broker, kind)}
    named = "" if name is None else f" named {name!r}"
    if not found:
        msg = f"This application runs no {kind.__name__}{named}: {advice.none}."
        raise BrokerNotProvidedError(msg)
    if len(found) > 1:
        what = f"{len(found)} brokers of the class {kind.__name__}{named}"
        msg = f"This application runs {what}: {advice.several}."
        raise BrokerNotProvidedError(msg)
    return found.pop()


def check_names(
    names: Sequence[str], count: int, problem: str = "The names do not match the brokers"
) -> None:
    """Refuse names that are not different from each other, or are not as many as the brokers.

    Raises:
        SetupError: They are not.
    """
    if len(set(names)) != count or len(names) != count:
        msg = f"{problem}: pass names=(...) with {count} different names, in the order of the targets."
        raise SetupError(msg)
