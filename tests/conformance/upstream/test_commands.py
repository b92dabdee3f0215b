"""Each shell command of FastStream's page "ASGI Support" serves the application of that page.

`commands.txt` contains the commands verbatim. The tests replace the module of the deprecated uvicorn worker,
the port and the directory. A command without a port gets one.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.conformance.upstream.test_specification import BLOCKS, HERE, with_replaced_imports
from tests.harness.servers import HOST, poll
from tests.harness.servers.asgi import AppServer
from tests.integration.servers.processes import PATIENCE, group_has_ended

if TYPE_CHECKING:
    from tests.harness.servers.nats import NatsServer

LINES = Path(HERE, "commands.txt").read_text(encoding="utf-8").splitlines()

WITH_SOCKET = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
os.dup2(listener.fileno(), 2)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
"""Opens a socket as file descriptor 2, and replaces itself with the server."""


def words_of(line: str) -> list[str]:
    """Return the command for a line."""
    line = line.replace("uvicorn.workers.", "uvicorn_worker.")
    line = line.replace("8000", "{port}").replace("/tmp/", "{directory}/")  # noqa: S108 (a path in the page)
    program, *words = shlex.split(line)
    command = ["-m", program, *words]
    if "{" not in line and "fd:" not in line:
        bind = program in {"gunicorn", "hypercorn"}
        command += ["--bind", f"{HOST}:{{port}}"] if bind else ["--host", HOST, "--port", "{port}"]
    if "fd:" in line:
        command = ["-c", WITH_SOCKET, "{port}", *command]
    return [sys.executable, *command]


@pytest.mark.timeout(240)
# Each run includes the command with the most options. Other tests cover the servers and options of the rest.
@pytest.mark.full
@pytest.mark.parametrize("line", LINES)
def test_the_command_serves_the_application(line: str, shared_nats: NatsServer) -> None:
    app = with_replaced_imports(BLOCKS["reuse"])
    unix = "unix:" in line
    server = AppServer(
        words_of(line),
        app=app,
        env={"NATS_URL": shared_nats.url, "PYTHONDONTWRITEBYTECODE": "1"},
        ready_path=None if unix else "/liveness",
        timeout=PATIENCE,
    )
    server.files["nats_from_env.py"] = (HERE / "nats_from_env.py").read_text(encoding="utf-8")
    with server:
        path = server.directory / "socket.sock"
        if unix:
            server.wait_output(f"Serving on unix:{path}", PATIENCE)
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(path) if unix else None), base_url=server.url
        ) as http:
            assert http.get("/liveness").status_code == 200
            assert http.get("/readiness").status_code == 204
            assert http.get("/docs").headers["content-type"].startswith("text/html")
        if "[::]" in line:
            assert httpx.get(f"http://[::1]:{server.port}/liveness").status_code == 200
        workers = 4 if "workers" in line else 1
        # granian loses a signal that arrives while one of its workers starts.
        assert workers == 1 or poll(lambda: server.output().count("-> running") == workers, PATIENCE)
        server.terminate()
        # A single process of uvicorn raises the signal again.
        assert server.wait(PATIENCE) == (0 if workers > 1 else -15)
        assert poll(lambda: group_has_ended(server.pid), PATIENCE)
        assert not path.exists()
