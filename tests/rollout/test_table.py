"""The table of rollouts contains every row, and every transport, command and fault has a representative."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import load
from tests.faults.matrix import PAGE
from tests.rollout.fleets import UVICORN, Record
from tests.rollout.flow import KILLED, RECIPE, Outcome, Row
from tests.rollout.table import REPRESENTATIVE, ROWS, names_of, replaced, section
from tests.rollout.transports import CORE, REDIS

ONE, TWO = Row(CORE, UVICORN), Row(REDIS, UVICORN, KILLED)


def test_the_page_contains_the_rows() -> None:
    assert names_of(PAGE.read_text(encoding="utf-8")) == [row.names for row in ROWS], "Run `make rollout`."


def test_each_transport_command_and_fault_has_a_representative() -> None:
    for column in zip(*(row.names for row in ROWS), strict=True):
        represented = {name for row in REPRESENTATIVE for name in row.names}
        assert {*column} <= represented


def test_the_section_replaces_the_last_one() -> None:
    old = section([ONE], [Outcome(ONE.names, 10, 1, 2)])
    assert old.splitlines()[-3:] == [
        "| Transport | Served by | Meanwhile | Handled | Again |",
        "| --- | --- | --- | --- | --- |",
        "| core NATS, queue group | uvicorn | - | 9 of 10 | 2 |",
    ]
    new = section([ONE, TWO], [Outcome(TWO.names, 20, 0, 0), Outcome(ONE.names, 10, 0, 0)])
    page = replaced(replaced("# Page\n", old), new)
    assert page.startswith("# Page\n\n## Rollouts\n")
    assert names_of(page) == [ONE.names, TWO.names]


def test_a_row_that_was_not_measured_is_refused() -> None:
    with pytest.raises(LookupError, match=r"Not measured: core NATS, queue group / uvicorn / -\.$"):
        section([ONE], [])


def test_a_record_counts_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "record"
    record = Record(path)
    path.write_text("1 state running\n1 handled 7\n2 handled 7\n2 hand", encoding="utf-8")
    assert record.handled() == {7: 2}
    with path.open("a", encoding="utf-8") as file:
        file.write("led 8\n2 state stopped\n")
    assert record.handled() == {7: 2, 8: 1}
    assert (record.processes("running"), record.processes("stopped")) == ({1}, {2})


pytest_plugins = ["pytester"]

MODULE = """
from tests.rollout.conftest import OUTCOMES
from tests.rollout.flow import Outcome

def test_row(row, request):
    request.config.stash[OUTCOMES].append(Outcome(row.names, 10, 0, 0))
"""


@pytest.fixture
def two_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.rollout.conftest.ROWS", [ONE, TWO])


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    pytester.makeconftest("from tests.rollout.conftest import *")
    pytester.makepyfile(MODULE)
    (pytester.path / "page.md").write_text("# Page\n", encoding="utf-8")
    options = "-p", "no:faker", "-p", "no:rerunfailures", "-o", "asyncio_default_fixture_loop_scope=function"
    return pytester.runpytest_inprocess(*options, *arguments)


@pytest.mark.usefixtures("two_rows")
@pytest.mark.parametrize(
    "parallel",
    [
        pytest.param(("-p", "no:xdist"), id="one process"),
        pytest.param(("-n", "1"), id="xdist", marks=pytest.mark.full),
    ],
)
def test_the_option_writes_the_section(pytester: pytest.Pytester, parallel: tuple[str, ...]) -> None:
    result = run(pytester, *parallel, "--rollout", "page.md")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["page.md is written."])
    text = (pytester.path / "page.md").read_text(encoding="utf-8")
    assert text.startswith("# Page\n\n## Rollouts\n")
    assert names_of(text) == [ONE.names, TWO.names]


@pytest.mark.usefixtures("two_rows")
def test_no_section_is_written_if_a_row_is_missing(pytester: pytest.Pytester) -> None:
    result = run(pytester, "-p", "no:xdist", "--rollout", "page.md", "-k", "Redis")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(
        ["page.md is not written. Not measured: core NATS, queue group / uvicorn / -."]
    )
    assert (pytester.path / "page.md").read_text(encoding="utf-8") == "# Page\n"


@pytest.mark.full
def test_only_representative_rows_run_without_the_option(pytester: pytest.Pytester) -> None:
    result = run(pytester, "-p", "no:xdist")
    result.assert_outcomes(passed=len(REPRESENTATIVE))
    result.stdout.no_fnmatch_line("*written*")


async def test_the_documented_recipe_publishes_until_it_is_confirmed(tmp_path: Path) -> None:
    attempts = 0

    async def publish() -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise ConnectionError

    await load(RECIPE.code, tmp_path).publish_until_confirmed(publish)
    assert attempts == 3
