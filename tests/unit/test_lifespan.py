"""BrokerLifespan without a connection: arguments, draining and test brokers."""

import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

import pytest
from faststream import Context, FastStream
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker, TestNatsBroker

from faststream_adapters import AsgiFastStream, BrokerLifespan, HealthCheck
from faststream_adapters._lifecycle.options import State
from tests.harness.consumer import consumer, round_trip


async def test_draining_before_the_startup_does_not_wait() -> None:
    called: list[str] = []
    BrokerLifespan(NatsBroker(), drain_delay=60).drain(lambda: called.append("stop"))
    assert called == ["stop"]


async def test_a_lifespan_runs_under_a_test_broker() -> None:
    broker, received = consumer("nats://127.0.0.1:1")
    lifespan = BrokerLifespan(broker)
    async with TestNatsBroker(broker, connect_only=False), lifespan():
        assert str(lifespan.state) == "running"
        await round_trip(broker, received)


async def test_hooks_and_the_lifespan_of_an_app_get_the_host() -> None:
    seen: list[object] = []

    @asynccontextmanager
    async def lifespan(host: Annotated[object, Context("host")]) -> AsyncIterator[None]:
        seen.append(host)
        yield
        seen.append(host)

    def hook(host: Annotated[object, Context("host")]) -> None:
        seen.append(host)

    broker = NatsBroker()
    hooks: Any = {name: [hook] for name in ("on_startup", "after_startup", "on_shutdown", "after_shutdown")}
    broker_lifespan = BrokerLifespan(FastStream(broker, lifespan=lifespan, **hooks))
    hosts = object(), object()
    for host in hosts:
        async with TestNatsBroker(broker), broker_lifespan(host):
            pass
    assert seen == [hosts[0]] * 6 + [hosts[1]] * 6


CHECK = HealthCheck("database", print)


def _function() -> None: ...


def _generator() -> Iterator[None]:
    yield  # pragma: no cover (a context manager that is not entered)


async def _coroutine(old: State, new: State) -> None: ...


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"startup": "later"}, "startup must be"),
        ({"startup_timeout": -1}, "startup_timeout must be"),
        (
            {"startup_timeout": "5"},
            "startup_timeout must be a number of seconds that is not negative, not '5'",
        ),
        (
            {"consume": None},
            "consume must be True, False or a list of subscribers, handler functions or names",
        ),
        ({"consume": [7]}, r"consume must be True, False or a list of .*, not \[7\]"),
        ({"supervise": 1}, "supervise must be True or False"),
        ({"drain_delay": math.nan}, "drain_delay must be"),
        ({"shutdown_timeout": -0.5}, "shutdown_timeout must be"),
        ({"on_state_change": _coroutine}, "plain function"),
        ({"on_health_change": 1}, "on_health_change must be a function, not int"),
        ({"on_health_change": _function}, "on_health_change is called with a HealthChange"),
        ({"on_health_change": _generator}, "on_health_change must not be a generator function"),
        ({"optional": [NatsBroker()]}, "optional names a broker"),
        ({"optional": NatsBroker()}, "optional names a broker"),
        ({"optional": CHECK}, "optional names the check 'database', which is not in checks"),
        ({"optional": [7]}, r"optional must be a list of brokers, subscribers and checks, not \[7\]"),
        ({"optional": [CHECK]}, "optional names the check 'database', which is not in checks"),
        ({"checks": CHECK}, "checks must be a list of HealthCheck"),
        ({"checks": "database"}, "checks must be a list of HealthCheck"),
        ({"checks": [print]}, r"checks contains builtin_function_or_method: write checks=\["),
        ({"checks": [CHECK, HealthCheck("database", print)]}, "Two of the checks are named 'database'"),
    ],
)
def test_invalid_keywords_are_refused(keywords: Any, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        BrokerLifespan(NatsBroker(), **keywords)


def test_invalid_targets_are_refused() -> None:
    broker = NatsBroker()
    with pytest.raises(SetupError, match="not nothing"):
        BrokerLifespan()
    with pytest.raises(SetupError, match="not NatsBroker, str"):
        BrokerLifespan(broker, "nats://localhost")  # type: ignore[arg-type]
    with pytest.raises(SetupError, match="twice"):
        BrokerLifespan(broker, broker)
    with pytest.raises(TypeError, match="unknown"):
        BrokerLifespan(broker, unknown=1)  # type: ignore[call-arg]


async def _async_function() -> None: ...


async def _async_generator() -> AsyncIterator[None]:
    yield


class _ContextClass:
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    "function", [_function, _generator, _async_function, _async_generator, contextmanager(_generator)]
)
async def test_a_lifespan_of_an_app_must_be_a_context_manager(function: Any) -> None:
    name = function.__name__
    for entered in (
        BrokerLifespan(FastStream(NatsBroker(), lifespan=function))(),
        AsgiFastStream(NatsBroker(), lifespan=function).start_lifespan_context(),
    ):
        with pytest.raises(SetupError, match=f"^lifespan={name} is no async context manager: .*decorate it"):
            await entered.__aenter__()


@pytest.mark.parametrize("lifespan", [asynccontextmanager(_async_generator), _ContextClass])
async def test_a_lifespan_of_an_app_can_be_a_function_or_a_class(lifespan: Any) -> None:
    broker = NatsBroker()
    running = BrokerLifespan(FastStream(broker, lifespan=lifespan))
    async with TestNatsBroker(broker), running:
        assert str(running.state) == "running"


async def test_two_lifespans_of_one_host_are_told_to_share_one(caplog: pytest.LogCaptureFixture) -> None:
    broker, app = NatsBroker(), object()
    one, two, three = (BrokerLifespan(broker) for _ in range(3))
    async with TestNatsBroker(broker), one(app), two(app), three(app):
        assert caplog.text.count("is run by two lifespans of one application: make one BrokerLifespan") == 1
    async with TestNatsBroker(broker), one(app), one(app), two():
        assert caplog.text.count("is run by two lifespans") == 1
