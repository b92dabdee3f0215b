"""Tests of the access to aio-pika's private state."""

from types import SimpleNamespace

import pytest

pytest.importorskip("aio_pika")

from aio_pika import RobustQueue

from faststream_adapters._compat import rabbit


def test_a_queue_is_excluded_from_restore_but_not_another_one_of_its_name() -> None:
    """aio-pika fails on a name without a queue, so such a name is removed."""
    queues = [RobustQueue.__new__(RobustQueue) for _ in range(2)]
    for queue in queues:
        queue.name = "orders"
    kept = {"orders": set(queues)}
    channel = SimpleNamespace(_queues=kept)
    rabbit.exclude_from_restore(channel, queues[0])
    assert kept == {"orders": {queues[1]}}
    rabbit.exclude_from_restore(channel, queues[1])
    assert kept == {}
