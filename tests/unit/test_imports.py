"""The modules that importing the package loads, and the private names of other packages that it uses."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import faststream
import faststream.asgi
import pytest

import faststream_adapters
from tests.harness.brokers import HARNESSES

PACKAGE = Path(faststream_adapters.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
FRAMEWORKS = sorted(path.parent.name for path in PACKAGE.glob("[!_]*/__init__.py"))
"""The adapters."""

NEED_EXTRAS = {*FRAMEWORKS, *HARNESSES}
"""Packages and modules that import a framework or a client."""


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


CORE = [
    module_name(path)
    for path in MODULES
    if not NEED_EXTRAS & {part.removesuffix(".py") for part in path.relative_to(PACKAGE).parts}
]
"""The modules that can be imported without any extra."""

EXTRAS = (
    *FRAMEWORKS,
    *(harness.module for harness in HARNESSES.values()),
    "asyncapi_viewer",
    "brotli",
    "granian",
    "httpx",
    "markdown_it",
    "opentelemetry",
    "prometheus_client",
    "starlette",
    "uvicorn",
    "websockets",
    "yaml",
)
"""The modules that extras install."""


def run(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_loads_no_other_module() -> None:
    code = """
import sys
before = set(sys.modules)
import faststream_adapters
print(sorted(set(sys.modules) - before))
"""
    assert run(code) == "['faststream_adapters']\n"


def test_the_public_names_load_no_third_party_module_besides_faststream() -> None:
    code = """
import sys, sysconfig
import faststream
before = set(sys.modules)
from faststream_adapters import *
import json
import re
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    loaded = json.loads(run(code))
    assert "faststream_adapters._standalone.app" in loaded
    foreign = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names)
    assert foreign == {"faststream_adapters", "faststream"}


def test_the_public_names_need_no_extra() -> None:
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


@pytest.mark.full
def test_each_core_module_can_be_imported_first() -> None:
    # An import cycle may work in one order of imports only.
    code = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRAS!r}))
import faststream
from importlib import import_module
for name in {CORE!r}:
    for loaded in [module for module in sys.modules if module.startswith("faststream_adapters")]:
        del sys.modules[loaded]
    import_module(name)
"""
    run(code)


def test_all_lists_the_public_names() -> None:
    added = {
        "BrokerLifespan",
        "BrokerNotUpError",
        "BrokerStartError",
        "FastStream",
        "FastStreamMiddleware",
        "HealthChange",
        "HealthCheck",
        "HostStartError",
        "JSONResponse",
        "SubscriberInfo",
        "make_liveness_asgi",
        "make_metrics_asgi",
        "make_publish_asgi",
        "make_readiness_asgi",
        "make_startup_asgi",
        "make_status_asgi",
    }
    assert set(faststream_adapters.__all__) == {*faststream.asgi.__all__, *added}
    assert len(set(faststream_adapters.__all__)) == len(faststream_adapters.__all__)
    for name in faststream_adapters.__all__:
        assert hasattr(faststream_adapters, name)
    assert set(faststream_adapters.__all__) <= set(dir(faststream_adapters))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = faststream_adapters.nothing  # type: ignore[attr-defined]


def imported_for_type_checkers() -> set[str]:
    """Return the names that the package's `if TYPE_CHECKING` block imports."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    return {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_type_checkers_see_all_public_names() -> None:
    assert imported_for_type_checkers() == set(faststream_adapters.__all__)


PUBLIC = {
    "__init__.py",
    "drivers.py",
    "probe.py",
    "testing.py",
    *(f"{name}/__init__.py" for name in FRAMEWORKS),
    "fastapi/__main__.py",
    *(f"fastapi/plugin/{name}.py" for name in ("__init__", "confluent", "kafka", "nats", "rabbit", "redis")),
}
"""The modules that users import from."""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_private_modules_have_one_underscore_in_their_path(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    underscores = [part for part in relative.parts if part.startswith("_") and not part.startswith("__")]
    assert len(underscores) == (relative.as_posix() not in PUBLIC)


@pytest.mark.parametrize("name", sorted({*faststream.asgi.__all__} - {"AsgiFastStream"}))
def test_no_public_name_is_an_implementation_of_faststream(name: str) -> None:
    assert getattr(faststream_adapters, name) is not getattr(faststream.asgi, name)


def test_the_package_is_marked_as_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize("framework", FRAMEWORKS)
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
