"""The examples run under a real server, and the demo leaves no files or processes behind."""

from __future__ import annotations

import re
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from tests.docs.blocks import ROOT, needs_recent_litestar
from tests.harness.servers import poll
from tests.harness.servers.asgi import AppServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.servers.nats import NatsFactory, NatsServer

EXAMPLES = ROOT / "examples"
APPS = ["fastapi_app", "litestar_app", "quart_app", "standalone", "starlette_app", "django_app"]
DEFAULT = ("fastapi_app",)
ORDER = {"item": "tea", "quantity": 2, "price": "4.50"}
PROBES = ("/health", "/livez", "/readyz", "/startupz")
UNKNOWN = "/orders/00000000-0000-0000-0000-000000000000"


def order_service(name: str, nats: NatsServer, directory: Path) -> AppServer:
    """Return the server that the docstring of an example starts, with a database in a directory."""
    app = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    needs_recent_litestar(app)
    target = f"examples.{name}:app"
    assert f"`uvicorn {target}`" in app
    return AppServer.uvicorn(
        app,
        "--app-dir",
        str(ROOT),
        target=target,
        env={"NATS_URL": nats.url, "DATABASE_URL": f"sqlite+aiosqlite:///{directory}/orders.db"},
        ready_path="/readyz",
    )


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*APPS, "cluster", "demo", "tracing", "__init__"}


def test_an_older_litestar_skips_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("litestar.params.JSONBody", raising=False)
    with pytest.raises(pytest.skip.Exception):
        needs_recent_litestar("from litestar.params import JSONBody")


# All are the same service, and the conformance suite serves each host in every run.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in DEFAULT else pytest.mark.full) for name in APPS]
)
def test_the_order_service_works_and_stops(name: str, shared_nats: NatsServer, tmp_path: Path) -> None:
    with order_service(name, shared_nats, tmp_path) as server, httpx.Client(base_url=server.url) as client:
        for path in PROBES:
            assert client.get(path).status_code == (204 if path == "/health" else 200)
        missing = client.get(UNKNOWN)
        assert missing.status_code == 404
        assert "There is no such order, or it is not finished yet." in missing.text
        # Litestar answers invalid data with 400.
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
    response = client.get(f"/orders/{order_id}")
    return response.json() if response.status_code == 200 else None


@pytest.mark.full
def test_two_instances_share_the_orders(nats: NatsServer, tmp_path: Path) -> None:
    # The instances use different frameworks, but are the same service.
    server = order_service("fastapi_app", nats, tmp_path)
    other = order_service("standalone", nats, tmp_path)
    with (
        server,
        other,
        httpx.Client(base_url=server.url) as client,
        httpx.Client(base_url=other.url) as other_client,
    ):
        orders = [client.post("/orders", json=ORDER).json()["id"] for _ in range(10)]
        for http in (client, other_client):
            assert all(poll(partial(finished, http, order), 5) for order in orders)
        # Logs appear after the result, so wait for both servers to end before counting them.
        server.terminate()
        other.terminate()
        assert server.wait() == other.wait() == -signal.SIGTERM
        logs = re.findall(r"orders\.new .* - Processed", server.output() + other.output())
        assert len(logs) == len(orders)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Return a directory for the demo's files, whose path also identifies its processes."""
    with tempfile.TemporaryDirectory(prefix="demo-") as directory:
        yield Path(directory)
        assert list(Path(directory).iterdir()) == []
        commands = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
        assert directory not in str(commands)


def demo(scratch: Path, **env: str) -> AppServer:
    env = {"NATS_URL": "", "CHECK": "", "TMPDIR": str(scratch), "PYTHONPATH": str(ROOT), **env}
    return AppServer([sys.executable, "-m", "examples.demo"], env=env, ready_path=None)


# With a given server the check is faster, because it neither freezes nor kills that server.
@pytest.mark.full
def test_the_check_of_the_demo_succeeds(scratch: Path) -> None:
    exited = demo(scratch, CHECK="1").run_to_exit(60)
    assert exited.returncode == 0, exited.output
    assert "NATS freezes" in exited.output
    assert "✗" not in exited.output
    assert exited.output.endswith("No failures.\n")


@pytest.mark.full
def test_the_check_of_the_demo_leaves_a_given_server_running(shared_nats: NatsServer, scratch: Path) -> None:
    exited = demo(scratch, CHECK="1", NATS_URL=shared_nats.url).run_to_exit(60)
    assert exited.returncode == 0, exited.output
    assert "neither frozen nor killed" in exited.output
    assert shared_nats.running


@pytest.mark.full
def test_the_check_of_the_demo_reports_a_failure(nats_factory: NatsFactory, scratch: Path) -> None:
    # The permissions forbid publishing results.
    permissions = '{ publish: { deny: "orders.done" } }'
    user = f"{{ user: u, password: p, permissions: {permissions} }}"
    nats = nats_factory(config=f"authorization {{ users: [{user}] }}")
    url = nats.url.replace("nats://", "nats://u:p@")
    exited = demo(scratch, CHECK="1", NATS_URL=url).run_to_exit(60)
    assert exited.returncode == 1, exited.output
    assert "✗ GET  /orders/" in exited.output
    assert exited.output.endswith("1 failure.\n")


@pytest.mark.full
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
    ],
)
def test_the_demo_stops_at_a_signal(number: signal.Signals, scratch: Path) -> None:
    with demo(scratch) as server:
        try:
            server.wait_output("Ctrl-C", 30)
            (url,) = set(re.findall(r"http://[\d.:]+", server.output()))
            assert httpx.get(f"{url}/readyz").status_code == 200
            server.process.send_signal(number)
            assert server.wait() == 0
            assert "Application shutdown complete" in server.output()
        finally:
            # After a failed test, a killed demo would leave its NATS server behind.
            server.terminate()
            server.wait()
