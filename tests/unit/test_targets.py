"""Targets: all functions that take them accept and refuse the same ones, with the same messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import faststream
import pytest
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker, NatsRouter

from faststream_adapters import (
    BrokerLifespan,
    make_asyncapi_asgi,
    make_liveness_asgi,
    make_metrics_asgi,
    make_ping_asgi,
    make_readiness_asgi,
    make_startup_asgi,
)
from faststream_adapters.quart import QuartFastStream
from faststream_adapters.testing import assert_asyncapi
from tests.harness.hosts import HOSTS

if TYPE_CHECKING:
    from collections.abc import Callable

NATS = "nats://127.0.0.1:1"


def assert_documented(*targets: Any) -> None:
    with pytest.raises(FileNotFoundError):
        assert_asyncapi(targets, "missing.json")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "lifespan": BrokerLifespan,
    "ping": make_ping_asgi,
    "liveness": make_liveness_asgi,
    "readiness": make_readiness_asgi,
    "startup": make_startup_asgi,
    "metrics": lambda *targets: make_metrics_asgi(targets=targets or ("",)),
    "docs": make_asyncapi_asgi,
    "assert_asyncapi": assert_documented,
    **{name: host.adapter for name, host in HOSTS.items() if host.lifespans},
}

OBJECTS_WITH_A_LIFESPAN: dict[str, Callable[[NatsBroker], Any]] = {
    "lifespan": BrokerLifespan,
    **{name: host.adapter for name, host in HOSTS.items()},
}


@pytest.fixture(params=list(FUNCTIONS.values()), ids=list(FUNCTIONS))
def take(request: pytest.FixtureRequest) -> Callable[..., Any]:
    function: Callable[..., Any] = request.param
    return function


def test_brokers_are_accepted(take: Callable[..., Any]) -> None:
    take(NatsBroker(NATS))
    take(NatsBroker(NATS), NatsBroker(NATS))


def test_an_app_is_accepted(take: Callable[..., Any]) -> None:
    take(faststream.FastStream(NatsBroker(NATS)))


@pytest.mark.parametrize("create", list(OBJECTS_WITH_A_LIFESPAN.values()), ids=list(OBJECTS_WITH_A_LIFESPAN))
def test_an_object_with_a_lifespan_is_accepted(
    take: Callable[..., Any], create: Callable[[NatsBroker], Any]
) -> None:
    broker = NatsBroker(NATS)
    target = create(broker)
    assert isinstance(target.broker_lifespan, BrokerLifespan)
    assert target.broker_lifespan.brokers == (broker,)
    if take is BrokerLifespan and create != HOSTS["standalone"].adapter:
        # A second lifespan would start the brokers again.
        with pytest.raises(SetupError, match="A BrokerLifespan runs these brokers already: use that one"):
            take(target)
        return
    taken = take(target)
    if take is not BrokerLifespan and hasattr(taken, "broker_lifespan"):
        assert taken.broker_lifespan is target.broker_lifespan


@pytest.mark.parametrize(
    ("targets", "kinds"),
    [
        (("nats://localhost",), "str"),
        ((NatsRouter(),), "NatsRouter"),
        ((faststream.FastStream(), NatsBroker(NATS)), "FastStream, NatsBroker"),
        ((BrokerLifespan(NatsBroker(NATS)), NatsBroker(NATS)), "BrokerLifespan, NatsBroker"),
        ((faststream.FastStream(), faststream.FastStream()), "FastStream, FastStream"),
    ],
)
def test_targets_of_a_wrong_kind_are_refused(
    take: Callable[..., Any], targets: tuple[Any, ...], kinds: str
) -> None:
    message = (
        rf"one or more brokers, or one FastStream app, or one object with a broker_lifespan, not {kinds}\.$"
    )
    with pytest.raises(SetupError, match=message):
        take(*targets)


def test_an_empty_list_of_targets_is_refused(take: Callable[..., Any]) -> None:
    with pytest.raises(SetupError, match=r"one or more brokers, .*, not (nothing|str)"):
        take()


def test_a_repeated_broker_is_refused(take: Callable[..., Any]) -> None:
    broker = NatsBroker(NATS)
    with pytest.raises(SetupError, match=r"^A broker is named twice: name each broker once\.$"):
        take(broker, broker)


def test_a_quart_extension_without_an_app_has_no_lifespan() -> None:
    with pytest.raises(SetupError, match="call init_app"):
        _ = QuartFastStream(NatsBroker(NATS)).broker_lifespan
