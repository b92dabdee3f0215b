"""Find the messages that the package raises and logs, in its source."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import faststream_adapters

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(faststream_adapters.__file__).parent

_LOGS = re.compile(r"\.(info|warning|error|log|_warn|warn)$")
_ERRORS = re.compile(r"^(click\.|argparse\.)?\w*(Error|BadParameter|SystemExit)$")
# What validates a value returns the message, and its caller raises that.
_PROBLEM = re.compile(r"^… (must|is called) .*\.$")
_GAP = "…"


class Site(NamedTuple):
    """A place where a message is made.

    Args:
        where: The file and the line.
        text: The message, with … for what is only known when it is made; None if it is not written there.
        code: The source of the call.
    """

    where: str
    text: str | None
    code: str


@cache
def sites() -> tuple[Site, ...]:
    """Return each place where the package makes an error or logs a line, debug lines excepted."""
    return tuple(_sites())


def _sites() -> Iterator[Site]:
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        name = path.relative_to(PACKAGE.parent).as_posix()
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr) and _PROBLEM.match(problem := _joined(node)):
                yield Site(f"{name}:{node.lineno}", problem, ast.unparse(node))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
                for call in _own_calls(node):
                    if (argument := _message_of(call)) is not None:
                        for text in _texts(argument, node) or _texts(argument, tree) or [None]:
                            yield Site(f"{name}:{call.lineno}", text, ast.unparse(call))


def _own_calls(function: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls in a function, but not in the functions inside it."""
    for child in ast.iter_child_nodes(function):
        if isinstance(child, ast.Call):
            yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _own_calls(child)


def _message_of(call: ast.Call) -> ast.expr | None:
    """Return the argument of a call that is a message, if there is one."""
    name = ast.unparse(call.func)
    if not call.args or not (_ERRORS.search(name) or _LOGS.search(name)):
        return None
    # The first argument of `log` is the level.
    return call.args[name.endswith(".log")]


def _texts(message: ast.expr, scope: ast.AST) -> list[str | None]:
    """Return what an expression can be, as text with gaps; nothing if that is not written in the scope."""
    match message:
        case ast.Constant(value=str(text)):
            return [re.sub(r"%(?:\.\d+)?[a-z]", _GAP, text)]
        case ast.JoinedStr():
            return [_joined(message)]
        case ast.IfExp(body=one, orelse=other):
            return [*_texts(one, scope), *_texts(other, scope)]
        case ast.Name(id=name):
            return [
                text
                for node in ast.walk(scope)
                if isinstance(node, ast.Assign) and any(ast.unparse(each) == name for each in node.targets)
                for text in _texts(node.value, scope)
            ]
    return []


def _joined(text: ast.JoinedStr) -> str:
    """Return an f-string, with … for what it inserts."""
    return "".join(str(part.value) if isinstance(part, ast.Constant) else _GAP for part in text.values)
