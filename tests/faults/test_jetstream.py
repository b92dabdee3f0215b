"""JetStream consumers and streams that are deleted while a service runs, with the default intervals."""

import asyncio
from contextlib import suppress

import nats as nats_py
import pytest
from faststream.nats import NatsBroker, PullSub
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError

from faststream_adapters import BrokerLifespan, make_liveness_asgi, make_readiness_asgi
from faststream_adapters._lifecycle import supervisor
from faststream_adapters._lifecycle.managed import managed_broker
from tests.faults.matrix import Fault, row
from tests.faults.test_subscribers import consumer, consumer_name, jetstream, wait_for_message
from tests.harness.clients import client, eventually_status, status
from tests.harness.servers.nats import NatsServer
from tests.harness.waiting import eventually


async def required(message: str) -> None: ...


async def wait_for_stream(broker: NatsBroker) -> None:
    async with asyncio.timeout(30):
        while True:
            with suppress(NotFoundError):
                await jetstream(broker).stream_info("jobs")
                return


async def wait_for_server_check(broker: NatsBroker) -> None:
    """Wait until the consumers were checked on the server. The next check is some seconds later."""
    await eventually(lambda: managed_broker(broker).monitor.last_server_check > 0)


both = pytest.mark.parametrize("kind", ["push", "pull"])


@row(
    "JetStream consumer deleted",
    "the subscriber is restarted, and messages published meanwhile are handled; liveness 200",
)
@pytest.mark.full
@both
async def test_a_deleted_consumer_is_created_again(nats_js: NatsServer, fault: Fault, kind: str) -> None:
    broker, received = consumer(nats_js.url, kind)
    async with BrokerLifespan(broker):
        await broker.publish("before", "jobs")
        await wait_for_message(received, "before")
        await wait_for_server_check(broker)
        await jetstream(broker).delete_consumer("jobs", await consumer_name(broker))
        fault.repaired()
        await broker.publish("meanwhile", "jobs")
        await wait_for_message(received, "meanwhile", 30.0)
        fault.ready()


@row(
    "JetStream stream deleted, declared by the application",
    "the stream is declared again, as at startup; its messages are lost; liveness 200",
)
@pytest.mark.full
@both
async def test_a_deleted_stream_is_declared_again(nats_js: NatsServer, fault: Fault, kind: str) -> None:
    broker, received = consumer(nats_js.url, kind)
    async with BrokerLifespan(broker):
        await wait_for_server_check(broker)
        await jetstream(broker).delete_stream("jobs")
        fault.repaired()
        await wait_for_stream(broker)
        await broker.publish("after", "jobs")
        await wait_for_message(received, "after", 30.0)
        fault.ready()


@row(
    "JetStream stream deleted and created again, not declared by the application (`declare=False`)",
    "503 with `consumer_missing` until the stream exists again, then recovers by itself; liveness 200",
)
@pytest.mark.full
@both
async def test_readiness_fails_while_the_stream_does_not_exist(
    nats_js: NatsServer, fault: Fault, kind: str
) -> None:
    broker, received = consumer(nats_js.url, kind, declare=False)
    owner = await nats_py.connect(nats_js.url)
    await owner.jetstream().add_stream(name="jobs", subjects=["jobs"])
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan)
    async with lifespan:
        await wait_for_server_check(broker)
        await owner.jetstream().delete_stream("jobs")
        fault.happened()
        await eventually_status(ready, 503, 30.0)
        fault.not_ready()
        await owner.jetstream().add_stream(name="jobs", subjects=["jobs"])
        fault.repaired()
        await eventually_status(ready, 200, 30.0)
        await broker.publish("after", "jobs")
        await wait_for_message(received, "after")
        fault.ready()
    await owner.close()


@row(
    "JetStream consumer of an optional subscriber deleted",
    "200, and the details show `warn` with `consumer_missing`; another subscriber's fault is still a 503",
)
@pytest.mark.usefixtures("fault")
async def test_a_faulty_optional_subscriber_is_only_a_warning(
    nats_js: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "SUBSCRIBERS_INTERVAL", 0.1)
    broker, _ = consumer(nats_js.url, "pull")
    broker.subscriber("jobs", stream="jobs", durable="required", pull_sub=PullSub())(required)
    lifespan = BrokerLifespan(broker, optional=["handle"], supervise=False)
    details, live = make_readiness_asgi(lifespan, details=True), make_liveness_asgi(lifespan)
    async with lifespan, client(details) as http:
        await jetstream(broker).delete_consumer("jobs", "worker")
        await eventually(lambda: lifespan.subscribers[0].code == "consumer_missing")
        response = await http.get("/")
        entries = {entry["componentId"]: entry for entry in response.json()["checks"]["NatsBroker"]}
        assert (response.status_code, response.json()["status"]) == (200, "warn")
        assert (entries["handle"]["status"], entries["handle"]["code"]) == ("warn", "consumer_missing")
        assert entries["required"]["status"] == "pass"
        assert await status(live) == 200
        await jetstream(broker).delete_consumer("jobs", "required")
        await eventually_status(details, 503)


@row(
    "JetStream consumer paused on the server and resumed",
    "503 with the code `consumer_paused`; liveness 200",
)
@pytest.mark.full
async def test_readiness_fails_while_the_consumer_is_paused(nats_js: NatsServer, fault: Fault) -> None:
    broker, received = consumer(nats_js.url, "pull")
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan)
    async with lifespan:
        await wait_for_server_check(broker)
        await jetstream(broker).pause_consumer("jobs", "worker", "2999-01-01T00:00:00Z")
        fault.happened()
        await eventually_status(ready, 503, 30.0)
        fault.not_ready()
        await jetstream(broker).resume_consumer("jobs", "worker")
        fault.repaired()
        await eventually_status(ready, 200, 30.0)
        await broker.publish("after", "jobs")
        await wait_for_message(received, "after")
        fault.ready()


@row(
    "JetStream consumer whose `filter_subject` is changed on the server, and changed back",
    "503 with the code `consumer_mismatch`, and the log names both subjects; liveness 200",
)
@pytest.mark.full
async def test_readiness_fails_while_the_consumer_has_another_filter(
    nats_js: NatsServer, fault: Fault
) -> None:
    broker, received = consumer(nats_js.url, "pull")
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan)
    async with lifespan:
        await wait_for_server_check(broker)
        config = ConsumerConfig(durable_name="worker", filter_subject="other")
        await jetstream(broker).add_consumer("jobs", config)
        fault.happened()
        await eventually_status(ready, 503, 30.0)
        fault.not_ready()
        config.filter_subject = "jobs"
        await jetstream(broker).add_consumer("jobs", config)
        fault.repaired()
        await eventually_status(ready, 200, 30.0)
        await broker.publish("after", "jobs")
        await wait_for_message(received, "after")
        fault.ready()
