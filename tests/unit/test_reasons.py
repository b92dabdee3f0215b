"""Why a broker could not be started, in words."""

from __future__ import annotations

from socket import gaierror

import pytest
from aiormq.exceptions import ChannelPreconditionFailed
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker
from nats.js.errors import NotFoundError
from redis.exceptions import ResponseError

from faststream_adapters._brokers.registry import driver_for
from faststream_adapters._lifecycle.reasons import start_failure

PRECONDITION = "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'orders'"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ChannelPreconditionFailed(PRECONDITION), f"ChannelPreconditionFailed: {PRECONDITION}"),
        (
            NotFoundError(code=404, err_code=10059, description="stream not found"),
            "NotFoundError: nats: NotFoundError: code=404 err_code=10059 description='stream not found'",
        ),
        (ResponseError("wrong kind of value.\nand more"), "ResponseError: wrong kind of value"),
        (ExceptionGroup("several", [ResponseError("first"), KeyError()]), "ResponseError: first"),
        (KeyError(), "KeyError"),
        (KeyError("nats://user:hunter2@host"), "KeyError: 'nats://***@host'"),
        (RuntimeError("x" * 1000), "RuntimeError: " + "x" * 300),
        (SetupError("Pass a URL."), "Pass a URL"),
        (gaierror(), "its host name could not be resolved"),
        (ConnectionRefusedError(), "the connection was refused"),
        (None, "it did not reply in time"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_the_reason_keeps_the_servers_own_words(error: Exception | None, reason: str) -> None:
    assert start_failure(driver_for(NatsBroker()), error) == reason


def test_what_the_client_has_met_says_more_than_that_it_gave_up() -> None:
    driver = driver_for(NatsBroker())
    driver.last_error = ConnectionRefusedError()
    assert start_failure(driver, TimeoutError()) == "the connection was refused"
