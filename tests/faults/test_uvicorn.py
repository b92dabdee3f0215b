"""Faults and shutdown of a process that uvicorn serves, with a real server and real signals."""

import asyncio
import sys
import time
from contextlib import nullcontext

import httpx
import nats as nats_py
import pytest

from tests.harness.servers import hold_port, poll
from tests.harness.servers.asgi import AppServer
from tests.harness.servers.nats import NatsServer

APP = """
import asyncio, os
from faststream.nats import NatsBroker
from faststream_adapters import AsgiFastStream, JSONResponse, Request, post

broker = NatsBroker(os.environ["NATS_URL"], reconnect_time_wait=0.1)
done = []

@broker.subscriber("orders", max_workers=int(os.environ.get("MAX_WORKERS", "1")))
async def handle(order: int) -> None:
    print("handling", order, flush=True)
    await asyncio.sleep(float(os.environ.get("WORK", "0")))
    done.append(order)
    print("handled", order, flush=True)

@post
async def publish(request: Request):
    await broker.publish(await request.json(), "orders")
    return JSONResponse({"published": True}, 202)

app = AsgiFastStream(
    broker,
    asgi_routes=[("/orders", publish)],
    ping_path="/health",
    liveness_path="/live",
    readiness_path="/ready",
    startup_path="/startup",
    startup=os.environ.get("STARTUP", "strict"),
    startup_timeout=float(os.environ["STARTUP_TIMEOUT"]) if "STARTUP_TIMEOUT" in os.environ else None,
    drain_delay=float(os.environ.get("DRAIN_DELAY", "0")),
)
"""

FASTAPI = (
    APP.partition("app = AsgiFastStream")[0]
    + """
from contextlib import asynccontextmanager
from fastapi import FastAPI
from faststream_adapters import (
    BrokerLifespan, make_liveness_asgi, make_ping_asgi, make_readiness_asgi, make_startup_asgi,
)

lifespan = BrokerLifespan(
    broker,
    startup=os.environ.get("STARTUP", "strict"),
    startup_timeout=float(os.environ["STARTUP_TIMEOUT"]) if "STARTUP_TIMEOUT" in os.environ else None,
    drain_delay=float(os.environ.get("DRAIN_DELAY", "0")),
)
app = FastAPI(lifespan=lifespan)
app.mount("/orders", publish)
app.mount("/health", make_ping_asgi(lifespan))
app.mount("/live", make_liveness_asgi(lifespan))
app.mount("/ready", make_readiness_asgi(lifespan))
app.mount("/startup", make_startup_asgi(lifespan))
"""
)

both = pytest.mark.parametrize(
    "app",
    [
        pytest.param(APP, id="standalone"),
        # The tests of the FastAPI adapter run it under a server in each run.
        pytest.param(FASTAPI, id="fastapi", marks=pytest.mark.full),
    ],
)


def serve(app: str, url: str, **environment: str) -> AppServer:
    return AppServer.uvicorn(app, env={"NATS_URL": url, **environment}, ready_path="/live/")


def wait_for_status(server: AppServer, path: str, expected: int, seconds: float = 15.0) -> float:
    """Wait until the status is as expected, and return how many seconds it took."""
    start = time.monotonic()
    assert poll(lambda: httpx.get(f"{server.url}{path}/").status_code == expected, seconds)
    return time.monotonic() - start


@pytest.mark.full
@both
def test_the_ping_fails_while_the_server_is_frozen_or_down(nats: NatsServer, app: str) -> None:
    with serve(app, nats.url) as server:
        health = f"{server.url}/health/"
        assert httpx.get(health).status_code == 204
        nats.freeze()
        start = time.monotonic()
        assert httpx.get(health).status_code == 500
        assert time.monotonic() - start < 2.0
        assert httpx.get(f"{server.url}/live/").status_code == 200
        nats.thaw()
        wait_for_status(server, "/health", 204)
        nats.kill()
        wait_for_status(server, "/health", 500)
        assert httpx.get(f"{server.url}/live/").status_code == 200
        nats.restart()
        wait_for_status(server, "/health", 204)


@pytest.mark.full
@both
def test_a_strict_startup_fails_while_the_server_is_down(app: str) -> None:
    port, held = hold_port()
    with held or nullcontext():
        server = AppServer.uvicorn(
            app,
            env={"NATS_URL": f"nats://user:secret@127.0.0.1:{port}", "STARTUP_TIMEOUT": "1.5"},
        )
        exited = server.run_to_exit()
    assert exited.returncode == 3
    assert "user:secret" not in exited.output
    error = (
        f"NatsBroker nats://127.0.0.1:{port} could not be started within 1.5 s: the connection was refused."
    )
    assert exited.output.count(error) == 1
    if app is APP:
        assert "Traceback" not in exited.output


@pytest.mark.full
@both
def test_a_background_startup_succeeds_when_the_server_comes_up(nats: NatsServer, app: str) -> None:
    nats.stop()
    with serve(app, nats.url, STARTUP="background") as server:
        assert httpx.get(f"{server.url}/ready/").status_code == 503
        assert httpx.get(f"{server.url}/startup/").status_code == 503
        nats.start()
        wait_for_status(server, "/ready", 200)
        assert httpx.get(f"{server.url}/startup/").status_code == 200
        httpx.post(f"{server.url}/orders/", json=1).raise_for_status()
        server.wait_output("handled 1")


@both
def test_a_message_that_is_published_over_http_is_handled(nats: NatsServer, app: str) -> None:
    with serve(app, nats.url) as server:
        assert httpx.post(f"{server.url}/orders/", json=7).status_code == 202
        server.wait_output("handled 7")


@both
@pytest.mark.parametrize("workers", ["1", pytest.param("4", marks=pytest.mark.full)])
def test_messages_in_flight_are_finished_on_sigterm(
    nats: NatsServer,
    app: str,
    workers: str,
) -> None:
    with serve(app, nats.url, WORK="0.1", MAX_WORKERS=workers) as server:
        for order in range(10):
            httpx.post(f"{server.url}/orders/", json=order).raise_for_status()
        server.wait_output("handling 0")
        server.terminate()
        server.wait()
        output = server.output()
    assert sorted(int(line.split()[1]) for line in output.splitlines() if line.startswith("handled")) == [
        *range(10),
    ]


@both
def test_readiness_fails_during_the_drain_delay(nats: NatsServer, app: str) -> None:
    with serve(app, nats.url, DRAIN_DELAY="1.5") as server:
        assert httpx.get(f"{server.url}/ready/").status_code == 200
        start = time.monotonic()
        server.terminate()
        wait_for_status(server, "/ready", 503, seconds=1.0)
        assert httpx.get(f"{server.url}/live/").status_code == 200
        server.wait()
        assert time.monotonic() - start >= 1.5


@pytest.mark.full
@both
def test_a_second_interrupt_skips_the_drain_delay(nats: NatsServer, app: str) -> None:
    with serve(app, nats.url, DRAIN_DELAY="20") as server:
        server.interrupt()
        wait_for_status(server, "/ready", 503)
        server.interrupt()
        server.wait(timeout=10)


@pytest.mark.full
async def test_a_thousand_probes_of_a_frozen_server_all_get_a_response(nats: NatsServer) -> None:
    # No connection is reused, because the server may close it while the next request is sent.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    with serve(APP, nats.url) as server:
        async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=30) as http:
            nats.freeze()
            for _ in range(5):
                responses = await asyncio.gather(*(http.get("/health") for _ in range(200)))
                assert {response.status_code for response in responses} == {500}
            nats.thaw()
            wait_for_status(server, "/health", 204)


@pytest.mark.full
def test_a_draining_process_leaves_new_messages_to_its_queue_group(nats: NatsServer) -> None:
    app = APP.replace('"orders", max', '"orders", queue="group", max')

    async def publish(first: int) -> None:
        connection = await nats_py.connect(nats.url)
        for order in range(first, first + 10):
            await connection.publish("orders", str(order).encode())
        await connection.drain()

    def handled(server: AppServer) -> set[int]:
        lines = server.output().splitlines()
        return {int(line.split()[1]) for line in lines if line.startswith("handled")}

    with serve(app, nats.url, WORK="0.2") as leaving:
        asyncio.run(publish(0))
        leaving.wait_output("handling 0")
        with serve(app, nats.url) as staying:
            leaving.terminate()
            leaving.wait_output("running -> draining")
            leaving.wait()
            asyncio.run(publish(10))
            for order in range(10, 20):
                staying.wait_output(f"handled {order}")
            assert handled(leaving) == set(range(10))
            assert handled(staying) == set(range(10, 20))


LEAVE = """
@get
async def leave():
    app.exit()
    return JSONResponse({})

"""


@pytest.mark.full
def test_exit_of_the_app_drains(nats: NatsServer) -> None:
    app = APP.replace("app = AsgiFastStream(", f"{LEAVE}app = AsgiFastStream(")
    app = app.replace("Request, post", "Request, get, post").replace(
        "asgi_routes=[", 'asgi_routes=[("/leave", leave), '
    )
    server = AppServer(
        [sys.executable, "-m", "faststream", "run", "main:app", "--host", "127.0.0.1", "--port", "{port}"],
        app=app,
        env={"NATS_URL": nats.url, "DRAIN_DELAY": "1.0"},
        ready_path="/live",
    )
    with server:
        start = time.monotonic()
        httpx.get(f"{server.url}/leave").raise_for_status()
        wait_for_status(server, "/ready", 503, seconds=0.9)
        assert server.wait() == 0
        assert time.monotonic() - start >= 1.0
