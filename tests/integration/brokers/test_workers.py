"""The warning about subscribers that handle every message in every worker."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import pytest
from faststream.nats import JStream, NatsBroker, PullSub

from faststream_adapters import AsgiFastStream, BrokerLifespan

if TYPE_CHECKING:
    from tests.harness.servers.nats import NatsServer


@pytest.fixture(autouse=True)
def no_worker_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings from which the number of workers is detected."""
    for name in ("WEB_CONCURRENCY", "SERVER_SOFTWARE", "GUNICORN_CMD_ARGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["program"])


def broker_with_subscribers(url: str) -> NatsBroker:
    """Return a broker with load-balanced subscribers, and others whose messages reach every worker."""
    broker = NatsBroker(url)
    stream = JStream("WORKERS", subjects=["workers.js.*"])

    @broker.subscriber("workers.plain")
    async def every_one(message: str) -> None: ...

    @broker.subscriber("workers.js.push", stream=stream, durable=None)
    async def every_push(message: str) -> None: ...

    @broker.subscriber("workers.queue", queue="group")
    async def one_of_the_group(message: str) -> None: ...

    @broker.subscriber("workers.js.pull", stream=stream, pull_sub=PullSub(), durable="durable")
    async def one_of_the_consumer(message: str) -> None: ...

    # Each worker needs every update of a watched key, so a watcher causes no warning.
    @broker.subscriber("workers.key", kv_watch="workers")
    async def watch(message: str) -> None: ...

    # A subscriber without a handler.
    broker.subscriber("workers.unhandled")
    return broker


async def test_the_warning_names_the_subscribers_that_handle_every_message(
    nats_js: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    app = AsgiFastStream(broker_with_subscribers(nats_js.url))
    with caplog.at_level(logging.WARNING, "faststream.adapters"):
        async with app.start_lifespan_context({"worker_id": 0}):
            pass
    [warning] = [record.getMessage() for record in caplog.records if "several workers" in record.getMessage()]
    assert "(faststream run --workers)" in warning
    names = warning.partition("every message of ")[2].partition(".")[0].split(", ")
    assert {name.partition(":")[0] for name in names} == {"every_one", "every_push"}
    assert "queue=..." in warning


@pytest.mark.parametrize(
    ("worker_id", "consume", "queue"),
    [
        (None, True, ""),
        # The other workers do not consume either.
        (0, False, ""),
        (0, True, "group"),
    ],
)
async def test_there_is_no_warning_when_each_message_is_handled_once(
    nats: NatsServer,
    caplog: pytest.LogCaptureFixture,
    worker_id: int | None,
    consume: bool,
    queue: str,
) -> None:
    broker = NatsBroker(nats.url)

    @broker.subscriber("workers.plain", queue=queue)
    async def handle(message: str) -> None: ...

    lifespan = BrokerLifespan(AsgiFastStream(broker), consume=consume)
    await lifespan.enter(options={"worker_id": worker_id})
    await lifespan.leave()
    assert "several workers" not in caplog.text
