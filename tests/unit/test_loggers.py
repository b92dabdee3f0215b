"""An endpoint logs to the application that it reports on, else to the one that it is mounted in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from faststream import AsyncAPI, FastStream
from faststream.nats import NatsBroker, TestNatsBroker

import faststream_adapters
from faststream_adapters import (
    AsgiFastStream,
    AsgiResponse,
    BrokerLifespan,
    get,
    make_asyncapi_asgi,
    make_metrics_asgi,
)
from tests.harness.app_logs import AppLog, package_lines
from tests.harness.asgi_calls import http_scope, request
from tests.harness.scrapes import FailingRegistry

FAILING: Any = FailingRegistry()
INVALID: Any = AsyncAPI(title="\ud800")
"""A document with half of a character, which cannot be encoded."""

FAILURES = [
    "ERROR The AsyncAPI document could not be built.",
    "ERROR The metrics could not be collected.",
    "ERROR GET '/fail': the handler failed",
]


def failing_app(logger: Any) -> AsgiFastStream:
    """Return an application with endpoints that fail, and were not made for an application."""

    @get
    async def fail() -> AsgiResponse:
        raise ZeroDivisionError

    app = AsgiFastStream(asgi_routes=[("/fail", fail)], logger=logger)
    app.mount("/docs", make_asyncapi_asgi(INVALID))
    app.mount("/metrics", make_metrics_asgi(FAILING))
    return app


async def request_all(app: AsgiFastStream) -> None:
    assert [(await request(app, http_scope(path))).status for path in ("/docs", "/metrics", "/fail")] == [
        500,
        500,
        500,
    ]


def test_no_module_has_a_logger_that_no_application_can_replace() -> None:
    own = {
        # Where all others come from.
        "_utils/loggers.py",
        # The default of `logger=`, of the application and of a handler.
        "_standalone/app.py",
        "_standalone/handlers.py",
        # Loggers of uvicorn, and one that is silent.
        "_server/uvicorn.py",
        "_brokers/confluent.py",
    }
    package = Path(faststream_adapters.__file__).parent
    texts = {path.relative_to(package).as_posix(): path.read_text("utf-8") for path in package.rglob("*.py")}
    assert {name for name, text in texts.items() if "getLogger(" in text} == own


async def test_endpoints_log_to_the_application_that_they_are_mounted_in(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = AppLog()
    await request_all(failing_app(log))
    assert [line.splitlines()[0] for line in log.lines] == FAILURES
    assert package_lines(caplog.records) == []


async def test_endpoints_are_silent_in_an_application_without_a_logger(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await request_all(failing_app(None))
    assert package_lines(caplog.records) == []


async def test_endpoints_log_by_area_in_an_application_with_the_default_logger(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await request_all(failing_app(AsgiFastStream().logger))
    names = [record.name for record in caplog.records if record.name.startswith("faststream")]
    assert names == [f"faststream.adapters.{area}" for area in ("docs", "metrics", "http")]


@pytest.mark.parametrize("kind", ["app", "lifespan", "broker"])
async def test_endpoints_log_to_the_application_of_their_target(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    log, broker = AppLog(), NatsBroker()
    app = FastStream(broker, logger=log)
    lifespan = BrokerLifespan(app)
    target: Any = {"app": app, "lifespan": lifespan, "broker": broker}[kind]
    docs = make_asyncapi_asgi(target, specification=INVALID)
    metrics = make_metrics_asgi(FAILING, targets=[target])
    async with TestNatsBroker(broker), lifespan:
        # Another application that they are mounted in makes no difference then.
        AsgiFastStream(asgi_routes=[("/docs", docs), ("/metrics", metrics)], logger=None)
        assert [(await request(each, http_scope())).status for each in (docs, metrics)] == [500, 500]
    assert [line.splitlines()[0] for line in log.lines if line.startswith("ERROR")] == FAILURES[:2]
    assert package_lines(caplog.records) == []
