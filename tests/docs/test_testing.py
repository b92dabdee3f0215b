"""The page about testing: its tests pass, with the applications that they are for."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest
from faststream.nats import NatsBroker, TestNatsBroker

from faststream_adapters import BrokerLifespan
from tests.examples.blocks import ROOT, code_blocks, needs_recent_litestar, python_blocks, run_tests

if TYPE_CHECKING:
    from pathlib import Path

PAGE = "docs/testing.md"
BLOCKS = python_blocks(PAGE)
ROUTES_ALONE = "Routes alone 1"
CONFTEST = "With a real NATS server 1"
REAL = "With a real NATS server 2"

# Which application each block is for.
IN_MEMORY = {
    "FastAPI 1": ["fastapi_app"],
    "Litestar 1": ["litestar_app"],
    "Quart 1": ["quart_app"],
    "Without a web framework 1": ["standalone"],
    "With the middleware, and everywhere else 1": ["starlette_app", "django_app"],
    ROUTES_ALONE: ["fastapi_app"],
}


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {*IN_MEMORY, CONFTEST, REAL}


def write(directory: Path, example: str, **files: str) -> None:
    (settings,) = code_blocks(PAGE, "toml").values()
    main = (ROOT / "examples" / f"{example}.py").read_text(encoding="utf-8")
    needs_recent_litestar(main)
    for name, text in {"pyproject.toml": settings.code, "main.py": main, **files}.items():
        (directory / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("block", "example"), [(block, example) for block, examples in IN_MEMORY.items() for example in examples]
)
def test_in_memory(
    block: str,
    example: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pytestconfig: pytest.Config,
) -> None:
    # Nobody listens there: these tests need no NATS server.
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    write(tmp_path, example, **{"test_main.py": BLOCKS[block].code})
    assert "1 passed" in run_tests(tmp_path, pytestconfig)


def test_with_a_real_server(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    write(
        tmp_path,
        "fastapi_app",
        **{"conftest.py": BLOCKS[CONFTEST].code, "test_main.py": BLOCKS[REAL].code},
    )
    assert "2 passed" in run_tests(tmp_path, pytestconfig)


async def test_items_that_are_not_calls() -> None:
    broker = NatsBroker("nats://127.0.0.1:1")
    lifespan = BrokerLifespan(broker)
    with pytest.warns(RuntimeWarning):
        async with TestNatsBroker(broker), lifespan:
            pass
    with warnings.catch_warnings(action="error"):
        async with TestNatsBroker(broker), lifespan():
            assert lifespan.state == "running"
