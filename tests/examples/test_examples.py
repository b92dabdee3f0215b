"""The examples work under a real server, and the demo leaves nothing behind."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import nats as nats_py
import pytest

from tests.examples.blocks import ROOT
from tests.servers import poll
from tests.servers.asgi import AppServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import NatsFactory
    from tests.servers.nats import NatsServer

EXAMPLES = ROOT / "examples"
ORDER = {"item": "tea", "quantity": 2, "price": "4.50"}


async def publish(url: str, subject: str, message: bytes) -> None:
    client = await nats_py.connect(url)
    await client.publish(subject, message)
    await client.drain()


def test_order_service(shared_nats: NatsServer) -> None:
    with (
        AppServer.uvicorn(EXAMPLES / "order_service.py", env={"NATS_URL": shared_nats.url}) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        for path in ("/health/", "/livez/", "/readyz/", "/startupz/"):
            assert client.get(path).status_code == 204
        assert client.get("/orders/00000000-0000-0000-0000-000000000000").status_code == 404
        assert client.post("/orders", json={**ORDER, "quantity": 0}).status_code == 422

        placed = client.post("/orders", json=ORDER)
        assert placed.status_code == 202
        order = placed.json()
        answer = poll(lambda: finished(client, order["id"]), 5)
        assert answer == {**order, "total": "9.00"}

        page = client.get("/asyncapi/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "Order service" in page.text
        document = client.get("/asyncapi/asyncapi.json").json()
        assert document["info"] == {"title": "Order service", "version": "1.0.0"}
        assert {channel["address"] for channel in document["channels"].values()} == {
            "orders.new",
            "orders.done",
        }
        server.terminate()
        assert server.wait() == -signal.SIGTERM
        assert "Application shutdown complete" in server.output()


def finished(client: httpx.Client, order_id: str) -> Any:
    answer = client.get(f"/orders/{order_id}")
    return answer.json() if answer.status_code == 200 else None


def test_order_service_instances_share_the_work(shared_nats: NatsServer) -> None:
    server = AppServer.uvicorn(EXAMPLES / "order_service.py", env={"NATS_URL": shared_nats.url})
    other = AppServer.uvicorn(EXAMPLES / "order_service.py", env={"NATS_URL": shared_nats.url})
    with (
        server,
        other,
        httpx.Client(base_url=server.url) as client,
        httpx.Client(base_url=other.url) as other_client,
    ):
        for http in (client, other_client):
            assert http.get("/readyz/").status_code == 204
        orders = [client.post("/orders", json=ORDER).json()["id"] for _ in range(10)]
        for http in (client, other_client):
            assert all(poll(partial(finished, http, order), 5) for order in orders)
        logs = re.findall(r"orders\.new .* - Processed", server.output() + other.output())
        assert len(logs) == len(orders)


def test_standalone(shared_nats: NatsServer) -> None:
    with (
        AppServer.uvicorn(
            EXAMPLES / "standalone.py",
            "--app-dir",
            str(ROOT),
            target="examples.standalone:app",
            env={"NATS_URL": shared_nats.url},
        ) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        for path in ("/health", "/livez", "/readyz", "/startupz"):
            assert client.get(path).status_code == 204
        assert client.get("/sold").status_code == 422
        asyncio.run(publish(shared_nats.url, "orders.new", b'{"item": "tea", "quantity": 2}'))
        sold = {"tea": 2, "coffee": 0}
        assert poll(lambda: client.get("/sold?item=tea&item=coffee").json() == sold, 5)
        assert client.get("/docs").headers["content-type"] == "text/html; charset=utf-8"
        assert client.get("/docs.json").json()["info"] == {"title": "Sales", "version": "1.0.0"}


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Return a directory for the demo's files, which names its processes too."""
    with tempfile.TemporaryDirectory(prefix="demo-") as directory:
        yield Path(directory)
        assert list(Path(directory).iterdir()) == []
        everything = subprocess.run(
            ["ps", "-A", "-o", "args="], capture_output=True, text=True, check=True
        ).stdout
        assert directory not in everything


def demo(scratch: Path, **env: str) -> AppServer:
    env = {"NATS_URL": "", "CHECK": "", "TMPDIR": str(scratch), "PYTHONPATH": str(ROOT), **env}
    return AppServer([sys.executable, "-m", "examples.demo"], env=env, ready_path=None)


def test_demo_check(scratch: Path) -> None:
    exited = demo(scratch, CHECK="1").run_to_exit(60)
    assert exited.returncode == 0, exited.output
    assert "NATS freezes" in exited.output
    assert "✗" not in exited.output
    assert exited.output.endswith("No faults.\n")


def test_demo_check_of_a_given_server(shared_nats: NatsServer, scratch: Path) -> None:
    exited = demo(scratch, CHECK="1", NATS_URL=shared_nats.url).run_to_exit(60)
    assert exited.returncode == 0, exited.output
    assert "neither frozen nor killed" in exited.output
    assert shared_nats.running


@pytest.mark.full
def test_demo_check_sees_a_fault(nats_factory: NatsFactory, scratch: Path) -> None:
    # Results cannot be published there.
    permissions = '{ publish: { deny: "orders.done" } }'
    user = f"{{ user: u, password: p, permissions: {permissions} }}"
    nats = nats_factory(config=f"authorization {{ users: [{user}] }}")
    url = nats.url.replace("nats://", "nats://u:p@")
    exited = demo(scratch, CHECK="1", NATS_URL=url).run_to_exit(60)
    assert exited.returncode == 1, exited.output
    assert "✗ GET  /orders/" in exited.output
    assert exited.output.endswith("1 fault.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_demo_stops(number: signal.Signals, scratch: Path) -> None:
    with demo(scratch) as server:
        try:
            server.wait_output("Ctrl-C", 30)
            (url,) = set(re.findall(r"http://[\d.:]+", server.output()))
            assert httpx.get(f"{url}/readyz/").status_code == 204
            server.process.send_signal(number)
            assert server.wait() == 0
            with pytest.raises(httpx.ConnectError):
                httpx.get(url)
        finally:
            # When the test has failed: a demo that is killed would leave its NATS server behind.
            server.terminate()
            server.wait()
