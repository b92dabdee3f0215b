"""The words of real servers in the reasons for which a broker does not start."""

import itertools
import logging
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import nats as nats_py
import pytest
from faststream.nats import JStream, NatsBroker
from faststream.rabbit import RabbitBroker, RabbitExchange, RabbitQueue
from faststream.redis import RedisBroker, RedisSentinelBroker, StreamSub

from faststream_adapters import BrokerLifespan
from faststream_adapters._compat.faststream import Broker
from faststream_adapters._lifecycle import managed
from faststream_adapters._utils.errors import BrokerStartError
from tests.harness.brokers import HARNESSES
from tests.harness.brokers.shared import shared_server
from tests.harness.servers import HOST
from tests.harness.servers.nats import NatsFactory, NatsServer, tls
from tests.harness.servers.redis import RedisSentinel, RedisServer
from tests.harness.waiting import eventually

PASSWORD = "hunter2"


async def handle(message: str) -> None: ...


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Retry without delay, and log at each level."""
    monkeypatch.setattr(managed, "backoff", lambda: itertools.repeat(0.01))
    caplog.set_level(logging.DEBUG, "faststream.adapters.lifecycle")


@pytest.fixture
def reason_is(caplog: pytest.LogCaptureFixture) -> Callable[[Broker, str], Awaitable[None]]:
    """Return a check that both kinds of starts fail for a reason that contains a text and no password."""

    async def check(broker: Broker, reason: str) -> None:
        with pytest.raises(BrokerStartError) as raised:
            await BrokerLifespan(broker).enter()
        assert f"could not be started: {reason}" in str(raised.value)
        caplog.clear()
        async with BrokerLifespan(broker, startup="background"):
            await eventually(lambda: len(_reports(caplog)) >= 2, 30.0)
        # The other one is logged at DEBUG.
        assert [f" is not up: {reason}" in each for each in _reports(caplog, logging.WARNING)] == [True]
        assert PASSWORD not in f"{raised.value}{caplog.text}"

    return check


def _reports(caplog: pytest.LogCaptureFixture, level: int = logging.DEBUG) -> list[str]:
    messages = [record.getMessage() for record in caplog.records if record.levelno >= level]
    return [message for message in messages if " is not up: " in message]


ReasonIs = Callable[[Broker, str], Awaitable[None]]


async def test_streams_with_overlapping_subjects(nats_factory: NatsFactory, reason_is: ReasonIs) -> None:
    server = nats_factory(jetstream=True, user="user", password=PASSWORD)
    client = await nats_py.connect(server.url)
    try:
        await client.jetstream().add_stream(name="one", subjects=["orders.*"])
    finally:
        await client.close()
    broker = NatsBroker(server.url)
    broker.subscriber("orders.new", stream=JStream("two"))(handle)
    words = "description='subjects overlap with an existing stream'"
    await reason_is(broker, f"BadRequestError: nats: BadRequestError: code=400 err_code=10065 {words}")


async def test_a_stream_that_does_not_exist(nats_js: NatsServer, reason_is: ReasonIs) -> None:
    broker = NatsBroker(nats_js.url)
    broker.subscriber("orders", stream=JStream("orders", declare=False))(handle)
    await reason_is(broker, "NotFoundError: nats: NotFoundError: code=404 err_code=10059")


async def test_a_server_without_jetstream(nats: NatsServer, reason_is: ReasonIs) -> None:
    broker = NatsBroker(nats.url)
    broker.subscriber("orders", stream=JStream("orders"))(handle)
    await reason_is(broker, "ServiceUnavailableError: nats: ServiceUnavailableError: code=None")
    # The server has no words for it.
    with pytest.raises(BrokerStartError, match="JetStream is not enabled for this server or account"):
        await BrokerLifespan(broker).enter()


async def test_a_key_of_another_type(reason_is: ReasonIs) -> None:
    with RedisServer(password=PASSWORD) as server:
        with server.client() as client:
            client.set("jobs", "text")
        broker = RedisBroker(server.url)
        broker.subscriber(stream=StreamSub("jobs", group="workers", consumer="one"))(handle)
        await reason_is(broker, "ResponseError: WRONGTYPE Operation against a key holding the wrong kind of")


async def test_a_user_without_permission(reason_is: ReasonIs) -> None:
    with RedisServer() as server:
        with server.client() as client:
            client.execute_command(f"ACL SETUSER reader on >{PASSWORD} ~* +ping +hello +client +auth")
        broker = RedisBroker(f"redis://reader:{PASSWORD}@{HOST}:{server.port}")
        broker.subscriber(stream=StreamSub("jobs", group="workers", consumer="one"))(handle)
        await reason_is(broker, "the credentials were rejected (NoPermissionError: this user has no")


async def test_an_option_that_the_client_does_not_have(reason_is: ReasonIs) -> None:
    broker = RedisBroker(f"redis://:{PASSWORD}@{HOST}", typo=1)  # type: ignore[call-arg]  # the mistake
    await reason_is(
        broker, "TypeError: AbstractConnection.__init__() got an unexpected keyword argument 'typo'"
    )


async def test_a_password_that_the_sentinels_reject(reason_is: ReasonIs) -> None:
    with RedisServer(password="another") as server:
        broker = RedisSentinelBroker(
            sentinels=[(HOST, server.port)],
            sentinel_master_name="main",
            sentinel_kwargs={"password": PASSWORD},
        )
        await reason_is(
            broker, "the credentials were rejected (AuthenticationError: invalid username-password"
        )


@pytest.mark.parametrize(
    ("host", "reason"),
    [(HOST, "the connection was refused."), ("unknown.invalid", "its host name could not be resolved.")],
)
async def test_sentinels_that_cannot_be_reached(host: str, reason: str, reason_is: ReasonIs) -> None:
    with closing(RedisServer()) as server:
        sentinels = [(host, server.port)] * 2
        await reason_is(RedisSentinelBroker(sentinels=sentinels, sentinel_master_name="main"), reason)


async def test_a_master_that_the_sentinels_do_not_know(reason_is: ReasonIs) -> None:
    with RedisServer() as master, RedisSentinel(master) as sentinel:
        broker = RedisSentinelBroker(sentinels=[(HOST, sentinel.port)], sentinel_master_name="another")
        await reason_is(
            broker, "the connection was refused (MasterNotFoundError: No master found for 'another')"
        )


# RabbitMQ takes 5 s to start.
@pytest.mark.full
async def test_a_queue_with_another_option(reason_is: ReasonIs) -> None:
    url = shared_server(HARNESSES["rabbit"]).url
    other = RabbitBroker(url)
    async with other:
        await other.declare_queue(RabbitQueue("reasons", durable=False))
        await other.declare_exchange(RabbitExchange("reasons", auto_delete=True))
        for queue, exchange, words in (
            (RabbitQueue("reasons", durable=True), None, "inequivalent arg 'durable' for queue 'reasons' in"),
            (
                RabbitQueue("others", auto_delete=True),
                RabbitExchange("reasons"),
                "inequivalent arg 'auto_delete' for exchange 'reasons' in",
            ),
        ):
            broker = RabbitBroker(url)
            broker.subscriber(queue, exchange)(handle)
            await reason_is(broker, f"ChannelPreconditionFailed: PRECONDITION_FAILED - {words}")


@pytest.mark.full
async def test_a_virtual_host_that_does_not_exist(reason_is: ReasonIs) -> None:
    broker = RabbitBroker(f"{shared_server(HARNESSES['rabbit']).url}nowhere")
    words = "NOT_ALLOWED - vhost nowhere not found"
    await reason_is(broker, f"the connection was refused (ConnectionClosed: [Errno 530] {words})")


REFUSED = "the connection was refused"
REJECTED = "the credentials were rejected (Error: nats: 'Authorization Violation')"
NOT_TRUSTED = "TLS failed (CERTIFICATE_VERIFY_FAILED)"


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the reasons that were logged as warnings."""
    texts = (report.partition(" is not up: ")[2] for report in _reports(caplog, logging.WARNING))
    return [text.partition(". ")[0] for text in texts]


async def test_a_reason_is_logged_again_when_it_changes(
    nats_factory: NatsFactory, caplog: pytest.LogCaptureFixture
) -> None:
    server = nats_factory(user="user", password="another")
    server.stop()
    url = f"nats://user:{PASSWORD}@{HOST}:{server.port}"
    broker = NatsBroker(url, reconnect_time_wait=0, max_reconnect_attempts=1)
    async with BrokerLifespan(broker, startup="background"):
        await eventually(lambda: reasons(caplog) == [REFUSED])
        server.start()
        await eventually(lambda: reasons(caplog) == [REFUSED, REJECTED])
        server.stop()
        await eventually(lambda: reasons(caplog) == [REFUSED, REJECTED, REFUSED])


@pytest.mark.full
async def test_a_reason_is_logged_again_when_it_changes_while_the_client_keeps_connecting(
    nats_factory: NatsFactory, certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = nats_factory(config=tls(certificate))
    server.stop()
    broker = NatsBroker(server.url, reconnect_time_wait=0, max_reconnect_attempts=-1)
    async with BrokerLifespan(broker, startup="background"):
        await eventually(lambda: reasons(caplog) == [REFUSED])
        server.start()
        await eventually(lambda: reasons(caplog) == [REFUSED, NOT_TRUSTED])
        server.stop()
        await eventually(lambda: reasons(caplog) == [REFUSED, NOT_TRUSTED, REFUSED])
