"""Keywords of the probes."""

from typing import Annotated, Any

from faststream_adapters._asgi.endpoint import SchemaKeywords
from faststream_adapters._utils.options import Option, boolean, documented, seconds

PROBE_TIMEOUT = 0.9
"""Seconds. The kubelet waits 1 s for a probe by default."""

_MAX_SECONDS = 24 * 60 * 60
"""The longest duration accepted. Timers cannot be set for arbitrarily large numbers."""

_MIN_STATUS, _MAX_STATUS = 200, 599


def _check_status(name: str, value: Any) -> str | None:
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if value is None or (is_int and _MIN_STATUS <= value <= _MAX_STATUS):
        return None
    return f"{name} must be an HTTP status from {_MIN_STATUS} to {_MAX_STATUS}, not {value!r}."


OK_STATUS = Option(
    None, "the HTTP status of success; None: 200, or 204 for a ping without details", _check_status
)
FAIL_STATUS = Option(None, "the HTTP status of failure; None: 503, or 500 for a ping", _check_status)
TIMEOUT = Option(
    PROBE_TIMEOUT,
    "seconds after which a probe responds, without waiting longer for brokers",
    seconds(above=0, maximum=_MAX_SECONDS, optional=True),
)
TTL = Option(
    0.0,
    "seconds for which the reply of a broker, or the result of a check, is reused",
    seconds(maximum=_MAX_SECONDS),
)
DETAILS = Option(
    False,
    "respond with `application/health+json`: the status of each broker, subscriber and check, without URLs "
    "and exception texts",
    boolean,
)
MAX_HANDLER_AGE = Option(
    None,
    "liveness only: seconds that a handler may take for a message before liveness fails; None: no limit",
    seconds(above=0, maximum=_MAX_SECONDS, optional=True),
)


@documented
class ProbeKeywords(SchemaKeywords, total=False):
    """Keywords of all `make_*_asgi` probes."""

    ok_status: Annotated[int | None, OK_STATUS]
    fail_status: Annotated[int | None, FAIL_STATUS]
    timeout: Annotated[float | None, TIMEOUT]
    ttl: Annotated[float, TTL]
    details: Annotated[bool, DETAILS]


@documented
class LivenessKeywords(ProbeKeywords, total=False):
    """Keywords of `make_liveness_asgi`."""

    max_handler_age: Annotated[float | None, MAX_HANDLER_AGE]
