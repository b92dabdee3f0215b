"""NATS: the example of the documentation. tests/faults covers its faults."""

from typing import Any
from urllib.parse import urlparse

import pytest
from faststream.nats import JStream, NatsBroker, PullSub
from nats.aio.client import Server
from nats.errors import ConnectionClosedError

from faststream_adapters import BrokerLifespan
from faststream_adapters._brokers.nats.cluster import ServerSelection
from faststream_adapters._compat import nats as private
from tests.docs.blocks import python_blocks
from tests.harness.clients import client
from tests.harness.servers.nats import NatsFactory, NatsServer
from tests.harness.waiting import eventually


async def test_the_example_of_the_documentation_runs(nats_js: NatsServer) -> None:
    [block] = python_blocks("docs/brokers/nats.md").values()
    assert "nats://localhost:4222" in block.code
    names: dict[str, Any] = {}
    exec(block.code.replace("nats://localhost:4222", nats_js.url), names)  # noqa: S102 (our own page)
    app = names["app"]
    async with app.router.lifespan_context(app), client(app) as http:
        assert (await http.get("/readyz")).status_code == 200
        assert (await http.post("/orders", params={"number": 7})).status_code == 202
        await eventually(lambda: names["handled"] == [7])


async def test_streams_are_declared_with_the_js_options_of_the_broker(nats_factory: NatsFactory) -> None:
    server = nats_factory(
        jetstream=True,
        config="""
        accounts {
            streams {
                jetstream: enabled
                exports: [{ service: "$JS.API.>" }, { service: "$JS.ACK.>" }, { service: "orders" }]
            }
            application {
                users: [{ user: "app", password: "pw" }]
                imports: [
                    { service: { account: streams, subject: "$JS.API.>" }, to: "streams.API.>" }
                    { service: { account: streams, subject: "$JS.ACK.>" } }
                    { service: { account: streams, subject: "orders" } }
                ]
            }
        }
        """,
    )
    broker = NatsBroker(server.url.replace("//", "//app:pw@"), js_options={"prefix": "streams.API"})
    handled: list[int] = []

    @broker.subscriber("orders", stream=JStream("orders"), durable="worker", pull_sub=PullSub())
    async def handle(number: int) -> None:
        handled.append(number)

    async with BrokerLifespan(broker):
        await broker.publish(1, "orders", stream="orders")
        await eventually(lambda: handled == [1])


async def test_a_closed_client_makes_no_round_trip(shared_nats: NatsServer) -> None:
    async with NatsBroker(shared_nats.url) as broker:
        client = broker.connection
        await private.round_trip(client)
    with pytest.raises(ConnectionClosedError):
        await private.round_trip(client)


async def test_clients_that_have_lost_their_server_together_do_not_return_together(
    shared_nats: NatsServer,
) -> None:
    broker = NatsBroker(shared_nats.url, reconnect_time_wait=2)
    client = await broker.connect()
    server = [Server(uri=urlparse(shared_nats.url))]
    delays = []
    for _ in range(20):
        select = ServerSelection(client)
        assert select(server, {})[1] == 0
        delays.append(select(server, {})[1])
    assert max(delays) <= 3
    assert max(delays) - min(delays) > 0.2
    await broker.stop()
