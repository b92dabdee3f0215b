"""The Python code in Markdown files, run as the modules they show."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import litestar.params
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from types import ModuleType

ROOT = Path(__file__).parents[2]

_HEADING_OR_BLOCK = re.compile(
    r"^#+ (?P<heading>[^\n]+)$|^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A block of code.

    Args:
        name: The heading it stands under, and its number under that heading.
        code: The code.
    """

    name: str
    code: str


def python_blocks(path: str) -> dict[str, Block]:
    """Return the Python blocks of a Markdown file in the repository, by name."""
    return code_blocks(path, "python")


def code_blocks(path: str, language: str) -> dict[str, Block]:
    """Return the blocks of a language in a Markdown file in the repository, by name."""
    blocks: dict[str, Block] = {}
    heading, number = "", 0
    for match in _HEADING_OR_BLOCK.finditer((ROOT / path).read_text(encoding="utf-8")):
        if match["heading"]:
            heading, number = match["heading"], 0
        elif match["language"] == language:
            number += 1
            name = f"{heading} {number}"
            blocks[name] = Block(name, match["code"])
    return blocks


def at_nats(code: str, url: str) -> str:
    """Return the code with the address of its NATS server replaced."""
    code, count = re.subn(r"\b(NatsBroker|NatsRouter)\(\)", rf"\1({url!r})", code)
    assert count == 1
    return code


def needs_recent_litestar(code: str) -> None:
    """Skip a test of code that is written for recent releases of Litestar, where there is an older one."""
    if "litestar.params" in code and not hasattr(litestar.params, "JSONBody"):
        pytest.skip("This Litestar is older than the style of the example.")


def run_tests(directory: Path, config: pytest.Config) -> str:
    """Run the tests in a directory as a user would, a warning being a failure; return what pytest says."""
    filters = config.getoption("pythonwarnings") or ["error"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *(f"-W{each}" for each in filters)],
        cwd=directory,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def load(code: str, directory: Path, name: str = "documented") -> ModuleType:
    """Return the code as an imported module, whose file is in the directory."""
    path = directory / f"{name}.py"
    path.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Run an ASGI app with its lifespan, and yield a client of it."""
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    lifespan = asyncio.create_task(app(scope, inbox.get, outbox.put))
    await inbox.put({"type": "lifespan.startup"})
    assert await outbox.get() == {"type": "lifespan.startup.complete"}
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            yield client
    finally:
        await inbox.put({"type": "lifespan.shutdown"})
        await lifespan
    assert outbox.get_nowait() == {"type": "lifespan.shutdown.complete"}


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    """Check until it is true; fail if it is not within some seconds."""
    async with asyncio.timeout(5):
        while not await check():  # noqa: ASYNC110 (what is waited for happens in a server)
            await asyncio.sleep(0.01)


async def connected(broker: Any) -> None:
    """Wait for the connection: FastStream's own ASGI app says that it has started before it has one."""
    await until(lambda: broker.ping(1.0))


async def eventually(client: httpx.AsyncClient, path: str, content: object) -> None:
    """Ask until the answer is this JSON."""

    async def answered() -> bool:
        answer = await client.get(path)
        return answer.status_code == 200 and bool(answer.json() == content)

    await until(answered)
