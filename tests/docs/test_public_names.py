"""Every public name has an example: a Python block of the documentation, or a file in examples/, uses it."""

from __future__ import annotations

import ast
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from tests.docs.blocks import ROOT, python_blocks
from tests.docs.test_reference import reference

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

__all__ = ("reference",)

PACKAGE = "faststream_adapters"


def examples() -> Iterator[str]:
    """Yield the code of all examples. Other tests run it."""
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        yield from (block.code for block in python_blocks(str(page.relative_to(ROOT))).values())
    for path in (ROOT / "examples").rglob("*.py"):
        yield path.read_text(encoding="utf-8")


def used(code: str) -> set[tuple[str, str]]:
    """Return the names that code imports from the package and then uses, each with its module."""
    nodes = list(ast.walk(ast.parse(code)))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return {
        (node.module, alias.name)
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGE)
        for alias in node.names
        if alias.name in names
    }


def test_only_names_that_are_used_count() -> None:
    code = "from faststream_adapters.fastapi import Context, Logger\nfrom os import path\npath, Logger"
    assert used(code) == {("faststream_adapters.fastapi", "Logger")}


@pytest.mark.usefixtures("reference")
def test_every_public_name_has_an_example(reference: ModuleType) -> None:
    modules = [*reference.MODULES, *reference.PLUGINS]
    public = {(module, name) for module in modules for name in import_module(module).__all__}
    assert public - {each for code in examples() for each in used(code)} == set()
