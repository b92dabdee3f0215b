"""Write the generated parts of the documentation: public names, keywords and supported versions.

A generated part of a page is what stands between `<!-- generated: keywords -->` and `<!-- end -->`.

Usage:
    python tools/reference.py
"""

import ast
import inspect
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import faststream_adapters
from faststream_adapters._asgi.endpoint import SchemaKeywords
from faststream_adapters._asgi.request import AsgiRequest
from faststream_adapters._asyncapi.view import PageKeywords
from faststream_adapters._compat.faststream import Broker
from faststream_adapters._endpoints.options import LivenessKeywords, StatusKeywords
from faststream_adapters._hosting.options import DocsKeywords, EndpointKeywords, PublishingKeywords
from faststream_adapters._lifecycle.options import LifespanKeywords, State
from faststream_adapters._utils.options import declared, type_of

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "docs" / f"{name}.md" for name in ("reference", "keywords", "policy")]

PACKAGE = "faststream_adapters"
SOURCES = Path(faststream_adapters.__file__).parent
MODULES = [PACKAGE, *(f"{PACKAGE}.{each}" for each in ("fastapi", "litestar", "quart", "testing", "drivers"))]
PLUGIN = f"{PACKAGE}.fastapi.plugin"
PLUGINS = [f"{PLUGIN}.{each}" for each in ("nats", "redis", "rabbit", "kafka", "confluent")]

_TAKERS: dict[str, Any] = {
    "lifespan": LifespanKeywords,
    "host": EndpointKeywords,
    "docs": DocsKeywords,
    "publishing": PublishingKeywords,
    "probe": LivenessKeywords,
    "status": StatusKeywords,
    "page": PageKeywords,
    "route": SchemaKeywords,
}
_ALIASES: dict[Any, str] = {
    AsgiRequest: "Request",
    State: "State",
    Broker: "Broker",
    NoneType: "None",
    ...: "...",
}
_PART = re.compile(r"(<!-- generated: ([\w.]+) -->\n).*?(?=<!-- end -->)", re.DOTALL)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def code(text: str) -> str:
    """Return code for a cell of a table."""
    return "`" + text.replace("|", "\\|") + "`"


def summary(module: ModuleType, name: str) -> str:
    """Return the first sentence about a public name: of its docstring, or of the one below an assignment."""
    value = getattr(module, name)
    described = value if inspect.isroutine(value) or inspect.isclass(value) else type(value)
    if described.__module__.startswith(PACKAGE):
        text = inspect.getdoc(value) or ""
    else:
        text = text_below(module, name)
    sentence, end, _ = " ".join(text.split("\n\n")[0].split()).partition(". ")
    return sentence + end.strip()


def text_below(module: ModuleType, name: str) -> str:
    """Return the docstring below an assignment, which is in the module's own package, or else anywhere."""
    own = Path(module.__file__ or "").parent
    for path in [*sorted(own.glob("*.py")), *sorted(SOURCES.rglob("*.py"))]:
        for statement, following in pairwise(ast.parse(path.read_text(encoding="utf-8")).body):
            targets = getattr(statement, "targets", [getattr(statement, "target", None)])
            text = getattr(getattr(following, "value", None), "value", None)
            if [getattr(target, "id", None) for target in targets] == [name] and isinstance(text, str):
                return text
    sys.exit(f"{module.__name__}.{name} has no docstring.")


def names(module_name: str) -> str:
    """Return the table of the public names of a module."""
    module = import_module(module_name)
    rows = ([code(name), summary(module, name)] for name in sorted(module.__all__))
    return table(["Name", "What it is"], rows)


def plugins() -> str:
    """Return the table of the modules that stand in for FastStream's own FastAPI routers."""
    named = ((name, sorted(import_module(name).__all__)) for name in PLUGINS)
    return table(["Module", "Names"], ([code(name), ", ".join(map(code, each))] for name, each in named))


def type_text(hint: Any) -> str:
    """Return a type as people write it."""
    if isinstance(hint, list):
        return f"[{', '.join(map(type_text, hint))}]"
    if hint in _ALIASES:
        return _ALIASES[hint]
    origin, parts = get_origin(hint), get_args(hint)
    if origin is None:
        return str(getattr(hint, "__forward_arg__", getattr(hint, "__name__", hint)))
    if origin in {Union, UnionType}:
        return " | ".join(dict.fromkeys(map(type_text, parts)))
    if origin is Literal:
        return " | ".join(f'"{each}"' for each in parts)
    return f"{origin.__name__}[{', '.join(map(type_text, parts))}]"


def default(value: object) -> str:
    """Return the default of a keyword for a cell of a table."""
    return code(f'"{value}"' if isinstance(value, str) else repr(value))


def keywords() -> str:
    """Return the table of all keywords."""
    rows = [
        [code(name), code(type_text(type_of(group, name))), default(option.default), taker, option.text]
        for taker, group in _TAKERS.items()
        for name, option in declared(group).items()
        if taker not in {"probe", "status"} or name not in declared(SchemaKeywords)
    ]
    return table(["Keyword", "Type", "Default", "Taken by", "Meaning"], rows)


def support() -> str:
    """Return the table of the supported versions, as pyproject.toml has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    prefix = "Programming Language :: Python :: 3."
    pythons = [each.removeprefix(prefix) for each in project["classifiers"] if each.startswith(prefix)]
    rows = [["Python", ", ".join(f"3.{each}" for each in pythons), ""]]
    for extra, requirements in {"": project["dependencies"], **project["optional-dependencies"]}.items():
        for requirement in requirements:
            package, bounds, where = re.findall(r"([\w-]+(?:\[[\w,]+\])?)([^;]*)(?:; (.*))?", requirement)[0]
            if bounds:
                versions = code(bounds.replace(",", ", ")) + (f" where {code(where)}" if where else "")
                rows.append([code(package), versions, code(extra) if extra else ""])
    return table(["Package", "Versions", "In the extra"], rows)


def part(name: str) -> str:
    """Return a generated part by the name in its comment."""
    parts = {"keywords": keywords, "support": support, "plugins": plugins}
    return parts[name]() if name in parts else names(name)


def complete(text: str) -> str:
    """Return the text of a page with its generated parts as they should be."""
    return _PART.sub(lambda match: f"{match[1]}\n{part(match[2])}\n", text)


def main() -> None:
    """Write the pages."""
    for page in PAGES:
        page.write_text(complete(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
