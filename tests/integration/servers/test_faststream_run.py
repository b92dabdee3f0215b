"""The commands of FastStream's CLI: the effect of each option, and the errors for invalid ones."""

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

from tests.harness.servers import HOST, poll
from tests.harness.servers.asgi import AppServer
from tests.harness.waiting import eventually
from tests.integration.servers.processes import PATIENCE, group_has_ended, status_of

if TYPE_CHECKING:
    from tests.harness.servers.nats import NatsServer

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
    async def report(env: str = "none", number: int = 0, worker_id: int | None = None) -> None:
        loop = type(asyncio.get_running_loop()).__name__
        os.write(1, f"env={env!r} number={number!r} worker={worker_id!r} loop={loop}\\n".encode())

    @app.after_shutdown
    def stopped() -> None:
        os.write(1, b"stopped gracefully\\n")

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


def assert_graceful_stop(server: AppServer, code: int = -signal.SIGTERM, workers: int = 1) -> None:
    """Send SIGTERM and check the return code, the shutdown of each worker and that no process is left."""
    server.terminate()
    assert server.wait(PATIENCE) == code
    assert server.output().count("stopped gracefully") == workers
    assert poll(lambda: group_has_ended(server.pid), PATIENCE)


# --- options ---


@pytest.mark.full
def test_options_reach_the_hooks_with_their_types(shared_nats: NatsServer) -> None:
    with faststream(shared_nats, *at_port("--env", "test", "--number=5")) as server:
        assert "env='test' number=5 worker=None" in server.output()
        assert "has no effect" not in server.output()
        assert f"Serving on {server.url}" in server.output()
        assert_graceful_stop(server)


@pytest.mark.full
def test_each_worker_has_an_id(shared_nats: NatsServer) -> None:
    with faststream(shared_nats, *at_port("--workers", "3", "--env", "test")) as server:
        lines = {f"env='test' number=0 worker={number}" for number in range(3)}
        assert poll(lambda: all(line in server.output() for line in lines), PATIENCE)
        assert poll(lambda: server.output().count("Serving on") == 3, PATIENCE)
        assert_graceful_stop(server, 0, workers=3)


@pytest.mark.full
def test_reload_restarts_the_app_after_an_edit(shared_nats: NatsServer) -> None:
    with faststream(shared_nats, *at_port("--reload")) as server:
        assert status_of(server, "/edited") == 404
        code = APP.replace('"/answer"', '"/edited"')

        def edit_is_detected() -> bool:
            # Repeatedly, because nothing reports when the watcher has started.
            (server.directory / "main.py").write_text(code, encoding="utf-8")
            return poll(lambda: "detected file change in 'main.py'" in server.output(), 2.0)

        assert poll(edit_is_detected, PATIENCE)
        assert poll(lambda: status_of(server, "/edited") == 200, PATIENCE)
        server.terminate()
        assert server.wait(PATIENCE) == 0
        assert poll(lambda: group_has_ended(server.pid), PATIENCE)


@pytest.mark.full
def test_factory_and_loop_options(shared_nats: NatsServer) -> None:
    words = ["main:create", "--factory", "--host", HOST, "--port", "{port}", "--loop", "main:CustomLoop"]
    app = f"{APP}\n\nclass CustomLoop(asyncio.SelectorEventLoop):\n    pass\n"
    with faststream(shared_nats, *words, app=app) as server:
        assert "loop=CustomLoop" in server.output()
        assert_graceful_stop(server)


@pytest.mark.full
def test_log_level_applies_to_the_server_and_the_app(shared_nats: NatsServer) -> None:
    with faststream(shared_nats, *at_port("--log-level", "error")) as server:
        assert httpx.get(f"{server.url}/answer").status_code == 200
        assert_graceful_stop(server)
        assert "INFO" not in server.output()


def test_an_application_without_a_logger_logs_nothing(shared_nats: NatsServer) -> None:
    app = APP.replace('readiness_path="/ready"', 'readiness_path="/ready", logger=None')
    with faststream(shared_nats, *at_port("--rot-path", "/svc"), app=app) as server:
        assert_graceful_stop(server)
        output = server.output()
    assert "Started server process" in output
    assert not re.search("Brokers:|Serving on|has no effect", output)


@pytest.mark.full
def test_log_config_replaces_the_logging_of_uvicorn(shared_nats: NatsServer) -> None:
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"custom": {"format": "custom {levelname} {message}", "style": "{"}},
        "handlers": {"custom": {"class": "logging.StreamHandler", "formatter": "custom"}},
        "loggers": {
            "uvicorn.error": {"handlers": ["custom"], "level": "WARNING"},
            "uvicorn.access": {"handlers": ["custom"], "level": "INFO"},
        },
    }
    server = faststream(shared_nats, *at_port("--log-config", "logging.json"))
    server.files["logging.json"] = json.dumps(config)
    with server:
        httpx.get(f"{server.url}/answer")
        server.wait_output('"GET /answer HTTP/1.1" 200')
        assert re.search(r'^custom INFO .*"GET /answer HTTP/1.1" 200$', server.output(), re.MULTILINE)
        assert "Started server process" not in server.output()
        assert_graceful_stop(server)


@pytest.mark.full
def test_options_without_effect_are_logged(shared_nats: NatsServer) -> None:
    with faststream(shared_nats, *at_port("--rot-path", "/svc", "--reload-dir", "src")) as server:
        output = server.output()
        assert "--rot-path has no effect: neither uvicorn nor" in output
        assert "Did you mean --root-path?" in output
        assert "--reload-dir has no effect: it is an option of the uvicorn command." in output
        assert_graceful_stop(server)


# --- addresses ---


def get_answer(host: str, port: int) -> str:
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
def test_bind_listens_on_each_address(shared_nats: NatsServer, binds: list[str], hosts: list[str]) -> None:
    with faststream(shared_nats, "main:app", "--bind", *binds) as server:
        assert [get_answer(host, server.port) for host in hosts] == ["the answer"] * len(hosts)
        assert_graceful_stop(server)


@pytest.mark.full
def test_workers_share_the_addresses_of_a_repeated_bind(shared_nats: NatsServer) -> None:
    words = ["main:app", "--bind", f"{HOST}:{{port}}", "--bind", "[::1]:{port}", "--workers", "2"]
    with faststream(shared_nats, *words) as server:
        assert poll(lambda: server.output().count("Serving on") == 4, PATIENCE)
        for host in (HOST, "[::1]"):
            assert get_answer(host, server.port) == "the answer"
        assert_graceful_stop(server, 0, workers=2)


@pytest.mark.parametrize(
    "option",
    [
        "--bind unix:{directory}/app.sock",
        pytest.param("--uds {directory}/app.sock", marks=pytest.mark.full),
    ],
)
def test_unix_socket_is_served_and_removed(shared_nats: NatsServer, option: str) -> None:
    with faststream(shared_nats, "main:app", *option.split(), ready_path=None) as server:
        path = server.directory / "app.sock"
        server.wait_output(f"Serving on unix:{path}", PATIENCE)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://app") as http:
            assert http.get("/answer").text == "the answer"
        assert_graceful_stop(server)
        assert not path.exists()


PARENT_PROCESS = """
import os, socket, sys
port, number = map(int, sys.argv[1:3])
listener = socket.create_server(("127.0.0.1", port))
os.dup2(listener.fileno(), number)
os.set_inheritable(number, True)
os.execv(sys.executable, [sys.executable, "-m", "faststream", "run", "main:app", *sys.argv[3:]])
"""
"""Opens the socket and replaces itself by the server, as systemd does."""


@pytest.mark.full
@pytest.mark.parametrize("option", ["--bind fd://9", "--fd 9"])
def test_a_socket_inherited_from_the_parent_is_served(shared_nats: NatsServer, option: str) -> None:
    server = faststream(shared_nats)
    server.command = [sys.executable, "-c", PARENT_PROCESS, str(server.port), "9", *option.split()]
    with server:
        assert get_answer(HOST, server.port) == "the answer"
        assert_graceful_stop(server)


# --- errors ---


ERRORS = {
    "main:app --bind nowhere": "Error: 'nowhere' is not an address to listen on",
    "main:app --bind fd://77": "Error: Cannot listen on fd://77: Bad file descriptor.",
    "main:app --bind unix:/no/app.sock": "Error: Cannot listen on unix:/no/app.sock: No such",
    "main:app --bind :80 --port 80": "Error: --bind, --port all set the address to listen on: use one.",
    "main:app --limit-concurrency x": "Error: --limit-concurrency must be a whole number, not 'x'.",
    "main:app --ssl-certfile x.pem": "Error: uvicorn does not accept these options: [Errno 2] No such file",
    # FastStream reports the following errors.
    "main:missing": 'Attribute "missing" not found in module "main"',
    "missing:app": "Please, input module like",
    "main:broker": 'must be "Application" type',
}


@pytest.mark.full
@pytest.mark.parametrize(("words", "message"), ERRORS.items())
def test_invalid_arguments_print_an_error_without_a_traceback(
    shared_nats: NatsServer, words: str, message: str
) -> None:
    exited = faststream(shared_nats, *words.split()).run_to_exit(PATIENCE)
    assert exited.returncode != 0
    assert "Traceback" not in exited.output
    assert message in exited.output
    assert "Brokers:" not in exited.output


HOSTS = {
    "FastAPI": """
from fastapi import FastAPI
from faststream_adapters.fastapi import FastStreamRouter
app = FastAPI()
app.include_router(FastStreamRouter(NatsBroker()))
""",
    "Quart": """
from faststream_adapters.quart import QuartFastStream
from quart import Quart
app = Quart("main")
QuartFastStream(NatsBroker(), app=app)
""",
    "Litestar": """
from faststream_adapters.litestar import FastStreamPlugin
from litestar import Litestar
app = Litestar(plugins=[FastStreamPlugin(NatsBroker())])
""",
    "FastStreamMiddleware": """
from faststream_adapters import FastStreamMiddleware
from starlette.applications import Starlette
app = FastStreamMiddleware(Starlette(), NatsBroker())
""",
    "Starlette": """
from faststream_adapters import BrokerLifespan
from starlette.applications import Starlette
app = Starlette(lifespan=BrokerLifespan(NatsBroker()))
""",
}


@pytest.mark.full
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("FastAPI", []),
        ("Quart", ["--bind", "127.0.0.1:8000", "--loop", "asyncio:SelectorEventLoop"]),
        *((kind, ["--workers", "2"]) for kind in HOSTS),
    ],
)
def test_an_application_of_a_web_framework_is_refused_with_the_command_that_runs_it(
    shared_nats: NatsServer, kind: str, options: list[str]
) -> None:
    app = f"from faststream.nats import NatsBroker\n{HOSTS[kind]}\nother = app"
    exited = faststream(shared_nats, "main:app", *options, app=app).run_to_exit(PATIENCE)
    assert exited.returncode == 2
    assert exited.output.splitlines()[-1] == (
        f"Error: main:app is a {kind}, and `faststream run` takes an AsgiFastStream or a FastStream: "
        "run `uvicorn main:app` instead."
    )
    assert "Traceback" not in exited.output


@pytest.mark.full
@pytest.mark.parametrize(
    "app", ["app = broker = NatsBroker()\nBrokerLifespan(broker)", "app = BrokerLifespan(NatsBroker())"]
)
def test_a_broker_is_refused_with_the_application_that_runs_it(shared_nats: NatsServer, app: str) -> None:
    imports = "from faststream.nats import NatsBroker\nfrom faststream_adapters import BrokerLifespan"
    exited = faststream(shared_nats, "main:app", app=f"{imports}\n{app}").run_to_exit(PATIENCE)
    assert exited.returncode == 2
    assert exited.output.splitlines()[-1].endswith(
        "or a FastStream: make one of its broker, as in `app = AsgiFastStream(broker)`."
    )


@pytest.mark.full
def test_another_mistake_is_not_explained_by_the_framework(shared_nats: NatsServer) -> None:
    app = f"from faststream.nats import NatsBroker\n{HOSTS['FastAPI']}"
    exited = faststream(shared_nats, "main:ap", app=app).run_to_exit(PATIENCE)
    assert exited.returncode == 2
    assert "uvicorn" not in exited.output


def test_a_port_in_use_prints_an_error_without_a_traceback(shared_nats: NatsServer) -> None:
    with socket.create_server((HOST, 0)) as other:
        address = f"{HOST}:{other.getsockname()[1]}"
        exited = faststream(shared_nats, "main:app", "--bind", address).run_to_exit(PATIENCE)
    assert exited.returncode == 1
    assert exited.output.splitlines()[-1] == f"Error: Cannot listen on {address}: Address already in use."
    assert "Traceback" not in exited.output


@pytest.mark.full
def test_workers_that_cannot_share_a_socket_log_an_alternative(shared_nats: NatsServer) -> None:
    # FastStream's supervisor restarts the workers forever; each of them logs what to do instead.
    words = ["main:app", "--workers", "2", "--bind", "unix:{directory}/app.sock"]
    with faststream(shared_nats, *words, ready_path=None) as server:
        line = f"run `uvicorn main:app --uds {server.directory}/app.sock --workers N` instead"
        assert poll(lambda: server.output().count(line) > 2, PATIENCE)
        server.terminate()
        assert server.wait(PATIENCE) == 0
        assert poll(lambda: group_has_ended(server.pid), PATIENCE)


@pytest.mark.full
@pytest.mark.parametrize("option", ["--uds {directory}/app.sock", "--fd 9"])
def test_the_suggested_command_shares_the_socket(shared_nats: NatsServer, option: str) -> None:
    server = AppServer([], app=APP, env={"NATS_URL": shared_nats.url}, ready_path=None)
    words = option.replace("{directory}", str(server.directory)).split()
    launcher = PARENT_PROCESS.replace('"faststream", "run"', '"uvicorn"')
    server.command = [sys.executable, "-c", launcher, str(server.port), "9", *words, "--workers", "2"]
    with server:
        assert poll(lambda: server.output().count("Application startup complete") == 2, PATIENCE)
        path = server.directory / "app.sock"
        if path.exists():
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://app") as http:
                assert http.get("/answer").text == "the answer"
        else:
            assert get_answer(HOST, server.port) == "the answer"
        assert_graceful_stop(server, 0, workers=2)
        assert not path.exists()


# --- workers and subscribers ---


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
        await asyncio.to_thread(assert_graceful_stop, server, 0, 2)


# --- other commands ---


@pytest.mark.full
def test_publish_command_prints_the_reply(shared_nats: NatsServer) -> None:
    with faststream(shared_nats, *at_port()) as server:
        words = ["main:app", json.dumps("ab"), "--subject", "run.in", "--rpc"]
        exited = faststream(shared_nats, *words, command="publish").run_to_exit(PATIENCE)
        assert exited.returncode == 0
        assert "abab" in exited.output
        assert_graceful_stop(server)


@pytest.mark.full
def test_docs_gen_command_writes_the_document(shared_nats: NatsServer) -> None:
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
def test_docs_serve_command_serves_the_page(shared_nats: NatsServer) -> None:
    words = ["serve", "main:app", "--host", HOST, "--port", "{port}"]
    with faststream(shared_nats, *words, command="docs") as server:
        page = httpx.get(f"{server.url}/")
        assert page.status_code == 200
        assert "run.in" in page.text
        server.terminate()
        assert server.wait(PATIENCE) == -signal.SIGTERM
