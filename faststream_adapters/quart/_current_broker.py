"""Find the brokers of the current Quart app."""

from quart import current_app
from werkzeug.exceptions import ServiceUnavailable

from faststream_adapters._asgi.responses import RETRY_AFTER
from faststream_adapters._hosting.providing import Advice, TBroker, find_broker
from faststream_adapters._lifecycle.managed import managed_broker
from faststream_adapters._utils.errors import BrokerNotUpError

_ADVICE = Advice(
    none="pass one to QuartFastStream",
    several="create the one you need from a subclass, and pass that subclass to current_broker",
)


class _BrokerUnavailableError(BrokerNotUpError, ServiceUnavailable):
    """A BrokerNotUpError that Quart turns into a response with status 503 and Retry-After."""

    def __init__(self, kind: str, reason: BrokerNotUpError) -> None:
        ServiceUnavailable.__init__(
            self, f"The {kind} is not up.", retry_after=int(RETRY_AFTER["Retry-After"])
        )
        self._reason = reason

    def __str__(self) -> str:
        # For logs: the response contains neither the address nor the reason.
        return str(self._reason)


def current_broker(kind: type[TBroker]) -> TBroker:
    """Return the broker of a class that the current Quart app runs, in a view, a subscriber or a command.

    Args:
        kind: The class of the broker, or one of its base classes.

    Raises:
        BrokerNotProvidedError: The app does not run exactly one broker of this class.
        BrokerNotUpError: The broker is not up. Unless a view catches it, the response has status 503 and
            Retry-After.
        RuntimeError: There is no current app.
    """
    lifespans = current_app.extensions.get("faststream", ())
    broker = find_broker(kind, (each for lifespan in lifespans for each in lifespan.brokers), _ADVICE)
    managed = managed_broker(broker)
    if not managed.can_publish:
        raise _BrokerUnavailableError(type(broker).__name__, managed.not_up_error())
    return broker
