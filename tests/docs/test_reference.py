"""The reference is complete: its names, keywords, versions, codes and states are those of the package."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest

import faststream_adapters
from faststream_adapters._brokers.codes import CODES, NO_FAULTS, BrokerCode, ProbeCode, SubscriberCode
from faststream_adapters._lifecycle.options import State
from tests.docs.blocks import ROOT, load

if TYPE_CHECKING:
    from types import ModuleType

PACKAGE = Path(faststream_adapters.__file__).parent
CODES_PAGE = (ROOT / "docs" / "codes.md").read_text(encoding="utf-8")
KINDS: dict[str, Any] = {"broker": BrokerCode, "subscriber": SubscriberCode, "probe": ProbeCode}


@pytest.fixture
def reference(tmp_path: Path) -> ModuleType:
    """Return `tools/reference.py` as a module that reads the files of this repository."""
    code = (ROOT / "tools" / "reference.py").read_text(encoding="utf-8")
    return load(code.replace("Path(__file__).resolve().parent.parent", f"Path({str(ROOT)!r})"), tmp_path)


def rows(section: str) -> list[list[str]]:
    """Return the cells of the table in a section of the page on codes, without its head."""
    text = CODES_PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]


def test_the_generated_parts_are_up_to_date(reference: ModuleType) -> None:
    for page in reference.PAGES:
        text = page.read_text(encoding="utf-8")
        assert text == reference.complete(text), "Run `make reference`."


def test_the_generated_parts_are_all_there(reference: ModuleType) -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in reference.PAGES)
    parts = re.findall(r"<!-- generated: ([\w.]+) -->", text)
    assert sorted(parts) == sorted([*reference.MODULES, "plugins", "keywords", "support"])


def test_every_public_module_is_in_the_reference(reference: ModuleType) -> None:
    """A module is public if no part of its path has an underscore, and it says what it exports."""
    public = set()
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        if "._" not in name and "__all__" in path.read_text(encoding="utf-8"):
            public.add(name)
    assert public == {*reference.MODULES, *reference.PLUGINS}


def test_every_public_name_is_in_the_reference(reference: ModuleType) -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    for module in (*reference.MODULES, *reference.PLUGINS):
        assert [name for name in import_module(module).__all__ if f"`{name}`" not in text] == []


def test_an_assignment_without_a_docstring_is_an_error(reference: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"faststream_adapters\.missing has no docstring"):
        reference.text_below(import_module("faststream_adapters"), "missing")


def test_every_code_is_explained() -> None:
    explained = {code.strip("`"): kinds.split(", ") for code, kinds, *_ in rows("Codes")}
    assert set(explained) == CODES
    for code, kinds in explained.items():
        assert kinds == [kind for kind, codes in KINDS.items() if code in get_args(codes)]
    [sentence] = re.findall(r"^(.*) of a subscriber do not fail readiness", CODES_PAGE, re.MULTILINE)
    no_faults = re.findall(r"`(\w+)`", sentence)
    assert {*no_faults, "ok"} == NO_FAULTS | {"not_started"}


def test_every_state_is_explained() -> None:
    assert [state.strip("`") for state, _ in rows("States")] == list(get_args(State))


def test_every_environment_variable_is_listed() -> None:
    listed = set(re.findall(r"`([A-Z_]+)`", CODES_PAGE))
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            argument.value
            for node in ast.walk(tree)
            # Few calls are unparsed, because that is slow.
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get"
            if ast.unparse(node.func) == "os.environ.get"
            for argument in node.args[:1]
            if isinstance(argument, ast.Constant)
        }
        assert names <= listed, path
