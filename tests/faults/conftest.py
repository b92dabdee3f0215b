"""The `fault` fixture, and the option `--fault-table`, which writes docs/faults.md from its measurements."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.matrix import MARKER, Fault, Measured, declared, further_sections, page
from tests.harness.certificates import self_signed

_RUNS = pytest.StashKey[list[Measured]]()
_TABLE = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option. pytest knows it only if this directory is given on the command line."""
    parser.addoption(
        "--fault-table",
        metavar="PATH",
        help="run the tests that measure a fault, and write their measurements to this file",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and the storage for the measurements."""
    config.addinivalue_line("markers", MARKER)
    config.stash[_RUNS] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With the option, run only the tests that measure a fault."""
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
    # The measurements of a failed test are incomplete.
    request.config.stash[_RUNS] += [fault.measured()] if request.session.testsfailed == failed else []


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Return a self-signed certificate for this host. Its key is in the same directory."""
    return self_signed(tmp_path)


@pytest.fixture
def no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable logging, because pytest keeps every record and the objects that it refers to."""
    # logging.disable() does not reach FastStream's logger for librdkafka, which is in no registry.
    monkeypatch.setattr(logging.Logger, "handle", lambda *_: None)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collect the measurements of a worker of pytest-xdist."""
    # A worker that crashed has no output. Its test has failed, so the table is not written.
    output = getattr(node, "workeroutput", {})
    runs: list[Measured] = node.config.stash[_RUNS]
    runs += [Measured(*run) for run in output.get("faults", ())]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In a worker, send the measurements to the main process. There, write the table if all tests passed."""
    config = session.config
    path = config.getoption("fault_table", None)
    if hasattr(config, "workeroutput"):
        config.workeroutput["faults"] = [tuple(run) for run in config.stash[_RUNS]]
    elif path and exitstatus == pytest.ExitCode.OK:
        runs, file = config.stash[_RUNS], Path(path)
        rest = further_sections(file.read_text(encoding="utf-8")) if file.exists() else ""
        try:
            file.write_text(page(declared(), runs) + rest, encoding="utf-8")
        except LookupError as error:
            config.stash[_TABLE] = f"{path} is not written. {error}"
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
        else:
            config.stash[_TABLE] = f"{path} is written."


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Report whether the table was written."""
    if _TABLE in config.stash:
        terminalreporter.write_line(config.stash[_TABLE])
