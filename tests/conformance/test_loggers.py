"""Lines about the brokers of an application go to its logger and nowhere else, in every host."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from faststream import AsyncAPI, FastStream

from tests.harness.app_logs import AppLog, package_lines
from tests.harness.hosts import StartupFailedError, serving
from tests.harness.scrapes import FailingRegistry

if TYPE_CHECKING:
    from tests.conformance.orders import Orders
    from tests.harness.hosts import Host

STATES = [
    "Brokers: stopped -> starting",
    "Brokers: starting -> running",
    "Brokers: running -> draining",
    "Brokers: draining -> stopped",
]


INVALID = "\ud800"
"""Half of a character, which no document can contain."""


class ListHandler(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self.emit = records.append  # type: ignore[assignment, method-assign]


def connect() -> None:
    raise ValueError("no route to postgres://app:hunter2@db/shop")


async def serve_once(host: Host, app: FastStream) -> None:
    async with serving(host.build(app, readiness_path="/ready")) as served:
        assert await served.status("/ready") == 200


async def fail_to_start(host: Host, app: FastStream) -> str:
    """Return the error that the server receives."""
    with pytest.raises(StartupFailedError) as failed:
        async with serving(host.build(app)):
            pytest.fail("It started without its hook.")
    return str(failed.value)


async def test_lines_go_to_the_logger_of_the_application(
    host: Host, orders: Orders, caplog: pytest.LogCaptureFixture
) -> None:
    log = AppLog()
    await serve_once(host, FastStream(orders.broker, logger=log))
    assert log.lines == [f"INFO {line}" for line in STATES]
    assert log.fields[0] == {"old": "stopped", "new": "starting"}
    assert package_lines(caplog.records) == []


async def test_lines_go_to_a_logger_of_the_standard_library(
    host: Host, orders: Orders, caplog: pytest.LogCaptureFixture
) -> None:
    records: list[logging.LogRecord] = []
    logger = logging.getLogger(f"orders.{host.name}")
    logger.setLevel(logging.INFO)
    logger.addHandler(ListHandler(records))
    await serve_once(host, FastStream(orders.broker, logger=logger))
    assert [record.getMessage() for record in records] == STATES
    assert {record.module for record in records} == {"state"}
    assert package_lines(caplog.records) == []


async def test_no_line_is_logged_for_an_application_without_a_logger(
    host: Host, orders: Orders, caplog: pytest.LogCaptureFixture
) -> None:
    await serve_once(host, FastStream(orders.broker, logger=None))
    assert package_lines(caplog.records) == []


async def test_lines_of_an_application_with_the_default_logger(
    host: Host, orders: Orders, caplog: pytest.LogCaptureFixture
) -> None:
    await serve_once(host, FastStream(orders.broker))
    assert package_lines(caplog.records) == STATES


async def test_a_failed_start_is_logged_by_the_logger_of_the_application(
    host: Host, orders: Orders, caplog: pytest.LogCaptureFixture
) -> None:
    """The traceback is in the log, or in what a host tells the server."""
    log = AppLog()
    message = await fail_to_start(host, FastStream(orders.broker, logger=log, on_startup=[connect]))
    assert f"{message}{log.text}".count("in connect") == 1
    assert "INFO Brokers: starting -> failed" in log.lines
    assert "hunter2" not in f"{message}{log.text}"
    assert package_lines(caplog.records) == []


async def test_the_server_is_told_why_an_application_without_a_logger_did_not_start(
    host: Host, orders: Orders, caplog: pytest.LogCaptureFixture
) -> None:
    message = await fail_to_start(host, FastStream(orders.broker, logger=None, on_startup=[connect]))
    assert "ValueError: no route to postgres://***@db/shop" in message
    assert "in connect" in message
    assert package_lines(caplog.records) == []


async def test_what_endpoints_cannot_make_is_logged_by_the_logger_of_the_application(
    host: Host, orders: Orders, caplog: pytest.LogCaptureFixture
) -> None:
    log = AppLog()
    app = FastStream(orders.broker, logger=log, specification=AsyncAPI(title=INVALID))
    keywords: Any = {"metrics_path": "/metrics", "metrics_registry": FailingRegistry()}
    async with serving(host.build(app, asyncapi_path="/asyncapi", **keywords)) as served:
        paths = ("/asyncapi", "/asyncapi.json", "/metrics")
        assert [await served.status(path) for path in paths] == [500, 500, 500]
    lines = [line.splitlines()[0] for line in log.lines if line.startswith("ERROR")]
    assert {*lines} == {
        "ERROR The AsyncAPI document could not be built.",
        "ERROR The metrics could not be collected.",
    }
    assert package_lines(caplog.records) == []
