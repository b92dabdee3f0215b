"""A broker of the user's own, of which nothing is known but what every FastStream broker has."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from faststream._internal.configs import BrokerConfig  # noqa: TID251 (a broker of one's own is made of it)
from faststream.nats import NatsBroker
from faststream.specification.schema import BrokerSpec

from faststream_adapters import (
    BrokerLifespan,
    make_liveness_asgi,
    make_ping_asgi,
    make_readiness_asgi,
)
from faststream_adapters._compat import BrokerUsecase
from faststream_adapters.brokers import Driver
from faststream_adapters.brokers.nats import NatsDriver
from faststream_adapters.lifespan import BrokerStartError
from faststream_adapters.supervision import run_of
from tests.support import client, eventually_status, status

if TYPE_CHECKING:
    from faststream_adapters.routing import Endpoint
    from tests.servers.nats import NatsServer

NEVER = object()
"""What a ping never comes back with."""


class PostBroker(BrokerUsecase[str, object, BrokerConfig]):
    """A broker whose class comes from no package of FastStream."""

    answer: Any = True
    connecting: asyncio.Event | None = None

    def __init__(self) -> None:
        super().__init__(
            config=BrokerConfig(),
            specification=BrokerSpec(["post://user:hunter2@office"], "post", None, None, (), None),
            routers=(),
        )

    async def _connect(self) -> object:
        if self.connecting is not None:
            self.connecting.set()
            # As some clients do.
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        return object()

    async def start(self) -> None:
        await self.connect()
        await super().start()

    async def ping(self, timeout: float | None) -> bool:  # noqa: ASYNC109 (FastStream's signature)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is NEVER:
            await asyncio.Event().wait()
        return bool(self.answer)

    def subscriber(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError

    def publisher(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError

    async def publish(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError

    async def request(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError


class OurNatsBroker(NatsBroker):
    """A NATS broker of the user's own."""


BAD = {
    "it says no": (False, "error"),
    "it never says": (NEVER, "timeout"),
    "it raises": (KeyError("post://user:hunter2@office"), "error"),
    "it is refused": (ConnectionRefusedError(), "refused"),
}


async def details(probe: Endpoint) -> Any:
    """Return what an endpoint says."""
    async with client(probe) as http:
        answer = await http.get("/")
    assert "hunter2" not in answer.text
    return answer.json()


@pytest.mark.parametrize(("answer", "code"), BAD.values(), ids=BAD)
async def test_its_own_ping_decides(answer: object, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faststream_adapters.brokers.PING_TIMEOUT", 0.5)
    broker = PostBroker()
    assert type(run_of(broker).driver) is Driver
    ready, ping = make_readiness_asgi(broker, timeout=0.2), make_ping_asgi(broker, timeout=0.2)
    async with BrokerLifespan(broker):
        assert [await status(ready), await status(ping)] == [204, 204]
        broker.answer = answer
        began = time.monotonic()
        assert [await status(ready), await status(ping)] == [503, 500]
        # Far from the minute that the broker itself would take.
        assert time.monotonic() - began < 10.0
        assert (await details(make_readiness_asgi(broker, timeout=0.2, details=True)))["code"] == code
        assert await status(make_liveness_asgi(broker)) == 204
        broker.answer = True
        # A ping that hangs is given up after some seconds.
        await eventually_status(ready, 204)
    assert not broker.running


@pytest.mark.parametrize(("answer", "code"), BAD.values(), ids=BAD)
async def test_it_has_to_answer_at_the_start(answer: object, code: str) -> None:
    broker = PostBroker()
    broker.answer = answer
    with pytest.raises(BrokerStartError, match="PostBroker post://office could not be started") as failed:
        await BrokerLifespan(broker, startup_timeout=0.5).enter()
    assert "hunter2" not in str(failed.value)
    assert not broker.running


@pytest.mark.parametrize("answer", [True, False], ids=["it starts", "it fails"])
async def test_a_start_that_swallows_its_cancellation_leaves_nothing_up(answer: bool) -> None:
    broker = PostBroker()
    broker.answer, broker.connecting = answer, asyncio.Event()
    starting = asyncio.create_task(BrokerLifespan(broker).enter())
    await broker.connecting.wait()
    starting.cancel()
    await asyncio.wait((starting,), timeout=10.0)
    assert starting.cancelled()
    assert (run_of(broker).up, run_of(broker).error, broker.running) == (False, None, False)
    broker.answer, broker.connecting = True, None
    async with BrokerLifespan(broker):
        assert await status(make_readiness_asgi(broker)) == 204


async def test_an_optional_one_is_asked_too() -> None:
    needed, optional = PostBroker(), PostBroker()
    probe = make_readiness_asgi(needed, optional, details=True)
    async with BrokerLifespan(needed, optional, optional=[optional]):

        async def until(code: str) -> Any:
            said: Any = None
            async with asyncio.timeout(15.0):
                while said is None or said["checks"]["PostBroker"][1]["code"] != code:
                    said = await details(probe)
                    await asyncio.sleep(0.05)
            return said

        assert (await until("ok"))["status"] == "pass"
        optional.answer = False
        assert (await until("error"))["status"] == "warn"


async def test_a_subclass_of_a_known_one_is_known(shared_nats: NatsServer) -> None:
    broker = OurNatsBroker(shared_nats.url)
    assert type(run_of(broker).driver) is NatsDriver
    async with BrokerLifespan(broker):
        said = await details(make_readiness_asgi(broker, details=True))
    assert said["checks"]["OurNatsBroker"][0]["code"] == "ok"
