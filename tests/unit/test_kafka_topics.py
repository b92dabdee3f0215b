"""The comparison of declared topics with those on the server."""

from types import SimpleNamespace

import pytest

from faststream_adapters._brokers.topics import Found, Topics, compare


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"a": [0, 1], "b": [0]}, None),
        ({"a": [], "b": [0]}, ("the topic 'a'", "no such topic")),
        ({"a": [0], "b": []}, ("the topic 'b'", "no such topic")),
        ({"a": [0, 2], "b": [1, 2]}, ("the partitions 0 of the topic 'b'", "the partitions 1, 2")),
        ({"a": None, "b": None}, None),
        ({}, None),
    ],
)
def test_the_first_difference_is_found(found: Found, expected: tuple[str, str] | None) -> None:
    assert compare({"a": [], "b": [0]}, found) == expected


async def test_the_last_reply_remains_valid_without_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faststream_adapters._brokers.topics.TTL", 0.0)
    replies: list[Found] = [{"a": []}]

    async def request(names: list[str]) -> Found:
        assert names == ["a"]
        return replies.pop()

    topics = Topics(request)
    subscriber = SimpleNamespace(topics=[SimpleNamespace(name="a")], partitions=[])
    for _ in range(2):
        assert await topics.find_mismatch(subscriber, [subscriber]) == ("the topic 'a'", "no such topic")


async def test_nothing_is_asked_without_topics() -> None:
    async def request(names: list[str]) -> Found:
        raise AssertionError(names)

    subscriber = SimpleNamespace(topics=[], partitions=[])
    assert await Topics(request).find_mismatch(subscriber, [subscriber]) is None


async def test_the_subscribers_of_a_broker_share_a_reply() -> None:
    requests: list[list[str]] = []

    async def request(names: list[str]) -> Found:
        requests.append(names)
        return dict.fromkeys(names, ())

    topics = Topics(request)
    topic, partition = SimpleNamespace(name="b"), SimpleNamespace(topic="a", partition=1)
    subscribers = [
        SimpleNamespace(topics=[topic], partitions=[]),
        SimpleNamespace(topics=[], partitions=[partition]),
    ]
    for each in subscribers:
        assert await topics.find_mismatch(each, subscribers) is not None
    assert requests == [["a", "b"]]
