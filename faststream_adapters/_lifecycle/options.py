"""The keywords of a lifespan."""

import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, TypedDict

from faststream_adapters._compat.faststream import Broker, BrokerUsecase
from faststream_adapters._utils.calls import call_problem
from faststream_adapters._utils.options import Option, boolean, documented, one_of, seconds

from .health_change import HealthChange
from .health_check import HealthCheck
from .selectors import Selection, Selector, as_tuple

State = Literal["stopped", "starting", "running", "draining", "failed"]


def _subscribers(name: str, value: object) -> str | None:
    if isinstance(value, bool) or all(isinstance(each, str) or callable(each) for each in as_tuple(value)):
        return None
    return f"{name} must be True, False or a list of subscribers, handler functions or names, not {value!r}."


def _optional(name: str, value: object) -> str | None:
    accepted = (BrokerUsecase, HealthCheck, str)
    if all(isinstance(each, accepted) or callable(each) for each in as_tuple(value)):
        return None
    return f"{name} must be a list of brokers, subscribers and checks, not {value!r}."


def _checks(name: str, value: object) -> str | None:
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return None
    return f'{name} must be a list of HealthCheck: {name}=[HealthCheck("database", ping)].'


def _plain_function(name: str, value: Any) -> str | None:
    if inspect.iscoroutinefunction(value):
        return f"{name} must be a plain function: it is called, not awaited."
    return None


def _takes_change(name: str, value: Any) -> str | None:
    return None if value is None else call_problem(name, value, None, how="with a HealthChange") or None


@documented
class LifespanKeywords(TypedDict, total=False):
    """The keywords of `BrokerLifespan`, for functions that pass them on."""

    startup: Annotated[
        Literal["strict", "background"],
        Option(
            "strict",
            '`"strict"`: the application starts when every broker is up, and fails if one is not. '
            '`"background"`: it starts at once, and is not ready until the brokers are up',
            one_of("strict", "background"),
        ),
    ]
    startup_timeout: Annotated[
        float | None,
        Option(
            None,
            "seconds for the start of the brokers; None: 20 when strict, no limit in the background",
            seconds(optional=True),
        ),
    ]
    consume: Annotated[
        bool | Selection,
        Option(
            True,
            "the [subscribers](operation.md#select-subscribers) to start; `False` or `[]`: none, to "
            "publish only",
            _subscribers,
        ),
    ]
    optional: Annotated[
        Broker | HealthCheck | Selector | Iterable[Broker | HealthCheck | Selector],
        Option(
            (),
            "brokers whose loss fails neither the start nor readiness, and [subscribers]"
            "(operation.md#select-subscribers) and checks that do not fail readiness",
            _optional,
        ),
    ]
    checks: Annotated[
        Iterable[HealthCheck],
        Option(
            (),
            "[health checks](health.md) of the application, for example of its database, for readiness",
            _checks,
        ),
    ]
    supervise: Annotated[
        bool,
        Option(
            True,
            "the client reconnects without a limit. A broker whose connection does not recover is restarted "
            "after 0.5 to 30 seconds, and so is a subscriber whose task has ended or whose consumer no "
            "longer exists on the server",
            boolean,
        ),
    ]
    drain_delay: Annotated[
        float,
        Option(
            0.0,
            'seconds between "not ready" and the shutdown, in which a load balancer stops sending requests. '
            "This requires uvicorn or another [server](servers.md#which-server-does-what) that keeps "
            "listening",
            seconds(),
        ),
    ]
    shutdown_timeout: Annotated[
        float,
        Option(20.0, "seconds for handlers to finish, and afterwards for connections to close", seconds()),
    ]
    on_state_change: Annotated[
        Callable[[State, State], object] | None,
        Option(
            None,
            "called with the old and the new state: `stopped`, `starting`, `running`, `draining`, `failed`",
            _plain_function,
        ),
    ]
    on_health_change: Annotated[
        Callable[[HealthChange], object] | None,
        Option(
            None,
            "called with a [HealthChange](health.md#changes-of-the-health) when the code of a broker, a "
            "subscriber or a check changes. A function that is not asynchronous runs in a thread",
            _takes_change,
        ),
    ]
