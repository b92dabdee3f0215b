"""Which destinations the patterns of the brokers cover; real servers are asked in the integration tests."""

from __future__ import annotations

import pytest

from faststream_adapters._brokers.patterns import mqtt_covers, nats_covers, rabbit_covers, redis_covers


@pytest.mark.parametrize(
    ("pattern", "subject", "covered"),
    [
        ("orders.*", "orders.7", True),
        ("orders.*", "orders", False),
        ("orders.*", "orders.7.new", False),
        ("orders.*", "orders.", False),
        ("orders.*", "bills.7", False),
        ("orders.*", "orders.*", False),
        ("orders.>", "orders.>", False),
        ("orders.>", "orders.7", True),
        ("orders.>", "orders.7.new", True),
        ("orders.>", "orders", False),
        ("orders.>", "orders.7..new", False),
        ("*.new", "orders.new", True),
        ("*.*", "orders", False),
        ("orders.*", "", False),
        (">", "orders", True),
        # The server's own subjects: with these, a client could delete a stream or reply to others.
        (">", "$JS.API.STREAM.DELETE.SHOP", False),
        (">", "_INBOX.abc", False),
        ("*.API.>", "$JS.API.INFO", False),
        ("$KV.orders.*", "$KV.orders.7", True),
    ],
)
def test_subjects_of_nats(pattern: str, subject: str, covered: bool) -> None:
    assert nats_covers(pattern, subject) is covered


@pytest.mark.parametrize(
    ("pattern", "topic", "covered"),
    [
        ("shop/+", "shop/orders", True),
        ("shop/+", "shop/", True),
        ("shop/+", "shop", False),
        ("shop/+", "shop/orders/7", False),
        ("shop/+", "shop/+", False),
        ("shop/+", "shop/a+b", False),
        ("shop/#", "shop/orders/7", True),
        ("shop/#", "shop", True),
        ("shop/#", "shop/#", False),
        ("shop/#", "shops/7", False),
        ("+/orders", "shop/orders", True),
        ("#", "shop/orders", True),
        ("#", "$SYS/broker", False),
        ("+/broker", "$SYS/broker", False),
        ("$SYS/#", "$SYS/broker", True),
        ("#", "", True),
    ],
)
def test_topics_of_mqtt(pattern: str, topic: str, covered: bool) -> None:
    assert mqtt_covers(pattern, topic) is covered


@pytest.mark.parametrize(
    ("pattern", "key", "covered"),
    [
        ("orders.*", "orders.7", True),
        ("orders.*", "orders", False),
        ("orders.*", "orders.7.new", False),
        ("orders.*", "orders.*", False),
        ("orders.#", "orders", True),
        ("orders.#", "orders.7.new", True),
        ("orders.#", "orders.#", False),
        ("#.new", "orders.7.new", True),
        ("#.new", "new", True),
        ("#.new.#", "orders.new.7.new", True),
        ("#.new.#", "orders.7", False),
        ("*.#", "orders", True),
        ("#.#.a.*", "a", False),
    ],
)
def test_routing_keys_of_rabbitmq(pattern: str, key: str, covered: bool) -> None:
    assert rabbit_covers(pattern, key) is covered


@pytest.mark.parametrize(
    ("pattern", "channel", "covered"),
    [
        # A client that copies the pattern means none of its channels.
        ("orders.*", "orders.*", False),
        ("orders.?", "orders.?", False),
        ("orders.(a|b)", "orders.(a|b)", True),
        # Redis's own channels: expired keys, and the orders of Sentinel.
        ("*", "__keyevent@0__:expired", False),
        ("?*", "__sentinel__:hello", False),
        ("__keyevent@0__:*", "__keyevent@0__:expired", True),
        ("*", "orders", True),
    ],
)
def test_channels_of_redis(pattern: str, channel: str, covered: bool) -> None:
    assert redis_covers(pattern, channel) is covered
