"""What an import of the package loads, and which private names the package uses."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import faststream
import faststream.asgi
import pytest

import faststream_adapters

PACKAGE = Path(faststream_adapters.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
EXTRAS = (
    "aio_pika",
    "aiokafka",
    "asyncapi_viewer",
    "brotli",
    "confluent_kafka",
    "fastapi",
    "granian",
    "httpx",
    "litestar",
    "nats",
    "opentelemetry",
    "prometheus_client",
    "quart",
    "redis",
    "starlette",
    "uvicorn",
    "websockets",
    "yaml",
    "zmqtt",
)

OF_CLIENTS = {
    "nats": {"_stream", "_consumer", "_closed"},
    "kafka": {"_client", "_coordinator", "_closed", "_subscription"},
    "rabbit": {"_queues"},
}
"""Private attributes of the clients' own objects, by driver; FastStream has some of the same names."""


def run(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_loads_nothing_of_others_that_faststream_does_not_load() -> None:
    code = """
import sys, sysconfig
import faststream
before = set(sys.modules)
import faststream_adapters
import json
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    loaded = json.loads(run(code))
    assert "faststream_adapters.app" in loaded
    foreign = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names)
    assert foreign == {"faststream_adapters", "faststream"}


def test_star_import_without_any_extra() -> None:
    code = f"""
import sys
for name in {EXTRAS!r}:
    sys.modules[name] = None
from faststream_adapters import *
import faststream_adapters
print(all(name in globals() for name in faststream_adapters.__all__))
app = AsgiFastStream(asgi_routes=[("/path", get(lambda: AsgiResponse()))], asyncapi_path="/docs")
print(len(app.routes))
"""
    assert run(code) == "True\n4\n"


def test_every_core_module_can_be_imported_first() -> None:
    # No cycle of imports that happens to work in one order only.
    code = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRAS!r}))
import faststream
from importlib import import_module
for name in {[path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"]!r}:
    for loaded in [module for module in sys.modules if module.startswith("faststream_adapters")]:
        del sys.modules[loaded]
    import_module(f"faststream_adapters.{{name}}")
"""
    run(code)


def test_all_is_upstreams_and_ours() -> None:
    ours = {
        "BrokerLifespan",
        "FastStream",
        "FastStreamMiddleware",
        "JSONResponse",
        "make_liveness_asgi",
        "make_metrics_asgi",
        "make_readiness_asgi",
        "make_startup_asgi",
    }
    assert set(faststream_adapters.__all__) == {*faststream.asgi.__all__, *ours}
    assert len(set(faststream_adapters.__all__)) == len(faststream_adapters.__all__)
    for name in faststream_adapters.__all__:
        assert hasattr(faststream_adapters, name)


@pytest.mark.parametrize("name", sorted({*faststream.asgi.__all__} - {"AsgiFastStream"}))
def test_nothing_is_upstreams_implementation(name: str) -> None:
    assert getattr(faststream_adapters, name) is not getattr(faststream.asgi, name)


@functools.cache
def names_in_faststream() -> frozenset[str]:
    """Return every private name in FastStream's source."""
    sources = Path(faststream.__file__).parent.rglob("*.py")
    return frozenset(
        name for source in sources for name in re.findall(r"\b_[a-z]\w*", source.read_text(encoding="utf-8"))
    )


def private_names(path: Path) -> set[str]:
    """Return the uses of FastStream's private modules and attributes.

    What a module defines itself is its own, wherever it is used: `self._x`, `cls._x` or `other._x`.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own, used = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _private(node.attr):
            of_self = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
            if isinstance(node.ctx, ast.Store) and of_self:
                own.add(node.attr)
            elif not of_self and node.attr in names_in_faststream():
                used.add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            modules = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            used.update(name for name in modules if name.startswith("faststream.") and "._" in name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "faststream._" in node.value:
            used.add(node.value)
    return used - own


def _private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def test_the_check_of_private_names_finds_them(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("""
import faststream._internal.cli
from faststream._internal.di import FastDependsConfig
from faststream.nats import _private
import_module("faststream._internal.broker")
app._on_startup_calling.append(broker._connection)
broker._connection = client._read_loop_task = None
self._routes = other._routes
_Own._state, named._replace(), module.__name__
class _Own: _state = 1
""")
    assert private_names(module) == {
        "faststream._internal.cli",
        "faststream._internal.di",
        "faststream._internal.broker",
        "_on_startup_calling",
        "_connection",
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_private_names_of_faststream_are_used_in_one_module(path: Path) -> None:
    if path.name == "_compat.py":
        assert "faststream._internal.di" in private_names(path)  # the check does see them
        assert "_on_startup_calling" in private_names(path)
    else:
        assert private_names(path) <= OF_CLIENTS.get(path.stem.partition("_")[0], set())


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize("framework", ["fastapi", "litestar", "quart"])
def test_a_missing_framework_names_the_extra(framework: str) -> None:
    code = f"""
import sys
sys.modules[{framework!r}] = None
try:
    import faststream_adapters.{framework}
except ImportError as error:
    print(error)
"""
    assert f'pip install "faststream-adapters[{framework}]"' in run(code)
