"""Extract the code blocks of Markdown files and run them as modules."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import litestar.params
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from types import ModuleType

    from tests.harness.servers.nats import NatsServer

ROOT = Path(__file__).parents[2]

_HEADING_OR_BLOCK = re.compile(
    r"^#+ (?P<heading>[^\n]+)$"
    r"|(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A block of code.

    Args:
        name: The heading above the block, and the block's number below that heading, of its language.
        reason: Why it is not run, from a comment `<!-- not run: … -->` in the line above; empty without one.
    """

    name: str
    code: str
    language: str
    reason: str


def python_blocks(path: str) -> dict[str, Block]:
    """Return the Python blocks of a Markdown file in the repository, by name."""
    return code_blocks(path, "python")


def code_blocks(path: str, language: str) -> dict[str, Block]:
    """Return the blocks of a language in a Markdown file in the repository, by name."""
    return {block.name: block for block in blocks(path) if block.language == language}


def blocks(path: str) -> list[Block]:
    """Return the blocks of a Markdown file in the repository, in their order."""
    found: list[Block] = []
    heading, numbers = "", Counter[str]()
    for match in _HEADING_OR_BLOCK.finditer((ROOT / path).read_text(encoding="utf-8")):
        if match["heading"]:
            heading, numbers = match["heading"], Counter()
        else:
            language = match["language"]
            numbers[language] += 1
            name = f"{heading} {numbers[language]}"
            found.append(Block(name, match["code"], language, match["reason"] or ""))
    return found


def at_nats(code: str, url: str) -> str:
    """Return the code with this URL passed to its NatsBroker or NatsRouter."""
    code, count = re.subn(r"\b(NatsBroker|NatsRouter)\(\)", rf"\1({url!r})", code)
    assert count == 1
    return code


def needs_recent_litestar(code: str) -> None:
    """Skip the test if its code needs a more recent Litestar than the installed one."""
    if "litestar.params" in code and not hasattr(litestar.params, "JSONBody"):
        pytest.skip("The example needs a more recent Litestar.")


def run_tests(directory: Path, config: pytest.Config) -> str:
    """Run pytest in a directory, with warnings as errors, and return its output."""
    filters = config.getoption("pythonwarnings") or ["error"]
    options = ["-p", "no:cacheprovider", "-p", "no:faker", *(f"-W{each}" for each in filters)]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
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
    """Write the code to a file in the directory, and return it as an imported module."""
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
    """Run the lifespan of an ASGI app and yield an in-process client."""
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


async def wait_until(check: Callable[[], Awaitable[bool]]) -> None:
    """Wait until an asynchronous condition is true, for at most 5 s."""
    async with asyncio.timeout(5):
        while not await check():  # noqa: ASYNC110 (the change happens in a server)
            await asyncio.sleep(0.01)


async def curl(client: httpx.AsyncClient, command: str, **addresses: str) -> tuple[httpx.Response, str]:
    """Send the request of a curl command.

    Args:
        client: The client.
        command: The command, with its continuation lines.
        addresses: URLs instead of the ports on the page, such as `p8000="http://127.0.0.1:43210"`.

    Returns:
        The response, and the comment behind the command.
    """
    line, _, comment = command.replace("\\\n", "").partition("    # ")
    words = parse_curl(shlex.split(line)[1:])
    url = httpx.URL(words.url if "://" in words.url else f"http://{words.url}")
    target = addresses.get(f"p{url.port}", "") + url.raw_path.decode()
    headers = dict(each.split(": ") for each in words.header)
    content = json.loads(words.json) if words.json else None
    method = words.method or ("POST" if content else "GET")
    return await client.request(method, target, headers=headers, json=content), comment


def parse_curl(words: list[str]) -> argparse.Namespace:
    """Parse the arguments of curl, as far as the pages use them."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("-i", action="store_true")
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="header", action="append", default=[])
    parser.add_argument("--json")
    parser.add_argument("url")
    return parser.parse_args(words)


_PROMISED = re.compile(r"^curl -i localhost:8000(/\w+) +# (\d+) (\w+)", re.MULTILINE)


async def assert_promises(client: httpx.AsyncClient, nats: NatsServer, commands: str) -> None:
    """Freeze NATS, and check what the page promises of each request, before and after `pkill -CONT`."""
    frozen, thawed = commands.split("pkill -CONT nats-server")
    nats.freeze()
    for path, status, word in _PROMISED.findall(frozen):
        response = await client.get(path)
        assert (path, response.status_code, response.text) == (path, int(status), word)
    nats.thaw()
    [(path, status, word)] = _PROMISED.findall(thawed)

    async def ready_again() -> bool:
        response = await client.get(path)
        return (response.status_code, response.text) == (int(status), word)

    await wait_until(ready_again)


async def connected(broker: Any) -> None:
    """Wait for the connection, because FastStream's ASGI app reports its startup before it has one."""
    await wait_until(lambda: broker.ping(1.0))


async def eventually(client: httpx.AsyncClient, path: str, content: object) -> None:
    """Wait until the response is this JSON."""

    async def matches() -> bool:
        response = await client.get(path)
        return response.status_code == 200 and bool(response.json() == content)

    await wait_until(matches)
