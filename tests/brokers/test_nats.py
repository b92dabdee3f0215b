"""NATS: the page about it; its deep cases are in tests/faults, which began with it."""

from typing import Any

from tests.examples.blocks import python_blocks
from tests.servers.nats import NatsServer
from tests.support import client, eventually


async def test_the_example_of_the_page(nats_js: NatsServer) -> None:
    [block] = python_blocks("docs/brokers/nats.md").values()
    assert "nats://localhost:4222" in block.code
    names: dict[str, Any] = {}
    exec(block.code.replace("nats://localhost:4222", nats_js.url), names)  # noqa: S102 (our own page)
    app = names["app"]
    async with app.router.lifespan_context(app), client(app) as http:
        assert (await http.get("/readyz")).status_code == 204
        assert (await http.post("/orders", params={"number": 7})).status_code == 202
        await eventually(lambda: names["handled"] == [7])
