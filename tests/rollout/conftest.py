"""The option `--rollout`, which runs the whole grid and writes its table into docs/faults.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.rollout.flow import Outcome
from tests.rollout.table import REPRESENTATIVE, ROWS, replaced, section

OUTCOMES = pytest.StashKey[list[Outcome]]()
_MESSAGE = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option. pytest knows it only if this directory is given on the command line."""
    parser.addoption("--rollout", metavar="PATH", help="run all rollouts, and write their table to this page")


def pytest_configure(config: pytest.Config) -> None:
    """Create the storage for the outcomes."""
    config.stash[OUTCOMES] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the representative rows, or with the option all of them."""
    if "row" in metafunc.fixturenames:
        rows = ROWS if metafunc.config.getoption("rollout", None) else REPRESENTATIVE
        metafunc.parametrize("row", rows, ids=["-".join(row.names) for row in rows])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collect the outcomes of a worker of pytest-xdist."""
    outcomes: list[Outcome] = node.config.stash[OUTCOMES]
    # A worker that crashed has no output.
    output = getattr(node, "workeroutput", {})
    outcomes += [Outcome(*outcome) for outcome in output.get("rollouts", ())]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In a worker, send the outcomes to the main process. There, write the table if all tests passed."""
    config = session.config
    path = config.getoption("rollout", None)
    if hasattr(config, "workeroutput"):
        config.workeroutput["rollouts"] = [tuple(outcome) for outcome in config.stash[OUTCOMES]]
    elif path and exitstatus == pytest.ExitCode.OK:
        page, outcomes = Path(path), config.stash[OUTCOMES]
        try:
            text = section(ROWS, outcomes)
        except LookupError as error:
            config.stash[_MESSAGE] = f"{path} is not written. {error}"
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
        else:
            page.write_text(replaced(page.read_text(encoding="utf-8"), text), encoding="utf-8")
            config.stash[_MESSAGE] = f"{path} is written."


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Report whether the table was written."""
    if _MESSAGE in config.stash:
        terminalreporter.write_line(config.stash[_MESSAGE])
