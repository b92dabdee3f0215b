"""docs/fastapi-plugin.md, "Change the import": the service runs, and the listed differences exist."""

import sys
import warnings
from pathlib import Path as FilePath
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, HTTPException, Path
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker, TestNatsBroker

from faststream_adapters.fastapi._check import check
from faststream_adapters.fastapi.plugin.nats import NatsRouter
from tests.docs.blocks import at_nats, code_blocks, eventually, load, python_blocks, served
from tests.harness.plugins import app_with, client_of, in_memory
from tests.harness.servers.nats import NatsServer

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import faststream.nats.fastapi as old

PAGE = "docs/fastapi-plugin.md"
BLOCKS = python_blocks(PAGE)
[DIFF] = code_blocks(PAGE, "diff").values()
[CONSOLE] = code_blocks(PAGE, "console").values()


@pytest.fixture
def code() -> str:
    """The service of the page, with its import changed."""
    old, new = (line[1:] for line in DIFF.code.splitlines())
    before = BLOCKS["Before and after 1"].code
    assert before.count(old) == 1
    return before.replace(old, new)


async def test_the_service_runs_with_its_import_changed(
    code: str, shared_nats: NatsServer, tmp_path: FilePath
) -> None:
    module = load(at_nats(code, shared_nats.url), tmp_path)
    async with served(module.app) as client, NatsBroker(shared_nats.url) as broker:
        await eventually(client, "/log", ["Shop", "welcome"])
        assert (await client.post("/orders", json={"item": "tea", "amount": 2})).status_code == 202
        await eventually(client, "/log", ["Shop", "welcome", "tea: 6"])
        await broker.publish({"item": "tea", "amount": 3}, "orders")
        await eventually(client, "/log", ["Shop", "welcome", "tea: 6", "tea: 9"])


async def test_its_test_passes(code: str, tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "main", load(code, tmp_path))
    await load(BLOCKS["Its test 1"].code, tmp_path, "test_main").test_a_bill_is_sent()


def test_the_command_prints_what_the_page_shows(tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch) -> None:
    command, *shown = CONSOLE.code.splitlines()
    assert command == "$ python -m faststream_adapters.fastapi check src"
    monkeypatch.chdir(tmp_path)
    FilePath("src").mkdir()
    lines = ["from faststream.nats.fastapi import NatsRouter", *[""] * 39, '@router.subscriber("orders")']
    FilePath("src/app.py").write_text("\n".join([*lines, "def process(item: str) -> None: ..."]), "utf-8")
    assert check(FilePath("src")) == shown


async def start(*routers: Any) -> None:
    async with in_memory(*routers), client_of(app_with(*routers)):
        pytest.fail("The application has started.")


async def test_a_mark_of_requests_fails_the_start() -> None:
    async def handle(item: str, number: Annotated[int, Path()]) -> None:
        """Not called."""

    router = NatsRouter()
    router.subscriber("orders.{number}")(handle)
    with pytest.raises(SetupError, match=r"'number' of the subscriber 'handle' is a fastapi\.Path"):
        await start(router)


async def test_the_document_has_the_fields_of_the_subscriber() -> None:
    def get_user(user: int) -> int:
        return user

    async def handle(order: dict[str, int], user: Annotated[int, Depends(get_user)]) -> None:
        """Not called."""

    schemas = []
    for router in (NatsRouter(), old.NatsRouter()):
        router.subscriber("orders")(handle)
        [schema] = router.schema.to_specification().to_jsonable()["components"]["schemas"].values()
        schemas.append([schema["type"], sorted(schema.get("properties", ()))])
    assert schemas == [["object", []], ["object", ["order", "user"]]]
    assert get_user(7) == 7


async def test_two_routers_cannot_serve_the_docs_at_one_path() -> None:
    with pytest.raises(SetupError, match=r"/asyncapi\.json is served .* already"):
        await start(NatsRouter(schema_url="/asyncapi"), NatsRouter(schema_url="/asyncapi"))


async def test_dependencies_guard_the_docs() -> None:
    def guard() -> None:
        raise HTTPException(401)

    router = NatsRouter(schema_url="/asyncapi", dependencies=[Depends(guard)])
    async with TestNatsBroker(router.broker), client_of(app_with(router)) as client:
        assert (await client.get("/asyncapi")).status_code == 401


async def test_the_error_of_a_background_task_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        msg = "The task fails."
        raise RuntimeError(msg)

    async def handle(item: str, tasks: BackgroundTasks) -> str:
        tasks.add_task(fail)
        return item

    router = NatsRouter()
    router.subscriber("orders")(handle)
    async with TestNatsBroker(router.broker), client_of(app_with(router)):
        assert (await router.broker.request("tea", "orders")).body == b"tea"
    assert "A background task failed" in caplog.text
