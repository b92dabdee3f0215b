"""Targets: what a lifespan runs and what an endpoint reports on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from faststream.exceptions import SetupError

from faststream_adapters._compat.faststream import Application, Broker, BrokerUsecase
from faststream_adapters._utils.loggers import HasLogger, Loggers

from .health_check import ManagedCheck
from .managed import ManagedBroker, managed_broker
from .selectors import NamedSubscriber, SubscriberNames, name_brokers
from .statistics import Collected

if TYPE_CHECKING:
    from .lifespan import BrokerLifespan


class HasBrokerLifespan(Protocol):
    """A BrokerLifespan, an AsgiFastStream, or an object of an adapter."""

    @property
    def broker_lifespan(self) -> "BrokerLifespan":
        """The lifespan that runs the brokers."""


Target: TypeAlias = Broker | Application | HasBrokerLifespan
"""One broker of several, or the only target."""

_KINDS = "one or more brokers, or one FastStream app, or one object with a broker_lifespan"


class ParsedTargets(NamedTuple):
    """The parsed targets of a call.

    Args:
        lifespan: The lifespan of a target that has one.
        app: The FastStream app; its brokers may change until it runs.
        brokers: The brokers, where there is no app.
    """

    lifespan: "BrokerLifespan | None"
    app: Application | None
    brokers: tuple[Broker, ...]


def parse_targets(targets: Sequence[Any], *, also: str = "") -> ParsedTargets:
    """Parse targets: the only place that accepts or rejects them.

    Args:
        targets: The positional arguments of a function that takes targets.
        also: What else the caller accepts, for the error message.

    Raises:
        SetupError: They are something else, or of different kinds, or name a broker twice.
    """
    if len(targets) == 1:
        [target] = targets
        lifespan: BrokerLifespan | None = getattr(target, "broker_lifespan", None)
        if isinstance(target, Application):
            return ParsedTargets(lifespan, target, ())
        if lifespan is not None:
            return ParsedTargets(lifespan, lifespan.app, lifespan.brokers if lifespan.app is None else ())
    if not targets or not all(isinstance(target, BrokerUsecase) for target in targets):
        kinds = ", ".join(type(target).__name__ for target in targets) or "nothing"
        msg = f"Pass {also}{_KINDS}, not {kinds}."
        raise SetupError(msg)
    if len(set(targets)) < len(targets):
        msg = "A broker is named twice: name each broker once."
        raise SetupError(msg)
    return ParsedTargets(None, None, tuple(targets))


class _LoggersOfBrokers(Loggers):
    """The loggers of the application that runs the brokers now.

    Args:
        brokers: The brokers.
    """

    def __init__(self, brokers: Sequence[Broker]) -> None:
        super().__init__()
        self._managed = [managed_broker(broker) for broker in brokers]

    @property
    def app(self) -> HasLogger | None:
        apps = (managed.driver.loggers.app for managed in self._managed)
        return next((app for app in apps if app is not None), None)


def loggers_of(targets: Sequence[Any]) -> Loggers:
    """Return the loggers of the application that the targets are, or that runs them.

    Raises:
        SetupError: They are not targets.
    """
    lifespan, app, brokers = parse_targets(targets)
    if lifespan is not None:
        return lifespan.loggers
    return _LoggersOfBrokers(brokers) if app is None else Loggers(app)


class TargetView:
    """The brokers of a target as they are now, and the lifespans that run them.

    Args:
        targets: The positional arguments of a function that takes targets.

    Raises:
        SetupError: They are not targets.
    """

    def __init__(self, targets: Sequence[Any]) -> None:
        self.lifespan, self.app, brokers = parse_targets(targets)
        self._brokers: list[Broker] = list(brokers)
        self._managed = [managed_broker(broker) for broker in self._brokers]
        self._own = [] if self.lifespan is None else [self.lifespan]
        self._names = SubscriberNames()
        self._collected = Collected.NOTHING
        self.loggers = loggers_of(targets)
        """Where lines about the target are logged."""

    @property
    def managed_brokers(self) -> list[ManagedBroker]:
        """The managed brokers, in the order of the brokers."""
        app = self.app
        if app is not None and app.brokers != self._brokers:
            self._brokers = list(app.brokers)
            self._managed = [managed_broker(broker) for broker in self._brokers]
            for managed in self._managed:
                managed.collect(self._collected)
        return self._managed

    @property
    def lifespans(self) -> "list[BrokerLifespan]":
        """The target's own lifespan, or the lifespans that run the brokers now."""
        return self._own or [lifespan for managed in self.managed_brokers for lifespan in managed.owners]

    @property
    def checks(self) -> Sequence[ManagedCheck]:
        """The health checks of the lifespans."""
        if self.lifespan is not None:
            return self.lifespan.checks
        # Two brokers may have the same lifespan.
        return [check for lifespan in dict.fromkeys(self.lifespans) for check in lifespan.checks]

    @property
    def named(self) -> list[tuple[str, ManagedBroker]]:
        """The managed brokers with names: the broker's class, and its number among those of its class."""
        return name_brokers(self.managed_brokers)

    @property
    def named_subscribers(self) -> tuple[NamedSubscriber, ...]:
        """The subscribers that have a handler, with unique names."""
        return self._names.of(self.managed_brokers)

    def collect(self, what: Collected) -> None:
        """Collect this too from now on, also of brokers that are added to an app later."""
        self._collected |= what
        if self.lifespan is not None:
            # More brokers may be added to its app before it starts.
            self.lifespan.collected |= what
        for managed in self.managed_brokers:
            managed.collect(what)
