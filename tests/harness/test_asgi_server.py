"""The application server of the tests."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.harness.servers import ServerError
from tests.harness.servers.asgi import AppServer

if TYPE_CHECKING:
    from pathlib import Path

APP = """
import os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            print(message["type"], os.environ.get("NAME"))
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = (scope["root_path"] + scope["path"]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""

FAILING_APP = """
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no broker"})
"""


def test_uvicorn_responds_and_ends_on_sigterm() -> None:
    with AppServer.uvicorn(APP, env={"NAME": "tests"}) as server:
        assert httpx.get(f"{server.url}/path").text == "/path"
        server.wait_output("lifespan.startup tests")
        server.terminate()
        assert server.wait() == -signal.SIGTERM
        assert "lifespan.shutdown tests" in server.output()
        assert not server.running


def test_uvicorn_accepts_arguments_and_a_file(tmp_path: Path) -> None:
    path = tmp_path / "application.py"
    path.write_text(APP, encoding="utf-8")
    with AppServer.uvicorn(path, "--root-path", "/svc") as server:
        assert httpx.get(f"{server.url}/path").text == "/svc/svc/path"
        server.interrupt()
        server.wait()
        assert "lifespan.shutdown" in server.output()


def test_a_killed_server_can_be_started_on_the_same_port() -> None:
    with AppServer.uvicorn(APP) as server:
        server.kill()
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url)
        server.start()
        assert httpx.get(server.url).status_code == 200


@pytest.mark.full
def test_interrupt_ends_all_workers() -> None:
    with AppServer.uvicorn(APP, "--workers", "2") as server:
        assert httpx.get(server.url).status_code == 200
        server.interrupt(group=True)
        server.wait()


@pytest.mark.full
@pytest.mark.parametrize(
    "arguments",
    [
        ["granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", "main:app"],
        ["hypercorn", "--bind", "127.0.0.1:{port}", "main:app"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_other_servers_can_be_run(arguments: list[str]) -> None:
    pytest.importorskip(arguments[0])
    with AppServer([sys.executable, "-m", *arguments], app=APP) as server:
        assert httpx.get(f"{server.url}/path").text == "/path"
        server.terminate()
        server.wait()


def test_a_failed_startup_is_reported() -> None:
    exited = AppServer.uvicorn(FAILING_APP).run_to_exit()
    assert exited.returncode == 3
    assert "no broker" in exited.output
    assert 0 < exited.seconds < 20
    with pytest.raises(ServerError, match=r"ended with code 3 at its start[\s\S]*no broker"):
        AppServer.uvicorn(FAILING_APP).__enter__()


def test_errors_include_the_output() -> None:
    code = "import sys, time; print('on port', {port}); sys.stdout.flush(); time.sleep(60)"
    with AppServer([sys.executable, "-c", code], ready_path=None) as server:
        server.wait_output(f"on port {server.port}")
        with pytest.raises(ServerError, match=r"did not write 'more' within 0.1 s[\s\S]*on port"):
            server.wait_output("more", timeout=0.1)
        with pytest.raises(ServerError, match=r"still ran after 0.1 s[\s\S]*on port"):
            server.wait(timeout=0.1)
        server.kill()
        with pytest.raises(ServerError, match="ended without 'more'"):
            server.wait_output("more")
    with (
        pytest.raises(ServerError, match=r"did not serve within 0.2 s"),
        AppServer([sys.executable, "-c", code], timeout=0.2),
    ):
        pytest.fail("It has started.")
