"""The probes without a broker: arguments, and lifespans that never ran."""

import logging
from typing import Any

import pytest
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker, TestNatsBroker

from faststream_adapters import (
    AsgiFastStream,
    BrokerLifespan,
    make_liveness_asgi,
    make_ping_asgi,
    make_readiness_asgi,
    make_startup_asgi,
)
from tests.harness.clients import client, status

MAKERS = [make_ping_asgi, make_liveness_asgi, make_readiness_asgi, make_startup_asgi]


async def test_without_a_lifespan_only_readiness_fails() -> None:
    broker = NatsBroker()
    assert await status(make_readiness_asgi(broker)) == 503
    assert await status(make_liveness_asgi(broker)) == 200
    assert await status(make_startup_asgi(broker)) == 200


@pytest.mark.parametrize("make", MAKERS[1:])
async def test_a_lifespan_that_never_ran_is_logged_once(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    probe = make(BrokerLifespan(NatsBroker()), details=True)
    async with client(probe) as http:
        for _ in range(2):
            response = await http.get("/")
            assert response.status_code == 503
            assert response.json()["code"] == "not_started"
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "its lifespan never ran" in warnings[0]


async def test_under_a_test_broker_the_probes_follow_its_ping() -> None:
    broker = NatsBroker()
    app = AsgiFastStream(broker, ping_path="/ping", readiness_path="/ready")
    async with TestNatsBroker(broker, connect_only=False), app.start_lifespan_context():
        assert await status(app, "/ping") == 204
        assert await status(app, "/ready") == 200
        broker.ping.return_value = False  # type: ignore[attr-defined]
        assert await status(app, "/ping") == 500
        assert await status(app, "/ready") == 503


async def test_invalid_arguments_are_refused_when_the_endpoint_is_made() -> None:
    broker = NatsBroker()
    with pytest.raises(SetupError, match="not nothing"):
        make_ping_asgi()
    with pytest.raises(SetupError, match="not NatsBroker, float"):
        make_ping_asgi(broker, 5.0)  # type: ignore[arg-type]
    with pytest.raises(SetupError, match="timeout must be a number of seconds above 0, up to 86400, not 0"):
        make_ping_asgi(broker, timeout=0)
    with pytest.raises(SetupError, match="ttl"):
        make_ping_asgi(broker, ttl=-1)
    with pytest.raises(TypeError, match="unknown"):
        make_ping_asgi(broker, unknown=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("seconds", [True, "1", float("nan"), float("inf"), 1e308, -1])
async def test_a_duration_must_be_a_number_of_seconds(seconds: Any) -> None:
    with pytest.raises(SetupError, match="timeout must be a number of seconds above 0, up to 86400, not"):
        make_ping_asgi(NatsBroker(), timeout=seconds)
    with pytest.raises(SetupError, match="ttl must be a number of seconds from 0, up to 86400, not"):
        make_ping_asgi(NatsBroker(), ttl=seconds)


@pytest.mark.parametrize("code", [0, 99, 600, True, "200", 204.0])
async def test_a_status_must_be_an_http_status(code: Any) -> None:
    with pytest.raises(SetupError, match="ok_status must be an HTTP status from 200 to 599, not"):
        make_ping_asgi(NatsBroker(), ok_status=code)
    with pytest.raises(SetupError, match="fail_status must be an HTTP status from 200 to 599, not"):
        make_ping_asgi(NatsBroker(), fail_status=code)
