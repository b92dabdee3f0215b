"""Several brokers of different kinds in one application."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest

from faststream_adapters import BrokerLifespan, make_liveness_asgi, make_ping_asgi, make_readiness_asgi
from faststream_adapters._lifecycle.managed import managed_broker
from faststream_adapters._utils.errors import BrokerStartError
from tests.harness.brokers import HARNESSES, BrokerHarness
from tests.harness.brokers.shared import shared_server
from tests.harness.clients import client, eventually_status, status
from tests.harness.hosts import HOSTS, HostApp, serving
from tests.harness.servers import hold_port
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from faststream_adapters._compat.faststream import Broker
    from tests.harness.servers.broker import BrokerServer
    from tests.harness.servers.nats import NatsServer

KINDS = {name: harness for name, harness in HARNESSES.items() if not harness.missing()}
"""The kinds whose servers and clients are installed."""

FAST_KINDS = tuple(name for name, harness in KINDS.items() if harness.starts_fast)

TIMEOUT = 60.0
"""Seconds that the slowest kind may take to connect and consume on a busy machine."""

pytestmark = pytest.mark.timeout(240)


def kinds(names: tuple[str, ...] = tuple(KINDS), default: str = "redis") -> list[Any]:
    """Return parameters for each kind; all except the default run only in the full run.

    Without the default, the first one takes its place.
    """
    if default not in names:  # pragma: no cover (installed where skips are forbidden)
        default = names[0]
    return [pytest.param(name, marks=[] if name == default else pytest.mark.full) for name in names]


class Service:
    """A broker with one subscriber, whose handler awaits `finish` before it records a message."""

    def __init__(self, harness: BrokerHarness, url: str) -> None:
        self.harness = harness
        self.broker: Broker = harness.broker(url)
        self.channel = f"{harness.name}-{uuid.uuid4().hex}"
        self.started = asyncio.Event()
        self.handled: list[int] = []
        self.finish: Callable[[], Awaitable[None]] = self._finish_immediately
        harness.subscribe(self.broker, self.channel, self.handle)

    async def handle(self, number: int) -> None:
        self.started.set()
        await self.finish()
        self.handled.append(number)

    async def _finish_immediately(self) -> None:
        pass

    @property
    def up(self) -> bool:
        return managed_broker(self.broker).up

    async def publish(self, number: int) -> None:
        await self.harness.publish(self.broker, number, self.channel)

    async def publish_and_handle(self, number: int = 1) -> None:
        """Publish a number, repeatedly if necessary, until the subscriber has handled it."""
        async with asyncio.timeout(TIMEOUT):
            # A Kafka consumer that starts at the end of its topic may miss the first messages.
            while number not in self.handled:
                await self.publish(number)
                with suppress(TimeoutError):
                    await eventually(lambda: number in self.handled, 0.3)


def make_services(names: tuple[str, ...] = FAST_KINDS) -> dict[str, Service]:
    """Return a service of each kind, on the shared servers, which tests leave running."""
    return {name: Service(HARNESSES[name], shared_server(HARNESSES[name]).url) for name in names}


def brokers_of(services: dict[str, Service]) -> list[Broker]:
    return [service.broker for service in services.values()]


@pytest.fixture
def servers() -> Iterator[Callable[[str], BrokerServer]]:
    """Return a function that starts a server which belongs to this test alone."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(HARNESSES[name].server())


async def health(*brokers: Broker) -> tuple[int, Any]:
    """Return the status code and the details of readiness."""
    async with client(make_readiness_asgi(*brokers, details=True)) as http:
        response = await http.get("/")
        return response.status_code, response.json()


async def eventually_all_pass(*brokers: Broker) -> None:
    """Wait until no broker has a fault, optional ones included."""
    report: Any = {}
    async with asyncio.timeout(TIMEOUT):
        while report.get("status") != "pass":
            _, report = await health(*brokers)
            await asyncio.sleep(0.02)
    assert all(managed_broker(broker).up for broker in brokers)


@pytest.mark.parametrize("host", ["standalone", "fastapi", "litestar"])
async def test_brokers_of_several_kinds_work_in_one_application(host: str) -> None:
    services = make_services()
    brokers = brokers_of(services)

    async def publish() -> str:
        for service in services.values():
            await service.publish(7)
        return "published"

    app = HOSTS[host].build(
        *brokers,
        host_app=HostApp(hello=publish),
        readiness_path="/ready",
        probe_details=True,
        asyncapi_path="/asyncapi",
    )
    async with serving(app) as served:
        response = await served.http.get("/ready")
        document = (await served.http.get("/asyncapi.json")).json()
        assert await served.text("/hello") == "published"
        await eventually(lambda: all(service.handled == [7] for service in services.values()))
    assert not any(broker.running for broker in brokers)
    assert response.status_code == 200
    assert {kind: _codes(checks) for kind, checks in response.json()["checks"].items()} == {
        kind: {f"{kind} 1": "ok", "handle": "ok"} for kind in (type(broker).__name__ for broker in brokers)
    }
    assert _protocols(document) == {name: HARNESSES[name].protocol for name in services}


@pytest.mark.full
async def test_brokers_of_all_kinds_work_in_one_application() -> None:
    services = make_services(tuple(KINDS))
    brokers = brokers_of(services)
    app = HOSTS["standalone"].build(*brokers, asyncapi_path="/asyncapi")
    async with serving(app) as served:
        for service in services.values():
            await service.publish_and_handle()
        document = (await served.http.get("/asyncapi.json")).json()
        _, report = await health(*brokers)
    assert not any(broker.running for broker in brokers)
    # In the order in which they were passed, grouped by class name.
    kinds = dict.fromkeys(type(broker).__name__ for broker in brokers)
    assert list(report["checks"]) == list(kinds)
    kafka = [check["componentId"].partition("@")[0] for check in report["checks"]["KafkaBroker"]]
    assert kafka == ["KafkaBroker 1", "handle", "KafkaBroker 2", "handle"]
    assert _protocols(document) == {name: HARNESSES[name].protocol for name in services}


def _codes(checks: list[Any]) -> dict[str, str]:
    """Return the code of each check by the name of its component, without the destination."""
    return {check["componentId"].partition("@")[0]: check["code"] for check in checks}


def _protocols(document: Any) -> dict[str, str]:
    """Return the protocol of each channel's server by the kind in the channel's address."""
    protocols = {}
    for channel in document["channels"].values():
        # HTTP routes are channels without a server.
        for server in channel.get("servers", ()):
            name = server["$ref"].rpartition("/")[2]
            protocols[channel["address"].partition("-")[0]] = document["servers"][name]["protocol"]
    return protocols


# --- concurrent start and stop ---


@pytest.mark.parametrize("frozen", kinds(FAST_KINDS))
async def test_no_broker_consumes_before_all_can_publish(
    frozen: str, servers: Callable[[str], BrokerServer]
) -> None:
    server = servers(frozen)
    services = make_services(tuple(name for name in FAST_KINDS if name != frozen))
    frozen_service = Service(HARNESSES[frozen], server.url)
    lifespan = BrokerLifespan(frozen_service.broker, *brokers_of(services))
    server.freeze()
    starting = asyncio.create_task(lifespan.enter())
    await eventually(lambda: all(managed_broker(broker).owners for broker in lifespan.brokers))
    for service in services.values():
        # It can publish, but does not consume yet.
        await asyncio.wait_for(managed_broker(service.broker).wait_declared(), TIMEOUT)
        await service.publish(1)
        assert not service.up
    assert (frozen_service.up, starting.done(), str(lifespan.state)) == (False, False, "starting")
    assert await status(make_readiness_asgi(*lifespan.brokers)) == 503
    server.thaw()
    await starting
    try:
        for service in (frozen_service, *services.values()):
            await service.publish_and_handle()
    finally:
        await lifespan.leave()


@pytest.mark.parametrize("slow", kinds())
async def test_no_broker_closes_before_every_handler_has_finished(slow: str) -> None:
    services = make_services(tuple(dict.fromkeys((*FAST_KINDS, slow))))
    service = services[slow]
    lifespan = BrokerLifespan(*brokers_of(services))
    running: list[bool] = []

    async def wait_until_the_others_are_drained() -> None:
        others = [managed_broker(other.broker) for name, other in services.items() if name != slow]
        await eventually(lambda: str(lifespan.state) == "draining" and not any(other.up for other in others))
        running.extend(broker.running for broker in lifespan.brokers)

    async with lifespan:
        await service.publish_and_handle()
        service.started.clear()
        service.finish = wait_until_the_others_are_drained
        await service.publish(2)
        await asyncio.wait_for(service.started.wait(), TIMEOUT)
    assert running == [True] * len(services)
    assert service.handled[-1] == 2
    assert not any(broker.running for broker in lifespan.brokers)


# --- failed start ---


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("broken", kinds(FAST_KINDS))
async def test_no_broker_is_left_running_when_one_cannot_connect(broken: str, place: int) -> None:
    port, held = hold_port()
    scheme, _, _ = shared_server(HARNESSES[broken]).url.partition("://")
    services = make_services()
    running = brokers_of(services)[:2]
    missing = Service(HARNESSES[broken], f"{scheme}://127.0.0.1:{port}").broker
    lifespan = BrokerLifespan(*running[:place], missing, *running[place:], startup_timeout=1.0)
    with pytest.raises(BrokerStartError, match=rf"{type(missing).__name__} .*:{port} could not be started"):
        await lifespan.enter()
    assert str(lifespan.state) == "failed"
    for broker in (*running, missing):
        assert not broker.running
        assert not managed_broker(broker).up
    if held is not None:  # pragma: no branch (it is None on macOS)
        held.close()
    # The brokers that had connected can be started again.
    async with BrokerLifespan(*running):
        for service in list(services.values())[:2]:
            await service.publish_and_handle()


@pytest.mark.parametrize("frozen", kinds(FAST_KINDS))
async def test_no_broker_is_left_running_when_one_server_is_frozen(
    frozen: str, servers: Callable[[str], BrokerServer]
) -> None:
    server = servers(frozen)
    services = make_services(tuple(name for name in FAST_KINDS if name != frozen))
    frozen_service = Service(HARNESSES[frozen], server.url)
    brokers = [*brokers_of(services), frozen_service.broker]
    server.freeze()
    lifespan = BrokerLifespan(*brokers, startup_timeout=1.0)
    with pytest.raises(BrokerStartError, match=r"could not be started within 1 s: it did not reply in time"):
        await lifespan.enter()
    assert not any(broker.running or managed_broker(broker).up for broker in brokers)
    server.thaw()
    async with BrokerLifespan(*brokers):
        for service in (*services.values(), frozen_service):
            await service.publish_and_handle()


# --- names ---


@pytest.mark.parametrize("name", kinds())
async def test_details_distinguish_two_brokers_of_one_kind(
    name: str,
    servers: Callable[[str], BrokerServer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    harness = HARNESSES[name]
    server = servers(name)
    first, second = Service(harness, shared_server(harness).url), Service(harness, server.url)
    between = Service(HARNESSES["nats"], shared_server(HARNESSES["nats"]).url)
    brokers = [first.broker, between.broker, second.broker]
    ready = make_readiness_asgi(*brokers)
    async with BrokerLifespan(*brokers):
        await eventually_status(ready, 200, TIMEOUT)
        server.kill()
        await eventually_status(ready, 503, TIMEOUT)
        # The other brokers keep working.
        for service in (first, between):
            await service.publish_and_handle()
        status_code, report = await health(*brokers)
        assert await status(make_liveness_asgi(*brokers)) == 200
        server.start()
        await eventually_status(ready, 200, TIMEOUT)
    # A stop right after the reconnect is not slower than usual.
    assert "did not stop in time" not in caplog.text
    kind = type(first.broker).__name__
    checks = report["checks"]
    found = [check for each in checks.values() for check in each if check["componentType"] == "broker"]
    by_name = {check["componentId"]: (check["status"], check["code"] == "ok") for check in found}
    second_name = f"{kind} {3 if kind == 'NatsBroker' else 2}"
    nats_name = f"NatsBroker {2 if kind == 'NatsBroker' else 1}"
    assert (status_code, report["status"]) == (503, "fail")
    assert by_name == {f"{kind} 1": ("pass", True), nats_name: ("pass", True), second_name: ("fail", False)}


async def test_a_title_separates_one_handler_on_equal_channels_of_two_brokers() -> None:
    """FastStream derives a channel's name from address and handler, so one would replace the other."""
    nats, redis = (service.broker for service in make_services(("nats", "redis")).values())

    async def handle(number: int) -> None:
        raise NotImplementedError

    for broker, options in ((nats, {}), (redis, {"title": "the other"})):
        any_broker: Any = broker
        any_broker.subscriber("same", **options)(handle)
    app = HOSTS["fastapi"].build(nats, redis, asyncapi_path="/asyncapi")
    async with client(app) as http:
        document = (await http.get("/asyncapi.json")).json()
    assert sorted(name for name, each in document["channels"].items() if each["address"] == "same") == [
        "same:Handle",
        "the other",
    ]


# --- optional brokers ---


@pytest.mark.parametrize("name", kinds(default="mqtt"))
async def test_an_optional_broker_may_start_late_and_may_be_lost(
    name: str, servers: Callable[[str], BrokerServer]
) -> None:
    server = servers(name)
    server.stop()
    required = Service(HARNESSES["nats"], shared_server(HARNESSES["nats"]).url)
    optional = Service(HARNESSES[name], server.url)
    brokers = [required.broker, optional.broker]
    live = make_liveness_asgi(*brokers)
    async with BrokerLifespan(*brokers, optional=[optional.broker]) as _:
        await required.publish_and_handle()
        assert not optional.up
        server.start()
        await eventually_all_pass(*brokers)
        await optional.publish_and_handle()

        server.kill()
        await eventually_status(make_ping_asgi(optional.broker), 500)
        assert await status(live) == 200
        await required.publish_and_handle(2)

        server.start()
        await eventually_status(make_ping_asgi(optional.broker), 204)
        # Some servers of the tests keep nothing: a message creates its topic again.
        await optional.publish_and_handle(2)
        await eventually_all_pass(*brokers)


async def test_a_frozen_optional_broker_delays_neither_start_nor_stop(
    servers: Callable[[str], BrokerServer],
) -> None:
    server = servers("redis")
    services = make_services(("nats", "mqtt"))
    frozen_service = Service(HARNESSES["redis"], server.url)
    brokers = [frozen_service.broker, *brokers_of(services)]
    server.freeze()
    async with (
        asyncio.timeout(TIMEOUT),
        BrokerLifespan(*brokers, optional=[frozen_service.broker], shutdown_timeout=5.0),
    ):
        for service in services.values():
            await service.publish_and_handle()
        assert not frozen_service.up
    assert not any(broker.running for broker in brokers)
    server.thaw()


async def test_a_start_cancelled_during_the_stop_of_another_lifespan_cuts_off_no_handler(
    shared_nats: NatsServer,
) -> None:
    service = Service(HARNESSES["nats"], shared_nats.url)
    release = asyncio.Event()

    async def wait_for_release() -> None:
        await release.wait()

    service.finish = wait_for_release
    first = BrokerLifespan(service.broker)
    await first.enter()
    await service.publish(1)
    await service.started.wait()
    leaving = asyncio.create_task(first.leave())
    await eventually(lambda: str(first.state) == "draining")
    entering = asyncio.create_task(BrokerLifespan(service.broker).enter())
    await asyncio.sleep(0)
    entering.cancel()
    await asyncio.wait((entering,))
    assert not leaving.done()
    release.set()
    await leaving
    assert service.handled == [1]
    assert not service.broker.running
