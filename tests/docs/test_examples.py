"""The examples work under a real server, and the demo leaves nothing behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.examples.blocks import ROOT, needs_recent_litestar
from tests.servers import poll
from tests.servers.asgi import AppServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import NatsFactory
    from tests.servers.nats import NatsServer

EXAMPLES = ROOT / "examples"
APPS = ["fastapi_app", "litestar_app", "quart_app", "standalone", "starlette_app", "django_app"]
ORDER = {"item": "tea", "quantity": 2, "price": "4.50"}
PROBES = ("/health", "/livez", "/readyz", "/startupz")
UNKNOWN = "/orders/00000000-0000-0000-0000-000000000000"


def order_service(name: str, nats: NatsServer) -> AppServer:
    """Return the server that the docstring of an example starts."""
    app = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    needs_recent_litestar(app)
    target = f"examples.{name}:app"
    assert f"`uvicorn {target}`" in app
    return AppServer.uvicorn(
        app,
        "--app-dir",
        str(ROOT),
        target=target,
        env={"NATS_URL": nats.url},
        ready_path="/readyz",
    )


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*APPS, "cluster", "demo", "tracing", "__init__"}


def test_an_older_litestar_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("litestar.params.JSONBody", raising=False)
    with pytest.raises(pytest.skip.Exception):
        needs_recent_litestar("from litestar.params import JSONBody")


@pytest.mark.parametrize("name", APPS)
def test_order_service(name: str, shared_nats: NatsServer) -> None:
    with order_service(name, shared_nats) as server, httpx.Client(base_url=server.url) as client:
        for path in PROBES:
            assert client.get(path).status_code == 204
        missing = client.get(UNKNOWN)
        assert missing.status_code == 404
        assert "There is no such order, or it is not finished yet." in missing.text
        # What Litestar answers to invalid data.
        invalid = 400 if name == "litestar_app" else 422
        assert client.post("/orders", json={**ORDER, "quantity": 0}).status_code == invalid

        placed = client.post("/orders", json=ORDER)
        assert placed.status_code == 202
        order = placed.json()
        assert order == {**ORDER, "id": order["id"]}
        assert poll(lambda: finished(client, order["id"]), 5) == {**order, "total": "9.00"}

        page = client.get("/asyncapi")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "Order service" in page.text
        document = client.get("/asyncapi.json").json()
        assert document["info"] == {"title": "Order service", "version": "1.0.0"}
        addresses = {channel["address"] for channel in document["channels"].values()}
        assert addresses - set(PROBES) == {"orders.new", "orders.done"}

        server.terminate()
        assert server.wait() == -signal.SIGTERM
        assert "draining -> stopped" in server.output()
        assert "Application shutdown complete" in server.output()
        assert "Traceback" not in server.output()


def finished(client: httpx.Client, order_id: str) -> Any:
    answer = client.get(f"/orders/{order_id}")
    return answer.json() if answer.status_code == 200 else None


def test_instances_share_the_work(nats: NatsServer) -> None:
    # Of two frameworks: it is the same service.
    server, other = order_service("fastapi_app", nats), order_service("standalone", nats)
    with (
        server,
        other,
        httpx.Client(base_url=server.url) as client,
        httpx.Client(base_url=other.url) as other_client,
    ):
        orders = [client.post("/orders", json=ORDER).json()["id"] for _ in range(10)]
        for http in (client, other_client):
            assert all(poll(partial(finished, http, order), 5) for order in orders)
        # The log may come a moment after the result; a second one for an order would too.
        server.terminate()
        other.terminate()
        assert server.wait() == other.wait() == -signal.SIGTERM
        logs = re.findall(r"orders\.new .* - Processed", server.output() + other.output())
        assert len(logs) == len(orders)


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
            assert httpx.get(f"{url}/readyz").status_code == 204
            server.process.send_signal(number)
            assert server.wait() == 0
            assert "Application shutdown complete" in server.output()
        finally:
            # When the test has failed: a demo that is killed would leave its NATS server behind.
            server.terminate()
            server.wait()
