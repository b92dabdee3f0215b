"""Find in source code what changes when FastStreamRouter replaces FastStream's FastAPI plugin."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

_PLUGIN = re.compile(r"faststream\.\w+\.fastapi|faststream_adapters\.fastapi\.plugin\.\w+")
_SKIPPED = {".git", ".tox", ".venv", "node_modules", "site-packages", "venv"}
"""Directories that contain no code of the project."""

_CLIENT = re.compile(r"(\w+)(Router|Broker)")
_INJECTED = re.compile(
    r"\w*(Message|Broker|Producer)|Request|BackgroundTasks|Logger|ContextRepo|(Js)?Client|Redis"
)
"""Classes and annotations of parameters that are not fields of the message."""

_SCALARS = {"Any", "Decimal", "None", "UUID", "bool", "bytes", "date", "datetime", "float", "int", "str"}
_HOOKS = {"after_startup", "on_broker_shutdown"}
_URLS = ("servers", "url", "bootstrap_servers")


class Place(NamedTuple):
    """A place in a file.

    Args:
        path: The file.
        line: The line.
        text: What changes there.
    """

    path: Path
    line: int
    text: str


def check(path: Path) -> list[str]:
    """Return the places below a path, each as `file:line: what changes`, if a file imports the plugin."""
    files = [path] if path.is_file() else path.rglob("*.py")
    sources = {
        each: each.read_text(encoding="utf-8", errors="replace")
        for each in files
        if not _SKIPPED & {*each.relative_to(path).parts}
    }
    if not any(map(_PLUGIN.search, sources.values())):
        return []
    places: set[Place] = set()
    connections: dict[tuple[str, str], list[Place]] = defaultdict(list)
    for file, source in sources.items():
        try:
            tree = ast.parse(source)
        except SyntaxError as error:
            places.add(Place(file, error.lineno or 1, "This is not valid in this version of Python."))
        else:
            _Visitor(file, places, connections, in_tests=_is_test(path, file)).visit(tree)
    places.update(place for same in connections.values() if len(same) > 1 for place in same)
    return [f"{place.path}:{place.line}: {place.text}" for place in sorted(places)]


def _is_test(path: Path, file: Path) -> bool:
    directories = {*file.relative_to(path).parts}
    return bool({"test", "tests"} & directories or re.match(r"test_|conftest\.|.*_test\.", file.name))


_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class _Visitor(ast.NodeVisitor):
    """Collects the places in a file.

    Args:
        path: The file.
        places: The places.
        connections: The places that make a router or a broker, by client and by the source of the URL.
        in_tests: Whether the file belongs to the tests.
    """

    def __init__(
        self,
        path: Path,
        places: set[Place],
        connections: dict[tuple[str, str], list[Place]],
        *,
        in_tests: bool,
    ) -> None:
        self._in_tests = in_tests
        self._path = path
        self._places = places
        self._connections = connections
        self._imported: dict[str, str] = {}
        """The routers of the plugin and the brokers that the file imports, with their own names."""
        self._functions: dict[str, _Function] = {}

    def _place(self, node: ast.expr | ast.stmt, text: str) -> Place:
        return Place(self._path, node.lineno, text)

    def _add(self, node: ast.expr | ast.stmt, text: str) -> None:
        self._places.add(self._place(node, text))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        kind = "Router" if _PLUGIN.fullmatch(node.module or "") else "Broker"
        self._imported |= {
            each.asname or each.name: each.name for each in node.names if each.name.endswith(kind)
        }

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._functions[node.name] = node
        names = {_name(each.func if isinstance(each, ast.Call) else each) for each in node.decorator_list}
        if "subscriber" in names:
            self._check_fields(node)
        if _HOOKS & names:
            self._check_hook(node)
        self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 (the name is that of the class)

    def _check_fields(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        scalars = [
            parameter.arg
            for parameter, default in _parameters(node)
            if not _is_injected(parameter, default) and _is_scalar(parameter.annotation)
        ]
        if len(scalars) == 1:
            self._add(
                node,
                f"{node.name!r} receives the field {scalars[0]!r} of a message that is an object. With "
                "FastStreamRouter, a single parameter receives the whole message: use a pydantic model if "
                "the messages are objects.",
            )

    def _check_hook(self, node: _Function) -> None:
        if list(_parameters(node)):
            self._add(
                node,
                "This hook takes the application. A hook of a FastStream app takes it from "
                'Annotated[FastAPI, Context("host")].',
            )

    def visit_Call(self, node: ast.Call) -> None:
        name = _name(node.func)
        if name in _HOOKS:
            for each in node.args:
                hook = self._functions.get(_name(each), each)
                if isinstance(hook, _Function):
                    self._check_hook(hook)
        if match := _CLIENT.fullmatch(self._imported.get(name, "")):
            keywords = {each.arg: each.value for each in node.keywords}
            urls = [*node.args, *(keywords[each] for each in _URLS if each in keywords)]
            source = ast.unparse(urls[0]) if urls else ""
            text = (
                f"Another router or broker connects to the same server as this {name}. One broker is enough "
                "with FastStreamRouter, and the application then has each subscriber once."
            )
            self._connections[match[1], source].append(self._place(node, text))
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._check_error(node)
        if node.attr == "dependency_overrides" and not self._in_tests:
            self._add(
                node,
                "With FastStreamRouter these overrides also apply to subscribers while the application runs.",
            )
        if node.attr == "broker" and _name(node.value) == "state":
            self._add(
                node, "With FastStreamRouter request.state has no broker: use Depends(provide_broker(...))."
            )
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        self._check_error(node)

    def _check_error(self, node: ast.expr) -> None:
        if _name(node) == "RequestValidationError":
            self._add(
                node,
                "With FastStreamRouter an invalid message raises pydantic's ValidationError; an invalid "
                "request still raises RequestValidationError.",
            )


def _name(node: ast.expr) -> str:
    """Return the last part of a dotted name."""
    return getattr(node, "attr", getattr(node, "id", ""))


def _parameters(
    node: _Function,
) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    """Yield the parameters with their defaults, without `self` and `cls`."""
    positional = [*node.args.posonlyargs, *node.args.args]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(node.args.defaults))
    named = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    for parameter, default in (*zip(positional, [*missing, *node.args.defaults], strict=True), *named):
        if parameter.arg not in {"self", "cls"}:
            yield parameter, default


def _is_injected(parameter: ast.arg, default: ast.expr | None) -> bool:
    """Return whether a parameter has a mark, such as `Depends()`, or a class that is injected."""
    annotation = parameter.annotation
    marks: Iterable[ast.AST] = ast.walk(annotation) if annotation is not None else ()
    if any(isinstance(each, ast.Call) and _name(each.func) != "Field" for each in (*marks, default)):
        return True
    return annotation is not None and _INJECTED.fullmatch(_name(annotation)) is not None


def _is_scalar(annotation: ast.expr | None) -> bool:
    """Return whether an annotation has nothing but scalars, or is missing."""
    if annotation is None:
        return True
    if isinstance(annotation, ast.Subscript):
        inner = annotation.slice
        if _name(annotation.value) == "Annotated" and isinstance(inner, ast.Tuple):
            return _is_scalar(inner.elts[0])
        return _name(annotation.value) == "Optional" and _is_scalar(inner)
    if isinstance(annotation, ast.BinOp):
        return _is_scalar(annotation.left) and _is_scalar(annotation.right)
    if isinstance(annotation, ast.Constant):
        return annotation.value is None
    return _name(annotation) in _SCALARS
