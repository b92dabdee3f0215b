"""Who uses one kind of broker installs nothing of another."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.kits import KITS, Kit
from tests.kits.shared import shared_server

CLIENTS = {
    "nats": "nats",
    "redis": "redis",
    "rabbit": "aio_pika",
    "kafka": "aiokafka",
    "confluent": "confluent_kafka",
    "mqtt": "zmqtt",
}
"""What FastStream imports for each kind."""

LIFESPAN = """
import asyncio, json, sys

sys.modules.update(dict.fromkeys({others}))
from {module} import {name}
from faststream_adapters import BrokerLifespan, make_readiness_asgi

broker = {name}({url!r}, **{options})
sent = []


@broker.subscriber({channel!r})
async def handle(number: int) -> None:
    pass


async def send(message):
    sent.append(message)


async def main():
    async with BrokerLifespan(broker):
        await broker.publish(1, {channel!r})
        scope = {{"type": "http", "method": "GET", "path": "/", "headers": [], "root_path": ""}}
        await make_readiness_asgi(broker)(scope, None, send)


asyncio.run(main())
drivers = [name for name in {kinds} if f"faststream_adapters.brokers.{{name}}" in sys.modules]
print(json.dumps([sent[0]["status"], *drivers]))
"""


def run(code: str) -> str:
    """Run code in a fresh interpreter and return the last line that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "kit",
    [
        # The servers or clients of the others take seconds to start.
        pytest.param(kit, id=name, marks=[] if name in {"nats", "redis", "mqtt"} else pytest.mark.full)
        for name, kit in KITS.items()
    ],
)
def test_no_other_client_is_needed(kit: Kit) -> None:
    url = shared_server(kit).url
    broker = kit.broker(url)
    # Not every server of that kind speaks the version by default.
    options = {"version": broker.specification.protocol_version} if kit.name == "mqtt" else {}
    code = LIFESPAN.format(
        kinds=[*CLIENTS],
        others=[client for name, client in CLIENTS.items() if name != kit.name],
        module=f"faststream.{kit.name}",
        name=type(broker).__name__,
        url=url,
        options=options,
        channel=f"alone-{kit.name}",
    )
    assert json.loads(run(code)) == [204, kit.name]


def test_a_missing_client_is_named_by_its_extra() -> None:
    """FastStream says so, before there is a broker that could be given to us."""
    code = f"""
import json, sys
from importlib import import_module

sys.modules.update(dict.fromkeys({[*CLIENTS.values()]}))
import faststream_adapters

said = {{}}
for name in {[*CLIENTS]}:
    try:
        import_module(f"faststream.{{name}}")
    except ImportError as error:
        said[name] = str(error)
print(json.dumps(said))
"""
    said = json.loads(run(code))
    assert set(said) == set(CLIENTS)
    for name, error in said.items():
        assert f'pip install "faststream[{name}]"' in error
