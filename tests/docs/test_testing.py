"""docs/testing.md: its tests pass with the example applications that they are for."""

from __future__ import annotations

import sqlite3
import sys
import warnings
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from faststream.nats import NatsBroker, TestNatsBroker

from faststream_adapters import BrokerLifespan
from tests.docs.blocks import ROOT, code_blocks, load, needs_recent_litestar, python_blocks, run_tests

if TYPE_CHECKING:
    from pathlib import Path

PAGE = "docs/testing.md"
BLOCKS = python_blocks(PAGE)
CONFTEST = "With a real NATS server 1"
REAL = "With a real NATS server 2"

# The applications that each block tests.
EXAMPLES = ["fastapi_app", "litestar_app", "quart_app", "standalone", "starlette_app", "django_app"]
IN_MEMORY = {
    "In memory 1": EXAMPLES,
    "Other clients and websockets 1": ["fastapi_app", "standalone", "starlette_app", "django_app"],
}
OVERRIDES = "Overrides 1"
FAILURE = "A start that fails 1"
CONTRACT = "AsyncAPI contract 1"

# The others run only in the full run, because all blocks test the same service.
DEFAULT = ("In memory 1", "fastapi_app")


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {*IN_MEMORY, OVERRIDES, FAILURE, CONTRACT, CONFTEST, REAL}


def write(directory: Path, example: str, **files: str) -> None:
    (settings,) = code_blocks(PAGE, "toml").values()
    main = (ROOT / "examples" / f"{example}.py").read_text(encoding="utf-8")
    needs_recent_litestar(main)
    for name, text in {"pyproject.toml": settings.code, "main.py": main, **files}.items():
        (directory / name).write_text(text, encoding="utf-8")


def cases() -> list[Any]:
    """Return parameters for each block and application."""
    return [
        pytest.param(block, example, marks=[] if (block, example) == DEFAULT else pytest.mark.full)
        for block, examples in IN_MEMORY.items()
        for example in examples
    ]


@pytest.mark.parametrize(("block", "example"), cases())
def test_in_memory_tests_pass(
    block: str,
    example: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pytestconfig: pytest.Config,
) -> None:
    # Nothing listens on this port: these tests need no NATS server.
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    write(tmp_path, example, **{"test_main.py": BLOCKS[block].code})
    assert "1 passed" in run_tests(tmp_path, pytestconfig)


@pytest.mark.full
def test_one_override_replaces_the_session_of_a_route_and_a_subscriber(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    monkeypatch.delenv("DATABASE_URL", raising=False)
    write(tmp_path, "fastapi_app", **{"test_main.py": BLOCKS[OVERRIDES].code})
    # The route finds what the subscriber has stored.
    assert "1 passed" in run_tests(tmp_path, pytestconfig)
    with closing(sqlite3.connect(tmp_path / "orders.db")) as database:
        assert database.execute("SELECT * FROM orders").fetchall() == []


async def test_a_start_that_fails_raises_what_the_host_reports(tmp_path: Path) -> None:
    await load(BLOCKS[FAILURE].code, tmp_path).test_the_start_fails_without_the_database()


def test_a_change_of_the_contract_fails_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "standalone")
    main = tmp_path / "main.py"

    def run(**environment: str) -> None:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            # The application is imported again, at the end too.
            patch.setitem(sys.modules, "main", load(main.read_text(encoding="utf-8"), tmp_path, "main"))
            load(BLOCKS[CONTRACT].code, tmp_path).test_the_contract_is_unchanged()

    run(FASTSTREAM_ADAPTERS_UPDATE_ASYNCAPI="1", NATS_URL="nats://user:secret@127.0.0.1:1")
    assert "secret" not in (tmp_path / "asyncapi.json").read_text(encoding="utf-8")
    run(NATS_URL="nats://127.0.0.1:2")
    main.write_text(main.read_text(encoding="utf-8").replace("item: str", "item: float"), encoding="utf-8")
    with pytest.raises(AssertionError) as failure:
        run()
    shown = [line for line in code_blocks(PAGE, "text")[CONTRACT].code.splitlines() if line]
    # The page breaks the first line.
    first = " ".join(shown[:2]).removeprefix("AssertionError: ")
    for line in (first, *shown[2:]):
        assert line in str(failure.value)


@pytest.mark.full
def test_tests_with_a_real_server_pass(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    write(
        tmp_path,
        "fastapi_app",
        **{"conftest.py": BLOCKS[CONFTEST].code, "test_main.py": BLOCKS[REAL].code},
    )
    assert "1 passed" in run_tests(tmp_path, pytestconfig)


async def test_a_lifespan_that_is_not_called_warns_after_a_test_broker() -> None:
    broker = NatsBroker("nats://127.0.0.1:1")
    lifespan = BrokerLifespan(broker)
    with pytest.warns(RuntimeWarning):
        async with TestNatsBroker(broker), lifespan:
            pass
    with warnings.catch_warnings(action="error"):
        async with TestNatsBroker(broker), lifespan():
            assert lifespan.state == "running"
