"""The codes of health checks.

A code is a fixed word for the health of a broker or a subscriber. It never contains the text of an exception,
which may contain a secret.
"""

from typing import Literal, get_args

BrokerCode = Literal["ok", "timeout", "unreachable", "auth_failed", "closed", "not_started", "error"]
"""The codes of brokers."""

SubscriberCode = Literal[
    "ok",
    "stopped",
    "paused",
    "not_started",
    "task_failed",
    "consumer_missing",
    "consumer_mismatch",
    "consumer_paused",
    "not_permitted",
    "timeout",
    "error",
]
"""The codes of subscribers.

"stopped" means that the application has stopped it, or that `consume=` leaves it out, "paused" that `pause()`
has stopped it, "consumer_mismatch" that the server has something else than what the code declares.
"""

NO_FAULTS: frozenset[object] = frozenset({"ok", "stopped", "paused"})
"""The codes of subscribers that do what the application wants."""

ProbeCode = Literal["starting", "draining", "failed", "handler_stuck", "check_failed", "no_brokers"]
"""The codes of probes, in addition to those of brokers and subscribers.

"check_failed" is also the code of a health check of the application that has failed.
"""

Code = BrokerCode | SubscriberCode | ProbeCode

CODES: frozenset[Code] = frozenset(
    code for kind in (BrokerCode, SubscriberCode, ProbeCode) for code in get_args(kind)
)
"""All codes."""
