"""What replaces the clients of librdkafka while a broker stops."""

import threading
from concurrent.futures import Future
from typing import Any

import pytest

pytest.importorskip("confluent_kafka")

from confluent_kafka import KafkaError, KafkaException
from faststream.confluent import KafkaBroker

from faststream_adapters._brokers import confluent
from faststream_adapters._brokers.confluent import AbortableAdminClient, ClosedConsumer, ConfluentDriver
from faststream_adapters._lifecycle.reasons import start_failure


class NoReply:
    """An admin client to which no server replies."""

    requested: Any = int
    """Called with each request."""

    def create_topics(self, topics: list[str]) -> dict[str, Future[None]]:
        self.requested()
        return {topic: Future() for topic in topics}


def test_a_pending_request_fails_when_the_admin_client_is_detached() -> None:
    client: Any = NoReply()
    admin = AbortableAdminClient(client)
    replies = admin.create_topics(["jobs"])
    assert admin.detach() is client
    with pytest.raises(ConnectionAbortedError):
        replies["jobs"].result(0)


def test_a_request_fails_after_the_admin_client_was_detached() -> None:
    client: Any = NoReply()
    admin = AbortableAdminClient(client)
    admin.detach()
    with pytest.raises(ConnectionAbortedError):
        admin.create_topics(["jobs"])


def test_a_request_fails_if_the_admin_client_is_detached_meanwhile() -> None:
    """Requests are made in the threads of the consumers."""
    client: Any = NoReply()
    admin = AbortableAdminClient(client)
    client.requested = admin.detach
    with pytest.raises(ConnectionAbortedError):
        admin.create_topics(["jobs"])["jobs"].result(0)


def test_a_closed_consumer_cannot_be_used() -> None:
    with pytest.raises(RuntimeError, match="was closed"):
        ClosedConsumer().poll(1.0)


class Recorded:
    """A client that records the thread in which it is freed."""

    freed_in: int | None = None

    def __del__(self) -> None:
        Recorded.freed_in = threading.get_ident()


def test_a_client_is_freed_in_the_thread_that_drops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = threading.Event()
    monkeypatch.setattr(confluent, "sleep", lambda _: waiting.set())
    client = Recorded()
    thread = threading.Thread(target=confluent.free, args=([client],))
    thread.start()
    assert waiting.wait(5.0)
    del client
    thread.join()
    assert Recorded.freed_in == thread.ident


def test_a_client_to_which_another_reference_remains_is_dropped_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(confluent, "_END_TIMEOUT", 0.0)
    client = Recorded()
    clients: list[Any] = [client]
    confluent.free(clients)
    assert clients == []


@pytest.mark.parametrize(
    ("code", "text", "reason"),
    [
        (KafkaError._RESOLVE, "Failed to resolve", "its host name could not be resolved"),  # noqa: SLF001 (librdkafka's names)
        (
            KafkaError._SSL,  # noqa: SLF001
            "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker …",
            "TLS failed (CERTIFICATE_VERIFY_FAILED)",
        ),
        (
            KafkaError._TRANSPORT,  # noqa: SLF001
            "error:0A000086:SSL routines::certificate verify failed (after 3ms in state SSL_HANDSHAKE)",
            "TLS failed (CERTIFICATE_VERIFY_FAILED)",
        ),
        (KafkaError._SSL, "the key is encrypted", "TLS failed (the key is encrypted)"),  # noqa: SLF001
        (KafkaError._TRANSPORT, "Connection refused", "the connection was refused"),  # noqa: SLF001
    ],
)
def test_the_reason_of_a_failed_start_is_that_of_other_clients(code: int, text: str, reason: str) -> None:
    error = KafkaError(code, text)
    driver = ConfluentDriver(KafkaBroker())
    driver.last_error = confluent.network_error(error)
    assert start_failure(driver, KafkaException(error)) == reason


def test_a_subscriber_whose_consumer_is_gone_is_left_alone() -> None:
    broker = KafkaBroker("127.0.0.1:1")
    subscriber = broker.subscriber("numbers")
    ConfluentDriver(broker).on_started(subscriber)
    assert subscriber.consumer is None
