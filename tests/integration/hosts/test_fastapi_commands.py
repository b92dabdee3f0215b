"""`python -m faststream_adapters.fastapi run` and `info`."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from faststream.nats import NatsBroker

from faststream_adapters import BrokerLifespan, FastStreamMiddleware
from faststream_adapters.fastapi import FastStreamRouter
from faststream_adapters.fastapi.__main__ import main
from faststream_adapters.fastapi._commands import broker_lifespans
from faststream_adapters.fastapi.plugin.nats import NatsRouter
from tests.harness.servers.asgi import AppServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.servers.nats import NatsServer

SERVICE = """
import os
from contextlib import asynccontextmanager
from fastapi import FastAPI
from faststream.nats import NatsBroker
from faststream_adapters.fastapi import FastStreamRouter

broker = NatsBroker(os.environ.get("NATS_URL", "nats://127.0.0.1:1"))


@broker.subscriber("orders.fastapi")
async def handle(order: str) -> None:
    print("handled", order, flush=True)


@asynccontextmanager
async def lifespan(app):
    yield
    print("host down", flush=True)


app = FastAPI(lifespan=lifespan)
app.include_router(
    FastStreamRouter(broker, consume=False, readiness_path="/ready", management_bind="127.0.0.1:1")
)


@app.get("/ready")
async def ready() -> str:
    return "the host"


def create() -> FastAPI:
    return app
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of a module `service`, which the commands can import."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "service", raising=False)
    path = tmp_path / "service.py"
    path.write_text(SERVICE, encoding="utf-8")
    return path


def ended(*words: str) -> int | str | None:
    """Return the exit code of a command."""
    with pytest.raises(SystemExit) as raised:
        main(words)
    return raised.value.code


def test_run_consumes_and_serves_the_endpoints_at_an_address(nats: NatsServer, free_address: str) -> None:
    words = [sys.executable, "-m", "faststream_adapters.fastapi", "run", "main:app", "--listen", free_address]
    with AppServer(words, app=SERVICE, env={"NATS_URL": nats.url}, ready_path=None) as process:
        process.wait_output("starting -> running", 30)
        with httpx.Client(base_url=f"http://{free_address}") as http:
            assert http.get("/ready").text == "ok"
            # The application names its probes, so that there are no others.
            assert http.get("/livez").status_code == 404
        asyncio.run(publish(nats, "tea"))
        process.wait_output("handled tea")
        process.terminate()
        assert process.wait(30) == 0
        assert "host down" in process.output()


async def publish(nats: NatsServer, order: str) -> None:
    async with NatsBroker(nats.url) as broker:
        await broker.publish(order, "orders.fastapi")


@pytest.mark.parametrize(
    "arguments", [["service:app"], ["--factory", "service:create"], ["service:create", "--factory"]]
)
def test_info_lists_the_brokers(
    arguments: list[str], module: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended("info", *arguments) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["KIND", "NAME", "DESTINATION", "GROUP", "STATE"],
        ["broker", "NatsBroker", "1", "nats://127.0.0.1:1"],
        ["subscriber", "handle", "orders.fastapi", "left", "out"],
    ]


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("missing:app", "No module named 'missing'"),
        ("service:missing", "has no attribute 'missing'"),
        ("service", "Write it as main:app"),
        (":app", "Write it as main:app"),
        (
            "service:broker",
            "service:broker is not a FastAPI application but an object of the type NatsBroker.",
        ),
        ("service:create", "With --factory, it is called and returns the application."),
    ],
)
def test_what_is_no_application_is_refused(
    word: str, problem: str, module: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended("run", word) == 2
    assert problem in capsys.readouterr().err


def test_an_error_of_the_module_is_raised(module: Path) -> None:
    module.write_text("1 / 0", encoding="utf-8")
    with pytest.raises(ZeroDivisionError):
        main(["run", "service:app"])


def test_the_commands_need_click(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "click", None)
    with pytest.raises(
        ImportError, match=r"This needs click: install it with .*faststream-adapters\[server\]"
    ):
        main(["run", "service:app"])


def test_help_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("--help") == 0
    assert "{run,info,check}" in capsys.readouterr().out
    assert ended("run", "--help") == 0
    assert "MODULE:APP" in capsys.readouterr().out


def test_the_brokers_of_an_application_are_found_however_they_are_included() -> None:
    lifespans = [BrokerLifespan(NatsBroker()) for _ in range(4)]
    app: Any = FastAPI(lifespan=lifespans[0])
    nested = APIRouter()
    nested.include_router(FastStreamRouter(lifespans[2]))
    plugin = NatsRouter()
    for router in (FastStreamRouter(lifespans[1]), nested, FastStreamRouter(lifespans[1]), plugin):
        app.include_router(router)
    expected = [*lifespans[:3], plugin.broker_lifespan]
    assert broker_lifespans(app) == expected
    assert broker_lifespans(FastStreamMiddleware(app, lifespans[3])) == [lifespans[3], *expected]
    assert broker_lifespans(FastAPI()) == []
