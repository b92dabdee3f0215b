"""The probes: what they answer in every state, and how they share one check."""

import asyncio
import gc
import logging
from typing import Any

import httpx
import pytest
from faststream import FastStream as UpstreamFastStream
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
from faststream_adapters.supervision import run_of
from tests.conftest import NatsFactory
from tests.servers.nats import NatsServer
from tests.support import client, eventually, eventually_status, status

MAKERS = [make_ping_asgi, make_liveness_asgi, make_readiness_asgi, make_startup_asgi]


async def test_a_ping_needs_no_lifespan(shared_nats: NatsServer) -> None:
    broker = NatsBroker(shared_nats.url)
    ping = make_ping_asgi(broker)
    assert await status(ping) == 500
    async with broker:
        await broker.start()
        async with client(ping) as http:
            response = await http.get("/")
        assert response.status_code == 204
        assert response.content == b""
        assert response.headers["cache-control"] == "no-store"


async def test_a_ping_of_several_brokers_needs_all(shared_nats: NatsServer) -> None:
    first, second = NatsBroker(shared_nats.url), NatsBroker(shared_nats.url)
    async with first:
        assert await status(make_ping_asgi(first, second)) == 500
        async with second:
            assert await status(make_ping_asgi(first, second)) == 204


async def test_without_a_lifespan_only_readiness_asks(shared_nats: NatsServer) -> None:
    broker = NatsBroker(shared_nats.url)
    assert await status(make_readiness_asgi(broker)) == 503
    assert await status(make_liveness_asgi(broker)) == 204
    assert await status(make_startup_asgi(broker)) == 204


@pytest.mark.parametrize("by", ["broker", "app", "lifespan"])
async def test_the_probes_follow_the_state(nats: NatsServer, by: str) -> None:
    broker = NatsBroker(nats.url)
    nats.stop()
    app = UpstreamFastStream(broker)
    lifespan = BrokerLifespan(broker, startup="background", drain_delay=0.3)
    target: Any = {"broker": broker, "app": app, "lifespan": lifespan}[by]
    live, ready, started = (make(target) for make in MAKERS[1:])
    await lifespan.enter()
    assert [await status(probe) for probe in (live, ready, started)] == [204, 503, 503]
    nats.start()
    await eventually(lambda: lifespan.state == "running")
    assert [await status(probe) for probe in (live, ready, started)] == [204, 204, 204]
    nats.stop()
    assert [await status(probe) for probe in (live, ready, started)] == [204, 503, 204]
    nats.start()
    await eventually_status(ready, 204)
    leaving = asyncio.create_task(lifespan.leave())
    await eventually(lambda: lifespan.state == "draining")
    assert [await status(probe) for probe in (live, ready, started)] == [204, 503, 204]
    await leaving


async def test_liveness_fails_when_the_start_has_failed(nats: NatsServer) -> None:
    nats.stop()
    lifespan = BrokerLifespan(NatsBroker(nats.url), startup="background", startup_timeout=0.1)
    async with lifespan:
        await eventually(lambda: lifespan.state == "failed")
        assert await status(make_liveness_asgi(lifespan)) == 503
        assert await status(make_readiness_asgi(lifespan)) == 503
        assert await status(make_startup_asgi(lifespan)) == 503


@pytest.mark.parametrize(("supervise", "expected"), [(False, 503), (True, 204)])
async def test_liveness_fails_when_a_client_gave_up_and_nobody_restarts_it(
    nats: NatsServer,
    supervise: bool,
    expected: int,
) -> None:
    broker = NatsBroker(nats.url)
    lifespan = BrokerLifespan(broker, supervise=supervise)
    async with lifespan:
        await broker.connection.close()
        assert await status(make_liveness_asgi(lifespan)) == expected


async def test_readiness_forgives_an_optional_broker(shared_nats: NatsServer, nats: NatsServer) -> None:
    needed, extra = NatsBroker(shared_nats.url), NatsBroker(nats.url)
    lifespan = BrokerLifespan(needed, extra, optional=[extra])
    ready, detailed = make_readiness_asgi(lifespan), make_readiness_asgi(lifespan, details=True)
    async with lifespan, client(detailed) as http:
        await eventually_status(make_ping_asgi(extra), 204)
        assert (await http.get("/")).json()["status"] == "pass"
        nats.kill()
        await eventually_status(make_ping_asgi(extra), 500)
        assert await status(ready) == 204
        answer = await http.get("/")
        assert answer.status_code == 200
        assert answer.json()["status"] == "warn"


@pytest.mark.parametrize("make", MAKERS[1:])
async def test_a_lifespan_that_never_ran_is_said_so_once(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    probe = make(BrokerLifespan(NatsBroker()), details=True)
    async with client(probe) as http:
        for _ in range(2):
            answer = await http.get("/")
            assert answer.status_code == 503
            assert answer.json()["code"] == "not_started"
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "its lifespan never ran" in warnings[0]


async def test_details_name_brokers_and_subscribers_and_no_secret(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url.replace("nats://", "nats://user:secret@"))

    @broker.subscriber("greetings")
    async def greet(message: str) -> None:
        """Exist."""

    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan, details=True)
    async with lifespan, client(ready) as http:
        answer = await http.get("/")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/health+json"
        body = answer.json()
        assert (body["status"], body["code"], body["state"]) == ("pass", "ok", ["running"])
        of_broker, of_subscriber = body["checks"]["NatsBroker"]
        assert of_broker["code"] == "ok"
        assert of_broker["observedUnit"] == "ms"
        assert of_subscriber["componentId"] == "Greet"
        assert of_subscriber["status"] == "pass"
        nats.freeze()
        answer = await http.get("/")
        assert answer.status_code == 503
        assert answer.json()["checks"]["NatsBroker"][0]["code"] == "timeout"
        assert "secret" not in answer.text
        nats.thaw()


async def test_details_do_not_miss_subscribers_that_nobody_wants(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)

    @broker.subscriber("greetings")
    async def greet(message: str) -> None:
        """Exist."""

    for keywords, subscribers in ((BrokerLifespan(broker, consume=False), 0), (BrokerLifespan(broker), 1)):
        async with keywords, client(make_readiness_asgi(keywords, details=True)) as http:
            body = (await http.get("/")).json()
            assert body["status"] == "pass"
            assert len(body["checks"]["NatsBroker"]) == 1 + subscribers
    nats.stop()
    lifespan = BrokerLifespan(broker, startup="background")
    async with lifespan, client(make_liveness_asgi(lifespan, details=True)) as http:
        of_subscriber = (await http.get("/")).json()["checks"]["NatsBroker"][1]
        assert of_subscriber["code"] == "not_started"


async def test_details_say_why_a_broker_is_not_up(nats_factory: NatsFactory) -> None:
    server = nats_factory(user="user", password="right")
    wrong = [NatsBroker(server.url.replace("right", word)) for word in ("wrong", "false")]
    ping = make_ping_asgi(*wrong, details=True)
    lifespan = BrokerLifespan(*wrong, startup="background")
    async with lifespan, client(ping) as http, asyncio.timeout(10):
        codes: set[str] = set()
        while codes != {"auth"}:
            entries = (await http.get("/")).json()["checks"]["NatsBroker"]
            codes = {entry["code"] for entry in entries}
    assert [entry["componentId"] for entry in entries] == ["NatsBroker 1", "NatsBroker 2"]


async def test_statuses_can_be_chosen(shared_nats: NatsServer) -> None:
    broker = NatsBroker(shared_nats.url)
    ping = make_ping_asgi(broker, ok_status=200, fail_status=502)
    assert await status(ping) == 502
    async with broker:
        assert await status(ping) == 200


@pytest.mark.parametrize("make", MAKERS)
async def test_other_methods_are_refused_and_head_works(make: Any, shared_nats: NatsServer) -> None:
    broker = NatsBroker(shared_nats.url)
    async with broker, client(make(broker)) as http:
        assert (await http.head("/")).status_code == 204
        refused = await http.post("/")
        assert refused.status_code == 405
        assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD"}


async def test_in_memory_the_probes_follow_the_patched_ping() -> None:
    broker = NatsBroker()
    app = AsgiFastStream(broker, ping_path="/ping", readiness_path="/ready")
    async with TestNatsBroker(broker, connect_only=False), app.start_lifespan_context():
        assert await status(app, "/ping") == 204
        assert await status(app, "/ready") == 204
        broker.ping.return_value = False  # type: ignore[attr-defined]
        assert await status(app, "/ping") == 500
        assert await status(app, "/ready") == 503


async def test_a_result_is_used_again_while_it_is_young(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    async with BrokerLifespan(broker):
        ping = make_ping_asgi(broker, ttl=60)
        assert await status(ping) == 204
        nats.freeze()
        assert await status(ping) == 204
        assert await status(make_ping_asgi(broker, timeout=0.1)) == 500
        nats.thaw()


async def test_a_change_is_told_before_a_young_result_is_used_again(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    subscriber = broker.subscriber("orders", max_workers=2)
    subscriber(_handle)
    lifespan = BrokerLifespan(broker, drain_delay=0.2)
    ping, ready, detailed = (
        make_ping_asgi(lifespan, ttl=60),
        make_readiness_asgi(lifespan, ttl=60),
        make_readiness_asgi(lifespan, ttl=60, details=True),
    )
    run = run_of(broker)
    async with lifespan, client(detailed) as http:
        for _ in range(3):
            assert [await status(probe) for probe in (ping, ready, detailed)] == [204, 204, 200]
        ages = [(await http.get("/")).json()["checks"]["NatsBroker"][0]["age"] for _ in range(2)]
        assert ages == sorted(ages)
        await subscriber.stop()
        await eventually(lambda: run.consumers.fault == "paused")
        assert [await status(probe) for probe in (ping, ready, detailed)] == [204, 503, 503]
        await subscriber.start()
        await eventually(lambda: run.consumers.fault is None)
        assert [await status(probe) for probe in (ping, ready, detailed)] == [204, 204, 200]
        # Supervision has found out, and nobody else has asked.
        nats.stop()
        await eventually(lambda: run.round_trips.last is not None and not run.round_trips.last.ok)
        assert [await status(probe) for probe in (ping, ready, detailed)] == [500, 503, 503]
        nats.start()
        await eventually(lambda: run.round_trips.last is not None and run.round_trips.last.ok)
        assert [await status(probe) for probe in (ping, ready, detailed)] == [204, 204, 200]
        leaving = asyncio.create_task(lifespan.leave())
        await eventually(lambda: lifespan.state == "draining")
        assert [await status(probe) for probe in (ping, ready, detailed)] == [204, 503, 503]
        await leaving
    assert [await status(probe) for probe in (ready, detailed)] == [503, 503]


async def test_a_start_that_fails_is_told_before_a_young_result_is_used_again(
    nats_factory: NatsFactory,
) -> None:
    server = nats_factory(user="user", password="right")
    broker = NatsBroker(server.url, max_reconnect_attempts=0)
    ping = make_ping_asgi(broker, ttl=60)
    async with BrokerLifespan(broker):
        assert await status(ping) == 204
    server.password = "changed"
    server.restart()
    async with BrokerLifespan(broker, startup="background"):
        await eventually(lambda: run_of(broker).error is not None)
        assert await status(ping) == 500


async def _handle(message: str) -> None:
    raise AssertionError


async def test_many_callers_share_one_check_and_keep_their_own_deadlines(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    loop = asyncio.get_running_loop()
    fast, slow = make_ping_asgi(broker, timeout=0.2), make_ping_asgi(broker, timeout=5)

    async def caller(http: httpx.AsyncClient) -> tuple[int, float]:
        start = loop.time()
        return (await http.get("/")).status_code, loop.time() - start

    async with BrokerLifespan(broker, supervise=False), client(fast) as http:
        nats.freeze()
        before = len(asyncio.all_tasks())
        waiting = asyncio.create_task(status(slow))
        storm = [asyncio.create_task(caller(http)) for _ in range(1000)]
        gone = asyncio.create_task(status(slow))
        await eventually(lambda: run_of(broker).round_trips._asking is not None)  # noqa: SLF001 (to count it)
        gone.cancel()
        answers = [await answer for answer in storm]
        assert {found for found, _ in answers} == {500}
        # The check goes on: it is their own deadline that has answered them.
        assert min(seconds for _, seconds in answers) >= 0.2
        # One is the slow caller; all others have ended, and the round trip takes no task.
        assert len(asyncio.all_tasks()) == before + 1
        assert not waiting.done()
        nats.thaw()
        assert await asyncio.wait_for(waiting, 5) == 204


async def test_a_check_that_never_returns_piles_up_nothing(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    ping = make_ping_asgi(broker, timeout=0.001)
    async with BrokerLifespan(broker, supervise=False):
        nats.freeze()
        await status(ping)
        gc.collect()
        tasks = len(asyncio.all_tasks())
        for _ in range(300):
            assert await status(ping) == 500
        assert len(asyncio.all_tasks()) == tasks
        nats.thaw()
        await eventually_status(make_ping_asgi(broker), 204)


async def test_bad_arguments_are_refused_when_built() -> None:
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
async def test_a_limit_is_a_number_of_seconds(seconds: Any) -> None:
    with pytest.raises(SetupError, match="timeout must be a number of seconds above 0, up to 86400, not"):
        make_ping_asgi(NatsBroker(), timeout=seconds)
    with pytest.raises(SetupError, match="ttl must be a number of seconds from 0, up to 86400, not"):
        make_ping_asgi(NatsBroker(), ttl=seconds)


@pytest.mark.parametrize("code", [0, 99, 600, True, "200", 204.0])
async def test_a_status_is_one_of_http(code: Any) -> None:
    with pytest.raises(SetupError, match="ok_status must be an HTTP status from 200 to 599, not"):
        make_ping_asgi(NatsBroker(), ok_status=code)
    with pytest.raises(SetupError, match="fail_status must be an HTTP status from 200 to 599, not"):
        make_ping_asgi(NatsBroker(), fail_status=code)
