"""The management server: when it answers, what it answers, and what it leaves alone."""

from __future__ import annotations

import asyncio
import logging
import socket
import stat
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker, TestNatsBroker
from starlette.applications import Starlette

from faststream_adapters import AsgiFastStream, BrokerLifespan, BrokerStartError, FastStreamMiddleware
from faststream_adapters._hosting.management import WorkerServer
from faststream_adapters._lifecycle.run_mode import RunMode, run_as
from faststream_adapters.testing import app_client
from tests.harness.hosts import serving
from tests.harness.management import answer, fetch, reserved_address
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from tests.harness.servers.nats import NatsServer

UNREACHABLE = "nats://127.0.0.1:1"
PATHS: Any = {"liveness_path": "/livez", "readiness_path": "/readyz", "startup_path": "/startupz"}


def background(address: str, **keywords: Any) -> AsgiFastStream:
    """Return an application that starts at once, and whose broker never does."""
    options = {"startup": "background", "management_bind": address, **PATHS, **keywords}
    return AsgiFastStream(NatsBroker(UNREACHABLE), **options)


# --- when it answers ---


async def test_it_answers_during_a_strict_start_and_until_everything_has_stopped(
    nats: NatsServer, free_address: str
) -> None:
    nats.stop()
    answers: list[str | None] = []

    async def ask() -> None:
        answers.append(await answer(free_address, "/readyz"))

    app = AsgiFastStream(
        NatsBroker(nats.url, reconnect_time_wait=0.1),  # type: ignore[arg-type]  # nats-py accepts fractions
        management_bind=free_address,
        on_startup=[ask],
        after_startup=[ask],
        on_shutdown=[ask],
        after_shutdown=[ask],
        **PATHS,
    )

    async def serve() -> None:
        async with serving(app):
            assert await answer(free_address, "/startupz") == "200 ok"
            assert await answer(free_address, "/readyz") == "200 ok"

    serve_task = asyncio.create_task(serve())
    await eventually(lambda: bool(answers))
    assert await answer(free_address, "/startupz") == "503 starting"
    assert await answer(free_address, "/livez") == "200 ok"
    nats.start()
    await serve_task
    assert answers == ["503 starting", "503 starting", "503 draining", "503 draining"]
    assert await answer(free_address, "/readyz") is None


async def test_it_ends_with_a_failed_start(free_address: str) -> None:
    app = background(free_address, startup="strict", startup_timeout=0.2)
    for _ in range(2):
        with pytest.raises(BrokerStartError):
            await app.start()
        assert await answer(free_address, "/livez") is None


async def test_it_answers_after_a_start_in_the_background_has_failed(free_address: str) -> None:
    app = background(free_address, startup_timeout=0.1)
    async with app.start_lifespan_context():
        await eventually(lambda: app.broker_lifespan.state == "failed")
        assert await answer(free_address, "/livez") == "503 failed"


async def test_nothing_listens_in_memory(free_address: str) -> None:
    app = background(free_address)
    async with app_client(app) as client:
        assert (await client.get("/readyz")).status_code == 404
        assert await answer(free_address, "/readyz") is None
    broker = NatsBroker(UNREACHABLE)
    tested = FastStreamMiddleware(Starlette(), broker, management_bind=free_address, **PATHS)
    async with TestNatsBroker(broker), tested.broker_lifespan:
        assert await answer(free_address, "/readyz") is None


async def test_a_start_that_is_cancelled_leaves_nothing(free_address: str) -> None:
    app = background(free_address, startup="strict")
    for turns in (1, 3, 6):
        starting = asyncio.create_task(app.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait((starting,))
        assert starting.cancelled()
        assert await answer(free_address, "/livez") is None
        assert app.broker_lifespan.state == "stopped"


# --- what it serves ---


async def test_adapters_of_one_lifespan_share_an_address(free_address: str) -> None:
    lifespan = BrokerLifespan(NatsBroker(UNREACHABLE), startup="background")
    app = FastStreamMiddleware(Starlette(), lifespan, management_bind=free_address, readiness_path="/readyz")
    app = FastStreamMiddleware(app, lifespan, management_bind=free_address, liveness_path="/livez")
    # An adapter for several applications adds the same endpoint for each of them.
    app = FastStreamMiddleware(app, lifespan, management_bind=free_address, liveness_path="/livez/")
    with pytest.raises(SetupError, match="The path '/livez' is served already"):
        FastStreamMiddleware(app, lifespan, management_bind=free_address, metrics_path="/livez")
    async with serving(app):
        assert await answer(free_address, "/readyz") == "503 starting"
        assert await answer(free_address, "/livez") == "200 ok"


async def test_a_lifespan_can_have_several_addresses(free_address: str, tmp_path: Path) -> None:
    lifespan = BrokerLifespan(NatsBroker(UNREACHABLE), startup="background")
    app = FastStreamMiddleware(Starlette(), lifespan, management_bind=free_address, readiness_path="/readyz")
    unix = f"unix:{tmp_path}/app.sock"
    app = FastStreamMiddleware(app, lifespan, management_bind=unix, liveness_path="/livez")
    async with serving(app):
        assert await answer(free_address, "/readyz") == "503 starting"
        assert await answer(free_address, "/livez") == "404 Not Found"
        assert await answer(unix, "/livez") == "200 ok"


async def test_two_applications_in_one_process_have_an_address_each(free_address: str) -> None:
    with reserved_address() as other:
        async with serving(background(free_address)), serving(background(other)):
            assert await answer(free_address, "/livez") == "200 ok"
            assert await answer(other, "/livez") == "200 ok"


async def test_only_get_and_head_are_answered(free_address: str) -> None:
    async with serving(background(free_address)):
        head = await fetch(free_address, "/livez", "HEAD")
        assert head is not None
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "2")
        post = await fetch(free_address, "/livez", "POST")
        assert post is not None
        assert post.status_code == 405


async def test_an_unix_socket_is_for_its_owner_and_group_and_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    async with serving(background(f"unix:{path}")):
        assert await answer(f"unix:{path}", "/livez") == "200 ok"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert not path.exists()


async def test_several_workers_cannot_share_an_unix_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    monkeypatch.setenv("SERVER_SOFTWARE", "gunicorn/1.2")
    path = tmp_path / "app.sock"
    with pytest.raises(SetupError) as raised:
        await background(f"unix:{path}").start()
    assert str(raised.value) == (
        f"management_bind: Several workers (WEB_CONCURRENCY) cannot share unix:{path}: use a TCP address."
    )


@pytest.mark.full
async def test_a_worker_of_a_server_shares_its_address_with_siblings_only(
    free_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_SOFTWARE", "gunicorn/1.2")
    async with serving(background(free_address)), serving(background(f"unix:{tmp_path}/app.sock")):
        assert await answer(free_address, "/livez") == "200 ok"
        # Another application in this process is none.
        with pytest.raises(SetupError, match=f"Cannot listen on {free_address}: Address already in use"):
            await background(free_address).start()
        with pytest.raises(SetupError, match=r"app\.sock: Address already in use"):
            await background(f"unix:{tmp_path}/app.sock").start()


# --- what it leaves alone ---


async def test_the_logging_belongs_to_the_host(free_address: str, caplog: pytest.LogCaptureFixture) -> None:
    loggers = [logging.getLogger(name) for name in ("uvicorn", "uvicorn.error", "uvicorn.access")]
    access = loggers[-1]

    def settings() -> list[Any]:
        return [(each.level, each.propagate, list(each.handlers), each.disabled) for each in loggers]

    before = settings()
    caplog.set_level(logging.DEBUG)
    async with serving(background(free_address)):
        assert await answer(free_address, "/livez") == "200 ok"
        assert settings() == before
        assert access.hasHandlers()
    assert settings() == before
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]
    [line] = [record for record in caplog.records if "management" in record.getMessage()]
    assert line.getMessage() == f"Serving the management endpoints on http://{free_address}"
    assert (line.name, line.levelno) == ("faststream.adapters.server", logging.INFO)


# --- workers without a web server ---


def lifespan() -> BrokerLifespan:
    return BrokerLifespan(NatsBroker(UNREACHABLE), startup="background")


def worker(address: str, *lifespans: BrokerLifespan) -> AbstractContextManager[RunMode]:
    """Let the lifespans that start in a block run as those of `faststream run --listen`."""
    return run_as(RunMode(services=(WorkerServer(address, lifespans),)))


async def test_a_worker_serves_default_probes_if_the_application_has_none(free_address: str) -> None:
    with worker(free_address):
        async with lifespan():
            assert await answer(free_address, "/startupz") == "503 starting"
            assert await answer(free_address, "/readyz") == "503 starting"
            assert await answer(free_address, "/livez") == "200 ok"


async def test_a_worker_serves_the_endpoints_of_the_host_and_of_other_addresses(free_address: str) -> None:
    first, second = lifespan(), lifespan()
    app = FastStreamMiddleware(Starlette(), first, readiness_path="/ready", asyncapi_path="/docs")
    app = FastStreamMiddleware(app, first, management_bind="127.0.0.1:1", metrics_path="/metrics")
    app = FastStreamMiddleware(app, second, liveness_path="/live")
    with worker(free_address, first, second):
        async with serving(app):
            assert await answer(free_address, "/ready") == "503 starting"
            assert await answer(free_address, "/live") == "200 ok"
            metrics = await fetch(free_address, "/metrics")
            assert metrics is not None
            assert metrics.status_code == 200
            for path in ("/docs", "/livez"):
                assert await answer(free_address, path) == "404 Not Found"
        assert await answer(free_address, "/ready") is None


async def test_a_worker_with_several_lifespans_needs_the_paths_of_their_probes(free_address: str) -> None:
    first, second = lifespan(), lifespan()
    with (
        worker(free_address, first, second),
        pytest.raises(SetupError, match="set the paths of their probes"),
    ):
        await first.enter()
    app = FastStreamMiddleware(Starlette(), first, readiness_path="/ready")
    FastStreamMiddleware(app, second, readiness_path="/ready")
    with worker(free_address, first, second), pytest.raises(SetupError, match="'/ready' is served already"):
        await first.enter()


async def test_a_worker_whose_address_is_in_use_does_not_start(free_address: str) -> None:
    host, _, port = free_address.rpartition(":")
    with (
        socket.create_server((host, int(port))),
        worker(free_address),
        pytest.raises(SetupError) as raised,
    ):
        await lifespan().enter()
    assert str(raised.value) == f"--listen: Cannot listen on {free_address}: Address already in use."
