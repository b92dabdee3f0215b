"""The two rules of conftest.py: nothing is skipped in secret, no task is left behind."""

import pytest

pytest_plugins = ["pytester"]

SKIPS = """
import pytest

@pytest.mark.skip(reason="no such server here")
def test_marked():
    pass

def test_inside():
    pytest.skip("no such server here")

@pytest.mark.xfail
def test_expected():
    assert False
"""

TASKS = """
import asyncio

async def test_leaves_a_task():
    global task
    task = asyncio.create_task(asyncio.sleep(60))

async def test_leaves_nothing():
    await asyncio.create_task(asyncio.sleep(0))
"""


def run(pytester: pytest.Pytester, module: str) -> pytest.RunResult:
    pytester.makeconftest("from tests.conftest import *\nfrom tests.conftest import _no_task_left")
    pytester.makepyfile(module)
    options = "asyncio_mode=auto", "asyncio_default_fixture_loop_scope=function"
    return pytester.runpytest_inprocess(
        "-p", "no:xdist", *(word for option in options for word in ("-o", option))
    )


def test_a_skip_is_a_skip_unless_it_is_forbidden(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.conftest.NO_SKIP", False)
    run(pytester, SKIPS).assert_outcomes(skipped=2, xfailed=1)
    monkeypatch.setattr("tests.conftest.NO_SKIP", True)
    result = run(pytester, SKIPS)
    result.assert_outcomes(failed=1, xfailed=1, errors=1)
    result.stdout.fnmatch_lines(["*FASTSTREAM_ADAPTERS_NO_SKIP=1 forbids this skip: *no such server here*"])


def test_a_task_that_is_left_behind_is_an_error(pytester: pytest.Pytester) -> None:
    result = run(pytester, TASKS)
    assert result.parseoutcomes()["passed"] == 2
    result.stdout.fnmatch_lines(
        ["*ERROR at teardown of test_leaves_a_task*", "*The test left tasks behind:*"]
    )


def test_a_module_that_is_skipped_is_an_error_when_that_is_forbidden(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.conftest.NO_SKIP", True)
    module = "import pytest\npytest.skip('no such module here', allow_module_level=True)"
    run(pytester, module).assert_outcomes(errors=1)
