"""Workers: the detection of sibling processes, and the warning about a shared client id."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from faststream.mqtt import MQTTBroker
from faststream.nats import NatsBroker

from faststream_adapters._lifecycle import workers
from faststream_adapters._lifecycle.managed import managed_broker
from faststream_adapters._lifecycle.workers import detect_workers, has_siblings, warn_about_workers


@pytest.fixture(autouse=True)
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
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
        # Some platforms set WEB_CONCURRENCY, but `faststream run` does not read it.
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
        # The command line takes precedence.
        ({}, GUNICORN | {"GUNICORN_CMD_ARGS": "--workers 3"}, "main:app --workers 1", None),
        ({}, GUNICORN | {"WEB_CONCURRENCY": "4"}, "main:app --workers 1", None),
        ({}, GUNICORN | {"WEB_CONCURRENCY": "4"}, "main:app", "WEB_CONCURRENCY"),
        ({}, {"SERVER_SOFTWARE": "other"}, "-w 4", None),
    ],
)
def test_workers_are_detected_by_the_server_and_its_options(
    options: dict[str, Any],
    environment: dict[str, str],
    words: str,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["program", *words.split()])
    assert detect_workers(options) == expected


@pytest.mark.parametrize(
    ("client_id", "warned"),
    [
        ("orders-0", True),
        ("", False),
        (f"orders-{os.getpid()}", False),
    ],
    # The ids must be the same in each process that runs tests.
    ids=["fixed", "none", "of the process"],
)
def test_a_client_id_that_workers_would_share_is_logged(
    client_id: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    brokers = [managed_broker(MQTTBroker(client_id=client_id)), managed_broker(NatsBroker())]
    warn_about_workers({"worker_id": None}, brokers)
    assert not caplog.records
    warn_about_workers({"worker_id": 0}, brokers)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == warned
    assert all("(faststream run --workers)" in text for text in messages)
    assert all("'orders-0'" in text and "its own client_id" in text for text in messages)


def test_a_process_has_siblings_if_a_server_may_have_started_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_siblings()
    with monkeypatch.context() as patched:
        patched.setattr(workers, "parent_process", object)
        assert has_siblings()
    monkeypatch.setenv("SERVER_SOFTWARE", "gunicorn/1.2")
    assert has_siblings()
