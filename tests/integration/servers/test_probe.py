"""The command `python -m faststream_adapters.probe`."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from threading import Thread
from typing import TYPE_CHECKING, Self

import pytest

from faststream_adapters.probe import main
from tests.harness.servers import HOST, hold_port
from tests.harness.servers.asgi import AppServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.harness.servers.nats import NatsServer

MODULE = "faststream_adapters.probe"

SERVICE = """
import os
from faststream.nats import NatsBroker
from faststream_adapters import AsgiFastStream

app = AsgiFastStream(
    NatsBroker(os.environ["NATS_URL"]), ping_path="/ping", readiness_path="/ready", startup_timeout=5.0
)
"""

SERVERS = {
    "uvicorn": "-m uvicorn main:app --host 127.0.0.1 --port {port}",
    "hypercorn": "-m hypercorn main:app --bind 127.0.0.1:{port}",
    "granian": "-m granian --interface asgi main:app --host 127.0.0.1 --port {port}",
}


class Responder:
    """A server on a port of its own that sends one prepared response and keeps the request.

    Args:
        response: What it sends; None: nothing, until the test has ended.
    """

    def __init__(self, response: bytes | None) -> None:
        self._response = response
        self._listener = socket.create_server((HOST, 0))
        self.request = b""
        self.url = f"http://{HOST}:{self._listener.getsockname()[1]}/ready?part=a"
        self._thread = Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            self.request = connection.recv(4096)
            if self._response is None:
                # Until the client has closed its side, or its process has ended.
                connection.recv(1)
            else:
                connection.sendall(self._response)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", MODULE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize(
    "server", [pytest.param(name, marks=[] if name == "uvicorn" else pytest.mark.full) for name in SERVERS]
)
def test_a_probe_of_a_server_passes_until_its_broker_is_lost(
    server: str, nats: NatsServer, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, *SERVERS[server].split()]
    with AppServer(command, app=SERVICE, env={"NATS_URL": nats.url}, ready_path="/ready") as service:
        assert (main([f"{service.url}/ready"]), *capsys.readouterr()) == (0, "ok\n", "")
        # It answers 204, without a body.
        assert (main([f"{service.url}/ping"]), *capsys.readouterr()) == (0, "ok\n", "")
        nats.freeze()
        assert (main([f"{service.url}/ready"]), *capsys.readouterr()) == (1, "", "503 timeout\n")
        assert (main([f"{service.url}/ping"]), *capsys.readouterr()) == (1, "", "500\n")
        nats.thaw()


def test_a_unix_socket_is_requested(
    shared_nats: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "app.sock"
    command = [sys.executable, "-m", "uvicorn", "main:app", "--uds", str(path)]
    with AppServer(command, app=SERVICE, env={"NATS_URL": shared_nats.url}, ready_path=None) as service:
        service.wait_output("Uvicorn running on unix socket")
        assert (main([f"unix:{path}:/ready"]), *capsys.readouterr()) == (0, "ok\n", "")
    assert main([f"unix:{tmp_path / 'none.sock'}:/ready"]) == 1
    assert capsys.readouterr().err == "No such file or directory\n"


@pytest.mark.parametrize(
    ("response", "code", "out", "err"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nok", 0, "ok\n", ""),
        (b"HTTP/1.1 299\r\n\r\n", 0, "ok\n", ""),
        (b"HTTP/1.0 204 No Content\r\n\r\n", 0, "ok\n", ""),
        (b'HTTP/1.1 200 OK\r\nA: b\r\n\r\n{\n  "code": "ok"\n}', 0, '{ "code": "ok" }\n', ""),
        (b"HTTP/1.1 200 OK\r\n\r\n\x1b[31m\xe9", 0, "?[31m?\n", ""),
        (b"HTTP/1.1 200 OK\r\n\r\n" + 100_000 * b"x", 0, None, ""),
        (b"HTTP/1.1 199 x\r\n\r\n", 1, "", "199\n"),
        (b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /login\r\n\r\n", 1, "", "307\n"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\ndraining", 1, "", "503 draining\n"),
        (b"", 1, "", "The server does not speak HTTP.\n"),
        (b"HTTP/1.1 2", 1, "", "The server does not speak HTTP.\n"),
        (b"HTTP/1.1 2xx\r\n\r\n", 1, "", "The server does not speak HTTP.\n"),
        (b"INFO {}\r\n", 1, "", "The server does not speak HTTP.\n"),
    ],
)
def test_the_exit_code_follows_the_status(
    response: bytes, code: int, out: str | None, err: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Responder(response) as server:
        assert main([server.url]) == code
    printed = capsys.readouterr()
    assert printed.err == err
    assert printed.out == out or (out is None and set(printed.out) == {"x", "\n"})
    assert server.request.startswith(b"GET /ready?part=a HTTP/1.0\r\nHost: 127.0.0.1:")


@pytest.mark.parametrize(("status", "code"), [("200 OK", 0), ("503 Service Unavailable", 1)])
@pytest.mark.parametrize("output", ["closed", "broken"])
def test_output_that_cannot_be_written_does_not_change_the_exit_code(
    status: str, code: int, output: str
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    closing = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh"] if output == "closed" else []
    with Responder(f"HTTP/1.1 {status}\r\n\r\nok".encode()) as server:
        command = [*closing, sys.executable, "-m", MODULE, server.url]
        done = subprocess.run(command, stdout=writer, stderr=writer, check=False, timeout=30)
    os.close(writer)
    assert done.returncode == code


def test_no_response_within_the_timeout_is_a_failure() -> None:
    with Responder(None) as server:
        done = run("--timeout", "0.05", server.url)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "No response within 0.05 s.\n")


def test_no_connection_is_a_failure() -> None:
    port, held = hold_port()
    assert held is not None
    with held:
        done = run(f"http://{HOST}:{port}")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "Connection refused\n")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["http://127.0.0.1/", "http://127.0.0.1/"],
        ["https://127.0.0.1/hunter2"],
        ["127.0.0.1:8000/hunter2"],
        ["http:///hunter2"],
        ["http://127.0.0.1:port/hunter2"],
        ["http://[127.0.0.1/hunter2"],
        ["http://service..example/hunter2"],
        ["http://user:hunter2@127.0.0.1/"],
        ["http://127.0.0.1/hunter2 HTTP/1.0\r\nA: b"],
        ["http://127.0.0.1/é?hunter2"],
        ["unix:/run/hunter2.sock"],
        ["unix::/hunter2"],
        ["--timeout", "0", "http://127.0.0.1/"],
        ["--timeout", "nan", "http://127.0.0.1/"],
        ["--timeout", "soon", "http://127.0.0.1/"],
        ["--timeout", "1e99", "http://127.0.0.1/"],
    ],
)
def test_wrong_arguments_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    printed = capsys.readouterr()
    assert "usage: python -m faststream_adapters.probe" in printed.err
    assert "hunter2" not in printed.err


def test_an_ipv6_address_is_requested(capsys: pytest.CaptureFixture[str]) -> None:
    port, held = hold_port()
    assert held is not None
    with held:
        assert main([f"http://[::1]:{port}/"]) == 1
    assert "does not speak" not in capsys.readouterr().err


def test_only_the_standard_library_is_imported() -> None:
    code = f"import sys; before = set(sys.modules); import {MODULE}; print(*(set(sys.modules) - before))"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    roots = {name.partition(".")[0] for name in loaded}
    assert roots - set(sys.stdlib_module_names) == {"faststream_adapters"}
    # These are most of what Python's own HTTP client takes to import.
    assert not roots & {"asyncio", "email", "http", "ssl"}


def cpu_seconds(call: Callable[[], object]) -> float:
    """Return the CPU time of the child processes that have ended in a call."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_start_takes_less_than_a_tenth_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    # Coverage in the child would be most of it.
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    port, held = hold_port()
    assert held is not None
    with held:
        seconds = min(cpu_seconds(lambda: run(f"http://{HOST}:{port}/")) for _ in range(5))
    assert seconds < 0.1
