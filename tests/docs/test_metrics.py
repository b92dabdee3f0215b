"""The page about metrics: its code runs in every host, its rules are rules, its names are the names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.examples.blocks import ROOT, at_nats, code_blocks, load, python_blocks, served
from tests.metrics.scrapes import Scrape

if TYPE_CHECKING:
    from pathlib import Path

    from prometheus_client import CollectorRegistry

    from tests.servers.nats import NatsServer

PAGE = "docs/metrics.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
EXAMPLE = "Metrics 1"
HOSTS = dict(
    re.findall(r"^\| ([^|]+) \| `(.+)` \|$", TEXT.split("\n| Host | |\n")[1].split("\n\n")[0], re.MULTILINE)
)
# What stands above a line of that table.
ABOVE = {
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


def test_all_is_tested() -> None:
    assert set(python_blocks(PAGE)) == {EXAMPLE}
    assert set(HOSTS) == set(ABOVE)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    """Put another default registry in place: FastStream's metrics stay in the one of the process."""
    import prometheus_client

    registry = prometheus_client.CollectorRegistry()
    monkeypatch.setattr(prometheus_client, "REGISTRY", registry)
    return registry


async def test_the_example(shared_nats: NatsServer, registry: CollectorRegistry, tmp_path: Path) -> None:
    code = python_blocks(PAGE)[EXAMPLE].code
    assert code.count("NatsBroker(middlewares") == 1
    code = code.replace("NatsBroker(middlewares", f"NatsBroker({shared_nats.url!r}, middlewares")
    module: Any = load(code, tmp_path)
    async with served(module.app) as client:
        await module.broker.publish("tea", "orders")
        found = Scrape((await client.get("/metrics")).text)
    assert found.ours("up") == 1
    assert found.total("faststream_published_messages_total") == 1
    described = TEXT.split("\n## What each metric means\n")[1].split("\n## ")[0]
    named = set(re.findall(r"^\| `(\w+)\{\w+\}` \| (\w+) \|", described, re.MULTILINE))
    assert named == set(
        re.findall(r"^# TYPE (faststream_adapters_\w+(?<!_created)) (\w+)$", found.text, re.MULTILINE)
    )
    series = [line for line in found.text.splitlines() if line.startswith("faststream_adapters_broker")]
    # The time of the last success may not be there yet, and `_created` can be turned off.
    assert len([line for line in series if "_created" not in line and "_last_success" not in line]) == 14


@pytest.mark.parametrize("host", HOSTS)
async def test_every_host(host: str, shared_nats: NatsServer, tmp_path: Path) -> None:
    start = f"from faststream.nats import NatsBroker\nbroker = NatsBroker()\n{ABOVE[host]}\n"
    module: Any = load(at_nats(start + HOSTS[host], shared_nats.url), tmp_path)
    async with served(module.app) as client:
        assert Scrape((await client.get("/metrics")).text).states == {"running": 1}


def test_the_alerts_use_names_that_there_are() -> None:
    (rules,) = code_blocks(PAGE, "yaml").values()
    for name in re.findall(r"faststream_adapters_\w+", rules.code):
        assert f"| `{name}{{" in TEXT
