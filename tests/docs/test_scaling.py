"""The subscribers in docs/scaling.md share their messages, and its delays differ between processes."""

from pathlib import Path

import pytest

from faststream_adapters._compat import mqtt
from faststream_adapters._lifecycle.managed import managed_broker
from tests.docs.blocks import load, python_blocks

BLOCKS = python_blocks("docs/scaling.md")


def test_each_message_goes_to_one_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTNAME", "order-service-1")
    example = load(BLOCKS["Share the messages 1"].code, tmp_path)
    drivers = [
        managed_broker(broker).driver
        for broker in (example.nats, example.kafka, example.rabbit, example.redis, example.mqtt)
    ]
    shared = [driver.is_load_balanced(each) for driver in drivers for each in driver.broker.subscribers]
    assert shared == [True] * 6


def test_each_process_has_delays_of_its_own(tmp_path: Path) -> None:
    processes = [load(BLOCKS["When servers restart 1"].code, tmp_path) for _ in range(2)]
    first, second = (mqtt.settings(process.mqtt)["reconnect"].initial_delay for process in processes)
    assert first != second
