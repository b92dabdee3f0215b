"""A process that has siblings says which of its messages all of them will handle."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from faststream.mqtt import MQTTBroker
from faststream.nats import JStream, NatsBroker, PullSub

from faststream_adapters import AsgiFastStream, BrokerLifespan
from faststream_adapters.supervision import run_of
from faststream_adapters.workers import siblings, warn_of_siblings

if TYPE_CHECKING:
    from tests.servers.nats import NatsServer


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WEB_CONCURRENCY", "SERVER_SOFTWARE", "GUNICORN_CMD_ARGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["program"])


GUNICORN = {"SERVER_SOFTWARE": "gunicorn/1.2"}


@pytest.mark.parametrize(
    ("options", "environment", "words", "expected"),
    [
        ({}, {}, "", None),
        ({"worker_id": None}, {}, "", None),
        ({"worker_id": 0}, {}, "", "faststream run --workers"),
        # Set by some platforms for everybody; `faststream run` does not read it.
        ({"worker_id": None}, {"WEB_CONCURRENCY": "4"}, "", None),
        ({}, {"WEB_CONCURRENCY": "4"}, "", "WEB_CONCURRENCY"),
        ({}, {"WEB_CONCURRENCY": "1"}, "", None),
        ({}, {"WEB_CONCURRENCY": "many"}, "", None),
        ({}, {}, "--workers 4", None),
        ({}, GUNICORN, "main:app", None),
        ({}, GUNICORN, "-k asgi main:app --workers 4 -b :80", "gunicorn --workers"),
        ({}, GUNICORN, "-k asgi --workers=2 main:app", "gunicorn --workers"),
        ({}, GUNICORN, "-w4 main:app", "gunicorn --workers"),
        ({}, GUNICORN, "main:app -w 1", None),
        ({}, GUNICORN, "main:app -w many", None),
        ({}, GUNICORN | {"GUNICORN_CMD_ARGS": "--workers '3'"}, "main:app", "gunicorn --workers"),
        # The command line wins.
        ({}, GUNICORN | {"GUNICORN_CMD_ARGS": "--workers 3"}, "main:app --workers 1", None),
        ({}, GUNICORN | {"WEB_CONCURRENCY": "4"}, "main:app --workers 1", None),
        ({}, GUNICORN | {"WEB_CONCURRENCY": "4"}, "main:app", "WEB_CONCURRENCY"),
        ({}, {"SERVER_SOFTWARE": "other"}, "-w 4", None),
    ],
)
def test_siblings(
    options: dict[str, Any],
    environment: dict[str, str],
    words: str,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["program", *words.split()])
    assert siblings(options) == expected


def broker_at(url: str) -> NatsBroker:
    """Return a broker with a subscriber of each kind."""
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

    # A watcher is for everybody by its nature: nothing to warn of.
    @broker.subscriber("workers.key", kv_watch="workers")
    async def watch(message: str) -> None: ...

    broker.subscriber("workers.nobody")
    return broker


async def test_the_warning_names_who_handles_everything(
    nats_js: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    app = AsgiFastStream(broker_at(nats_js.url))
    with caplog.at_level(logging.WARNING, "faststream.adapters"):
        async with app.start_lifespan_context({"worker_id": 0}):
            pass
    [text] = [record.getMessage() for record in caplog.records if "several workers" in record.getMessage()]
    assert "(faststream run --workers)" in text
    named = text.partition("every message of ")[2].partition(".")[0].split(", ")
    assert {name.partition(":")[0] for name in named} == {"EveryOne", "EveryPush"}
    assert "queue=..." in text


@pytest.mark.parametrize(
    ("worker_id", "consume", "queue"),
    [
        (None, True, ""),
        # Siblings that consume nothing either.
        (0, False, ""),
        (0, True, "group"),
    ],
)
async def test_no_warning(
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


@pytest.mark.parametrize(
    ("client_id", "warned"),
    [
        ("orders-0", True),
        ("", False),
        (f"orders-{os.getpid()}", False),
    ],
    # Each process that runs tests has to call them the same.
    ids=["fixed", "none", "of the process"],
)
def test_workers_that_would_throw_each_other_out(
    client_id: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    runs = [run_of(MQTTBroker(client_id=client_id)), run_of(NatsBroker())]
    warn_of_siblings({"worker_id": None}, runs)
    assert not caplog.records
    warn_of_siblings({"worker_id": 0}, runs)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == warned
    assert all("(faststream run --workers)" in text for text in said)
    assert all("'orders-0'" in text and "its own client_id" in text for text in said)
