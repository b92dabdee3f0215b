"""Private names of other packages are used in `_compat` only, and exist in the installed versions."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

import faststream_adapters

PACKAGE = Path(faststream_adapters.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
COMPAT = [path for path in MODULES if path.parent.name == "_compat"]
"""The modules that use private names of other packages."""

ACCESSORS = {"getattr", "setattr", "hasattr", "delattr", "attrgetter", "vars", "__dict__"}
"""Ways to access an attribute by a string."""

NAMED_TUPLES = {"_asdict", "_fields", "_replace"}
"""Attributes that the standard library documents."""


class PrivateNames(ast.NodeVisitor):
    """Collects the private names of other packages that a module uses.

    - Attributes, except those that the enclosing class defines, and attributes of `self` and `cls` that any
      class of the package defines.
    - Private modules, and private names in modules.
    - Strings, if they are dotted or the module accesses attributes by strings.

    Args:
        tree: The module.
        defined: The attributes that the classes of the package define.
    """

    def __init__(self, tree: ast.Module, defined: set[str]) -> None:
        self.names: set[str] = set()
        self._defined = defined
        self._own: set[str] = set()
        self._module_names = names_in(tree)
        used = {getattr(node, "id", getattr(node, "attr", "")) for node in ast.walk(tree)}
        self._accesses_by_strings = bool(used & ACCESSORS)
        self.visit(tree)

    def _add(self, name: str) -> None:
        parts = name.split(".")
        foreign = parts[0] != "faststream_adapters" and not name.startswith("_faststream_adapters_")
        if foreign and all(map(str.isidentifier, parts)) and any(map(is_private, parts)):
            self.names.add(name)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outer, self._own = self._own, self._own | attributes_of(node)
        self.generic_visit(node)
        self._own = outer

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr not in self._own and not (is_self(node.value) and node.attr in self._defined):
            self._add(node.attr)
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level == 0:
            for alias in node.names:
                self._add(f"{node.module}.{alias.name}")

    def visit_Constant(self, node: ast.Constant) -> None:
        text = node.value if isinstance(node.value, str) else ""
        if text not in self._own | self._module_names and (self._accesses_by_strings or "." in text):
            self._add(text)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        # Only the text before the first expression can make the name private.
        first = str(getattr(node.values[0], "value", ""))
        if self._accesses_by_strings and first.startswith("_"):
            self.names.add(first)
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                self.visit(value)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("_") and name not in NAMED_TUPLES


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}


def attributes_of(cls: ast.ClassDef) -> set[str]:
    """Return the attributes that a class defines: in its body, and by assignments to `self` or `cls`."""
    assigned = {
        node.attr
        for node in ast.walk(cls)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value)
    }
    return names_in(cls) | assigned


def names_in(scope: ast.ClassDef | ast.Module) -> set[str]:
    """Return the names of the classes, functions and variables in the body of a class or a module."""
    # Assignments define the names of their targets. Other statements are definitions, or define no name.
    nodes = (
        node for each in scope.body for node in getattr(each, "targets", [getattr(each, "target", each)])
    )
    return {getattr(node, "name", getattr(node, "id", "")) for node in nodes}


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def defined_in_package() -> set[str]:
    classes = (node for path in MODULES for node in ast.walk(parsed(path)) if isinstance(node, ast.ClassDef))
    return set().union(*map(attributes_of, classes))


def private_names(path: Path) -> set[str]:
    return PrivateNames(parsed(path), defined_in_package()).names


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("import faststream._internal.cli", "faststream._internal.cli"),
        ("from nats._core.di import Config", "nats._core.di.Config"),
        ("from faststream.nats import _private", "faststream.nats._private"),
        ("import_module('faststream._internal')", "faststream._internal"),
        ("app._hooks.append(broker.config)", "_hooks"),
        ("app.hooks[client._task]", "_task"),
        ("client._task = None", "_task"),
        ("class A:\n def f(self): return self._client._task", "_task"),
        ("class A(Foreign):\n def f(self): return self._inherited", "_inherited"),
        ("class A:\n def f(self): self._task = 1\nclass B:\n def f(self, a): return a._task", "_task"),
        ("def _task(): client._task", "_task"),
        ("getattr(client, '_task', None)", "_task"),
        ("for name in ('_task', 'other'): getattr(client, name)", "_task"),
        ("getattr(client, f'_{name}')", "_"),
        ("attrgetter('client._task')", "client._task"),
        ("vars(client).get('_Connection__task')", "_Connection__task"),
        ("client.__dict__['_task']", "_task"),
    ],
)
def test_private_names_of_other_packages_are_detected(code: str, name: str) -> None:
    assert PrivateNames(ast.parse(code), {"_client"}).names == {name}


@pytest.mark.parametrize(
    "code",
    [
        "from __future__ import annotations",
        "from faststream_adapters._brokers import driver",
        "from ._private import name",
        "named._replace(), module.__name__, f'{prefix}_total', print('_total')",
        "class A:\n def f(self): self._task = 1\n def g(self, other): return other._task",
        "class A:\n def _f(self, other): other._f()",
        "class A:\n _x = 1\n def f(self, other): return other._x",
        "class A(Base):\n def f(self): return self._client, cls._client",
        "class _A:\n def f(self) -> '_A': return vars(self)['_faststream_adapters_run']",
        "class A:\n __slots__ = ('_x',)\n def f(self): self._x = getattr(other, 'x')",
    ],
)
def test_own_private_names_are_not_reported(code: str) -> None:
    assert not PrivateNames(ast.parse(code), {"_client"}).names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_private_names_of_other_packages_are_used_in_compat_only(path: Path) -> None:
    if path in COMPAT:
        # The check detects them there, except in what its modules share.
        assert private_names(path) or path.stem in {"__init__", "tasks"}
    else:
        assert not private_names(path)


@functools.cache
def private_words(package: str) -> set[str]:
    """Return the words that start with an underscore in the Python source of an installed package."""
    spec = importlib.util.find_spec(package)
    if (
        spec is None
        or spec.origin is None
        or not (spec.origin.endswith(".py") and Path(spec.origin).exists())
    ):
        return set()
    source = Path(spec.origin)
    files = source.parent.rglob("*.py") if source.name == "__init__.py" else [source]
    return {word for path in files for word in re.findall(r"\b_\w+", path.read_text(encoding="utf-8"))}


def exists(name: str, user: Path) -> bool:
    """Return whether a private name is there.

    Args:
        name: A dotted name to import, or an attribute, possibly of a class.
        user: The module that uses the name. The packages that it imports contain the attribute.
    """
    module, _, attribute = name.rpartition(".")
    if module and module[0].islower():
        try:
            return hasattr(importlib.import_module(module), attribute)
        except ImportError:
            return False
    # Python replaces __name in a class by _Class__name.
    attribute = re.sub(r"^_[A-Za-z]\w*?(?=__)", "", attribute)
    imports = [node for node in ast.walk(parsed(user)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {getattr(node, "module", None) or node.names[0].name for node in imports}
    packages = {each.partition(".")[0] for each in names} | {user.stem}
    # The attributes of a class that is not written in Python are not in any source.
    used = vars(importlib.import_module(f"faststream_adapters._compat.{user.stem}")).values()
    return any(attribute in private_words(package) for package in packages) or any(
        hasattr(each, attribute) for each in used
    )


@pytest.mark.full
@pytest.mark.parametrize("path", COMPAT, ids=lambda path: path.name)
def test_private_names_of_other_packages_exist(path: Path) -> None:
    assert {name for name in private_names(path) - {"_"} if not exists(name, path)} == set()


def test_a_private_name_that_is_gone_is_detected() -> None:
    nats = PACKAGE / "_compat" / "nats.py"
    names = ("faststream._internal.constants.EMPTY", "_transport", "_Client__gone", "Client._pongs")
    assert [exists(name, nats) for name in names] == [True, True, False, True]
    gone = ("faststream._internal.constants.GONE", "faststream._internal.gone.EMPTY", "_gone", "Client._gone")
    assert not any(exists(name, nats) for name in gone)
