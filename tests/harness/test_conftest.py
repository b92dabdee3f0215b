"""The rules of tests/conftest.py: skips can be forbidden, no task is left behind, reruns are recorded."""

import os
from pathlib import Path

import pytest

from tests.harness.leftovers import lasting

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]

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


FLAKY = """
runs = []

def test_passes():
    runs.append(1)

def test_passes_when_rerun():
    runs.append(2)
    assert runs == [1, 2, 2]

def test_fails():
    assert False
"""


def run(pytester: pytest.Pytester, module: str, *words: str) -> pytest.RunResult:
    pytester.makeconftest("from tests.conftest import *\nfrom tests.conftest import _no_task_left")
    pytester.makepyfile(module)
    options = "asyncio_mode=auto", "asyncio_default_fixture_loop_scope=function"
    words = words or ("-p", "no:xdist")
    words += "-p", "no:faker", *(word for option in options for word in ("-o", option))
    return pytester.runpytest_inprocess(*words)


def test_a_skip_fails_if_skips_are_forbidden(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.conftest.NO_SKIP", False)
    run(pytester, SKIPS).assert_outcomes(skipped=2, xfailed=1)
    monkeypatch.setattr("tests.conftest.NO_SKIP", True)
    result = run(pytester, SKIPS)
    result.assert_outcomes(failed=1, xfailed=1, errors=1)
    result.stdout.fnmatch_lines(["*FASTSTREAM_ADAPTERS_NO_SKIP=1 forbids this skip: *no such server here*"])


def test_a_test_that_leaves_a_task_behind_fails(pytester: pytest.Pytester) -> None:
    result = run(pytester, TASKS)
    assert result.parseoutcomes()["passed"] == 2
    result.stdout.fnmatch_lines(
        ["*ERROR at teardown of test_leaves_a_task*", "*The test left tasks behind:*"]
    )


def test_a_skipped_module_is_an_error_if_skips_are_forbidden(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.conftest.NO_SKIP", True)
    module = "import pytest\npytest.skip('no such module here', allow_module_level=True)"
    run(pytester, module).assert_outcomes(errors=1)


@pytest.mark.parametrize(
    "words", [("-p", "no:xdist"), pytest.param(("-n", "1"), marks=pytest.mark.full)], ids=["alone", "xdist"]
)
def test_reruns_are_recorded(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, pytester.path))))
    reruns = pytester.path / "reruns"
    monkeypatch.setenv("FASTSTREAM_ADAPTERS_RERUNS", str(reruns))
    # pytest-rerunfailures keeps a thread and a socket for the workers of pytest-xdist.
    with lasting():
        result = run(pytester, FLAKY, *words, "--reruns", "2")
        result.assert_outcomes(passed=2, failed=1)
        name = "test_reruns_are_recorded.py::test"
        # Each run except the last one of a test.
        assert reruns.read_text(encoding="utf-8").splitlines() == [
            f"{name}_passes_when_rerun",
            f"{name}_fails",
            f"{name}_fails",
        ]
        monkeypatch.delenv("FASTSTREAM_ADAPTERS_RERUNS")
        reruns.unlink()
        run(pytester, FLAKY, *words, "--reruns", "1")
        assert not reruns.exists()
