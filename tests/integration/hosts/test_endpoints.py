"""Probe endpoints on real NATS servers: responses in every state, and shared checks."""

import asyncio
import gc
from typing import Any

import httpx
import pytest
from faststream import FastStream as UpstreamFastStream
from faststream.nats import NatsBroker

from faststream_adapters import (
    BrokerLifespan,
    HealthCheck,
    make_liveness_asgi,
    make_ping_asgi,
    make_readiness_asgi,
    make_startup_asgi,
)
from faststream_adapters._lifecycle import supervisor
from faststream_adapters._lifecycle.managed import managed_broker
from tests.harness.clients import client, eventually_status, status
from tests.harness.servers.nats import NatsFactory, NatsServer
from tests.harness.waiting import eventually

MAKERS = [make_ping_asgi, make_liveness_asgi, make_readiness_asgi, make_startup_asgi]


async def test_ping_works_without_a_lifespan(shared_nats: NatsServer) -> None:
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


async def test_ping_fails_if_one_of_several_brokers_does_not_reply(shared_nats: NatsServer) -> None:
    first, second = NatsBroker(shared_nats.url), NatsBroker(shared_nats.url)
    async with first:
        assert await status(make_ping_asgi(first, second)) == 500
        async with second:
            assert await status(make_ping_asgi(first, second)) == 204


@pytest.mark.parametrize("by", ["broker", "app", "lifespan"])
async def test_the_probes_follow_the_state_of_the_lifespan(nats: NatsServer, by: str) -> None:
    broker = NatsBroker(nats.url, reconnect_time_wait=0)
    nats.stop()
    app = UpstreamFastStream(broker)
    lifespan = BrokerLifespan(broker, startup="background", drain_delay=0.3)
    target: Any = {"broker": broker, "app": app, "lifespan": lifespan}[by]
    live, ready, started = (make(target) for make in MAKERS[1:])
    await lifespan.enter()
    assert [await status(probe) for probe in (live, ready, started)] == [200, 503, 503]
    nats.start()
    await eventually(lambda: lifespan.state == "running")
    assert [await status(probe) for probe in (live, ready, started)] == [200, 200, 200]
    nats.stop()
    assert [await status(probe) for probe in (live, ready, started)] == [200, 503, 200]
    nats.start()
    await eventually_status(ready, 200)
    leaving = asyncio.create_task(lifespan.leave())
    await eventually(lambda: lifespan.state == "draining")
    assert [await status(probe) for probe in (live, ready, started)] == [200, 503, 200]
    await leaving


async def test_liveness_fails_when_the_start_has_failed(nats: NatsServer) -> None:
    nats.stop()
    lifespan = BrokerLifespan(NatsBroker(nats.url), startup="background", startup_timeout=0.1)
    async with lifespan:
        await eventually(lambda: lifespan.state == "failed")
        assert await status(make_liveness_asgi(lifespan)) == 503
        assert await status(make_readiness_asgi(lifespan)) == 503
        assert await status(make_startup_asgi(lifespan)) == 503


@pytest.mark.parametrize(("supervise", "expected"), [(False, 503), (True, 200)])
async def test_liveness_fails_when_a_client_has_given_up_without_supervision(
    nats: NatsServer,
    supervise: bool,
    expected: int,
) -> None:
    broker = NatsBroker(nats.url)
    lifespan = BrokerLifespan(broker, supervise=supervise)
    async with lifespan:
        await broker.connection.close()
        assert await status(make_liveness_asgi(lifespan)) == expected


async def test_details_list_brokers_and_subscribers_without_secrets(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url.replace("nats://", "nats://user:secret@"))

    @broker.subscriber("greetings")
    async def greet(message: str) -> None:
        """Do nothing."""

    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan, details=True)
    async with lifespan, client(ready) as http:
        response = await http.get("/")
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/health+json"
        body = response.json()
        assert (body["status"], body["code"], body["state"]) == ("pass", "ok", ["running"])
        of_broker, of_subscriber = body["checks"]["NatsBroker"]
        assert of_broker["code"] == "ok"
        assert of_broker["observedUnit"] == "ms"
        assert of_subscriber["componentId"] == "greet"
        assert of_subscriber["status"] == "pass"
        nats.freeze()
        response = await http.get("/")
        assert response.status_code == 503
        assert response.json()["checks"]["NatsBroker"][0]["code"] == "timeout"
        assert "secret" not in response.text
        nats.thaw()


async def test_a_broker_that_is_added_during_a_check_is_not_started(shared_nats: NatsServer) -> None:
    app = UpstreamFastStream(NatsBroker(shared_nats.url))

    async def add_broker() -> None:
        app.add_broker(NatsBroker(shared_nats.url))

    lifespan = BrokerLifespan(app, checks=[HealthCheck("database", add_broker)])
    async with lifespan, client(make_readiness_asgi(lifespan)) as http:
        response = await http.get("/")
    assert (response.status_code, response.text) == (503, "not_started")


async def test_details_list_subscribers_that_are_not_consumed_as_stopped(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)

    @broker.subscriber("greetings")
    async def greet(message: str) -> None:
        """Do nothing."""

    for lifespan, code in (
        (BrokerLifespan(broker, consume=False), "stopped"),
        (BrokerLifespan(broker), "ok"),
    ):
        async with lifespan, client(make_readiness_asgi(lifespan, details=True)) as http:
            response = await http.get("/")
            assert (response.status_code, response.json()["status"]) == (200, "pass")
            of_subscriber = response.json()["checks"]["NatsBroker"][1]
            assert (of_subscriber["status"], of_subscriber["code"]) == ("pass", code)
    nats.stop()
    lifespan = BrokerLifespan(broker, startup="background")
    async with lifespan, client(make_liveness_asgi(lifespan, details=True)) as http:
        of_subscriber = (await http.get("/")).json()["checks"]["NatsBroker"][1]
        assert of_subscriber["code"] == "not_started"


async def test_details_contain_the_code_of_a_broker_that_is_not_up(nats_factory: NatsFactory) -> None:
    server = nats_factory(user="user", password="right")
    wrong = [NatsBroker(server.url.replace("right", word)) for word in ("wrong", "false")]
    ping = make_ping_asgi(*wrong, details=True)
    lifespan = BrokerLifespan(*wrong, startup="background")
    async with lifespan, client(ping) as http, asyncio.timeout(10):
        codes: set[str] = set()
        while codes != {"auth_failed"}:
            entries = (await http.get("/")).json()["checks"]["NatsBroker"]
            codes = {entry["code"] for entry in entries}
    assert [entry["componentId"] for entry in entries] == ["NatsBroker 1", "NatsBroker 2"]


@pytest.mark.parametrize("make", MAKERS)
async def test_statuses_can_be_chosen(make: Any, shared_nats: NatsServer) -> None:
    body = make is not make_ping_asgi
    lifespan = BrokerLifespan(NatsBroker(shared_nats.url))
    async with client(make(lifespan, ok_status=203, fail_status=502)) as http:
        response = await http.get("/")
        assert (response.status_code, response.text) == (502, "not_started" if body else "")
        async with lifespan:
            response = await http.get("/")
            assert (response.status_code, response.text) == (203, "ok" if body else "")


@pytest.mark.parametrize("chosen", [204, 205, 304])
@pytest.mark.parametrize("details", [False, True])
@pytest.mark.parametrize("make", MAKERS)
async def test_a_status_that_allows_no_body_has_none(
    make: Any, details: bool, chosen: int, shared_nats: NatsServer
) -> None:
    lifespan = BrokerLifespan(NatsBroker(shared_nats.url))
    probe = make(lifespan, ok_status=chosen, fail_status=chosen, details=details)
    async with client(probe) as http:
        responses = [await http.get("/")]
        async with lifespan:
            responses.append(await http.get("/"))
    for response in responses:
        assert (response.status_code, response.content) == (chosen, b"")
        assert "content-type" not in response.headers
        assert response.headers.get("content-length", "0") == "0"


@pytest.mark.parametrize("make", MAKERS)
async def test_other_methods_are_refused_and_head_works(make: Any, shared_nats: NatsServer) -> None:
    broker = NatsBroker(shared_nats.url)
    async with broker, client(make(broker)) as http:
        get, head = await http.get("/"), await http.head("/")
        assert get.status_code == (204 if make is make_ping_asgi else 200)
        assert (head.status_code, head.headers, head.content) == (get.status_code, get.headers, b"")
        refused = await http.post("/")
        assert refused.status_code == 405
        assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD"}


async def test_a_result_is_reused_within_the_ttl(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    async with BrokerLifespan(broker):
        ping = make_ping_asgi(broker, ttl=60)
        assert await status(ping) == 204
        nats.freeze()
        assert await status(ping) == 204
        assert await status(make_ping_asgi(broker, timeout=0.1)) == 500
        nats.thaw()


async def test_a_change_of_state_overrides_a_cached_result(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervisor, "SUBSCRIBERS_INTERVAL", 0.05)
    # Without supervision, the client would give up before the server is up again.
    broker = NatsBroker(nats.url, reconnect_time_wait=0, max_reconnect_attempts=-1)
    subscriber = broker.subscriber("orders", max_workers=2)
    subscriber(_handle)
    lifespan = BrokerLifespan(broker, drain_delay=0.2, supervise=False)
    ping, ready, detailed = (
        make_ping_asgi(lifespan, ttl=60),
        make_readiness_asgi(lifespan, ttl=60),
        make_readiness_asgi(lifespan, ttl=60, details=True),
    )
    run = managed_broker(broker)
    async with lifespan, client(detailed) as http:
        for _ in range(3):
            assert [await status(probe) for probe in (ping, ready, detailed)] == [204, 200, 200]
        ages = [(await http.get("/")).json()["checks"]["NatsBroker"][0]["age"] for _ in range(2)]
        assert ages == sorted(ages)
        for task in subscriber.tasks:
            task.cancel()
        await eventually(lambda: run.monitor.fault == "task_failed")
        assert [await status(probe) for probe in (ping, ready, detailed)] == [204, 503, 503]
        await subscriber.stop()
        assert [await status(probe) for probe in (ping, ready, detailed)] == [204, 200, 200]
        await subscriber.start()
        await eventually(lambda: run.monitor.fault is None)
        assert [await status(probe) for probe in (ping, ready, detailed)] == [204, 200, 200]
        # Only supervision has checked the broker meanwhile.
        nats.stop()
        await eventually(lambda: run.broker_check.last is not None and not run.broker_check.last.ok)
        assert [await status(probe) for probe in (ping, ready, detailed)] == [500, 503, 503]
        nats.start()
        await eventually(lambda: run.broker_check.last is not None and run.broker_check.last.ok)
        assert [await status(probe) for probe in (ping, ready, detailed)] == [204, 200, 200]
        leaving = asyncio.create_task(lifespan.leave())
        await eventually(lambda: lifespan.state == "draining")
        assert [await status(probe) for probe in (ping, ready, detailed)] == [204, 503, 503]
        await leaving
    assert [await status(probe) for probe in (ready, detailed)] == [503, 503]


async def test_a_failed_start_overrides_a_cached_result(
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
        await eventually(lambda: managed_broker(broker).error is not None)
        assert await status(ping) == 500


async def _handle(message: str) -> None:
    raise AssertionError


async def test_concurrent_requests_share_one_check_with_separate_timeouts(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    loop = asyncio.get_running_loop()
    # The slow caller must outlast a thousand requests on a busy machine.
    fast, slow = make_ping_asgi(broker, timeout=0.2), make_ping_asgi(broker, timeout=60)

    async def caller(http: httpx.AsyncClient) -> tuple[int, float]:
        start = loop.time()
        return (await http.get("/")).status_code, loop.time() - start

    async with BrokerLifespan(broker, supervise=False), client(fast) as http:
        nats.freeze()
        before = len(asyncio.all_tasks())
        waiting = asyncio.create_task(status(slow))
        callers = [asyncio.create_task(caller(http)) for _ in range(1000)]
        cancelled = asyncio.create_task(status(slow))
        # Each of them has its first turn.
        await asyncio.sleep(0)
        cancelled.cancel()
        responses = [await caller for caller in callers]
        assert {code for code, _ in responses} == {500}
        # The check is still in flight: the responses come from the timeouts of the callers.
        assert min(seconds for _, seconds in responses) >= 0.2
        # Only the slow caller's task is left. The check itself takes no task.
        assert len(asyncio.all_tasks()) == before + 1
        assert not waiting.done()
        nats.thaw()
        assert await asyncio.wait_for(waiting, 5) == 204


async def test_checks_that_time_out_do_not_accumulate(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    ping = make_ping_asgi(broker, timeout=0.001)
    async with BrokerLifespan(broker, supervise=False):
        nats.freeze()
        await status(ping)
        gc.collect()
        tasks = len(asyncio.all_tasks())
        for _ in range(50):
            assert await status(ping) == 500
        assert len(asyncio.all_tasks()) == tasks
        nats.thaw()
        await eventually_status(make_ping_asgi(broker), 204)
