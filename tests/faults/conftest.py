"""The `fault` fixture, and `--fault-table`, which turns what it measured into docs/faults.md."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.matrix import MARKER, Fault, Measured, declared, page

_RUNS = pytest.StashKey[list[Measured]]()
_TABLE = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option; it is there only when this folder is named on the command line."""
    parser.addoption(
        "--fault-table",
        metavar="PATH",
        help="run the tests that measure a fault, and write what they have measured to this file",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make room for what is measured."""
    config.addinivalue_line("markers", MARKER)
    config.stash[_RUNS] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run only the tests that measure, when they are to be written down."""
    if config.getoption("fault_table", None):
        items[:] = [item for item in items if item.get_closest_marker("fault")]


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Iterator[Fault]:
    """Return the stopwatch for the row that the test declares with `@row(...)`."""
    marker = request.node.get_closest_marker("fault")
    assert marker is not None, "Declare the row: @row(...), see tests/faults/matrix.py."
    fault = Fault(marker.args[0])
    failed = request.session.testsfailed
    yield fault
    # A test that has failed has not stopped its clocks.
    request.config.stash[_RUNS] += [fault.measured()] if request.session.testsfailed == failed else []


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker of pytest-xdist has measured."""
    # A worker that crashed has no output; its test has failed, and then nothing is written.
    output = getattr(node, "workeroutput", {})
    runs: list[Measured] = node.config.stash[_RUNS]
    runs += [Measured(*run) for run in output.get("faults", ())]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Hand the measurements on, or write the table when all tests have passed."""
    config = session.config
    path = config.getoption("fault_table", None)
    if hasattr(config, "workeroutput"):
        config.workeroutput["faults"] = [tuple(run) for run in config.stash[_RUNS]]
    elif path and exitstatus == pytest.ExitCode.OK:
        runs = config.stash[_RUNS]
        try:
            Path(path).write_text(page(declared(), runs), encoding="utf-8")
        except LookupError as error:
            config.stash[_TABLE] = f"{path} is not written. {error}"
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
        else:
            config.stash[_TABLE] = f"{path} is written."


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what became of the table."""
    if _TABLE in config.stash:
        terminalreporter.write_line(config.stash[_TABLE])
