"""`python -m faststream_adapters.fastapi check` lists what a migration must look at."""

import subprocess
import sys
from pathlib import Path

import pytest

from faststream_adapters.fastapi.__main__ import main

PLUGIN = "from faststream.nats.fastapi import Logger, NatsMessage, NatsRouter"
STAND_IN = "from faststream_adapters.fastapi.plugin.nats import NatsRouter"


@pytest.fixture
def found(tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> list[str]:
    """Return the lines about files, whose contents are the parameter, without the directory."""
    files: dict[str, str] = request.param
    for name, code in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    exit_code = main(["check", str(tmp_path)])
    lines = lines_of(capsys, tmp_path)
    assert exit_code == bool(lines)
    return lines


def lines_of(capsys: pytest.CaptureFixture[str], directory: Path) -> list[str]:
    lines = capsys.readouterr().out.replace(f"{directory}/", "").splitlines()
    return [] if lines == ["Nothing to look at."] else lines


def code(*lines: str, imported: str = PLUGIN) -> dict[str, str]:
    return {"main.py": "\n".join((imported, *lines))}


def handler(parameters: str, decorator: str = '@router.subscriber("orders")') -> dict[str, str]:
    return code(decorator, f"async def handle({parameters}): ...")


@pytest.mark.parametrize(
    "found",
    [
        handler("item: str"),
        handler("item: str", "@router.subscriber('orders')\n@router.publisher('bills')"),
        handler("item"),
        handler("item: str | None = None"),
        handler("item: Optional[int], *, logger: Logger"),
        handler("item: Annotated[str, Field(max_length=3)], price: Annotated[int, Depends(price)]"),
        handler("item: str, message: NatsMessage, session=Depends(session)"),
        handler("item: str, session: SessionDep"),
        handler("order: Order, user: int"),
        handler("self, item: str"),
        code("@router.subscriber('orders')", "def handle(item: str): ...", imported=STAND_IN),
    ],
    indirect=True,
)
def test_one_scalar_parameter_is_found(found: list[str]) -> None:
    [line] = found
    assert line.startswith("main.py:")
    assert "receives the field '" in line


@pytest.mark.parametrize(
    "found",
    [
        {"main.py": 'import faststream\n@broker.subscriber("orders")\nasync def handle(item: str): ...'},
        handler("order: Order"),
        handler("item: str, count: int"),
        handler("items: list[int], logger: Logger"),
        handler("order: 'Order'"),
        handler("message: NatsMessage"),
        handler(""),
        handler("item: str", "@router.get('/')"),
        code("request.state.settings, app.broker, NatsRouter('a'), NatsRouter('b')"),
        code(
            "@router.after_startup", "def up(): ...", "router.on_broker_shutdown(up)", "after_startup(other)"
        ),
        code("from faststream.nats import NatsRouter as Group", "Group('a'), Group('a'), NatsRouter('a')"),
        {
            **code(),
            "tests/conftest.py": "app.dependency_overrides",
            "test_app.py": "app.dependency_overrides",
        },
        {**code(), "venv/lib.py": "app.dependency_overrides"},
    ],
    indirect=True,
)
def test_nothing_is_found_where_nothing_changes(found: list[str]) -> None:
    assert found == []


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (code("app.dependency_overrides[a] = b"), {2: "also apply to subscribers"}),
        (code("try: ...", "except RequestValidationError: ..."), {3: "pydantic's ValidationError"}),
        (code("@app.exception_handler(exceptions.RequestValidationError)", "def f(): ..."), {2: "pydantic"}),
        (code("await request.state.broker.publish(1)"), {2: "use Depends(provide_broker(...))"}),
        (code("@router.after_startup", "def up(app): ..."), {3: 'Context("host")'}),
        (code("async def up(app): ...", "router.after_startup(up)"), {2: 'Context("host")'}),
        (code("router.on_broker_shutdown(lambda app: None)"), {2: 'Context("host")'}),
        (code("a = NatsRouter(url)", "b = NatsRouter(servers=url)"), {2: "same server", 3: "same server"}),
        (
            code("NatsRouter(timeout=1)", "from faststream.nats import NatsBroker", "NatsBroker()"),
            {2: "same server", 4: "same server"},
        ),
        (code("def f(:"), {2: "not valid in this version"}),
    ],
    indirect=["found"],
)
def test_what_changes_is_found(found: list[str], expected: dict[int, str]) -> None:
    assert len(found) == len(expected)
    for line, (number, text) in zip(found, expected.items(), strict=True):
        assert line.startswith(f"main.py:{number}: ")
        assert text in line


@pytest.mark.parametrize(
    "found", [{**code("NatsRouter(url)"), "other.py": code("NatsRouter(url)")["main.py"]}], indirect=True
)
def test_a_second_broker_is_found_in_another_file(found: list[str]) -> None:
    assert [line.partition(":")[0] for line in found] == ["main.py", "other.py"]


def test_the_command_takes_a_file(tmp_path: Path) -> None:
    path = tmp_path / "main.py"
    path.write_text(handler("item: str")["main.py"])
    command = [sys.executable, "-m", "faststream_adapters.fastapi", "check"]
    result = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.startswith(f"{path}:3: 'handle' receives the field 'item'")


def test_a_path_that_does_not_exist_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["check", "/none"])
    assert capsys.readouterr().err.endswith("There is no /none.\n")
