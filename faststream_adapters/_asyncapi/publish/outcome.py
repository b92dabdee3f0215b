"""What came of a request to publish, for programs and for the page."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from .channels import Channel
from .validation import FieldError

__all__ = ("Outcome",)


class Outcome(NamedTuple):
    """What came of a request.

    Args:
        status: The HTTP status.
        detail: The outcome in words, without the message.
        channel: The channel, if it is known.
        correlation_id: The correlation id of the message, if that is valid.
        errors: What is wrong with the fields of the request.
        published: Whether the message was published.
        reply: The reply of the subscriber, as JSON can represent it.
    """

    status: int
    detail: str
    channel: Channel | None = None
    correlation_id: str = ""
    errors: Sequence[FieldError] = ()
    published: bool = False
    reply: Any = None

    def data(self) -> dict[str, Any]:
        """Return the body of the JSON response."""
        data: dict[str, Any] = {"detail": self.detail}
        if self.errors:
            data["errors"] = list(self.errors)
        if self.channel is not None and self.correlation_id:
            data |= {
                "channel": self.channel.name,
                "correlation_id": self.correlation_id,
                "published": self.published,
            }
            if self.channel.replies and self.published:
                data["reply"] = self.reply
        return data
