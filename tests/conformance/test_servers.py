"""Each host as users run it: as a process of a real server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.harness.servers.asgi import AppServer

if TYPE_CHECKING:
    from tests.harness.hosts import Host
    from tests.harness.servers.nats import NatsServer

MAIN = """
import os

from tests.conformance.orders import Orders
from tests.harness.hosts import HOSTS, HostApp

orders = Orders(os.environ["NATS_URL"])
app = HOSTS[os.environ["HOST"]].build(
    orders.broker,
    host_app=HostApp(
        hello=orders.place,
        on_startup=lambda: print("host up"),
        on_shutdown=lambda: print("host down"),
    ),
    on_state_change=lambda _, new: print(new),
    startup_timeout=1.0,
    readiness_path="/ready",
    asyncapi_path="/asyncapi",
)
"""
ROOT = Path(__file__).parents[2]
LINES = {"host up", "running", "draining", "host down"}


def uvicorn(host: Host, nats_url: str, *args: str, ready_path: str = "/ready") -> AppServer:
    env = {"HOST": host.name, "NATS_URL": nats_url, "PYTHONPATH": str(ROOT)}
    return AppServer.uvicorn(MAIN, *args, env=env, ready_path=ready_path)


def events(output: str) -> list[str]:
    """Return the lines that the application has written, in order."""
    return [line for line in output.splitlines() if line in LINES]


@pytest.mark.full
def test_sigterm_shuts_down_after_a_round_trip(host: Host, shared_nats: NatsServer) -> None:
    with uvicorn(host, shared_nats.url) as server, httpx.Client(base_url=server.url) as http:
        assert http.get("/hello").text == "tea ordered"
        get, head = http.get("/ready"), http.head("/ready")
        assert (get.status_code, get.text) == (200, "ok")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == get.headers["content-length"] == "2"
        assert http.get("/asyncapi").headers["content-type"] == "text/html; charset=utf-8"
        http.close()
        server.terminate()
        # uvicorn shuts down and then raises the signal again.
        assert server.wait() == -15
        output = server.output()
    expected = ["running", "draining"]
    assert events(output) == (["host up", *expected, "host down"] if host.resources else expected)
    assert "Traceback" not in output
    assert "ERROR" not in output


@pytest.mark.full
def test_the_process_exits_if_nats_is_down(host: Host, nats: NatsServer) -> None:
    nats.stop()
    url = nats.url.replace("nats://", "nats://user:hunter2@")
    exited = uvicorn(host, url).run_to_exit()
    assert exited.returncode == 3
    assert "could not be started within 1 s: the connection was refused" in exited.output
    assert "hunter2" not in exited.output
    assert events(exited.output) == (["host up", "host down"] if host.resources else [])


@pytest.mark.full
def test_endpoints_respond_below_a_root_path(host: Host, shared_nats: NatsServer) -> None:
    with (
        uvicorn(host, shared_nats.url, "--root-path", "/svc") as server,
        httpx.Client(base_url=server.url) as http,
    ):
        # uvicorn puts the root path in front of the path, so these are the requests of a proxy.
        assert http.get("/ready").status_code == 200
        assert http.get("/ready/").status_code == 200
        assert http.get("/asyncapi/asyncapi.json").status_code == 200
        assert http.get("/asyncapi.json").status_code == 200
