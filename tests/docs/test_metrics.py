"""docs/metrics.md: its code runs in every host, and its metric names exist."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.docs.blocks import ROOT, at_nats, load, python_blocks, served
from tests.harness.scrapes import Scrape

if TYPE_CHECKING:
    from pathlib import Path

    from prometheus_client import CollectorRegistry

    from tests.harness.servers.nats import NatsServer

PAGE = "docs/metrics.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
EXAMPLE = "Metrics 1"
HOSTS = dict(
    re.findall(r"^\| ([^|]+) \| `(.+)` \|$", TEXT.split("\n| Host | |\n")[1].split("\n\n")[0], re.MULTILINE)
)
# The code that precedes each line of the table of hosts.
PRELUDES = {
    "alone": "from faststream_adapters import AsgiFastStream",
    "FastAPI": """
from fastapi import FastAPI
from faststream_adapters.fastapi import FastStreamRouter
app = FastAPI()
""",
    "Litestar": """
from litestar import Litestar
from faststream_adapters.litestar import FastStreamPlugin
""",
    "Quart": """
from quart import Quart
from faststream_adapters.quart import QuartFastStream
app = Quart(__name__)
""",
    "any other ASGI app": """
from starlette.applications import Starlette
from faststream_adapters import FastStreamMiddleware
app = Starlette()
""",
}


def test_every_block_and_host_is_tested() -> None:
    assert set(python_blocks(PAGE)) == {EXAMPLE}
    assert set(HOSTS) == set(PRELUDES)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    """Replace the default registry, from which FastStream's metrics cannot be removed."""
    import prometheus_client

    registry = prometheus_client.CollectorRegistry()
    monkeypatch.setattr(prometheus_client, "REGISTRY", registry)
    return registry


async def test_the_example_exposes_the_described_metrics(
    shared_nats: NatsServer, registry: CollectorRegistry, tmp_path: Path
) -> None:
    code = python_blocks(PAGE)[EXAMPLE].code
    assert code.count("NatsBroker(middlewares") == 1
    code = code.replace("NatsBroker(middlewares", f"NatsBroker({shared_nats.url!r}, middlewares")
    module: Any = load(code, tmp_path)
    async with served(module.app) as client:
        await module.broker.publish("tea", "orders")
        metrics = Scrape((await client.get("/metrics")).text)
    assert metrics.broker_metric("up") == 1
    assert metrics.total("faststream_published_messages_total") == 1
    described = TEXT.split("\n## What each metric means\n")[1].split("\n## ")[0]
    listed = set(re.findall(r"^\| `(\w+)(?:\{[\w,]+\})?` \| (\w+) \|", described, re.MULTILINE))
    assert listed == set(
        re.findall(r"^# TYPE (faststream_adapters_\w+(?<!_created)) (\w+)$", metrics.text, re.MULTILINE)
    )
    series = [line for line in metrics.text.splitlines() if line.startswith("faststream_adapters_broker")]
    # The time of the last success may still be missing, and `_created` series can be disabled.
    assert len([line for line in series if "_created" not in line and "_last_success" not in line]) == 15
    subscriber = {"broker": "NatsBroker 1", "subscriber": "process"}
    assert metrics("faststream_adapters_subscriber_up", **subscriber) == 1


@pytest.mark.parametrize("host", HOSTS)
async def test_each_host_exposes_metrics(host: str, shared_nats: NatsServer, tmp_path: Path) -> None:
    prelude = f"from faststream.nats import NatsBroker\nbroker = NatsBroker()\n{PRELUDES[host]}\n"
    module: Any = load(at_nats(prelude + HOSTS[host], shared_nats.url), tmp_path)
    async with served(module.app) as client:
        assert Scrape((await client.get("/metrics")).text).states == {"running": 1}
