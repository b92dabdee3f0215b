"""docs/logging.md: the loggers, and each configuration in a real server, whose lines are read."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import httpx
import pytest
from asgi_correlation_id import correlation_id
from granian import log as granian
from gunicorn import glogging as gunicorn  # type: ignore[import-untyped]  # it ships no types
from hypercorn.config import Config as HypercornConfig
from hypercorn.logging import Logger as HypercornLogger
from uvicorn.config import LOGGING_CONFIG

import faststream_adapters
from faststream_adapters import BrokerLifespan
from faststream_adapters._utils.loggers import Area
from tests.docs.blocks import ROOT, load, python_blocks
from tests.harness.brokers import HARNESSES, BrokerHarness
from tests.harness.servers.asgi import AppServer

if TYPE_CHECKING:
    from tests.harness.servers.nats import NatsServer

PAGE = "docs/logging.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
BLOCKS = {**python_blocks(PAGE), **python_blocks("docs/sentry.md")}
IDS, JSON, MAIN, STRUCTLOG, SENTRY = (
    "Request ids and correlation ids 1",
    "The configuration 1",
    "The application 1",
    "structlog 1",
    "Sentry 1",
)
OWN_LOGGER = [
    ('log = logging.getLogger("orders")', 'import structlog\n\nlog = structlog.get_logger("orders")'),
    ('log.info("Ordered", extra={"item": item})', 'log.info("Ordered", item=item)'),
    ('log.info("Accepted", extra={"item": item})', 'log.info("Accepted", item=item)'),
]
"""What structlog changes in the application."""


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {IDS, JSON, MAIN, STRUCTLOG, SENTRY}


def test_the_page_lists_every_logger() -> None:
    assert re.findall(r"^\| `faststream\.adapters\.(\w+)` \|", TEXT, re.MULTILINE) == list(get_args(Area))


def test_the_page_lists_every_field() -> None:
    listed = {"broker", "subscriber", "check", "old", "new", "count"}
    listed |= {"client", "channel", "destination", "size", "correlation_id"}
    section = TEXT.split("\n## Fields\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row.split(" | ")[0])} == listed
    # What the code uses: names in `extra={...}` and in the dicts that are passed there.
    package = Path(faststream_adapters.__file__).parent
    sources = [path.read_text(encoding="utf-8") for path in package.rglob("*.py")]
    used = {
        name
        for source in sources
        for fields in re.findall(r"(?:extra|fields) ?= ?\{([^}]*)\}", source)
        for name in re.findall(r'"(\w+)":', fields)
    }
    assert used == listed


def test_the_page_lists_the_loggers_of_the_servers() -> None:
    hypercorn = HypercornConfig()
    hypercorn.accesslog = "-"
    loggers = HypercornLogger(hypercorn)
    own = (loggers.error_logger, loggers.access_logger)
    configured: list[Any] = [granian.LOGGING_CONFIG["loggers"], gunicorn.CONFIG_DEFAULTS["loggers"]]
    names = {name for each in configured for name in each} | {logger.name for logger in own if logger}
    assert len(names) == 6
    assert all(f"`{name}`" in TEXT for name in names)
    # Those of uvicorn that have handlers.
    handled = {name for name, logger in LOGGING_CONFIG["loggers"].items() if "handlers" in logger}
    assert handled == {"uvicorn", "uvicorn.access"}
    assert '("faststream", "uvicorn", "uvicorn.access")' in BLOCKS[JSON].code


def test_the_changes_for_structlog_are_those_of_the_page() -> None:
    for code, replacement in OWN_LOGGER:
        assert code in BLOCKS[MAIN].code
        assert f"`{replacement.splitlines()[-1]}`" in TEXT or "Accepted" in code


def server_with(code: str, nats: NatsServer, **files: str) -> AppServer:
    server = AppServer.uvicorn(code, env={"NATS_URL": nats.url, "SENTRY_DSN": DSN}, ready_path="/readyz")
    server.files |= {f"{name}.py": block for name, block in files.items()}
    return server


def lines_of(server: AppServer) -> list[dict[str, Any]]:
    """Return the lines of a server, which are all JSON."""
    return [json.loads(line) for line in server.output().splitlines()]


@pytest.mark.parametrize("name", [JSON, pytest.param(STRUCTLOG, marks=pytest.mark.full)])
def test_every_line_is_json_and_those_of_a_request_have_its_id(nats: NatsServer, name: str) -> None:
    code = BLOCKS[MAIN].code
    if name == STRUCTLOG:
        for old, new in OWN_LOGGER:
            code = code.replace(old, new)
    good, bad = (str(uuid.uuid4()) for _ in range(2))
    with server_with(code, nats, logs=BLOCKS[name].code, request_ids=BLOCKS[IDS].code) as server:
        for item, request_id in (("tea", good), ("nothing", bad)):
            response = httpx.post(f"{server.url}/orders/{item}", headers={"X-Request-ID": request_id})
            assert (response.status_code, response.headers["X-Request-ID"]) == (202, request_id)
        server.wait_output("nothing was ordered")
        nats.kill()
        server.wait_output("Lost connection")
        server.terminate()
        assert server.wait() == -signal.SIGTERM
        lines = lines_of(server)
    text = "event" if name == STRUCTLOG else "message"
    loggers = "logger" if name == STRUCTLOG else "name"
    of_request = {
        request_id: [line for line in lines if line.get("correlation_id") == request_id]
        for request_id in (good, bad)
    }
    shown = [(line[loggers], line[text]) for line in of_request[good]]
    assert {
        ("orders", "Accepted"),
        ("orders.messages", "Received"),
        ("orders", "Ordered"),
        ("orders.messages", "Processed"),
    } <= set(shown)
    assert [each for each, _ in shown].count("uvicorn.access") == 1
    assert {line["item"] for line in of_request[good] if line[loggers] == "orders"} == {"tea"}
    assert {line["subject"] for line in of_request[good] if line[text] == "Received"} == {"orders.new"}
    [error] = [line for line in of_request[bad] if "nothing was ordered" in line[text]]
    assert "Traceback" in json.dumps(error)
    [lost] = [line for line in lines if line[text].startswith("Lost connection")]
    assert (lost[loggers], lost["old"], lost["new"]) == ("faststream.adapters.lifecycle", "ok", "unreachable")
    assert lost["broker"].endswith(nats.url)
    states = [(line["old"], line["new"]) for line in lines if line[text].startswith("Brokers: ")]
    assert states[:2] == [("stopped", "starting"), ("starting", "running")]
    assert any(line[loggers] == "uvicorn.error" for line in lines)


DSN = "https://key@127.0.0.1/1"

TRANSPORT = """
import json

import sentry_sdk.transport


class Printing(sentry_sdk.transport.Transport):
    def capture_envelope(self, envelope):
        for item in envelope.items:
            if event := item.get_event():
                print(json.dumps({"sentry": event}, default=str), flush=True)
"""


async def publish(url: str, subject: str, request_id: str) -> None:
    from faststream.nats import NatsBroker

    async with NatsBroker(url) as broker:
        await broker.publish("tea", subject, correlation_id=request_id)


@pytest.mark.full
async def test_sentry_gets_errors_of_subscribers_and_lost_brokers(nats: NatsServer) -> None:
    code = BLOCKS[SENTRY].code
    for old, new in [
        ("import sentry_sdk\n", "import sentry_sdk\nfrom transport import Printing\n"),
        ("sentry_sdk.init(", "sentry_sdk.init(transport=Printing, "),
    ]:
        assert code.count(old) == 1
        code = code.replace(old, new)
    request_id = str(uuid.uuid4())
    with server_with(code, nats, transport=TRANSPORT) as server:
        await publish(nats.url, "orders.new", request_id)
        server.wait_output("nothing was ordered")
        nats.kill()
        server.wait_output("broker NatsBroker 1: unreachable")
        server.terminate()
        assert server.wait() == -signal.SIGTERM
        output = server.output()
    events = [json.loads(line)["sentry"] for line in output.splitlines() if line.startswith('{"sentry"')]
    [error, lost] = events
    assert error["exception"]["values"][-1]["value"] == "nothing was ordered"
    assert error["tags"]["correlation_id"] == request_id
    assert (lost["message"], lost["level"]) == ("broker NatsBroker 1: unreachable", "error")
    assert lost["tags"] == {"broker": "NatsBroker 1"}


@pytest.mark.full
@pytest.mark.parametrize("harness", HARNESSES.values(), ids=HARNESSES)
async def test_messages_of_every_broker_have_the_id_of_the_request(
    harness: BrokerHarness, tmp_path: Path
) -> None:
    if reason := harness.missing():  # pragma: no cover (installed where skips are forbidden)
        pytest.skip(reason)
    ids: Any = load(BLOCKS[IDS].code, tmp_path)
    with harness.server() as server:
        broker = harness.broker(server.url)
        broker.add_middleware(ids.RequestIdMiddleware)
        seen: dict[str, set[str]] = {"first": set(), "second": set()}

        async def first(number: int) -> None:
            seen["first"].add(ids.current_id(broker.context))
            await harness.publish(broker, number, "second")

        async def second(_: int) -> None:
            seen["second"].add(ids.current_id(broker.context))

        harness.subscribe(broker, "first", first)
        harness.subscribe(broker, "second", second)
        async with BrokerLifespan(broker):
            correlation_id.set("a request")
            async with asyncio.timeout(30):
                # Repeatedly, because a topic may not exist yet.
                while not all(seen.values()):
                    await harness.publish(broker, 1, "first")
                    await asyncio.sleep(0.1)
    assert seen == {"first": {"a request"}, "second": {"a request"}}
