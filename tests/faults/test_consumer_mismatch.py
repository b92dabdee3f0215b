"""JetStream consumers that are not the ones the code declares: readiness fails, and the log names both."""

from collections.abc import AsyncIterator
from typing import Any

import nats as nats_py
import pytest
from faststream.nats import JStream, NatsBroker, PullSub
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, StreamSource

from faststream_adapters import BrokerLifespan, make_liveness_asgi, make_readiness_asgi
from faststream_adapters._brokers.driver import Mismatch
from faststream_adapters._brokers.nats import driver as nats_driver
from faststream_adapters._lifecycle import subscriber_monitor, supervisor
from faststream_adapters._lifecycle.managed import managed_broker
from faststream_adapters._utils.errors import BrokerStartError
from tests.faults.test_subscribers import KINDS, code_of, consumer, wait_for_message
from tests.harness.clients import eventually_status, status
from tests.harness.servers.nats import NatsFactory, NatsServer
from tests.harness.waiting import eventually

WARNING = "the subscriber handle does not match the server: "


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervisor, "SUBSCRIBERS_INTERVAL", 0.1)
    monkeypatch.setattr(subscriber_monitor, "RETRY_INTERVAL", 0.1)
    monkeypatch.setattr(nats_driver, "STREAM_INTERVAL", 0.1)


@pytest.fixture
async def owner(nats_js: NatsServer) -> AsyncIterator[JetStreamContext]:
    """The JetStream context of another client of the server, with the stream `jobs`."""
    client = await nats_py.connect(nats_js.url)
    context = client.jetstream()
    await context.add_stream(name="jobs", subjects=["jobs", "other"])
    yield context
    await client.close()


async def add_consumer(owner: JetStreamContext, kind: str, **changes: Any) -> None:
    """Create the durable consumer that a subscriber of this kind uses, with these changes."""
    push: dict[str, Any] = {"deliver_subject": "delivered", "deliver_group": "worker"}
    options = {
        "durable_name": "worker",
        "filter_subject": "jobs",
        **(push if "queue" in KINDS[kind] else {}),
        **changes,
    }
    await owner.add_consumer("jobs", ConsumerConfig(**options))


full = pytest.mark.full
both = pytest.mark.parametrize("kind", ["push", pytest.param("pull", marks=full)])
unusable = pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"deliver_group": "group"}, "declared deliver_group 'worker', found deliver_group 'group'"),
        pytest.param(
            {"deliver_group": None}, "declared deliver_group 'worker', found deliver_group ''", marks=full
        ),
        pytest.param(
            {"deliver_subject": None, "deliver_group": None},
            "declared a push consumer, found a pull consumer",
            marks=full,
        ),
    ],
)


@both
@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        pytest.param(
            {"filter_subject": "other"}, "declared filter_subject 'jobs', found filter_subject 'other'"
        ),
        pytest.param(
            {"filter_subject": ">"}, "declared filter_subject 'jobs', found filter_subject '>'", marks=full
        ),
        pytest.param(
            {"filter_subject": None}, "declared filter_subject 'jobs', found filter_subject ''", marks=full
        ),
        pytest.param(
            {"filter_subject": None, "filter_subjects": ["jobs", "other"]},
            "declared filter_subject 'jobs', found filter_subject 'jobs' and 'other'",
            marks=full,
        ),
        pytest.param(
            {"filter_subject": "other", "ack_policy": AckPolicy.ALL},
            (
                "declared filter_subject 'jobs', ack_policy 'explicit', "
                "found filter_subject 'other', ack_policy 'all'"
            ),
            marks=full,
        ),
    ],
)
async def test_readiness_fails_while_a_durable_consumer_is_another_one(
    *,
    nats_js: NatsServer,
    owner: JetStreamContext,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    changes: dict[str, Any],
    difference: str,
) -> None:
    await add_consumer(owner, kind, **changes)
    broker, received = consumer(nats_js.url, kind, declare=False)
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan, details=True)
    async with lifespan:
        await eventually_status(ready, 503)
        assert await code_of(ready) == "consumer_mismatch"
        assert await status(make_liveness_asgi(lifespan)) == 200
        checked = managed_broker(broker).monitor.last_server_check
        await eventually(lambda: managed_broker(broker).monitor.last_server_check > checked)
        assert caplog.text.count(f"{WARNING}{difference}.") == 1
        # What helps: delete it. The subscriber then creates the one that the code declares.
        await owner.delete_consumer("jobs", "worker")
        await eventually_status(ready, 200)
        await broker.publish("after", "jobs")
        await wait_for_message(received, "after")
    assert caplog.text.count(WARNING) == 1


@unusable
async def test_a_start_fails_if_the_consumer_cannot_be_used(
    nats_js: NatsServer, owner: JetStreamContext, changes: dict[str, Any], difference: str
) -> None:
    await add_consumer(owner, "push", **changes)
    broker, received = consumer(nats_js.url, "push", declare=False)
    # A subscriber without a consumer on the server is not the reason.
    broker.subscriber("core")(print)
    lifespan = BrokerLifespan(broker)
    with pytest.raises(BrokerStartError, match=f"{WARNING}{difference}"):
        await lifespan.enter()
    await owner.delete_consumer("jobs", "worker")
    async with lifespan:
        await broker.publish("after", "jobs")
        await wait_for_message(received, "after")


async def test_a_start_that_fails_for_another_reason_raises_its_error(
    nats_js: NatsServer, owner: JetStreamContext
) -> None:
    broker, _ = consumer(nats_js.url, "push", declare=False)
    await owner.delete_stream("jobs")
    with pytest.raises(BrokerStartError, match="stream not found"):
        await BrokerLifespan(broker).enter()


async def test_a_consumer_that_delivers_what_is_declared_is_no_mismatch(
    nats_js: NatsServer, owner: JetStreamContext
) -> None:
    await owner.update_stream(name="jobs", subjects=["jobs"])
    await owner.add_consumer("jobs", ConsumerConfig(durable_name="none"))
    await owner.add_consumer("jobs", ConsumerConfig(durable_name="all", filter_subject=">"))
    await owner.add_stream(name="copy", mirror=StreamSource(name="jobs"))
    await owner.add_consumer("copy", ConsumerConfig(durable_name="mirror"))
    broker = NatsBroker(nats_js.url, logger=None)
    for stream, name in (("jobs", "none"), ("jobs", "all"), ("copy", "mirror")):
        options: Any = {
            "stream": JStream(stream, declare=False),
            "durable": name,
            "pull_sub": PullSub(timeout=0.5),
        }
        broker.subscriber("jobs", **options)(print)
    filters = ConsumerConfig(filter_subjects=["jobs"])
    broker.subscriber(config=filters, stream=JStream("jobs", declare=False), queue="several")(print)
    async with BrokerLifespan(broker):
        driver = managed_broker(broker).driver
        for subscriber in broker.subscribers:
            # The second check knows the subjects of the stream in any case.
            assert [await driver.check_subscriber(subscriber) for _ in range(2)] == ["ok", "ok"]


@both
async def test_a_consumer_that_is_edited_is_seen_at_each_change(
    nats_js: NatsServer, owner: JetStreamContext, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    await add_consumer(owner, kind)
    broker, received = consumer(nats_js.url, kind, declare=False)
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan)
    async with lifespan:
        for filter_subject in ("other", "more"):
            await add_consumer(owner, kind, filter_subject=filter_subject)
            await eventually(lambda text=f"found filter_subject '{filter_subject}'.": text in caplog.text)  # type: ignore[misc]
            assert await status(ready) == 503
        await add_consumer(owner, kind)
        await eventually_status(ready, 200)
        await broker.publish("after", "jobs")
        await wait_for_message(received, "after")
    assert caplog.text.count(WARNING) == 2


@both
async def test_readiness_fails_while_the_stream_does_not_have_the_subject(
    nats_js: NatsServer, owner: JetStreamContext, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    broker, received = consumer(nats_js.url, kind, declare=False)
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan, details=True)
    async with lifespan:
        await owner.update_stream(name="jobs", subjects=["other"])
        await eventually_status(ready, 503)
        assert await code_of(ready) == "consumer_mismatch"
        assert f"{WARNING}declared subject 'jobs', found a stream with the subject 'other'." in caplog.text
        await owner.update_stream(name="jobs", subjects=["jobs", "other"])
        await eventually_status(ready, 200)
        await broker.publish("after", "jobs")
        await wait_for_message(received, "after")


@unusable
async def test_a_push_subscriber_whose_consumer_is_replaced_is_not_restarted(
    *,
    nats_js: NatsServer,
    owner: JetStreamContext,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, Any],
    difference: str,
) -> None:
    broker, received = consumer(nats_js.url, "push", declare=False)
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan)
    async with lifespan:
        subscriber: Any
        [subscriber] = broker.subscribers
        subscription = subscriber.subscription
        await owner.delete_consumer("jobs", "worker")
        await add_consumer(owner, "push", **changes)
        await eventually(lambda: f"{WARNING}{difference}." in caplog.text)
        assert await status(ready) == 503
        assert subscriber.subscription is subscription
        await owner.delete_consumer("jobs", "worker")
        await eventually_status(ready, 200)
        await broker.publish("after", "jobs")
        await wait_for_message(received, "after")


async def test_a_restart_is_not_made_while_the_consumer_is_another_one(
    nats_js: NatsServer,
    owner: JetStreamContext,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker, received = consumer(nats_js.url, "push", declare=False)
    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan, details=True)
    restart = managed_broker(broker).driver.restart
    refused = 0

    async def replace_first(subscriber: Any) -> Mismatch | None:
        """Create another consumer between the check and the restart."""
        nonlocal refused
        if not refused:
            await add_consumer(owner, "push", deliver_group="group")
        mismatch = await restart(subscriber)
        refused += mismatch is not None
        return mismatch

    monkeypatch.setattr(managed_broker(broker).driver, "restart", replace_first)
    async with lifespan:
        await owner.delete_consumer("jobs", "worker")
        await eventually(lambda: refused > 1)
        assert (await status(ready), await code_of(ready)) == (503, "consumer_mismatch")
        assert (
            caplog.text.count(f"{WARNING}declared deliver_group 'worker', found deliver_group 'group'.") == 1
        )
        await owner.delete_consumer("jobs", "worker")
        await eventually_status(ready, 200)
        await broker.publish("after", "jobs")
        await wait_for_message(received, "after")


async def test_a_consumer_that_another_process_has_created_again_is_used(
    nats_js: NatsServer, owner: JetStreamContext
) -> None:
    broker, received = consumer(nats_js.url, "push", declare=False)
    lifespan = BrokerLifespan(broker)
    async with lifespan:
        await owner.delete_consumer("jobs", "worker")
        # It delivers to an inbox of that process.
        await add_consumer(owner, "push")
        await broker.publish("after", "jobs")
        await wait_for_message(received, "after")
        await eventually_status(make_readiness_asgi(lifespan), 200)


async def test_readiness_succeeds_without_permission_to_check_streams(nats_factory: NatsFactory) -> None:
    server = nats_factory(
        jetstream=True,
        config="""
        accounts { A {
            jetstream: enabled
            users: [
                { user: "owner", password: "pw" }
                { user: "app", password: "pw", permissions: { publish: { deny: "$JS.API.STREAM.INFO.>" } } }
            ]
        } }
        """,
    )
    owner = await nats_py.connect(server.url, user="owner", password="pw")
    await owner.jetstream().add_stream(name="jobs", subjects=["jobs"])
    # The server does not reply to a forbidden request, so the request for the stream takes this timeout.
    url, options = server.url.replace("//", "//app:pw@"), {"timeout": 0.5}
    broker, received = consumer(url, "pull", declare=False, js_options=options)
    lifespan = BrokerLifespan(broker)
    async with lifespan:
        await eventually(lambda: managed_broker(broker).monitor.last_server_check > 0)
        assert await status(make_readiness_asgi(lifespan)) == 200
        await broker.publish("after", "jobs")
        await wait_for_message(received, "after")
    await owner.close()
