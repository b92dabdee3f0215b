"""Keywords of the probes and of the status page."""

import re
from collections.abc import Mapping
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


def _check_refresh(name: str, value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_SECONDS:
        return None
    return f"{name} must be a whole number of seconds from 0 to {_MAX_SECONDS}, not {value!r}."


_LINK = re.compile(r"(?:https?:|(?![A-Za-z][A-Za-z0-9+.-]*:))[!-~]+")
"""A URL with a scheme that cannot run a script, or without a scheme."""


def _check_links(name: str, value: Any) -> str | None:
    valid = value is None or (
        isinstance(value, Mapping)
        and all(isinstance(text, str) for text in value)
        and all(isinstance(url, str) and _LINK.fullmatch(url) for url in value.values())
    )
    return (
        None
        if valid
        else f'{name} must be texts with http(s) URLs or paths: {name}={{"Runbook": "https://…"}}.'
    )


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


@documented
class StatusKeywords(SchemaKeywords, total=False):
    """Keywords of `make_status_asgi`."""

    refresh: Annotated[
        int, Option(5, "seconds after which the browser loads the page again; 0: never", _check_refresh)
    ]
    links: Annotated[
        Mapping[str, str] | None,
        Option(
            None,
            "texts and URLs of links on the page, such as to a runbook; those that are relative begin below "
            "the page",
            _check_links,
        ),
    ]
