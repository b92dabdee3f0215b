"""Lines about a broker go to the logger of the application that runs it."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from faststream import FastStream
from faststream.exceptions import IncorrectState
from faststream.nats import NatsBroker

from faststream_adapters import AsgiFastStream, BrokerLifespan, make_readiness_asgi
from faststream_adapters._lifecycle.managed import managed_broker
from tests.harness.app_logs import AppLog, package_lines
from tests.harness.brokers import ALL_HARNESSES
from tests.harness.clients import client
from tests.harness.servers import hold_port
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from faststream_adapters._compat.faststream import Broker
    from tests.harness.servers.broker import BrokerServer
    from tests.harness.servers.nats import NatsFactory, NatsServer

FAST: Any = {"reconnect_time_wait": 0.1}


async def lose_and_restore(broker: Broker, server: BrokerServer) -> None:
    """Kill and start the server; return when supervision has seen both."""
    managed = managed_broker(broker)

    def replies() -> bool:
        return managed.broker_check.last is not None and managed.broker_check.last.ok

    await eventually(replies)
    server.kill()
    await eventually(lambda: not replies(), 20.0)
    checked = managed.monitor.last_server_check
    server.start()
    await eventually(lambda: managed.monitor.last_server_check > checked, 60.0)


def broker_lines(log: AppLog) -> list[str]:
    return [line for line in log.lines if "Brokers: " not in line]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind == "nats" else pytest.mark.full) for kind in ALL_HARNESSES]
)
async def test_a_lost_connection(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    harness = ALL_HARNESSES[kind]
    if (reason := harness.missing()) is not None:  # pragma: no cover (all servers are installed)
        pytest.skip(reason)
    log = AppLog()
    with harness.server() as server:
        broker = harness.broker(server.url)
        async with BrokerLifespan(FastStream(broker, logger=log)):
            await lose_and_restore(broker, server)
    assert "WARNING Lost connection to " in log.text
    assert "INFO Reconnected to " in log.text
    assert {fields["broker"] for fields in log.fields if "broker" in fields} == {
        managed_broker(broker).driver.name
    }
    assert package_lines(caplog.records) == []


async def test_an_application_without_a_logger_is_silent(
    nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    broker = NatsBroker(nats.url, **FAST)
    async with BrokerLifespan(FastStream(broker, logger=None)):
        await lose_and_restore(broker, nats)
        closed = broker.connection
        await closed.close()
        await eventually(lambda: managed_broker(broker).up and broker.connection is not closed)
    assert package_lines(caplog.records) == []


@pytest.mark.full
async def test_applications_with_different_loggers_do_not_mix(
    nats_factory: NatsFactory, caplog: pytest.LogCaptureFixture
) -> None:
    services = [
        (NatsBroker(server.url, **FAST), server, AppLog()) for server in (nats_factory(), nats_factory())
    ]
    first, second = (BrokerLifespan(FastStream(broker, logger=log)) for broker, _, log in services)
    async with first, second, asyncio.TaskGroup() as tasks:
        for broker, server, _ in services:
            tasks.create_task(lose_and_restore(broker, server))
    for _, server, log in services:
        [lost, back] = broker_lines(log)
        assert lost.startswith(f"WARNING Lost connection to NatsBroker {server.url}: ")
        assert back == f"INFO Reconnected to NatsBroker {server.url}."
    assert package_lines(caplog.records) == []


@pytest.mark.full
async def test_a_shared_broker_logs_to_the_application_whose_lifespan_was_entered_first(
    nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """When that lifespan has ended, to the next one."""
    broker, logs = NatsBroker(nats.url, **FAST), [AppLog(), AppLog()]
    first, second = (BrokerLifespan(FastStream(broker, logger=log)) for log in logs)
    await first.enter()
    async with second:
        await lose_and_restore(broker, nats)
        assert [len(broker_lines(log)) for log in logs] == [2, 0]
        await first.leave()
        await lose_and_restore(broker, nats)
    assert [len(broker_lines(log)) for log in logs] == [2, 2]
    assert package_lines(caplog.records) == []


async def test_a_broker_that_is_handed_over_logs_its_end_to_the_application_that_it_leaves(
    shared_nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The next lifespan starts while the handler of the last one has not finished."""
    broker, logs = NatsBroker(shared_nats.url), [AppLog(), AppLog()]
    subject = f"loggers.{uuid.uuid4().hex}"
    handling = asyncio.Event()

    @broker.subscriber(subject)
    async def handle(_: str) -> None:
        handling.set()
        await asyncio.Event().wait()

    first, second = (BrokerLifespan(FastStream(broker, logger=log), shutdown_timeout=0.2) for log in logs)
    await first.enter()
    await broker.publish("", subject)
    await handling.wait()
    stopping = asyncio.create_task(first.leave())
    await eventually(lambda: not managed_broker(broker).owners)
    async with second:
        await stopping
    [line] = broker_lines(logs[0])
    assert "its handlers are cut off" in line
    # The start of the second one may take so long that it says that it waits.
    assert line not in broker_lines(logs[1])
    assert package_lines(caplog.records) == []


async def test_a_start_in_the_background(caplog: pytest.LogCaptureFixture) -> None:
    log = AppLog()
    port, held = hold_port()
    with held or nullcontext():
        broker = NatsBroker(f"nats://127.0.0.1:{port}", logger=None, max_reconnect_attempts=0)
        async with BrokerLifespan(FastStream(broker, logger=log), startup="background"):
            await eventually(lambda: len(broker_lines(log)) > 0)
    assert "WARNING NatsBroker nats://127.0.0.1:" in log.text
    assert "is not up" in log.text
    assert package_lines(caplog.records) == []


async def test_a_probe_whose_lifespan_never_ran(caplog: pytest.LogCaptureFixture) -> None:
    log = AppLog()
    app = AsgiFastStream(NatsBroker(), logger=log)
    async with client(make_readiness_asgi(app)) as http:
        assert (await http.get("/")).text == "not_started"
    [line] = log.lines
    assert "its lifespan never ran" in line
    assert package_lines(caplog.records) == []


async def test_a_logger_that_raises_stops_nothing(
    shared_nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def log(self, level: int, msg: object, /, *, exc_info: object = None, extra: object = None) -> None:
            raise ZeroDivisionError(level, msg, exc_info, extra)

    broker = NatsBroker(shared_nats.url)
    async with BrokerLifespan(FastStream(broker, logger=Broken())):
        await broker.ping(timeout=1.0)
    with pytest.raises(IncorrectState):
        _ = broker.connection
    assert package_lines(caplog.records)[0] == (
        "Brokers: stopped -> starting (The application's logger raised ZeroDivisionError.)"
    )


async def test_a_logger_that_is_replaced(shared_nats: NatsServer) -> None:
    before, after = AppLog(), AppLog()
    app = FastStream(NatsBroker(shared_nats.url), logger=before)
    async with BrokerLifespan(app):
        app.logger = after
    assert before.lines == ["INFO Brokers: stopped -> starting", "INFO Brokers: starting -> running"]
    assert after.lines == ["INFO Brokers: running -> draining", "INFO Brokers: draining -> stopped"]
