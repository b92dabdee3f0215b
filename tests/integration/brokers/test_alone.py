"""A service with one kind of broker needs the client of that kind only."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.harness.brokers import HARNESSES, BrokerHarness
from tests.harness.brokers.shared import shared_server

CLIENTS = {name: harness.module for name, harness in HARNESSES.items()}
"""The module that FastStream imports for each kind."""

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
drivers = [name for name in {kinds} if f"faststream_adapters._brokers.{{name}}" in sys.modules]
print(json.dumps([sent[0]["status"], *drivers]))
"""


def run(code: str) -> str:
    """Run code in a fresh interpreter and return the last line that it prints."""
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()[-1]


@pytest.mark.full
@pytest.mark.parametrize("harness", HARNESSES.values(), ids=HARNESSES)
def test_a_broker_runs_without_the_clients_of_other_kinds(harness: BrokerHarness) -> None:
    url = shared_server(harness).url
    broker = harness.broker(url)
    code = LIFESPAN.format(
        kinds=[*CLIENTS],
        others=[client for name, client in CLIENTS.items() if name != harness.name],
        module=f"faststream.{harness.name}",
        name=type(broker).__name__,
        url=url,
        options=harness.options,
        channel=f"alone-{harness.name}",
    )
    assert json.loads(run(code)) == [200, harness.name]


@pytest.mark.full
def test_the_error_for_a_missing_client_names_its_extra() -> None:
    """FastStream raises this error at the import, before the application can create a broker."""
    code = f"""
import json, sys
from importlib import import_module

sys.modules.update(dict.fromkeys({[*CLIENTS.values()]}))
import faststream_adapters

errors = {{}}
for name in {[*CLIENTS]}:
    try:
        import_module(f"faststream.{{name}}")
    except ImportError as error:
        errors[name] = str(error)
print(json.dumps(errors))
"""
    errors = json.loads(run(code))
    assert set(errors) == set(CLIENTS)
    for name, error in errors.items():
        assert f'pip install "faststream[{name}]"' in error
