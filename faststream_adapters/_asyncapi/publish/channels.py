"""The channels that can be published to: what the subscribers consume and what the publishers send to."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from faststream_adapters._compat.channels import channel_names, declared_messages, declares_reply
from faststream_adapters._compat.faststream import is_subscriber
from faststream_adapters._lifecycle.managed import ManagedBroker
from faststream_adapters._lifecycle.targets import TargetView

from .body import MAX_DESTINATION, Body
from .sample import Sample, sample_of
from .validation import Validator

__all__ = ("AmbiguousChannelError", "Channel", "Channels", "ConfirmedError", "ReturnedError")

_NO_DRIVER = "The driver of this broker does not support publishing."
_PATTERN = "This channel is a pattern of topics. Only its consumer knows which of them it consumes by now."


class AmbiguousChannelError(Exception):
    """An address is that of several channels; the text lists them."""


class ReturnedError(Exception):
    """The server has returned the message, because nothing receives it."""


class ConfirmedError(Exception):
    """The server has confirmed the message, and so the reply of the subscriber is lost."""


class Channel:
    """A declared channel.

    Args:
        name: The name in the AsyncAPI document.
        address: The subject, the queue, the topic and so on.
        broker: The name of the broker.
        managed: The broker.
        endpoint: The subscriber that consumes it, or the publisher that sends to it.
    """

    def __init__(self, name: str, address: str, broker: str, managed: ManagedBroker, endpoint: Any) -> None:
        self.name = name
        """With the broker's name added where it is not unique."""
        self.address = address
        self.broker = broker
        self.managed = managed
        self.endpoint = endpoint
        self.is_consumed = is_subscriber(endpoint)
        """Whether a subscriber of the application consumes it."""

    @cached_property
    def reason(self) -> str:
        """Why nothing can be published to it, in words; an empty string if it can."""
        if not self.managed.driver.supports_publishing:
            return _NO_DRIVER
        return _PATTERN if self.is_pattern and not self.managed.driver.supports_patterns else ""

    @cached_property
    def is_pattern(self) -> bool:
        """Whether its address stands for many destinations, one of which a message needs."""
        return self.arguments("") is None

    def arguments(self, destination: str) -> Mapping[str, Any] | None:
        """Return the keywords of the broker's methods; none for a publisher, which knows its destination.

        Args:
            destination: The destination of the message, if this is a pattern.

        Returns:
            None if the subscriber does not get what is sent there.
        """
        if not self.is_consumed:
            return {}
        return self.managed.driver.publish_arguments(self.endpoint, self.address, destination)

    @cached_property
    def validator(self) -> Validator:
        """Validates its messages. It is made on first use, because that takes a millisecond."""
        return Validator(declared_messages(self.endpoint))

    @cached_property
    def sample(self) -> Sample:
        """The schema and an example of its messages; made in a thread."""
        items = any(declared.items for declared in declared_messages(self.endpoint))
        return sample_of(self.endpoint, items=items)

    @cached_property
    def replies(self) -> bool:
        """Whether a handler declares a result, and the broker can pass it on as a reply."""
        return (
            self.is_consumed
            and self.managed.driver.supports_request(self.endpoint)
            and declares_reply(self.endpoint)
        )

    async def publish(self, body: Body, correlation_id: str, seconds: float) -> Any:
        """Publish a message as the application does, and wait for the reply if there is one.

        Args:
            body: The message, its headers and, for a pattern, its destination.
            correlation_id: Its correlation id.
            seconds: The time for a reply.

        Returns:
            The decoded reply, or None.

        Raises:
            BrokerNotUpError: The broker is not up.
            ReturnedError: The server has returned the message.
            ConfirmedError: The message is published, but its reply is lost.
        """
        arguments = self.arguments(body.destination)
        options = {**(arguments or {}), "headers": dict(body.headers), "correlation_id": correlation_id}
        if self.replies:
            reply = await self.managed.driver.send_request(body.message, **{**options, "timeout": seconds})
            if self.managed.driver.is_confirmation(reply):
                raise ConfirmedError
            return await reply.decode()
        # A publisher adds the headers, the key and the other options that it declares.
        sender: Any = self.managed.broker if self.is_consumed else self.endpoint
        if self.managed.driver.is_returned(await sender.publish(body.message, **options)):
            raise ReturnedError
        return None


class Channels:
    """The channels of a target, made again when a subscriber, a publisher or a broker was added or removed.

    Args:
        target: The target.
    """

    def __init__(self, target: TargetView) -> None:
        self._target = target
        self._declared: list[tuple[Any, int]] = []
        self._channels: dict[str, Channel] = {}

    def all(self) -> list[Channel]:
        """Return the channels, sorted by name."""
        return list(self._current().values())

    def find(self, name: str) -> Channel | None:
        """Return the channel with a name, or else the only one with this address, or None.

        Raises:
            AmbiguousChannelError: Several channels have this address.
        """
        channels = self._current()
        if (channel := channels.get(name)) is not None:
            return channel
        found = [each for each in channels.values() if each.address == name]
        if len(found) > 1:
            names = ", ".join(each.name for each in found)
            msg = f"This can mean {names}: name one of these"
            raise AmbiguousChannelError(msg)
        return found[0] if found else None

    def hint(self, unknown: str) -> str:
        """Return a sentence that names the channel which an unknown name may mean, or an empty string."""
        if len(unknown) > MAX_DESTINATION:
            # Comparing a long text takes time.
            return ""
        channels = [each for each in self.all() if not each.reason]
        for each in channels:
            if each.is_pattern and each.arguments(unknown) is not None:
                return f" {each.name} covers it: send that as channel, and this as destination."
        forms = {form: each.name for each in channels for form in (each.address, each.name)}
        close = get_close_matches(unknown, forms, n=1)
        return f" Did you mean {forms[close[0]]!r}?" if close else ""

    def _current(self) -> dict[str, Channel]:
        # A handler may be added to a subscriber, too. Compared by identity: this keeps the objects alive.
        declared: list[tuple[Any, int]] = [
            (each, len(getattr(each, "calls", ())))
            for managed in self._target.managed_brokers
            for each in (*managed.broker.subscribers, *managed.broker.publishers)
        ]
        if declared != self._declared:
            found = sorted(self._make(), key=lambda channel: (channel.name, channel.broker))
            _name(found)
            self._channels = {channel.name: channel for channel in found}
            self._declared = declared
        return self._channels

    def _make(self) -> Iterable[Channel]:
        for broker, managed in self._target.named:
            for endpoint in (*managed.broker.subscribers, *managed.broker.publishers):
                # A subscriber without a handler is one that the application reads from itself.
                if not is_subscriber(endpoint) or endpoint.calls:
                    for name, address in channel_names(endpoint).items():
                        yield Channel(name, address, broker, managed, endpoint)


def _name(channels: Sequence[Channel]) -> None:
    """Make the names of channels unique."""
    names = Counter(channel.name for channel in channels)
    for channel in channels:
        if names[channel.name] > 1:
            channel.name = f"{channel.name}@{channel.broker}"
    names, numbers = Counter(channel.name for channel in channels), Counter[str]()
    for channel in channels:
        name = channel.name
        numbers[name] += 1
        if names[name] > 1:
            channel.name = f"{name}#{numbers[name]}"
