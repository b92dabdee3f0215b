"""Every block of code in the documentation is run or checked here, or a comment above it says why not.

The comment is `<!-- not run: … -->`. The tests of each page check what its blocks do.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
import uvicorn
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docs.blocks import ROOT, blocks, parse_curl

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.docs.blocks import Block
    from tests.harness.servers.nats import NatsServer

PATHS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [str(path.relative_to(ROOT)) for path in PATHS]
BLOCKS = [(page, block) for page in PAGES for block in blocks(page)]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
PINNED = set(re.findall(r"^([\w.-]+)==", CONSTRAINTS, re.MULTILINE))
INSTRUCTION = re.compile(r"(FROM|RUN|WORKDIR|COPY|USER|CMD|ENV|EXPOSE|HEALTHCHECK) \S")


def check_pip(words: list[str]) -> None:
    """Check that pip can install these requirements: known extras, and packages that the tests use too."""
    assert words[0] == "install"
    for word in words[1:]:
        requirement = Requirement(re.sub(r"^(\.\./faststream-adapters|\.)\[", "faststream-adapters[", word))
        name = canonicalize_name(requirement.name)
        if name == "faststream-adapters":
            assert requirement.extras <= set(PROJECT["optional-dependencies"]), word
        else:
            assert name in PINNED, word


def check_uvicorn(words: list[str]) -> None:
    uvicorn.main.make_context("uvicorn", words)


def check_curl(words: list[str]) -> None:
    """Check that the options are known, and that the URL is one of a service on this machine."""
    url = parse_curl(words).url
    assert re.match(r"(http://)?(localhost|127\.0\.0\.1):(8000|8081)/\w", url), url


def check_python(words: list[str]) -> None:
    """Check that the module exists, and for our own commands that they take the arguments."""
    assert words[0] == "-m"
    assert find_spec(words[1]) is not None
    if words[1].startswith("faststream_adapters"):
        # 2 is a usage error. No server listens, so the probe fails.
        probe = [word.replace("8000", "1").replace("/run/", "/nowhere/") for word in words]
        assert subprocess.run([sys.executable, *probe], check=False, capture_output=True).returncode == 1


def check_make(words: list[str]) -> None:
    subprocess.run(["make", "--dry-run", *words], cwd=ROOT, check=True, capture_output=True)


def check_nats(words: list[str]) -> None:
    """Start the server on a free port, and end it when it is ready."""
    program = Path(sys.executable).with_name("nats-server")
    with TemporaryDirectory() as directory:
        command = [str(program), *words, "-a", "127.0.0.1", "-p", "-1", "-sd", directory]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
            assert server.stderr is not None
            assert any("Server is ready" in line for line in server.stderr)
            server.kill()


def check_jq(words: list[str]) -> None:
    assert words[0].startswith(".subscribers[]")


def check_signal(words: list[str]) -> None:
    assert words in (["-STOP", "nats-server"], ["-CONT", "nats-server"])


def check_path(words: list[str]) -> None:
    """Check that the command touches only what belongs to the reader."""
    assert words[-1] in {"/tmp/metrics", ".venv/bin/activate"}  # noqa: S108 (a path on the page)


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    ".": check_path,
    "curl": check_curl,
    "jq": check_jq,
    "make": check_make,
    "mkdir": check_path,
    "nats-server": check_nats,
    "pip": check_pip,
    "pkill": check_signal,
    "python": check_python,
    "python3": check_python,
    "rm": check_path,
    "uvicorn": check_uvicorn,
}


def check_shell(code: str) -> None:
    """Check the syntax, and each command with its arguments."""
    subprocess.run(["bash", "-n"], input=code, text=True, check=True)
    for line in re.findall(r"^[^#\n].*", code.replace("\\\n", ""), re.MULTILINE):
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&")
        lexer.whitespace_split = True
        command: list[str] = []
        for word in [*lexer, "&&"]:
            if word not in {"&&", "|"}:
                command.append(word)
                continue
            while command and re.match(r"[A-Z_]+=", command[0]):
                command.pop(0)
            COMMANDS[command[0]](command[1:])
            command = []


def check_console(code: str) -> None:
    """Check what follows a prompt, with its continuation lines."""
    for command in re.findall(r"^\$ ((?:.*\\\n)*.*)$", code, re.MULTILINE):
        subprocess.run(["bash", "-n"], input=command, text=True, check=True)


def check_dockerfile(code: str) -> None:
    for line in code.replace("\\\n", "").splitlines():
        assert INSTRUCTION.match(line), line
        for words in re.findall(r"CMD (\[.*\])", line):
            assert all(isinstance(word, str) for word in json.loads(words))


def check_diff(code: str) -> None:
    for line in code.splitlines():
        assert line[0] in "+- "
        compile(line[1:], "diff", "exec")


def check_nginx(code: str) -> None:
    """The page's tests run nginx with it."""
    assert code.count("{") == code.count("}")


CHECKS: dict[str, Callable[[str], object]] = {
    "console": check_console,
    "diff": check_diff,
    "dockerfile": check_dockerfile,
    "json": json.loads,
    "nginx": check_nginx,
    "sh": check_shell,
    "toml": tomllib.loads,
    "yaml": lambda code: list(yaml.safe_load_all(code)),
}
"""What checks a block, by its language. Python is run."""


def test_every_block_is_found() -> None:
    fences = [
        line
        for page in PAGES
        for line in (ROOT / page).read_text(encoding="utf-8").splitlines()
        if re.match(r"\s*(```|~~~)", line)
    ]
    assert len(fences) == 2 * len(BLOCKS)


def test_every_block_is_checked_or_says_why_not() -> None:
    unchecked = [
        f"{page}: {block.name} ({block.language})"
        for page, block in BLOCKS
        if block.language not in {*CHECKS, "python"} and not block.reason
    ]
    assert unchecked == []


def test_every_reason_belongs_to_a_block() -> None:
    """A comment with an empty line below it, or in another form, would be ignored."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert len(re.findall(r"^\s*<!--\s*not", text, re.MULTILINE)) == sum(
            bool(block.reason) for block in blocks(page)
        ), page


@pytest.mark.parametrize(
    ("page", "block"),
    [each for each in BLOCKS if each[1].language in CHECKS and not each[1].reason],
    ids=lambda each: each if isinstance(each, str) else each.name,
)
def test_the_block_is_right(page: str, block: Block) -> None:
    assert page
    CHECKS[block.language](block.code)


@pytest.mark.full
def test_every_python_block_runs(nats_js: NatsServer) -> None:
    pages = list(dict.fromkeys(page for page, block in BLOCKS if block.language == "python"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.run_blocks", *pages],
        cwd=ROOT,
        env={**os.environ, "NATS_URL": nats_js.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout
