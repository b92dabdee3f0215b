"""JetStream consumers and streams that go away under a running service, with the intervals of a real one."""

import asyncio
from contextlib import suppress

import nats as nats_py
import pytest
from faststream.nats import NatsBroker
from nats.js.errors import NotFoundError

from faststream_adapters import BrokerLifespan, make_readiness_asgi
from faststream_adapters.supervision import run_of
from tests.faults.matrix import Fault, row
from tests.faults.test_subscribers import arrives, consumer, jetstream, the_consumer
from tests.servers.nats import NatsServer
from tests.support import eventually, eventually_status


async def is_there_again(broker: NatsBroker) -> None:
    async with asyncio.timeout(30):
        while True:
            with suppress(NotFoundError):
                await jetstream(broker).stream_info("jobs")
                return


async def was_asked_about(broker: NatsBroker) -> None:
    """Wait until the server was asked about its consumers; from now on that is some seconds away."""
    await eventually(lambda: bool(run_of(broker).consumers._answers))  # noqa: SLF001 (nobody else can tell)


both = pytest.mark.parametrize("kind", ["push", "pull"])


@row(
    "JetStream consumer deleted",
    "the subscriber is started again, and what was published meanwhile is handled; liveness 204",
)
@pytest.mark.full
@both
async def test_consumer_deleted(nats_js: NatsServer, fault: Fault, kind: str) -> None:
    broker, received = consumer(nats_js.url, kind)
    async with BrokerLifespan(broker):
        await broker.publish("before", "jobs")
        await arrives(received, "before")
        await was_asked_about(broker)
        await jetstream(broker).delete_consumer("jobs", await the_consumer(broker))
        fault.repaired()
        await broker.publish("meanwhile", "jobs")
        await arrives(received, "meanwhile", 30.0)
        fault.back()


@row(
    "JetStream stream deleted that the application declares",
    "the stream is declared again, as at a start; what it held is gone; liveness 204",
)
@pytest.mark.full
@both
async def test_stream_deleted(nats_js: NatsServer, fault: Fault, kind: str) -> None:
    broker, received = consumer(nats_js.url, kind)
    async with BrokerLifespan(broker):
        await was_asked_about(broker)
        await jetstream(broker).delete_stream("jobs")
        fault.repaired()
        await is_there_again(broker)
        await broker.publish("after", "jobs")
        await arrives(received, "after", 30.0)
        fault.back()


@row(
    "JetStream stream deleted that somebody else declares (`declare=False`), and made again",
    "503 with the code `deleted` until it is there again; then it consumes by itself; liveness 204",
)
@pytest.mark.full
@both
async def test_stream_deleted_and_made_again(nats_js: NatsServer, fault: Fault, kind: str) -> None:
    broker, received = consumer(nats_js.url, kind, declare=False)
    owner = await nats_py.connect(nats_js.url)
    await owner.jetstream().add_stream(name="jobs", subjects=["jobs"])
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan)
    async with lifespan:
        await was_asked_about(broker)
        await owner.jetstream().delete_stream("jobs")
        fault.happened()
        await eventually_status(ready, 503, 30.0)
        fault.told()
        await owner.jetstream().add_stream(name="jobs", subjects=["jobs"])
        fault.repaired()
        await eventually_status(ready, 204, 30.0)
        await broker.publish("after", "jobs")
        await arrives(received, "after")
        fault.back()
    await owner.close()


@row(
    "JetStream consumer paused on the server, and resumed",
    "503 with the code `paused`; liveness 204",
)
@pytest.mark.full
async def test_consumer_paused(nats_js: NatsServer, fault: Fault) -> None:
    broker, received = consumer(nats_js.url, "pull")
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan)
    async with lifespan:
        await was_asked_about(broker)
        await jetstream(broker).pause_consumer("jobs", "worker", "2999-01-01T00:00:00Z")
        fault.happened()
        await eventually_status(ready, 503, 30.0)
        fault.told()
        await jetstream(broker).resume_consumer("jobs", "worker")
        fault.repaired()
        await eventually_status(ready, 204, 30.0)
        await broker.publish("after", "jobs")
        await arrives(received, "after")
        fault.back()
