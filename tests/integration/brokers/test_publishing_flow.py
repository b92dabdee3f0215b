"""Messages flow while others are published, and validated only, over HTTP: none is lost or doubled."""

from __future__ import annotations

import asyncio
import operator
import re
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from faststream.mqtt import QoS
from faststream.nats import JStream, PullSub
from faststream.redis import ListSub, StreamSub

from faststream_adapters import BrokerLifespan, make_publish_asgi
from tests.harness.brokers import HARNESSES
from tests.harness.brokers.shared import shared_server
from tests.harness.clients import client
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    import httpx

    from tests.harness.servers.nats import NatsServer

FLOW, PUBLISHED, VALIDATED, LAST = range(1000), range(1000, 1200), range(2000, 2200), range(4000, 4002)

Keywords = dict[str, Any]


class Kind(NamedTuple):
    """A kind of subscriber.

    Args:
        harness: The name of the broker's harness.
        subscriber: Returns the keywords of a subscriber with a name. A name that is not among them is the
            first argument.
        destination: The keyword of the application's own `publish()` for the name.
        options: Further keywords of that.
    """

    harness: str
    subscriber: Callable[[str], Keywords]
    destination: str
    options: Callable[[str], Keywords] = lambda _: {}


_group = Kind("kafka", lambda name: {"group_id": name, "auto_offset_reset": "earliest"}, "topic")
KINDS = {
    "nats": Kind("nats", lambda _: {}, "subject"),
    "jetstream": Kind(
        "nats",
        lambda name: {
            "stream": JStream(name, subjects=[name]),
            "durable": name,
            "pull_sub": PullSub(batch_size=50),
        },
        "subject",
        lambda name: {"stream": name, "timeout": 30.0},
    ),
    "redis-channel": Kind("redis", lambda _: {}, "channel"),
    "redis-list": Kind("redis", lambda name: {"list": ListSub(name)}, "list"),
    "redis-stream": Kind(
        "redis", lambda name: {"stream": StreamSub(name, group="g", consumer="c", last_id=">")}, "stream"
    ),
    "rabbit": Kind("rabbit", lambda _: {}, "queue"),
    "kafka": _group,
    "confluent": _group._replace(harness="confluent"),
    "mqtt": Kind("mqtt", lambda _: {"qos": QoS.AT_LEAST_ONCE}, "topic", lambda _: {"qos": QoS.AT_LEAST_ONCE}),
}


class Flow:
    """Two subscribers, of even and of odd numbers, and what sends to them.

    Args:
        kind: The kind of the subscribers.
        broker: Their broker.
    """

    def __init__(self, kind: Kind, broker: Any) -> None:
        self._kind = kind
        self._broker = broker
        self._names = [f"even-{uuid.uuid4().hex}", f"odd-{uuid.uuid4().hex}"]
        self.token = ""
        """The token of the page that the forms are of."""
        self.handled: list[Counter[int]] = [Counter(), Counter()]
        for name, handled in zip(self._names, self.handled, strict=True):
            keywords = kind.subscriber(name)
            arguments = () if keywords.keys() & {"list"} or kind.destination == "stream" else (name,)
            broker.subscriber(*arguments, **keywords, title=name)(_counting(handled))

    async def publish(self, numbers: range) -> None:
        """Publish numbers as the application does."""
        for number in numbers:
            name = self._names[number % 2]
            await self._broker.publish(number, **{self._kind.destination: name}, **self._kind.options(name))

    async def post(self, http: httpx.AsyncClient, numbers: range, *, only_validate: bool = False) -> None:
        """Publish numbers over HTTP, or only validate them: two by the API, and then two by the form."""
        for number in numbers:
            name = self._names[number % 2]
            if number % 4 < 2:
                body = {"channel": name, "message": number, "validate_only": only_validate}
                response = await http.post("/", json=body)
            else:
                form = {"token": self.token, "channel": name, "message": str(number)}
                form |= {"validate_only": "1"} if only_validate else {}
                response = await http.post("/", data=form)
            assert response.status_code == 200, response.text


def _counting(handled: Counter[int]) -> Callable[[int], Awaitable[None]]:
    async def handle(number: int) -> None:
        handled[number] += 1

    return handle


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
async def test_no_message_is_lost_diverted_or_doubled(kind: str, nats_js: NatsServer) -> None:
    harness = HARNESSES[KINDS[kind].harness]
    broker = harness.broker(nats_js.url if kind == "jetstream" else shared_server(harness).url)
    flow = Flow(KINDS[kind], broker)
    lifespan = BrokerLifespan(broker)
    endpoint = make_publish_asgi(lifespan, authorize=lambda _: True)
    async with lifespan, client(endpoint) as http:
        [flow.token] = set(re.findall('name="token" value="([^"]+)"', (await http.get("/")).text))
        async with asyncio.TaskGroup() as group:
            group.create_task(flow.publish(FLOW))
            group.create_task(flow.post(http, PUBLISHED))
            group.create_task(flow.post(http, VALIDATED, only_validate=True))
        expected = len(FLOW) + len(PUBLISHED)
        await eventually(lambda: sum(map(Counter.total, flow.handled)) >= expected, 60.0)
        # Whatever would be too much was sent before these.
        await flow.post(http, LAST)
        await eventually(lambda: all(map(operator.contains, flow.handled, LAST)), 60.0)
        await lifespan.idle(30.0)
    for parity, handled in enumerate(flow.handled):
        assert handled == Counter([*FLOW[parity::2], *PUBLISHED[parity::2], LAST[parity]])
