"""docs/operation.md: its blocks run against a real server."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from faststream.exceptions import SetupError
from faststream.nats import JStream, NatsBroker, PullSub

from faststream_adapters import BrokerLifespan
from faststream_adapters._lifecycle.managed import managed_broker
from tests.docs.blocks import at_nats, code_blocks, curl, load, python_blocks, served, wait_until
from tests.harness.clients import client as unstarted

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.servers.nats import NatsServer

BLOCKS = python_blocks("docs/operation.md")
LIST, PAUSE = "Select subscribers 1", "Pause and resume 1"
ROUTE, SWITCH = "A route that pauses 1", "Blue-green deployment 1"


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {LIST, PAUSE, ROUTE, SWITCH}


async def test_the_subscribers_are_listed_paused_and_resumed(shared_nats: NatsServer, tmp_path: Path) -> None:
    module = load(at_nats(BLOCKS[LIST].code, shared_nats.url), tmp_path)
    assert await module.list_subscribers() == ["accept_order on orders: ok"]
    pause, resume = BLOCKS[PAUSE].code.splitlines()
    code = "yield lifespan.subscribers[0].code"
    function = f"async def change(lifespan):\n    {pause}\n    {code}\n    {resume}\n"
    changing: Any = load(function, tmp_path, "changing")
    async with module.lifespan:
        assert [code async for code in changing.change(module.lifespan)] == ["paused"]
        assert module.lifespan.subscribers[0].code == "ok"


async def test_a_guarded_route_pauses_and_resumes(
    shared_nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPERATOR_KEY", "secret")
    app = load(at_nats(BLOCKS[ROUTE].code, shared_nats.url), tmp_path).app
    key = {"X-Operator-Key": "secret"}
    async with served(app) as client:
        path = "/subscribers/accept_order/pause"
        assert (await client.post(path)).status_code in {401, 403}
        assert (await client.post(path, headers={"X-Operator-Key": "wrong"})).status_code == 403
        assert (await client.post(path, headers=key)).json() == {"accept_order": "paused"}
        assert (await client.get("/readyz")).text == "ok"
        resumed = await client.post("/subscribers/accept_order/resume", headers=key)
        assert resumed.json() == {"accept_order": "ok"}
        unknown = await client.post("/subscribers/accept_ordr/pause", headers=key)
        assert unknown.status_code == 404
        assert "Did you mean 'accept_order'?" in unknown.json()["detail"]
        assert (await client.post("/subscribers/accept_order/stop", headers=key)).status_code == 404


async def test_the_commands_pause_and_resume(
    shared_nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPERATOR_KEY", "secret")
    app = load(at_nats(BLOCKS[ROUTE].code, shared_nats.url), tmp_path).app
    [console] = code_blocks("docs/operation.md", "console").values()
    lines = console.code.splitlines()
    async with served(app) as client:
        for command, shown in zip(lines[::2], lines[1::2], strict=True):
            response, _ = await curl(client, command.removeprefix("$ ").replace("$OPERATOR_KEY", "secret"))
            assert response.json() == json.loads(shown)


async def test_the_guarded_route_answers_503_while_the_broker_cannot_do_it(
    shared_nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPERATOR_KEY", "secret")
    module = load(at_nats(BLOCKS[ROUTE].code, shared_nats.url), tmp_path)
    path, key = "/subscribers/accept_order", {"X-Operator-Key": "secret"}

    async def refuse(subscriber: object) -> None:
        raise PermissionError("refused")

    async with served(module.app) as client:
        await client.post(f"{path}/pause", headers=key)
        monkeypatch.setattr(managed_broker(module.broker).driver, "resume", refuse)
        response = await client.post(f"{path}/resume", headers=key)
        assert response.status_code == 503
        assert "could not be resumed: PermissionError: refused" in response.json()["detail"]
    async with unstarted(module.app) as client:
        for change in ("pause", "resume"):
            response = await client.post(f"{path}/{change}", headers=key)
            assert response.status_code == 503
            assert "works while the lifespan runs" in response.json()["detail"]


async def test_the_guarded_route_responds_while_the_server_is_frozen_and_the_change_is_made_later(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPERATOR_KEY", "secret")
    code = BLOCKS[ROUTE].code.replace("timeout(5)", "timeout(0.1)")
    module = load(at_nats(code, nats.url), tmp_path)
    async with served(module.app) as client:
        nats.freeze()
        response = await client.post("/subscribers/accept_order/pause", headers={"X-Operator-Key": "secret"})
        assert response.status_code == 504
        nats.thaw()

        async def paused() -> bool:
            [info] = module.router.broker_lifespan.subscribers
            return bool(info.code == "paused")

        await wait_until(paused)


async def test_green_takes_over_from_blue_without_losing_or_repeating_a_message(
    nats_js: NatsServer, tmp_path: Path
) -> None:
    switch = load(BLOCKS[SWITCH].code, tmp_path).switch
    channel = uuid.uuid4().hex
    handled: dict[str, list[int]] = {"blue": [], "green": []}

    def service(name: str, **keywords: Any) -> tuple[NatsBroker, BrokerLifespan]:
        broker = NatsBroker(nats_js.url)
        stream = JStream(channel, subjects=[channel])

        @broker.subscriber(channel, stream=stream, durable=channel, pull_sub=PullSub())
        async def accept_order(order: int) -> None:
            handled[name].append(order)

        return broker, BrokerLifespan(broker, **keywords)

    (broker, blue), (_, green) = service("blue"), service("green", consume=[])
    async with blue, green:
        for order in range(50):
            await broker.publish(order, channel)
            if order == 25:
                switching = asyncio.create_task(switch(blue, green, ["accept_order"]))
        await switching
        async with asyncio.timeout(10):
            while sum(map(len, handled.values())) < 50:  # noqa: ASYNC110 (the handlers run in the lifespans)
                await asyncio.sleep(0.01)
    assert handled["blue"]
    assert handled["green"]
    assert sorted(handled["blue"] + handled["green"]) == list(range(50))


async def test_blue_consumes_again_if_green_cannot(shared_nats: NatsServer, tmp_path: Path) -> None:
    switch = load(BLOCKS[SWITCH].code, tmp_path).switch
    blue, green = NatsBroker(shared_nats.url), NatsBroker(shared_nats.url)
    blue.subscriber(uuid.uuid4().hex)(print)
    blue_lifespan, green_lifespan = BrokerLifespan(blue), BrokerLifespan(green, consume=[])
    async with blue_lifespan, green_lifespan:
        with pytest.raises(SetupError, match="'print' is not a subscriber"):
            await switch(blue_lifespan, green_lifespan, ["print"])
        assert blue_lifespan.subscribers[0].code == "ok"
