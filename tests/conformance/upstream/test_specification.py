"""Each Python example of FastStream's page "ASGI Support" works under uvicorn with a real NATS server.

The files in `blocks` contain the examples verbatim. The tests replace only their import lines.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.harness.servers.asgi import AppServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.servers.nats import NatsServer

HERE = Path(__file__).parent
BLOCKS = {path.stem: path.read_text(encoding="utf-8") for path in (HERE / "blocks").glob("*.txt")}


def with_replaced_imports(block: str) -> str:
    """Return an example that imports this package and the broker of the test."""
    block = block.replace("from faststream.asgi import", "from faststream_adapters import")
    block = block.replace("from faststream.nats import", "from nats_from_env import")
    if ".as_asgi(" in block:
        block = block.replace(
            "from faststream import FastStream", "from faststream_adapters import FastStream"
        )
    if "@get" in block and not re.search(r"import .*\bget\b", block):
        # The original lacks this import.
        block = block.replace(
            "from faststream_adapters import make_ping", "from faststream_adapters import get, make_ping"
        )
    return block


@pytest.fixture
def example(request: pytest.FixtureRequest, nats: NatsServer) -> Iterator[AppServer]:
    block = BLOCKS[request.function.__name__.removeprefix("test_")]
    server = AppServer.uvicorn(with_replaced_imports(block), env={"NATS_URL": nats.url})
    server.files["nats_from_env.py"] = (HERE / "nats_from_env.py").read_text(encoding="utf-8")
    with server:
        yield server
        server.terminate()
        assert server.wait() == -signal.SIGTERM
        # The last example calls FastStream's broker.stop(), which fails while NATS is down.
        if request.function is not test_mounting:
            assert "Traceback" not in server.output()


def get(server: AppServer, path: str) -> httpx.Response:
    return httpx.get(server.url + path, follow_redirects=True, timeout=10)


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_only_imports_are_replaced(name: str) -> None:
    before, after = BLOCKS[name].splitlines(), with_replaced_imports(BLOCKS[name]).splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert changed
    for old, new in changed:
        assert re.fullmatch(r"from [\w.]+ import [\w, ]+", old)
        assert re.fullmatch(r"from (faststream_adapters|nats_from_env) import [\w, ]+", new)
        assert {*re.findall(r"\w+", new.partition("import ")[2])} - {"get"} == {
            *re.findall(r"\w+", old.partition("import ")[2])
        } - {"get"}


def test_asgi_app(example: AppServer) -> None:
    # "It does nothing but launch the app itself as an ASGI lifespan."
    assert get(example, "/health").status_code == 404


def test_health(example: AppServer, nats: NatsServer) -> None:
    # It "calls the broker.ping() method and returns HTTP 204 or HTTP 500 statuses".
    response = get(example, "/health")
    assert (response.status_code, response.content) == (204, b"")
    nats.kill()
    response = get(example, "/health")
    assert (response.status_code, response.content) == (500, b"")


@pytest.mark.full
def test_custom_route(example: AppServer, nats: NatsServer) -> None:
    for up in (True, False):
        response = get(example, "/health")
        assert (response.status_code, response.content) == (200, b"")
        if up:
            nats.kill()
    assert get(example, "/unknown").status_code == 404


@pytest.mark.full
def test_docs(example: AppServer) -> None:
    # "your AsyncAPI HTML representation can be found by the /docs url"
    response = get(example, "/docs")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "<title>" in response.text
    assert get(example, "/docs.json").json()["asyncapi"] == "3.0.0"


@pytest.mark.full
def test_reuse(example: AppServer, nats: NatsServer) -> None:
    assert get(example, "/liveness").status_code == 200
    assert get(example, "/readiness").status_code == 204
    assert get(example, "/docs").headers["content-type"].startswith("text/html")
    assert get(example, "/docs.json").json()["channels"].keys() == {
        "liveness:HttpChannel",
        "readiness:HttpChannel",
    }
    nats.kill()
    assert get(example, "/liveness").status_code == 200
    assert get(example, "/readiness").status_code == 500


@pytest.mark.full
def test_mounting(example: AppServer, nats: NatsServer) -> None:
    for path in ("/health", "/health/"):
        assert get(example, path).status_code == 204
    for path in ("/asyncapi", "/asyncapi/"):
        assert get(example, path).headers["content-type"].startswith("text/html")
    assert get(example, "/asyncapi/asyncapi.json").json()["asyncapi"] == "3.0.0"
    assert get(example, "/openapi.json").json()["info"]["title"] == "FastAPI"
    nats.kill()
    assert get(example, "/health").status_code == 500


def test_every_block_has_a_test() -> None:
    assert {f"test_{name}" for name in BLOCKS} <= globals().keys()
    assert len(BLOCKS) == 6
