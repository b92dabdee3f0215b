"""Run every Python block of Markdown pages, each as a module: `python -m tests.docs.run_blocks PAGE...`.

The environment variable NATS_URL is the URL of a NATS server, instead of the default one. A block that
imports another block's file, such as `main`, gets the last module of its page that has the names.
"""

from __future__ import annotations

import ast
import os
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from tests.docs.blocks import blocks, load

if TYPE_CHECKING:
    from types import ModuleType

FILES = {"acme_messaging.driver", "logs", "main", "request_ids"}
"""What the pages call the files that blocks import."""

ENVIRONMENT = {"HOSTNAME": "orders-0", "OPERATOR_KEY": "secret"}
"""What applications read when they are imported, with the URL of a NATS server besides."""


def provide(code: str, modules: list[ModuleType]) -> None:
    """Make the files importable that the code imports."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module in FILES:
            names = [alias.name for alias in node.names]
            having = [each for each in modules if all(hasattr(each, name) for name in names)]
            sys.modules[node.module] = having[-1]
        elif isinstance(node, ast.Import) and node.names[0].name in FILES:
            sys.modules[node.names[0].name] = modules[-1]


def run(page: str, directory: Path) -> None:
    """Run the blocks of a page in their order, except those that say why they do not run."""
    # The tests of docs/testing.md are for this example.
    modules = [import_module("examples.fastapi_app")]
    for block in blocks(page):
        if block.language == "python" and not block.reason:
            # If it fails, this line is the last one.
            sys.stdout.write(f"{page}: {block.name}\n")
            sys.stdout.flush()
            provide(block.code, modules)
            url = os.environ["NATS_URL"]
            modules.append(load(block.code.replace("NatsBroker()", f"NatsBroker({url!r})"), directory))


def main() -> None:
    """Run the blocks of the pages that the command line names, in a directory of their own."""
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        for page in sys.argv[1:]:
            run(page, Path(directory))


if __name__ == "__main__":  # pragma: no branch
    main()
