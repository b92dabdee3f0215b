"""Brokers without a driver: only the interface that all FastStream brokers share can be used."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from faststream import FastStream
from faststream._internal.configs import BrokerConfig  # noqa: TID251 (a custom broker is built on it)
from faststream.nats import NatsBroker
from faststream.specification.schema import BrokerSpec
from prometheus_client import CollectorRegistry

from faststream_adapters import (
    BrokerLifespan,
    make_liveness_asgi,
    make_metrics_asgi,
    make_ping_asgi,
    make_readiness_asgi,
)
from faststream_adapters._brokers.driver import Driver
from faststream_adapters._brokers.nats.driver import NatsDriver
from faststream_adapters._compat.faststream import BrokerUsecase
from faststream_adapters._lifecycle import managed, supervisor
from faststream_adapters._lifecycle.managed import managed_broker
from faststream_adapters._utils.errors import BrokerStartError
from faststream_adapters.testing import in_memory
from tests.harness.app_logs import AppLog, package_lines
from tests.harness.clients import client, eventually_status, status
from tests.harness.scrapes import scrape

if TYPE_CHECKING:
    from faststream_adapters._asgi.endpoint import Endpoint
    from tests.harness.servers.nats import NatsServer

NO_REPLY = object()
"""An answer for which the ping of PostBroker waits forever."""


class PostBroker(BrokerUsecase[str, object, BrokerConfig]):
    """A custom broker, whose class is not part of FastStream."""

    answer: Any = True
    connecting: asyncio.Event | None = None

    def __init__(self) -> None:
        super().__init__(
            config=BrokerConfig(),
            specification=BrokerSpec(["post://user:hunter2@office"], "post", None, None, (), None),
            routers=(),
        )

    async def _connect(self) -> object:
        if self.connecting is not None:
            self.connecting.set()
            # Some clients swallow cancellation like this.
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        return object()

    async def start(self) -> None:
        await self.connect()
        await super().start()

    async def ping(self, timeout: float | None) -> bool:  # noqa: ASYNC109 (FastStream's signature)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is NO_REPLY:
            await asyncio.Event().wait()
        return bool(self.answer)

    def subscriber(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError

    def publisher(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError

    async def publish(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError

    async def request(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError


class CustomNatsBroker(NatsBroker):
    """A subclass of NatsBroker that an application defines."""


FAILING_PINGS = {
    "returns False": (False, "error"),
    "never returns": (NO_REPLY, "timeout"),
    "raises": (KeyError("post://user:hunter2@office"), "error"),
    "connection refused": (ConnectionRefusedError(), "unreachable"),
}


async def details(probe: Endpoint) -> Any:
    """Return the details that a probe answers with."""
    async with client(probe) as http:
        response = await http.get("/")
    assert "hunter2" not in response.text
    return response.json()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        pytest.param(*values, id=name, marks=[] if name == "never returns" else pytest.mark.full)
        for name, values in FAILING_PINGS.items()
    ],
)
async def test_the_ping_of_a_custom_broker_decides_readiness(
    answer: object, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faststream_adapters._brokers.driver.PING_TIMEOUT", 0.5)
    broker = PostBroker()
    assert type(managed_broker(broker).driver) is Driver
    ready, ping = make_readiness_asgi(broker, timeout=0.2), make_ping_asgi(broker, timeout=0.2)
    metrics = make_metrics_asgi(CollectorRegistry(), targets=[broker])
    async with BrokerLifespan(broker):
        assert (await scrape(metrics))("faststream_adapters_ready") == 1
        assert [await status(ready), await status(ping)] == [200, 204]
        broker.answer = answer
        start = time.monotonic()
        assert [await status(ready), await status(ping)] == [503, 500]
        # The probe does not wait for the ping itself.
        assert time.monotonic() - start < 10.0
        # Only the probes check a broker whose client is unknown.
        async with asyncio.timeout(10):
            while (await scrape(metrics)).broker_metric("up", "PostBroker 1"):  # noqa: ASYNC110 (no event)
                await asyncio.sleep(0.01)
        assert (await details(make_readiness_asgi(broker, timeout=0.2, details=True)))["code"] == code
        assert await status(make_liveness_asgi(broker)) == 200
        broker.answer = True
        # A pending ping times out after PING_TIMEOUT.
        await eventually_status(ready, 200)
    assert not broker.running


@pytest.mark.parametrize(("answer", "code"), FAILING_PINGS.values(), ids=FAILING_PINGS)
async def test_a_failing_ping_fails_the_start(answer: object, code: str) -> None:
    broker = PostBroker()
    broker.answer = answer
    with pytest.raises(BrokerStartError, match="PostBroker post://office could not be started") as failed:
        await BrokerLifespan(broker, startup_timeout=0.5).enter()
    assert "hunter2" not in str(failed.value)
    assert not broker.running


@pytest.mark.parametrize("answer", [True, False], ids=["start succeeds", "start fails"])
async def test_a_start_that_swallows_its_cancellation_leaves_nothing_up(answer: bool) -> None:
    broker = PostBroker()
    broker.answer, broker.connecting = answer, asyncio.Event()
    starting = asyncio.create_task(BrokerLifespan(broker).enter())
    await broker.connecting.wait()
    starting.cancel()
    await asyncio.wait((starting,), timeout=10.0)
    assert starting.cancelled()
    assert (managed_broker(broker).up, managed_broker(broker).error, broker.running) == (False, None, False)
    broker.answer, broker.connecting = True, None
    async with BrokerLifespan(broker):
        assert await status(make_readiness_asgi(broker)) == 200


async def test_an_abort_that_never_ends_is_abandoned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker = PostBroker()
    broker.answer = False

    async def stop(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(broker, "stop", stop)
    monkeypatch.setattr(managed, "ABORT_TIMEOUT", 0.1)
    start = time.monotonic()
    with pytest.raises(BrokerStartError, match="PostBroker post://office could not be started"):
        await BrokerLifespan(broker).enter()
    assert time.monotonic() - start < 10.0
    assert "PostBroker post://office did not stop in time: it is abandoned." in caplog.text


async def test_an_optional_custom_broker_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.05)
    required, optional = PostBroker(), PostBroker()
    probe = make_readiness_asgi(required, optional, details=True)
    async with BrokerLifespan(required, optional, optional=[optional]):

        async def wait_for_code(code: str) -> None:
            report: Any = None
            async with asyncio.timeout(15.0):
                while report is None or report["checks"]["PostBroker"][1]["code"] != code:
                    report = await details(probe)
                    await asyncio.sleep(0.05)

        await wait_for_code("ok")
        optional.answer = False
        await wait_for_code("error")


async def test_a_subclass_of_natsbroker_uses_the_nats_driver(shared_nats: NatsServer) -> None:
    broker = CustomNatsBroker(shared_nats.url)
    assert type(managed_broker(broker).driver) is NatsDriver
    async with BrokerLifespan(broker):
        report = await details(make_readiness_asgi(broker, details=True))
    assert report["checks"]["CustomNatsBroker"][0]["code"] == "ok"


async def test_without_a_test_broker_it_cannot_run_in_memory() -> None:
    with in_memory(), pytest.raises(BrokerStartError, match="FastStream has no TestBroker for its class"):
        async with BrokerLifespan(PostBroker())():
            raise AssertionError


async def test_an_error_of_a_check_is_logged_by_the_logger_of_the_application(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also if a probe has begun the check, in a task of its request."""
    broker, log = PostBroker(), AppLog()
    app = FastStream(broker, logger=log)
    async with BrokerLifespan(app):
        broker.answer = ZeroDivisionError()
        assert await status(make_readiness_asgi(app)) == 503
    assert "WARNING PostBroker post://office: the check raised ZeroDivisionError." in log.lines
    assert package_lines(caplog.records) == []
