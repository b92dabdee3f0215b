"""`faststream run` and its sisters: what each option does, and what is said when one cannot work."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
from typing import TYPE_CHECKING

import httpx
import nats as nats_py
import pytest
from nats.aio.msg import Msg

from tests.servers import HOST, poll
from tests.servers.asgi import AppServer
from tests.servers.matrix.test_matrix import PATIENCE, group_has_ended, status_of
from tests.support import eventually

if TYPE_CHECKING:
    from tests.servers.nats import NatsServer

pytestmark = pytest.mark.timeout(240)

APP = """
import asyncio, os
from faststream.nats import NatsBroker
from faststream_adapters import AsgiFastStream, AsgiResponse, get

broker = NatsBroker(os.environ["NATS_URL"])


@broker.subscriber("run.in", queue="run")
async def double(message: str) -> str:
    return message * 2


@get
async def answer() -> AsgiResponse:
    return AsgiResponse(b"the answer")


def create() -> AsgiFastStream:
    app = AsgiFastStream(broker, asgi_routes=[("/answer", answer)], readiness_path="/ready")

    @app.on_startup
    async def tell(env: str = "none", number: int = 0, worker_id: int | None = None) -> None:
        loop = type(asyncio.get_running_loop()).__name__
        os.write(1, f"env={env!r} number={number!r} worker={worker_id!r} loop={loop}\\n".encode())

    @app.after_shutdown
    def stopped() -> None:
        os.write(1, b"stopped in good order\\n")

    return app


app = create()
"""


def faststream(
    nats: NatsServer, *words: str, app: str = APP, ready_path: str | None = "/ready", command: str = "run"
) -> AppServer:
    return AppServer(
        [sys.executable, "-m", "faststream", command, *words],
        app=app,
        env={"NATS_URL": nats.url, "FASTSTREAM_CLI_RICH_MODE": "none", "TERMINAL_WIDTH": "300"},
        ready_path=ready_path,
        timeout=PATIENCE,
    )


def at_port(*words: str) -> list[str]:
    return ["main:app", "--host", HOST, "--port", "{port}", *words]


def ends(server: AppServer, code: int = -signal.SIGTERM, workers: int = 1) -> None:
    """Check that SIGTERM ends everything in good order."""
    server.terminate()
    assert server.wait(PATIENCE) == code
    assert server.output().count("stopped in good order") == workers
    assert poll(lambda: group_has_ended(server.pid), PATIENCE)


# --- options ---


def test_options_reach_the_hooks_with_their_types(shared_nats: NatsServer) -> None:
    with faststream(shared_nats, *at_port("--env", "test", "--number=5")) as server:
        assert "env='test' number=5 worker=None" in server.output()
        assert "has no effect" not in server.output()
        assert f"Serving on {server.url}" in server.output()
        ends(server)


@pytest.mark.full
def test_workers_have_numbers(shared_nats: NatsServer) -> None:
    with faststream(shared_nats, *at_port("--workers", "3", "--env", "test")) as server:
        lines = {f"env='test' number=0 worker={number}" for number in range(3)}
        assert poll(lambda: all(line in server.output() for line in lines), PATIENCE)
        assert poll(lambda: server.output().count("Serving on") == 3, PATIENCE)
        ends(server, 0, workers=3)


@pytest.mark.full
def test_reload(shared_nats: NatsServer) -> None:
    with faststream(shared_nats, *at_port("--reload")) as server:
        assert status_of(server, "/edited") == 404
        code = APP.replace('"/answer"', '"/edited"')

        def noticed() -> bool:
            # Once more if need be: nobody says when the watcher has begun to watch.
            (server.directory / "main.py").write_text(code, encoding="utf-8")
            return poll(lambda: "detected file change in 'main.py'" in server.output(), 2.0)

        assert poll(noticed, PATIENCE)
        assert poll(lambda: status_of(server, "/edited") == 200, PATIENCE)
        server.terminate()
        assert server.wait(PATIENCE) == 0
        assert poll(lambda: group_has_ended(server.pid), PATIENCE)


@pytest.mark.full
def test_factory_and_loop(shared_nats: NatsServer) -> None:
    words = ["main:create", "--factory", "--host", HOST, "--port", "{port}", "--loop", "main:OwnLoop"]
    app = f"{APP}\n\nclass OwnLoop(asyncio.SelectorEventLoop):\n    pass\n"
    with faststream(shared_nats, *words, app=app) as server:
        assert "loop=OwnLoop" in server.output()
        ends(server)


@pytest.mark.full
def test_log_level(shared_nats: NatsServer) -> None:
    with faststream(shared_nats, *at_port("--log-level", "error")) as server:
        assert httpx.get(f"{server.url}/answer").status_code == 200
        ends(server)
        assert "INFO" not in server.output()


@pytest.mark.full
def test_log_config(shared_nats: NatsServer) -> None:
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"own": {"format": "own {levelname} {message}", "style": "{"}},
        "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own"}},
        "loggers": {
            "uvicorn.error": {"handlers": ["own"], "level": "WARNING"},
            "uvicorn.access": {"handlers": ["own"], "level": "INFO"},
        },
    }
    server = faststream(shared_nats, *at_port("--log-config", "logging.json"))
    server.files["logging.json"] = json.dumps(config)
    with server:
        httpx.get(f"{server.url}/answer")
        server.wait_output('"GET /answer HTTP/1.1" 200')
        assert re.search(r'^own INFO .*"GET /answer HTTP/1.1" 200$', server.output(), re.MULTILINE)
        assert "Started server process" not in server.output()
        ends(server)


@pytest.mark.full
def test_an_option_that_nobody_takes_is_named(shared_nats: NatsServer) -> None:
    with faststream(shared_nats, *at_port("--rot-path", "/svc", "--reload-dir", "src")) as server:
        output = server.output()
        assert "--rot-path has no effect: neither uvicorn nor" in output
        assert "Did you mean --root-path?" in output
        assert "--reload-dir has no effect: it is an option of the uvicorn command." in output
        ends(server)


# --- where it listens ---


def answer_at(host: str, port: int) -> str:
    return httpx.get(f"http://{host}:{port}/answer").text


@pytest.mark.parametrize(
    ("binds", "hosts"),
    [
        pytest.param(["127.0.0.1:{port}"], ["127.0.0.1"], marks=pytest.mark.full),
        (["0.0.0.0:{port}", "[::]:{port}"], ["127.0.0.1", "[::1]"]),
        pytest.param([":{port}"], ["127.0.0.1", "[::1]"], marks=pytest.mark.full),
    ],
    ids=["one", "two", "all"],
)
def test_bind(shared_nats: NatsServer, binds: list[str], hosts: list[str]) -> None:
    with faststream(shared_nats, "main:app", "--bind", *binds) as server:
        assert [answer_at(host, server.port) for host in hosts] == ["the answer"] * len(hosts)
        ends(server)


@pytest.mark.full
def test_bind_given_twice_and_shared_by_workers(shared_nats: NatsServer) -> None:
    words = ["main:app", "--bind", f"{HOST}:{{port}}", "--bind", "[::1]:{port}", "--workers", "2"]
    with faststream(shared_nats, *words) as server:
        assert poll(lambda: server.output().count("Serving on") == 4, PATIENCE)
        for host in (HOST, "[::1]"):
            assert answer_at(host, server.port) == "the answer"
        ends(server, 0, workers=2)


@pytest.mark.parametrize(
    "option",
    [
        "--bind unix:{directory}/app.sock",
        pytest.param("--uds {directory}/app.sock", marks=pytest.mark.full),
    ],
)
def test_unix_socket(shared_nats: NatsServer, option: str) -> None:
    with faststream(shared_nats, "main:app", *option.split(), ready_path=None) as server:
        path = server.directory / "app.sock"
        server.wait_output(f"Serving on unix:{path}", PATIENCE)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://app") as http:
            assert http.get("/answer").text == "the answer"
        ends(server)
        assert not path.exists()


FROM_PARENT = """
import os, socket, sys
port, number = map(int, sys.argv[1:3])
listener = socket.create_server(("127.0.0.1", port))
os.dup2(listener.fileno(), number)
os.set_inheritable(number, True)
os.execv(sys.executable, [sys.executable, "-m", "faststream", "run", "main:app", *sys.argv[3:]])
"""
"""Does what systemd does: it opens the socket, and becomes the server."""


@pytest.mark.parametrize("option", ["--bind fd://9", pytest.param("--fd 9", marks=pytest.mark.full)])
def test_socket_of_the_parent(shared_nats: NatsServer, option: str) -> None:
    server = faststream(shared_nats)
    server.command = [sys.executable, "-c", FROM_PARENT, str(server.port), "9", *option.split()]
    with server:
        assert answer_at(HOST, server.port) == "the answer"
        ends(server)


# --- what cannot work ---


CANNOT_WORK = {
    "main:app --bind nowhere": "Error: 'nowhere' does not say where to listen",
    "main:app --bind fd://77": "Error: Cannot listen on fd://77: Bad file descriptor.",
    "main:app --bind unix:/no/app.sock": "Error: Cannot listen on unix:/no/app.sock: No such",
    "main:app --bind :80 --port 80": "Error: --bind, --port all say where to listen: give one of them.",
    "main:app --limit-concurrency x": "Error: --limit-concurrency must be a whole number, not 'x'.",
    "main:app --ssl-certfile x.pem": "Error: uvicorn does not accept these options: [Errno 2] No such file",
    # The rest is said by FastStream.
    "main:missing": 'Attribute "missing" not found in module "main"',
    "missing:app": "Please, input module like",
    "main:broker": 'must be "Application" type',
}


@pytest.mark.full
@pytest.mark.parametrize(("words", "said"), CANNOT_WORK.items())
def test_a_clear_line_and_a_code(shared_nats: NatsServer, words: str, said: str) -> None:
    exited = faststream(shared_nats, *words.split()).run_to_exit(PATIENCE)
    assert exited.returncode != 0
    assert "Traceback" not in exited.output
    assert said in exited.output
    assert "Brokers:" not in exited.output


def test_a_port_in_use(shared_nats: NatsServer) -> None:
    with socket.create_server((HOST, 0)) as other:
        address = f"{HOST}:{other.getsockname()[1]}"
        exited = faststream(shared_nats, "main:app", "--bind", address).run_to_exit(PATIENCE)
    assert exited.returncode == 1
    assert exited.output.splitlines()[-1] == f"Error: Cannot listen on {address}: Address already in use."
    assert "Traceback" not in exited.output


@pytest.mark.full
def test_workers_that_cannot_share_are_started_again_for_ever(shared_nats: NatsServer) -> None:
    # That is FastStream's supervisor; each time the line says what to do instead.
    words = ["main:app", "--workers", "2", "--bind", "unix:{directory}/app.sock"]
    with faststream(shared_nats, *words, ready_path=None) as server:
        line = f"run `uvicorn main:app --uds {server.directory}/app.sock --workers N` instead"
        assert poll(lambda: server.output().count(line) > 2, PATIENCE)
        server.terminate()
        assert server.wait(PATIENCE) == 0
        assert poll(lambda: group_has_ended(server.pid), PATIENCE)


@pytest.mark.full
@pytest.mark.parametrize("option", ["--uds {directory}/app.sock", "--fd 9"])
def test_the_command_that_is_named_instead(shared_nats: NatsServer, option: str) -> None:
    server = AppServer([], app=APP, env={"NATS_URL": shared_nats.url}, ready_path=None)
    words = option.replace("{directory}", str(server.directory)).split()
    launcher = FROM_PARENT.replace('"faststream", "run"', '"uvicorn"')
    server.command = [sys.executable, "-c", launcher, str(server.port), "9", *words, "--workers", "2"]
    with server:
        assert poll(lambda: server.output().count("Application startup complete") == 2, PATIENCE)
        path = server.directory / "app.sock"
        if path.exists():
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://app") as http:
                assert http.get("/answer").text == "the answer"
        else:
            assert answer_at(HOST, server.port) == "the answer"
        ends(server, 0, workers=2)
        assert not path.exists()


# --- the trap ---


@pytest.mark.full
async def test_workers_without_a_queue_group_each_handle_every_message(nats: NatsServer) -> None:
    app = APP.replace('"run.in", queue="run"', '"run.in"')
    with await asyncio.to_thread(faststream(nats, *at_port("--workers", "2"), app=app).__enter__) as server:
        await eventually(lambda: server.output().count("Serving on") == 2, PATIENCE)
        answers: list[bytes] = []

        async def collect(message: Msg) -> None:
            answers.append(message.data)

        client = await nats_py.connect(nats.url)
        await client.subscribe("run.out", cb=collect)
        await client.publish("run.in", b"ab", reply="run.out")
        await eventually(lambda: len(answers) == 2, PATIENCE)
        await client.drain()
        assert answers == [b"abab", b"abab"]
        assert server.output().count("There are several workers (faststream run --workers)") == 2
        await asyncio.to_thread(ends, server, 0, 2)


# --- the other commands ---


def test_publish(shared_nats: NatsServer) -> None:
    with faststream(shared_nats, *at_port()) as server:
        words = ["main:app", json.dumps("ab"), "--subject", "run.in", "--rpc"]
        exited = faststream(shared_nats, *words, command="publish").run_to_exit(PATIENCE)
        assert exited.returncode == 0
        assert "abab" in exited.output
        ends(server)


def test_docs_gen(shared_nats: NatsServer) -> None:
    words = ["gen", "main:app", "--out", "document.json"]
    server = faststream(shared_nats, *words, command="docs", ready_path=None)
    with server:
        assert server.wait(PATIENCE) == 0
        document = json.loads((server.directory / "document.json").read_text(encoding="utf-8"))
    assert [channel["address"] for channel in document["channels"].values()] == [
        "run.in",
        "/answer",
        "/ready",
    ]


@pytest.mark.full
def test_docs_serve(shared_nats: NatsServer) -> None:
    words = ["serve", "main:app", "--host", HOST, "--port", "{port}"]
    with faststream(shared_nats, *words, command="docs") as server:
        page = httpx.get(f"{server.url}/")
        assert page.status_code == 200
        assert "run.in" in page.text
        server.terminate()
        assert server.wait(PATIENCE) == -signal.SIGTERM
